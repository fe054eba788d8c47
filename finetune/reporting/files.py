"""Writes `predictions_<split>.tsv`: the predictions of a model beside the correct answers."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune.files import whole_file


def write_predictions(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a TSV file with a header line. White space inside a cell becomes one space.

    Nothing else is changed or quoted, so that a program can read labels such as `-1` and `=1+1`. A spreadsheet may
    take a cell that begins with = + - or @ for a formula; import its columns as text.
    """
    with whole_file(path) as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([" ".join(cell.split()) if isinstance(cell, str) else _number(cell) for cell in row])


def _number(cell: object) -> str:
    return f"{cell:.6f}" if isinstance(cell, float) else str(cell)
