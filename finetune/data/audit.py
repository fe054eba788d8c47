"""Describes pretraining instances in numbers and as text, before a model is trained on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.data.instances import NOT_NEXT, UNASKED
from finetune.data.masking import IGNORED
from finetune.data.pretraining import EpochRows
from finetune.data.tokens import Documents

_BARS = 8  # bins of the histogram
_WIDTH = 40  # characters of its longest bar


@dataclass(frozen=True)
class InstanceAudit:
    """The instances of an epoch, counted."""

    documents: int
    sentences: int
    tokens: int  # of the documents
    instances: int
    lengths: np.ndarray  # int64 (instances,), special tokens included
    padding: float  # share of the tokens of padded batches
    masked: float  # share of the tokens that may be masked
    unknown: float  # share of the documents' tokens that are the unknown token
    not_next: float | None  # share of the pairs whose second segment does not follow the first
    unused: int  # tokens of the documents that are in no instance, cut off from pairs that are too long
    left_out: dict[str, int]
    too_long: list[str]  # the places of documents with a sentence longer than an input
    examples: list[str]
    max_seq_length: int

    def __str__(self) -> str:
        edges = np.linspace(0, self.max_seq_length, _BARS + 1).astype(int)
        counts = np.histogram(self.lengths, bins=edges + 0.5)[0]
        lines = [
            f"{self.documents:,} documents, {self.sentences:,} sentences, {self.tokens:,} subwords",
            f"{self.instances:,} instances an epoch, {self.lengths.mean():.1f} subwords long on average:",
            *(
                f"  {low + 1:>5} to {high:<5}{count:>9,}  {'#' * round(_WIDTH * count / max(counts.max(), 1))}"
                for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
            ),
            f"padding in batches: {self.padding:.1%} of the tokens",
            f"masked: {self.masked:.2%} of the subwords",
            f"unknown: {self.unknown:.2%} of the subwords",
        ]
        if self.not_next is not None:
            lines.append(f"second segment does not follow the first: {self.not_next:.1%} of the pairs")
        if self.unused:
            lines.append(f"cut off from pairs that are too long: {self.unused / self.tokens:.2%} of the subwords")
        for what, number in self.left_out.items():
            if number:
                lines.append(f"{what.replace('_', ' ')}: {number:,}")
        if self.too_long:
            where = f"in {len(self.too_long):,} documents, the first at {self.too_long[0]}"
            lines.append(f"sentences longer than an input: {where}")
        return "\n".join(lines)


def instance_audit(
    rows: EpochRows, tokenizer: Any, *, max_seq_length: int, batch_size: int, examples: int = 10
) -> InstanceAudit:
    """Counts the instances of an epoch, and gives some of them as text."""
    lengths = rows.lengths
    order = np.random.default_rng(0).permutation(len(rows))
    padded = sum(
        int(lengths[order[i : i + batch_size]].max()) * len(order[i : i + batch_size])
        for i in range(0, len(order), batch_size)
    )
    labels = np.concatenate([instances.labels for instances in rows.instances])
    asked = labels[labels != UNASKED]
    sample = order[:2000]
    taken = rows.take(sample)
    free = int((rows.unmasked(sample)[1] >= 0).sum())
    tokens = sum(len(documents.tokens) for documents in rows.documents)
    return InstanceAudit(
        documents=sum(len(documents) for documents in rows.documents),
        sentences=sum(len(documents.sentences) - 1 for documents in rows.documents),
        tokens=tokens,
        instances=len(rows),
        lengths=lengths,
        padding=1 - lengths.sum() / padded,
        masked=float((taken.tokens["labels"] != IGNORED).sum() / max(free, 1)),
        unknown=sum(documents.notes["unknown"] for documents in rows.documents) / tokens,
        not_next=float((asked == NOT_NEXT).mean()) if len(asked) else None,
        unused=sum(
            _unused(documents, instances.spans)
            for documents, instances in zip(rows.documents, rows.instances, strict=True)
        ),
        left_out={
            key: sum(documents.notes[key] for documents in rows.documents)
            for key in ("empty_documents", "empty_sentences")
        },
        too_long=[place for documents in rows.documents for place in _too_long(documents, max_seq_length - 2)],
        examples=[written_out(rows, int(row), tokenizer) for row in order[:examples]],
        max_seq_length=max_seq_length,
    )


def written_out(rows: EpochRows, row: int, tokenizer: Any) -> str:
    """An instance as text. A masked token is shown as `‹original|what the model sees›`."""
    taken, original = rows.take([row]), rows.unmasked(np.array([row]))[0]
    shown, was = taken.tokens["input_ids"], original.tokens["input_ids"]
    masked = taken.tokens["labels"] != IGNORED
    parts: list[str] = []
    begin = 0
    for i in [*np.flatnonzero(masked).tolist(), len(was)]:
        if i > begin:
            parts.append(tokenizer.decode(was[begin:i]))
        if i < len(was):
            parts.append(f"‹{tokenizer.decode(was[i : i + 1]).strip()}|{tokenizer.decode(shown[i : i + 1]).strip()}›")
        begin = i + 1
    label = taken.samples.get("next_sentence_label")
    told = {None: "", 0: "[follows] ", 1: "[does not follow] ", UNASKED: "[no pair] "}
    return told[None if label is None else int(label[0])] + " ".join(parts)


def _unused(documents: Documents, spans: np.ndarray) -> int:
    """Tokens that are in no span."""
    order = np.argsort(spans[:, 0])
    begins, ends = spans[order, 0], np.maximum.accumulate(spans[order, 1])
    before = np.concatenate([[0], ends[:-1]])
    return len(documents.tokens) - int(np.maximum(ends - np.maximum(begins, before), 0).sum())


def _too_long(documents: Documents, room: int) -> Sequence[str]:
    sentences = np.flatnonzero(np.diff(documents.sentences) > room)
    found = np.unique(np.searchsorted(documents.documents, sentences, side="right") - 1)
    return [documents.place(document) for document in found.tolist()]
