"""Tables with a word in each row, such as a spreadsheet has: sentence, word, tag.

A sentence goes on while the cells of `--sentence_column` stay the same. An empty cell stands for the cell above it.
If several columns are named (`document,sentence`), they say together which sentence a row belongs to, and the first
one says the document.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.conll import column_number
from finetune.data.messages import listed, shown
from finetune.data.records import Record
from finetune.data.tables import opened_table

logger = logging.getLogger(__name__)

# Usual names of columns, in lower case. One is taken only if no other column of the table has such a name.
_USUAL = {
    "--word_column": ("tokens", "token", "word", "words", "form"),
    "--tag_column": ("ner_tags", "ner_tag", "ner", "tag", "tags", "label", "labels"),
    "--sentence_column": ("sentence", "sentence_id", "sent_id", "sentence #", "sentence_number", "sent"),
}
_IN_TRAINING = "a word on each line and empty lines between sentences? then give --file_format conll"
_IN_PREDICTION = (
    "a word on each line and empty lines between sentences? then give --input_format conll; a text in each row? then "
    "give --input_format csv or tsv"
)


@dataclass(frozen=True)
class WordColumns:
    """Which columns of a table have the words, the sentences and the tags, by name or number.

    What the user named must be there. What the run of the model named counts if it is there. Else a column with a
    usual name is taken.
    """

    words: str | None = None
    sentences: str | None = None  # several with commas between them
    likely_words: str | None = None
    likely_sentences: str | None = None
    likely_tags: str | None = None
    names: str | None = None  # the names of all columns, between commas, of a file without a header line

    def of(self, header: Sequence[str], where: str, *, tell: bool = True) -> tuple[str, list[str]]:
        """The column of the words, and those of the sentences.

        Args:
            where: the place of the header in messages.
            tell: whether to say which columns were taken by their usual names, or by their number in training.
        """
        words = self.words or (self.likely_words if _place(self.likely_words, header) is not None else None)
        sentences = self.sentences
        likely = (self.likely_sentences or "").split(",")
        if sentences is None and all(_place(name.strip(), header) is not None for name in likely):
            sentences = self.likely_sentences
        how: dict[str, Any] = {"tell": tell, "otherwise": _IN_PREDICTION}
        word = word_column(where, header, words, "--word_column", **how)
        asked = (sentences or "").split(",")
        ids = [word_column(where, header, name.strip(), "--sentence_column", **how) for name in asked]
        if word in ids:
            raise ValueError(f"{where}: the words and the sentences must be in different columns")
        numbered = "%s: taken as %s %s, which is number %s, as in training"
        if tell and self.words is None and words and words not in header:
            logger.warning(numbered, where, "--word_column", shown(word), words)
        if tell and self.sentences is None and sentences and not {own.strip() for own in asked} <= set(header):
            logger.warning(numbered, where, "--sentence_column", listed(ids), sentences)
        return word, ids

    def tags_of(self, header: Sequence[str]) -> str | None:
        """The column of the tags, if there is one whose name is the run's, or a usual one."""
        place = _place(self.likely_tags, header)
        usual = _usual(header, "--tag_column")
        return header[place] if place is not None else usual[0] if len(usual) == 1 else None


def word_table_records(
    lines: Iterable[tuple[int, str]],
    name: str,
    columns: WordColumns,
    delimiter: str | None = None,
    *,
    tell: bool = True,
) -> Iterator[Record]:
    """Yields a record with `head`, then one for each sentence as soon as the next one begins.

    Args:
        lines, name, delimiter: as `finetune.data.tables.table_records` takes them.
        tell: as `WordColumns.of` takes it.

    Raises:
        ValueError: as `read_word_table`.
    """
    table = opened_table(lines, name, Path(name).suffix.lower().removeprefix("."), columns.names, delimiter)
    if table is None:
        return
    if table.hint:
        raise ValueError(f"{table.where}: one column, {shown(table.header[0])}{table.hint}")
    word, ids = columns.of(table.header, table.where, tell=tell)
    names = {own: own for own in table.header}
    yield Record(table.line, [], names, delimiter=table.delimiter, head=True, rows=[])
    told = ((line, dict(zip(table.header, cells, strict=True))) for line, cells in table.rows)
    rows = ((line, row[word], [row[own] for own in ids], row) for line, row in told)
    for own in by_sentence(rows, ids[0], lambda line: f"{name}:{line}"):
        yield Record(own.lines[0], own.words, document=own.document, delimiter=table.delimiter, rows=own.rest)


def _place(asked: str | None, header: Sequence[str]) -> int | None:
    """Where a column is that is asked for by name or number; None if it is not there."""
    if asked and asked in header:
        return header.index(asked)
    number = column_number(asked or None)
    return None if number is None or not -len(header) <= number < len(header) else number


def _usual(header: Sequence[str], flag: str) -> list[str]:
    """The columns with usual names."""
    return [name for name in header if name.strip().lower() in _USUAL[flag]]


def word_column(
    where: Path | str,
    header: Sequence[str],
    asked: str | None,
    flag: str,
    *,
    tell: bool = True,
    otherwise: str = _IN_TRAINING,
) -> str:
    """The column that is asked for, by its name or number, or else the only one with a usual name.

    Args:
        tell: whether to say that a column was taken by its usual name.
        otherwise: for the message, what else the file may be.

    Raises:
        ValueError: naming the flag, if there is no such column.
    """
    if (place := _place(asked, header)) is not None:
        return header[place]
    usual = _usual(header, flag)
    if asked or len(usual) != 1:
        told = f"{flag} {asked}: no such column" if asked else f"the column of {flag} is not clear"
        raise ValueError(
            f"{where}: {told}; name it with {flag}; the header has: {listed(header)} (no header line? then give "
            f"--column_names; {otherwise})"
        )
    if tell:
        logger.warning("%s: taken as %s %s", where, flag, shown(usual[0]))
    return usual[0]


@dataclass(frozen=True)
class RowsOfSentence:
    """The rows of a sentence."""

    document: int  # its number, from 1 on; 0: none is known
    lines: list[int]
    words: list[str]
    rest: list[Any]


def by_sentence(
    rows: Iterable[tuple[int, Any, Sequence[Any], Any]], column: str, where: Callable[[int], str]
) -> Iterator[RowsOfSentence]:
    """Yields each sentence as soon as the next one begins.

    Args:
        rows: line, word, the cells that say together which sentence it is, and anything else.
        column: the first column of these cells.
        where: the place of a line in messages.
    """
    seen: dict[tuple[str, ...], int] = {}  # a sentence -> its first line
    documents: dict[str, int] = {}
    here: tuple[str, ...] = ()
    sentence = RowsOfSentence(0, [], [], [])
    for line, word, cells, rest in rows:
        # What is empty stands for the cell above.
        key = tuple(
            here[i] if here and cell in (None, "") else "" if cell is None else str(cell)
            for i, cell in enumerate(cells)
        )
        if not all(key):
            raise ValueError(f"{where(line)}: column {column!r} is empty in the first row")
        if key != here:
            if key in seen:
                raise ValueError(
                    f"{where(line)}: the sentence {shown(', '.join(key))} was there before (line {abs(seen[key])}); "
                    "if each document counts anew, give --sentence_column document,sentence; else sort the table"
                )
            if here:
                yield sentence
            seen[key], here = line, key
            document = documents.setdefault(key[0], len(documents) + 1) if len(key) > 1 else 0
            sentence = RowsOfSentence(document, [], [], [])
        if not isinstance(word, str) or not word or any(mark in word for mark in "\t\n\r\0"):
            raise ValueError(f"{where(line)}: the word {shown(word)} is empty, breaks a line, or is no text")
        sentence.lines.append(line)
        sentence.words.append(word)
        sentence.rest.append(rest)
    if here:
        yield sentence
