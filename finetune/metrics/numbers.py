"""Scores of predicted numbers: mean squared error, Pearson's and Spearman's correlation."""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats


def number_counts(gold: np.ndarray | Sequence[float], predicted: np.ndarray | Sequence[float]) -> np.ndarray:
    """What each sample adds to the scores: float64 (N, 6), with x its gold number and y the predicted one.

    The columns are 1, x, y, x^2, y^2, x y. Both numbers are less the mean of all in `gold`: no score changes by that,
    and numbers far from 0 lose no digits. So only counts of the same gold numbers can be put side by side.
    """
    x, y = (np.asarray(side, dtype=np.float64) for side in (gold, predicted))
    middle = x.mean() if len(x) else 0.0
    x, y = x - middle, y - middle
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def number_scores(sums: np.ndarray) -> dict[str, float]:
    """`mse, pearson` of summed `number_counts`. Where all numbers of a side are the same, `pearson` is 0."""
    n, _, _, xx, yy, xy = map(float, sums)
    if not n:
        return {"mse": 0.0, "pearson": 0.0}
    return {"mse": max(xx + yy - 2 * xy, 0.0) / n, "pearson": float(pearson(np.asarray(sums)))}


def pearson(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation of summed `number_counts`, (..., 6) -> (...), as `number_scores` has it."""
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    n = np.maximum(n, 1)
    spread_x, spread_y = xx - x * x / n, yy - y * y / n
    known = (spread_x > 1e-13 * xx) & (spread_y > 1e-13 * yy)
    whole = np.sqrt(np.where(known, spread_x, 1.0)) * np.sqrt(np.where(known, spread_y, 1.0))
    return np.where(known, np.clip((xy - x * y / n) / whole, -1.0, 1.0), 0.0)


def spearman(gold: np.ndarray | Sequence[float], predicted: np.ndarray | Sequence[float]) -> float:
    """Spearman's correlation of ranks (1904). It is no function of sums; so it takes the numbers themselves.

    Where all numbers of a side are the same, or there is one sample, it is 0.
    """
    if len(gold) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        correlation = float(stats.spearmanr(gold, predicted).statistic)
    return 0.0 if np.isnan(correlation) else correlation
