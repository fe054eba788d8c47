"""The rows of a .jsonl file, an object on each line; or of a .json file with one list.

Predictions need this file, so it must not import datasets.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from finetune.data.conll import read_lines
from finetune.data.messages import shown


def json_rows(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
    """The content of each numbered line of a .jsonl file. Blank lines are skipped."""
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
            json.dumps(row, ensure_ascii=False).encode("utf-8")  # refuses half of a surrogate pair, which is no text
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}:{number}: not JSON: {error}; in a .jsonl file each line is an object"
            ) from error
        yield number, row


def json_file_rows(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """The rows of a file of JSON lines with their lines; or of one list of them, with their negative numbers."""
    lines = read_lines(path, encoding=encoding)
    first = next((line.strip() for line in lines if line.strip()), "")
    if path.suffix.lower() == ".jsonl" or not first.startswith("["):
        yield from json_rows(path, enumerate(lines, start=1))
        return
    for number, row in enumerate(json_list(path, lines), start=1):
        yield -number, row


def json_list(path: Path, lines: Iterable[str]) -> list[Any]:
    """The rows of a file that begins with `[`, so that it must be one list."""
    try:
        rows: list[Any] = json.loads("\n".join(lines), object_pairs_hook=_object)
        json.dumps(rows, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(
            f"{path}{line}: not JSON: {reason}; this file begins with [, so it must be one list"
        ) from error
    return rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the name {shown(twice)} twice")
    return row
