"""Accuracy, macro F1 and macro recall, by scikit-learn."""

from collections.abc import Sequence
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
