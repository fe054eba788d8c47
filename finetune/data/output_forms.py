"""The forms in which answers are written. `OUTPUT_FORMS` has one line for each.

To add a form, write a function that turns a record and its answer into text. Give it a line in `OUTPUT_FORMS`, and
add its name to `--output_format` in `finetune/arguments.py`. `finetune.prediction.Predictor` explains the keys of an
answer.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune.data.conll import COLUMN_ENDINGS
from finetune.data.messages import listed
from finetune.data.records import Record
from finetune.data.treebanks import with_tags

Answer = Mapping[str, Any]
_BREAKS = re.compile(r"[\t\n\r]+")


@dataclass(frozen=True)
class OutputForm:
    """A form of answers.

    Exactly one of `write` and `files` is given.
    """

    write: Callable[[Record, Answer], str] | None = None  # the text of an answer in the output file
    files: Callable[[Record, Answer], dict[str, str]] | None = None  # of a folder: names of files -> their content
    endings: tuple[str, ...] = ()  # an output file that ends so means this form
    tasks: tuple[str, ...] = ()  # the `PIPELINE` of the tasks that it can hold; (): all
    table: bool = False  # whether the first record must tell the names of the columns (`with_head`)
    others: str = ""  # for other tasks: what is wrong, for the message

    def made(self, record: Record, answer: Answer) -> Any:
        """What the output gets for a record: a text, or names of files and their content."""
        function: Any = self.write or self.files
        return function(record, answer)


def as_json(record: Record, answer: Answer) -> str:
    """The line of JSON for a record."""
    return json.dumps(record.row | dict(answer), ensure_ascii=False) + "\n" if record.asks else ""


def as_conll(record: Record, answer: Answer) -> str:
    """The lines of a column file with the labels in one more column. For other input, a line for each word."""
    if record.head:
        return ""
    if record.sentence is not None:
        return record.sentence.with_column(answer["predicted"])
    lines = zip(answer["tokens"], answer["predicted"], strict=True)
    return "".join(f"{word}\t{tag}\n" for word, tag in lines) + "\n"


def as_conllu(record: Record, answer: Answer) -> str:
    """The lines of a treebank with the labels in their place. All else stays as it is."""
    assert record.sentence is not None  # finetune/prediction_files.py has checked that the input is a treebank
    return with_tags(record.sentence, answer["predicted"])


def as_text(record: Record, answer: Answer) -> str:
    """A line with the text that the model says."""
    return " ".join(answer["predicted"].split()) + "\n" if record.asks else ""


def as_csv(record: Record, answer: Answer) -> str:
    """The rows of a CSV file, with the columns of the input and those of the answer; the names of these for the head.

    The delimiter is that of the input, if this is CSV.
    """
    return "".join(_csv_line(row, record.delimiter) for row in _rows(record, answer))


def _csv_line(cells: list[Any], delimiter: str) -> str:
    """A row of CSV that ends in a line feed. A carriage return is quoted, as it is in the writer's own end."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def as_tsv(record: Record, answer: Answer) -> str:
    """As `as_csv`, with tabs and without quoting. Tabs and line breaks in a cell become one space."""
    rows = _rows(record, answer)
    return "".join("\t".join(_BREAKS.sub(" ", str(cell)) for cell in row) + "\n" for row in rows)


def _rows(record: Record, answer: Answer) -> list[list[Any]]:
    """The cells of a record: one row, or a row for each word if the input has that."""
    added = {key: cell for key, cell in added_columns(record, answer).items() if key not in record.row}
    if record.head:
        return [[*record.row, *added]]
    if record.rows is not None:
        return [[*row.values(), *own] for row, *own in zip(record.rows, *added.values(), strict=True)]
    return [[*map(_in_a_cell, record.row.values()), *added.values()]]


def added_columns(record: Record, answer: Answer) -> dict[str, Any]:
    """What an answer adds to a row of a table, a cell for each name. Of words with a row each, lists of cells."""
    if record.rows is None:
        return table_cells(answer)
    found = {"predicted": answer["predicted"], "score": answer["scores"]}
    if "top_k" in answer:
        found["top_k"] = [_in_a_cell(best) for best in answer["top_k"]]
    return found


def table_cells(answer: Answer) -> dict[str, Any]:
    """An answer as cells of a table: words and what belongs to them with spaces between them; other lists as JSON.

    `nbest` is left out. "Not answered" is an empty cell.
    """
    of_words = {"tokens", "predicted", "scores"} if "tokens" in answer else set()
    return {
        key: " ".join(map(str, value)) if key in of_words else _in_a_cell(value)
        for key, value in answer.items()
        if key != "nbest"
    }


def _in_a_cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def with_head(records: Iterable[Record], name: str) -> Iterator[Record]:
    """The records, with a record for the names of the columns before the first one, if there is none yet.

    Raises:
        ValueError: for a record with other keys than the first one.
    """
    names: list[str] | None = None
    for record in records:
        if names is None:
            names = list(record.row)
            if not record.head:
                empty: Any = ("", "") if isinstance(record.sample, tuple) else type(record.sample)()
                yield Record(record.line, empty, {own: own for own in names}, delimiter=record.delimiter, head=True)
        elif record.asks and record.rows is None and list(record.row) != names:
            raise ValueError(
                f"{name}:{record.line}: has {listed(list(record.row))}, but the first one has {listed(names)}; in a "
                "table all rows have the same columns"
            )
        if record.head or record.asks:
            yield record


OUTPUT_FORMS = {
    "jsonl": OutputForm(as_json, endings=(".jsonl", ".json")),
    "conll": OutputForm(
        as_conll,
        endings=COLUMN_ENDINGS,
        tasks=("token-classification",),
        others="this model labels texts, not words; give jsonl",
    ),
    "conllu": OutputForm(
        as_conllu, tasks=("token-classification",), others="this model labels texts, not words; give jsonl"
    ),
    "text": OutputForm(
        as_text, tasks=("translation",), others="this model says labels or answers with scores; give jsonl"
    ),
    "csv": OutputForm(as_csv, endings=(".csv",), table=True),
    "tsv": OutputForm(as_tsv, endings=(".tsv",), table=True),
}


def output_form(name: str, task: str) -> OutputForm:
    """The form of that name.

    Args:
        task: the `PIPELINE` of the model's task.

    Raises:
        ValueError: if the form cannot hold the answers of that task.
    """
    form = OUTPUT_FORMS[name]
    if form.tasks and task not in form.tasks:
        raise ValueError(f"--output_format {name}: {form.others}")
    return form
