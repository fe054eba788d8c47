"""The samples of all splits in one form, whatever their task is."""

from __future__ import annotations  # names of the lazy parts in signatures would import datasets

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune import data
from finetune.data.near_duplicates import NearDuplicates, near_duplicates, normal_form

ENTITIES, TAGS, LABEL, LABELS, NUMBER = "entities", "tags", "label", "labels", "number"
QUESTIONS, TEXTS = "questions", "texts"


@dataclass(frozen=True)
class Unit:
    """What is compared to find duplicates: sentences, texts, passages, sources."""

    name: str
    texts: list[str]  # in the order of the splits
    split: np.ndarray  # int64 (texts,): the number of the split
    rows: list[list[int]]  # for each text, the samples that have it; numbers count over all splits
    found: NearDuplicates


@dataclass(frozen=True)
class Samples:
    """N samples of all splits, one split after the other."""

    kind: str  # ENTITIES, TAGS, LABEL, LABELS, NUMBER, QUESTIONS or TEXTS
    splits: list[str]
    split: np.ndarray  # int64 (N,): the number of the split
    words: list[list[str]]
    labels: list[Any]  # tags, a label, labels, a number, answers, or the target text
    units: list[Unit]  # the first one decides which samples of the test split stand in training
    _places: list[tuple[str, Any]]

    def __len__(self) -> int:
        return len(self.words)

    def where(self, sample: int, word: int = 0) -> str:
        """The place of a sample, or of its word in a column file: `file:line`."""
        source, line = self._places[sample]
        if isinstance(line, list):
            line = line[word] if line else 0
        return f"{source}:{line}" if line > 0 else f"{source}, row {-line}" if line < 0 else source

    def place(self, sample: int) -> tuple[str, Any]:
        """The file of a sample, and its line, or the line of each of its words."""
        return self._places[sample]

    def of(self, split: str) -> range:
        """The samples of a split; none if there is no such split."""
        if split not in self.splits:
            return range(0)
        begin, end = np.searchsorted(self.split, [self.splits.index(split), self.splits.index(split) + 1])
        return range(int(begin), int(end))

    def parts_of(self, split: str) -> dict[str, list[list[str]]]:
        """The words of what the samples of a split consist of, by its name; of questions these are also the passages,
        each once, and of text to text also the targets.
        """
        if self.kind not in (QUESTIONS, TEXTS):
            return {self.units[0].name: [self.words[i] for i in self.of(split)]}
        number = self.splits.index(split)
        return {
            unit.name: [unit.texts[i].split() for i in np.flatnonzero(unit.split == number).tolist()]
            for unit in self.units
        }

    def text(self, sample: int, limit: int = 200) -> str:
        """The words of a sample as a text, without its end if it is long."""
        text = " ".join(self.words[sample])
        return text if len(text) <= limit else f"{text[:limit]} ..."

    def each_label(self, sample: int) -> list[str]:
        """What is counted as labels: types of entities, tags, labels; nothing for numbers and texts."""
        label = self.labels[sample]
        if self.kind == ENTITIES:
            return [tag[2:] for tag in begins(label)]
        if self.kind in (TAGS, LABELS):
            return list(label)
        if self.kind == QUESTIONS:
            return ["answered" if label else "without an answer"]
        return [label] if self.kind == LABEL else []


def begins(tags: Sequence[str]) -> list[str]:
    """The first tag of each entity of IOB2 tags; an `I-` that continues nothing begins one, as conlleval counts."""
    found, before = [], "O"
    for tag in tags:
        if tag != "O" and not (tag[0] == "I" and before[2:] == tag[2:]):
            found.append(tag)
        before = tag
    return found


def kind_of(pipeline: str, train: Any) -> str:
    """What the labels of a task's data are.

    Args:
        pipeline: the task's `PIPELINE`.

    Raises:
        ValueError: for a task whose data has no labels, such as the next word.
    """
    if pipeline == "token-classification":
        return TAGS if data.is_plain(train) else ENTITIES
    if pipeline == "text-classification":
        kinds = {"single_label_classification": LABEL, "multi_label_classification": LABELS, "regression": NUMBER}
        return kinds[data.problem_type_of(train)]
    if pipeline == "question-answering":
        return QUESTIONS
    if pipeline == "translation":
        return TEXTS
    raise ValueError(f"--task: no check for {pipeline}")


def gather(splits: Mapping[str, Any], pipeline: str, similarity: float) -> Samples:
    """Puts the samples of all splits into one form, and finds the texts that are equal or nearly equal.

    Args:
        splits: as the task's `read` gives them.
        similarity: see `finetune.data.near_duplicates`.
    """
    kind = kind_of(pipeline, splits["train"])
    names = list(splits)
    split = np.repeat(np.arange(len(names)), [len(dataset) for dataset in splits.values()])
    columns: dict[str, list[Any]] = {}
    for name in splits["train"].column_names:
        columns[name] = [value for dataset in splits.values() for value in dataset[name][:]]
    compared = _compared(kind, columns)
    units = [_unit(name, texts, split, name == "passages", similarity) for name, texts in compared.items()]
    if kind in (ENTITIES, TAGS):
        words, labels = columns["tokens"], columns["ner_tags"]
    else:
        words = [text.split() for text in next(iter(compared.values()))]
        if kind == QUESTIONS:
            words = [text.split() for text in columns["question"]]
        labels = {
            QUESTIONS: lambda: columns["answers"],
            TEXTS: lambda: columns["target"],
        }.get(kind, lambda: columns["label"])()
    places = list(zip(columns["source"], columns["line"], strict=True))
    return Samples(kind, names, split, words, labels, units, places)


def _compared(kind: str, columns: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    """The texts of all samples that are compared, by the name of what they are."""
    if kind in (ENTITIES, TAGS):
        return {"sentences": [" ".join(words) for words in columns["tokens"]]}
    if kind == QUESTIONS:
        return {"passages": columns["context"], "questions": columns["question"]}
    if kind == TEXTS:
        return {"sources": columns["text"], "targets": columns["target"]}
    if "text_pair" in columns:
        return {"pairs": list(map(" ".join, zip(columns["text"], columns["text_pair"], strict=True)))}
    return {"texts": columns["text"]}


def _unit(name: str, texts: list[str], split: np.ndarray, shared: bool, similarity: float) -> Unit:
    """
    Args:
        shared: a passage that several questions share is one text, in each split.
    """
    rows = [[i] for i in range(len(texts))]
    if shared:
        owners: dict[tuple[int, str], list[int]] = {}
        for i, (text, own) in enumerate(zip(texts, split.tolist(), strict=True)):
            owners.setdefault((own, normal_form(text)), []).append(i)
        rows = list(owners.values())
    first = [own[0] for own in rows]
    texts = [texts[i] for i in first]
    return Unit(name, texts, split[first], rows, near_duplicates(texts, similarity))
