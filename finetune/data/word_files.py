"""Text files of words, in the forms that people have: which form a file has, and its sentences."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.conll import (
    CONLL_ENDINGS,
    Comments,
    Sentences,
    column_asked,
    columns_of_first_row,
    read_conll,
    read_lines,
)
from finetune.data.readers import row_at
from finetune.data.treebanks import is_treebank, read_treebank
from finetune.data.word_tables import read_word_table

_BLANK = "_"  # an unknown value in CoNLL-U
_WITH_TAG = re.compile(r".+[;,|:/](O|[A-Z]-.+)").fullmatch


@dataclass(frozen=True)
class Layout:
    """What the flags say about a file: where its words and tags are, and how it is written."""

    words: str  # the name or the number of a column; `tokens` is the default, which stands for no name
    tags: str  # the same; the default is `ner_tags`
    comments: Comments = "auto"
    encoding: str = "utf-8"
    delimiter: str | None = None
    sentences: str | None = None  # of a table with a word in each row: the column of the sentences
    column_names: str | None = None  # of a table without a header line

    @property
    def asked(self) -> tuple[str | None, str | None]:
        """The columns of the words and of the tags; None for a default."""
        return None if self.words == "tokens" else self.words, None if self.tags == "ner_tags" else self.tags


def _of_columns(path: Path, layout: Layout, *, tags: bool = True) -> Sentences:
    words, asked = layout.asked
    return read_conll(
        path,
        column_asked(words),
        None if not tags else -1 if asked is None else column_asked(asked),
        separator=layout.delimiter,
        comments=layout.comments,
        encoding=layout.encoding,
        any_tag=True,
    )


def _of_treebank(path: Path, layout: Layout) -> Sentences:
    return read_treebank(path, *layout.asked, encoding=layout.encoding)


def _of_table(path: Path, layout: Layout) -> Sentences:
    return read_word_table(
        path,
        *layout.asked,
        layout.sentences,
        column_names=layout.column_names,
        encoding=layout.encoding,
        delimiter=layout.delimiter,
    )


WORD_READERS: dict[str, Callable[[Path, Layout], Sentences]] = {
    "conll": _of_columns,
    "conllu": _of_treebank,
    "table": _of_table,
}


def word_form(source: Any, file_format: str = "auto") -> str | None:
    """The form of a file of words, of `WORD_READERS`; None if it is no such file.

    Raises:
        ValueError: if the flag names such a form, and the data is no file.
    """
    is_file = isinstance(source, Path) and source.is_file()
    if file_format in WORD_READERS and not is_file:
        name = f"{source} is a folder" if isinstance(source, Path) else "this data is no file"
        raise ValueError(f"--file_format {file_format}: only files have this format, and {name}")
    if file_format != "auto":
        return file_format if file_format in WORD_READERS else None
    if not is_file:
        return None
    if is_treebank(source):
        return "conllu"
    if source.suffix.lower() in CONLL_ENDINGS:
        return "conll"
    return "table" if source.suffix.lower() in (".csv", ".tsv") else None  # its cells hold no lists


def read_words(source: Path, form: str, layout: Layout, split: str) -> dict[str, Any]:
    """The columns of a split as they are, with unchecked tags; None in the place of the tags if it has none.

    An evaluation split has none if all are blank, or in a column file if there is one column and no flag names
    another one.

    Args:
        form: of `WORD_READERS`.
    """
    bare = split != "train" and form == "conll" and layout.tags == "ner_tags" and _has_one_column(source, layout)
    found = _of_columns(source, layout, tags=False) if bare else WORD_READERS[form](source, layout)
    columns = {"tokens": found.words, "ner_tags": found.tags, "line": found.lines, "source": source}
    columns["documents"] = found.documents
    if bare or {tag for tags in found.tags for tag in tags} in ({_BLANK}, {""}):
        if split != "train":
            return columns | {"ner_tags": None}
        empty = found.tags[0][0]
        raise ValueError(f"{row_at(source, found.lines[0][0])}: every tag is {empty!r}, which is no tag")
    return columns


def _has_one_column(path: Path, layout: Layout) -> bool:
    """Whether a column file has words alone. A word with a tag and another delimiter between them is not one."""
    lines = read_lines(path, encoding=layout.encoding)
    numbered = enumerate(lines, start=1)
    return columns_of_first_row(numbered, layout.delimiter, layout.comments) == 1 and not any(map(_WITH_TAG, lines))
