"""Which columns of a table hold what a task needs, where they do not have the usual names.

A column is taken only if it is the only one that may be meant. Otherwise the reader's error lists the columns.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from finetune.data.messages import listed, shown, source_name
from finetune.data.readers import names_of, read_columns
from finetune.data.tables import SHORT, has_words
from finetune.data.tags import TAG

logger = logging.getLogger(__name__)

_MOST_LABELS = 100
_SEEN = 2000  # rows that are looked at
Kind = Callable[[Sequence[Any]], bool]


def find_columns(
    source: Path | datasets.Dataset,
    asked: Mapping[str, tuple[str, str, Kind]],
    column_names: str | None,
    taken: Sequence[str],
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> dict[str, str]:
    """The columns of a task: those with the asked names where they are there, else the only ones that may be meant.

    Args:
        asked: for each flag its value, its default, and what its column looks like. A value that is not the default
            was given by the user, and nothing is guessed for it.
        taken: columns that are used for something else.
        encoding, delimiter: as `read_columns` takes them.

    Returns:
        A name for each flag: its value, if nothing else was found or if the data leaves a doubt.
    """
    found = {flag: name for flag, (name, *_) in asked.items()}
    if all(name != default for name, default, _ in asked.values()):
        return found
    form: Any = {"encoding": encoding, "delimiter": delimiter}
    present = names_of(source, column_names, **form)
    missing = {flag: kind for flag, (name, default, kind) in asked.items() if name == default not in present}
    if not missing:
        return found
    free = [name for name in present if name not in {*found.values(), *taken}]
    if not free:
        return found
    if isinstance(source, datasets.Dataset):
        source = source.select(range(min(_SEEN, len(source))))
    try:
        columns = {
            name: column[:_SEEN] for name, column in read_columns(source, free, column_names, **form)[0].items()
        }
    except ValueError:
        return found
    if column_names is None and any(map(_is_data, columns, columns.values())):
        return found  # the file may have no header line
    guesses = {flag: [name for name in free if kind(columns[name])] for flag, kind in missing.items()}
    if any(len(names) != 1 for names in guesses.values()):
        return found
    new = {flag: names[0] for flag, names in guesses.items()}
    left = [name for name in free if name not in new.values() and has_words(columns[name])]
    left = left if "text_column_name" in new else []  # beside words, such a column has the same sentences
    logger.warning(
        "%s: taken as %s%s",
        source_name(source),
        " ".join(f"--{flag} {shown(name)}" for flag, name in new.items()),
        f"; not used: {listed(left)}" if left else ", since no other column could be meant",
    )
    return found | new


def is_label(column: Sequence[Any]) -> bool:
    """Whether a column may hold labels: few and short ones, each of them often (some may be missing); or lists."""
    if all(isinstance(cell, list) and all(isinstance(label, str) for label in cell) for cell in column):
        return True
    column = [cell for cell in column if cell is not None and cell != ""]  # a missing label is found, and told, later
    if not all(isinstance(cell, (str, int)) and 0 < len(str(cell).split()) <= SHORT for cell in column):
        return False
    return 2 <= len(set(column)) <= min(len(column) / 2, _MOST_LABELS)


def is_tags(column: Sequence[Any]) -> bool:
    """Whether a column may hold lists of tags such as `B-PER`."""
    return _of_lists(column) and all(TAG.fullmatch(tag) for row in column for tag in row)


def is_words(column: Sequence[Any]) -> bool:
    """Whether a column may hold lists of words."""
    return _of_lists(column) and not is_tags(column)


def _of_lists(column: Sequence[Any]) -> bool:
    return all(isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in column)


def _is_data(name: str, column: Sequence[Any]) -> bool:
    """Whether the name of a column looks like one of its cells."""
    number = name.strip().lstrip("+-").replace(".", "", 1).isdecimal()
    return not name.strip() or number or len(name.split()) > SHORT or name in map(str, column)
