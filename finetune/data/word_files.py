"""Text files of words, in the forms that people have: which form a file has, and its sentences."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.conll import CONLL_ENDINGS, Comments, Sentences, column_number, read_conll

_BLANK = "_"  # an unknown value in CoNLL-U


@dataclass(frozen=True)
class Layout:
    """What the flags say about a file: where its words and tags are, and how it is written."""

    words: str  # the name or the number of a column; `tokens` is the default, which stands for no name
    tags: str  # the same; the default is `ner_tags`
    comments: Comments = "auto"
    encoding: str = "utf-8"
    delimiter: str | None = None


def _of_columns(path: Path, layout: Layout) -> Sentences:
    words = None if layout.words == "tokens" else column_number(layout.words)
    tags = -1 if layout.tags == "ner_tags" else column_number(layout.tags)
    return read_conll(
        path,
        layout.words if words is None and layout.words != "tokens" else words,
        layout.tags if tags is None else tags,
        separator=layout.delimiter,
        comments=layout.comments,
        encoding=layout.encoding,
        any_tag=True,
    )


WORD_READERS: dict[str, Callable[[Path, Layout], Sentences]] = {"conll": _of_columns}


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
    return "conll" if is_file and source.suffix.lower() in CONLL_ENDINGS else None


def read_words(source: Path, form: str, layout: Layout, split: str) -> dict[str, Any] | None:
    """The columns of a split as they are, with unchecked tags; None if an evaluation split has no tags.

    Args:
        form: of `WORD_READERS`.
    """
    found = WORD_READERS[form](source, layout)
    columns = {"tokens": found.words, "ner_tags": found.tags, "line": found.lines, "source": source}
    columns["documents"] = found.documents
    if {tag for tags in found.tags for tag in tags} == {_BLANK}:
        if split != "train":
            return None
        raise ValueError(f"{source}:{found.lines[0][0]}: every tag is {_BLANK!r}, which is no tag")
    return columns
