"""The best path through a chain, and the logarithm of the sum over all paths, in few steps.

The usual loop takes one step for each word, and a GPU spends it waiting for small kernels. Here the words are cut
into blocks; the size of a block is about the square root of the number of words. The blocks run side by side. First
each block becomes one matrix. Then a loop over the blocks finds the state at the start of each. Then all blocks go
through their words. A product of two matrices costs more than one of a matrix and a vector. So on a CPU, which does
not wait for kernels, the usual loop is better.

Shapes: B sequences, W words of the longest, L labels.
"""

import math
from typing import Any

import torch
from torch import Tensor

MOST_LABELS = 64  # a product of matrices holds L^3 numbers for each block


def log_partition(start: Tensor, transitions: Tensor, end: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
    """The logarithm of the summed scores of all paths of each sequence, (B,).

    Args:
        start, end: (L,).
        transitions: (L, L), from a label to a label.
        emissions: float32 (B, W, L).
        mask: bool (B, W), true for the first words of each sequence, at least one.
    """
    return _LogPartition.apply(start, transitions, end, emissions, mask)


def log_marginals(start: Tensor, transitions: Tensor, end: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
    """Each label's log-probability at each word, (B, W, L). Past the end of a sequence, those of its last word."""
    alphas, betas, _, log_z = _forward_backward(start, transitions, end, emissions, mask)
    return alphas + betas - log_z[:, None, None]


def best_path(start: Tensor, transitions: Tensor, end: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
    """The labels of the path with the highest score (Viterbi), int64 (B, W); anything where `mask` is false.

    Here `start` may be (B, L).
    """
    W = emissions.shape[1]
    steps = _steps(transitions, emissions, mask)
    scores = _prefixes(start + emissions[:, 0], steps, torch.amax)
    # (B, W, L): which label comes before label j of the next word; after the last word each label itself.
    itself = torch.arange(len(end), device=emissions.device).expand(len(emissions), 1, -1)
    before = torch.cat([(scores[:, :-1, :, None] + steps).argmax(2), itself], dim=1)
    reach = 1
    while reach < W:  # `before` looks back over `reach` words, then over twice as many
        before = torch.cat([before[:, :-reach].gather(2, before[:, reach:]), before[:, -reach:]], dim=1)
        reach *= 2
    last = (scores[:, -1] + end).argmax(1)
    return before.gather(2, last[:, None, None].expand(-1, W, 1)).squeeze(2)


class _LogPartition(torch.autograd.Function):
    """Its gradients are the probabilities of labels and of pairs of labels, from the forward-backward algorithm."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, transitions: Tensor, end: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
        alphas, betas, steps, log_z = _forward_backward(start, transitions, end, emissions, mask)
        ctx.save_for_backward(alphas, betas, steps, log_z, end, mask)
        return log_z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        alphas, betas, steps, log_z, end, mask = ctx.saved_tensors
        weights = gradient[:, None] * mask  # (B, W)
        single = (alphas + betas - log_z[:, None, None]).exp() * weights[..., None]
        pairs = alphas[:, :-1, :, None] + steps + (betas[:, 1:] - log_z[:, None, None])[:, :, None]
        pairs = (pairs.exp() * weights[:, 1:, None, None]).sum((0, 1))
        at_end = ((alphas[:, -1] + end - log_z[:, None]).exp() * gradient[:, None]).sum(0)
        return single[:, 0].sum(0), pairs, at_end, single, None


def _forward_backward(
    start: Tensor, transitions: Tensor, end: Tensor, emissions: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Alphas and betas (B, W, L), the steps between words (B, W - 1, L, L), and the log-partition (B,)."""
    B = len(emissions)
    steps = _steps(transitions, emissions, mask)
    # Both directions at once: backwards, the chain begins with `end`, and its matrices are transposed.
    begin = torch.cat([start + emissions[:, 0], end.expand(B, -1)])
    both = _prefixes(begin, torch.cat([steps, steps.flip(1).transpose(2, 3)]), torch.logsumexp)
    alphas, betas = both[:B], both[B:].flip(1)
    return alphas, betas, steps, torch.logsumexp(alphas[:, -1] + end, dim=-1)


def _steps(transitions: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
    """(B, W - 1, L, L): the scores of a step from label i to label j of the next word. Past the end, labels stay."""
    going = transitions + emissions[:, 1:, None]
    return torch.where(mask[:, 1:, None, None], going, _staying(emissions))


def _staying(like: Tensor) -> Tensor:
    """(L, L): the matrix that changes nothing."""
    L = like.shape[-1]
    return torch.full((L, L), -math.inf, device=like.device, dtype=like.dtype).fill_diagonal_(0.0)


def _prefixes(begin: Tensor, steps: Tensor, reduce: Any) -> Tensor:
    """(B, L), (B, n, L, L) -> (B, n + 1, L): `begin`, and what it becomes after each step.

    Args:
        reduce: `torch.logsumexp` or `torch.amax`, over the label that a step comes from.
    """
    B, n, L, _ = steps.shape
    if n == 0:
        return begin[:, None]
    size = math.isqrt(n - 1) + 1
    blocks = -(-n // size)
    filled = torch.cat([steps, _staying(steps).expand(B, blocks * size - n, L, L)], dim=1)
    filled = filled.view(B, blocks, size, L, L)
    whole = filled[:, :-1, 0]
    for k in range(1, size):
        whole = reduce(whole[..., None] + filled[:, :-1, k, None], dim=-2)  # (B, blocks - 1, L, L)
    state, states = begin, [begin]
    for block in range(blocks - 1):
        state = reduce(state[..., None] + whole[:, block], dim=-2)
        states.append(state)
    state, found = torch.stack(states, dim=1), []  # (B, blocks, L)
    for k in range(size):
        state = reduce(state[..., None] + filled[:, :, k], dim=-2)
        found.append(state)
    after = torch.stack(found, dim=2).reshape(B, blocks * size, L)[:, :n]
    return torch.cat([begin[:, None], after], dim=1)
