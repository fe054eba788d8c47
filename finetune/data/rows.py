"""Tokenised inputs without padding.

Shapes: N rows, T tokens of all rows together.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Model inputs laid end to end; row i is `[offsets[i]:offsets[i + 1]]` of every token column.

    | field | key | dtype, shape | meaning |
    |---|---|---|---|
    | `tokens` | `input_ids` | int64 (T,) | special tokens included |
    | `tokens` | `labels` | int64 (T,) | token classification; -100: no target |
    | `tokens` | `token_type_ids` | int64 (T,) | where the tokenizer gives them |
    | `tokens` | `char_ids` | uint8 (T, C) | UTF-8 bytes of the baselines' words |
    | `samples` | `labels` | int64 (N,) | sequence classification |
    """

    offsets: np.ndarray  # int64 (N + 1,)
    tokens: dict[str, np.ndarray]
    samples: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (N,)."""
        return np.diff(self.offsets)
