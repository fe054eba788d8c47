"""Reads tables with a word in each row, with the tags; `word_rows.py` has their rules."""

from functools import partial
from pathlib import Path

from finetune.data.conll import Sentences
from finetune.data.messages import delimiter_hint, shown
from finetune.data.readers import names_of, read_columns, row_at
from finetune.data.readings import note_reading
from finetune.data.tags import plain_label
from finetune.data.word_rows import by_sentence, word_column


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
    word = word_column(path, header, words, "--word_column")
    tag = word_column(path, header, tags, "--tag_column")
    ids = [word_column(path, header, name.strip(), "--sentence_column") for name in (sentences or "").split(",")]
    columns, lines = read_columns(
        path, list(dict.fromkeys([word, tag, *ids])), column_names, encoding=encoding, delimiter=delimiter
    )
    note_reading(path, words=word, tags=tag, sentences=",".join(ids))
    if len({word, tag, *ids}) < 2 + len(ids):
        raise ValueError(f"{path}: the words, the tags and the sentences must be in different columns")
    result = Sentences([], [], [])
    where = partial(row_at, path)
    cells = zip(*(columns[name] for name in ids), strict=True)
    for sentence in by_sentence(zip(lines, columns[word], cells, columns[tag], strict=True), ids[0], where):
        for line, told in zip(sentence.lines, sentence.rest, strict=True):
            if isinstance(told, bool) or not isinstance(told, (str, int, type(None))):
                raise ValueError(f"{where(line)}: the tag {shown(told)} is no text; a row has the tag of one word")
        result.words.append(sentence.words)
        result.tags.append(["" if told is None else plain_label(str(told)) for told in sentence.rest])
        result.lines.append(sentence.lines)
        result.documents.append(sentence.document)
    return result
