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
  tsv    the same with tabs, without quoting, and with one space for tabs and line breaks in a cell
If the input is text or words and the output is jsonl, or if both are conll, line n of the output belongs to line n of
the input. An input that arrives slowly is labelled line by line.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import contextlib
import os
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import finetune
from finetune import cli, data
from finetune.arguments import PredictionArguments, flag
from finetune.opened_files import opened_input, opened_output
from finetune.prediction_files import formats, input_of, keep_the_input, scheme_of_labels
from finetune.prediction_rounds import checked, gathered, labelled, rounds, written

CHUNK = 256  # largest number of records that are labelled together, sorted by length
PATIENCE = 0.02  # seconds: if the input is not a file, how long a chunk waits for more records


@dataclass
class PredictConfig(PredictionArguments):
    """All flags of this recipe."""

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
    if config.input_format in data.SPAN_READERS or Path(config.input_file).is_dir():
        return predict_spans(config)
    input_format, output_format = formats(config)
    folder = data.OUTPUT_FORMS[output_format].files is not None
    opened: Any = opened_output(config.output_file, folder) if rank == 0 else contextlib.nullcontext()
    with opened_input(config.input_file) as file, opened as output:
        # 2. Load the model. It knows how its own data was written.
        predictor = loaded(config)
        form = data.output_form(output_format, predictor.task.PIPELINE)
        source = input_of(config, predictor, input_format)
        if predictor.promise and rank == 0:
            print(predictor.promise, file=sys.stderr)
        scheme = scheme_of_labels(config, predictor, source, output_format)
        write = partial(written, form, scheme, predictor.label_separator, source.name)

        # 3. Read the records in chunks. If the input is not a file, a chunk that is not full does not wait long.
        records = source.records(file)
        records = checked(data.with_head(records, source.name) if form.table else records, predictor, source.name)
        patience = None if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else PATIENCE
        total, words, seconds = 0, 0, 0.0
        group = (lambda record: record.document) if predictor.sees_documents else None
        for chunks in rounds(data.in_chunks(records, CHUNK, patience, group), processes):
            # 4. Label a chunk in each process, and write the answers in the order of the chunks.
            began = time.perf_counter()
            own = labelled(predictor, write, chunks[rank] if rank < len(chunks) else [], source.name)
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
    keep_the_input(config)
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
        given = f"--input_format {form}" if form == config.input_format else f"--input_file {config.input_file}"
        raise ValueError(f"{given}: spans are for a model that labels words, and this one labels texts; give jsonl")
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


def check_several_processes(config: PredictConfig) -> None:
    """Raises ValueError for flags with which several processes cannot share the work."""
    if config.input_format in data.SPAN_READERS or Path(config.input_file).is_dir():
        raise ValueError("--input_format: files with spans are labelled by one process; start it with python")
    if config.runtime == "onnx":
        raise ValueError("--runtime onnx: it runs in one process; OMP_NUM_THREADS says how many threads it has")
    if config.input_file == "-" or not Path(config.input_file).is_file():
        raise ValueError(f"--input_file {config.input_file}: each of the processes reads the input; give a file")


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
