"""Documents -> rows of a language model, which predicts each token from those before it.

A document is a token that begins it, its own tokens, and a token that ends it. A row is a part of one document. The
first token of a row is no target. So a row begins with the last target of the row before, and each token but the
first of the document is the target of exactly one row.

| rows of | what a target sees |
|---|---|
| training, a model with positions | the tokens before it in its row; the cuts differ in each epoch |
| training, a recurrent model | the whole document: the state is carried over from the row before |
| evaluation, a model with positions | at least `context` tokens, or all tokens before it if there are fewer |
| evaluation, a recurrent model | the whole document; of one beyond 16,384 tokens, at least 8,192 |

Shapes: D documents, N rows, B rows of a batch, T tokens of these rows.
"""

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset

from finetune.data.documents import Corpus, Document, corpora_of
from finetune.data.rows import Rows, ranges
from finetune.data.tokens import Documents, tokenize

_LONGEST = 2**14  # tokens of a row that a recurrent model is evaluated on


def read_documents(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, Dataset]:
    """The documents of each split: lists of `sentences`, with `source` and `line`. Blank sentences are left out.

    Raises:
        ValueError: naming the file or the flag, for what cannot be read.
    """
    splits = {}
    for split, (corpus,) in corpora_of(config, given=given).items():
        rows: dict[str, list[Any]] = {"sentences": [], "source": [], "line": []}
        for document in corpus:
            if sentences := [sentence for sentence in document.sentences if sentence.strip()]:
                rows["sentences"].append(sentences)
                rows["source"].append(document.source)
                rows["line"].append(document.line)
        if not rows["line"]:
            raise ValueError(f"{corpus.name}: no text in it")
        splits[split] = Dataset.from_dict(rows)
    return splits


def tokenize_documents(dataset: Dataset, tokenizer: Any) -> Documents:
    """The documents of a split as arrays of tokens. `lines` are their numbers in the split."""
    name, content = ", ".join(dict.fromkeys(dataset["source"])), hashlib.sha256()

    def read() -> Iterator[Document]:
        return (Document(name, number, sentences) for number, sentences in enumerate(dataset["sentences"]))

    for document in read():
        content.update("\n".join([*document.sentences, "\n"]).encode("utf-8", "surrogatepass"))
    return tokenize(Corpus(name, "all", read, f"next words {content.hexdigest()}"), tokenizer)


@dataclass(frozen=True)
class TextRows:
    """Parts of documents.

    Token 0 of a document is the one that begins it, and the last is the one that ends it.
    """

    documents: Documents
    begin: int  # the id that begins a document
    end: int  # the id that ends it
    parts: np.ndarray  # int64 (N, 4): a document, the row's first token, its end, its first target
    lanes: np.ndarray | None = None  # int64 (N,): which lane each row is in

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (N,)."""
        return self.parts[:, 2] - self.parts[:, 1]

    @property
    def targets(self) -> np.ndarray:
        """Targets of each row, int64 (N,)."""
        return self.parts[:, 2] - self.parts[:, 3]

    def take(self, row_ids: Sequence[int] | np.ndarray) -> Rows:
        """The rows, with -100 as the label of what is no target; those of lanes with `lane` and `continues`."""
        ids = np.asarray(row_ids, dtype=np.int64)
        document, first, end, target = self.parts[ids].T
        lengths = end - first
        row = np.repeat(np.arange(len(ids)), lengths)
        at = ranges(first, lengths)  # in the document
        begins = self.documents.sentences[self.documents.documents]  # (D + 1,)
        ends = at == (begins[document + 1] - begins[document] + 1)[row]
        tokens = np.full(len(at), self.begin, dtype=np.int64)
        tokens[ends] = self.end
        inside = (at > 0) & ~ends
        tokens[inside] = self.documents.tokens[(begins[document][row] + at - 1)[inside]]
        samples = {}
        if self.lanes is not None:
            samples = {"lane": self.lanes[ids], "continues": (first > 0).astype(np.int64)}
        labels = np.where(at >= target[row], tokens, -100)
        return Rows(np.concatenate([[0], np.cumsum(lengths)]), {"input_ids": tokens, "labels": labels}, samples)


@dataclass
class NextWordRows:
    """The rows of a split: those of every epoch, and, as a source of rows itself, those of an evaluation.

    Args:
        context: how many tokens each target sees at least in an evaluation, if the document has so many before it.
            None: for a recurrent model, whose rows are whole documents.
        lanes: a recurrent model reads so many documents side by side. Each step has the next row of each lane. When
            a document ends, its lane goes on with the next document. At the end of an epoch some lanes are empty.
            The lanes that have rows are always the first ones. 0: rows in any order.
    """

    documents: Documents
    begin: int
    end: int
    max_seq_length: int
    seed: int
    context: int | None = None
    lanes: int = 0
    _built: dict[int, tuple[TextRows, list[np.ndarray]]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def windows(self) -> TextRows:
        """The rows of an evaluation."""
        length = _LONGEST if self.context is None else self.max_seq_length
        context = length // 2 if self.context is None else self.context
        parts = _parts(self._targets, np.full(len(self.documents), length - 1), length - context, context)
        return TextRows(self.documents, self.begin, self.end, parts)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row of an evaluation, int64 (N,)."""
        return self.windows.lengths

    def take(self, row_ids: Sequence[int] | np.ndarray) -> Rows:
        """Rows of an evaluation."""
        return self.windows.take(row_ids)

    def in_epoch(self, epoch: int) -> TextRows:
        """The rows of an epoch of training."""
        return self._epoch(epoch)[0]

    def rows_in(self, epoch: int) -> int:
        """How many rows an epoch has. Where the cuts differ, epochs differ a little."""
        return len(self.in_epoch(epoch))

    def steps(self, epoch: int) -> list[np.ndarray]:
        """The rows of each step of an epoch, those of lane 0 first."""
        return self._epoch(epoch)[1]

    @property
    def _targets(self) -> np.ndarray:
        """How many targets each document has, int64 (D,)."""
        return np.diff(self.documents.sentences[self.documents.documents]) + 1

    def _epoch(self, epoch: int) -> tuple[TextRows, list[np.ndarray]]:
        if epoch not in self._built:
            self._built.clear()
            size = self.max_seq_length - 1
            draw = np.random.default_rng((self.seed, epoch))
            whole = self.context is None
            first = np.full(len(self.documents), size) if whole else draw.integers(1, size + 1, len(self.documents))
            parts = _parts(self._targets, first, size, 1)
            lane, steps = (None, []) if not self.lanes else _in_lanes(parts[:, 0], self.lanes, draw)
            self._built[epoch] = TextRows(self.documents, self.begin, self.end, parts, lane), steps
        return self._built[epoch]


def _parts(targets: np.ndarray, first: np.ndarray, size: int, context: int) -> np.ndarray:
    """Cuts documents into rows: `TextRows.parts`.

    Args:
        targets: int64 (D,), how many each document has.
        first: int64 (D,), how many of them the document's first row has.
        size: how many of them each later row has.
        context: how many tokens stand before the first target of a later row.
    """
    first = np.minimum(first, targets)
    later = -(-(targets - first) // size)
    document = np.repeat(np.arange(len(targets)), later + 1)
    number = ranges(np.zeros(len(targets), np.int64), later + 1)
    begin = np.where(number == 0, 1, 1 + first[document] + (number - 1) * size)
    end = np.where(number == 0, 1 + first[document], np.minimum(begin + size, 1 + targets[document]))
    return np.stack([document, np.maximum(begin - context, 0), end, begin], axis=1)


def _in_lanes(document: np.ndarray, lanes: int, draw: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Deals documents in random order to lanes; the lane with the fewest rows so far takes the next one.

    Args:
        document: int64 (N,), of each row; rows of a document stand together.

    Returns:
        The lane of each row, and the rows of each step.
    """
    rows = np.bincount(document)
    begins = np.concatenate([[0], np.cumsum(rows)])
    heap = [(0, lane) for lane in range(lanes)]
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    for one in draw.permutation(len(rows)).tolist():
        length, lane = heapq.heappop(heap)
        dealt[lane].append(one)
        heapq.heappush(heap, (length + int(rows[one]), lane))
    lengths = np.array([sum(int(rows[one]) for one in some) for some in dealt])
    order = np.argsort(-lengths, kind="stable")  # a lane that ends earlier has a higher number
    lane_of, steps = np.empty(len(document), np.int64), np.full((lanes, int(lengths.max())), -1)
    for lane, old in enumerate(order.tolist()):
        some = np.array(dealt[old], dtype=np.int64)
        ids = ranges(begins[some], rows[some])
        lane_of[ids] = lane
        steps[lane, : len(ids)] = ids
    return lane_of, [step[step >= 0] for step in steps.T]
