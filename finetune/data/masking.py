"""Masked language modelling: which tokens are to be predicted, and what the model sees in their place.

Every draw is a hash of (seed, epoch, sample, position), so a token's mask does not change with the batch, worker,
process or resumed run that it is drawn in. All of it is array arithmetic over a whole batch.

Shapes: B rows, T tokens of all rows together, U units that may be masked (tokens or words).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Unit = Literal["token", "whole_word", "span"]

IGNORED = -100
_SPAN_P, _SPAN_MAX = 0.2, 10  # SpanBERT's span lengths, in words (Joshi et al., 2020, section 3.1)
_COUNT, _CHOICE, _KIND, _OTHER, _START, _LENGTH = range(6)  # streams of random numbers


@dataclass(frozen=True)
class Masking:
    """What is masked and how. The names are those of `transformers.DataCollatorForLanguageModeling`."""

    mask_token_id: int
    ordinary_ids: np.ndarray  # int64: the ids that a random token may have, all but the special ones
    unit: Unit = "token"
    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1


def mask_tokens(
    masking: Masking, input_ids: np.ndarray, offsets: np.ndarray, words: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Masks `mlm_probability` of the units of each row, at least one where there is any.

    The number is rounded up or down by chance, so that the share is as asked in expectation. Of what is chosen,
    `mask_replace_prob` becomes the mask token, `random_replace_prob` another token, the rest stays. With `token` and
    `whole_word` this is drawn for each token, with `span` for each span.

    Args:
        input_ids: int (T,), the rows end to end.
        offsets: int64 (B + 1,): row i is `[offsets[i]:offsets[i + 1]]`.
        words: int64 (T,): the same number for neighbouring tokens of one word, another for the next word; -1 for
            what is never masked (special tokens).
        keys: uint64 (B,), from `row_keys`.

    Returns:
        input_ids: a masked copy.
        labels: int64 (T,), the original ids where chosen, else -100.
    """
    rows = np.repeat(np.arange(len(keys)), np.diff(offsets))  # (T,)
    free = np.flatnonzero(words >= 0)
    if masking.unit == "token":
        unit_of = np.arange(len(free))  # of each maskable token
    else:
        begins = (np.diff(words[free], prepend=-1) != 0) | (np.diff(rows[free], prepend=-1) != 0)
        unit_of = np.cumsum(begins) - 1
    first = free[np.flatnonzero(np.diff(unit_of, prepend=-1))]  # (U,): each unit's first token
    unit_rows = rows[first]
    positions = np.arange(len(input_ids)) - offsets[rows]
    units = np.bincount(unit_rows, minlength=len(keys))  # of each row
    wanted = np.floor(units * masking.mlm_probability + uniform(keys, _COUNT, 0)).astype(np.int64)
    wanted = np.minimum(np.maximum(wanted, 1), units)

    if masking.unit == "span":
        chosen, drawn_as = _spans(units, wanted, keys)
    else:
        # The `wanted` units of each row with the smallest random numbers.
        order = np.argsort(unit_rows + uniform(keys[unit_rows], _CHOICE, positions[first]))  # rows stay together
        rank = np.arange(len(order)) - np.repeat(np.cumsum(units) - units, units)
        chosen = np.zeros(len(order), dtype=bool)
        chosen[order] = rank < wanted[unit_rows]
        drawn_as = None

    at = free[chosen[unit_of]]  # the masked tokens
    labels = np.full(len(input_ids), IGNORED, dtype=np.int64)
    labels[at] = input_ids[at]
    masked = input_ids.copy()
    number = positions[at] if drawn_as is None else drawn_as[unit_of[chosen[unit_of]]]
    kind = uniform(keys[rows[at]], _KIND, number)
    masked[at[kind < masking.mask_replace_prob]] = masking.mask_token_id
    swapped = (kind >= masking.mask_replace_prob) & (kind < masking.mask_replace_prob + masking.random_replace_prob)
    other = uniform(keys[rows[at[swapped]]], _OTHER, positions[at[swapped]])
    masked[at[swapped]] = masking.ordinary_ids[(other * len(masking.ordinary_ids)).astype(np.int64)]
    return masked, labels


def _spans(units: np.ndarray, wanted: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spans of words until each row has as many as it wants; the n-th spans of all rows are drawn at once.

    Returns:
        chosen: bool (U,).
        span: int64 (U,): which span of its row a word is in.
    """
    begins = np.cumsum(units) - units
    chosen, span = np.zeros(units.sum(), dtype=bool), np.zeros(units.sum(), dtype=np.int64)
    left = wanted.copy()
    active = np.flatnonzero(left)
    drawn = 0
    steps = np.arange(_SPAN_MAX)
    while len(active):
        start = (uniform(keys[active], _START, drawn) * units[active]).astype(np.int64)
        length = _geometric(uniform(keys[active], _LENGTH, drawn))
        within = start[:, None] + steps  # (active, 10)
        fits = (steps < length[:, None]) & (within < units[active, None])
        at = np.where(fits, begins[active, None] + within, 0)
        new = fits & ~chosen[at]
        new &= np.cumsum(new, 1) <= left[active, None]
        chosen[at[new]] = True
        span[at[new]] = drawn
        left[active] -= new.sum(1)
        active = active[left[active] > 0]
        drawn += 1
    return chosen, span


def _geometric(u: np.ndarray) -> np.ndarray:
    """Lengths 1, 2, ... 10 with probability proportional to 0.2 * 0.8 ** (length - 1): 3.8 on average."""
    cumulative = np.cumsum((1 - _SPAN_P) ** np.arange(_SPAN_MAX))
    return np.searchsorted(cumulative / cumulative[-1], u, side="right") + 1


def row_keys(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """A key for each row, uint64 (B,), from which all its draws follow."""
    start = _mix(np.array((seed * 0x9E3779B97F4A7C15 + epoch + 1) % 2**64, dtype=np.uint64))
    return _mix(start ^ _mix(samples.astype(np.uint64)))


def uniform(keys: np.ndarray, stream: int, numbers: np.ndarray | int) -> np.ndarray:
    """float64 in [0, 1): for each key the `numbers`-th draw of a stream."""
    counter = np.asarray(numbers).astype(np.uint64) * np.uint64(8) + np.uint64(stream + 1)
    with np.errstate(over="ignore"):
        return (_mix(keys + counter * _GOLDEN) >> np.uint64(11)).astype(np.float64) * 2.0**-53


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea and Flood, 2014, with Stafford's 13th constants); wraps around."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
