"""Labels come from the training split, in an order that does not depend on the order of its rows."""

from collections.abc import Mapping, Sequence

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from finetune.data.conll import CONLL_ENDINGS
from finetune.data.messages import listed, shown


def entity_labels(train: datasets.Dataset) -> list[str]:
    """`["O", "B-LOC", "I-LOC", "B-ORG", ...]` for the entity types of column `ner_tags`, sorted."""
    types = sorted({tag[2:] for tag in _distinct(train, "ner_tags") if tag != "O"})
    if not types:
        raise ValueError(f"{_where(train, 0)}: the training split has no entity, only O tags")
    return ["O"] + [f"{prefix}-{kind}" for kind in types for prefix in "BI"]


def class_labels(train: datasets.Dataset) -> list[str]:
    """The labels of column `label`: whole numbers in numeric order, anything else sorted as text."""
    labels = _distinct(train, "label")
    if len(labels) < 2:
        raise ValueError(f"{_where(train, 0)}: every training row has the label {shown(labels[0])}; two are needed")
    if all(label.lstrip("-").isdecimal() for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)


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


def _distinct(dataset: datasets.Dataset, column: str) -> list[str]:
    values = dataset.with_format("arrow")[:][column].combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    return [value for value in pc.unique(values).to_pylist() if value is not None]


def _where(dataset: datasets.Dataset, row: int, word: int = 0) -> str:
    """`file:line` of a word; a form without lines (Parquet, Hub) says `name, row N`."""
    source, line = dataset[row]["source"], dataset[row]["line"]
    if line < 0:
        return f"{source}, row {-line}"
    return f"{source}:{line + word}" if source.lower().endswith(CONLL_ENDINGS) else f"{source}:{line}"
