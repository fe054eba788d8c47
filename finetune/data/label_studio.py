"""The JSON export of Label Studio for projects that label parts of a plain text.

    [{"id": 1, "data": {"text": "Ada saw Oslo."}, "annotations": [{"result": [
        {"from_name": "label", "to_name": "text", "type": "labels",
         "value": {"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}}]}]}]

Of several annotations of a task, the one with `ground_truth` is read, or else the first that was not cancelled. A
task without one is not annotated. Results of other types, such as relations and choices, are counted, but not read.
https://labelstud.io/guide/export and https://labelstud.io/guide/predictions

Label Studio runs in a browser, so texts with emoji have offsets in UTF-16 units (its issue 1347).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data.character_spans import Mark, MarkedText, Span, mark_of, place
from finetune.data.json_records import read_json_records
from finetune.data.messages import listed, shown
from finetune.data.offset_units import in_unit

WHAT = '{"data": {"text": "Ada saw Oslo."}, "annotations": [...]}'
_KEYS = ("annotations", "completions")  # completions: before version 1.0


def read_label_studio(path: Path) -> list[MarkedText]:
    """The texts of an export.

    Raises:
        ValueError: naming file and record, for what is no task of Label Studio, and for labels in HTML.
    """
    records, _ = read_json_records(path, WHAT)
    return [_read(path, line, row) for line, row in records]


def _read(path: Path, line: int, row: dict[str, Any]) -> MarkedText:
    where = place(path, line)
    key = _key(row, where)
    given = _annotations(row)
    if not isinstance(given, list):
        raise ValueError(f"{where}: 'annotations' is {shown(given)}; it must be a list of objects")
    if not all(isinstance(one, dict) and isinstance(one.get("result"), list) for one in given):
        raise ValueError(f"{where}: an annotation is {shown(given)}; it must be an object with a list 'result'")
    usable, chosen = _usable(given), chosen_annotation(row)
    others = Counter({"annotations of texts that have several": max(len(usable) - 1, 0)})
    marks = []
    for result in chosen["result"] if chosen else ():
        found = _marks(result, line, where)
        marks += found
        if not found:
            others[str(result.get("type"))[:60]] += 1
    document = str(row.get("id", abs(line)))
    return MarkedText(row["data"][key], marks, document, path, line, chosen is not None, row, +others)


def _annotations(row: dict[str, Any]) -> Any:
    return next((row[key] for key in _KEYS if row.get(key) is not None), [])


def _usable(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in given if not one.get("was_cancelled")]


def chosen_annotation(row: dict[str, Any]) -> dict[str, Any] | None:
    """The annotation of a task that is read; None if it has none."""
    usable = _usable(_annotations(row))
    return next((one for one in usable if one.get("ground_truth")), usable[0] if usable else None)


def _key(row: dict[str, Any], where: str) -> str:
    """The key of the text in the data of a task."""
    data = row.get("data")
    if not isinstance(data, dict):
        raise ValueError(
            f"{where}: no 'data'; a task is an object like {WHAT}. In Label Studio, export JSON, and not JSON-MIN"
        )
    texts = [key for key, value in data.items() if isinstance(value, str)]
    named = [item.get("to_name") for item in results_of(row)]
    key = next((key for key in ("text", *named) if key in texts), texts[0] if len(texts) == 1 else None)
    if key is None:
        raise ValueError(f"{where}: 'data' has {listed(list(data))}; the text must have the name 'text'")
    if "\0" in data[key]:
        raise ValueError(f"{where}: a NUL character in the text")
    return key


def results_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """All labels of a task that can be seen without checks."""
    given = [one for key in (*_KEYS, "predictions") for one in _objects(row.get(key))]
    return [item for one in given for item in _objects(one.get("result")) if item.get("type") == "labels"]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _marks(result: Any, line: int, where: str) -> list[Mark]:
    """The marks of a result: one for each of its labels; none if it is of another type."""
    if not isinstance(result, dict):
        raise ValueError(f"{where}: a result is {shown(result)}; it must be an object")
    if result.get("type") == "hypertextlabels":
        raise ValueError(f"{where}: labels in HTML (hypertextlabels); only labels in plain text can be read")
    if result.get("type") != "labels":
        return []
    value: Any = result.get("value") if isinstance(result.get("value"), dict) else {}
    kinds = value.get("labels") if isinstance(value.get("labels"), list) else [None]
    found = [mark_of(line, kind, *(value.get(key) for key in ("start", "end", "text"))) for kind in kinds]
    marks = [mark for mark in found if mark is not None]
    if len(marks) < len(found):
        raise ValueError(f"{where}: a label has {shown(value)}; its value has 'start', 'end', 'text' and 'labels'")
    return marks


def with_label_studio_spans(
    marked: MarkedText, spans: Sequence[Span], at: Sequence[int], model: str = "finetune"
) -> dict[str, Any]:
    """The task with a prediction, which the interface of Label Studio shows beside the annotations.

    The names of the tags of the interface are those of the annotations, or else `label` and `text`. The score of the
    prediction is the lowest of its spans, so that the least certain tasks can be sorted to the front.

    Args:
        at: the positions of the unit of the offsets (`offset_units.py`).
        model: the version of the model, for the interface.
    """
    names = next(((item.get("from_name"), item.get("to_name")) for item in results_of(marked.row)), ("label", "text"))
    results: list[dict[str, Any]] = []
    for number, span in enumerate(spans, start=1):
        begin, end = in_unit(span.begin, span.end, at)
        value = {"start": begin, "end": end, "text": marked.text[span.begin : span.end], "labels": [span.kind]}
        tags = {"id": f"{model}-{number}", "from_name": names[0], "to_name": names[1], "type": "labels"}
        results.append({**tags, "value": value} | ({} if span.score is None else {"score": span.score}))
    scores = [span.score for span in spans if span.score is not None]
    prediction = {"model_version": model, "result": results} | ({"score": min(scores)} if scores else {})
    return {**marked.row, "predictions": [prediction]}
