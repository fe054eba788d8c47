"""Documents -> pretraining instances: which tokens stand together in one input.

An instance is one or more spans of the documents' tokens. Pairs have a label: 0 if the second segment follows the
first, 1 if it does not, -100 if there is no question. All random choices of a document depend only on (seed, version,
document). So other documents do not change them.

Shapes: N instances, S spans.
"""

import random
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from finetune.data.tokens import Documents

NEXT, NOT_NEXT, UNASKED = 0, 1, -100
_IN_MEMORY = 2**20  # numbers, before they go to the disk

Spans = tuple[int, ...]  # begin, end, begin, end, ...


@dataclass(frozen=True)
class Instances:
    """Spans of tokens, instance after instance."""

    spans: np.ndarray  # int64 (S, 2): begin and end
    offsets: np.ndarray  # int64 (N + 1,): instance i is spans[offsets[i]:offsets[i + 1]]
    labels: np.ndarray  # int64 (N,): NEXT, NOT_NEXT, UNASKED

    def __len__(self) -> int:
        return len(self.labels)


def segment_pairs(
    documents: Documents, max_tokens: int, *, seed: int, version: int, short_seq_prob: float = 0.1
) -> Iterator[tuple[Spans, int]]:
    """Pairs for next-sentence prediction, as for BERT (Devlin et al., 2019, section 3.1 and appendix A.2).

    Sentences are gathered until they fill the input (a shorter input with `short_seq_prob`). A first part of them is
    segment A. In half of the cases segment B is the rest. Otherwise segment B begins at a random sentence of
    *another* document, and the rest is used for the next pair. If a pair is too long, tokens are cut from the longer
    segment, one at a time, at a random end.

    Args:
        max_tokens: tokens of both segments, without special tokens.
    """
    sentences, boundaries, count = documents.sentences, documents.documents, len(documents)
    for document in range(count):
        rng = random.Random(f"{seed} {version} {document}")
        first, last = int(boundaries[document]), int(boundaries[document + 1])
        ends = sentences[first : last + 1].tolist()  # ends[i]: where sentence i begins, ends[i + 1]: where it ends
        target = _target(rng, max_tokens, short_seq_prob)
        i, n = 0, last - first
        while i < n:
            j = min(bisect_left(ends, ends[i] + target, i + 1), n)  # the chunk is sentences i to j - 1
            a_end = i + (rng.randint(1, j - i - 1) if j - i >= 2 else 1)
            if j - i == 1 or rng.random() < 0.5:
                other = rng.randrange(count - 1)
                other += other >= document
                start = rng.randrange(int(boundaries[other]), int(boundaries[other + 1]))
                b = int(sentences[start])
                wanted = b + max(target - (ends[a_end] - ends[i]), 1)
                stop = min(bisect_left(sentences, wanted, start + 1), int(boundaries[other + 1]))
                b_end, label, j = int(sentences[stop]), NOT_NEXT, a_end
            else:
                b, b_end, label = ends[a_end], ends[j], NEXT
            yield truncate_pair(ends[i], ends[a_end], b, b_end, max_tokens, rng), label
            i = j


def sentence_pairs(documents: Documents, max_tokens: int, *, seed: int, version: int) -> Iterator[tuple[Spans, int]]:
    """Pairs of two single sentences: `sentence_pair` of Liu et al. (2019), section 4.2.

    In half of the cases the second sentence is the next one, which then makes no other pair. Otherwise it comes from
    *another* document. The last sentence of a document always gets a second sentence from another document.
    """
    sentences, boundaries, count = documents.sentences, documents.documents, len(documents)
    for document in range(count):
        rng = random.Random(f"{seed} {version} {document}")
        i, last = int(boundaries[document]), int(boundaries[document + 1])
        while i < last:
            if i + 1 == last or rng.random() < 0.5:
                other = rng.randrange(count - 1)
                other += other >= document
                second, label, following = rng.randrange(*boundaries[other : other + 2].tolist()), NOT_NEXT, i + 1
            else:
                second, label, following = i + 1, NEXT, i + 2
            a, b = sentences[i : i + 2].tolist(), sentences[second : second + 2].tolist()
            yield truncate_pair(a[0], a[1], b[0], b[1], max_tokens, rng), label
            i = following


def ordered_pairs(
    documents: Documents, max_tokens: int, *, seed: int, version: int, short_seq_prob: float = 0.1
) -> Iterator[tuple[Spans, int]]:
    """Pairs for ALBERT's sentence-order prediction (Lan et al., 2020, section 3.1).

    They are two neighbouring segments of one document, swapped in half of the cases. A chunk of one sentence has no
    order, so it becomes an instance with the label -100.
    """
    sentences, boundaries = documents.sentences, documents.documents
    for document in range(len(documents)):
        rng = random.Random(f"{seed} {version} {document}")
        ends = sentences[int(boundaries[document]) : int(boundaries[document + 1]) + 1].tolist()
        target = _target(rng, max_tokens, short_seq_prob)
        i, n = 0, len(ends) - 1
        while i < n:
            j = min(bisect_left(ends, ends[i] + target, i + 1), n)
            if j - i == 1:
                begin, end = ends[i], ends[j]
                if end - begin > max_tokens:
                    begin, end, *_ = truncate_pair(begin, end, end, end, max_tokens, rng)
                yield (begin, end), UNASKED
            else:
                a_end = ends[i + rng.randint(1, j - i - 1)]
                swapped = rng.random() < 0.5
                a0, a1, b0, b1 = truncate_pair(ends[i], a_end, a_end, ends[j], max_tokens, rng)
                yield ((b0, b1, a0, a1), NOT_NEXT) if swapped else ((a0, a1, b0, b1), NEXT)
            i = j


def full_sentences(documents: Documents, max_tokens: int, *, cross: bool = True) -> Iterator[tuple[Spans, int]]:
    """Inputs packed with whole sentences: `full_sentences` and `doc_sentences` of Liu et al. (2019), section 4.2.

    With `cross`, an input may continue in the next document, as another span. The separator between both counts as
    one of `max_tokens`. A sentence longer than the input is cut, and continues in the next input. No token is left
    out.
    """
    sentences, boundaries = documents.sentences, documents.documents
    room = max_tokens
    spans: list[int] = []
    for document in range(len(documents)):
        ends = sentences[int(boundaries[document]) : int(boundaries[document + 1]) + 1].tolist()
        begin, end = ends[0], ends[-1]
        if spans:  # an unfinished input continues if at least one sentence of this document fits
            room -= 1
            if not cross or ends[1] - begin > room:
                yield tuple(spans), UNASKED
                room, spans = max_tokens, []
        while end - begin > room:
            i = bisect_right(ends, begin + room) - 1  # the last sentence that ends in the input
            stop = ends[i] if ends[i] > begin else begin + room
            yield (*spans, begin, stop), UNASKED
            begin, room, spans = stop, max_tokens, []
        if end > begin:
            spans += [begin, end]
            room -= end - begin
    if spans:
        yield tuple(spans), UNASKED


def parallel_pairs(
    documents: Documents, max_tokens: int, *, seed: int, version: int, shift: int = 0
) -> Iterator[tuple[Spans, int]]:
    """Translation pairs (Conneau and Lample, 2019, section 3.3): every two languages of a row, in random order.

    Args:
        documents: rows of a table, one sentence for each language. An empty sentence makes no pair.
        shift: take the second sentence from a later row, so that it is no translation: from the first row with such a
            sentence that is at least `shift` rows later. The first sentence is cut as for `shift` 0.
    """
    boundaries, count = documents.documents, len(documents)

    def cell(row: int, language: int) -> tuple[int, int]:
        begin, end = documents.sentences[boundaries[row] + language : boundaries[row] + language + 2].tolist()
        return begin, end

    for row in range(count):
        rng = random.Random(f"{seed} {version} {row}")
        languages = int(boundaries[row + 1] - boundaries[row])
        for first in range(languages - 1):
            for second in range(first + 1, languages):
                one, two = (first, second) if rng.random() < 0.5 else (second, first)
                cuts = rng.getrandbits(32)
                a, b = cell(row, one), cell(row, two)
                if a[0] == a[1] or b[0] == b[1]:
                    continue
                a0, a1, b0, b1 = truncate_pair(*a, *b, max_tokens, random.Random(cuts))
                if shift:
                    others = (cell((row + step) % count, two) for step in range(shift, count))
                    b0, b1 = next((other for other in others if other[0] < other[1]), (b0, b1))
                    *_, b0, b1 = truncate_pair(a1, a1, b0, b1, max_tokens - (a1 - a0), random.Random(cuts))
                yield (a0, a1, b0, b1), UNASKED


def truncate_pair(
    a: int, a_end: int, b: int, b_end: int, max_tokens: int, rng: random.Random
) -> tuple[int, int, int, int]:
    """Cuts tokens off the longer segment, at its front or its back by chance, until both fit."""
    while (excess := a_end - a + b_end - b - max_tokens) > 0:
        # As many cuts in a row as fall on the same segment: the first is the longer one until both are equal.
        difference = (a_end - a) - (b_end - b)
        cuts = min(excess, abs(difference)) if difference else 1
        front = sum(rng.random() < 0.5 for _ in range(cuts))
        if difference > 0:
            a, a_end = a + front, a_end - (cuts - front)
        else:
            b, b_end = b + front, b_end - (cuts - front)
    return a, a_end, b, b_end


def collect(instances: Iterable[tuple[Spans, int]]) -> Instances:
    """Keeps instances in arrays; if there are many, the arrays are on the disk."""
    spans, counts, labels = _Numbers(), _Numbers(), _Numbers()
    for span, label in instances:
        spans.extend(span)
        counts.append(len(span) // 2)
        labels.append(label)
    offsets = np.concatenate([[0], np.cumsum(counts.array())])
    return Instances(spans.array().reshape(-1, 2), offsets, labels.array())


class _Numbers:
    """A growing int64 array. If it exceeds a few megabytes, it goes to a temporary file."""

    def __init__(self) -> None:
        self._new = array("q")
        self._file: IO[bytes] | None = None

    def append(self, number: int) -> None:
        self.extend((number,))

    def extend(self, numbers: Iterable[int]) -> None:
        self._new.extend(numbers)
        if len(self._new) >= _IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._new.tofile(self._file)
        self._new = array("q")

    def array(self) -> np.ndarray:
        if self._file is None:
            return np.frombuffer(self._new, dtype=np.int64)
        self._flush()
        self._file.flush()
        return np.memmap(self._file, dtype=np.int64, mode="r")


def _target(rng: random.Random, max_tokens: int, short_seq_prob: float) -> int:
    """The length of a document's inputs. Sometimes it is shorter than the maximum, as inputs are in fine-tuning."""
    return rng.randint(2, max_tokens) if rng.random() < short_seq_prob else max_tokens
