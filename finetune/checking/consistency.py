"""Words that are annotated in one way here and in another way there, and tags that break their scheme."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from finetune import metrics
from finetune.checking.samples import ENTITIES, Samples
from finetune.checking.sections import Section, cut, many

_LONGEST = 10  # words of a surface that is searched
_RARE = 0.05  # a tag of a word is suspicious if it has at most this share of the word's occurrences
_OFTEN = 10  # occurrences of a word from which on a rare tag is told
NOT_ANNOTATED = "not annotated"
Span = tuple[int, int, str]


def surfaces(samples: Samples) -> tuple[Section, Section]:
    """Words that are an entity of several types, and entities whose borders differ from the majority.

    Each word sequence that is an entity somewhere is searched in all splits. An occurrence has a pattern: the
    entities within it. Occurrences that an entity crosses or encloses are not counted, since they say nothing of the
    borders within.
    """
    spans = [metrics.entity_spans(tags) for tags in samples.labels]
    patterns: dict[tuple[str, ...], dict[tuple[Span, ...], list[tuple[int, int]]]] = {}
    for surface, sample, begin in _occurrences(samples.words, spans):
        end = begin + len(surface)
        inside = [(a - begin, b - begin, kind) for a, b, kind in spans[sample] if begin <= a and b <= end]
        touching = sum(a < end and b > begin for a, b, _ in spans[sample])
        if touching == len(inside):
            patterns.setdefault(surface, defaultdict(list))[tuple(inside)].append((sample, begin))
    return _several_types(samples, patterns), _borders(samples, patterns)


def _occurrences(
    words: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]]
) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Each place of each word sequence that is an entity somewhere: (words, sentence, number of its first word)."""
    ids: dict[str, int] = {}
    lengths = np.array([len(row) for row in words])
    flat = np.array([ids.setdefault(word, len(ids)) for row in words for word in row], dtype=np.uint64)
    begins = np.concatenate([[0], np.cumsum(lengths)])
    sentence = np.repeat(np.arange(len(words)), lengths)
    random = np.random.default_rng(0).integers(0, 2**64, len(ids), dtype=np.uint64)
    hashed = random[flat.astype(np.int64)] if len(flat) else flat
    wanted: dict[int, list[int]] = defaultdict(list)
    for row, own in enumerate(spans):
        for begin, end, _ in own:
            if end - begin <= _LONGEST:
                wanted[end - begin].append(int(begins[row]) + begin)
    for length, places in sorted(wanted.items()):
        windows = np.zeros(max(len(flat) - length + 1, 0), dtype=np.uint64)
        for i in range(length):
            windows = windows * np.uint64(0x9E3779B97F4A7C15) + hashed[i : i + len(windows)]
        within = sentence[: len(windows)] == sentence[length - 1 :]
        for at in np.flatnonzero(np.isin(windows, windows[places]) & within).tolist():
            row = int(sentence[at])
            begin = at - int(begins[row])
            yield tuple(words[row][begin : begin + length]), row, begin


def _several_types(samples: Samples, patterns: Any) -> Section:
    found = []
    for surface, own in patterns.items():
        whole: Counter[str] = Counter()
        places: dict[str, tuple[int, int]] = {}
        for pattern, occurrences in own.items():
            if not pattern:
                kind = NOT_ANNOTATED
            elif len(pattern) == 1 and pattern[0][:2] == (0, len(surface)):
                kind = pattern[0][2]
            else:
                continue
            whole[kind] += len(occurrences)
            places.setdefault(kind, occurrences[0])
        if len(whole) > 1:
            (first, most), *others = whole.most_common()
            few = sum(number for _, number in others)
            # Many occurrences of one kind and few of another are more suspicious than as many of both.
            found.append((-most / (few + 1), surface, whole, places, first))
    types = sum(len(set(whole) - {NOT_ANNOTATED}) > 1 for _, _, whole, _, _ in found)
    rows = []
    for _, surface, whole, places, _ in sorted(found, key=lambda one: one[:2]):
        rare = min(whole, key=lambda kind: whole[kind])
        told = ", ".join(f"{kind} {number:,}" for kind, number in whole.most_common())
        rows.append([" ".join(surface), sum(whole.values()), told, f"{rare}: {samples.where(*places[rare])}"])
    kept, more = cut(rows)
    says = (
        f"{many(types, 'entity', 'entities')} with several types, and {len(found) - types:,} that are sometimes not "
        "annotated."
    )
    note = "Words count as they are written. The least balanced come first: many of one kind, few of another."
    return Section(
        "surfaces",
        "One surface, several labels",
        says,
        ["words", "occurrences", "annotated as", "a place of the rarest"],
        kept,
        note,
        bool(found),
        more,
        {"with_several_types": types, "sometimes_not_annotated": len(found) - types},
    )


def _borders(samples: Samples, patterns: Any) -> Section:
    rows: list[list[Any]] = []
    for surface, own in patterns.items():
        bordered: Counter[tuple[tuple[int, int], ...]] = Counter()
        places: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = defaultdict(list)
        for pattern, occurrences in own.items():
            if pattern:
                borders = tuple(span[:2] for span in pattern)
                bordered[borders] += len(occurrences)
                places[borders] += occurrences
        if len(bordered) < 2:
            continue
        usual, most = bordered.most_common(1)[0]
        if most < 2 or 2 * most <= sum(bordered.values()):
            continue
        for borders, number in bordered.items():
            if borders != usual:
                told = [_bracketed(surface, some) for some in (borders, usual)]
                rows.append([told[0], told[1], number, most, samples.where(*places[borders][0])])
    rows.sort(key=lambda row: (-row[3] / row[2], row[0]))
    total = sum(row[2] for row in rows)
    kept, more = cut(rows)
    says = f"{many(total, 'place')} where the borders differ from those of most places." if rows else "None."
    note = (
        "The same words in several places; brackets show the entities. The table has borders of a minority, if more "
        "than half of the places, and at least two, agree."
    )
    return Section(
        "borders",
        "Entity borders that differ from the majority",
        says,
        ["here", "in most places", "places like this", "places of the majority", "place"],
        kept,
        note,
        bool(rows),
        more,
        {"places": total},
    )


def _bracketed(words: Sequence[str], borders: Sequence[tuple[int, int]]) -> str:
    begins, ends = {a for a, _ in borders}, {b - 1 for _, b in borders}
    return " ".join(f"{'[' * (i in begins)}{word}{']' * (i in ends)}" for i, word in enumerate(words))


def rare_tags(samples: Samples) -> Section:
    """For plain tags: words that almost always have one tag, and the places where they have another one."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    places: dict[tuple[str, str], tuple[int, int]] = {}
    for sample, (words, tags) in enumerate(zip(samples.words, samples.labels, strict=True)):
        for at, (word, tag) in enumerate(zip(words, tags, strict=True)):
            counts[word][tag] += 1
            places.setdefault((word, tag), (sample, at))
    rows: list[list[Any]] = []
    for word, own in counts.items():
        total = own.total()
        usual, most = own.most_common(1)[0]
        for tag, number in own.items():
            if total >= _OFTEN and number <= _RARE * total:
                rows.append([word, tag, number, usual, most, samples.where(*places[word, tag])])
    rows.sort(key=lambda row: (-row[4] / row[2], row[0]))
    several = sum(len(own) > 1 for own in counts.values())
    kept, more = cut(rows)
    total = sum(row[2] for row in rows)
    return Section(
        "surfaces",
        "Words with an unusual tag",
        f"{several:,} of {len(counts):,} words have several tags; {many(total, 'place')} with a tag that its word "
        f"seldom has.",
        ["word", "tag", "places", "usual tag", "places of it", "a place"],
        kept,
        f"Seldom: in at most {_RARE:.0%} of {_OFTEN} or more occurrences.",
        bool(rows),
        more,
        {"words_with_several_tags": several, "places": total},
    )


def ill_formed(samples: Samples) -> Section:
    """`I-` tags that continue no entity. `finetune.data.to_iob2` keeps those of IOBES as such tags."""
    rows: list[list[Any]] = []
    by_split: Counter[str] = Counter()
    for sample, tags in enumerate(samples.labels):
        for at, (before, tag) in enumerate(itertools.pairwise(["O", *tags])):
            if tag[0] == "I" and before[2:] != tag[2:]:
                split = samples.splits[int(samples.split[sample])]
                by_split[split] += 1
                words = samples.words[sample][max(at - 2, 0) : at + 3]
                rows.append([split, tag, before, " ".join(words), samples.where(sample, at)])
    kept, more = cut(rows)
    told = ", ".join(f"{number:,} in {split}" for split, number in by_split.items())
    return Section(
        "ill_formed",
        "Ill-formed tag sequences",
        f"{told}: I- tags that continue no entity of their type." if rows else "None.",
        ["split", "tag", "the tag before", "words around it", "place"],
        kept,
        "A type that changes within an entity is also told: I-LOC after B-PER.",
        bool(rows),
        more,
        {split: by_split[split] for split in samples.splits},
    )


def of_words(samples: Samples) -> list[Section]:
    """What can be said of words with a tag each; nothing for other data."""
    if samples.kind == ENTITIES:
        return [*surfaces(samples), ill_formed(samples)]
    return [rare_tags(samples)] if samples.kind == "tags" else []
