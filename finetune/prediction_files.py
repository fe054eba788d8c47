"""What the flags, the model and the input together say of the files of a prediction: formats, columns, scheme."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from finetune import data
from finetune.opened_files import opened_input

SENTENCES = 1000  # of a file, which show the scheme of its tags
# Flags that only some formats of the input have: these formats, and what a message says of them.
OF_FORMATS = {
    "word_column": (("conll", "table"), "a column file or a table of words has columns of words"),
    "sentence_column": (("table",), "a table with a word in each row has it"),
    "text_column_name": (("csv", "tsv", "jsonl"), "CSV, TSV and JSON Lines have such columns"),
    "text_pair_column_name": (("csv", "tsv", "jsonl"), "CSV, TSV and JSON Lines have such columns"),
    "column_names": (("csv", "tsv", "table"), "CSV and TSV have such columns"),
    "tag_column": (("conllu",), "a treebank has such a place for the labels"),
}


@dataclass(frozen=True)
class Input:
    """How an input is read. `records` gives what is in it."""

    name: str  # in messages
    form: str  # of `data.FORMS`
    words: int | str | None  # of a column file: the column of the words
    settings: dict[str, Any]  # as `data.read_records` takes them

    def records(self, file: BinaryIO, *, tell: bool = True) -> Iterator[data.Record]:
        """What is to be labelled, as it arrives. Raises ValueError at a line that is no record."""
        return data.read_records(file, self.name, self.form, self.words, **self.settings, tell=tell)


def input_of(config: Any, predictor: Any, form: str) -> Input:
    """How the input is read for this model, in one of the formats that `formats` gives.

    Raises:
        ValueError: for a table with a word in each row, and a model that labels texts.
    """
    return Input(
        name="standard input" if config.input_file == "-" else config.input_file,
        form=_with_word_tables(config, predictor, form),
        words=predictor.word_column if config.word_column is None else data.column_asked(str(config.word_column)),
        settings={
            "columns": _text_columns(config, predictor),
            "tag_column": config.tag_column or "NER",
            "delimiter": data.check_delimiter(config.delimiter),
            "encoding": data.check_encoding(config.encoding),
            "word_columns": _word_columns(config, predictor),
            "document_key": predictor.document_column,
        },
    )


def formats(config: Any) -> tuple[str, str]:
    """The formats of input and output. For `auto`, the endings of the files decide.

    Raises:
        ValueError: if a flag has a wrong value, or does not go with the format of the input.
    """
    data.check_encoding(config.encoding)
    data.check_delimiter(config.delimiter)
    keep_the_input(config)
    given, wanted = str(config.input_format), str(config.output_format)
    if given == "auto":
        endings = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
        endings |= dict.fromkeys(data.CONLL_ENDINGS, "conll")
        del endings[".txt"]  # such a file is more often a text than a column file
        ending = Path(config.input_file).suffix.lower()
        if config.input_file != "-" and ending not in endings:
            forms = " or ".join(data.FORMS)
            raise ValueError(f"--input_file {config.input_file}: give its format with --input_format {forms}")
        given = endings.get(ending, "text")
    if wanted == "conllu" and given != "conllu":
        raise ValueError(
            f"--output_format conllu: needs a treebank as its input (--input_format conllu), not {given}"
        )
    if given == "conllu" and wanted == "auto" and not config.output_file.endswith((".jsonl", ".json")):
        wanted = "conllu"
    asked = config.word_column is not None or config.sentence_column is not None
    if config.input_format == "auto" and given in ("csv", "tsv") and asked:
        given = "table"
    for flag_name, (kinds, told) in OF_FORMATS.items():
        value = getattr(config, flag_name)
        if value is not None and given not in kinds:
            raise ValueError(f"--{flag_name} {value}: only {told}, and the input format is {given}")
    if wanted == "auto":
        ending = Path(config.output_file).suffix.lower()
        wanted = next((name for name, form in data.OUTPUT_FORMS.items() if ending in form.endings), "jsonl")
    return given, wanted


def _with_word_tables(config: Any, predictor: Any, given: str) -> str:
    """`table` for a file of CSV or TSV if the model learned from a table with a word in each row.

    Raises:
        ValueError: for such a table, and a model that labels texts.
    """
    if given == "table" and not predictor.labels_words:
        asked = next((own for own in ("word_column", "sentence_column") if getattr(config, own) is not None), None)
        if config.input_format == "auto" and asked:
            raise ValueError(f"--{asked} {getattr(config, asked)}: this model labels texts, not words; leave it out")
        raise ValueError("--input_format table: this model labels texts, not words; give csv or tsv")
    if config.input_format != "auto" or given not in ("csv", "tsv") or config.text_column_name is not None:
        return given
    return "table" if predictor.labels_words and predictor.word_columns is not None else given


def keep_the_input(config: Any) -> None:
    """Raises ValueError if the output file is the input file, or has the ending of a format that is no text."""
    given, wanted = Path(config.input_file), Path(config.output_file)
    if given.is_file() and wanted.is_file() and given.samefile(wanted):
        raise ValueError(f"--output_file {config.output_file}: this is the input file; give another name")
    if wanted.suffix.lower() in (".xlsx", ".xls", ".ods", ".parquet", ".arrow", ".feather"):
        raise ValueError(f"--output_file {config.output_file}: answers are text files; take .csv, .tsv or .jsonl")


def _text_columns(config: Any, predictor: Any) -> data.TextColumns:
    """Where the texts stand in a table: as the flags say, else as in training, else in columns of the usual names."""
    questions = predictor.task.PIPELINE == "question-answering"
    text, pair = predictor.text_columns
    likely = [own for own in dict.fromkeys((text, "question" if questions else "text")) if own]
    likely_pair = [own for own in dict.fromkeys((pair, "context" if questions else "text_pair")) if own]
    paired = questions or predictor.pairs
    return data.TextColumns(
        config.text_column_name,
        config.text_pair_column_name,
        likely,
        likely_pair if paired else (),
        config.column_names,
    )


def _word_columns(config: Any, predictor: Any) -> data.WordColumns:
    """The columns of a table with a word in each row: as the flags say, else as in training."""
    return replace(
        predictor.word_columns or data.WordColumns(),
        words=config.word_column,
        sentences=config.sentence_column,
        names=config.column_names,
    )


def scheme_of_labels(config: Any, predictor: Any, source: Input, target: str) -> str:
    """The scheme in which the labels are written: what the flag says, or that of the tags in the input file.

    Raises:
        ValueError: if the flag names a scheme, and the labels of the model are not those of entities, or the output
            has no scheme.
    """
    if target not in ("conll", "conllu") and not (source.form == "table" and target in ("csv", "tsv")):
        if config.tagging_scheme not in (None, "IOB2"):
            raise ValueError(
                f"--tagging_scheme {config.tagging_scheme}: only column files, treebanks, and tables with a word in "
                f"each row are written in another scheme than IOB2; the input is {source.form}, the output {target}"
            )
        return "IOB2"
    is_iob2 = all(re.fullmatch(r"O|[BI]-.+", label, re.DOTALL) for label in predictor.labels)
    if config.tagging_scheme is not None:
        if config.tagging_scheme != "IOB2" and not is_iob2:
            raise ValueError(f"--tagging_scheme {config.tagging_scheme}: the labels of this model are not IOB2")
        return config.tagging_scheme
    if not is_iob2 or not Path(config.input_file).is_file() or source.form not in ("conll", "conllu", "table"):
        return "IOB2"
    with opened_input(config.input_file) as file:
        try:
            first = list(itertools.islice(source.records(file, tell=False), SENTENCES))
        except ValueError:  # it is told when the records are labelled
            return "IOB2"
    # The last column may be another one, such as that of chunks. Then it says nothing of the scheme.
    types = {label[2:] for label in predictor.labels if label != "O"}
    tags = [sentence for sentence in _tags_of(first, source) if types & {tag[2:] for tag in sentence}]
    found = data.written_scheme(tags)
    if found != "IOB2" and os.environ.get("RANK", "0") == "0":
        print(
            f"{source.name}: the labels are written in {found}, as its tags are (else give --tagging_scheme)",
            file=sys.stderr,
        )
    return found


def _tags_of(records: Sequence[data.Record], source: Input) -> list[list[str]]:
    """The tags that the sentences of the input have already."""
    if source.form != "table":
        sentences = [one.sentence for one in records if one.sentence is not None]
        return [one.last_cells if source.form == "conll" else one.tags for one in sentences]
    tag = source.settings["word_columns"].tags_of(list(records[0].row)) if records else None
    return [] if tag is None else [[row[tag] for row in one.rows or ()] for one in records]
