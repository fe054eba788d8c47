"""Thresholds for scores above which answers have a promised precision.

A model that must not be wrong often may stay silent where it is unsure. Which threshold keeps the precision above a
wish is learned on a development split; whatever is learned there may be luck. So each threshold is tested: "the
precision above it is below the wish" must be rejected. Learn then Test (Angelopoulos et al., 2021, Learn then test:
calibrating predictive algorithms to achieve risk control) then promises: with a probability of at least 1 - delta, no
threshold is rejected by mistake.

- The p-value is the probability that so few answers are wrong by chance (the binomial distribution, as in the
  interval of Clopper and Pearson, 1934).
- The thresholds are tested from strict to loose by the fallback procedure (Wiens, 2003, A fixed sequence Bonferroni
  procedure for testing multiple endpoints): ten of them share delta, and a threshold that passes hands its share on
  to the next one.
- Answers of one sentence may be wrong together. So their number is divided by the design effect (Rao and Scott,
  1992, A simple method for the analysis of clustered binary data).

The promise is about new samples of the same kind as the development split, not about others.

Shapes: N answers, P tested thresholds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DELTA = 0.1
STARTS = 10
# What a run promises, as far as its development split allows.
PRECISIONS = (*(percent / 100 for percent in (*range(50, 90, 5), *range(90, 100))), 0.995)
_STEP = 1.05  # between the numbers of answers above two neighbouring thresholds
_FEWEST = 5


@dataclass(frozen=True)
class Promise:
    """A threshold, and what it does on the development split."""

    precision: float  # that was promised
    threshold: float  # answer if the score is at least this
    found: float  # the precision of these answers
    recall: float  # the right ones among them, as a share of all that could be found
    answered: int


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that are tested, from strict to loose, and the answers of at least that score."""

    threshold: np.ndarray  # float64 (P,)
    answered: np.ndarray  # int64 (P,)
    wrong: np.ndarray  # int64 (P,)
    weight: np.ndarray  # float64 (P,): what an answer counts in the test, 1 or less


def thresholds(scores: np.ndarray, right: np.ndarray, groups: np.ndarray | None = None) -> Thresholds:
    """The thresholds to test. They themselves depend on the scores, and not on which answers
    are right; what stands beside them depends on both.

    Args:
        scores: (N,).
        right: bool (N,).
        groups: int64 (N,), the sentence of each answer; None: each stands for itself.
    """
    scores, right = np.asarray(scores, np.float64), np.asarray(right, bool)
    order = np.argsort(-scores, kind="stable")
    scores, wrong = scores[order], ~right[order]
    sizes = _sizes(len(scores))
    # All answers of the same score are in or out together.
    least = scores[sizes - 1]
    answered = np.unique(np.searchsorted(-scores, -least, side="right"))
    mistakes = np.concatenate([[0], np.cumsum(wrong)])[answered]
    weight = np.ones(len(answered))
    if groups is not None:
        own = np.unique(np.asarray(groups)[order], return_inverse=True)[1]
        weight = np.array([_weight(own[:n], wrong[:n]) for n in answered])
    return Thresholds(scores[answered - 1], answered, mistakes, weight)


def promised_thresholds(
    scores: np.ndarray,
    right: np.ndarray,
    total: int,
    precisions: Sequence[float] = PRECISIONS,
    *,
    groups: np.ndarray | None = None,
    delta: float = DELTA,
) -> list[Promise]:
    """What the split promises: for each precision the loosest threshold that is proved. It may be none.

    Args:
        scores, right, groups: as `thresholds` takes them.
        total: the number of answers that could have been right, for the recall.
        delta: the probability that a promise is broken, for each precision by itself.

    Raises:
        ValueError: for a precision or a delta that is not between 0 and 1.
    """
    for name, value in (*(("precision", own) for own in precisions), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name} {value}: must be between 0 and 1")
    if not len(scores):
        return []
    tested = thresholds(scores, right, groups)
    found = []
    for precision in precisions:
        p_values = binomial_tail(tested.wrong * tested.weight, tested.answered * tested.weight, 1 - precision)
        # With fewer answers, not even a start without a mistake could pass.
        useful = tested.answered >= math.log(delta / STARTS) / math.log(precision)
        passed = np.flatnonzero(fallback(p_values, _starts(useful, delta)))
        if len(passed):
            at = passed[-1]
            answered, wrong = int(tested.answered[at]), int(tested.wrong[at])
            threshold, share = float(tested.threshold[at]), (answered - wrong) / answered
            found.append(Promise(precision, threshold, share, (answered - wrong) / max(total, 1), answered))
    return found


def binomial_tail(wrong: np.ndarray, answered: np.ndarray, share: float) -> np.ndarray:
    """The probability that at most `wrong` of `answered` are wrong if each is with probability `share`.

    Also for numbers that are not whole.
    """
    from scipy.special import betainc

    wrong, answered = np.asarray(wrong, np.float64), np.asarray(answered, np.float64)
    rest = answered - wrong
    found: np.ndarray = np.where(rest > 0, betainc(np.maximum(rest, 1e-9), wrong + 1, 1 - share), 1.0)
    return found


def fallback(p_values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Which hypotheses the fallback procedure rejects, bool (P,).

    The probability of a false rejection is at most the sum of the levels.

    Args:
        p_values: (P,), in the order of the tests.
        levels: (P,), the level that each hypothesis has by itself.
    """
    rejected = np.zeros(len(p_values), bool)
    handed_on = 0.0
    for i, (p_value, own) in enumerate(zip(p_values, levels, strict=True)):
        level = own + handed_on
        rejected[i] = p_value <= level
        handed_on = level if rejected[i] else 0.0
    return rejected


def _sizes(N: int) -> np.ndarray:
    """Numbers of answers from few to all N, each about 5 % larger than the one before."""
    steps = math.ceil(math.log(max(N / _FEWEST, 1.0)) / math.log(_STEP)) + 1
    return np.unique(np.minimum(np.ceil(_FEWEST * _STEP ** np.arange(steps)), N).astype(np.int64))


def _starts(useful: np.ndarray, delta: float) -> np.ndarray:
    """The levels: `delta` in equal shares for at most ten of the useful thresholds, at equal distances."""
    levels = np.zeros(len(useful))
    places = np.flatnonzero(useful)
    if len(places):
        starts = np.unique(np.linspace(0, len(places) - 1, STARTS).astype(np.int64))
        levels[places[starts]] = delta / len(starts)
    return levels


def _weight(groups: np.ndarray, wrong: np.ndarray) -> float:
    """1 / the design effect: how much more the share of wrong answers varies than if all were independent."""
    n = len(groups)
    size = np.bincount(groups)
    present = np.count_nonzero(size)
    share = wrong.sum() / n
    if share in (0.0, 1.0):  # nothing is seen of how mistakes go together: each sentence counts once
        return present / n
    if present < 2:
        return 1.0 / n
    apart = np.bincount(groups, wrong) - share * size
    variance = present / (present - 1) * (apart**2).sum() / n**2
    return float(min(1.0, share * (1 - share) / n / variance)) if variance else 1.0
