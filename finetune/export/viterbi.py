"""The labels of a CRF, in numpy: `LinearChainCrf.decode` for a model that runs without torch.

Shapes: B rows, T tokens, W words of the longest row, L labels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.data.tag_paths import IMPOSSIBLE, best_path, forbidden


def decode(emissions: np.ndarray, mask: np.ndarray, crf: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The best sequence of labels that IOB2 allows, and the log-probability of each label at each word.

    Args:
        emissions: float32 (B, T, L).
        mask: bool (B, T), the tokens that make the chain of a row.
        crf: `start` (L,), `transitions` (L, L), `end` (L,), `labels`, and `prefix_tokens`, which is the place of a
            row's first word. A chain that starts later continues a sentence.

    Returns:
        int64 (B, T) and float32 (B, T, L); where `mask` is false, those of the emissions alone. If another label than
        the chosen one is more probable, the values of these two are exchanged, as `crf_outputs` does it.
    """
    labels = emissions.argmax(2)
    logs = emissions - _log_sum(emissions, 2)[..., None]
    kept = np.flatnonzero(mask.any(1))
    if not len(kept):
        return labels, logs
    # (B, W): the places of the words, moved to the left.
    places = np.argsort(~mask[kept], axis=1, kind="stable")[:, : int(mask.sum(1).max())]
    chain = np.take_along_axis(emissions[kept], places[..., None], axis=1)
    real = np.take_along_axis(mask[kept], places, axis=1)
    start, transitions, end = (np.asarray(crf[key], np.float32) for key in ("start", "transitions", "end"))
    rows = np.broadcast_to(kept[:, None], places.shape)[real]
    continues = places[:, 0] > crf["prefix_tokens"]
    cannot_start, cannot_follow = forbidden(crf["labels"])
    chosen = best_path(
        chain,
        real,
        np.where(cannot_start & ~continues[:, None], IMPOSSIBLE, start),
        np.where(cannot_follow, IMPOSSIBLE, transitions),
        end,
    )[real]
    own = _marginals(chain, real, start, transitions, end)[real]
    at, likeliest = np.arange(len(own)), own.argmax(1)
    own[at, likeliest], own[at, chosen] = own[at, chosen], own.max(1)
    labels[rows, places[real]], logs[rows, places[real]] = chosen, own
    return labels, logs


def best_share(logs: np.ndarray) -> np.ndarray:
    """The greatest probability of the softmax, (...), of (..., L) logits."""
    found: np.ndarray = np.exp(logs.max(-1) - _log_sum(logs, -1))
    return found


def _marginals(
    chain: np.ndarray, real: np.ndarray, start: np.ndarray, transitions: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """The log-probability of each label at each word, from forward-backward: (B, W, L)."""
    alpha, beta = start + chain[:, 0], np.broadcast_to(end, (len(chain), len(end)))
    alphas, betas = [alpha], [beta]
    W = chain.shape[1]
    for w in range(1, W):
        moved = _log_sum(alpha[:, :, None] + transitions, 1) + chain[:, w]
        alpha = np.where(real[:, w, None], moved, alpha)
        alphas.append(alpha)
    for w in range(W - 1, 0, -1):
        moved = _log_sum(transitions + (chain[:, w] + beta)[:, None, :], 2)
        beta = np.where(real[:, w, None], moved, beta)
        betas.append(beta)
    both = np.stack(alphas, axis=1) + np.stack(betas[::-1], axis=1)
    last = np.take_along_axis(np.stack(alphas, axis=1), (real.sum(1) - 1)[:, None, None], axis=1)[:, 0]
    return both - _log_sum(last + end, 1)[:, None, None]


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    greatest = values.max(axis, keepdims=True)
    summed: np.ndarray = np.log(np.exp(values - greatest).sum(axis)) + greatest.squeeze(axis)
    return summed
