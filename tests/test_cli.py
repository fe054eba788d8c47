import dataclasses
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
import yaml

from finetune import cli, config_files
from recipes import compare, search
from recipes.language_model import LanguageModelConfig
from recipes.ner import NerConfig
from recipes.pretrain import PretrainConfig
from recipes.question_answering import QuestionConfig
from recipes.sentiment import SentimentConfig
from recipes.seq2seq import Seq2SeqConfig

ROOT = Path(__file__).parents[1]
RECIPES = {"ner": NerConfig, "pretrain": PretrainConfig, "sentiment": SentimentConfig, "seq2seq": Seq2SeqConfig}
RECIPES |= {"question_answering": QuestionConfig, "language_model": LanguageModelConfig}


def write(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    return str(tmp_path / "c.yaml")


def test_yaml_then_flags(tmp_path):
    file = write(
        tmp_path,
        "learning_rate: 3e-4\nmax_seq_length: 64\neval_strategy: no\nload_best_model_at_end: false\nhead: null\n",
    )
    config = cli.parse(NerConfig, ["--max_seq_length", "32", "--config", file])
    assert config.learning_rate == 3e-4
    assert config.max_seq_length == 32
    assert config.eval_strategy == "no"
    assert config.load_best_model_at_end is False
    assert config.head == "linear"
    assert cli.parse(NerConfig, [f"--config={file}"]).max_seq_length == 64


def test_a_later_config_overrides_an_earlier_one(tmp_path):
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    files[0].write_text("seed: 1\nmax_steps: 5\n")
    files[1].write_text("seed: 2\n")
    config = cli.parse(NerConfig, ["--config", str(files[0]), f"--config={files[1]}"])
    assert (config.seed, config.max_steps) == (2, 5)


def test_round_trip(tmp_path):
    config = NerConfig(
        train_file="a: b #c",
        label_column_name="-1",
        learning_rate=1e-5,
        overwrite_output_dir=True,
        head="crf",
    )
    assert cli.parse(NerConfig, ["--config", write(tmp_path, config_files.to_yaml(config))]) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nmax_len: 3\n", r"c.yaml:2: unknown flag 'max_len'"),
        ("max_seq_length: many\n", "c.yaml:1: max_seq_length: invalid int value: 'many'"),
        ("seed: 1\neval_strategy: sometimes\n", "c.yaml:2: eval_strategy: invalid choice: 'sometimes'"),
        ("seed: [1, 2]\n", r"c.yaml:1: seed takes one plain value"),
        ("- seed\n", r"c.yaml:1: a config is a mapping"),
        ("a: b: c\n", "not a YAML file"),
    ],
)
def test_mistakes_in_yaml(tmp_path, capsys, text, message):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(NerConfig, ["--config", write(tmp_path, text)])
    assert stopped.value.code == 2
    import re

    assert re.search(message, capsys.readouterr().err)


def test_a_missing_config_and_no_abbreviations(capsys):
    for argv in (["--config", "nope.yaml"], ["--learning", "1"], ["--config"]):
        with pytest.raises(SystemExit) as stopped:
            cli.parse(NerConfig, argv)
        assert stopped.value.code == 2
    assert "nope.yaml: No such file" in capsys.readouterr().err


def test_every_recipe_config_loads():
    files = list((ROOT / "recipes/configs").rglob("*.yaml"))
    checked = 0
    for file in files:
        if file.parent.name in RECIPES:
            config = cli.parse(RECIPES[file.parent.name], ["--config", str(file)])
            written = yaml.safe_load(file.read_text())
            for key in written:
                assert key in {field.name for field in dataclasses.fields(config)}
            checked += 1
        elif file.parent.name == "compare":
            compared = compare.parse(["--config", str(file)])
            assert list(compared.models) == list(yaml.safe_load(file.read_text())["models"])
            checked += 1
        elif file.parent.name == "search":
            assert list(search.parse(["--config", str(file)]).search) == list(
                yaml.safe_load(file.read_text())["search"]
            )
            checked += 1
    assert checked == len(files) - len(list((ROOT / "recipes/configs/accelerate").glob("*.yaml")))
    assert checked >= 8


def test_every_launch_file_is_known_to_accelerate():
    from accelerate.commands.config.config_args import load_config_from_file

    files = list((ROOT / "recipes/configs/accelerate").glob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        loaded = load_config_from_file(str(file))
        assert loaded.num_processes >= 1, file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 100_000, "run.yaml: not a YAML file: "),
        ("max_seq_length: 2001-13-45\n", "run.yaml:1: 'max_seq_length' has the invalid value '2001-13-45'"),
        ("a: 1\nb: !!python/object/apply:os.getcwd []\n", None),
        ("x: '" + "x" * 2**18 + "'", "run.yaml: too large for a file that a run writes"),
        ("a: \0", "run.yaml: not a YAML file: "),
        ("[1, 2]", None),
        ("", None),
    ],
)
def test_a_run_yaml_of_a_stranger(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    if message is None:
        assert config_files.read_settings(file) in ({}, {"a": 1})
        return
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))}/{re.escape(message)}") as refused:
        config_files.read_settings(file)
    assert len(str(refused.value)) < 600


def test_aliases_stand_for_nothing(tmp_path):
    """Each line is ten times the one before: 450 bytes, a thousand million words."""
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 9)]
    file = tmp_path / "run.yaml"
    file.write_text("\n".join([*lines, "max_seq_length: *a8", "doc_stride: 3"]))
    tracemalloc.start()
    assert config_files.read_settings(file) == {"doc_stride": 3}
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_what_a_run_writes_is_read_back(tmp_path):
    config = RECIPES["ner"](train_file="a: b\x1b\n#", learning_rate=1e-7, doc_stride=None, eval_strategy="no")
    (tmp_path / "run.yaml").write_text(config_files.to_yaml(config))
    assert config_files.read_settings(tmp_path / "run.yaml") == dataclasses.asdict(config)


def test_what_comes_from_a_file_does_not_steer_the_terminal():
    script = (
        "import logging, transformers\n"
        "from finetune import cli\n"
        "def recipe(config):\n"
        "    logging.getLogger('finetune.models').warning('%s here', 'a\\x1b[2Jb')\n"
        "    transformers.logging.get_logger('transformers.x').warning('\\x9b2J')\n"
        "    raise ValueError('no \\x1b]0;title\\x07 or \\udc80 \u200c \u00e9')\n"
        "cli.run(recipe, None)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=ROOT)
    assert "a\\x1b[2Jb here" in done.stderr
    assert "\\x9b2J" in done.stderr
    assert done.stderr.strip().endswith("error: no \\x1b]0;title\\x07 or \\udc80 \u200c \u00e9")
    assert not set(done.stderr) & {chr(i) for i in (*range(9), *range(11, 32), *range(127, 160))}


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU")
def test_a_launch_file_for_gpus_needs_one(tmp_path):
    """Its answer comes before the one of the recipe, which has no model here."""
    for name, answer in (
        (
            "one_gpu_bf16",
            "one_gpu_bf16.yaml: this launch file is for GPUs (use_cpu: false), but torch finds none here",
        ),
        ("cpu", "error: --model_name_or_path is missing"),
    ):
        file = ROOT / f"recipes/configs/accelerate/{name}.yaml"
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "recipes/predict.py"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT, stdin=subprocess.DEVNULL
        )
        assert done.returncode != 0
        assert answer in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU's OpenMP, which torch has on Linux")
@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "77"}])
def test_waiting_threads_spin_for_a_short_time_where_nothing_else_was_asked_for(given):
    """As OpenMP itself says it, when a recipe has loaded torch."""
    kept = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for module in ("recipes.demo, torch", "recipes.gradient_flow"):
        command = [sys.executable, "-c", f"import {module}"]
        environment = kept | {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT)} | given
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
        said = {int(number) for number in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)}
        if "OMP_WAIT_POLICY" in given:
            assert min(said) > 10**9
        else:
            assert said == {int(given.get("GOMP_SPINCOUNT", 1000))}


def test_help_shows_each_flag_once_and_the_first_ones_first(capsys):
    for config_class in RECIPES.values():
        with pytest.raises(SystemExit):
            cli.parse(config_class, ["--help"])
        shown = re.findall(r"^  --(\w[\w-]*)", capsys.readouterr().out, re.MULTILINE)
        fields = {field.name for field in dataclasses.fields(config_class)}
        assert sorted(shown) == sorted(fields | {"config", "help"})
        assert shown[:4] == ["dataset_name", "train_file", "validation_file", "test_file"]


def test_configs_by_name_and_a_slip_in_one(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = cli.parse(NerConfig, ["--config", "ner/wnut17"])
    assert config == cli.parse(NerConfig, ["--config", str(ROOT / "recipes/configs/ner/wnut17.yaml")])
    assert list(compare.parse(["--config", "compare/wnut17"]).models)
    with pytest.raises(SystemExit):
        cli.parse(NerConfig, ["--config", "ner/wnut71"])
    assert "--config ner/wnut71: No such file; did you mean ner/wnut17?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "program", "command"),
    [
        (["/venv/bin/finetune", "ner"], "finetune ner", "finetune predict"),
        (["/x/recipes/__main__.py", "ner"], "finetune ner", "python -m recipes predict"),
        (["recipes/ner.py"], "ner.py", "python recipes/predict.py"),
        (["/home/me/script.py"], "script.py", None),
    ],
)
def test_a_command_is_told_as_this_one_was_started(monkeypatch, argv, program, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert (cli.program(), cli.command("predict")) == (program, command)


def test_a_program_that_reads_no_further_is_no_traceback():
    """`... | head -1`: the pipe is closed after the first line."""
    code = (
        "from finetune import cli\ncli.run(lambda config: [print('x' * 9999, flush=True) for _ in range(999)], None)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout.readline().startswith("x")
        it.stdout.close()
        said = it.stderr.read()
    assert (it.returncode, said) == (1, "")


def test_a_label_that_the_terminal_cannot_show_is_no_error():
    code = "from finetune import cli\ncli.run(lambda config: print('\\xe9t\\xe9'), None)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.stdout == b"\\xe9t\\xe9\n"
