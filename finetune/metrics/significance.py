"""Is one model really better than another, or is the difference chance: of the test sentences, or of the seeds?

- Over seeds: the mean, the standard deviation, and the 95 % interval of Student's t.
- Bootstrap: the Multi-Bootstrap (Sellam et al., 2022, "The MultiBERTs", section 4). Each resample draws test
  sentences with replacement, the same ones for all models, and draws seeds of each model. The original method counts
  the variance of a finite test set twice, and the variance of few seeds too little. `_seed_share` and `_few_seeds`
  correct this. From one seed of a model, nothing is known about other seeds. Then only sentences are drawn.
- Approximate randomisation (Noreen, 1989; Yeh, 2000, for F1): in each resample, the predictions of two models for a
  sentence are swapped with probability 1/2, for all seeds together. Each seed of one model is compared with each seed
  of the other. This test is about the trained models, not about new seeds.
- The correction of Holm (1979), because many pairs are compared.

The score of a model is the mean over its seeds. The score of a seed (F1, accuracy or another score of summed counts)
is computed from sums over the sentences, and never as a mean over sentences.

Shapes: S seeds of a model, N test sentences, K counts of each; R resamples.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

Score = Callable[[np.ndarray], np.ndarray]
_DRAWS = 4_000_000  # largest number of draws (resamples x sentences) at a time; each needs 24 bytes


@dataclass(frozen=True)
class OverSeeds:
    """A score over the seeds of a model."""

    mean: float
    stdev: float  # of the sample; NaN for one seed
    low: float  # the 95 % interval of the mean; NaN for less than three seeds, and if all have the same score
    high: float


@dataclass(frozen=True)
class Comparison:
    """The score of `first` minus the score of `second`, and what is known about this difference."""

    first: str
    second: str
    difference: float
    low: float  # the 95 % interval of the bootstrap, within the range of possible differences
    high: float
    p_bootstrap: float  # two-sided
    p_randomisation: float
    p_holm: float = math.nan  # the greater of both, corrected for the number of pairs


def over_seeds(scores: Sequence[float], least: float = -math.inf, most: float = math.inf) -> OverSeeds:
    """The mean, the standard deviation and the interval of a score over seeds.

    Two seeds give no interval, because Student's interval would be 18 standard deviations wide. Seeds with equal
    scores give none, because they do not show how other seeds would differ.

    Args:
        least, most: the smallest and the largest possible score. The interval stays between them.
    """
    values = np.asarray(scores, dtype=np.float64)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return OverSeeds(mean, math.nan, math.nan, math.nan)
    alike = bool((values == values[0]).all())
    stdev = 0.0 if alike else float(values.std(ddof=1))
    if n < 3 or alike:
        return OverSeeds(mean, stdev, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, n - 1)) * stdev / math.sqrt(n)
    return OverSeeds(mean, stdev, max(mean - half, least), min(mean + half, most))


def score(sums: np.ndarray) -> np.ndarray:
    """F1 from counts of correct, predicted and gold: (..., 3) -> (...). If predicted = gold = 1, it is accuracy."""
    whole = sums[..., 1] + sums[..., 2]
    return np.divide(2.0 * sums[..., 0], whole, out=np.zeros(whole.shape), where=whole > 0)


def accuracy_counts(gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The counts of N labels, int64 (N, 3). The `score` of their sum is the accuracy."""
    right = np.asarray(gold) == np.asarray(predicted)
    return np.stack([right, np.ones_like(right), np.ones_like(right)], axis=1).astype(np.int64)


def compare_models(
    counts: Mapping[str, np.ndarray],
    *,
    score: Score = score,
    widest: float = 1.0,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Compares each pair of models.

    Args:
        counts: for each model (S, N, K): what each sample adds to the score, for each seed. N is the same for all
            models; S may differ.
        score: sums (..., K) -> scores (...) [F1 of correct, predicted and gold entities].
        widest: the greatest difference that two scores can have.

    Raises:
        ValueError: if the models have different numbers of sentences.
    """
    names = list(counts)
    if len({table.shape[1] for table in counts.values()}) > 1:
        raise ValueError("the models were tested on different numbers of sentences: " + _sizes(counts))
    tables = [np.asarray(table, dtype=np.float64) for table in counts.values()]
    generator = np.random.default_rng(seed)
    observed = [float(score(table.sum(1)).mean()) for table in tables]
    means, deviations, variances = _bootstrap(tables, score, resamples, generator)
    pairs = list(itertools.combinations(range(len(names)), 2))
    swapped = _randomisation(tables, score, pairs, resamples, generator)  # (pairs, R)
    found = []
    for number, (i, j) in enumerate(pairs):
        difference = observed[i] - observed[j]
        stretch = _few_seeds([(variances[at], len(tables[at])) for at in (i, j)])
        draws = means[i] - means[j] + stretch * (deviations[i] - deviations[j])
        low, high = np.clip(np.quantile(draws, [0.025, 0.975]), -widest, widest)  # stretched draws may be outside
        found.append(
            Comparison(
                names[i],
                names[j],
                difference,
                float(low),
                float(high),
                _p_of_zero(draws),
                _p(np.abs(swapped[number]), abs(difference)),
            )
        )
    corrected = holm([max(one.p_bootstrap, one.p_randomisation) for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for their number (Holm, 1979, "A simple sequentially rejective procedure")."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    least = 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = least
    return [float(p) for p in corrected]


def _bootstrap(
    tables: Sequence[np.ndarray], score: Score, resamples: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Draws sentences and seeds.

    Returns:
        (models, R): the mean over all seeds of each model in each resample; (models, R): what the drawing of seeds
        adds to it; and the variance of the latter for each model.
    """
    _, N, K = tables[0].shape
    flat = _side_by_side(tables)
    scores = np.empty((resamples, flat.shape[1] // K))  # (R, all S)
    for begin, size in _chunks(resamples, N):
        drawn = generator.integers(0, N, (size, N)) + np.arange(size)[:, None] * N
        times = np.bincount(drawn.ravel(), minlength=size * N).reshape(size, N).astype(np.float64)
        scores[begin : begin + size] = score((times @ flat).reshape(size, -1, K))
    ends = np.cumsum([len(table) for table in tables])
    means, deviations = [], []
    for table, end in zip(tables, ends, strict=True):
        own = scores[:, end - len(table) : end]  # (R, S)
        chosen = np.take_along_axis(own, generator.integers(0, len(table), own.shape), axis=1).mean(1)
        means.append(own.mean(1))
        deviations.append((chosen - own.mean(1)) * _seed_share(score(table.sum(1)), own))
    return np.stack(means), np.stack(deviations), [float(one.var()) for one in deviations]


def _seed_share(observed: np.ndarray, resampled: np.ndarray) -> float:
    """The factor by which to stretch the deviations that come from the drawing of seeds.

    S seeds drawn from S seeds have only (S - 1) / S of the variance of new seeds. Also, equally good seeds of a model
    differ on a finite test set. This part of their variance is already in the resampled sentences: it is the variance
    of a seed's resampled score minus its covariance with the score of another seed.

    Args:
        observed: (S,) scores.
        resampled: (R, S).
    """
    S = len(observed)
    variance = observed.var(ddof=1) if S > 1 else 0.0
    if variance == 0:
        return 0.0
    covariance = np.cov(resampled.T)
    own = np.trace(covariance) / S
    shared = (covariance.sum() - np.trace(covariance)) / (S * (S - 1))
    return math.sqrt(S / (S - 1) * max(variance - (own - shared), 0.0) / variance)


def _few_seeds(models: Sequence[tuple[float, int]]) -> float:
    """The factor by which the interval of a mean is wider because its variance is estimated from few seeds.

    It is the ratio of Student's t to the normal distribution, with the degrees of freedom of Welch (1947) and
    Satterthwaite (1946) for two variances.

    Args:
        models: for each model, the variance of its mean that comes from seeds, and its number of seeds.
    """
    total = sum(variance for variance, _ in models)
    if total == 0:
        return 1.0
    freedom = total**2 / sum(variance**2 / (seeds - 1) for variance, seeds in models if variance > 0)
    return float(stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))


def _randomisation(
    tables: Sequence[np.ndarray],
    score: Score,
    pairs: Sequence[tuple[int, int]],
    resamples: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """The difference of each pair in each resample, (pairs, R)."""
    _, N, K = tables[0].shape
    flat = _side_by_side(tables)
    whole = flat.sum(0).reshape(-1, K)  # (all S, K)
    ends = np.cumsum([len(table) for table in tables])
    seeds = [slice(end - len(table), end) for table, end in zip(tables, ends, strict=True)]
    found = np.empty((len(pairs), resamples))
    for begin, size in _chunks(resamples, N):
        swap = generator.integers(0, 2, (size, N)).astype(np.float64)
        moved = (swap @ flat).reshape(size, -1, K)  # (R, all S, K): what each seed gives to the other model
        kept = whole - moved
        for number, (i, j) in enumerate(pairs):
            # (R, S of the first, S of the second)
            a = score(kept[:, seeds[i], None] + moved[:, None, seeds[j]])
            b = score(moved[:, seeds[i], None] + kept[:, None, seeds[j]])
            found[number, begin : begin + size] = (a - b).mean((1, 2))
    return found


def _side_by_side(tables: Sequence[np.ndarray]) -> np.ndarray:
    """(S, N, K) of each model -> (N, all S x K)."""
    return np.concatenate([table.transpose(1, 0, 2).reshape(table.shape[1], -1) for table in tables], axis=1)


def _chunks(resamples: int, N: int) -> Iterator[tuple[int, int]]:
    """The first resample of each chunk, and the number of resamples in it."""
    most = max(1, _DRAWS // max(N, 1))
    for begin in range(0, resamples, most):
        yield begin, min(most, resamples - begin)


def _p_of_zero(draws: np.ndarray) -> float:
    """The two-sided p-value of no difference; below 0.05 if the 95 % interval of the draws does not include 0."""
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(draws))))


def _p(draws: np.ndarray, observed: float) -> float:
    """The share of draws that are at least as large as the observed value, which counts as a draw, too."""
    # Numbers that differ only by rounding count as equal.
    return float((1 + (draws >= observed - 1e-12).sum()) / (1 + len(draws)))


def _sizes(counts: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {table.shape[1]}" for name, table in counts.items())
