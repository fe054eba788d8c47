"""The pretraining recipe as a user runs it: every objective, what comes out, resume, two processes, mistakes."""

import json
from pathlib import Path

import pytest
from processes import run_script
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from finetune import cli, data, training
from finetune.training import folder as own
from recipes.ner import NerConfig, finetune_ner
from recipes.pretrain import PretrainConfig, pretrain

ROOT = Path(__file__).parents[2]
FILES = {
    ".lock",
    ".written",
    "README.md",
    "all_results.json",
    "config.json",
    "history.jsonl",
    "model.safetensors",
    "run.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
}
NEW = {
    "bert": {"config_name": "bert", "tokenizer_name": "wordpiece"},
    "sop": {"config_name": "bert", "tokenizer_name": "wordpiece"},
    "roberta": {"config_name": "roberta", "tokenizer_name": "byte-bpe"},
    "xlm-r": {"config_name": "xlm-roberta", "tokenizer_name": "unigram"},
    "tlm": {"config_name": "xlm-roberta", "tokenizer_name": "unigram"},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, sample_texts):
    folder = tmp_path_factory.mktemp("corpus")
    groups = ["\n".join(sample_texts[i : i + 6]) for i in range(0, 240, 6)]
    (folder / "en.txt").write_text("\n\n".join(groups))
    (folder / "xx.txt").write_text("\n\n".join(group.upper() for group in groups[:8]))
    rows = [f"{text}\t{text.upper()}" for text in sample_texts[:60]]
    (folder / "pairs.tsv").write_text("\n".join(["en\txx", *rows]) + "\n")
    return folder


def tiny(corpus, output_dir, objective="bert", **settings):
    files = {"xlm-r": f"{corpus}/*.txt", "tlm": f"{corpus}/pairs.tsv"}
    return {
        "objective": objective,
        "train_file": files.get(objective, f"{corpus}/en.txt"),
        "parallel_columns": "en,xx" if objective == "tlm" else None,
        "validation_split_percentage": 20.0,
        "output_dir": str(output_dir),
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "vocab_size": 400,
        "max_seq_length": 48,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "disable_tqdm": True,
    } | NEW[objective] | settings  # fmt: skip


def without_times(results):
    return {k: v for k, v in results.items() if "runtime" not in k and "per_second" not in k and "memory" not in k}


def run(*command, code=0, processes=0):
    done = run_script(*command, processes=processes)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def flags(settings):
    return [f"--{key}={value}" for key, value in settings.items() if value is not None]


@pytest.mark.parametrize("objective", list(NEW))
def test_every_objective(objective, corpus, tmp_path):
    result = pretrain(PretrainConfig(**tiny(corpus, tmp_path / "run", objective)))
    assert {path.name for path in result.output_dir.iterdir() if path.is_file()} == FILES
    assert own.not_written(result.output_dir) is None, "the run may be overwritten"
    scores = result.results
    expected = {"eval_mlm_loss", "eval_mlm_perplexity", "eval_mlm_accuracy", "eval_loss", "unigram_entropy"}
    expected |= {"bert": {"eval_nsp_accuracy", "eval_nsp_majority"}, "sop": {"eval_sop_accuracy"}}.get(
        objective, set()
    )
    if objective == "xlm-r":
        expected |= {"eval_mlm_loss_en", "eval_mlm_loss_xx"}
    if objective == "tlm":
        expected |= {"eval_mlm_loss_with_translation", "eval_mlm_loss_with_other"}
    assert expected <= scores.keys()
    assert json.loads((result.output_dir / "all_results.json").read_text()) == scores
    line = result.history[0]
    assert ("nsp_loss" in line) == (objective in ("bert", "sop"))
    assert line["loss"] == pytest.approx(line.get("mlm_loss", line["loss"]) + line.get("nsp_loss", 0.0))
    # The output bias starts at the unigrams, so the first loss is about their entropy.
    assert abs(line.get("mlm_loss", line["loss"]) - scores["unigram_entropy"]) < 0.5
    filled = pipeline("fill-mask", model=str(result.output_dir))
    assert len(filled(f"the {filled.tokenizer.mask_token} was here")) == 5
    assert "fill-mask" in (result.output_dir / "README.md").read_text()
    assert cli.parse(PretrainConfig, ["--config", str(result.output_dir / "run.yaml")]).objective == objective


def test_a_hundred_lines_without_a_blank_one_are_a_corpus(tmp_path, sample_texts):
    """One document: the last of its sentences are held out."""
    (tmp_path / "a.txt").write_text("\n".join(sample_texts[:100]) + "\n")
    settings = tiny(tmp_path, tmp_path / "run", "roberta", max_steps=1, validation_split_percentage=5.0)
    result = pretrain(PretrainConfig(**settings | {"train_file": str(tmp_path / "a.txt")}))
    assert result.results["eval_masked"] > 0
    words = len(" ".join(sample_texts[95:100]).split())
    assert 0.1 * words < result.results["eval_masked"] < words


@pytest.mark.parametrize("form", ["segment_pair", "sentence_pair", "full_sentences", "doc_sentences"])
def test_every_input_form(form, corpus, tmp_path):
    settings = tiny(corpus, tmp_path / "run", "roberta", input_form=form, masking="span", max_steps=2)
    result = pretrain(PretrainConfig(**settings))
    assert "eval_nsp_accuracy" not in result.results
    assert result.results["eval_mlm_loss"] < 7


def test_what_comes_out_goes_into_another_recipe(corpus, tmp_path):
    pretrain(PretrainConfig(**tiny(corpus, tmp_path / "bert", max_steps=3)))
    again = tiny(corpus, tmp_path / "again", max_steps=2, model_name_or_path=str(tmp_path / "bert"))
    for name in ("config_name", "tokenizer_name", "num_hidden_layers", "hidden_size", "vocab_size"):
        again.pop(name)
    first = json.loads((tmp_path / "bert/all_results.json").read_text())
    second = pretrain(PretrainConfig(**again | {"learning_rate": 1e-9}))
    # Continued at a learning rate of nothing: the heads were kept, so the scores are those of before.
    assert second.results["eval_mlm_loss"] == pytest.approx(first["eval_mlm_loss"], rel=1e-4)
    assert second.results["eval_nsp_accuracy"] == first["eval_nsp_accuracy"]
    tagger = finetune_ner(
        NerConfig(
            dataset_name="samples",
            model_name_or_path=str(tmp_path / "bert"),
            output_dir=str(tmp_path / "ner"),
            max_train_samples=16,
            max_eval_samples=8,
            num_train_epochs=1,
            disable_tqdm=True,
        )
    )
    assert tagger.results["test_words"] == tagger.results["test_words_scored"]


def test_learning_lowers_the_loss_below_the_unigrams(corpus, tmp_path):
    settings = tiny(corpus, tmp_path / "run", "roberta", num_train_epochs=30, learning_rate=3e-3, eval_strategy="no")
    result = pretrain(PretrainConfig(**settings, save_strategy="no", dropout=0.0))
    assert result.history[-1]["loss"] < result.results["unigram_entropy"] - 0.3


def test_three_evaluations_and_three_processes_give_one_loss(corpus, tmp_path):
    """The same saved model, evaluated three times, over one, two and three processes: to the last digit."""
    settings = tiny(corpus, tmp_path / "run", "bert", max_steps=2)
    pretrain(PretrainConfig(**settings))
    script = tmp_path / "evaluate.py"
    script.write_text(
        f"""
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from accelerate import Accelerator
from finetune import data, models, training
from finetune.tasks import masked
from recipes.pretrain import PretrainConfig
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
config = PretrainConfig(
    train_file={settings["train_file"]!r}, max_seq_length=48, seed=int(sys.argv[2]), validation_split_percentage=20.0
)
tokenizer = models.load_tokenizer({str(tmp_path / "run")!r})
model = models.load_for_pretraining(
    tokenizer, model_name_or_path={str(tmp_path / "run")!r}, next_sentence=True, max_seq_length=48
)
corpora = data.read_corpus(config)["validation"]
rows = data.pretraining_rows([data.tokenize(part, tokenizer) for part in corpora], config, tokenizer, "validation")
model = accelerator.prepare(model)
found = []
for _ in range(3):
    batches = data.EvalBatches(rows.in_epoch(0), tokenizer.pad_token_id, 4, count=masked.targets)
    counts = training.collect(accelerator, model, batches, masked.collect)
    found.append([counts.losses, counts.targets, [values.tolist() for values in counts.arrays.values()]])
if accelerator.is_main_process:
    with open(sys.argv[1], "w") as file:
        file.write(json.dumps(found))
# Not by way of the interpreter's end: a thread of gloo that is late would abort the process there.
os._exit(0)
"""
    )
    found = []
    for name, processes, seed in (("one", 0, 1), ("two", 2, 2), ("three", 3, 3)):
        run(script, tmp_path / name, seed, processes=processes)
        found += json.loads((tmp_path / name).read_text())
    assert len(found) == 9
    assert all(counts == found[0] for counts in found)
    assert found[0][1]["nsp_loss"] > 4


@pytest.mark.parametrize(
    ("objective", "extra"),
    [
        ("bert", {}),
        ("bert", {"static_masks": True, "dupe_factor": 1, "dataloader_num_workers": 2}),
        ("roberta", {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}),
        ("xlm-r", {"masking": "whole_word"}),
    ],
)
def test_a_resumed_run_ends_with_the_same_bytes(corpus, tmp_path, objective, extra):
    every = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    settings = every | extra | {"save_total_limit": 9, "num_train_epochs": 2, "load_best_model_at_end": False}
    whole = pretrain(PretrainConfig(**tiny(corpus, tmp_path / "whole", objective, **settings)))
    steps = int(whole.results["train_steps"])
    assert steps > 6
    for checkpoint in training.checkpoints(whole.output_dir)[:-1:2]:
        resumed = pretrain(
            PretrainConfig(
                **tiny(
                    corpus, tmp_path / checkpoint.name, objective, resume_from_checkpoint=str(checkpoint), **settings
                )
            )
        )
        ours, expected = (load_file(run.output_dir / "model.safetensors") for run in (resumed, whole))
        assert all((ours[name] == expected[name]).all() for name in expected)
        assert without_times(resumed.results) == without_times(whole.results)
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            assert (resumed.output_dir / name).read_bytes() == (whole.output_dir / name).read_bytes()


def test_a_dry_run_shows_and_writes_nothing(corpus, tmp_path):
    done = run("recipes/pretrain.py", *flags(tiny(corpus, tmp_path / "run", "bert")), "--dry_run")
    assert "entropy of its unigrams" in done.stdout
    assert "padding in batches" in done.stdout
    assert "\n10. [" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer_name": None}, "--config_name needs a --tokenizer_name"),
        ({"config_name": None}, "--tokenizer_name wordpiece: a new tokenizer needs a new model: --config_name"),
        ({"objective": "tlm"}, "--objective tlm needs --parallel_columns"),
        ({"parallel_columns": "a,b"}, "--parallel_columns is for --objective tlm"),
        ({"validation_split_percentage": 0}, "--eval_strategy needs a --validation_file"),
        ({"vocab_size": 10}, "--vocab_size 10: the single characters"),
        ({"num_attention_heads": 0}, "--num_attention_heads 0: must be at least 1"),
        ({"short_seq_prob": 3.0}, "--short_seq_prob 3.0: must be from 0 to 1"),
        ({"validation_split_percentage": 100.0}, "--validation_split_percentage 100.0"),
        ({"max_train_samples": 1}, "one document (6 sentences)"),
        (
            {"max_eval_samples": 1},
            "held out by --validation_split_percentage): 1 document(s) of 6 sentences, too few",
        ),
        ({"train_file": "nowhere.txt"}, "--train_file nowhere.txt: no such file"),
    ],
)
def test_mistakes_are_one_line(corpus, tmp_path, change, message):
    settings = tiny(corpus, tmp_path / "run", "bert") | change
    done = run("recipes/pretrain.py", *flags(settings), code=1)
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_translation_in_sight_helps(tmp_path, corpus):
    """A copying task: the other language is the same words in capitals, so a translation gives every word away."""
    words = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(8) for j in range(8)]
    generator = __import__("random").Random(0)
    lines = [" ".join(generator.choices(words, k=4)) for _ in range(400)]
    path = tmp_path / "copy.tsv"
    path.write_text("en\txx\n" + "".join(f"{line}\t{line}\n" for line in lines))
    settings = tiny(
        corpus, tmp_path / "run", "tlm", hidden_size=64, num_hidden_layers=2, num_train_epochs=20, learning_rate=3e-3,
        per_device_train_batch_size=16, vocab_size=150, dropout=0.0, eval_strategy="no", save_strategy="no",
    )  # fmt: skip
    result = pretrain(PretrainConfig(**settings | {"train_file": str(path)}))
    scores = result.results
    assert scores["eval_mlm_loss_with_translation"] < scores["eval_mlm_loss_with_other"] - 0.2


def test_the_saved_tokenizer_and_model_belong_together(corpus, tmp_path):
    result = pretrain(PretrainConfig(**tiny(corpus, tmp_path / "run", "xlm-r", max_steps=1)))
    tokenizer = AutoTokenizer.from_pretrained(result.output_dir)
    model = AutoModelForMaskedLM.from_pretrained(result.output_dir)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    found = data.read_corpus(PretrainConfig(train_file=f"{corpus}/en.txt"))["train"][0]
    assert tokenizer.unk_token_id not in tokenizer(next(found.sentences()))["input_ids"]
