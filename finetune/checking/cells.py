"""Replaces cells of a table (CSV, TSV, JSON, Parquet), and leaves all else as it is. A value gets the type that its
column has: a whole number stays one, and a name of a `ClassLabel` becomes its number.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from finetune.checking.json_edits import with_value
from finetune.checking.raw_text import RawText, read_raw
from finetune.data.json_lines import json_file_rows
from finetune.data.messages import shown
from finetune.data.readers import declared_names, names_of, open_parquet, read_columns, row_at, table_form

Cells = Mapping[tuple[int, str], Any]  # line, or negative number of the row; column -> value


def with_cells(
    path: Path,
    cells: Cells,
    *,
    column_names: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> bytes:
    """The content of a file with other values in some cells.

    Args:
        cells: texts, numbers or lists of texts.
        column_names, encoding, delimiter: as `read_columns` takes them.

    Raises:
        ValueError: for a value that does not fit the type of its column.
    """
    form = table_form(path, delimiter)
    if form == ".parquet":
        return _parquet(path, cells)
    if form in (".json", ".jsonl"):
        return _json(path, cells, encoding)
    how: Any = {"column_names": column_names, "encoding": encoding, "delimiter": delimiter}
    places = {name: number for number, name in enumerate(names_of(path, **how))}
    first = next(iter(places))
    rows = dict.fromkeys(read_columns(path, [first], **how)[1])
    separator = delimiter or ("\t" if form == ".tsv" else ",")
    raw = read_raw(path, encoding)
    last = dict(zip(rows, [*list(rows)[1:], len(raw.lines) + 1], strict=True))
    by_row: dict[int, dict[int, str]] = {}
    for (line, name), value in cells.items():
        by_row.setdefault(line, {})[places[name]] = str(value)
    parts, at = [], 0
    for line, new in sorted(by_row.items()):
        parts.append(_joined(raw, at, line - 1))
        at = last[line] - 1
        parts.append(_row(_joined(raw, line - 1, at), separator, new, row_at(path, line)))
    return raw.encoded("".join([*parts, _joined(raw, at, len(raw.lines))]))


def _joined(raw: RawText, begin: int, end: int) -> str:
    return "".join(line + ending for line, ending in zip(raw.lines[begin:end], raw.ends[begin:end], strict=True))


def _row(text: str, separator: str, new: Mapping[int, str], where: str) -> str:
    """A row with other cells. Between tabs nothing is quoted; else a cell is quoted if it was, or if it must be."""
    tabs = separator == "\t"
    mark = re.escape(separator)
    cell = rf"[^{mark}\r\n]*" if tabs else rf'"(?:[^"]|"")*"|[^"{mark}\r\n][^{mark}\r\n]*|'
    found = [match.span(1) for match in re.finditer(rf"({cell})(?:{mark}|(?=[\r\n])|\Z)", text)]
    result, at = [], 0
    for number, value in sorted(new.items()):
        begin, end = found[number]
        breaks = re.search(rf"[{mark}\r\n]", value) is not None
        if tabs and breaks:
            raise ValueError(f"{where}: the label {shown(value)} cannot be written between tabs")
        if not tabs and (text[begin:end].startswith('"') or breaks or '"' in value):
            value = '"' + value.replace('"', '""') + '"'
        result += [text[at:begin], value]
        at = end
    return "".join([*result, text[at:]])


def _json(path: Path, cells: Cells, encoding: str) -> bytes:
    raw = read_raw(path, encoding)
    rows = dict(json_file_rows(path, encoding))
    columns = {name: [row[name] for row in rows.values()] for _, name in cells}
    for (line, name), value in cells.items():
        rows[line] = {**rows[line], name: _like(columns[name], rows[line][name], value, row_at(path, line))}
    if next(iter(rows)) < 0:
        return raw.encoded(with_value(raw.text, list(rows.values())))
    for line in {line for line, _ in cells}:
        raw.lines[line - 1] = with_value(raw.lines[line - 1], rows[line])
    return raw.encoded()


def _like(column: list[Any], old: Any, new: Any, where: str) -> Any:
    """A value in the type that it had; in a list, in the type that most lists of the column tell."""
    if isinstance(new, list):
        known = [item for row in column if isinstance(row, list) for item in row]
        example = known[0] if known else ""
        kept = {str(item): item for item in old or ()} if not isinstance(old, str) else {}
        return [kept.get(item, _like_one(example, item, where)) for item in new]
    return _like_one(old, new, where)


def _like_one(old: Any, new: Any, where: str) -> Any:
    if isinstance(old, bool) or not isinstance(old, int) or isinstance(new, bool):
        return new
    if isinstance(new, float):
        return int(new) if new.is_integer() else new
    try:
        return int(new)
    except ValueError as error:
        raise ValueError(f"{where}: the label {shown(new)} is no whole number, as the others are") from error


def _parquet(path: Path, cells: Cells) -> bytes:
    file = open_parquet(path)
    table = file.read().replace_schema_metadata(file.schema_arrow.metadata)
    for name in dict.fromkeys(name for _, name in cells):
        at = table.column_names.index(name)
        kind = table.schema.field(at)
        values = table.column(at).to_pylist()
        numbers = {own: number for number, own in enumerate(declared_names(path, name))}
        for (line, column), value in cells.items():
            if column == name:
                where = row_at(path, line)
                if numbers:
                    value = [_number(numbers, own, where) for own in value] if isinstance(value, list) else value
                    value = _number(numbers, value, where) if isinstance(value, str) else value
                values[-line - 1] = _like(values, values[-line - 1], value, where)
        try:
            column_of_file = pa.chunked_array([pa.array(values, type=kind.type)])
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(f"{path}: a new label does not fit column {name!r}, of {kind.type}") from error
        table = table.set_column(at, kind, column_of_file)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def _number(numbers: Mapping[str, int], name: str, where: str) -> int:
    if name not in numbers:
        raise ValueError(f"{where}: the column has no name {shown(name)}; it has: {', '.join(numbers)}")
    return numbers[name]
