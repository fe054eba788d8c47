"""Texts, or pairs of texts, with what is to be learned about them -> `datasets.Dataset` with the same columns.

| column | type | |
|---|---|---|
| `text` | str | |
| `text_pair` | str | if asked for |
| `label` | str | one label a text |
| | list of str | several labels a text, in the order of the data; an empty list: no label fits, which is allowed |
| | float64 | a number |
| `source`, `line` | str, int | where the row comes from, for messages |

Several labels are a list (JSONL, Parquet, data sets), one cell with a separator between them, or a column of 0 and 1
for each label. A list is always read as several labels. Numbers are read as numbers if they are written as decimals
in every row. Whole numbers are labels, unless `problem_type` says otherwise.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import datasets
import pyarrow as pa

from finetune.arguments import DataArguments
from finetune.data.columns import find_columns, is_label
from finetune.data.file_flags import check_delimiter, check_encoding
from finetune.data.held_out import hold_out
from finetune.data.messages import listed, shown, source_name
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
from finetune.data.tables import is_text
from finetune.data.tags import plain_label

logger = logging.getLogger(__name__)

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WITH_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_YES_OR_NO = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_TYPES = {
    "single_label_classification": pa.string(),
    "multi_label_classification": pa.list_(pa.string()),
    "regression": pa.float64(),
}


def read_labelled(
    config: DataArguments,
    text: str = "text",
    label: str = "label",
    text_pair: str | None = None,
    *,
    problem_type: ProblemType | None = None,
    label_separator: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, datasets.Dataset]:
    """Reads texts, or pairs of texts, with their labels. The arguments name the columns.

    Args:
        label: with commas, the columns of 0 and 1 of several labels: `joy,love,anger`.
        problem_type: None: found from the training split; `problem_type_of` says what was found.
        label_separator: stands between the labels of a cell; an empty cell is a text without a label.
        encoding, delimiter: of text files, as the flags take them.
        given: rows from Python, as `given_splits` takes them.

    Returns:
        The splits that the config names, among `train`, `validation` and `test`.

    Raises:
        ValueError: naming file and line (or column, or flag), for anything that cannot be read.
    """
    flags = [name.strip() for name in label.split(",")]
    names = [text, *([text_pair] if text_pair else []), *flags]
    check_different(*names)
    several = _several(label, flags, problem_type, label_separator)
    splits: dict[str, dict[str, Any]] = {}
    kind: ProblemType | None = "multi_label_classification" if several else problem_type
    sources = sources_of(config, "sentiment", given)
    asked = {"text_column_name": (text, "text", is_text), "label_column_name": (label, "label", is_label)}
    form: Any = {"encoding": check_encoding(encoding), "delimiter": check_delimiter(delimiter)}
    text, label = find_columns(sources["train"], asked, config.column_names, names, **form).values()
    flags = [label] if len(flags) == 1 else flags
    names = [text, *([text_pair] if text_pair else []), *flags]
    for split, source in sources.items():
        asked_for = names
        if split != "train" and has_none_of(source, flags, config.column_names, **form):
            asked_for = [name for name in names if name not in flags]
        columns, lines = read_columns(source, asked_for, config.column_names, **form)
        for name in (text, text_pair):
            for value, line in zip(columns.get(name or "", []), lines, strict=False):
                if not isinstance(value, str):
                    raise ValueError(f"{row_at(source, line)}: column {name!r} holds {shown(value)}, not a text")
        blank = kind != "multi_label_classification"  # where an empty cell is a text without a label
        if split != "train" and all(_has_none(columns.get(flag), blank) for flag in flags):
            own = {"text": columns[text], "line": lines, "source": source}
            own |= {"text_pair": columns[text_pair]} if text_pair else {}
            keep_unlabelled(split, own, dict.fromkeys(own.keys() & {"text", "text_pair"}, pa.string()), config)
            continue
        if kind is None:
            kind = _detected(columns[label], row_at(source, lines[0]))
        if kind == "single_label_classification":
            _refuse_missing(columns[label], label, source, lines)
        labels: list[Any] = []
        for row, line in enumerate(lines):
            cells = [columns[flag][row] for flag in flags]
            labels.append(label_of(cells, flags, kind, label_separator, row_at(source, line)))
        splits[split] = {"text": columns[text], "label": labels, "line": lines, "source": source}
        note_reading(source, form="texts", labels=flags, kind=kind, separator=label_separator, **form)
        note_reading(source, column_names=config.column_names)
        if text_pair:
            splits[split]["text_pair"] = columns[text_pair]
    named = (
        set() if kind == "regression" or len(flags) > 1 else set(map(_name, declared_names(sources["train"], label)))
    )
    if getattr(config, "fold", None) is not None and kind != "regression":
        cells = splits["train"]["label"]
        named |= {own for cell in cells for own in ([cell] if isinstance(cell, str) else cell)}
    if len(flags) == 1 and kind != "regression":
        _tell_of_separator(splits["train"]["label"], sources["train"], label_separator)
    _hold_out(splits, config, kind)
    splits["train"]["declared"] = sorted(named)
    features = {"text": pa.string(), "label": _TYPES[kind or "single_label_classification"]}
    features |= {"text_pair": pa.string()} if text_pair else {}
    return {name: as_dataset(name, split, features, config) for name, split in splits.items()}


def _several(label: str, flags: Sequence[str], problem_type: ProblemType | None, separator: str | None) -> bool:
    """Whether flags say that a text has several labels. Raises ValueError for flags that do not fit each other."""
    if not all(flags):
        raise ValueError(f"--label_column_name {label}: names of columns, with a comma between two")
    several = len(flags) > 1 or separator is not None
    if several and problem_type not in (None, "multi_label_classification"):
        raise ValueError(
            f"--problem_type {problem_type}: several columns, or a --label_separator, are for several labels a text"
        )
    if separator == "" or (separator is not None and len(flags) > 1):
        raise ValueError(
            f"--label_separator {separator!r}: what stands between the labels of one cell is needed, for one "
            "column of labels"
        )
    return several


def _tell_of_separator(labels: Sequence[Any], source: Any, separator: str | None) -> None:
    """Says so if several labels look like lists of others: `food|price` beside `food` and `price`."""
    names = {own for cell in labels for own in (cell if isinstance(cell, list) else [cell])}
    for mark in "|;,/+":
        several = [name for name in sorted(names) if mark in name]
        whole = [name for name in several if {part.strip() for part in name.split(mark)} <= names]
        if len(whole) > 1 and 2 * len(whole) > len(several) and mark != separator:
            logger.warning(
                "%s: %s of the %s labels consist of other labels, such as %s; if a text may have several, give "
                "--label_separator '%s'",
                *(source_name(source), f"{len(whole):,}", f"{len(names):,}", shown(whole[0]), mark),
            )


def _has_none(column: list[Any] | None, blank: bool) -> bool:
    """Whether a split has no labels: no such column, or only missing ones, or if `blank` also only empty cells."""
    return column is None or has_no_label([None if blank and cell == "" else cell for cell in column])


def _hold_out(splits: dict[str, dict[str, Any]], config: DataArguments, kind: ProblemType | None) -> None:
    train = splits["train"]
    pairs = train.get("text_pair", [""] * len(train["text"]))
    texts = [f"{text}\n{pair}" for text, pair in zip(train["text"], pairs, strict=True)]
    several = kind == "multi_label_classification"
    labels = [() if kind == "regression" else label if several else (label,) for label in train["label"]]
    hold_out(splits, config, "texts", texts, labels)


def problem_type_of(dataset: datasets.Dataset) -> ProblemType:
    """How `read_labelled` read the labels of this data set."""
    kind = dataset.features["label"]
    if isinstance(kind, datasets.Value):
        return "regression" if kind.dtype == "float64" else "single_label_classification"
    return "multi_label_classification"


def _detected(column: Sequence[Any], where: str) -> ProblemType:
    """The problem type of the training split's labels, if no flag gives it."""
    first = next((value for value in column if value is not None), None)
    if isinstance(first, list):
        return "multi_label_classification"
    numbers = [_number(value) if _is_float(value) else None for value in column]
    # If there are only values such as 1.0 and 0.0, they may be labels that a program has written in this way.
    if None in numbers or all(number is None or number.is_integer() for number in numbers):
        commas = [value for value in column if isinstance(value, str) and _WITH_COMMA.fullmatch(value.strip())]
        if 2 * len(commas) > len(column):
            logger.warning(
                "%s: the labels look like numbers with a decimal comma, such as %s, and are learned as words; to "
                "learn numbers, write them with a decimal point",
                where,
                shown(commas[0]),
            )
        return "single_label_classification"
    logger.warning(
        "%s: the labels are numbers, such as %s, and are learned as numbers (--problem_type regression)",
        where,
        shown(first),
    )
    return "regression"


def _refuse_missing(column: Sequence[Any], name: str, source: Any, lines: Sequence[int]) -> None:
    """Raises ValueError, with the places of all, for texts without a label."""
    empty = [row for row, value in enumerate(column) if _is_missing(value)]
    if not empty:
        return
    first, *more = empty
    others = ""
    if more:
        places = listed([str(abs(lines[row])) for row in more])
        others = f" (as in {len(more):,} more row{'s' if len(more) > 1 else ''}: {places})"
    raise ValueError(
        f"{row_at(source, lines[first])}: column {name!r} holds {shown(column[first])}; a label is missing{others}: "
        "give one, or leave this text out"
    )


def _is_missing(value: Any) -> bool:
    return value is None or not str(value).strip()


def label_of(cells: Sequence[Any], names: Sequence[str], kind: ProblemType, separator: str | None, where: str) -> Any:
    """The label, the labels or the number of one text, from its cell, or from one cell for each label.

    Args:
        names: the column of each cell.
        separator: what stands between several labels of a cell.
        where: the place of the row, for messages.

    Raises:
        ValueError: for a cell that holds none.
    """
    value, here = cells[0], f"{where}: column {names[0]!r} holds"
    if len(cells) > 1:
        flags = [_yes_or_no(cell, name, where) for cell, name in zip(cells, names, strict=True)]
        return [_name(name) for name, yes in zip(names, flags, strict=True) if yes]
    if kind == "regression":
        number = _number(value)
        if number is None:
            comma = isinstance(value, str) and _WITH_COMMA.fullmatch(value.strip())
            hint = "; write numbers with a decimal point" if comma else ""
            raise ValueError(f"{here} {shown(value)}, not a number{hint}")
        return number
    if kind == "single_label_classification":
        if isinstance(value, list):
            raise ValueError(
                f"{here} {shown(value)}; several labels need --problem_type multi_label_classification, and a list "
                "in every row"
            )
        if _is_missing(value):
            raise ValueError(f"{here} {shown(value)}; a label is missing: give one, or leave this text out")
        return _label(value, f"{here} {shown(value)}")
    if separator is not None and isinstance(value, (str, int)):
        value = str(value).split(separator) if plain_label(str(value)) else []
    if not isinstance(value, list):
        raise ValueError(
            f"{here} {shown(value)}; several labels are a list, which may be empty, or words with a "
            "--label_separator between them"
        )
    labels = [_label(label, f"{here} {shown(cells[0])}") for label in value]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"{here} {shown(cells[0])}, with {shown(twice)} more than once; a list names labels")
    return labels


def _label(value: Any, found: str) -> str:
    """
    Args:
        found: how a message about the cell begins.
    """
    name = _name(str(value))
    if isinstance(value, (str, int)) and name and not _is_float(value):
        return name
    hint = "; to learn numbers, give --problem_type regression" if _is_float(value) else ""
    raise ValueError(f"{found}; a label is a word or a whole number{hint}")


def _name(text: str) -> str:
    """The label as `predictions_<split>.tsv` has it."""
    return plain_label(" ".join(text.split()))


def _is_float(value: Any) -> bool:
    """Whether a value is a decimal number, as a number or as text, since a cell of CSV has no type."""
    return isinstance(value, float) or (isinstance(value, str) and bool(_FLOAT.fullmatch(plain_label(value))))


def _number(value: Any) -> float | None:
    """The value as a finite number, or None."""
    if isinstance(value, str):
        value = plain_label(value)
        if not _NUMBER.fullmatch(value):
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _yes_or_no(value: Any, name: str, where: str) -> bool:
    found = _YES_OR_NO.get(plain_label(str(value)).lower())
    if found is None or isinstance(value, list):
        raise ValueError(f"{where}: column {name!r} holds {shown(value)}; a column for one label holds 0 or 1")
    return found
