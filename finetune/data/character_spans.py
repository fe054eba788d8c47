"""Texts with marked spans of characters: to words with tags, and back.

Each reader (`brat.py`, `doccano.py`, `label_studio.py`, `spacy_spans.py`) gives `MarkedText`s. They have what stands
in the file: marks, in the file's own unit of offsets (`offset_units.py`). `spans_of` turns the marks of a text into
spans. A span counts code points of Unicode, as `str` of Python does, and no two spans of a text overlap.
`words_and_tags` turns the spans into words with tags in IOB2, and `spans_of_tags` turns these back into spans.

1. The words are those of `split_words`. If a span begins or ends inside a word, the word is split there. So each span
   has whole words, and none is lost.
2. White space at the ends of a span does not belong to it. A span of white space alone has no word and is left out.
3. A span in several parts becomes one span, from its first to its last character. Parts with only white space
   between them are an ordinary span: brat writes a span that goes over the end of a line in this way.
4. Two spans with the same place and type are one.
5. Of spans that overlap, `outer` keeps the longest and `inner` the shortest; `error` refuses them. Of spans of equal
   length, the one that begins first is kept, and of spans at the same place the one that stands first in the file.
"""

import bisect
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from finetune.data.messages import shown
from finetune.data.offset_units import UNITS, Unit, positions
from finetune.data.tags import plain_label

Nested = Literal["outer", "inner", "error"]
_BREAKS = re.compile(r"[\t\n\r\0]")


@dataclass(frozen=True)
class Mark:
    """A labelled part of a text, as a file has it."""

    kind: str
    parts: tuple[tuple[int, int], ...]  # begin and end of each part, in the unit of the file
    said: str | None  # the characters that the file says are there, if it does
    line: int  # of the file, from 1 on; the negative number of the record if the file has no lines


@dataclass(frozen=True)
class Span:
    """An entity in a text: `text[begin:end]`."""

    begin: int
    end: int
    kind: str
    line: int = 0  # of the file, as in `Mark`
    score: float | None = None  # of a predicted span


@dataclass(frozen=True)
class MarkedText:
    """A text and its marks, as a file has them."""

    text: str
    marks: list[Mark]
    document: str  # its name or id
    source: Path  # the file that has the marks
    line: int  # where the record begins
    annotated: bool = True  # whether somebody has looked for entities in this text
    row: Any = None  # the record as it came in, for writing it back
    others: Counter[str] = field(default_factory=Counter)  # what is not read: how many of each kind


def mark_of(line: int, kind: Any, begin: Any, end: Any, said: Any = None) -> Mark | None:
    """A mark of one part from values of a JSON file; None if they have other types."""
    right = all(isinstance(offset, int) and not isinstance(offset, bool) for offset in (begin, end))
    if not right or not isinstance(kind, str) or not isinstance(said, (str, type(None))):
        return None
    return Mark(kind, ((begin, end),), said, line)


def place(source: Path, line: int) -> str:
    """A place in a file, for messages."""
    return f"{source}:{line}" if line > 0 else f"{source}, record {-line}"


def spans_of(
    marked: MarkedText, nested: Nested = "outer", unit: Unit = "auto", told: Counter[str] | None = None
) -> list[Span]:
    """The spans of a text, in their order; no two overlap.

    Args:
        unit: what the offsets of the file count. `auto`: code points.
        told: counts what had to be decided; the keys say what.

    Raises:
        ValueError: naming file and line, for offsets that are no place in the text, or have other characters than the
            file says; for a type that is empty or breaks a line; and with `error` for spans that overlap.
    """
    told = Counter() if told is None else told
    found: dict[tuple[int, int, str], Span] = {}
    at = positions(marked.text, "code_points" if unit == "auto" else unit)
    for mark in marked.marks:
        parts = [_characters(part, at, marked, mark, unit) for part in mark.parts]
        _check_characters(parts, marked, mark, unit)
        begin, end = min(part[0] for part in parts), max(part[1] for part in parts)
        gaps = zip(sorted(parts), sorted(parts)[1:], strict=False)
        if any(marked.text[before[1] : after[0]].strip() for before, after in gaps):
            told["spans in several parts, each read as one, from its first to its last character"] += 1
        inside = marked.text[begin:end]
        if not inside.strip():
            told["spans without a word, left out"] += 1
            continue
        if len(inside.strip()) < len(inside):
            told["spans with white space at their ends, which is left out"] += 1
            begin, end = begin + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
        kind = plain_label(mark.kind)
        if not kind or _BREAKS.search(kind):
            raise ValueError(
                f"{place(marked.source, mark.line)}: the type {shown(mark.kind)} is empty or breaks a line"
            )
        if (begin, end, kind) in found:
            told["spans that are there twice, read once"] += 1
        found.setdefault((begin, end, kind), Span(begin, end, kind, mark.line))
    return without_overlaps(list(found.values()), nested, marked, told)


def without_overlaps(spans: Sequence[Span], nested: Nested, marked: MarkedText, told: Counter[str]) -> list[Span]:
    """Spans of which no two overlap, by rule 5, in the order of the text."""
    sign = 1 if nested == "inner" else -1
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (sign * (span.end - span.begin), span.begin)):
        i = bisect.bisect(kept, span.begin, key=lambda other: other.begin)
        near = [other for other in kept[max(i - 1, 0) : i + 1] if other.begin < span.end and span.begin < other.end]
        if near and nested == "error":
            first, second = sorted((span, near[0]), key=lambda span: (abs(span.line), span.begin))
            raise ValueError(
                f"{place(marked.source, second.line)}: {_named(second, marked)} overlaps {_named(first, marked)}"
                + (f" of line {first.line}" if 0 < first.line != second.line else "")
                + "; with --nested outer the longer one is read, with --nested inner the shorter one"
            )
        if near:
            what = "longest" if nested == "outer" else "shortest"
            told[f"spans left out, since they overlap others (--nested {nested} reads the {what})"] += 1
        else:
            kept.insert(i, span)
    return kept


def words_and_tags(
    words: Sequence[tuple[int, int]], spans: Sequence[Span]
) -> tuple[list[tuple[int, int]], list[str], list[int]]:
    """The places of the words of a text, their tags in IOB2, and the number of the span of each word, or -1.

    Args:
        words: the places that `split_words` gives; words in which a span begins or ends are split.
        spans: as `spans_of` gives them.
    """
    borders = sorted({border for span in spans for border in (span.begin, span.end)})
    places = [piece for word in words for piece in _split(word, borders)]
    starts = [begin for begin, _ in places]
    tags, owners = ["O"] * len(places), [-1] * len(places)
    for number, span in enumerate(spans):
        first, last = (bisect.bisect_left(starts, border) for border in (span.begin, span.end))
        for word in range(first, last):
            tags[word] = f"{'B' if word == first else 'I'}-{span.kind}"
            owners[word] = number
    return places, tags, owners


def spans_of_tags(places: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Span]:
    """The spans of words with tags in IOB2. An `I-` that continues nothing begins a span."""
    spans: list[Span] = []
    before = "O"
    for (begin, end), tag in zip(places, tags, strict=True):
        if tag[0] == "I" and before[2:] == tag[2:] and before != "O":
            spans[-1] = replace(spans[-1], end=end)
        elif tag != "O":
            spans.append(Span(begin, end, tag[2:]))
        before = tag
    return spans


def _characters(
    part: tuple[int, int], at: Sequence[int], marked: MarkedText, mark: Mark, unit: Unit
) -> tuple[int, int]:
    """A part of a mark in code points. `at` has the code point of each offset of the file."""
    begin, end = part
    where = place(marked.source, mark.line)
    if not 0 <= begin < end:
        raise ValueError(f"{where}: a span from {begin} to {end}; its end must be greater than its begin")
    if end >= len(at):
        raise ValueError(
            f"{where}: a span from {begin} to {end}, but the text has {len(at) - 1:,} characters"
            + _other_unit([part], marked, mark, unit)
        )
    for offset in part:
        if offset and at[offset] == at[offset - 1]:
            raise ValueError(
                f"{where}: the offset {offset} is in the middle of a character, counted in {UNITS[unit]}"
            )
    return at[begin], at[end]


def _check_characters(parts: Sequence[tuple[int, int]], marked: MarkedText, mark: Mark, unit: Unit) -> None:
    """Refuses a mark with other characters than the file says."""
    if mark.said is None or _same(_joined(parts, marked.text), mark.said):
        return
    ranges = ";".join(f"{begin} {end}" for begin, end in mark.parts)
    raise ValueError(
        f"{place(marked.source, mark.line)}: at {ranges} the text has {shown(_joined(parts, marked.text))}, not "
        f"{shown(mark.said)}{_other_unit(mark.parts, marked, mark, unit)}"
    )


def _other_unit(parts: Sequence[tuple[int, int]], marked: MarkedText, mark: Mark, unit: Unit) -> str:
    """What the user can do about a mark that is not where its offsets say."""
    for other in UNITS:
        at = positions(marked.text, other)
        if other in (unit, "auto") or max(end for _, end in parts) >= len(at):
            continue
        if mark.said is None and len(at) != len(marked.text) + 1:
            return (
                f"; counted in {UNITS[other]} it is in the text: if the file counts them, give --span_offsets {other}"
            )
        there = _joined([(at[begin], at[end]) for begin, end in parts], marked.text)
        if mark.said and _same(there, mark.said):
            return f"; the file counts {UNITS[other]}, so give --span_offsets {other}"
    if marked.text.startswith("\ufeff"):
        return "; the text begins with a byte-order mark, which counts as a character"
    if "\r\n" in marked.text:
        return "; the lines of the text end with two characters, CR and LF, and both count"
    return ""


def _joined(parts: Sequence[tuple[int, int]], text: str) -> str:
    return " ".join(text[begin:end] for begin, end in parts)


def _same(there: str, said: str) -> bool:
    """Whether two texts differ in white space alone: files have spaces, or a backslash and an n, for line ends."""
    if there == said:
        return True
    there, said = ("".join(re.sub(r"\\[nrt]", " ", text).split()) for text in (there, said))
    return there == said


def _named(span: Span, marked: MarkedText) -> str:
    return f"{shown(marked.text[span.begin : span.end])} ({span.kind}, {span.begin} to {span.end})"


def _split(word: tuple[int, int], borders: Sequence[int]) -> list[tuple[int, int]]:
    """The pieces of a word between borders of spans."""
    begin, end = word
    inside = borders[bisect.bisect_right(borders, begin) : bisect.bisect_left(borders, end)]
    return list(zip([begin, *inside], [*inside, end], strict=True))
