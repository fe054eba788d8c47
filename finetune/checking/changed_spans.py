"""From other tags of words to other spans of a text, and to the annotations of its file that have to change."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.data.character_spans import Mark, MarkedText, Span, place, spans_of, spans_of_tags, words_and_tags
from finetune.data.context import sentence_lengths
from finetune.data.messages import shown
from finetune.data.offset_units import in_unit, positions
from finetune.data.tags import TAG
from finetune.data.words import split_words

Records = Sequence[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Change:
    """An annotation that is not right."""

    mark: int | None  # its number among the marks of the text; None: it is a new one
    span: Span | None  # the entity in its place; None: there is none
    moved: bool  # whether it begins or ends at another place than before


def changes_of(marked: MarkedText, how: Mapping[str, Any], records: Records) -> list[Change]:
    """What has to change so that the words of a text get other tags.

    An entity that is changed in its type or its borders keeps its annotation. Of entities that are parted or joined,
    those keep it that share most characters with the old ones.

    Args:
        how: the file's reading, as `read_spans` notes it.
        records: the lines of the patch for this text, each with its place in the patch.

    Raises:
        ValueError: naming the line of the patch, for a word or a tag that the text does not have, and if annotations
            that were not read, because they overlap others, would get in the way.
    """
    nested, unit = how["nested"], how["span_offsets"]
    old = spans_of(marked, nested, unit)
    new = _new_spans(marked, old, how["split_sentences"], records)
    plain = {(span.begin, span.end, span.kind) for span in new}
    before = {(span.begin, span.end, span.kind): span for span in old}
    gone = [span for key, span in before.items() if key not in plain]
    come = [span for span in new if (span.begin, span.end, span.kind) not in before]
    pairs = _paired(gone, come)
    # Several marks may say the same.
    marks_at: dict[tuple[int, int, str], list[int]] = {}
    for number, mark in enumerate(marked.marks):
        for span in spans_of(replace(marked, marks=[mark]), nested, unit):
            marks_at.setdefault((span.begin, span.end, span.kind), []).append(number)
    changes = []
    for span in gone:
        other = pairs.get(span)
        moved = other is not None and (other.begin, other.end) != (span.begin, span.end)
        changes += [Change(number, other, moved) for number in marks_at[span.begin, span.end, span.kind]]
    changes += [Change(None, span, True) for span in come if span not in pairs.values()]
    _check(marked, changes, new, how, records[0][0])
    return changes


def _new_spans(marked: MarkedText, old: Sequence[Span], sentences: bool, records: Records) -> list[Span]:
    places, tags, _ = words_and_tags(split_words(marked.text), old)
    lengths = [len(places)]
    if sentences:
        lengths = sentence_lengths(marked.text, places, [(span.begin, span.end) for span in old])
    begins = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    for where, record in records:
        number = record.get("sentence", 1) - 1
        here = place(marked.source, record["line"])
        if not 0 <= number < len(lengths):
            raise ValueError(f"{where}: {here} has no sentence {number + 1}; has the file changed?")
        for one in record["changes"]:
            at = begins[number] + one["word"]
            known = 0 <= one["word"] < lengths[number]
            if not known or marked.text[places[at][0] : places[at][1]] != one["token"]:
                raise ValueError(f"{where}: word {one['word']} of {here} is not {shown(one['token'])}")
            if tags[at] != one["label"]:
                raise ValueError(f"{where}: word {one['word']} of {here} has not the tag {shown(one['label'])}")
            if not isinstance(one["new_label"], str) or not TAG.fullmatch(one["new_label"]):
                raise ValueError(
                    f"{where}: new_label is {shown(one['new_label'])}; it must be O, or a tag such as B-PER"
                )
            tags[at] = one["new_label"]
    spans: list[Span] = []
    for begin, end in itertools.pairwise(begins):
        spans += spans_of_tags(places[begin:end], tags[begin:end])
    return spans


def _paired(gone: Sequence[Span], come: Sequence[Span]) -> dict[Span, Span]:
    """For an old span the new one that takes its annotation: those first that share most characters."""
    shared = [
        (min(old.end, new.end) - max(old.begin, new.begin), old, new)
        for old in gone
        for new in come
        if old.begin < new.end and new.begin < old.end
    ]
    pairs: dict[Span, Span] = {}
    for _, old, new in sorted(shared, key=lambda one: -one[0]):
        if old not in pairs and new not in pairs.values():
            pairs[old] = new
    return pairs


def _check(
    marked: MarkedText, changes: Sequence[Change], wanted: Sequence[Span], how: Mapping[str, Any], where: str
) -> None:
    """Refuses changes after which the text would be read with other spans than the wanted ones."""
    at = positions(marked.text, how["span_offsets"])
    by_mark = {change.mark: change for change in changes if change.mark is not None}
    marks: list[Mark] = []
    for number, mark in enumerate(marked.marks):
        change = by_mark.get(number)
        if change is None:
            marks.append(mark)
        elif change.span is not None:
            parts = (in_unit(change.span.begin, change.span.end, at),) if change.moved else mark.parts
            marks.append(Mark(change.span.kind, parts, None, mark.line))
    marks += [
        Mark(change.span.kind, (in_unit(change.span.begin, change.span.end, at),), None, marked.line)
        for change in changes
        if change.mark is None and change.span is not None
    ]
    read = spans_of(replace(marked, marks=marks), how["nested"], how["span_offsets"])
    found, asked = ({(span.begin, span.end, span.kind) for span in spans} for spans in (read, wanted))
    if found != asked:
        begin, end, kind = min(found ^ asked)
        raise ValueError(
            f"{where}: {shown(marked.text[begin:end])} ({kind}) of {place(marked.source, marked.line)} overlaps an "
            "annotation that was left out, or begins or ends within a character; correct this text by hand"
        )
