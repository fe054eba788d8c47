"""The loss of the best answer that does not look at its input. A model that learns something has a lower loss.

Shapes: N targets, L labels.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from finetune.models.losses import IGNORED


def blind_loss(
    labels: np.ndarray,
    number: int,
    *,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> float:
    """The lowest mean loss, in nats, of an answer that is the same for every target.

    Without weights, smoothing and focal loss, this is the entropy of the labels.

    Args:
        labels: int64 of any shape; -100 is no target.
        number: L.
        class_weights, label_smoothing, focal_gamma: as in `set_loss`.

    Returns:
        0 if the targets have one label, or if there are no targets.
    """
    kept = labels[labels != IGNORED]
    counts = np.bincount(kept, minlength=number).astype(np.float64)
    if (counts > 0).sum() < 2:
        return 0.0
    weights = np.ones(number) if class_weights is None else np.asarray(class_weights, dtype=np.float64)
    summed = float(counts @ weights)
    # The loss of the answer q is the sum of share * -log q over the labels.
    share = ((1 - label_smoothing) * counts + label_smoothing / number * counts.sum()) * weights / summed
    if focal_gamma == 0:
        return _entropy(share)

    def loss(logits: np.ndarray) -> float:
        log_q = logits - np.logaddexp.reduce(logits)
        return float(-(share * (-np.expm1(log_q)).clip(1e-300) ** focal_gamma * log_q).sum())

    return float(minimize(loss, np.log(share + 1e-6)).fun)


def blind_distilled_loss(
    labels: np.ndarray, teacher: Iterable[np.ndarray], *, temperature: float, alpha: float
) -> float:
    """As `blind_loss`, for the loss of `finetune.models.set_distilled_loss` with one label.

    Args:
        labels: int64 (N,); -100 is no label.
        teacher: float32 (n, K, L), log-probabilities of the N targets, some at a time; zeros: no output.
    """
    hard: Any = 0.0  # (L,), the summed weights of the labels
    soft: Any = 0.0  # (L,), those of the teachers
    itself, targets, at = 0.0, 0, 0  # the summed entropy of the teachers
    for part in teacher:
        n, _, L = part.shape
        own, labelled = labels[at : at + n], labels[at : at + n] != IGNORED
        at += n
        taught = (part != 0).any(-1).all(-1)
        tempered = np.exp((part - part.max(-1, keepdims=True)).astype(np.float64) / temperature)
        q = (tempered / tempered.sum(-1, keepdims=True)).mean(1)
        share = np.where(taught, alpha, 1.0) * labelled
        weights = np.where(labelled, 1 - share, 1.0) * taught * temperature**2
        hard = hard + np.bincount(own[labelled], weights=share[labelled], minlength=L)
        soft = soft + weights @ q
        itself = itself + float(weights @ (q * np.log(q.clip(1e-300))).sum(-1))
        targets += int((labelled | taught).sum())
    if not targets or (hard + soft > 0).sum() < 2:
        return 0.0

    def loss(logits: np.ndarray) -> float:
        log_p, log_t = (own - np.logaddexp.reduce(own) for own in (logits, logits / temperature))
        return float((itself - hard @ log_p - soft @ log_t) / targets)

    return float(minimize(loss, np.log(hard + soft + 1e-6)).fun)


def blind_chain_loss(labels: np.ndarray, offsets: np.ndarray, number: int) -> float:
    """The mean loss, in nats a target, of a CRF that knows which label follows which, and nothing of the words.

    It is the entropy of the first labels of the rows, and of each other label given the label before it.

    Args:
        labels: int64 (tokens,), row after row; -100 is no target.
        offsets: int64 (rows + 1,).
        number: L.

    Returns:
        0 if the targets have one label, or if there are no targets.
    """
    kept = labels != IGNORED
    found, row = labels[kept], np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[kept]
    if len(np.unique(found)) < 2:
        return 0.0
    before = np.full(len(found), number)  # a mark for the start of a row
    follows = np.flatnonzero(np.diff(row) == 0) + 1
    before[follows] = found[follows - 1]
    pairs = np.zeros((number + 1, number))
    np.add.at(pairs, (before, found), 1.0)
    return sum(_entropy(line / line.sum()) * line.sum() for line in pairs if line.sum()) / len(found)


def _entropy(share: np.ndarray) -> float:
    """The loss of the best answer to targets with these shares. They need not sum to 1."""
    some = share[share > 0]
    return float(-(some * np.log(some / some.sum())).sum())
