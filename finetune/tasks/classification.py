"""A text, or a pair of texts: one label, several labels, or a number.

Shapes: N texts, B rows of a batch, L labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import data, metrics, models, reporting
from finetune.tasks import surety
from finetune.tasks.label_errors import compared  # noqa: F401
from finetune.tasks.samples import is_pair

if TYPE_CHECKING:
    from torch import Tensor


SHOWN = ("accuracy", "f1_micro", "f1_macro", "recall_macro", "pearson", "spearman", "mse")
PIPELINE = "text-classification"
ONE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"
# The scores of each kind that `--metric_for_best_model` may name.
SCORES = {
    ONE: ("accuracy", "f1_macro", "f1_micro", "recall_macro", "loss"),
    SEVERAL: ("f1_micro", "f1_macro", "accuracy", "loss"),
    NUMBER: ("pearson", "spearman", "mse", "loss"),
}
METRICS = tuple(dict.fromkeys(score for scores in SCORES.values() for score in scores))


@dataclass(frozen=True)
class Said:
    """What a model says of each text.

    | kind | `labels` | `scores` |
    |---|---|---|
    | one label | int64 (N,) | float32 (N,): its probability |
    | several labels | none | float32 (N, L): of each its probability |
    | the same of a model without probabilities | bool (N, L): which it gives | float (N,): NaN |
    | a number | none | float32 (N,): the number |
    """

    labels: np.ndarray | None
    scores: np.ndarray
    # Of texts with one label, on request (see `collect`); of those in windows always `logs`:
    logs: np.ndarray | None = None  # float32 (N, L): the log-probability of each label, without a temperature
    raw_scores: np.ndarray | None = None  # as `scores`, without a temperature


def read(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The splits that a config names, as `finetune.data.read_labelled` gives them.

    Raises:
        ValueError: also for a `--metric_for_best_model` that is no score of such labels.
    """
    splits = data.read_labelled(
        config,
        config.text_column_name,
        config.label_column_name,
        config.text_pair_column_name,
        label_separator=config.label_separator,
        problem_type=config.problem_type,
        encoding=config.encoding,
        delimiter=config.delimiter,
        given=given,
    )
    kind, metric = data.problem_type_of(splits["train"]), config.metric_for_best_model
    if metric not in (None, *SCORES[kind]):
        raise ValueError(
            f"--metric_for_best_model {metric}: no score of this data ({kind}); choose from {', '.join(SCORES[kind])}"
        )
    return splits


def use(train: Any) -> str:
    """For the model card: how to use a model that learned from this data."""
    several = data.problem_type_of(train) == SEVERAL
    more, shown = (", top_k=None", "scores = ") if several else ("", "")
    given = '"I would see it again."'
    if "text_pair" in train.column_names:
        given = '{"text": "I would see it again.", "text_pair": "Once was enough."}'
    lines = [
        'classifier = pipeline("text-classification", model=FOLDER, truncation=True)',
        f"{shown}classifier({given}{more})",
    ]
    if several:
        lines.append('[one["label"] for one in scores if one["score"] >= classifier.model.config.threshold]')
    return "\n".join(lines)


def labels(splits: Mapping[str, Any]) -> list[str]:
    """The labels of the training split, refusing others in the other splits. A number is one output."""
    if data.problem_type_of(splits["train"]) == NUMBER:
        return ["number"]
    found = data.class_labels(splits["train"])
    data.check_labels(splits, found, "label")
    return found


def headline(dataset: Any) -> str:
    """The score that models are compared by."""
    return {ONE: "accuracy", SEVERAL: "f1_micro", NUMBER: "pearson"}[data.problem_type_of(dataset)]


def told(dataset: Any) -> str:
    """The labels of a split and how often each occurs."""
    return data.label_counts(dataset, "label")


def words(train: Any) -> Iterable[str]:
    """What a baseline's vocabulary is made from."""
    return (text for column in _columns(train) for text in train[column])


def start(train: Any, class_weights: str | None = None) -> list[float] | None:
    """Where the bias of a new head starts: so that its first answer is what the training split has on average.

    For a number it is the mean; for several labels the log-odds of each label's share (Lin et al., 2017, section
    3.3), with one text more that has it and one more that has it not. A text with the label counts as often as its
    weight says. From 0, the small steps of an encoder's training would hardly move the bias, so the encoder itself
    would have to learn the average. One label of a text starts at 0.

    Args:
        class_weights: what `--class_weights` says.
    """
    kind = data.problem_type_of(train)
    if kind == ONE:
        return None
    if kind == NUMBER:
        return [float(np.mean(train["label"]))]
    labels = data.class_labels(train)
    with_it = data.label_targets(train, labels).sum(0)
    weights = np.array(data.class_weights(class_weights, train, labels, "label") or 1.0)
    return np.log(weights * (with_it + 1) / (len(train) - with_it + 1)).tolist()


def _columns(dataset: Any) -> list[str]:
    return [name for name in ("text", "text_pair") if name in dataset.column_names]


def settings(splits: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What a model must know beside its weights: what its outputs are, and whether long texts go into windows."""
    kind = data.problem_type_of(splits["train"])
    # All are written each time: a model that is trained further may hold others from before.
    found = surety.NOTHING | {"problem_type": kind, "long_texts": config.long_texts}
    return found | ({"threshold": 0.5} if kind == SEVERAL else {})


def encode(dataset: Any, tokenizer: Any, labels: Sequence[str], config: Any) -> data.Encoded:
    """Texts to subwords, without padding."""
    return data.encode_texts(
        dataset,
        tokenizer,
        labels,
        max_seq_length=config.max_seq_length,
        windows=getattr(config, "long_texts", "cut") == "window",
    )


def targets(inputs: Mapping[str, Tensor], weights: Sequence[float] | None = None) -> dict[str, float]:
    """How many targets the loss of a batch is the mean of; with class weights the sum of their weights."""
    found = inputs["labels"]
    kind: Any = ONE if not found.is_floating_point() else NUMBER if found.ndim == 1 else SEVERAL
    return {"loss": models.target_weight(found, kind, weights)}


def gold(dataset: Any, labels: Sequence[str]) -> np.ndarray:
    """The targets of a split, as `finetune.data.label_targets` gives them; numbers in double precision."""
    if data.problem_type_of(dataset) == NUMBER:
        return np.array(dataset["label"][:], dtype=np.float64)
    return data.label_targets(dataset, labels)


def collect(output: Any, batch: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The scores of each row, as `Said` has them; those of one label at the temperature of the model.

    `settings["also"]` may name `logs`, the log-probabilities of all labels, and `raw_scores`, the probability without
    a temperature, for texts with one label.
    """
    logits = output.logits.float()
    kind = settings["problem_type"]
    if kind == NUMBER:
        return {"scores": logits[:, 0]}
    if kind == SEVERAL:
        return {"scores": logits.sigmoid()}
    if settings.get("long_texts") == "window":
        return {"shares": logits.softmax(-1)}
    return surety.scored(logits, settings)


def decode(encoded: Any, found: Mapping[str, np.ndarray]) -> Said:
    """Puts what was collected into the order of the texts.

    A text in several windows gets the mean of their probabilities, or of their numbers. Its score has no temperature
    yet: `told_scores` applies it, so that the mean, and the label, do not depend on it.
    """
    if encoded.text_of is None:
        return Said(found.get("labels"), found["scores"], found.get("logs"), found.get("raw_scores"))
    values = found.get("shares", found.get("scores"))
    assert values is not None
    begins = np.flatnonzero(np.diff(encoded.text_of, prepend=-1))
    counts = np.diff(np.append(begins, len(encoded.text_of)))
    means = np.add.reduceat(values, begins, axis=0) / counts.reshape(-1, *[1] * (values.ndim - 1))
    if "shares" not in found:
        return Said(None, means.astype(np.float32))
    raw = means.max(1).astype(np.float32)
    return Said(means.argmax(1), raw, np.log(np.maximum(means, 1e-30)), raw)


def told_scores(said: Said, settings: Mapping[str, Any]) -> np.ndarray:
    """The score of each text with one label, as predictions have it, (N,)."""
    if settings.get("long_texts") != "window" or not settings.get("score_temperature"):
        return said.scores
    assert said.logs is not None
    found: np.ndarray = metrics.tempered(said.logs, settings["score_temperature"]).max(1)
    return found


def calibrate(gold: np.ndarray, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the scores of single labels honest, from the development split: the temperature.

    Scores of several labels stay as they are, since the threshold that chooses the labels belongs to them.

    Args:
        said: with `logs`, if the texts have one label.
    """
    if settings["problem_type"] != ONE:
        return {}
    assert said.logs is not None
    return {"score_temperature": metrics.fitted_temperature(said.logs, gold)}


def calibration(gold: np.ndarray, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The expected calibration error of the scores that predictions have, and the one before they were calibrated.

    With several labels, it is that of the probability of each label of each text. A number has none.

    Args:
        said: with `raw_scores`, if the texts have one label.
    """
    if settings["problem_type"] == SEVERAL and said.labels is None:
        sums = metrics.calibration_sums(said.scores.ravel(), (gold > 0).ravel())
        return {"ece": metrics.calibration_error(sums)}
    if settings["problem_type"] != ONE:
        return {}
    assert said.raw_scores is not None
    assert said.labels is not None
    right = np.equal(said.labels, gold)
    told = {"ece": told_scores(said, settings), "ece_before": said.raw_scores}
    return {name: metrics.calibration_error(metrics.calibration_sums(own, right)) for name, own in told.items()}


def promises(gold: np.ndarray, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What precision of single labels the development split promises, and above which scores."""
    if settings["problem_type"] != ONE:
        return {}
    assert said.labels is not None
    scores = np.asarray(told_scores(said, settings), np.float64).round(6)
    return surety.promised(scores, np.equal(said.labels, gold), len(gold), "labels")


def notes(settings: Mapping[str, Any]) -> list[str]:
    """For the model card: how long texts are read, what the scores say, and what the development split promises."""
    window = [
        "`--long_texts window`: a text that is longer than `max_seq_length` is read in windows, and its scores are "
        "their mean. `finetune.predict` does the same; `pipeline()` sees one window alone, so its answer may differ."
    ]
    return (window if settings.get("long_texts") == "window" else []) + surety.notes(settings)


def tune(gold: np.ndarray, said: Said) -> dict[str, Any]:
    """For several labels: the threshold with the highest micro F1."""
    return {"threshold": metrics.tuned_threshold(gold > 0, said.scores)} if gold.ndim == 2 else {}


def chosen(said: Said, settings: Mapping[str, Any]) -> np.ndarray:
    """For several labels: which of them the model gives to each text, bool (N, L)."""
    return said.labels if said.labels is not None else said.scores >= settings.get("threshold", 0.5)


def counts(gold: np.ndarray, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> np.ndarray:
    """What each text adds to the scores."""
    if gold.ndim == 2:
        return metrics.multi_label_counts(gold > 0, chosen(said, settings))
    if said.labels is None:
        return metrics.number_counts(gold, said.scores)
    return metrics.class_counts(gold, said.labels, len(labels))


def score(sums: np.ndarray, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The scores of summed counts."""
    if settings["problem_type"] == NUMBER:
        return metrics.number_scores(sums)
    several = settings["problem_type"] == SEVERAL
    return metrics.multi_label_scores(sums, labels) if several else metrics.class_scores(sums, labels)


def remarks(gold: np.ndarray, said: Said) -> dict[str, float]:
    """Of numbers, Spearman's correlation, which is no function of sums."""
    return {"spearman": metrics.spearman(gold, said.scores)} if gold.dtype == np.float64 else {}


def spread(said: Said, settings: Mapping[str, Any]) -> float:
    """How much the certainty differs between texts, if all have the same label (`finetune.metrics.answer_spread`)."""
    if settings["problem_type"] != ONE or said.labels is None:
        return math.inf
    return metrics.answer_spread(said.labels, said.scores)


def write(
    file: Callable[[str], Path],
    name: str,
    dataset: Any,
    said: Said,
    labels: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Writes `predictions_<name>.tsv`: the texts, what is right, what the model says, and its score.

    Several labels are a list in JSON; the score is then that of the least certain label. A label that is not known is
    an empty cell.
    """
    predicted, scores = spoken(said, labels, settings)
    right, predicted = (list(map(written, side)) for side in (_known(dataset), predicted))
    header = [*_columns(dataset), "label", "predicted", "score"]
    told = ["" if math.isnan(own) else own for own in scores]
    rows = zip(*(dataset[column] for column in _columns(dataset)), right, predicted, told, strict=True)
    reporting.write_predictions(file(f"predictions_{name}.tsv"), header, rows)


def spoken(said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> tuple[list[Any], list[float]]:
    """The answers in words: a label, a list of labels, or a number; and a score for each.

    The score of several labels is the probability of the answer on the label that is nearest to the threshold. That
    of a number is the number.
    """
    if settings["problem_type"] == NUMBER:
        return said.scores.tolist(), said.scores.tolist()
    if settings["problem_type"] == ONE:
        assert said.labels is not None
        return [labels[i] for i in said.labels], told_scores(said, settings).tolist()
    given = chosen(said, settings)
    sure = said.scores if said.labels is not None else np.where(given, said.scores, 1 - said.scores).min(1)
    return [[label for label, own in zip(labels, row, strict=True) if own] for row in given], sure.tolist()


def reread(folder: Path, name: str) -> tuple[list[list[str]], list[Any], list[Any], list[float]]:
    """Words, label, predicted label and score of each text, from `predictions_<name>.tsv`.

    All as they stand in the file: several labels are a list in JSON.
    """
    csv.field_size_limit(2**31 - 1)  # a text may be long
    with (folder / f"predictions_{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    words = [" ".join(row[key] for key in ("text", "text_pair") if key in row).split() for row in rows]
    scores = [float(row["score"]) if row["score"] else math.nan for row in rows]
    return words, [row["label"] for row in rows], [row["predicted"] for row in rows], scores


def restored(found: Sequence[Any], labels: Sequence[str], settings: Mapping[str, Any]) -> tuple[np.ndarray, Said]:
    """The correct and the predicted labels from what `reread` gave, as `counts` takes them.

    Raises:
        ValueError: for a cell that is no label, no list of labels, or no number.
    """
    kind = settings["problem_type"]
    index = {" ".join(label.split()): i for i, label in enumerate(labels)}  # as cells have them
    sides: list[Any] = []
    for column, cells in zip(("label", "predicted"), found[1:3], strict=True):
        try:
            if kind == ONE:
                sides.append(np.array([index[cell] for cell in cells], dtype=np.int64))
            elif kind == NUMBER:
                sides.append(np.array([float(cell) for cell in cells]))
            else:
                table = np.zeros((len(cells), len(labels)), dtype=bool)
                for row, cell in zip(table, cells, strict=True):
                    row[[index[label] for label in json.loads(cell)]] = True
                sides.append(table)
        except (KeyError, ValueError, TypeError) as error:
            what = "number" if kind == NUMBER else "label of the model"
            raise ValueError(f"the column {column} has a cell that is no {what}: {error}") from error
    right, predicted = sides
    empty = np.full(len(predicted), np.nan)
    return right, Said(None, predicted) if kind == NUMBER else Said(predicted, empty)


def inputs(dataset: Any) -> tuple[list[list[str]], list[str]]:
    """Words and label of each text, as `reread` has them."""
    columns = [dataset[name] for name in _columns(dataset)]
    words = [" ".join(texts).split() for texts in zip(*columns, strict=True)]
    return words, [written(label) for label in _known(dataset)]


def _known(dataset: Any) -> Sequence[Any]:
    """The label of each text; an empty one where none is known."""
    labels: Sequence[Any] = dataset["label"] if "label" in dataset.column_names else [""] * len(dataset)
    return labels


def written(label: Any) -> str:
    """A label, several or a number as `predictions_<split>.tsv` has them."""
    return json.dumps(label, ensure_ascii=False) if isinstance(label, list) else str(label)


def label_numbers(dataset: Any) -> dict[str, int]:
    """How many texts have each label."""
    if data.problem_type_of(dataset) == NUMBER:
        return {}
    cells = dataset["label"][:]
    found = Counter(label for cell in cells for label in ([cell] if isinstance(cell, str) else cell))
    return dict(sorted(found.items()))


def check(sample: Any, predictor: Any) -> None:
    """Raises ValueError, in one sentence, for what this model does not label."""
    pair = is_pair(sample)
    if not pair and not isinstance(sample, str):
        raise ValueError("this model labels texts: give a text, or two as a pair")
    if predictor.pairs is not None and predictor.pairs != pair:
        given, learned = ("a pair", "single texts") if pair else ("a single text", "pairs of texts")
        raise ValueError(f"this is {given}, and the model was trained on {learned}")


def answer(samples: Sequence[Any], predictor: Any) -> list[dict[str, Any]]:
    """An answer for each sample, as `finetune.prediction` explains them."""
    answers: list[dict[str, Any]] = [{} for _ in samples]
    kind = predictor.settings["problem_type"]
    for paired in (False, True):
        ids = [i for i, sample in enumerate(samples) if isinstance(sample, tuple) is paired]
        if not ids:
            continue
        texts = [samples[i][0] if paired else samples[i] for i in ids]
        pairs = [samples[i][1] for i in ids] if paired else None
        encoded = data.encode_strings(
            texts,
            pairs,
            predictor.tokenizer,
            max_seq_length=predictor.max_seq_length,
            windows=predictor.settings.get("long_texts") == "window",
        )
        if encoded.texts_cut:
            data.warn_of_cut_texts(predictor.max_seq_length)
        said = decode(encoded, predictor.collect(encoded.rows))
        predicted, scores = spoken(said, predictor.labels, predictor.settings)
        for at, (i, label, score) in enumerate(zip(ids, predicted, scores, strict=True)):
            answers[i] = {"predicted": label, "score": round(float(score), 6)}
            if kind == SEVERAL:
                rounded = said.scores[at].astype(np.float64).round(6).tolist()
                answers[i]["scores"] = dict(zip(predictor.labels, rounded, strict=True))
            elif kind == NUMBER:
                answers[i] = {"predicted": round(float(label), 6)}
            elif predictor.min_score is not None and answers[i]["score"] < predictor.min_score:
                answers[i]["predicted"] = None
        if predictor.top_k is not None:
            for i, best in zip(ids, _best(said, predictor), strict=True):
                answers[i]["top_k"] = best
    return answers


def _best(said: Said, predictor: Any) -> list[list[dict[str, Any]]]:
    if predictor.settings["problem_type"] == SEVERAL:  # each label has a probability of its own
        order = np.argsort(-said.scores, axis=1, kind="stable")[:, : predictor.top_k or None]
        return [
            [{"label": predictor.labels[i], "score": round(float(row[i]), 6)} for i in best]
            for row, best in zip(said.scores, order, strict=True)
        ]
    return surety.best_labels(said.logs, said.scores, predictor)
