"""Dropout that is fast on a CPU.

On a CPU, `torch.nn.functional.dropout` draws a random number for each element, one after the other. Here an element
takes 16 random bits, a quarter of such a number. The rate is rounded to a multiple of 1/65,536, and the kept elements
are scaled with the rounded rate.
"""

from typing import Any

import torch
from torch import nn

_STEPS = 2**16


def dropout(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Dropout in training, reproducible by torch's seed; on a GPU it is torch's own.

    Args:
        x: of any shape and floating dtype.
        rate: the share that becomes 0, at least 0 and below 1.
    """
    if x.device.type != "cpu":
        return nn.functional.dropout(x, rate)
    dropped = round(rate * _STEPS)
    if not 0 < dropped < _STEPS:
        return nn.functional.dropout(x, rate)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    keep = (words.view(torch.int16)[: x.numel()] >= dropped - _STEPS // 2).view(x.shape)
    result: torch.Tensor = _Scaled.apply(x, keep, _STEPS / (_STEPS - dropped))
    return result


class _Scaled(torch.autograd.Function):
    """`x * keep * scale`. It keeps one byte for each element for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, keep: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return torch.mul(x, keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return torch.mul(gradient, keep).mul_(ctx.scale), None, None


class FastDropout(nn.Dropout):
    """`nn.Dropout` that uses the function above."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In training only."""
        return dropout(x, self.p) if self.training and self.p > 0 else x


def use_fast_dropout(model: nn.Module) -> None:
    """Gives every `nn.Dropout` of the model the dropout above."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = FastDropout
