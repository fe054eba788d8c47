"""Corrects annotations in records of doccano, Label Studio, Prodigy and spaCy. The others stay as they are."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.checking.changed_spans import Change, Records, changes_of
from finetune.checking.json_edits import with_value
from finetune.checking.raw_text import read_raw
from finetune.data.character_spans import MarkedText, Span, place
from finetune.data.doccano import key_of, places_of
from finetune.data.label_studio import chosen_annotation, results_of
from finetune.data.messages import shown
from finetune.data.offset_units import in_unit, positions
from finetune.data.spacy_spans import tokens_by
from finetune.data.span_files import read_marked


def with_spans_of_records(path: Path, how: Mapping[str, Any], records: Records) -> bytes:
    """The content of a file with other spans in some of its records.

    Args:
        how: the file's reading, as `read_spans` notes it.
        records: the lines of the patch, each with its place in the patch.

    Raises:
        ValueError: as `changes_of`; and for a span that a relation names, and that would be removed.
    """
    texts = {marked.line: marked for marked in read_marked(path, how["form"], how["span_offsets"])}
    raw = read_raw(path)
    by_text: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for where, record in records:
        if record["line"] not in texts:
            raise ValueError(f"{where}: no record begins at {place(path, record['line'])}; has the file changed?")
        by_text.setdefault(record["line"], []).append((where, record))
    rows = {}
    for line, own in by_text.items():
        marked = texts[line]
        at = positions(marked.text, how["span_offsets"])
        rows[line] = _FORMS[how["form"]](marked, changes_of(marked, how, own), at, own[0][0])
    if min(texts) < 0:
        return raw.encoded(with_value(raw.text, [rows.get(line, marked.row) for line, marked in texts.items()]))
    for line, row in rows.items():
        raw.lines[line - 1] = with_value(raw.lines[line - 1], row)
    return raw.encoded()


def _applied(
    items: Sequence[tuple[int, Any]], changes: Sequence[Change], item: Callable[[Any, Change], Any]
) -> list[Any]:
    """The items of a list with those changes. A new one stands before the first that begins after it.

    Args:
        items: each with the place where it begins; the item at a place of this list is the mark with its number.
        item: what an old item becomes, or a new one if the old is None.
    """
    by_mark = {change.mark: change for change in changes if change.mark is not None}
    found = []
    for number, (begin, old) in enumerate(items):
        change = by_mark.get(number)
        if change is None:
            found.append((begin, old))
        elif change.span is not None:
            found.append((change.span.begin, item(old, change)))
    for change in changes:
        if change.mark is None and change.span is not None:
            begin = change.span.begin
            at = next((i for i, (other, _) in enumerate(found) if other > begin), len(found))
            found.insert(at, (begin, item(None, change)))
    return [one for _, one in found]


def _begins(marked: MarkedText, at: Sequence[int]) -> list[int]:
    return [at[mark.parts[0][0]] for mark in marked.marks]


def _doccano(marked: MarkedText, changes: Sequence[Change], at: Sequence[int], where: str) -> dict[str, Any]:
    row = marked.row
    key = key_of(row, where) or "label"
    items = row[key] or []
    objects = key == "entities" and not any(isinstance(mark, list) for mark in items)
    named = {link.get(end) for link in _objects(row.get("relations")) for end in ("from_id", "to_id")}
    for change in changes:
        if change.mark is not None and change.span is None and isinstance(items[change.mark], dict):
            _check_not_named(items[change.mark].get("id"), named, marked, where)
    places = places_of(items)
    free = max((one["id"] for one in _objects(items) if isinstance(one.get("id"), int)), default=0)

    def item(old: Any, change: Change) -> Any:
        nonlocal free
        assert change.span is not None
        begin, end = in_unit(change.span.begin, change.span.end, at)
        if isinstance(old, list):
            return [begin, end, change.span.kind] if change.moved else [*old[:2], change.span.kind]
        new: dict[str, Any] = {"label": change.span.kind}
        if change.moved:
            new |= dict(zip(places, (begin, end), strict=True))
        if old is not None:
            return {**old, **new}
        free += 1
        return {"id": free, **new} if objects else [begin, end, change.span.kind]

    return {**row, key: _applied(list(zip(_begins(marked, at), items, strict=True)), changes, item)}


def _spacy(marked: MarkedText, changes: Sequence[Change], at: Sequence[int], where: str) -> dict[str, Any]:
    row, items = marked.row, marked.row["spans"] or []
    lost = any(change.mark is not None and (change.moved or change.span is None) for change in changes)
    if lost and _objects(row.get("relations")):
        raise ValueError(
            f"{where}: {place(marked.source, marked.line)} has relations, which name places of spans; a span that "
            "is removed or gets other borders must be corrected by hand"
        )
    starts, ends = (tokens_by(key, row.get("tokens")) for key in ("start", "end"))

    def item(old: Any, change: Change) -> Any:
        assert change.span is not None
        if not change.moved:
            return {**old, "label": change.span.kind}
        begin, end = in_unit(change.span.begin, change.span.end, at)
        new: dict[str, Any] = {"start": begin, "end": end}
        kept = {key: value for key, value in (old or {}).items() if key not in ("token_start", "token_end")}
        if "text" in kept:
            new["text"] = marked.text[change.span.begin : change.span.end]
        tokens = {"token_start": starts[begin], "token_end": ends[end]} if begin in starts and end in ends else {}
        return {**kept, **new, "label": change.span.kind, **tokens}

    return {**row, "spans": _applied(list(zip(_begins(marked, at), items, strict=True)), changes, item)}


def _label_studio(marked: MarkedText, changes: Sequence[Change], at: Sequence[int], where: str) -> dict[str, Any]:
    row = copy.deepcopy(marked.row)
    chosen = chosen_annotation(row)
    assert chosen is not None
    results = chosen["result"]
    owners = [i for i, one in enumerate(results) if one.get("type") == "labels" for _ in one["value"]["labels"]]
    named = {one.get(end) for one in results for end in ("from_id", "to_id")}
    named |= {one.get("id") for one in results if one.get("type") not in ("labels", "relation")}
    removed: set[int] = set()
    new: list[Span] = []
    # From the last mark on, so that the numbers of the labels of a result stay right.
    for change in sorted(changes, key=lambda one: -1 if one.mark is None else one.mark, reverse=True):
        if change.mark is None:
            new += [change.span] if change.span is not None else []
            continue
        number = owners[change.mark]
        result, label = results[number], change.mark - owners.index(number)
        value = result["value"]
        several = len(value["labels"]) > 1
        if change.span is None and several:
            del value["labels"][label]
        elif change.span is None:
            _check_not_named(result.get("id"), named, marked, where)
            removed.add(number)
        elif change.moved and several:
            raise ValueError(
                f"{where}: {place(marked.source, marked.line)}: {shown(value)} has several labels, so its borders "
                "must be corrected by hand"
            )
        else:
            value["labels"][label] = change.span.kind
            if change.moved:
                value |= _place_of(change.span, marked, at, "text" in value)
    tags = next(((one.get("from_name"), one.get("to_name")) for one in results_of(row)), ("label", "text"))
    begins = [at[one["value"]["start"]] if one.get("type") == "labels" else -1 for one in results]
    kept = [(begin, one) for i, (begin, one) in enumerate(zip(begins, results, strict=True)) if i not in removed]
    for number, span in enumerate(sorted(new, key=lambda span: span.begin), start=1):
        value = _place_of(span, marked, at, True) | {"labels": [span.kind]}
        one = {"id": f"finetune-{number}", "from_name": tags[0], "to_name": tags[1], "type": "labels", "value": value}
        last = max((i + 1 for i, (begin, _) in enumerate(kept) if begin >= 0), default=0)
        kept.insert(next((i for i, (begin, _) in enumerate(kept) if begin > span.begin), last), (span.begin, one))
    chosen["result"] = [one for _, one in kept]
    if "result_count" in chosen:
        chosen["result_count"] = len(kept)
    return row


def _place_of(span: Span, marked: MarkedText, at: Sequence[int], with_text: bool) -> dict[str, Any]:
    begin, end = in_unit(span.begin, span.end, at)
    text = {"text": marked.text[span.begin : span.end]} if with_text else {}
    return {"start": begin, "end": end} | text


def _check_not_named(name: Any, named: set[Any], marked: MarkedText, where: str) -> None:
    if name is not None and name in named:
        raise ValueError(
            f"{where}: {place(marked.source, marked.line)}: the span {shown(name)} would be removed, but a relation "
            "or another result names it; remove that first, or give the span another type"
        )


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


_FORMS = {"doccano": _doccano, "label_studio": _label_studio, "spacy": _spacy}
