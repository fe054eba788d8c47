"""Scores of labels: one or several a text, or a plain tag for each word.

Every sample has counts, and every score is a function of their sums.

Shapes: N texts, S sentences, W words of all sentences, L labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score


def classification_scores(
    gold: np.ndarray | Sequence[int], predicted: np.ndarray | Sequence[int]
) -> dict[str, float]:
    """`accuracy, f1_macro, recall_macro`; the macro means are over the labels that occur in `gold`.

    So the labels of a mean depend on the data alone, and are the same for every model. `recall_macro` is
    scikit-learn's `balanced_accuracy_score`. Its `f1_score(average="macro")` also counts labels that were only
    predicted, each as 0: where there are such, it is lower than `f1_macro`.

    Args:
        gold, predicted: (N,) label indices.
    """
    present = np.unique(gold)
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "f1_macro": float(f1_score(gold, predicted, labels=present, average="macro", zero_division=0)),
        "recall_macro": float(recall_score(gold, predicted, labels=present, average="macro", zero_division=0)),
    }


class Classification(evaluate.Metric):
    """`classification_scores` as an `evaluate.Metric` that works with no network."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="Accuracy, macro F1 and macro recall.",
            citation="Pedregosa et al. (2011), Scikit-learn: machine learning in Python.",
            inputs_description="predictions, references: for each text the index of its label.",
            features=datasets.Features({"predictions": label, "references": label}),
        )

    def _compute(self, predictions: list[int], references: list[int], **_: Any) -> dict[str, float]:
        return classification_scores(references, predictions)


def multi_label_counts(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """What each text adds to the scores: int32 (N, 3 L + 2).

    The columns are L for correct labels, L for predicted ones, L for those of `gold`, then whether all labels of the
    text are right, and 1.

    Args:
        gold, predicted: bool (N, L).
    """
    gold, predicted = np.asarray(gold, dtype=bool), np.asarray(predicted, dtype=bool)
    exact = (gold == predicted).all(1, keepdims=True)
    return np.concatenate([gold & predicted, predicted, gold, exact, np.ones_like(exact)], axis=1).astype(np.int32)


def class_counts(gold: np.ndarray | Sequence[int], predicted: np.ndarray | Sequence[int], L: int) -> np.ndarray:
    """As `multi_label_counts`, of texts with one label each: int32 (N, 3 L + 2).

    Args:
        gold, predicted: (N,) label indices, below L.
    """
    return tag_counts(gold, predicted, np.arange(len(gold) + 1), L)


def tag_counts(
    gold: np.ndarray | Sequence[int], predicted: np.ndarray | Sequence[int], sentence_offsets: np.ndarray, L: int
) -> np.ndarray:
    """What each sentence adds to the scores: int32 (S, 3 L + 2).

    The columns are L for correct tags, L for predicted ones, L for those of `gold`, then right words, and words.

    Args:
        gold, predicted: (W,) label indices, below L.
        sentence_offsets: int64 (S + 1,), sentence s holds words [offsets[s]:offsets[s + 1]].
    """
    gold, predicted = np.asarray(gold, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    lengths = np.diff(sentence_offsets)
    S, columns = len(lengths), 3 * L + 2
    row = np.repeat(np.arange(S), lengths) * columns
    right = gold == predicted
    cells = [(row + gold)[right], row + L + predicted, row + 2 * L + gold, (row + 3 * L)[right], row + 3 * L + 1]
    return np.bincount(np.concatenate(cells), minlength=S * columns).reshape(S, columns).astype(np.int32)


def class_scores(sums: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """`accuracy, f1_macro, f1_micro, recall_macro` of summed `class_counts`, as `classification_scores` has them.

    With one label a text, `f1_micro` is the accuracy.
    """
    scores, recall = _totals(sums, len(labels))
    return scores | {"recall_macro": recall}


def multi_label_scores(sums: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """`accuracy, f1_macro, f1_micro` of summed `multi_label_counts`, and `f1_<label>`, `precision_<label>`,
    `recall_<label>`, `support_<label>`.

    The accuracy is the share of texts whose labels are all right. `f1_macro` is the mean over the labels that occur
    in gold: see `classification_scores`. A score with nothing to divide by is 0. A label called `micro` has
    `f1_micro_`, since `f1_micro` is the score of all labels.
    """
    scores, _ = _totals(sums, len(labels))
    return scores | _by_label(sums, labels, taken=scores)


def tag_scores(sums: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """`accuracy` by word and `f1_macro` of summed `tag_counts`, and the scores of each tag as in
    `multi_label_scores`.
    """
    scores, _ = _totals(sums, len(labels))
    del scores["f1_micro"]  # it is the accuracy
    return scores | _by_label(sums, labels, taken=scores)


def _totals(sums: np.ndarray, L: int) -> tuple[dict[str, float], float]:
    """The scores over all labels; and the mean of their recalls."""
    correct, predicted, gold = np.split(np.asarray(sums, dtype=np.float64)[: 3 * L], 3)
    right, samples = map(float, sums[3 * L :])
    occurs = gold > 0
    f1 = (2 * correct[occurs] / (predicted + gold)[occurs]).mean() if occurs.any() else 0.0
    recall = (correct[occurs] / gold[occurs]).mean() if occurs.any() else 0.0
    scores = {
        "accuracy": _share(right, samples),
        "f1_macro": float(f1),
        "f1_micro": _share(2 * correct.sum(), predicted.sum() + gold.sum()),
    }
    return scores, float(recall)


def _by_label(sums: np.ndarray, labels: Sequence[str], taken: Mapping[str, float]) -> dict[str, float]:
    L = len(labels)
    scores: dict[str, float] = {}
    for k, label in enumerate(labels):
        name = label
        while f"f1_{name}" in taken or f"f1_{name}" in scores:
            name += "_"
        correct, predicted, gold = (float(sums[i * L + k]) for i in range(3))
        scores[f"f1_{name}"] = _share(2 * correct, predicted + gold)
        scores[f"precision_{name}"] = _share(correct, predicted)
        scores[f"recall_{name}"] = _share(correct, gold)
        scores[f"support_{name}"] = gold
    return scores


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def tuned_threshold(gold: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold with the highest micro F1: a label is predicted where its probability is at least the threshold.

    Between two neighbouring probabilities all thresholds are as good; the one in the middle stands for them, or 0.5
    if it is there. Of thresholds that are as good, the one nearest 0.5; of two that are as near, the lower.

    Args:
        gold: bool (N, L).
        probabilities: (N, L).
    """
    flat = np.asarray(probabilities, dtype=np.float64).ravel()
    order = np.argsort(-flat, kind="stable")
    values, right = flat[order], np.cumsum(np.asarray(gold, dtype=bool).ravel()[order])
    if not len(flat) or not right[-1]:
        return 0.5
    last = np.flatnonzero(np.diff(values, append=-np.inf))  # what is predicted ends where the probability changes
    f1 = 2 * right[last] / (last + 1 + right[-1])
    high = values[last]
    low = np.append(high[1:], 0.0)
    middle = (low + high) / 2
    middle = np.where(middle > low, middle, high)  # of neighbouring floats, rounding may have given the lower
    threshold = np.where((low < 0.5) & (high >= 0.5), 0.5, middle)
    best = threshold[f1 == f1.max()]
    nearest = np.abs(best - 0.5)
    return float(best[nearest == nearest.min()].min())
