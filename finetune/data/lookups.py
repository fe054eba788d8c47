"""A column of rows whose values lie in tables, such as files on the disk. Only the values of a batch are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Lookup:
    """A column of `Rows` that looks its values up. `column[i]` is float32 (len(i), K, L) for an array of indices i.

    Each of K sides has tables that follow each other, as if they were one of n lines; all sides have the same n.
    Value i has line `lines[i]` of each side.

    Args:
        sides: for each side its tables, float32 (n of the table, L), in memory or mapped from files.
        lines: int64 (values,); -1 stands for a line of zeros.
        orders: for each side, int64 (L,), the columns of its tables in the order in which they are given.
    """

    sides: Sequence[Sequence[np.ndarray]]
    lines: np.ndarray
    orders: Sequence[np.ndarray]

    def __getitem__(self, at: Any) -> np.ndarray:
        lines = self.lines[at]
        found = np.zeros((len(lines), *self.shape[1:]), np.float32)
        for k, (tables, order) in enumerate(zip(self.sides, self.orders, strict=True)):
            begin = 0
            for table in tables:
                mine = np.flatnonzero((lines >= begin) & (lines < begin + len(table)))
                found[mine, k] = table[lines[mine] - begin][:, order]
                begin += len(table)
        return found

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(values, K, L)."""
        return len(self.lines), len(self.sides), len(self.orders[0])

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    def followed_by(self, other: "Lookup") -> "Lookup":
        """One column with the values of both."""
        lines = sum(len(table) for table in self.sides[0])
        theirs = np.where(other.lines < 0, -1, other.lines + lines)
        sides = [[*mine, *more] for mine, more in zip(self.sides, other.sides, strict=True)]
        return Lookup(sides, np.concatenate([self.lines, theirs]), self.orders)
