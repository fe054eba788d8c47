"""Reads sentences of words, with a tag for each word, into a `datasets.Dataset`.

| column | type | |
|---|---|---|
| `tokens` | list of str | |
| `ner_tags` | list of str | tags of entities in IOB2; or plain tags as they are |
| `plain` | bool | true; this column exists only if the tags are plain |
| `document` | str | name or id of the text, or its number; only for files with spans, or if asked for |
| `source`, `line` | str, int or list of int | the place of the row, or of each word, for messages |

If a tag of the training split has a prefix, as in `B-PER`, the tags are those of entities. Then a tag without a
prefix that is not `O` is refused. If no tag has a prefix, the tags are plain, as parts of speech are.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from finetune.arguments import DataArguments
from finetune.data.character_spans import Nested
from finetune.data.columns import find_columns, is_tags, is_words
from finetune.data.conll import Comments
from finetune.data.file_flags import check_delimiter, check_encoding, names_in
from finetune.data.held_out import hold_out
from finetune.data.messages import shown, source_name
from finetune.data.offset_units import Unit
from finetune.data.readers import (
    as_dataset,
    check_different,
    declared_names,
    has_no_label,
    has_none_of,
    keep_unlabelled,
    read_columns,
    row_at,
    sources_of,
)
from finetune.data.readings import note_reading
from finetune.data.span_files import SPAN_READERS, read_spans, span_form
from finetune.data.tag_columns import (
    Kind,
    Tagging,
    check_tags,
    distinct,
    kind_of,
    labels_of,
    name_numbers,
    to_one_scheme,
)
from finetune.data.tags import plain_label
from finetune.data.word_files import Layout, read_words, word_form

logger = logging.getLogger(__name__)


def read_tagged(
    config: DataArguments,
    words: str = "tokens",
    tags: str = "ner_tags",
    *,
    tagging: Tagging = "auto",
    file_format: str = "auto",
    comment_lines: Comments = "auto",
    encoding: str = "utf-8",
    delimiter: str | None = None,
    nested: Nested = "outer",
    span_offsets: Unit = "auto",
    sentence_column: str | None = None,
    label_names: str | None = None,
    tagging_scheme: str = "auto",
    document_column: str | None = None,
    split_sentences: bool = False,
    keep_documents: bool = False,
    given: Mapping[str, Any] | None = None,
) -> dict[str, datasets.Dataset]:
    """Reads sentences of words, with a tag for each word.

    Args:
        words, tags: the names of the columns. For a column file, they may be numbers (`0`, `-1`), or names in its
            header line; for the default names, the first and the last column are taken.
        tagging: `plain`: the tags are read as they are. `entities`: if no tag has a prefix, neighbouring words with
            the same tag are one entity; `O` and `_` are outside. `auto`: the training split decides; `is_plain` gives
            the result.
        file_format: the form of the files, one of `WORD_READERS` or `SPAN_READERS`. `auto`: as their endings say;
            files with spans are found by `span_form`, if no columns are named.
        comment_lines: for column files, one of `finetune.data.conll.COMMENTS`.
        encoding, delimiter: of text files, as the flags take them.
        nested, span_offsets: for files with spans, as `spans_of` takes them.
        sentence_column: of a table with a word in each row, as `read_word_table` takes it.
        label_names: the names of tags that are numbers, as `names_in` takes them.
        tagging_scheme: one of `SCHEMES`; `auto`: each split's own, as its tags tell it.
        document_column: of tables with a list in each row, the column that says which document a sentence belongs to.
        split_sentences: for files with spans, as `read_spans` takes it.
        keep_documents: the rows get the column `document`. Then the training split must know its documents.
        given: rows from Python, as `given_splits` takes them.

    Returns:
        The splits that the config names, among `train`, `validation` and `test`. `declared` gives the labels that the
        data of the training split declares.

    Raises:
        ValueError: naming file and line (or column, or flag), for anything that cannot be read.
    """
    check_different(words, tags)
    layout = Layout(
        *(words, tags, comment_lines, check_encoding(encoding), check_delimiter(delimiter)),
        *(sentence_column, config.column_names),
    )
    numbers = names_in(label_names) if label_names is not None else None
    sources = sources_of(config, "ner", given)
    asked = {"text_column_name": (words, "tokens", is_words), "label_column_name": (tags, "ner_tags", is_tags)}
    named = any(value != default for value, default, _ in asked.values())
    forms = _forms_of(sources, file_format, words, named)
    of_spans = forms["train"] in SPAN_READERS
    if of_spans:
        _check_flags_of_spans(forms["train"], tagging, layout.encoding)
    for flag, value, usual in (("nested", nested, "outer"), ("span_offsets", span_offsets, "auto")):
        if value != usual and not SPAN_READERS.keys() & forms.values():
            raise ValueError(f"--{flag} {value}: only files with spans of characters have it; leave it out")
    if document_column is not None and forms["train"] is not None:
        raise ValueError(
            f"--document_column {document_column}: only tables with a list of words in each row have it; a "
            "table with a word in each row takes --sentence_column document,sentence"
        )
    if sentence_column is not None and "table" not in forms.values():
        raise ValueError(
            f"--sentence_column {sentence_column}: only a table with a word in each row has it, and this data is "
            f"{'a table with lists' if forms['train'] is None else forms['train']}"
        )
    if forms["train"] is None:
        words, tags = find_columns(
            sources["train"], asked, config.column_names, (), encoding=layout.encoding
        ).values()

    def read(split: str) -> dict[str, Any]:
        source, form = sources[split], forms[split]
        if form in SPAN_READERS:
            return read_spans(source, form, split, nested=nested, unit=span_offsets, split_sentences=split_sentences)
        note_reading(source, form=form or "lists", **asdict(layout), label_names=numbers)
        if form is not None:
            note_reading(source, words=layout.asked[0], tags=layout.asked[1])  # a table knows them better
            return read_words(source, form, layout, split)
        note_reading(source, words=words, tags=tags)
        return _read(source, words, tags, layout, numbers, split, document_column)

    columns = {split: read(split) for split in sources}
    unlabelled = {split: columns.pop(split) for split in sources if columns[split]["ner_tags"] is None}
    if numbers is not None:
        for own in columns.values():
            name_numbers(own, numbers)
    declared = set(numbers or ())
    if forms["train"] is None:
        declared |= set(map(plain_label, declared_names(sources["train"], tags)))
    kind = _understood(columns, declared, tagging, tagging_scheme)
    if keep_documents:
        _name_documents(columns | unlabelled)
    labels = labels_of(declared, kind)
    if getattr(config, "fold", None):  # a label that only the test fold has is known, too
        labels |= distinct(columns["train"])
    _hold_out(columns, config, "texts" if of_spans and not split_sentences else "sentences")
    columns["train"]["declared"] = sorted(labels)
    return _as_datasets(columns, unlabelled, kind, config)


def _understood(splits: dict[str, dict[str, Any]], declared: set[str], tagging: Tagging, tagging_scheme: str) -> Kind:
    """What the tags of the training split are. Those of all splits are checked, and those of entities become IOB2."""
    kind = kind_of(splits["train"], declared, tagging)
    for own in splits.values():
        check_tags(own, kind)
    if kind.plain:
        for own in splits.values():
            note_reading(own["source"], scheme="plain")
    else:
        to_one_scheme(splits, kind.runs, tagging_scheme)
    return kind


def _forms_of(sources: Mapping[str, Any], file_format: str, words: str, named: bool) -> dict[str, str | None]:
    """The form of each split, of `WORD_READERS` or `SPAN_READERS`; None for tables and JSON with lists of words.

    Args:
        named: whether flags name the columns; then only `file_format` makes it a file with spans.
    """

    def form_of(source: Any) -> str | None:
        of_words = word_form(source, file_format)
        return of_words or (None if named and file_format == "auto" else span_form(source, file_format))

    forms = {split: form_of(source) for split, source in sources.items()}
    train = forms["train"]
    for split, source in sources.items():  # texts without a span do not tell the form
        if forms[split] is None and train in SPAN_READERS and _of_one_kind(source, sources["train"], words):
            forms[split] = train
    return forms


def _hold_out(splits: dict[str, dict[str, Any]], config: DataArguments, unit: str) -> None:
    """Takes a validation split, or a fold, from the training split if the config asks for it."""
    train = splits["train"]
    texts = [" ".join(sentence) for sentence in train["tokens"]]
    hold_out(splits, config, unit, texts, train["ner_tags"], train.pop("documents", None))


def _as_datasets(
    splits: dict[str, dict[str, Any]], unlabelled: dict[str, dict[str, Any]], kind: Kind, config: DataArguments
) -> dict[str, datasets.Dataset]:
    """The data sets of the splits that have labels. `keep_unlabelled` gets the others."""
    strings, document = pa.list_(pa.string()), {"document": pa.string()}
    for name, columns in unlabelled.items():
        keep_unlabelled(name, columns, {"tokens": strings} | (document if "document" in columns else {}), config)
    types = {"tokens": strings, "ner_tags": strings}
    if kind.plain:
        types["plain"] = pa.bool_()
        for columns in splits.values():
            columns["plain"] = [True] * len(columns["tokens"])
    return {
        name: as_dataset(name, columns, types | (document if "document" in columns else {}), config)
        for name, columns in splits.items()
    }


def is_plain(dataset: datasets.Dataset) -> bool:
    """Whether `read_tagged` has read the tags of this data set as plain tags."""
    return "plain" in dataset.column_names


def _read(
    source: Path | datasets.Dataset,
    words: str,
    tags: str,
    layout: Layout,
    numbers: Sequence[str] | None,
    split: str,
    documents: str | None,
) -> dict[str, Any]:
    """The columns of a split of lists as they are, with unchecked tags, or None in their place if it has none."""
    names = [words, tags] if documents is None else [words, tags, documents]
    if documents in (words, tags):
        raise ValueError(f"--document_column {documents}: this column has the words or the tags; name another one")
    how: Any = {"encoding": layout.encoding, "delimiter": layout.delimiter}
    if split != "train" and has_none_of(source, [tags], layout.column_names, **how):
        names.remove(tags)
    found, lines = read_columns(source, names, layout.column_names, **how)
    bare = tags not in names or (split != "train" and has_no_label(found[tags]))
    if bare:
        found[tags] = [["O"] * len(row) if isinstance(row, list) else row for row in found[words]]
    if numbers is not None and not bare:  # whole numbers, which get their names later
        found[tags] = [
            [str(tag) if type(tag) is int else tag for tag in row] if isinstance(row, list) else row
            for row in found[tags]
        ]
    _check_lists(source, found[words], found[tags], words, tags, lines)
    plain = [[plain_label(tag) for tag in row] for row in found[tags]]
    columns = {"tokens": found[words], "ner_tags": None if bare else plain, "line": lines, "source": source}
    return columns if documents is None else columns | {"documents": _numbered(source, found, documents, lines)}


def _numbered(source: Any, found: Mapping[str, list[Any]], column: str, lines: Sequence[int]) -> list[int]:
    """The number of each row's document, from 1 on; 0 where the cell is empty."""
    numbers: dict[str, int] = {}
    for cell, line in zip(found[column], lines, strict=True):
        if isinstance(cell, bool) or not isinstance(cell, (str, int, type(None))):
            raise ValueError(f"{row_at(source, line)}: column {column!r} has {shown(cell)}, which names no document")
    cells = ("" if cell is None else str(cell) for cell in found[column])
    return [numbers.setdefault(cell, len(numbers) + 1) if cell else 0 for cell in cells]


def _name_documents(splits: dict[str, dict[str, Any]]) -> None:
    """Gives each split the column `document`, if it knows documents.

    Raises:
        ValueError: if the training split knows none.
    """
    for split, columns in splits.items():
        numbers = columns.get("documents")
        if "document" in columns or (numbers is not None and any(numbers)):
            columns.setdefault("document", [str(number) if number else None for number in numbers or ()])
            continue
        name = source_name(columns["source"])
        if split == "train":
            raise ValueError(
                f"{name}: no document is marked, so no sentence has a context; mark where each begins (-DOCSTART-, "
                "#begin document, # newdoc), name a --document_column, or give --context none"
            )
        logger.warning("%s: no document is marked, so its sentences have no context", name)


def _of_one_kind(source: Any, train: Any, words: str) -> bool:
    """Whether a split may have texts in the form of the training split: a folder of texts, or JSON without words."""
    if not isinstance(source, Path) or not isinstance(train, Path) or source.suffix.lower() != train.suffix.lower():
        return False
    return next(source.rglob("*.txt"), None) is not None if source.is_dir() else has_none_of(source, [words], None)


def _check_flags_of_spans(form: str | None, tagging: Tagging, encoding: str) -> None:
    """Refuses flags that do not fit a training split with spans."""
    if tagging == "plain":
        raise ValueError(f"--tagging plain: the spans of --file_format {form} are entities")
    if encoding != "utf-8":
        raise ValueError(f"--encoding {encoding}: files of --file_format {form} are in UTF-8; convert them")


def _check_lists(
    source: Path | datasets.Dataset,
    words: list[Any],
    tags: list[Any],
    words_name: str,
    tags_name: str,
    lines: list[int],
) -> None:
    for row_words, row_tags, line in zip(words, tags, lines, strict=True):
        where = row_at(source, line)
        for name, row in ((words_name, row_words), (tags_name, row_tags)):
            if not isinstance(row, list) or not all(isinstance(cell, str) for cell in row):
                raise ValueError(
                    f"{where}: column {name!r} is not a list of strings, like ['O', 'B-PER']; tags that are numbers "
                    "need --label_names; a file with one word on each line needs --file_format conll"
                )
        if len(row_words) != len(row_tags):
            raise ValueError(f"{where}: {len(row_words)} words but {len(row_tags)} tags")
        for word in row_words:
            if not word or any(mark in word for mark in "\t\n\r\0"):
                raise ValueError(
                    f"{where}: the word {shown(word)} is empty, breaks a line, or has a NUL in it, so it cannot be "
                    "written into a column file"
                )
