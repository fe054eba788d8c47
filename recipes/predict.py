"""Use a model: it reads texts or words, and writes entities, labels or answers with their scores.

echo "Grace Hopper was born in New York." | python recipes/predict.py --model_name_or_path runs/ner
python recipes/predict.py --model_name_or_path runs/ner --input_file test.conll --output_file predicted.conll
python recipes/predict.py --model_name_or_path runs/sentiment --input_file reviews.csv --output_file labelled.csv
python recipes/predict.py --model_name_or_path runs/sentiment --input_file reviews.csv --output_file sure.csv \\
    --min_precision 0.95
accelerate launch --num_processes 2 recipes/predict.py --input_file large.jsonl --output_file labelled.jsonl ...

import finetune
finetune.predict("runs/ner", ["Grace Hopper was born in New York."])[0]["entities"]

Input formats:
  text   each line is a text
  words  each line is a sentence; spaces stand between its words
  jsonl  each line is {"text": ...}, {"text": ..., "text_pair": ...}, {"tokens": [...]} or
         {"question": ..., "context": ...}; the output keeps all other keys
  conll  each line is a word; --word_column says in which column [the column that the model was trained on]
  conllu a treebank; the output is the same file with the labels in the place that --tag_column names
  brat, doccano, label_studio, spacy
         texts in which tools mark spans of characters (docs/spans.md); the output is the input with the model's spans
  table  a word in each row of CSV or TSV; --sentence_column says which sentence a row belongs to (docs/tables.md)
  csv    a header line, then rows; --text_column_name says where the text is [as in training; else the only column
         with texts]
  tsv    the same with tabs and without quoting
Output formats:
  jsonl  the keys that finetune.prediction explains
  text   each line is the text that the model says, in the place of the line that it was given
  conll  each line is a word and its label; if the input is conll, too, the output is the input with one more column
  csv    the columns of the input and those of the answer; lists of objects are JSON in a cell. With a word in each
         row of the input, its row gets its label and its score
  tsv    the same with tabs, without quoting, and with one space for white space in a cell
If the input is text or words and the output is jsonl, or if both are conll, line n of the output belongs to line n of
the input. An input that arrives slowly is labelled line by line.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import contextlib
import itertools
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import finetune
from finetune import cli, data
from finetune.arguments import flag
from finetune.opened_files import opened_input, opened_output

CHUNK = 256  # largest number of records that are labelled together, sorted by length
SENTENCES = 1000  # of a file, which show the scheme of its tags
# Flags that only some formats of the input have: these formats, and what a message says of them.
OF_FORMATS = {
    "word_column": (("conll", "table"), "a column file or a table of words has columns of words"),
    "sentence_column": (("table",), "a table with a word in each row has it"),
    "text_column_name": (("csv", "tsv"), "CSV and TSV with a text in each row have such columns"),
    "text_pair_column_name": (("csv", "tsv"), "CSV and TSV with a text in each row have such columns"),
    "column_names": (("csv", "tsv", "table"), "CSV and TSV have such columns"),
}
PATIENCE = 0.02  # seconds: if the input is not a file, how long a chunk waits for more records


@dataclass
class PredictConfig:
    """All flags of this recipe."""

    model_name_or_path: str | None = flag(None, "The folder of a run, or a fine-tuned model of the Hub.")
    model_revision: str = flag("main", "Branch, tag or commit of a Hub model.")
    runtime: Literal["torch", "onnx"] = flag(
        "torch", "onnx: for a folder that recipes/export.py made; it needs no torch."
    )
    input_file: str = flag("-", "The file to label; - is the standard input.")
    output_file: str = flag("-", "The file for the answers; - is the standard output.")
    input_format: Literal[
        "auto",
        "text",
        "words",
        "jsonl",
        "conll",
        "conllu",
        "csv",
        "tsv",
        "table",
        "brat",
        "doccano",
        "label_studio",
        "spacy",
    ] = flag(
        "auto",
        "Format of the input. auto: as the ending of the file says (.jsonl, .conll, .csv, .tsv); the standard input "
        "is text. A folder is of brat. conllu: a treebank, which keeps its columns. table: CSV or TSV with a word in "
        "each row; auto, too, if the model was trained on such a table, or with --sentence_column.",
    )
    output_format: Literal["auto", "jsonl", "conll", "conllu", "text", "csv", "tsv"] = flag(
        "auto",
        "Format of the output. auto: conllu if the input is; else as the ending of the output file says (.conll, "
        ".csv, .tsv), else jsonl. text: of a model that turns a text into another, the text alone.",
    )
    word_column: str | None = flag(
        None,
        "Column of the words in a column file or a table: a number, counted from 0, or a name of the header line [as "
        "in training; 1 in CoNLL-U files].",
    )
    sentence_column: str | None = flag(
        None,
        "Tables with a word in each row: the column that says which sentence a word is in, or document,sentence [as "
        "in training].",
    )
    tag_column: str = flag(
        "NER", "Treebanks: where the labels are written to: a column (upos), or a key of MISC (NER) or feats.KEY."
    )
    delimiter: str | None = flag(
        None,
        "What stands between two columns: one character, or tab or space [a comma in .csv, a tab in .tsv; in column "
        "files a tab if the first row has one, else spaces].",
    )
    encoding: str = flag("utf-8", "Encoding of the input, such as cp1252 or utf-16. The output is always UTF-8.")
    tagging_scheme: Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU", "BMES"] | None = flag(
        None,
        "Column files and treebanks: the scheme in which the labels of entities are written [that of the tags in the "
        "input file: of its last column, or of --tag_column in a treebank; else IOB2].",
    )
    span_offsets: Literal["auto", "code_points", "utf16", "graphemes"] = flag(
        "auto", "What offsets of spans count. auto: code points; files that seem to count something else are refused."
    )
    text_column_name: str | None = flag(
        None, "CSV, TSV: column of the texts, or of the questions [as in training, or the only one with texts]."
    )
    text_pair_column_name: str | None = flag(
        None, "CSV, TSV: column of the second texts, or of the passages [as in training]."
    )
    column_names: str | None = flag(
        None, "CSV, TSV: comma-separated names of the columns, for a file without a header line."
    )
    top_k: int | None = flag(
        None, "Also write the scores of the K best labels of each text, or of each word; 0: of all labels."
    )
    min_precision: float | None = flag(
        None,
        "Answer only where the development split of the model's run promises this precision, such as 0.95. For "
        "entities, and for texts with one label.",
    )
    per_device_eval_batch_size: int = flag(32, "Number of windows or texts in one batch.")
    max_seq_length: int | None = flag(
        None, "Largest number of subwords in a window, with the special tokens [as in training; else 128]."
    )
    doc_stride: int | None = flag(
        None, "Number of subwords that two neighbouring windows share [as in training; else half a window]."
    )


def predict_stream(config: PredictConfig) -> int:
    """Labels the input. Returns the number of records. Raises ValueError for a mistake that the user can correct."""
    # 1. Check the flags, and open input and output before the model is loaded.
    if config.model_name_or_path is None:
        raise ValueError("--model_name_or_path is missing: give the folder of a run, or a model of the Hub")
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        check_several_processes(config)
    if config.per_device_eval_batch_size < 1:
        raise ValueError(f"--per_device_eval_batch_size {config.per_device_eval_batch_size}: must be at least 1")
    encoding = data.check_encoding(config.encoding)
    if config.input_format in data.SPAN_READERS or Path(config.input_file).is_dir():
        return predict_spans(config)
    input_format, output_format = formats(config)
    folder = data.OUTPUT_FORMS[output_format].files is not None
    opened: Any = opened_output(config.output_file, folder) if rank == 0 else contextlib.nullcontext()
    with opened_input(config.input_file) as file, opened as output:
        # 2. Load the model.
        predictor = loaded(config)
        form = data.output_form(output_format, predictor.task.PIPELINE)
        input_format = table_format(config, predictor, input_format)

        if predictor.promise and rank == 0:
            print(predictor.promise, file=sys.stderr)

        # 3. Read the records in chunks. If the input is not a file, a chunk that is not full does not wait long.
        name = "standard input" if config.input_file == "-" else config.input_file
        where: dict[str, Any] = {
            "columns": text_columns(config, predictor),
            "tag_column": config.tag_column,
            "delimiter": data.check_delimiter(config.delimiter),
            "encoding": encoding,
            "word_columns": word_columns(config, predictor),
        }
        own_word_column = word_column(config, predictor)
        key = predictor.document_column
        scheme = scheme_of_labels(config, predictor, name, (input_format, output_format), own_word_column, where)

        def write(record: data.Record, answer: Any) -> Any:
            if scheme != "IOB2":
                answer = answer | {"predicted": data.from_iob2(answer["predicted"], scheme)}
            added = answer
            if record.rows is not None:  # the words of a sentence have rows, and only a table keeps them
                added = data.added_columns(record, answer) if form.table else {}
            refuse_to_overwrite(record, added, name)
            return form.made(record, answer)

        records = data.read_records(file, name, input_format, own_word_column, document_key=key, **where)
        records = checked(data.with_head(records, name) if form.table else records, predictor, name)
        patience = None if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else PATIENCE
        total, words, seconds = 0, 0, 0.0
        group = (lambda record: record.document) if predictor.sees_documents else None
        for chunks in rounds(data.in_chunks(records, CHUNK, patience, group), processes):
            # 4. Label a chunk in each process, and write the answers in the order of the chunks.
            began = time.perf_counter()
            own = labelled(predictor, write, chunks[rank] if rank < len(chunks) else [], name)
            for made in gathered(own, processes):
                for answer in made.answers if rank == 0 else ():
                    output.write(answer)
                if made.mistake is not None:
                    raise ValueError(made.mistake)
                total, words = total + made.asked, words + made.words
            if rank == 0:
                output.flush()
            seconds += time.perf_counter() - began
    if total and rank == 0:
        rate = f"{total / seconds:,.0f} inputs" + (f" and {words / seconds:,.0f} words" if words else "")
        print(f"{total:,} inputs labelled in {seconds:.1f} s: {rate} a second", file=sys.stderr)
    return total


def predict_spans(config: PredictConfig) -> int:
    """Labels a file with spans, and writes it back in its own form. Returns the number of texts."""
    form = "brat" if config.input_format == "auto" else str(config.input_format)
    if form not in data.SPAN_READERS:
        raise ValueError(f"--input_file {config.input_file}: a folder is of brat, and --input_format is {form}")
    for name, path in (("input", config.input_file), ("output", config.output_file)):
        if path == "-":
            raise ValueError(f"--{name}_file is missing: --input_format {form} needs a file, or a folder for brat")
    if config.encoding != "utf-8":
        raise ValueError(f"--encoding {config.encoding}: files of --input_format {form} are in UTF-8; convert them")
    if config.output_format != "auto" or config.word_column is not None:
        raise ValueError(f"--output_format, --word_column: with --input_format {form}, the output has its form")
    if config.top_k is not None:
        raise ValueError(f"--top_k {config.top_k}: a file of {form} has no place for the scores of words; give jsonl")
    if not Path(config.input_file).exists():
        raise ValueError(f"--input_file {config.input_file}: no such file")
    if form == "brat":
        data.refuse_to_replace(Path(config.output_file))
    predictor = loaded(config)
    if predictor.promise:
        print(predictor.promise, file=sys.stderr)
    if not predictor.labels_words:
        raise ValueError(f"--input_format {form}: this model labels texts, not words; give jsonl")
    began = time.perf_counter()
    texts, spans = finetune.label_spans(
        predictor,
        Path(config.input_file),
        Path(config.output_file),
        form,
        unit=config.span_offsets,
        model=Path(str(config.model_name_or_path)).name,
    )
    seconds = time.perf_counter() - began
    print(f"{texts:,} texts labelled in {seconds:.1f} s, with {spans:,} spans", file=sys.stderr)
    return texts


def word_column(config: PredictConfig, predictor: Any) -> int | str | None:
    """The column of the words in a column file."""
    if config.word_column is None:
        column: int | str | None = predictor.word_column
        return column
    return data.column_asked(str(config.word_column))


def word_columns(config: PredictConfig, predictor: Any) -> data.WordColumns:
    """The columns of a table with a word in each row: as the flags say, else as in training."""
    return replace(
        predictor.word_columns or data.WordColumns(),
        words=config.word_column,
        sentences=config.sentence_column,
        names=config.column_names,
    )


def table_format(config: PredictConfig, predictor: Any, given: str) -> str:
    """`table` for a file of CSV or TSV if the model learned from a table with a word in each row.

    Raises:
        ValueError: for such a table, and a model that labels texts.
    """
    if given == "table" and not predictor.labels_words:
        raise ValueError("--input_format table: this model labels texts, not words; give csv or tsv")
    if config.input_format != "auto" or given not in ("csv", "tsv") or config.text_column_name is not None:
        return given
    return "table" if predictor.labels_words and predictor.word_columns is not None else given


def scheme_of_labels(
    config: PredictConfig, predictor: Any, name: str, formats: tuple[str, str], column: Any, where: Any
) -> str:
    """The scheme in which the labels are written: what the flag says, or that of the tags in the input file.

    Raises:
        ValueError: if the flag names a scheme, and the labels of the model are not those of entities.
    """
    source, target = formats
    if target not in ("conll", "conllu") and not (source == "table" and target in ("csv", "tsv")):
        return "IOB2"
    is_iob2 = all(re.fullmatch(r"O|[BI]-.+", label, re.DOTALL) for label in predictor.labels)
    if config.tagging_scheme is not None:
        if config.tagging_scheme != "IOB2" and not is_iob2:
            raise ValueError(f"--tagging_scheme {config.tagging_scheme}: the labels of this model are not IOB2")
        return config.tagging_scheme
    if not is_iob2 or not Path(config.input_file).is_file() or source not in ("conll", "conllu", "table"):
        return "IOB2"
    with opened_input(config.input_file) as file:
        try:
            records = data.read_records(file, name, source, column, **where, tell=False)
            first = list(itertools.islice(records, SENTENCES))
        except ValueError:  # it is told when the records are labelled
            return "IOB2"
    found = data.written_scheme(tags_of(first, source, where["word_columns"]))
    if found != "IOB2" and os.environ.get("RANK", "0") == "0":
        print(
            f"{name}: the labels are written in {found}, as its tags are (else give --tagging_scheme)",
            file=sys.stderr,
        )
    return found


def tags_of(records: Sequence[data.Record], source: str, columns: data.WordColumns) -> list[list[str]]:
    """The tags that the sentences of the input have already."""
    if source != "table":
        sentences = [one.sentence for one in records if one.sentence is not None]
        return [one.last_cells if source == "conll" else one.tags for one in sentences]
    tag = columns.tags_of(list(records[0].row)) if records else None
    return [] if tag is None else [[row[tag] for row in one.rows or ()] for one in records]


def loaded(config: PredictConfig) -> finetune.prediction.Predictor:
    """The model that the flags name."""
    return finetune.load_predictor(
        str(config.model_name_or_path),
        batch_size=config.per_device_eval_batch_size,
        max_seq_length=config.max_seq_length,
        doc_stride=config.doc_stride,
        revision=config.model_revision,
        runtime=config.runtime,
        top_k=config.top_k,
        min_precision=config.min_precision,
        alone=True,
    )


@dataclass(frozen=True)
class Made:
    """What a process made of a chunk."""

    answers: list[Any]  # as the output takes them
    asked: int = 0  # inputs
    words: int = 0
    mistake: str | None = None  # why the rest has no answers


def labelled(
    predictor: Any, write: Callable[[data.Record, Any], Any], chunk: Sequence[data.Record], name: str
) -> Made:
    """The answers of a chunk as `write` writes them."""
    try:
        answers = predictor([record.sample for record in chunk], [record.document for record in chunk])
        made = [write(record, answer) for record, answer in zip(chunk, answers, strict=True)]
    except ValueError as error:
        return Made([], mistake=str(error))
    words = sum(len(answer.get("tokens", ())) for answer in answers)
    return Made(made, sum(record.asks for record in chunk), words)


def rounds(chunks: Iterator[list[data.Record]], processes: int) -> Iterator[list[list[data.Record]]]:
    """The chunks in groups, one chunk for each process. What comes before an error comes first."""
    group: list[list[data.Record]] = []
    failure: ValueError | None = None
    try:
        for chunk in chunks:
            group.append(chunk)
            if len(group) == processes:
                yield group
                group = []
    except ValueError as error:
        failure = error
    if group:
        yield group
    if failure is not None:
        raise failure


def gathered(own: Made, processes: int) -> list[Made]:
    """What all processes made of their chunks, in the order of the chunks."""
    if processes == 1:
        return [own]
    from accelerate.utils import gather_object

    found: list[Made] = gather_object([own])
    return found


def check_several_processes(config: PredictConfig) -> None:
    """Raises ValueError for flags with which several processes cannot share the work."""
    if config.input_format in data.SPAN_READERS or Path(config.input_file).is_dir():
        raise ValueError("--input_format: files with spans are labelled by one process; start it with python")
    if config.runtime == "onnx":
        raise ValueError("--runtime onnx: it runs in one process; OMP_NUM_THREADS says how many threads it has")
    if config.input_file == "-" or not Path(config.input_file).is_file():
        raise ValueError(f"--input_file {config.input_file}: each of the processes reads the input; give a file")


def text_columns(config: PredictConfig, predictor: Any) -> data.TextColumns:
    """Where the texts stand in a table: as the flags say, else as in training, else in columns of the usual names."""
    questions = predictor.task.PIPELINE == "question-answering"
    text, pair = predictor.text_columns
    likely = [own for own in (text, "question" if questions else "text") if own]
    likely_pair = [own for own in (pair, "context" if questions else "text_pair") if own]
    paired = questions or predictor.pairs
    return data.TextColumns(
        config.text_column_name,
        config.text_pair_column_name,
        likely,
        likely_pair if paired else (),
        config.column_names,
    )


def formats(config: PredictConfig) -> tuple[str, str]:
    """The formats of input and output. For `auto`, the endings of the files decide."""
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


def checked(records: Iterator[data.Record], predictor: Any, name: str) -> Iterator[data.Record]:
    """The same records. Raises ValueError at the first one that the model cannot label."""
    for record in records:
        try:
            predictor.check(record.sample)
        except ValueError as error:
            raise ValueError(f"{name}:{record.line}: {error}") from error
        yield record


def refuse_to_overwrite(record: data.Record, answer: dict[str, Any], name: str) -> None:
    """Raises ValueError if a record already has a key of the answer, with another value."""
    for key, value in answer.items():
        if record.head and key == "tokens":  # the words themselves
            continue
        if key in record.row and record.row[key] != value:
            what = "column" if record.head else "key"
            raise ValueError(
                f"{name}:{record.line}: the answer needs the {what} {key!r}; rename this {what} in the input"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(PredictConfig, argv)
    try:
        cli.run(predict_stream, config)
    except BrokenPipeError:  # the program that reads the answers has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
