"""The gradient of one optimizer step.

It is the gradient of the sum of the loss over all targets, divided by their number, over all micro-batches
and all processes. So batch 8 x 1, 2 x 4 and 1 x 8, on one process or two, take the same step. A model with
several losses (masked tokens, next sentences) has this for each, and the gradient of their sum.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from finetune.training.sharding import mixed_precision


class MicroBatch(Protocol):
    """What the loop asks of a batch (see `finetune.data.Batch`)."""

    inputs: dict[str, torch.Tensor]
    row_ids: Any

    @property
    def targets(self) -> dict[str, int]: ...

    @property
    def tokens(self) -> int: ...

    def to(self, device: Any) -> "MicroBatch": ...


@dataclass
class StepSums:
    """Sums over all micro-batches and processes of a step."""

    losses: dict[str, float]  # each summed over its targets
    targets: dict[str, int]
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
    counts = count_targets(accelerator, micro_batches)
    sums = add_gradients(accelerator, model, micro_batches, counts.targets)
    return with_losses(accelerator, counts, sums)


def count_targets(accelerator: Accelerator, micro_batches: Sequence[MicroBatch]) -> StepSums:
    """What a step holds over all processes; its losses are not known yet. All processes ask together."""
    counted = [(*batch.targets.values(), batch.tokens, len(batch.row_ids)) for batch in micro_batches]
    counts = torch.tensor(counted, device=accelerator.device).sum(0)
    *totals, tokens, rows = accelerator.reduce(counts, "sum").tolist()
    return StepSums({}, dict(zip(micro_batches[0].targets, totals, strict=True)), tokens, rows)


def add_gradients(
    accelerator: Accelerator,
    model: torch.nn.Module,
    micro_batches: Sequence[MicroBatch],
    targets: Mapping[str, int],
    *,
    reduce: bool = True,
) -> dict[str, torch.Tensor]:
    """Adds this process's share to the parameters' `.grad`, and returns the sums of its losses.

    Args:
        targets: how many there are over all processes.
        reduce: whether the last backward pass brings the processes' gradients together.
    """
    device = accelerator.device
    sums = {name: torch.zeros((), device=device) for name in targets}
    for i, batch in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with nullcontext() if last and reduce else accelerator.no_sync(model):
            with mixed_precision(accelerator):
                output = model(**batch.to(device).inputs)
            loss = torch.zeros((), device=device)
            for name, count in batch.targets.items():
                if count:
                    summed = output[name] * count
                    # DistributedDataParallel averages over the processes; the contract asks for the sum.
                    loss = loss + summed * (accelerator.num_processes / targets[name])
                    sums[name] += summed.detach().float()
                else:  # the mean over no targets is NaN; yet every head must take part in the backward pass
                    loss = loss + sum(output[key].float().sum() * 0.0 for key in output if "logits" in key)
            accelerator.backward(loss)
    return sums


def with_losses(accelerator: Accelerator, counts: StepSums, sums: Mapping[str, torch.Tensor]) -> StepSums:
    """The counts of a step with its losses, summed over all processes. All processes ask together."""
    return replace(counts, losses={name: float(accelerator.reduce(value, "sum")) for name, value in sums.items()})


def clip_gradients(accelerator: Accelerator, model: Any, max_norm: float) -> float:
    """Scales the gradients down to a total norm of `max_norm`, and returns the norm that they had.

    Of a word embedding that no head shares, the rows with a gradient are summed, in their order, so that the norm
    does not change in its last bit with the number of other rows.

    Args:
        model: a prepared `PreTrainedModel`.
        max_norm: infinity only measures.
    """
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        return float(accelerator.clip_grad_norm_(model.parameters(), max_norm))
    accelerator.unscale_gradients()
    unwrapped = accelerator.unwrap_model(model, keep_torch_compile=False)
    words, head = unwrapped.get_input_embeddings().weight, unwrapped.get_output_embeddings()
    if head is not None and head.weight is words:
        words = None  # every row has a gradient
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    gradients = [p.grad[p.grad.any(1)] if p is words else p.grad for p in trained]
    norm = torch.nn.utils.get_total_norm(gradients)
    if norm > max_norm:
        torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
    return float(norm)
