"""JSON Lines of Prodigy, which are also a common form for spaCy: a text and its `spans`.

    {"text": "Ada saw Oslo.", "spans": [{"start": 0, "end": 3, "label": "PER"}], "answer": "accept"}

A record whose `answer` is `reject` or `ignore` is not annotated. Neither is one without `spans` and `answer`.
https://prodi.gy/docs/api-interfaces#ner

Offsets count code points.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from finetune.data.character_spans import Mark, MarkedText, Span, mark_of, place
from finetune.data.json_records import read_json_records, text_of
from finetune.data.messages import shown
from finetune.data.offset_units import in_unit

WHAT = '{"text": "Ada saw Oslo.", "spans": [{"start": 0, "end": 3, "label": "PER"}]}'
_ANSWERS = ("accept", "reject", "ignore")
_OF_THE_ANNOTATION = ("answer", "_task_hash", "_timestamp", "_annotator_id", "_session_id")


def read_spacy(path: Path) -> list[MarkedText]:
    """The texts of a file.

    Raises:
        ValueError: naming file and line or record, for what is no record of this form.
    """
    records, _ = read_json_records(path, WHAT)
    return [_read(path, line, row) for line, row in records]


def _read(path: Path, line: int, row: dict[str, Any]) -> MarkedText:
    where = place(path, line)
    text, marks = text_of(row, where), row.get("spans")
    answer = row.get("answer", "ignore" if marks is None else "accept")
    if answer not in _ANSWERS:
        raise ValueError(f"{where}: 'answer' is {shown(answer)}; it must be one of {', '.join(_ANSWERS)}")
    if not isinstance(marks, (list, type(None))):
        raise ValueError(f"{where}: 'spans' is {shown(marks)}; it must be a list of objects")
    found = [_mark(mark, line, f"{where}: 'spans' has") for mark in marks or ()]
    return MarkedText(text, found, str(row.get("id", abs(line))), path, line, answer == "accept", row)


def _mark(mark: Any, line: int, where: str) -> Mark:
    row = mark if isinstance(mark, dict) else {}
    found = mark_of(line, *(row.get(key) for key in ("label", "start", "end", "text")))
    if found is None:
        raise ValueError(f"{where} {shown(mark)}; a span has 'start', 'end' and 'label'")
    return found


def with_spacy_spans(marked: MarkedText, spans: Iterable[Span], at: Sequence[int]) -> dict[str, Any]:
    """The record with other spans, and without the keys that say who annotated it and with what answer.

    If the record has Prodigy's tokens, a span that has whole tokens also has their numbers: its interface wants them.

    Args:
        at: the positions of the unit of the offsets (`offset_units.py`).
    """
    row = {key: value for key, value in marked.row.items() if key not in _OF_THE_ANNOTATION}
    starts, ends = (tokens_by(key, row.get("tokens")) for key in ("start", "end"))
    row["spans"] = []
    for span in spans:
        begin, end = in_unit(span.begin, span.end, at)
        new = {"start": begin, "end": end, "label": span.kind}
        if begin in starts and end in ends:
            new |= {"token_start": starts[begin], "token_end": ends[end]}
        row["spans"].append(new)
    return row


def tokens_by(key: str, tokens: Any) -> dict[int, int]:
    """The number of each of Prodigy's tokens, by the place where it begins or ends."""
    found = [token for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []
    return {token[key]: token["id"] for token in found if isinstance(token.get(key), int) and "id" in token}
