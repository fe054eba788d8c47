"""The forms in which answers are written. `OUTPUT_FORMS` has one line for each.

To add a form: write a function that turns a record and its answer into text, give it a line in `OUTPUT_FORMS`, and
add its name to `--output_format` in `recipes/predict.py`. `finetune.prediction.Predictor` explains the keys of an
answer.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune.data.conll import CONLL_ENDINGS
from finetune.data.streams import Record

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class OutputForm:
    """A form of answers.

    Exactly one of `write` and `files` is given.
    """

    write: Callable[[Record, Answer], str] | None = None  # the text of an answer in the output file
    files: Callable[[Record, Answer], dict[str, str]] | None = None  # of a folder: names of files -> their content
    endings: tuple[str, ...] = ()  # an output file that ends so means this form
    tasks: tuple[str, ...] = ()  # the `PIPELINE` of the tasks that it can hold; (): all
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
    if record.sentence is not None:
        return record.sentence.with_column(answer["predicted"])
    lines = zip(answer["tokens"], answer["predicted"], strict=True)
    return "".join(f"{word}\t{tag}\n" for word, tag in lines) + "\n"


def as_text(record: Record, answer: Answer) -> str:
    """A line with the text that the model says."""
    return " ".join(answer["predicted"].split()) + "\n"


OUTPUT_FORMS = {
    "jsonl": OutputForm(as_json, endings=(".jsonl", ".json")),
    "conll": OutputForm(
        as_conll,
        endings=tuple(ending for ending in CONLL_ENDINGS if ending != ".txt"),  # .txt is more often a text
        tasks=("token-classification",),
        others="this model labels texts, not words; give jsonl",
    ),
    "text": OutputForm(
        as_text, tasks=("translation",), others="this model says labels or answers with scores; give jsonl"
    ),
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
