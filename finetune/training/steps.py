"""The gradient of one optimizer step.

It is the gradient of the sum of the loss over all targets, divided by their number, over all micro-batches
and all processes. So batch 8 x 1, 2 x 4 and 1 x 8, on one process or two, take the same step.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator


class MicroBatch(Protocol):
    """What the loop asks of a batch (see `finetune.data.Batch`)."""

    inputs: dict[str, torch.Tensor]
    row_ids: Any

    @property
    def targets(self) -> int: ...

    @property
    def tokens(self) -> int: ...

    def to(self, device: Any) -> "MicroBatch": ...


@dataclass
class StepSums:
    """Sums over all micro-batches and processes of a step."""

    loss: float  # summed over the targets
    targets: int
    tokens: int
    rows: int


def accumulate_gradients(
    accelerator: Accelerator, model: torch.nn.Module, micro_batches: Sequence[MicroBatch]
) -> StepSums:
    """Adds the gradient of one optimizer step to the parameters' `.grad`.

    Args:
        model: returns the mean loss over the targets of its inputs, as the heads of `transformers` do.
        micro_batches: this process's share, at least one; as many on every process.
    """
    device = accelerator.device
    counted = [(batch.targets, batch.tokens, len(batch.row_ids)) for batch in micro_batches]
    counts = torch.tensor(counted, device=device).sum(0)
    targets, tokens, rows = accelerator.reduce(counts, "sum").tolist()
    # DistributedDataParallel averages over the processes; the contract asks for the sum.
    scale = accelerator.num_processes / max(targets, 1)
    loss_sum = torch.zeros((), device=device)
    for i, batch in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            output = model(**batch.to(device).inputs)
            # The mean over no targets is NaN, so it must not be used.
            loss = output.loss * batch.targets if batch.targets else output.logits.float().sum() * 0.0
            accelerator.backward(loss * scale)
        loss_sum += loss.detach().float()
    return StepSums(float(accelerator.reduce(loss_sum, "sum")), targets, tokens, rows)
