"""Tokenised inputs without padding.

Shapes: N rows, T tokens of all rows together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.data.lookups import Lookup

PADDING = {"labels": -100}


@dataclass(frozen=True)
class Side:
    """A column whose rows have lengths of their own: row i is `values[offsets[i]:offsets[i + 1]]`."""

    offsets: np.ndarray  # int64 (N + 1,)
    values: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row, int64 (N,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Rows:
    """Model inputs, one after the other. Row i is `[offsets[i]:offsets[i + 1]]` of each token column.

    | field | key | dtype, shape | meaning |
    |---|---|---|---|
    | `tokens` | `input_ids` | int64 (T,) | special tokens included |
    | `tokens` | `labels` | int64 (T,) | token classification, masked tokens; -100: no target |
    | `tokens` | `token_type_ids` | int64 (T,) | if the tokenizer gives them |
    | `tokens` | `position_ids` | int64 (T,) | if they are not those that the model counts itself |
    | `tokens` | `char_ids` | uint8 (T, C) | for the baselines: the UTF-8 bytes of the words |
    | `tokens` | `teacher` | `Lookup` (T, K, L) | distillation: what each of K teachers says; zeros: nothing |
    | `samples` | `teacher` | `Lookup` (N, K, L) | the same for each row |
    | `samples` | `labels` | int64 (N,) | one label for each row |
    | `samples` | `labels` | float32 (N, L), (N,) | 0 or 1 for each label of a row; or a number for each row |
    | `samples` | `start_positions`, `end_positions` | int64 (N,) | questions: the tokens of the answer; 0: none |
    | `samples` | `next_sentence_label` | int64 (N,) | 0: the next segment, 1: another; -100: no target |
    | `sides` | `labels` | int64 of any length | the target text of a row whose `tokens` are its source |
    """

    offsets: np.ndarray  # int64 (N + 1,)
    tokens: dict[str, np.ndarray]
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (N,)."""
        return np.diff(self.offsets)

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each row, a column for the tokens and one for each side, int64 (N, 1 + sides)."""
        return np.stack([self.lengths, *(side.lengths for side in self.sides.values())], axis=1)

    def in_epoch(self, epoch: int) -> "Rows":
        """The rows of an epoch. Here they are the same in each epoch."""
        return self

    def rows_in(self, epoch: int) -> int:
        """The number of rows of an epoch."""
        return len(self)

    def take(self, row_ids: Sequence[int] | np.ndarray) -> "Rows":
        """The rows of these ids, in their order."""
        ids = np.asarray(row_ids, dtype=np.int64)
        begins, lengths = self.offsets[ids], self.lengths[ids]
        at = ranges(begins, lengths)
        return Rows(
            np.concatenate([[0], np.cumsum(lengths)]),
            {key: values[at] for key, values in self.tokens.items()},
            {key: values[ids] for key, values in self.samples.items()},
            {key: _taken(side, ids) for key, side in self.sides.items()},
        )


def _taken(side: Side, ids: np.ndarray) -> Side:
    lengths = side.lengths[ids]
    return Side(np.concatenate([[0], np.cumsum(lengths)]), side.values[ranges(side.offsets[ids], lengths)])


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both, which must have the same columns and no sides."""

    def column(mine: Any, theirs: Any) -> Any:
        return mine.followed_by(theirs) if isinstance(mine, Lookup) else np.concatenate([mine, theirs])

    parts = (first.tokens, second.tokens), (first.samples, second.samples)
    tokens, samples = ({key: column(mine[key], theirs[key]) for key in mine} for mine, theirs in parts)
    return Rows(np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]), tokens, samples)


def ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For each i, `lengths[i]` numbers `begins[i], begins[i] + 1, ...`, one after the other, int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(np.asarray(begins, dtype=np.int64) - (ends - lengths), lengths)


def padded(rows: Rows, pad_token_id: int, *, pad_left: bool = False, least: int = 0) -> dict[str, np.ndarray]:
    """The rows in one array for each column, (N, T of the longest row, ...), and their `attention_mask`.

    Args:
        least: T is not less than this.
    """
    lengths = rows.lengths
    T = max(int(lengths.max()), least)
    mask = np.arange(T) >= T - lengths[:, None] if pad_left else np.arange(T) < lengths[:, None]  # (N, T)
    inputs = {"attention_mask": mask.astype(np.int64)}
    for key, values in rows.tokens.items():
        padding = pad_token_id if key == "input_ids" else PADDING.get(key, 0)
        inputs[key] = np.full((*mask.shape, *values.shape[1:]), padding, dtype=dtype_of(values))
        inputs[key][mask] = values
    for key, values in rows.samples.items():
        inputs[key] = values.astype(dtype_of(values))
    for key, side in rows.sides.items():
        inputs[key] = np.full((len(rows), side.lengths.max()), PADDING.get(key, 0), dtype=dtype_of(side.values))
        inputs[key][np.arange(inputs[key].shape[1]) < side.lengths[:, None]] = side.values
    return inputs


def dtype_of(values: np.ndarray) -> type:
    """The dtype of a column in a batch."""
    return np.float32 if values.dtype.kind == "f" else np.int64
