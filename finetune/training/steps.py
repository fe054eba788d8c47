"""The gradient of one optimizer step.

It is the gradient of the sum of the loss over all targets, divided by their number, over all micro-batches
and all processes. So batch 8 x 1, 2 x 4 and 1 x 8, on one process or two, take the same step.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator


class MicroBatch(Protocol):
    """What the loop asks of a batch (see `finetune.data.Batch`)."""

    inputs: dict[str, torch.Tensor]

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
    accelerator: Accelerator,
    model: torch.nn.Module,
    micro_batches: Sequence[MicroBatch],
    example: Callable[[], MicroBatch],
) -> StepSums:
    """Adds the gradient of one optimizer step to the parameters' `.grad`.

    Args:
        model: returns the mean loss over the targets of its inputs, as the heads of `transformers` do.
        micro_batches: this process's share; possibly none.
        example: gives a batch to run with weight zero on a process that has none, since the others wait for it.
    """
    device = accelerator.device
    counts = torch.tensor(
        [sum(counted) for counted in zip(*(_counts(batch) for batch in micro_batches), strict=True)] or [0, 0, 0],
        device=device,
    )
    targets, tokens, rows = accelerator.reduce(counts, "sum").tolist()
    # DistributedDataParallel averages over the processes; the contract asks for the sum.
    scale = accelerator.num_processes / max(targets, 1)
    loss_sum = torch.zeros((), device=device)
    batches = list(micro_batches) or [example()]
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        weight = batch.targets if micro_batches else 0
        with nullcontext() if last else accelerator.no_sync(model):
            output = model(**batch.to(device).inputs)
            # The mean over no targets is NaN, so it must not be used.
            loss = output.loss * weight if weight else output.logits.float().sum() * 0.0
            accelerator.backward(loss * scale)
        loss_sum += loss.detach().float()
    return StepSums(float(accelerator.reduce(loss_sum, "sum")), targets, tokens, rows)


def _counts(batch: MicroBatch) -> tuple[int, int, int]:
    return batch.targets, batch.tokens, len(batch.inputs["input_ids"])
