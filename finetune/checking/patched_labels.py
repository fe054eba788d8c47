"""Corrects the labels of texts: one label, several labels, a number."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.checking.cells import with_cells
from finetune.data.labelled_texts import label_of
from finetune.data.messages import shown
from finetune.data.readers import read_columns, row_at
from finetune.data.tags import plain_label

_OTHER = {"0": "1", "0.0": "1.0", "false": "true", "False": "True", "FALSE": "TRUE"}
_OTHER |= {yes: no for no, yes in _OTHER.items()}


def with_labels(path: Path, how: Mapping[str, Any], records: Sequence[tuple[str, dict[str, Any]]]) -> bytes:
    """The content of a file with other labels of some texts.

    Args:
        how: the file's reading, as `read_labelled` notes it.
        records: the lines of the patch, each with its place in the patch.

    Raises:
        ValueError: naming the line of the patch, for a label that the file does not have; and for one that it cannot.
    """
    form = {key: how[key] for key in ("column_names", "encoding", "delimiter")}
    names = how["labels"]
    columns, lines = read_columns(path, names, **form)
    rows = {line: [columns[name][row] for name in names] for row, line in enumerate(lines)}
    glue = _glue(columns[names[0]], how["separator"])
    cells: dict[tuple[int, str], Any] = {}
    for where, record in records:
        line, change = record["line"], record["changes"][0]
        place = row_at(path, line)
        if line not in rows:
            raise ValueError(f"{where}: no row begins at {place}; has the file changed?")
        old = label_of(rows[line], names, how["kind"], how["separator"], place)
        if old != change["label"]:
            raise ValueError(f"{where}: {place} has the label {shown(old)}, not {shown(change['label'])}")
        new = change["new_label"]
        _check(new, old, how["separator"], where)
        if len(names) > 1:
            cells |= {
                (line, name): _other(cell)
                for name, cell in zip(names, rows[line], strict=True)
                if (name in new) != (name in old)
            }
        else:
            told = glue.join(new) if isinstance(new, list) and not isinstance(rows[line][0], list) else new
            cells[line, names[0]] = told
            rows[line] = [told]
    return with_cells(path, cells, **form)


def _check(new: Any, old: Any, separator: str | None, where: str) -> None:
    several = isinstance(old, list)
    if isinstance(old, float):
        right, what = isinstance(new, (int, float)) and not isinstance(new, bool) and math.isfinite(new), "a number"
    else:
        labels, what = (new, "a list of different labels") if several else ([new], "a label")
        right = isinstance(labels, list) and all(isinstance(label, str) and plain_label(label) for label in labels)
        right = right and len(set(labels)) == len(labels)
        right = right and not any(separator is not None and separator in label for label in labels)
    if not right:
        raise ValueError(f"{where}: new_label is {shown(new)}; it must be {what}, as the old one is")


def _glue(column: Sequence[Any], separator: str | None) -> str:
    """What stands between two labels of a cell, with the spaces that the first such cell has there."""
    found = (re.search(rf" *{re.escape(separator or '')} *", cell) for cell in column if isinstance(cell, str))
    return next((match[0] for match in found if match and match[0]), separator or "")


def _other(cell: Any) -> Any:
    """No for yes, and yes for no, as the file writes them."""
    return type(cell)(not cell) if not isinstance(cell, str) else _OTHER[plain_label(cell)]
