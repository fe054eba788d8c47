"""The rows of a CSV or TSV stream as records to label.

CSV has the quoting of RFC 4180. In TSV nothing is quoted, and a quotation mark is a character, as in training.
"""

import csv
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.data.messages import delimiter_hint, listed, shown
from finetune.data.records import Record

logger = logging.getLogger(__name__)

_LOOKED_AT = 2000  # rows, to guess a column
SHORT = 3  # words: a label has at most so many; a text has more on average


@dataclass(frozen=True)
class TextColumns:
    """Which columns hold what the model labels.

    `text` and `pair` are what the user named; `likely` and `likely_pair` are taken if there are columns of these
    names, such as those of the model's training.
    """

    text: str | None = None
    pair: str | None = None
    likely: Sequence[str] = ("text",)
    likely_pair: Sequence[str] = ()  # empty: the model labels single texts, if no pair is named
    names: str | None = None  # the names of all columns, between commas, of a file without a header line


@dataclass(frozen=True)
class Table:
    """A stream of CSV or TSV whose header line is read."""

    header: list[str]
    line: int  # of the header, from 1 on
    rows: Iterator[tuple[int, list[str]]]  # the line and the cells of each row, which has as many as the header
    delimiter: str  # what stands between two cells of CSV that is written
    where: str  # the place of the header in messages
    hint: str  # if the header is one column: what may be wrong


def opened_table(
    lines: Iterable[tuple[int, str]], name: str, form: str, names: str | None, delimiter: str | None
) -> Table | None:
    """Reads the header line; None if there is none.

    Args:
        lines, name, form, delimiter: as `table_records` takes them.
        names: the names of all columns, between commas, of a file without a header line.

    Raises:
        ValueError: naming file and line, also while the rows are read: for a row with another number of cells than
            the header, two columns of one name, broken quoting, a second header.
    """
    between = delimiter or ("\t" if form == "tsv" else ",")
    rows = _rows(lines, name, between)
    line, header = (0, [own.strip() for own in names.split(",")]) if names else next(rows, (0, []))
    if not header:
        return None
    where = f"{name}:{line}" if line else f"--column_names {names}"
    if len(set(header)) != len(header):
        raise ValueError(f"{where}: two columns are named {shown(next(x for x in header if header.count(x) > 1))}")
    hint = delimiter_hint(header, delimiter) if line else ""
    return Table(
        header, max(line, 1), _whole(rows, header, name, names), "," if between == "\t" else between, where, hint
    )


def table_records(
    lines: Iterable[tuple[int, str]],
    name: str,
    form: str,
    columns: TextColumns,
    delimiter: str | None = None,
    *,
    may_look_ahead: bool,
) -> Iterator[Record]:
    """Yields a record with `head`, then one for each row.

    Args:
        lines: numbered, without their ends.
        name: the name of the file in messages.
        form: `csv` or `tsv`.
        delimiter: what stands between two cells [a comma, or a tab]. With a tab, nothing is quoted.
        may_look_ahead: whether rows may be read before the first one is answered, to find the column of the texts.

    Raises:
        ValueError: naming file and line, for a row with another number of cells than the header, two columns of one
            name, broken quoting, and where it is not clear which column is meant.
    """
    table = opened_table(lines, name, form, columns.names, delimiter)
    if table is None:
        return
    header, rows, where = table.header, table.rows, table.where
    if columns.text is None and table.hint:
        raise ValueError(f"{where}: one column, {shown(header[0])}{table.hint}")
    cells: list[list[str]] = []
    if columns.text is None and not set(columns.likely) & set(header) and may_look_ahead:
        first = list(itertools.islice(rows, _LOOKED_AT))
        rows = itertools.chain(first, rows)
        cells = [row for _, row in first]
    text = _column(columns.text, columns.likely, header, cells, where, "--text_column_name", name)
    pair = None
    if columns.pair is not None or columns.likely_pair:
        pair = _column(columns.pair, columns.likely_pair, header, [], where, "--text_pair_column_name", name)
        if text == pair:
            raise ValueError(f"{where}: --text_column_name and --text_pair_column_name both name {shown(text)}")
    empty = "" if pair is None else ("", "")
    yield Record(table.line, empty, {own: own for own in header}, delimiter=table.delimiter, head=True)
    for number, row in rows:
        told = dict(zip(header, row, strict=True))
        sample = told[text] if pair is None else (told[text], told[pair])
        yield Record(number, sample, told, delimiter=table.delimiter)


def _rows(lines: Iterable[tuple[int, str]], name: str, between: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that is not blank, and the line where it begins."""
    csv.field_size_limit(2**31 - 1)
    if between == "\t":
        for number, line in lines:
            if line:
                yield number, line.split("\t")
        return
    # A quoted cell may have line ends in it.
    reader = csv.reader((line + "\n" for _, line in lines), delimiter=between, strict=True)
    end_of_last = 0
    try:
        for cells in reader:
            begin, end_of_last = end_of_last + 1, reader.line_num
            if cells:
                yield begin, cells
    except csv.Error as error:
        raise ValueError(f"{name}:{reader.line_num}: not CSV: {error}") from error


def _whole(
    rows: Iterable[tuple[int, list[str]]], header: Sequence[str], name: str, names: str | None
) -> Iterator[tuple[int, list[str]]]:
    for number, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{name}:{number}: {len(row)} column(s), but the header has {len(header)}")
        if row == header:
            what = "leave out --column_names" if names else "the file already has one"
            raise ValueError(f"{name}:{number}: this is a header line; {what}")
        yield number, row


def _column(
    named: str | None,
    likely: Sequence[str],
    header: Sequence[str],
    rows: Sequence[list[str]],
    where: str,
    flag: str,
    name: str,
) -> str:
    """The column that the user named, or that has a likely name, or that alone can hold the texts."""
    wanted = next((own for own in likely if own in header), None) if named is None else named
    if wanted in header:
        return str(wanted)
    texts = [own for i, own in enumerate(header) if is_text([row[i] for row in rows])]
    if named is None and (len(texts) == 1 or (rows and len(header) == 1)):
        found = texts[0] if texts else header[0]
        logger.warning("%s: taken as %s %s, since no other column could be meant", name, flag, shown(found))
        return found
    missing = shown(named) if named is not None else " or ".join(map(shown, likely))
    raise ValueError(
        f"{where}: no column {missing}; it has: {listed(header)}. Name the right one with {flag} "
        "(no header line? then give --column_names)"
    )


def is_text(column: Sequence[Any]) -> bool:
    """Whether a column may hold texts: most are different, and they have several words on average."""
    if not all(isinstance(cell, str) for cell in column):
        return False
    return has_words(column) and 2 * len(set(column)) >= len(column)


def has_words(column: Sequence[Any]) -> bool:
    """Whether the cells of a column have several words on average."""
    return sum(len(cell.split()) for cell in column if isinstance(cell, str)) > SHORT * len(column)
