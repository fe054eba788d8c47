"""Sentences and their neighbours from the same document, for models that tag words.

| `--context` | a window shows |
|---|---|
| `none` | one sentence |
| `document` | one sentence, with as many words before and after it as fit; only its own words have labels |
| `side_by_side` | whole sentences that follow each other, as many as fit; all their words have labels |

With `document` there is a row for each sentence, as with `none`, so an epoch has as many steps; but the rows are
longer. Schweter and Akbik (2020, FLERT) describe it. With `side_by_side` an epoch has as many subwords as with
`none`, in fewer and longer rows. A sentence that does not fit into a window has windows of its own, alone.

Shapes: S sentences, W words of all sentences, T subwords of all words.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

Context = Literal["none", "document", "side_by_side"]
CONTEXTS: tuple[Context, ...] = ("none", "document", "side_by_side")
CONTEXT_SETTINGS: dict[str, Any] = {"context": "none", "context_size": None, "split_sentences": False}


def document_numbers(names: Sequence[str | None]) -> np.ndarray:
    """A number for each sentence, int64 (S,): equal for neighbours of the same document, 0 for no document."""
    numbers, number, before = [], 0, None
    for name in names:
        number += name is not None and name != before
        numbers.append(0 if name is None else number)
        before = name
    return np.array(numbers, np.int64)


def neighbours(
    starts: np.ndarray, sentence_offsets: np.ndarray, documents: np.ndarray, content: int, size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How many subwords of its neighbours each sentence gets before and after it.

    Both sides get the same share of the room. What one side cannot use goes to the other. Words stay whole.

    Args:
        starts: int64 (W + 1,): word w has the subwords `[starts[w]:starts[w + 1]]`.
        sentence_offsets: int64 (S + 1,), in words.
        documents: int64 (S,), as `document_numbers` gives them.
        content: the largest number of subwords in a window, without special tokens.
        size: the largest number of subwords on each side [as many as fit].

    Returns:
        Two arrays, int64 (S,).
    """
    places = starts[sentence_offsets]  # (S + 1,)
    begin, end = places[:-1], places[1:]
    first, last = _run_of_each(documents)
    before, after = begin - begin[first], end[last] - end
    if size is not None:
        before, after = np.minimum(before, size), np.minimum(after, size)
    room = np.maximum(content - (end - begin), 0)
    after = np.minimum(after, room - np.minimum(before, room // 2))
    before = np.minimum(before, room - after)
    # To the nearest border of a word that lies inside.
    before = begin - starts[np.searchsorted(starts, begin - before, side="left")]
    after = starts[np.searchsorted(starts, end + after, side="right") - 1] - end
    empty = begin == end
    return np.where(empty, 0, before), np.where(empty, 0, after)


def _run_of_each(documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last sentence of the document of each sentence. A sentence without a document is alone."""
    S = len(documents)
    new = np.ones(S + 1, bool)
    if S:
        new[1:-1] = (documents[1:] != documents[:-1]) | (documents[1:] == 0)
    edges = np.flatnonzero(new)
    run = np.cumsum(new[:-1]) - 1
    return edges[:-1][run], edges[1:][run] - 1


def joined(starts: np.ndarray, sentence_offsets: np.ndarray, documents: np.ndarray, content: int) -> np.ndarray:
    """Where the groups of sentences begin that share a window, in words; int64 (groups + 1,).

    A group has as many sentences of one document as fit.

    Args:
        starts, sentence_offsets, documents, content: as `neighbours` takes them.
    """
    sizes = np.diff(starts[sentence_offsets]).tolist()
    numbers, begins = documents.tolist(), sentence_offsets.tolist()
    groups, held = [0], 0
    for i, (size, number) in enumerate(zip(sizes, numbers, strict=True)):
        if i and (number == 0 or number != numbers[i - 1] or held + size > content):
            groups.append(begins[i])
            held = 0
        held += size
    return np.array([*groups, begins[-1]] if sizes else [0], np.int64)


def told(documents: np.ndarray, rows: int, tokens: int, alone: int) -> str:
    """What the context costs, in a line.

    Args:
        rows, tokens: of all windows, with special tokens.
        alone: the tokens that the windows would have without context.
    """
    known = documents > 0
    first, _ = _run_of_each(documents)
    number = len(np.unique(first[known]))
    times = tokens / max(alone, 1)
    lone = f"; {int((~known).sum()):,} sentences belong to no document, and stay alone" if not known.all() else ""
    return (
        f"  context: {int(known.sum()):,} sentences in {number:,} documents; {rows:,} rows with {times:.2f} times "
        f"the subwords of single sentences{lone}"
    )


def check_context(settings: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for settings of a model that no run has written."""
    kind, size, split = (settings.get(name, default) for name, default in CONTEXT_SETTINGS.items())
    whole = size is None or (isinstance(size, int) and not isinstance(size, bool) and size > 0)
    if kind not in CONTEXTS or not whole or not isinstance(split, bool):
        raise ValueError(f"{where}: no run has written this context: {kind!r:.50}, {size!r:.50}, {split!r:.50}")


def context_notes(settings: Mapping[str, Any]) -> list[str]:
    """For the model card: what a window shows."""
    shows = {
        "document": "a sentence with its neighbours from the same document",
        "side_by_side": "sentences of the same document side by side",
    }
    kind = settings.get("context", "none")
    if kind == "none":
        return []
    return [
        f"`--context {kind}`: a window shows {shows[kind]}, in training and in evaluation. `finetune.predict` does "
        "the same with the sentences of a text; `pipeline()` does not, so its labels may differ."
    ]


def sentence_lengths(text: str, words: Sequence[tuple[int, int]], whole: Sequence[tuple[int, int]] = ()) -> list[int]:
    """How many words each sentence of a text has.

    A sentence that begins inside a word begins after that word.

    Args:
        words: where each word begins and ends, as `split_words` gives them.
        whole: parts of the text that are not divided, such as marked spans.
    """
    import sentencex

    borders = [sentence["start_index"] for sentence in sentencex.get_sentence_boundaries("en", text)]
    borders = [place for place in borders if not any(begin < place < end for begin, end in whole)]
    number = np.searchsorted(borders, [begin for begin, _ in words], side="right")  # of the sentence of each word
    return [len(list(run)) for _, run in itertools.groupby(number.tolist())]
