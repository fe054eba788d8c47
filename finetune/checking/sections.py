"""What a check found: a title, a sentence, a table."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

Row = TypeVar("Row")
MOST = 1000  # rows of a table


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    name: str  # its key in the JSON
    title: str
    says: str  # what was found, in one or two sentences
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""  # how it was counted, with the source of the method
    look: bool = False  # whether a person should look at it
    more: int = 0  # rows that are left out
    numbers: dict[str, float] = field(default_factory=dict)  # for programs

    def as_json(self) -> dict[str, Any]:
        """The section with a dict for each row."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {
            "title": self.title,
            "says": self.says,
            "look": self.look,
            "numbers": self.numbers,
            "rows": rows,
            "rows_left_out": self.more,
            "note": self.note,
        }


def cut(rows: list[Row]) -> tuple[list[Row], int]:
    """The first rows of a long table, and the number of the others."""
    return rows[:MOST], max(len(rows) - MOST, 0)


def many(number: int, one: str, several: str | None = None) -> str:
    """`1 sentence`, `2 sentences`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
