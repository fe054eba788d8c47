"""Scores, promises, tables and processes of `recipes/predict.py`, with models as their runs leave them."""

import csv
import json
import shutil
from pathlib import Path

import dial  # benchmarks/dial.py
import numpy as np
import pytest
from processes import run_script

import finetune
from finetune import data, metrics
from recipes import predict as recipe
from recipes.ner import NerConfig, finetune_ner
from recipes.predict import PredictConfig, predict_stream
from recipes.sentiment import SentimentConfig, finetune_sentiment

ROOT = Path(__file__).parents[2]
TINY = {
    "dataset_name": "samples",
    "model_name_or_path": "gru",
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "hidden_size": 32,
    "embedding_size": 32,
    "dropout": 0.1,
    "eval_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def ner_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ner"
    return folder, finetune_ner(NerConfig(**TINY, output_dir=str(folder))).results


@pytest.fixture(scope="module")
def sentiment_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sentiment"
    return folder, finetune_sentiment(SentimentConfig(**TINY, output_dir=str(folder))).results


def with_settings(run, target, **change):
    """The model with other settings in its config."""
    shutil.copytree(run, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | change))
    return target


def test_the_results_are_the_calibration_of_the_answers(ner_run, sentiment_run):
    folder, results = ner_run
    for split in ("eval", "test"):
        gold = data.read_conll(folder / f"predictions_{split}.conll", tag_column=1, written_here=True)
        entities = [
            (one["score"], (*one["words"], one["label"]) in metrics.entity_spans(tags))
            for tags, answer in zip(gold.tags, finetune.predict(folder, gold.words), strict=True)
            for one in answer["entities"]
        ]
        scores, right = (np.array(side) for side in zip(*entities, strict=True))
        assert len(scores) > 20
        error = metrics.calibration_error(metrics.calibration_sums(scores, right))
        assert error == pytest.approx(results[f"{split}_ece"], abs=1e-4)
        if split == "eval":  # where the scale was fitted: the mean score is the share of right entities
            assert scores.mean() == pytest.approx(right.mean(), abs=0.02)

    folder, results = sentiment_run
    rows = [line.split("\t") for line in (folder / "predictions_test.tsv").read_text().splitlines()[1:]]
    told = [float(row[3]) for row in rows], [row[1] == row[2] for row in rows]
    error = metrics.calibration_error(metrics.calibration_sums(*map(np.array, told)))
    assert error == pytest.approx(results["test_ece"], abs=1e-4)
    assert "calibrated on the development split, with a temperature of" in (folder / "README.md").read_text()


def test_a_temperature_changes_scores_and_no_answer(ner_run, sentiment_run, tmp_path):
    """As `softmax(logits / T)` does it: the log-odds of two labels become log-odds / T."""
    words = data.read_conll(ner_run[0] / "predictions_test.conll").words[:30]
    texts = ["I would see it again.", "Once was enough.", "No."]
    for (run, _), samples in ((ner_run, words), (sentiment_run, texts)):
        sides = {}
        for temperature in (1.0, 4.0):
            own = with_settings(run, tmp_path / f"{run.name}{temperature}", score_temperature=temperature)
            sides[temperature] = finetune.predict(own, samples, top_k=0)
        for sharp, flat in zip(sides[1.0], sides[4.0], strict=True):
            assert sharp["predicted"] == flat["predicted"]
            one, other = (
                own["top_k"] if isinstance(own["predicted"], str) else own["top_k"][0] for own in (sharp, flat)
            )
            assert [best["label"] for best in one] == [best["label"] for best in other]
            odds = [np.log(best[0]["score"] / best[1]["score"]) for best in (one, other)]
            assert odds[0] == pytest.approx(4 * odds[1], abs=0.01 + 0.01 * abs(odds[0]))
            assert sum(best["score"] for best in other) == pytest.approx(1, abs=1e-4)


def test_the_best_labels(ner_run, sentiment_run):
    run, _ = sentiment_run
    (answer,) = finetune.predict(run, ["I would see it again."], top_k=2)
    assert answer["top_k"][0] == {"label": answer["predicted"], "score": pytest.approx(answer["score"], abs=2e-6)}
    assert len(answer["top_k"]) == 2
    assert answer["top_k"][0]["score"] >= answer["top_k"][1]["score"]
    run, _ = ner_run
    (answer,) = finetune.predict(run, [["Ada", "\u200e", "flew"]], top_k=1000)
    assert [[best["label"] for best in word[:1]] for word in answer["top_k"]] == [
        [tag] if score else [] for tag, score in zip(answer["predicted"], answer["scores"], strict=True)
    ]
    assert len(answer["top_k"][0]) == len(finetune.load_predictor(run).labels)


def test_the_benchmark_of_the_dial_reads_the_answers_of_a_run(ner_run, sentiment_run):
    folder, results = ner_run
    splits = [dial.of_entities(folder, split, finetune.load_predictor(folder)) for split in ("eval", "test")]
    assert dial.kept(splits[1], 0.0) == pytest.approx((results["test_precision"], results["test_recall"]))
    both = dial.joined(*splits)
    assert both.sample.max() < len(both.findable) == len(splits[0].findable) + len(splits[1].findable)
    twice = both.take(np.repeat(np.arange(len(both.findable)), 2))
    assert dial.kept(twice, 0.3) == pytest.approx(dial.kept(both, 0.3))
    assert len(twice.scores) == 2 * len(both.scores)

    folder, results = sentiment_run
    test = dial.of_texts(folder, "test")
    assert dial.kept(test, 0.0) == pytest.approx((results["test_accuracy"],) * 2)
    row = dial.measured(dial.of_texts(folder, "eval"), test, 0.5)
    assert row["recall_without"] == pytest.approx(results["test_accuracy"], abs=1e-4)
    assert row["broken"] <= 32 <= row["draws"] == 200


PROMISES = {"what": "answers", "delta": 0.1, "precision": 0.5, "recall": 0.4, "at": {}}


def test_the_dial_leaves_out_what_is_not_sure(ner_run, sentiment_run, tmp_path, capsys):
    words = data.read_conll(ner_run[0] / "predictions_test.conll").words
    usual = finetune.predict(ner_run[0], words)
    scores = sorted(one["score"] for answer in usual for one in answer["entities"])
    least = scores[len(scores) // 2]
    at = {"0.9": [least, 0.93, 0.2], "0.99": [1.0, 1.0, 0.01]}
    run = with_settings(ner_run[0], tmp_path / "ner", promises=PROMISES | {"at": at})
    sure = finetune.predict(run, words, min_precision=0.85)  # the next that is promised: 0.9
    left_out = 0
    for before, after in zip(usual, sure, strict=True):
        assert after["entities"] == [one for one in before["entities"] if one["score"] >= least]
        assert after["scores"] == before["scores"]
        tags = list(before["predicted"])
        for one in before["entities"]:
            if one["score"] < least:
                tags[slice(*one["words"])] = ["O"] * (one["words"][1] - one["words"][0])
                left_out += 1
        assert after["predicted"] == tags
    assert left_out == sum(score < least for score in scores) > 0

    texts = ["I would see it again.", "Once was enough.", "No."]
    usual = finetune.predict(sentiment_run[0], texts)
    least = sorted(answer["score"] for answer in usual)[1]
    run = with_settings(sentiment_run[0], tmp_path / "sent", promises=PROMISES | {"at": {"0.95": [least, 1.0, 0.1]}})
    (tmp_path / "in.csv").write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    own = {"model_name_or_path": str(run), "input_file": str(tmp_path / "in.csv")}
    predict_stream(PredictConfig(**own, output_file=str(tmp_path / "out.csv"), min_precision=0.95))
    rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8", newline="")))
    assert [row["predicted"] for row in rows] == [
        answer["predicted"] if answer["score"] >= least else "" for answer in usual
    ]
    told = capsys.readouterr().err
    assert f"--min_precision 0.95: only answers with a score of at least {least:.6f} are given" in told
    assert "a recall of 0.100; all answers together had 0.500 and 0.400" in told


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"min_precision": 0.999}, "--min_precision 0.999: no threshold of the scores is proved .*promises"),
        ({"promises": None}, {"min_precision": 0.9}, "--min_precision 0.9: this model promises no precision"),
        ({}, {"min_precision": 95.0}, "--min_precision 95: must be between 0 and 1"),
        ({"promises": {"at": {"x": 1}}}, {}, "no run has written these promises"),
        ({"score_temperature": 0}, {}, "score_temperature must be a number above 0"),
        ({}, {"top_k": -1}, "--top_k -1: must be at least 1, or 0 for all labels"),
    ],
)
def test_what_is_refused(change, arguments, message, sentiment_run, tmp_path):
    run = with_settings(sentiment_run[0], tmp_path / "run", **change)
    with pytest.raises(ValueError, match=message):
        finetune.load_predictor(run, **arguments)


def test_a_column_that_the_answer_needs_is_refused_before_any_row(sentiment_run, tmp_path):
    (tmp_path / "in.tsv").write_text("text\tscore\ngood\t1\n")
    config = PredictConfig(model_name_or_path=str(sentiment_run[0]), input_file=str(tmp_path / "in.tsv"))
    config.output_file = str(tmp_path / "out.tsv")
    with pytest.raises(ValueError, match=r"in.tsv:1: the answer needs the column 'score'; rename this column"):
        predict_stream(config)
    assert not (tmp_path / "out.tsv").exists()


def test_tagged_texts_in_a_table(ner_run, tmp_path):
    (tmp_path / "in.csv").write_text('id,text\n7,"Ada flew, to Oslo."\n')
    config = PredictConfig(model_name_or_path=str(ner_run[0]), input_file=str(tmp_path / "in.csv"))
    config.output_file = str(tmp_path / "out.tsv")
    assert predict_stream(config) == 1
    (row,) = csv.DictReader((tmp_path / "out.tsv").open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE)
    (answer,) = finetune.predict(ner_run[0], ["Ada flew, to Oslo."])
    assert (row["id"], row["text"]) == ("7", "Ada flew, to Oslo.")
    assert row["tokens"].split(" ") == answer["tokens"]
    assert row["predicted"].split(" ") == answer["predicted"]
    assert json.loads(row["entities"]) == answer["entities"]


def test_two_processes_write_the_file_of_one(ner_run, tmp_path):
    words = data.read_conll(ner_run[0] / "predictions_test.conll").words
    lines = [json.dumps({"tokens": own, "id": i}) for i, own in enumerate(words * 5)]
    for name, extra in (("good", []), ("bad", ['{"tokens": ["a", ""]}'])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*lines, *extra]) + "\n")
    own = {"model_name_or_path": str(ner_run[0]), "input_file": str(tmp_path / "good.jsonl")}
    assert len(lines) > 3 * recipe.CHUNK  # the last round has fewer chunks than processes
    predict_stream(PredictConfig(**own, output_file=str(tmp_path / "one.jsonl")))
    flags = [f"--model_name_or_path={ner_run[0]}", f"--output_file={tmp_path / 'two.jsonl'}"]
    done = run_script(ROOT / "recipes/predict.py", *flags, f"--input_file={tmp_path / 'good.jsonl'}", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert done.stderr.count(f"{len(lines):,} inputs labelled in") == 1

    (tmp_path / "two.jsonl").write_text("older answers")
    done = run_script(ROOT / "recipes/predict.py", *flags, f"--input_file={tmp_path / 'bad.jsonl'}", processes=2)
    assert done.returncode != 0
    assert f"bad.jsonl:{len(lines) + 1}: the word '' is empty or breaks a line" in done.stderr
    assert (tmp_path / "two.jsonl").read_text() == "older answers"
