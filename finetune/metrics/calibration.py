"""Scores that say how often an answer is right.

A temperature T divides the logits before the softmax: the order of the labels stays, their probabilities get flatter
(T > 1) or sharper (T < 1). It is chosen where the development split is most likely (Guo et al., 2017, On calibration
of modern neural networks). An entity is right if all of its words are. So its score is the lowest one of its words,
moved by a logistic function of its logit (Platt, 1999, Probabilistic outputs for support vector machines).

Both have few parameters, and a weak prior keeps them near "as the model says it" if there are few samples.

Shapes: N answers, L labels, M bins.
"""

import math
from collections.abc import Sequence

import numpy as np

BINS = 15  # as in Guo et al.
_LEAST = 1e-6  # the logit of a score is taken no nearer to 0 or 1
_SHARPEST, _FLATTEST = 0.05, 20.0


def tempered(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities of the labels at a temperature: float64 (..., L).

    Args:
        log_probabilities: (..., L), logits or log-probabilities.
    """
    logits = np.asarray(log_probabilities, np.float64) / temperature
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    found: np.ndarray = shares / shares.sum(-1, keepdims=True)
    return found


def fitted_temperature(log_probabilities: np.ndarray, gold: np.ndarray) -> float:
    """The temperature with the lowest loss. The logarithm of the temperature has a standard normal prior.

    Args:
        log_probabilities: (N, L), logits or log-probabilities; none of them is NaN.
        gold: int64 (N,), the right labels.

    Returns:
        1.0 if there is no sample.
    """
    from scipy.optimize import minimize_scalar

    if not len(gold):
        return 1.0
    logits = np.asarray(log_probabilities, np.float64)
    logits = np.maximum(logits - logits.max(1, keepdims=True), -1e4)  # of minus infinity, the product with 0 is NaN
    right = np.take_along_axis(logits, np.asarray(gold)[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        spread = np.log(np.exp(logits * scale).sum(1)) - right * scale
        return float(spread.sum() + 0.5 * log_temperature**2)

    bounds = (math.log(_SHARPEST), math.log(_FLATTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return round(math.exp(found.x), 6)


def fitted_scale(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Factor and shift of `scaled` with the lowest loss. The factor is positive, so the order of the scores stays.

    Its logarithm and the shift have a standard normal prior.

    Args:
        scores: (N,), between 0 and 1.
        right: bool (N,).

    Returns:
        (1.0, 0.0) if there is no sample.
    """
    from scipy.optimize import minimize

    if not len(scores):
        return 1.0, 0.0
    logits, target = _logit(scores), np.asarray(right, np.float64)

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        factor, shift = math.exp(point[0]), point[1]
        at = factor * logits + shift
        error = _sigmoid(at) - target
        gradient = np.array([(error * logits).sum() * factor, error.sum()]) + point
        return float((np.logaddexp(0.0, at) - target * at).sum() + 0.5 * (point**2).sum()), gradient

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-3.0, 3.0), (-20.0, 20.0)])
    return round(math.exp(found.x[0]), 6), round(float(found.x[1]), 6)


def scaled(scores: np.ndarray, scale: Sequence[float]) -> np.ndarray:
    """The logistic function of `factor * logit(score) + shift`, float64 (N,).

    A score is first moved to 0.000001 or 0.999999 if it lies outside of these.

    Args:
        scale: factor and shift, as `fitted_scale` gives them.
    """
    return _sigmoid(scale[0] * _logit(scores) + scale[1])


def calibration_sums(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sums for `calibration_error`, float64 (3 M,): the answers in each bin, their scores, and the right ones.

    Bin m of the 15 holds the scores above (m - 1) / 15 and up to m / 15; the first one holds 0, too.

    Args:
        scores: (N,), between 0 and 1.
        right: bool (N,).
    """
    scores = np.asarray(scores, np.float64)
    bins = np.clip(np.ceil(scores * BINS).astype(np.int64) - 1, 0, BINS - 1)
    weights = (np.ones(len(scores)), scores, np.asarray(right, np.float64))
    return np.concatenate([np.bincount(bins, own, minlength=BINS) for own in weights])


def calibration_error(sums: np.ndarray) -> float:
    """The expected calibration error (Guo et al., 2017): in each bin, the distance of mean score and share of right
    answers; then the mean over the answers. 0 if there are none.

    Args:
        sums: as `calibration_sums` gives them; those of several splits may be added.
    """
    count, score, right = np.split(np.asarray(sums, np.float64), 3)
    return float(np.abs(score - right).sum() / count.sum()) if count.sum() else 0.0


def _logit(scores: np.ndarray) -> np.ndarray:
    inside = np.clip(np.asarray(scores, np.float64), _LEAST, 1 - _LEAST)
    found: np.ndarray = np.log(inside) - np.log1p(-inside)
    return found


def _sigmoid(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * values))
    return found
