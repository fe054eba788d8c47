"""Files of doccano, as its export for sequence labelling writes them and its import takes them.

    {"id": 1, "text": "Ada saw Oslo.", "label": [[0, 3, "PER"], [8, 12, "LOC"]]}
    {"id": 1, "text": "Ada saw Oslo.", "entities": [{"id": 7, "label": "PER", "start_offset": 0, "end_offset": 3}]}

The key is `label`, `labels` or `entities`. Its list may have triples or objects. Objects may also say `start` and
`end`, as many programs write them. Relations between entities are counted, but not read.
https://doccano.github.io/doccano/tutorial/

Offsets count code points; or grapheme clusters, if the project was made so.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from finetune.data.character_spans import Mark, MarkedText, Span, mark_of, place
from finetune.data.json_records import read_json_records, text_of
from finetune.data.messages import shown
from finetune.data.offset_units import in_unit

WHAT = '{"text": "Ada saw Oslo.", "label": [[0, 3, "PER"]]}'
_KEYS = ("label", "labels", "entities")


def read_doccano(path: Path) -> list[MarkedText]:
    """The texts of a file. A record without `label`, `labels` and `entities` is not annotated.

    Raises:
        ValueError: naming file and line or record, for what is no record of doccano.
    """
    records, _ = read_json_records(path, WHAT)
    return [_read(path, line, row) for line, row in records]


def _read(path: Path, line: int, row: dict[str, Any]) -> MarkedText:
    where = place(path, line)
    text, key = text_of(row, where), key_of(row, where)
    marks = [] if key is None or row[key] is None else row[key]
    if not isinstance(marks, list):
        raise ValueError(f"{where}: {key!r} is {shown(marks)}; it must be a list like [[0, 3, 'PER']]")
    links = row.get("relations")
    others = Counter({"relations": len(links)}) if isinstance(links, list) and links else Counter[str]()
    found = [_mark(mark, line, f"{where}: {key!r} has") for mark in marks]
    return MarkedText(text, found, str(row.get("id", abs(line))), path, line, key is not None, row, others)


def key_of(row: dict[str, Any], where: str) -> str | None:
    """The key of a record that has its spans; None if it has none of them."""
    keys = [key for key in _KEYS if key in row]
    if len(keys) > 1:
        raise ValueError(f"{where}: the spans are in {keys[0]!r} or in {keys[1]!r}; leave out one of them")
    return keys[0] if keys else None


def _mark(mark: Any, line: int, where: str) -> Mark:
    if isinstance(mark, list) and len(mark) == 3:
        begin, end, kind = mark
    elif isinstance(mark, dict):
        begin, end, kind = (mark.get(key) for key in (*places_of([mark]), "label"))
    else:
        begin = end = kind = None
    found = mark_of(line, kind, begin, end)
    if found is None:
        raise ValueError(
            f"{where} {shown(mark)}; a span is [0, 3, 'PER'], or has 'start_offset', 'end_offset' and 'label' (or "
            "'start', 'end' and 'label')"
        )
    return found


def places_of(marks: Iterable[Any]) -> tuple[str, str]:
    """The keys that say where a span begins and ends, as the first object among the marks has them."""
    mark: dict[str, Any] = next((own for own in marks if isinstance(own, dict)), {})
    return ("start", "end") if "start" in mark and "start_offset" not in mark else ("start_offset", "end_offset")


def with_doccano_spans(marked: MarkedText, spans: Iterable[Span], at: Sequence[int]) -> dict[str, Any]:
    """The record with other spans, in the form of those that it had. Its relations are left out.

    Args:
        at: the positions of the unit of the offsets (`offset_units.py`).
    """
    key = key_of(marked.row, "") or "label"
    objects = key == "entities" and not any(isinstance(mark, list) for mark in marked.row[key] or ())
    old = marked.row.get(key) or ()
    first, last = places_of(old)
    numbered = any(isinstance(mark, dict) and "id" in mark for mark in old)
    new: list[Any] = []
    for number, span in enumerate(spans, start=1):
        begin, end = in_unit(span.begin, span.end, at)
        as_object: dict[str, Any] = {"id": number} if numbered or first == "start_offset" else {}
        as_object |= {"label": span.kind, first: begin, last: end}
        new.append(as_object if objects else [begin, end, span.kind])
    row = {**marked.row, key: new}
    return row | {"relations": []} if "relations" in row else row
