"""The rows of a .jsonl file: an object on each line. Predictions need this file, so it must not import datasets."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the name {shown(twice)} twice")
    return row
