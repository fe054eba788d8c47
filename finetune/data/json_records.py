"""Records of a JSON file: one on each line (JSON Lines), or all in one list. They are written in the same form."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune.data.conll import read_lines
from finetune.data.json_lines import json_list, json_rows
from finetune.data.messages import shown
from finetune.files import whole_file


def read_json_records(path: Path, what: str) -> tuple[list[tuple[int, dict[str, Any]]], bool]:
    """The records of a file with their lines, and whether they are in one list.

    Args:
        what: a record, for messages, such as `{"text": ...}`.

    Returns:
        For each record its line; in a list, the negative number of the record, counted from 1.

    Raises:
        ValueError: naming file and line or record, for a file without a record, and for what is no object.
    """
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; give a file with records like {what}")
    lines = read_lines(path)
    first = next((line.lstrip() for line in lines if line.strip()), "")
    listed = first.startswith("[")
    if listed:
        records = [(-number, row) for number, row in enumerate(json_list(path, lines), start=1)]
    else:
        records = list(json_rows(path, enumerate(lines, start=1)))
    for number, row in records:
        if not isinstance(row, dict):
            where = f"{path}:{number}" if number > 0 else f"{path}, record {-number}"
            raise ValueError(f"{where}: {shown(row)} is no record; a record is an object like {what}")
    if not records:
        raise ValueError(f"{path}: no record in this file")
    return records, listed


def text_of(row: dict[str, Any], where: str) -> str:
    """The text of a record."""
    text = row.get("text")
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{where}: 'text' is {shown(text)}; it must be a text without NUL characters")
    return text


def write_json_records(path: Path, records: Iterable[dict[str, Any]], listed: bool) -> None:
    """Writes records, each on a line of its own; with `listed`, as one list. The file appears whole or not at all."""
    with whole_file(path) as file:
        rows = (json.dumps(record, ensure_ascii=False) for record in records)
        if not listed:
            file.writelines(row + "\n" for row in rows)
            return
        file.write("[\n")
        file.writelines(itertools.chain(*zip(itertools.chain(("",), itertools.repeat(",\n")), rows, strict=False)))
        file.write("\n]\n")
