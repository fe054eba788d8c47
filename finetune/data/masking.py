"""Masked language modelling: chooses the tokens to predict, and what the model sees in their place.

Every draw is a hash of (seed, epoch, sample, position). So a token's mask does not depend on the batch, the worker or
the process, nor on whether the run was resumed. All of it is array arithmetic over a whole batch.

Shapes: B rows, T tokens of all rows together, U units that are masked as one (tokens or words).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Unit = Literal["token", "whole_word", "span"]

IGNORED = -100
_SPAN_P, _SPAN_MAX = 0.2, 10  # SpanBERT's span lengths, in words (Joshi et al., 2020, section 3.1)
_LONGEST_WORD = 10  # tokens
_COUNT, _CHOICE, _KIND, _OTHER, _START, _LENGTH, _LAST = range(7)  # streams of random numbers


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
    """Masks `mlm_probability` of the tokens of each row, and at least one if the row has any.

    The number of tokens is rounded up or down at random, so that the expected share is the requested one. Words are
    drawn until they have so many tokens. The last word may have more tokens than are left. It is taken if it is the
    only one; otherwise it is taken with the probability that keeps the expected share. A word of more than ten
    tokens, such as a web address, is cut into words of ten.

    Of the chosen tokens, the share `mask_replace_prob` becomes the mask token, the share `random_replace_prob`
    becomes another token, and the rest stays. With `token` and `whole_word` this is drawn for each token, with `span`
    for each span.

    Args:
        input_ids: int (T,), the rows end to end.
        offsets: int64 (B + 1,): row i is `[offsets[i]:offsets[i + 1]]`.
        words: int64 (T,): the same number for neighbouring tokens of one word, another for the next word; -1 for
            tokens that are never masked (special tokens).
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
        unit_of = _words_of(words[free], rows[free])
    first = free[np.flatnonzero(np.diff(unit_of, prepend=-1))]  # (U,): each unit's first token
    unit_rows, sizes = rows[first], np.bincount(unit_of)
    positions = np.arange(len(input_ids)) - offsets[rows]
    tokens = np.bincount(rows[free], minlength=len(keys))  # of each row, those that may be masked
    budget = np.floor(tokens * masking.mlm_probability + uniform(keys, _COUNT, 0)).astype(np.int64)
    budget = np.minimum(np.maximum(budget, 1), tokens)

    if masking.unit == "span":
        chosen, drawn_as = _spans(unit_rows, sizes, budget, keys)
    else:
        # Units in the order of their random numbers, until the row's budget is used up.
        order = np.argsort(unit_rows + uniform(keys[unit_rows], _CHOICE, positions[first]))  # rows stay together
        in_order, row = sizes[order], unit_rows[order]
        begin = np.cumsum(tokens) - tokens
        left = budget[row] - (np.cumsum(in_order) - in_order - begin[row])  # when it is the unit's turn
        chosen = np.zeros(len(order), dtype=bool)
        chosen[order] = (in_order <= left) | _last_one(in_order, left, left == budget[row], keys[row])
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


def _words_of(words: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For each maskable token the number of its word, from 0 on, where words of more than ten tokens are cut.

    A word ends with its row.
    """
    begins = (np.diff(words, prepend=-1) != 0) | (np.diff(rows, prepend=-1) != 0)
    at = np.arange(len(words))
    within = at - np.maximum.accumulate(np.where(begins, at, 0))  # the token's number in its word
    return np.cumsum(begins | (within % _LONGEST_WORD == 0)) - 1


def _last_one(sizes: np.ndarray, left: np.ndarray, nothing_yet: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Whether a unit is taken although it is larger than what is left of its row's budget.

    Args:
        sizes, left: int64 (U,), in tokens.
        nothing_yet: bool (U,), whether none of the row has been taken.
        keys: uint64 (U,), those of the rows.
    """
    over = (left > 0) & (sizes > left)
    return over & (nothing_yet | (uniform(keys, _LAST, 0) * sizes < left))


def _spans(
    unit_rows: np.ndarray, sizes: np.ndarray, budget: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws spans of words until each row's budget of tokens is used up, the n-th spans of all rows at once.

    Returns:
        chosen: bool (U,).
        span: int64 (U,): which span of its row a word is in.
    """
    units = np.bincount(unit_rows, minlength=len(keys))  # of each row
    begins = np.cumsum(units) - units
    chosen, span = np.zeros(units.sum(), dtype=bool), np.zeros(units.sum(), dtype=np.int64)
    left = budget.copy()
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
        size = np.where(new, sizes[at], 0)
        room = left[active, None] - (np.cumsum(size, 1) - size)  # when it is the word's turn
        own = np.broadcast_to(keys[active, None], size.shape)
        last = _last_one(size, room, room == budget[active, None], own)
        ended = ((room > 0) & (size > room)).any(1)  # the last word ends its row, taken or not
        new &= (size <= room) | last
        chosen[at[new]] = True
        span[at[new]] = drawn
        left[active] = np.where(ended, 0, left[active] - np.where(new, size, 0).sum(1))
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
