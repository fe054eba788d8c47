"""The recipes as a user runs them: every kind of model, the files of a run, two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from seqeval.metrics import f1_score
from transformers import pipeline

import finetune
from finetune import data
from finetune.models import BASELINES
from finetune.training import folder as own
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

ROOT = Path(__file__).parents[2]
TINY = {
    "dataset_name": "samples",
    "max_seq_length": 32,
    "max_train_samples": 40,
    "max_eval_samples": 21,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "disable_tqdm": True,
}
SHAPE = {"hidden_size": 16, "embedding_size": 16}  # of baselines
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


def environment(**extra):
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | extra


def run(*command, code=0):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def calibrate(model, inputs, output):
    """What docs/prediction.md gives `pipeline()`, which does not know the temperature."""
    output.logits = output.logits / model.config.score_temperature
    return output


def flags(settings):
    return [f"--{key}={value}" for key, value in settings.items()]


@pytest.mark.parametrize("name", [*BASELINES, "wordpiece", "byte-bpe", "unigram", "crf"])
def test_ner_with_every_kind_of_model(name, checkpoints, samples, tmp_path):
    settings = dict(TINY, output_dir=str(tmp_path / "run"), model_name_or_path=name)
    if name == "crf":
        settings |= {"head": "crf", "model_name_or_path": str(checkpoints["wordpiece"])}
    elif name in checkpoints:
        settings["model_name_or_path"] = str(checkpoints[name])
    else:
        settings |= SHAPE
    result = finetune_ner(NerConfig(**settings))
    folder = result.output_dir
    assert own.not_written(folder) is None, "the run may be overwritten"
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES | {
        "predictions_eval.conll",
        "predictions_test.conll",
    }
    assert json.loads((folder / "all_results.json").read_text()) == result.results

    # The predictions in the file give the scores of the file, by the reference's count.
    for split, short in (("validation", "eval"), ("test", "test")):
        expected = samples[split].select(range(21))
        sentences = data.read_conll(folder / f"predictions_{short}.conll", tag_column=1)
        predicted = data.read_conll(folder / f"predictions_{short}.conll", tag_column=2).tags
        assert sentences.words == expected["tokens"][:]
        assert sentences.tags == expected["ner_tags"][:]
        words = sum(map(len, sentences.words))
        assert result.results[f"{short}_words"] == result.results[f"{short}_words_scored"] == words
        assert result.results[f"{short}_f1"] == pytest.approx(f1_score(sentences.tags, predicted, zero_division=0))
        equal = [
            a == b
            for gold, said in zip(sentences.tags, predicted, strict=True)
            for a, b in zip(gold, said, strict=True)
        ]
        assert result.results[f"{short}_accuracy"] == pytest.approx(np.mean(equal))
    for key in (
        "train_runtime",
        "train_tokens_per_second",
        "train_samples_per_second",
        "peak_memory_mb",
        "total_parameters",
        "best_epoch",
        "train_epochs",
        "eval_loss",
        "test_loss",
        "eval_runtime",
        "test_f1_strict",
        "test_f1_PER",
    ):
        assert key in result.results

    tagger = pipeline("token-classification", model=str(folder), aggregation_strategy="first")
    assert {entity["entity_group"] for entity in tagger("Ada Lovelace flew to Oslo.")} <= {
        "PER",
        "LOC",
        "ORG",
        "MISC",
    }
    assert tagger.model.config.id2label[0] == "O"
    tagger("Ada Lovelace flew to Oslo. " * 60)  # longer than the positions of a transformer

    tagger = pipeline("token-classification", model=str(folder), ignore_labels=[])
    tagger.model.register_forward_hook(calibrate)
    text = "Ada Lovelace flew to Oslo"
    pieces = {piece["start"]: piece for piece in reversed(tagger(text))}  # the first one that begins there
    (answer,) = finetune.predict(folder, [text])
    assert answer["scores"] == pytest.approx([pieces[text.index(word)]["score"] for word in text.split()], abs=1e-5)


@pytest.mark.parametrize("name", ["rnn", "gru", "bilstm", "wordpiece", "byte-bpe", "unigram"])
def test_sentiment_with_every_kind_of_model(name, checkpoints, tmp_path):
    path = str(checkpoints.get(name, name))
    flags = TINY if name in checkpoints else TINY | SHAPE
    result = finetune_sentiment(SentimentConfig(**flags, output_dir=str(tmp_path / "run"), model_name_or_path=path))
    folder = result.output_dir
    assert own.not_written(folder) is None, "the run may be overwritten"
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES | {
        "predictions_eval.tsv",
        "predictions_test.tsv",
    }
    rows = [line.split("\t") for line in (folder / "predictions_test.tsv").read_text().splitlines()]
    assert rows[0] == ["text", "label", "predicted", "score"]
    assert len(rows) == 22
    assert result.results["test_accuracy"] == pytest.approx(np.mean([row[1] == row[2] for row in rows[1:]]))
    classifier = pipeline("text-classification", model=str(folder), truncation=True)
    assert classifier.tokenizer.model_max_length == 32
    classifier.model.register_forward_hook(calibrate)
    for text, _, predicted, score in rows[1:]:
        (said,) = classifier(text)  # cut where the run cut it
        assert said["label"] == predicted
        assert said["score"] == pytest.approx(float(score), abs=1e-4)


def test_pairs(checkpoints, tmp_path):
    rows = [{"a": "one two", "b": "three", "y": 1}, {"a": "four " * 40, "b": "five six", "y": 0}] * 8
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in (str(checkpoints["wordpiece"]), str(checkpoints["unigram"]), "bilstm"):
        settings = TINY | {
            "dataset_name": None,
            "train_file": str(tmp_path / "train.jsonl"),
            "validation_file": str(tmp_path / "dev.jsonl"),
            "num_train_epochs": 15,
        }
        result = finetune_sentiment(
            SentimentConfig(
                **settings,
                output_dir=str(tmp_path / Path(model).name),
                model_name_or_path=model,
                text_column_name="a",
                text_pair_column_name="b",
                label_column_name="y",
            )
        )
        lines = (result.output_dir / "predictions_eval.tsv").read_text().splitlines()
        assert lines[0] == "text\ttext_pair\tlabel\tpredicted\tscore"
        assert result.results["eval_accuracy"] == 1.0


def test_empty_texts_in_batches_of_tokens_and_the_labels_told(tmp_path, capsys):
    """A baseline's tokenizer makes no token of an empty text, which counts as one token in a budget."""
    labels = ["Positive", "positive", "nan", "Positive"] * 10
    rows = [{"text": "good film" * (i % 3 == 0), "label": label} for i, label in enumerate(labels)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = dict.fromkeys(("train_file", "validation_file"), str(tmp_path / "a.jsonl"))
    own = TINY | SHAPE | files | {"dataset_name": None, "max_train_samples": None, "max_eval_samples": None}
    own |= {"model_name_or_path": "bilstm", "tokens_per_batch": 20, "output_dir": str(tmp_path / "run")}
    result = finetune_sentiment(SentimentConfig(**own))
    assert len((result.output_dir / "predictions_eval.tsv").read_text().splitlines()) == 41
    told = capsys.readouterr().out.splitlines()
    for split in ("train", "validation"):
        assert f"{split} labels: 'Positive' 20, 'nan' 10, 'positive' 10" in told


def test_run_yaml_repeats_the_run(tmp_path):
    first = finetune_ner(NerConfig(**TINY | SHAPE, output_dir=str(tmp_path / "a"), model_name_or_path="lstm"))
    run("recipes/ner.py", "--config", tmp_path / "a/run.yaml", "--output_dir", tmp_path / "b")
    second = json.loads((tmp_path / "b/all_results.json").read_text())
    assert {k: v for k, v in second.items() if k.startswith("test_f1")} == {
        k: v for k, v in first.results.items() if k.startswith("test_f1")
    }
    assert (tmp_path / "a/predictions_test.conll").read_bytes() == (
        tmp_path / "b/predictions_test.conll"
    ).read_bytes()


def test_one_two_and_three_processes_agree(checkpoints, tmp_path):
    """The documented command; splits whose size neither 2 nor 4 divides; the same global batches."""
    tiny = TINY | {
        "max_train_samples": 41,
        "per_device_eval_batch_size": 4,
        "model_name_or_path": str(checkpoints["wordpiece"]),
    }
    for recipe, short in (("ner", "conll"), ("sentiment", "tsv")):  # one by number of rows, one by number of tokens
        results = {}
        for processes in (1, 2):
            folder = tmp_path / f"{recipe}{processes}"
            settings = tiny | {
                "per_device_train_batch_size": 8 // processes,
                "output_dir": folder,
                "learning_rate": 1e-4,
            }
            if recipe == "sentiment":
                settings |= {"tokens_per_batch": 128 // processes, "logging_steps": 1}
            done = run(
                "-m",
                "accelerate.commands.launch",
                "--num_processes",
                processes,
                "--cpu",
                f"recipes/{recipe}.py",
                *flags(settings),
            )
            assert done.stdout.count("test: ") == 2  # one process talks
            results[processes] = json.loads((folder / "all_results.json").read_text())
        one, two = results[1], results[2]
        assert one["train_steps"] == two["train_steps"]
        histories = [(tmp_path / f"{recipe}{n}/history.jsonl").read_text().splitlines() for n in (1, 2)]
        tokens = [[line["tokens"] for line in map(json.loads, lines) if "tokens" in line] for lines in histories]
        assert tokens[0] == tokens[1]
        for key in (f"{split}_{count}" for split in ("eval", "test") for count in ("words", "words_scored")):
            if recipe == "ner":
                assert one[key] == two[key]
                assert one[f"{key}"] == one[f"{key.split('_')[0]}_words"]
        # From the same weights, the same metrics to the last digit: evaluate the trained model again on each.
        again = {}
        for processes in (1, 2, 3):
            folder = tmp_path / f"{recipe}-again{processes}"
            settings = tiny | {
                "model_name_or_path": tmp_path / f"{recipe}1",
                "output_dir": folder,
                "max_steps": 1,
                "learning_rate": 1e-30,
                "per_device_train_batch_size": 8 // processes,
                "weight_decay": 0,
            }
            run(
                "-m",
                "accelerate.commands.launch",
                "--num_processes",
                processes,
                "--cpu",
                f"recipes/{recipe}.py",
                *flags(settings),
            )
            again[processes] = json.loads((folder / "all_results.json").read_text())
            assert (folder / f"predictions_test.{short}").read_bytes() == (
                tmp_path / f"{recipe}1/predictions_test.{short}"
            ).read_bytes()
        for key, value in again[1].items():
            if key.startswith(("eval_", "test_")) and not key.endswith("runtime"):
                assert again[3][key] == again[2][key] == value == one[key], key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_file": "nope.conll"}, "train_file nope.conll: no such file"),
        ({"max_seq_length": 65}, "max_seq_length 65: .* has positions for 64 tokens"),
        ({"max_seq_length": 7}, "max_seq_length 7: must be at least 8"),
        ({"model_name_or_path": "{empty}"}, "no config.json in this folder"),
        ({"model_name_or_path": "{empty}/nope"}, "/nope: no such folder"),
        ({"output_dir": "{full}"}, "this folder already holds a run"),
        ({"output_dir": "{other}"}, "this folder holds something that is no run"),
        ({"output_dir": "{file}"}, "this is a file; give a folder"),
        ({"output_dir": "{file}/run"}, "lies below a file; give a folder"),
        (
            {"validation_file": "{unknown}"},
            r"unknown.conll:1: the label 'B-NEW' does not occur in the training data",
        ),
        ({"head": "crf", "label_all_tokens": True}, "label_all_tokens, .*: a CRF tags whole words"),
        ({"train_file": "{outside}"}, "the training split has no entity"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(change, message, checkpoints, tmp_path):
    places = {name: tmp_path / name for name in ("empty", "full", "other")}
    for place in places.values():
        place.mkdir()
    (places["full"] / "run.yaml").write_text("")
    (places["other"] / "thesis.txt").write_text("")
    (tmp_path / "unknown.conll").write_text("x\tB-NEW\n")
    (tmp_path / "outside.conll").write_text("x\tO\n")
    (tmp_path / "file").write_text("")
    places |= {
        "unknown": tmp_path / "unknown.conll",
        "outside": tmp_path / "outside.conll",
        "file": tmp_path / "file",
    }
    change = {key: value.format(**places) if isinstance(value, str) else value for key, value in change.items()}
    before = sorted(tmp_path.rglob("*"))
    settings = (
        TINY | {"model_name_or_path": str(checkpoints["wordpiece"]), "output_dir": str(tmp_path / "run")} | change
    )
    with pytest.raises(ValueError, match=message):
        finetune_ner(NerConfig(**settings))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mistake_is_one_sentence_on_the_command_line(tmp_path):
    done = run("recipes/ner.py", "--train_file", "nope.conll", "--output_dir", tmp_path / "run", code=1)
    assert done.stderr.strip().splitlines()[-1] == "error: --train_file nope.conll: no such file"
    assert "Traceback" not in done.stderr
    done = run("recipes/ner.py", "--lerning_rate", "1", code=2)
    message = done.stderr.strip().splitlines()[-1]
    assert message.endswith("error: unknown flag --lerning_rate; did you mean --learning_rate?")


def test_trackers_get_the_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    finetune_ner(
        NerConfig(**TINY | SHAPE, output_dir=str(tmp_path / "run"), model_name_or_path="rnn", report_to="tensorboard")
    )
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_the_model_card_tells_no_folders(checkpoints, tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.conll").write_text("Ada\tB-PER\nran\tO\n\n" * 8)
    settings = TINY | {
        "dataset_name": None,
        "train_file": str(tmp_path / "train.conll"),
        "validation_file": str(tmp_path / "dev.conll"),
    }
    result = finetune_ner(
        NerConfig(**settings, output_dir=str(tmp_path / "run"), model_name_or_path=str(checkpoints["wordpiece"]))
    )
    card = (result.output_dir / "README.md").read_text()
    assert str(tmp_path) not in card
    assert "/tmp" not in card
    from huggingface_hub import ModelCard

    parsed = ModelCard(card).data
    assert parsed.pipeline_tag == "token-classification"
    assert parsed.eval_results[0].metric_value == result.results["eval_f1"]


def test_real_xlmr_checkpoint(shared, xlmr_mini, tmp_path):
    """The multilingual checkpoint through the same recipe, on the first sentences of MasakhaNER Swahili."""
    folder = shared / "data/masakhaner/swa"
    settings = TINY | {
        "dataset_name": None,
        "train_file": str(folder / "train.conll"),
        "validation_file": str(folder / "dev.conll"),
        "max_train_samples": 32,
        "max_eval_samples": 15,
        "model_name_or_path": str(xlmr_mini),
        "max_seq_length": 64,
    }
    result = finetune_ner(NerConfig(**settings, output_dir=str(tmp_path / "run")))
    assert result.results["total_parameters"] > 40_000_000
    assert result.results["eval_words_scored"] == result.results["eval_words"] > 200
    assert pipeline("token-classification", model=str(tmp_path / "run")).model.config.model_type == "xlm-roberta"


def test_mixed_precision_survives_a_checkpoint(checkpoints, tmp_path):
    """Saving must not take the bfloat16 wrapper off: the scores after it are those before it, as are the weights."""
    weights = {}
    for strategy in ("epoch", "no"):
        folder = tmp_path / strategy
        settings = TINY | {
            "model_name_or_path": str(checkpoints["wordpiece"]),
            "output_dir": folder,
            "num_train_epochs": 3,
            "save_strategy": strategy,
            "load_best_model_at_end": False,
        }
        run(
            "-m",
            "accelerate.commands.launch",
            "--cpu",
            "--mixed_precision",
            "bf16",
            "recipes/ner.py",
            *flags(settings),
        )
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        results = json.loads((folder / "all_results.json").read_text())
        assert history[-1]["eval_loss"] == results["eval_loss"]
        weights[strategy] = (folder / "model.safetensors").read_bytes()
    assert weights["epoch"] == weights["no"]
