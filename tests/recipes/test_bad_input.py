"""docs/ERRORS.md: each of its rows, and that the document is what the cases say."""

import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from bad_input import ERRORS, GROUPS, OTHERS, Case, document

from finetune import data, files
from finetune.arguments import DataArguments
from recipes import (
    check_data,
    compare,
    distil,
    language_model,
    ner,
    pretrain,
    question_answering,
    search,
    sentiment,
    seq2seq,
    serve,
    verify,
)
from recipes.ner import NerConfig, finetune_ner

ROOT = Path(__file__).parents[2]
RECIPES = {"ner": ner, "pretrain": pretrain, "question_answering": question_answering, "sentiment": sentiment}
RECIPES |= {
    "seq2seq": seq2seq,
    "language_model": language_model,
    "search": search,
    "distil": distil,
    "compare": compare,
}
TRAINING = set(RECIPES)  # these write to an output_dir
RECIPES |= {"serve": serve, "verify": verify, "check_data": check_data}
CASES = [pytest.param(case, id=f"{group}: {case.what}") for group, cases in GROUPS.items() for case in cases]
SHAPE = {"hidden_size": 8, "embedding_size": 8, "char_features": "none"}  # of baselines
TINY = SHAPE | {
    "dataset_name": "samples",
    "model_name_or_path": "rnn",
    "max_seq_length": 32,
    "max_train_samples": 20,
    "max_eval_samples": 6,
    "disable_tqdm": True,
}


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def answer_of(command: list[str], capsys) -> tuple[str, int]:
    """What a command says when it ends with a non-zero exit status, and the status."""
    with pytest.raises(SystemExit) as ended:
        RECIPES[command[0]].main(command[1:])
    if isinstance(ended.value.code, str):  # Python prints it, with status 1
        return ended.value.code.removeprefix("error: "), 1
    return capsys.readouterr().err.strip().splitlines()[-1].partition(" error: ")[2], int(ended.value.code or 0)


@pytest.mark.parametrize("case", CASES)
def test_the_answer(case: Case, checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if case.model:
        shutil.copytree(checkpoints[case.model], "model")
    for name, content in case.files.items():
        path = Path(name)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = everything(tmp_path)
    command = shlex.split(case.command)
    if command[0] in TRAINING:
        command += ["--disable_tqdm", "true"] + ([] if "--output_dir" in command else ["--output_dir", "out"])
    answer, status = answer_of(command, capsys)
    expected = ".*".join(map(re.escape, case.answer.split("…")))
    assert re.fullmatch(expected, answer), answer  # `.` is no line end: one line
    assert len(answer) < 500
    assert files.printable(answer) == answer, "nothing steers the terminal"
    assert status == case.status
    left = {name: content for name, content in everything(tmp_path).items() if not name.startswith(f"{tmp_path}/out")}
    assert left == before
    assert tuple(sorted(path.name for path in Path("out").rglob("*"))) == case.leaves
    assert Path("out").exists() == bool(case.leaves)


def test_the_document_holds_these_cases():
    assert ERRORS.read_text(encoding="utf-8") == document(), "run python tests/recipes/bad_input.py"
    names = [case.what for cases in GROUPS.values() for case in cases]
    assert len(names) > 80
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for rows in OTHERS.values():
        for *_, test in rows:
            assert f"\ndef {test}(" in tests


def read(path: Path, text: str | bytes, reader=data.read_labelled, **settings):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return reader(DataArguments(train_file=str(path), **settings))["train"]


def test_mixed_line_ends(tmp_path):
    ends = itertools.cycle(["\n", "\r\n", "\r"])
    words = [f"w{i}" for i in range(30)]
    text = "".join(f"{word}\tB-X{next(ends)}" for word in words)
    assert read(tmp_path / "a.conll", text, data.read_tagged)["tokens"][:] == [words]
    for name, mark in (("a.csv", ","), ("a.tsv", "\t")):
        text = f"text{mark}label\n" + "".join(f"{word}{mark}1{next(ends)}" for word in words)
        rows = read(tmp_path / name, text)
        assert rows["text"][:] == words
        assert rows["line"][:] == list(range(2, 32))
    text = "".join(json.dumps({"text": word, "label": 1}) + next(ends) for word in words)
    assert read(tmp_path / "a.jsonl", text)["text"][:] == words


def test_long_lines(tmp_path, tokenizers):
    long = "abcdefghi " * 1_000_000
    for name, text in (
        ("a.csv", f"text,label\n{long},1\nb,0\n"),
        ("a.tsv", f"text\tlabel\n{long}\t1\nb\t0\n"),
        ("a.jsonl", json.dumps({"text": long, "label": 1}) + "\n" + json.dumps({"text": "b", "label": 0})),
    ):
        assert read(tmp_path / name, text)["text"][:] == [long, "b"], name
    word = long.replace(" ", "")
    for text in (f"{word}\tB-X\nb\tO\n", f"b O\n{word} B-X\n"):
        rows = read(tmp_path / "a.conll", text, data.read_tagged)
        assert sorted(rows["tokens"][0]) == sorted([word, "b"])
    rows = read(tmp_path / "a.conll", f"{word[:1_000_000]}\tB-X\nb\tO\n", data.read_tagged)
    for tokenizer in tokenizers.values():
        aligned = data.align(rows, tokenizer, data.entity_labels(rows), max_seq_length=32)
        assert aligned.to_words(np.zeros(len(aligned.word_of_token), int))[1] == 2
    (tmp_path / "a.txt").write_text(f"{long}\n\nb\n")
    corpus = pretrain.PretrainConfig(train_file=str(tmp_path / "a.txt"), validation_split_percentage=0)
    assert [document.sentences for document in data.read_corpus(corpus)["train"][0]] == [[long.strip()], ["b"]]


def test_many_labels(tmp_path, tokenizers):
    rows = read(tmp_path / "a.csv", "text,label\n" + "".join(f"a,l{i}\n" for i in range(100_000)))
    labels = data.class_labels(rows)
    assert sorted(labels) == sorted(f"l{i}" for i in range(100_000))
    rows = read(tmp_path / "a.conll", "".join(f"w\tB-T{i}\n\n" for i in range(100_000)), data.read_tagged)
    labels = data.entity_labels(rows)
    assert len(labels) == 200_001
    for every in (False, True):
        aligned = data.align(rows, tokenizers["wordpiece"], labels, max_seq_length=8, label_all_tokens=every)
        assert [labels[i] for i in aligned.gold[:3]] == ["B-T0", "B-T1", "B-T2"]
        assert aligned.words == 100_000


@pytest.mark.parametrize("model", ["wordpiece", "bilstm"])
def test_empty_rows(model, checkpoints, tmp_path):
    texts = [{"text": "", "label": 1}, {"text": "good", "label": 1}, {"text": "\u200e", "label": 0}]
    sentences = [{"tokens": [], "ner_tags": []}, {"tokens": ["Ada"], "ner_tags": ["B-PER"]}]
    for name, rows in (("texts", texts), ("sentences", sentences), ("none", sentences[:1] * 2)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {key: value for key, value in TINY.items() if model == "bilstm" or key not in SHAPE} | {
        "dataset_name": None,
        "model_name_or_path": str(checkpoints.get(model, model)),
        "max_steps": 2,
        "max_train_samples": None,
    }
    files = {"train_file": str(tmp_path / "texts.jsonl"), "validation_file": str(tmp_path / "texts.jsonl")}
    result = sentiment.finetune_sentiment(
        sentiment.SentimentConfig(**given | files, output_dir=str(tmp_path / "sentiment"))
    )
    assert len((result.output_dir / "predictions_eval.tsv").read_text().splitlines()) == 4
    for evaluated, words in (("sentences", 1), ("none", 0)):
        files = {
            "train_file": str(tmp_path / "sentences.jsonl"),
            "validation_file": str(tmp_path / f"{evaluated}.jsonl"),
        }
        result = finetune_ner(NerConfig(**given | files, output_dir=str(tmp_path / evaluated)))
        assert result.results["eval_words"] == result.results["eval_words_scored"] == words


def test_a_clock_that_runs_backwards(tmp_path, monkeypatch):
    settings = TINY | {"save_strategy": "steps", "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    settings |= {"max_steps": 6, "save_total_limit": 9}
    right = finetune_ner(NerConfig(**settings, output_dir=str(tmp_path / "right")))
    hours = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    back = finetune_ner(NerConfig(**settings, output_dir=str(tmp_path / "back")))
    assert 0 < back.results["train_runtime"] < 60
    assert 0 <= back.results["eval_runtime"] < 60
    for folder in (tmp_path / "back").glob("checkpoint-*"):  # the newest by its time is the first
        os.utime(folder, (2e9 - int(folder.name.split("-")[1]),) * 2)
    shutil.rmtree(tmp_path / "back/checkpoint-6")
    finetune_ner(NerConfig(**settings, output_dir=str(tmp_path / "back"), resume_from_checkpoint="true"))
    history = [json.loads(line) for line in (tmp_path / "back/history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history if "eval_f1" in line] == [2, 4, 6]
    same = ["model.safetensors", "predictions_test.conll"]
    for name in same:
        assert (tmp_path / "back" / name).read_bytes() == (right.output_dir / name).read_bytes()


def test_code_beside_a_known_model_is_not_run(checkpoints, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    shutil.copytree(checkpoints["wordpiece"], "model")
    Path("model/own.py").write_text("open('RUN', 'w')\nclass Own:\n    pass\n")
    elsewhere = {"_name_or_path": "../elsewhere", "name_or_path": "/elsewhere", "output_dir": "../elsewhere"}
    changes = {
        "config.json": {"auto_map": {"AutoConfig": "own.Own", "AutoModelForTokenClassification": "own.Own"}},
        "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
        | {"vocab_file": "../elsewhere", "tokenizer_file": "../elsewhere", "chat_template": "{{ 1 / 0 }}"},
    }
    for name, change in changes.items():
        path = Path("model", name)
        path.write_text(json.dumps(json.loads(path.read_text()) | elsewhere | change))
    before = everything(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))  # to whoever asks
    own = {key: value for key, value in TINY.items() if key not in SHAPE}
    finetune_ner(NerConfig(**own | {"model_name_or_path": "model", "output_dir": "out", "max_steps": 1}))
    assert sys.stdin.read() == "y\n" * 9
    out = f"{tmp_path}/home/out"
    assert {name: what for name, what in everything(tmp_path).items() if not name.startswith(out)} == before


def test_a_folder_that_is_not_writable(capsys):
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.getuid() == 0
    try:
        if root:  # whom no mode stops
            os.setresuid(65534, 65534, 0)
        answer = answer_of(["ner", "--dataset_name", "samples", "--output_dir", f"{folder}/out"], capsys)
    finally:
        if root:
            os.setresuid(0, 0, 0)
        shutil.rmtree(folder)
    assert answer == (f"--output_dir {folder}/out: {folder} is not writable", 1)


@pytest.mark.parametrize(
    "asked",
    [
        ("--cpu", "--num_processes", "2"),
        ("--config_file", "recipes/configs/accelerate/cpu_two_processes.yaml"),
    ],
)
def test_a_dead_process_ends_the_run(tmp_path, asked):
    settings = TINY | {"num_train_epochs": 100_000, "logging_steps": 1, "output_dir": tmp_path / "run"}
    settings |= {"eval_strategy": "no", "save_strategy": "no"}
    launcher = subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", *asked, "recipes/ner.py"]
        + [f"--{name}={value}" for name, value in settings.items()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    workers = []
    try:
        history = tmp_path / "run/history.jsonl"
        while not (history.is_file() and history.read_text()):
            assert launcher.poll() is None, launcher.communicate()[0][-3000:]
            time.sleep(0.2)
        children = psutil.Process(launcher.pid).children(recursive=True)
        workers = [child for child in children if not child.children() and "RANK" in child.environ()]
        assert len(workers) == 2
        assert all(
            worker.environ()["ACCELERATE_USE_CPU"].lower() == "true" for worker in workers
        )  # also beside a GPU
        second = next(child for child in workers if child.environ()["RANK"] == "1")
        second.send_signal(signal.SIGKILL)
        said = launcher.communicate(timeout=300)[0]
    finally:
        for process in [*workers, launcher]:
            if process.is_running() if isinstance(process, psutil.Process) else process.poll() is None:
                process.kill()
    assert launcher.returncode == 1
    assert f"Signal 9 (SIGKILL) received by PID {second.pid}" in said
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert not (tmp_path / "run/all_results.json").exists()
