"""Whether a model gives all inputs the same answer."""

import math

import numpy as np

_LEAST = 1e-6  # probabilities nearer to 0 or 1 count as this far away: float32 cannot tell them apart


def answer_spread(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """How much the certainty of a model differs between inputs: the standard deviation of its log-odds.

    Args:
        labels: int64 (N,), the label that the model gave to each input.
        probabilities: float (N,), of each given label.

    Returns:
        Infinity if the model gave different labels; 0 if it does not look at its inputs.
    """
    if not len(labels) or (labels != labels[0]).any():
        return math.inf
    p = probabilities.astype(np.float64).clip(_LEAST, 1 - _LEAST)
    return float(np.log(p / (1 - p)).std())
