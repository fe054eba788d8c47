"""Labels of texts by several models side by side: by label, by length; and the errors.

Shapes: N texts, L labels.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finetune import data, metrics
from finetune.tasks.samples import Runs, by_error, each, first_run, in_order


def compared(read: Runs, splits: Mapping[str, Any]) -> dict[str, Any]:
    """What models have in common and where they differ, from what each of their runs said."""
    kind = data.problem_type_of(splits["train"])
    if kind == "regression":
        return _numbers(read)
    return _several(read, splits) if kind == "multi_label_classification" else _one(read, splits)


def _one(read: Runs, splits: Mapping[str, Any]) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix, f1_score

    some = first_run(read)

    labels = data.class_labels(splits["train"])
    gold = np.array(some.gold)
    lengths = np.array([metrics.length_group(len(words)) for words in some.words])
    groups = sorted(set(lengths.tolist()), key=in_order)
    sizes = Counter(some.gold)

    def mean(function: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        return {
            name: np.mean([function(np.array(run.predicted)) for run in seeds.values()], axis=0)
            for name, seeds in read.items()
        }

    by_label = mean(lambda said: f1_score(gold, said, labels=labels, average=None, zero_division=0))
    by_length = mean(lambda said: [(said == gold)[lengths == group].mean() for group in groups])
    return {
        "metric": "accuracy",
        "score": metrics.score,
        "counts": {
            name: np.stack([metrics.accuracy_counts(gold, np.array(run.predicted)) for run in seeds.values()])
            for name, seeds in read.items()
        },
        "labels": labels,
        "confusion": {
            name: table.tolist()
            for name, table in mean(lambda said: confusion_matrix(gold, said, labels=labels)).items()
        },
        "breakdowns": {
            "label": {
                "size": {label: sizes[label] for label in labels},
                "of": "texts, by F1",
                "scores": {name: dict(zip(labels, map(float, row), strict=True)) for name, row in by_label.items()},
            },
            "text length": {
                "size": {group: int((lengths == group).sum()) for group in groups},
                "of": "texts, by accuracy",
                "scores": {name: dict(zip(groups, map(float, row), strict=True)) for name, row in by_length.items()},
            },
        },
        "examples": by_error(
            read,
            lambda right, predicted: int(predicted != right),
            by_confidence=True,
            kinds=lambda right, predicted: [f"{right} → {predicted}"],
        ),
    }


def _several(written: Runs, splits: Mapping[str, Any]) -> dict[str, Any]:
    labels = data.class_labels(splits["train"])
    read = {
        name: {
            seed: replace(run, gold=_lists(run.gold), predicted=_lists(run.predicted)) for seed, run in own.items()
        }
        for name, own in written.items()
    }
    gold = _sets(first_run(read).gold, labels)
    said = {key: _sets(run.predicted, labels) for key, run in each(read)}
    tables = {key: metrics.multi_label_counts(gold, own) for key, own in said.items()}
    L = len(labels)
    micro = {key: table[:, : 3 * L].reshape(-1, 3, L).sum(2) for key, table in tables.items()}
    return {
        "metric": "f1_micro",
        "score": metrics.score,
        "counts": {name: np.stack([micro[name, seed] for seed in seeds]) for name, seeds in read.items()},
        "labels": labels,
        "breakdowns": {"label": _by_label(read, tables, labels, "texts")},
        "examples": by_error(
            read,
            lambda right, predicted: len(set(right) ^ set(predicted)),
            kinds=lambda right, predicted: [
                *(f"{label} missed" for label in right if label not in predicted),
                *(f"{label} invented" for label in predicted if label not in right),
            ],
        ),
    }


def compared_tags(read: Runs, labels: Sequence[str]) -> dict[str, Any]:
    """The same for plain tags, a label a word."""
    index = {label: i for i, label in enumerate(labels)}
    some = first_run(read)
    offsets = np.cumsum([0, *map(len, some.gold)])

    def ids(rows: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([index[tag] for row in rows for tag in row], dtype=np.int64)

    L = len(labels)
    gold = ids(some.gold)
    tables = {key: metrics.tag_counts(gold, ids(run.predicted), offsets, L) for key, run in each(read)}
    return {
        "metric": "accuracy",
        "score": metrics.score,
        "counts": {
            name: np.stack([tables[name, seed][:, [3 * L, 3 * L + 1, 3 * L + 1]] for seed in seeds])
            for name, seeds in read.items()
        },
        "labels": list(labels),
        "every_word": True,
        "breakdowns": {"label": _by_label(read, tables, labels, "words")},
        "examples": by_error(
            read,
            lambda right, said: sum(a != b for a, b in zip(right, said, strict=True)),
            shown=lambda tags: [(at, at + 1, tag) for at, tag in enumerate(tags)],
            kinds=lambda right, said: sorted({f"{a} → {b}" for a, b in zip(right, said, strict=True) if a != b}),
        ),
    }


def _by_label(
    read: Runs, tables: Mapping[tuple[str, int], np.ndarray], labels: Sequence[str], of: str
) -> dict[str, Any]:
    """The F1 of each label, a mean over each model's seeds, and how often the label is right.

    Args:
        tables: of each run, as `finetune.metrics.multi_label_counts` or `tag_counts` gives them.
        of: what has labels, such as `texts`.
    """
    L = len(labels)
    sums = {key: table.sum(0)[: 3 * L].reshape(3, L) for key, table in tables.items()}
    scores = {
        name: np.mean([metrics.score(sums[name, seed].T) for seed in seeds], axis=0) for name, seeds in read.items()
    }
    return {
        "size": dict(zip(labels, next(iter(sums.values()))[2].tolist(), strict=True)),
        "of": f"{of}, by F1",
        "scores": {name: dict(zip(labels, map(float, row), strict=True)) for name, row in scores.items()},
    }


def _lists(cells: Sequence[str]) -> list[list[str]]:
    """Lists of labels, from JSON."""
    return [json.loads(cell) for cell in cells]


def _sets(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Lists of labels -> bool (N, L)."""
    index = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(rows), len(labels)), dtype=bool)
    for row, own in zip(table, rows, strict=True):
        row[[index[label] for label in own]] = True
    return table


def _numbers(read: Runs) -> dict[str, Any]:
    gold = [float(value) for value in first_run(read).gold]
    counts = {
        name: np.stack(
            [metrics.number_counts(gold, [float(value) for value in run.predicted]) for run in seeds.values()]
        )
        for name, seeds in read.items()
    }
    return {
        "metric": "pearson",
        "score": metrics.pearson,
        "counts": counts,
        "examples": by_error(
            read,
            lambda right, predicted: abs(float(right) - float(predicted)),
            kinds=lambda right, predicted: ["too high" if float(predicted) > float(right) else "too low"],
        ),
    }
