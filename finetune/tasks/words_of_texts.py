"""Texts as words and sentences before a tagger labels them, and afterwards the entities in the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune import data, metrics

# White space, zero-width spaces, marks for the direction of writing, and the byte-order mark.
_INVISIBLE = r"[\s\u200b\u2060\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
_WITHIN = re.compile(rf"{_INVISIBLE}(.*?){_INVISIBLE}", re.DOTALL)


@dataclass(frozen=True)
class Divided:
    """Samples as words, and the sentences of all samples."""

    words: list[list[str]]  # of each sample
    places: list[list[tuple[int, int]] | None]  # where these are in a text; None: words were given
    numbers: list[int]  # how many sentences each sample has, at least one
    sentences: np.ndarray  # int64 (S + 1,), in words
    documents: np.ndarray  # int64 (S,), 0: the sentence is alone

    def borders(self) -> Iterable[list[int]]:
        """For each sample, where its sentences begin and where the last one ends, in words of all samples."""
        first = 0
        for number in self.numbers:
            yield self.sentences[first : first + number + 1].tolist()
            first += number


def divided(samples: Sequence[Any], settings: Mapping[str, Any], documents: Sequence[int] | None) -> Divided:
    """Divides samples as the run of the model divided its texts: each text is a document, if there are contexts."""
    split = settings.get("split_sentences") or settings.get("context", "none") != "none"
    words, places, lengths, numbers, of_sentences = [], [], [], [], []
    for i, sample in enumerate(samples):
        is_text = isinstance(sample, str)
        at = data.split_words(sample) if is_text else None
        words.append(sample if at is None else [sample[begin:end] for begin, end in at])
        places.append(at)
        own = data.sentence_lengths(sample, at) if at and split else [len(words[-1])]
        lengths += own
        numbers.append(len(own))
        of_sentences += [-1 - i if is_text else documents[i] if documents else 0] * len(own)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Divided(words, places, numbers, offsets, np.array(of_sentences, np.int64))


def leave_out(answer: dict[str, Any], min_score: float, outside: str) -> None:
    """Takes the entities out of an answer that the model is not sure enough of."""
    for entity in answer["entities"]:
        if entity["score"] < min_score:
            begin, end = entity["words"]
            answer["predicted"][begin:end] = [outside] * (end - begin)
    answer["entities"] = [entity for entity in answer["entities"] if entity["score"] >= min_score]


def decode_entities(
    words: Sequence[str],
    tags: Sequence[str],
    scores: Sequence[float],
    text: Any = None,
    places: Sequence[tuple[int, int]] | None = None,
    scale: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """The entities of one sentence. `Predictor` explains their keys.

    Args:
        tags: a tag for each word, in any scheme.
        scores: a score for each word.
        text, places: the text, and where each word begins and ends in it; no places if words were given.
        scale: factor and shift that calibrate the scores of the entities, as `finetune.metrics.scaled` takes them.
    """
    found = []
    # Tags of every scheme keep their entities in IOB2. `to_iob2` accepts all prefixes for IOBES.
    for begin, end, kind in metrics.entity_spans(data.to_iob2(tags, "IOBES")):
        entity: dict[str, Any]
        if places is None:
            joined = " ".join(words[begin:end])
            entity = {"text": joined[slice(*_visible(joined))], "label": kind}
        else:
            first = places[begin][0]
            start, stop = (first + at for at in _visible(text[first : places[end - 1][1]]))
            entity = {"text": text[start:stop], "label": kind, "start": start, "end": stop}
        lowest = min(scores[begin:end])
        score = lowest if scale is None else round(float(metrics.scaled(np.array(lowest), scale)), 6)
        found.append(entity | {"words": [begin, end], "score": score})
    return found


def _visible(text: str) -> tuple[int, int]:
    """Where a text begins and ends without the invisible characters at its ends.

    If all characters are invisible, the text stays as it is.
    """
    found = _WITHIN.fullmatch(text)
    assert found is not None
    return found.span(1) if found[1] else (0, len(text))
