"""Records are labelled in chunks, by one process or several, and their answers come in the order of the input."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune import data


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


def checked(records: Iterator[data.Record], predictor: Any, name: str) -> Iterator[data.Record]:
    """The same records. Raises ValueError at the first one that the model cannot label."""
    for record in records:
        try:
            predictor.check(record.sample)
        except ValueError as error:
            raise ValueError(f"{name}:{record.line}: {error}") from error
        yield record


def written(
    form: data.OutputForm,
    scheme: str,
    separator: str | None,
    name: str,
    record: data.Record,
    answer: dict[str, Any],
) -> Any:
    """What the output gets for a record.

    Args:
        scheme: of the tags of entities.
        separator: what stands between several labels in a cell of a table; None: they are a list in JSON.
        name: of the input, in messages.

    Raises:
        ValueError: if the record already has a key of the answer, with another value.
    """
    if scheme != "IOB2":
        answer = answer | {"predicted": data.from_iob2(answer["predicted"], scheme)}
    if form.table and separator is not None and not record.head and isinstance(answer.get("predicted"), list):
        answer = answer | {"predicted": separator.join(answer["predicted"])}
    added = answer
    if record.rows is not None:  # the words of a sentence have rows, and only a table keeps them
        added = data.added_columns(record, answer) if form.table else {}
    _refuse_to_overwrite(record, added, name)
    return form.made(record, answer)


def _refuse_to_overwrite(record: data.Record, answer: dict[str, Any], name: str) -> None:
    """Raises ValueError if a record already has a key of the answer, with another value."""
    for key, value in answer.items():
        if record.head and key == "tokens":  # the words themselves
            continue
        if key in record.row and record.row[key] != value:
            what = "column" if record.head else "key"
            raise ValueError(
                f"{name}:{record.line}: the answer needs the {what} {key!r}; rename this {what} in the input"
            )
