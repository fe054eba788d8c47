"""Tables with a word in each row, such as a spreadsheet has: sentence, word, tag.

A sentence goes on while the cells of `--sentence_column` stay the same. An empty cell stands for the cell above it.
If several columns are named (`document,sentence`), they say together which sentence a row belongs to, and the first
one says the document.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data.conll import Sentences, column_number
from finetune.data.messages import delimiter_hint, listed, shown
from finetune.data.readers import names_of, read_columns, row_at
from finetune.data.readings import note_reading
from finetune.data.tags import plain_label

logger = logging.getLogger(__name__)

# Usual names of columns, in lower case. One is taken only if no other column of the table has such a name.
_USUAL = {
    "--word_column": ("tokens", "token", "word", "words", "form"),
    "--tag_column": ("ner_tags", "ner_tag", "ner", "tag", "tags", "label", "labels"),
    "--sentence_column": ("sentence", "sentence_id", "sent_id", "sentence #", "sentence_number", "sent"),
}


def read_word_table(
    path: Path,
    words: str | None = None,
    tags: str | None = None,
    sentences: str | None = None,
    *,
    column_names: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> Sentences:
    """Reads a table of CSV, TSV, JSON or Parquet with a word in each row.

    Args:
        words, tags: a column, by its name or its number from 0 on [the only one with a usual name].
        sentences: the same, for the column of the sentences; several with commas between them.
        column_names, encoding, delimiter: as `read_columns` takes them.

    Returns:
        The words. A tag that is missing is `""`. A whole number is its text.

    Raises:
        ValueError: naming file and line, also for a sentence that comes back after another one.
    """
    header = names_of(path, column_names, encoding=encoding, delimiter=delimiter)
    if hint := delimiter_hint(header, delimiter):
        raise ValueError(f"{path}: one column, {shown(header[0])}{hint}")
    word = _column(path, header, words, "--word_column")
    tag = _column(path, header, tags, "--tag_column")
    ids = [_column(path, header, name.strip(), "--sentence_column") for name in (sentences or "").split(",")]
    columns, lines = read_columns(
        path, list(dict.fromkeys([word, tag, *ids])), column_names, encoding=encoding, delimiter=delimiter
    )
    note_reading(path, words=word, tags=tag, sentences=",".join(ids))
    if len({word, tag, *ids}) < 2 + len(ids):
        raise ValueError(f"{path}: the words, the tags and the sentences must be in different columns")
    return _grouped(path, columns[word], columns[tag], [columns[name] for name in ids], lines, (word, tag, *ids))


def _column(path: Path, header: Sequence[str], asked: str | None, flag: str) -> str:
    if asked and asked in header:
        return asked
    number = column_number(asked or None)
    if number is not None and -len(header) <= number < len(header):
        return header[number]
    usual = [name for name in header if name.strip().lower() in _USUAL[flag]]
    if asked or len(usual) != 1:
        told = f"{flag} {asked}: no such column" if asked else f"the column of {flag} is not clear"
        raise ValueError(
            f"{path}: {told}; name it with {flag}; the header has: {listed(header)} (no header line? then give "
            "--column_names; a word on each line and empty lines between sentences? then give --file_format conll)"
        )
    logger.warning("%s: taken as %s %s", path, flag, shown(usual[0]))
    return usual[0]


def _grouped(
    path: Path,
    words: Sequence[Any],
    tags: Sequence[Any],
    ids: Sequence[Sequence[Any]],
    lines: Sequence[int],
    names: Sequence[str],
) -> Sentences:
    result = Sentences([], [], [])
    seen: dict[tuple[str, ...], int] = {}  # a sentence -> its first line
    documents: dict[str, int] = {}
    here: tuple[str, ...] = ()
    for word, tag, line, *cells in zip(words, tags, lines, *ids, strict=True):
        where = row_at(path, line)
        # What is empty stands for the cell above.
        key = tuple(
            here[i] if here and cell in (None, "") else "" if cell is None else str(cell)
            for i, cell in enumerate(cells)
        )
        if not all(key):
            raise ValueError(f"{where}: column {names[2]!r} is empty in the first row")
        if key != here:
            if key in seen:
                raise ValueError(
                    f"{where}: the sentence {shown(', '.join(key))} was there before (line {abs(seen[key])}); if "
                    "each document counts anew, give --sentence_column document,sentence; else sort the table"
                )
            seen[key], here = line, key
            for rows in (result.words, result.tags, result.lines):
                rows.append([])
            result.documents.append(documents.setdefault(key[0], len(documents) + 1) if len(key) > 1 else 0)
        if not isinstance(word, str) or not word or any(mark in word for mark in "\t\n\r\0"):
            raise ValueError(f"{where}: the word {shown(word)} is empty, breaks a line, or is no text")
        if isinstance(tag, bool) or not isinstance(tag, (str, int, type(None))):
            raise ValueError(f"{where}: the tag {shown(tag)} is no text; a row has the tag of one word")
        result.words[-1].append(word)
        result.tags[-1].append("" if tag is None else plain_label(str(tag)))
        result.lines[-1].append(line)
    return result
