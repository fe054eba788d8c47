"""Finds the labels of the training split. Their order does not depend on the order of its rows.

The labels are those that occur, and those that are declared: by a data set with `ClassLabel`, or by a fold of a
cross-validation, whose other folds may have labels that it lacks.
"""

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetune.data.messages import listed, shown
from finetune.data.tags import TAG, plain_label

logger = logging.getLogger(__name__)

_DECLARED = "labels: "  # how the description of a data set begins that has declared labels


def entity_labels(train: datasets.Dataset) -> list[str]:
    """`["O", "B-LOC", "I-LOC", "B-ORG", ...]` for the entity types of column `ner_tags`, sorted.

    Raises:
        ValueError: if there is no entity type, or if the tags are plain.
    """
    for row, tags in enumerate(train["ner_tags"] if "plain" in train.column_names else ()):
        for word, tag in enumerate(tags):
            if not TAG.fullmatch(tag):
                raise ValueError(
                    f"{_where(train, row, word)}: {shown(tag)} is no tag; tags are O, B-TYPE, I-TYPE (or IOBES)"
                )
    types = sorted({tag[2:] for tag in (*_distinct(train, "ner_tags"), *declared(train)) if tag != "O"})
    if not types:
        raise ValueError(f"{_where(train, 0)}: the training split has no entity, only O tags")
    return ["O"] + [f"{prefix}-{kind}" for kind in types for prefix in "BI"]


def plain_labels(train: datasets.Dataset) -> list[str]:
    """The tags of column `ner_tags`, sorted."""
    labels = _distinct(train, "ner_tags")
    if len(labels) < 2:
        raise ValueError(f"{_where(train, 0)}: every word has the tag {shown(labels[0])}; two tags are needed")
    return sorted({*labels, *declared(train)})


def class_labels(train: datasets.Dataset) -> list[str]:
    """The labels of column `label`: whole numbers in numeric order, anything else sorted as text.

    If a text may have several labels, at least one label must occur; if it has one label, at least two.
    """
    labels = _distinct(train, "label")
    if pa.types.is_floating(_flat(train, "label").type):
        raise ValueError(f"{_where(train, 0)}: the labels are numbers, such as {labels[0]}; words are needed")
    if not isinstance(train.features["label"], datasets.Value):
        if not labels:
            raise ValueError(f"{_where(train, 0)}: no training text has a label; at least one label is needed")
    elif len(labels) < 2:
        raise ValueError(f"{_where(train, 0)}: every training row has the label {shown(labels[0])}; two are needed")
    labels = list({*labels, *declared(train)})
    if all(re.fullmatch(r"-?\d{1,4000}", label) for label in labels):  # Python reads no longer numbers
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def declare(dataset: datasets.Dataset, names: Sequence[str]) -> None:
    """Makes names labels of a training split, whether they occur in it or not."""
    dataset.info.description = _DECLARED + json.dumps(sorted(names))


def declared(dataset: datasets.Dataset) -> list[str]:
    """The names that were given to `declare`, sorted; none: []."""
    text = dataset.info.description
    names: list[str] = json.loads(text.removeprefix(_DECLARED)) if text.startswith(_DECLARED) else []
    return names


def class_weights(
    told: str | None, train: datasets.Dataset, labels: Sequence[str], column: str
) -> list[float] | None:
    """The weight of each label: what `--class_weights` says, or None.

    Args:
        told: `balanced`, or `a=1,b=3`, where other labels weigh 1. Balanced weights are those of scikit-learn: the
            number of targets, divided by the number of labels and by the number of the label's own targets. If a text
            may have several labels, a weight is the number of texts without the label, divided by the number of texts
            with it. A label that does not occur weighs 1.

    Raises:
        ValueError: for labels that do not exist, and weights that are not numbers greater than 0.
    """
    if told is None:
        return None
    if told == "balanced":
        counts = _counts(train, column)
        if column == "label" and not isinstance(train.features[column], datasets.Value):
            most = len(train)
            return [max(most - counts[label], 1) / counts[label] if label in counts else 1.0 for label in labels]
        share = sum(counts.values()) / len(counts)
        return [share / counts[label] if label in counts else 1.0 for label in labels]
    weights: dict[str, float] = {}
    for part in told.split(","):
        label, sign, number = part.rpartition("=")
        label, number = plain_label(label), number.strip()
        if not sign or not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", number) or not 0 < float(number) < math.inf:
            raise ValueError(
                f"--class_weights {told}: {shown(part)} is no label with its weight; give balanced, or "
                "label=2,other=0.5, with weights greater than 0"
            )
        if label not in labels:
            raise ValueError(f"--class_weights {told}: there is no label {shown(label)}; there are: {listed(labels)}")
        if label in weights:
            raise ValueError(f"--class_weights {told}: the label {shown(label)} has two weights")
        weights[label] = float(number)
    return [weights.get(label, 1.0) for label in labels]


def label_counts(dataset: datasets.Dataset, column: str) -> str:
    """The labels of a split and how often each occurs, the most frequent first: `'O' 62,730, 'B-PER' 660`.

    For numbers: their mean, standard deviation, least and greatest value.
    """
    if pa.types.is_floating(_flat(dataset, column).type):
        numbers = np.asarray(dataset[column][:])
        return (
            f"mean {numbers.mean():.4g}, deviation {numbers.std():.4g}, least {numbers.min():.4g}, "
            f"greatest {numbers.max():.4g}"
        )
    counts = _counts(dataset, column)
    told = [
        f"{shown(label)} {counts[label]:,}" for label in sorted(counts, key=lambda label: (-counts[label], label))
    ]
    text = ", ".join(told[:20]) + (f" and {len(told) - 20:,} more labels" if len(told) > 20 else "")
    bare = sum(not labels for labels in dataset[column]) if column == "label" else 0
    return text + f"; {bare:,} texts without a label" * (bare > 0)


def _counts(dataset: datasets.Dataset, column: str) -> dict[str, int]:
    values = pc.value_counts(_flat(dataset, column)).to_pylist()
    return {value["values"]: value["counts"] for value in values}


def tell_of_lost_labels(dataset: datasets.Dataset, name: str, rows: int, column: str, flag: str) -> None:
    """Warns if the first rows of a split lack labels that other rows have. This happens if a file is sorted.

    Args:
        name: where the split is from.
    """
    all_labels, kept = (len(_distinct(part, column)) for part in (dataset, dataset.select(range(rows))))
    if kept < all_labels:
        logger.warning(
            "%s %d: the first rows of %s have %d of its %d labels; if it is sorted by label, shuffle it",
            flag,
            rows,
            name,
            kept,
            all_labels,
        )


def check_labels(splits: Mapping[str, datasets.Dataset], labels: Sequence[str], column: str) -> None:
    """Refuses a label that only an evaluation split has.

    Raises:
        ValueError: naming the label and the file and line where it first stands.
    """
    known = set(labels)
    for split in splits.values():
        strangers = set(_distinct(split, column)) - known
        if strangers:
            for row, cell in enumerate(split[column]):
                for word, label in enumerate([cell] if isinstance(cell, str) else cell):
                    if label in strangers:
                        raise ValueError(
                            f"{_where(split, row, word)}: the label {shown(label)} does not occur in the training "
                            f"data, which has: {listed(labels)}"
                        )


def without_unknown_tags(
    splits: Mapping[str, datasets.Dataset], labels: Sequence[str], how: str
) -> dict[str, datasets.Dataset]:
    """The splits, where tags that training lacks are taken out of the others. A line says how many there were.

    Args:
        how: `skip`: sentences with such a tag are left out. `outside`: the tag becomes `O`.

    Raises:
        ValueError: if no sentence of a split is left, and if there is no tag `O` to put in the place of another.
    """
    known, result = set(labels), dict(splits)
    for name, split in splits.items():
        strangers = sorted(set(_distinct(split, "ner_tags")) - known)
        if not strangers:
            continue
        rows = split["ner_tags"][:]
        if how == "skip":
            keep = [row for row, tags in enumerate(rows) if known.issuperset(tags)]
            if not keep:
                raise ValueError(
                    f"{_where(split, 0)}: each sentence of the {name} split has a label that training lacks: "
                    f"{listed(strangers)}"
                )
            result[name], number, what = split.select(keep), len(rows) - len(keep), "sentences are left out"
        else:
            if "O" not in known:
                raise ValueError("--unknown_labels outside: the training data has no tag O; give skip or error")
            number, what = sum(tag not in known for tags in rows for tag in tags), "words become O"
            table = split.with_format("arrow")[:]
            at = table.column_names.index("ner_tags")
            tags = pa.array([[tag if tag in known else "O" for tag in row] for row in rows], pa.list_(pa.string()))
            result[name] = datasets.Dataset(table.set_column(at, "ner_tags", tags))
        logger.warning(
            "%s: %s %s of the %s split, since training lacks the labels %s (--unknown_labels %s)",
            *(split[0]["source"], f"{number:,}", what, name, listed(strangers), how),
        )
    return result


def _distinct(dataset: datasets.Dataset, column: str) -> list[str]:
    return [value for value in pc.unique(_flat(dataset, column)).to_pylist() if value is not None]


def _flat(dataset: datasets.Dataset, column: str) -> pa.Array:
    values = dataset.with_format("arrow")[:][column].combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    return values


def _where(dataset: datasets.Dataset, row: int, word: int = 0) -> str:
    """`file:line` of a word; a form without lines (Parquet, Hub) says `name, row N`."""
    source, line = dataset[row]["source"], dataset[row]["line"]
    if isinstance(line, list):  # of a column file or a file with spans: one for each word
        line = line[word]
    return f"{source}, row {-line}" if line < 0 else f"{source}:{line}"
