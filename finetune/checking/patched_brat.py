"""Corrects `.ann` files of brat. Only the lines of entities that change are changed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.checking.changed_spans import Change, Records, changes_of
from finetune.checking.raw_text import RawText, read_raw
from finetune.data.brat import SPAN_LINE, brat_lines, read_document
from finetune.data.character_spans import MarkedText, Span
from finetune.data.messages import shown
from finetune.data.offset_units import positions

_NUMBER = re.compile(r"T([0-9]+)\t")


def with_brat_spans(path: Path, how: Mapping[str, Any], records: Records) -> bytes:
    """The content of an `.ann` file with other entities.

    An entity that is changed keeps its id, and the lines that name it. A new one gets the next free id. With one that
    is removed go its notes, attributes and normalizations.

    Args:
        how: the file's reading, as `read_spans` notes it.
        records: the lines of the patch, each with its place in the patch.

    Raises:
        ValueError: as `changes_of`; and for an entity that a relation or an event names, and that would be removed.
    """
    marked = read_document(path.with_name(path.name.removesuffix(".ann")), path.stem)
    raw = read_raw(path)
    at = positions(marked.text, how["span_offsets"])
    where = records[0][0]
    removed: set[int] = set()
    new: list[Span] = []
    for change in changes_of(marked, how, records):
        if change.span is not None and re.search(r"\s", change.span.kind):
            raise ValueError(f"{where}: brat has no type with a space in it, such as {shown(change.span.kind)}")
        if change.mark is None:
            assert change.span is not None
            new.append(change.span)
            continue
        line = marked.marks[change.mark].line - 1
        if change.span is None:
            removed |= _with_notes(raw, line, where)
        else:
            raw.lines[line] = _changed_line(raw.lines[line], change, marked, at)
    for line in sorted(removed, reverse=True):
        del raw.lines[line], raw.ends[line]
    for span in new:
        _insert(raw, span, marked.text, at)
    return raw.encoded()


def _changed_line(line: str, change: Change, marked: MarkedText, at: Sequence[int]) -> str:
    found = SPAN_LINE.fullmatch(line)
    assert found is not None
    assert change.span is not None
    if not change.moved:
        return line[: found.start(2)] + change.span.kind + line[found.end(2) :]
    return found[1] + _line_without_id(change.span, marked.text, at) + line[found.end(4) :]


def _line_without_id(span: Span, text: str, at: Sequence[int]) -> str:
    return "\t" + brat_lines(text, [span], at).rstrip("\n").partition("\t")[2]


def _with_notes(raw: RawText, number: int, where: str) -> set[int]:
    """The numbers of the lines that go with an entity: its own, and those that say something about it alone.

    Raises:
        ValueError: if a relation, an event or an equivalence names it.
    """
    own = raw.lines[number].partition("\t")[0]
    found, names = {number}, {own}
    while True:
        more = {other for other, line in enumerate(raw.lines) if other not in found and names & _named(line)}
        for other in sorted(more):
            name = raw.lines[other].partition("\t")[0]
            if name[0] not in "#AMN":
                raise ValueError(
                    f"{where}: {raw.path}:{number + 1}: {own} would be removed, but "
                    f"line {other + 1} names it; remove that line first, or give the entity another type"
                )
            names.add(name)
        if not more:
            return found
        found |= more


def _named(line: str) -> set[str]:
    """The ids that a line names, but its own."""
    cells = line.split("\t")
    return {word.rpartition(":")[2] for word in cells[1].split()} if len(cells) > 1 else set()


def _insert(raw: RawText, span: Span, text: str, at: Sequence[int]) -> None:
    """Puts a new entity before the first one that begins after it."""
    begins = {
        number: int(re.split(r"[ ;]", found[3])[0])
        for number, line in enumerate(raw.lines)
        if (found := SPAN_LINE.fullmatch(line))
    }
    numbers = [int(found[1]) for line in raw.lines if (found := _NUMBER.match(line))]
    line = f"T{max(numbers, default=0) + 1}{_line_without_id(span, text, at)}"
    own = SPAN_LINE.fullmatch(line)
    assert own is not None
    begin = int(re.split(r"[ ;]", own[3])[0])
    later = [number for number, other in begins.items() if other > begin]
    raw.insert(later[0] if later else max(begins, default=-1) + 1, line)
