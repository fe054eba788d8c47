"""The texts of files that have labels, as documents for pretraining. Their labels are not read.

| form | a sentence is | a document is |
|---|---|---|
| column files, treebanks | words, with spaces between them | what the file marks as one; else a sentence |
| `.csv`, `.tsv` | a text, or each line of it | a text |
| a folder of brat | found by `sentencex`, or a line | a text |

A model for words tokenises each word alone. So words with spaces between them give it the same subwords.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.data.brat import read_brat
from finetune.data.conll import COLUMN_ENDINGS, column_asked
from finetune.data.streams import read_records
from finetune.data.tables import TextColumns
from finetune.data.treebanks import is_treebank
from finetune.data.words import split_words

logger = logging.getLogger(__name__)

_LOOKED_AT = 50  # texts that tell whether a table has a word in each row


def labelled_form(path: Path) -> str | None:
    """The form of a file with labels; None if it is none of these forms."""
    if path.is_dir():
        return "brat" if next(path.rglob("*.ann"), None) else None
    if is_treebank(path):
        return "conllu"
    if path.suffix.lower() in COLUMN_ENDINGS:
        return "conll"
    return {".csv": "csv", ".tsv": "tsv"}.get(path.suffix.lower())


def texts_of(path: Path, form: str, column: str, column_names: str | None) -> Iterator[tuple[int, list[str]]]:
    """The line and the texts of each document.

    Args:
        form: as `labelled_form` gives it.
        column: of the texts or words; `text` stands for none in column files. In tables it is the only column with
            texts if there is no such column.
        column_names: of a table without a header line.

    Raises:
        ValueError: naming file and line, for what cannot be read.
    """
    if form == "brat":
        for marked in read_brat(path):
            yield 1, [marked.text]
        return
    columns = TextColumns(None if column == "text" else column, names=column_names)
    word_column = None if column in ("text", "tokens") else column_asked(column)
    with path.open("rb") as file:
        records = (
            record
            for record in read_records(file, str(path), form, word_column, columns)
            if record.asks and record.sample
        )
        first_ones = list(itertools.islice(records, _LOOKED_AT))
        if form in ("csv", "tsv"):
            _tell_of_single_words(path, [record.sample for record in first_ones])
        # A document is a run of records with the same number. 0 stands for no document.
        every = itertools.chain(first_ones, records)
        for _, run in itertools.groupby(every, key=lambda record: record.document or -record.line):
            first = next(run)
            yield first.line, [_text(record.sample) for record in itertools.chain([first], run)]


def told_of_texts(corpora: Mapping[str, Sequence[Any]]) -> list[str]:
    """What is read of files that have labels, and how many texts of the evaluation are in the training text.

    Args:
        corpora: of each split, as `read_corpus` gives them.
    """
    train = corpora["train"]
    if not any(corpus.labelled for corpus in train):
        return []
    lines = [f"only texts are read, no labels; the model learns from {', '.join(corpus.name for corpus in train)}"]
    known = {"".join(sentence.split()) for corpus in train for sentence in corpus.sentences()}
    for split in ("validation", "test"):
        sentences = [sentence for corpus in corpora.get(split, ()) for sentence in corpus.sentences()]
        if found := sum("".join(sentence.split()) in known for sentence in sentences):
            lines.append(
                f"{found:,} of the {len(sentences):,} sentences of the {split} split are in the training text, too"
            )
    return lines


def _text(sample: Any) -> str:
    return " ".join(sample) if isinstance(sample, list) else sample


def _tell_of_single_words(path: Path, texts: list[Any]) -> None:
    if len(texts) > 1 and all(len(split_words(text)) <= 1 for text in texts):
        logger.warning(
            "%s: the first %s texts have one word each; if this table has a word in each row, join its sentences",
            path,
            f"{len(texts):,}",
        )
