"""The gradient of one optimizer step.

The loss is summed over all targets of all micro-batches and all processes, and divided by the number of targets. The
step takes the gradient of that. So batch 8 x 1, 2 x 4 and 1 x 8, on one process or two, take the same step. A model
with several losses (masked tokens, next sentences) has such a mean for each, and takes the gradient of their sum.

A GPU works through its queue while the program goes on. Reading a number from its memory waits until the queue is
empty. So only `read_numbers` reads here, and a step calls it once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from finetune.training.sharding import mixed_precision

Number = int | float | torch.Tensor  # in the computer's memory, or () on the device


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
    """Sums over all micro-batches and processes of a step.

    The losses are always on the device. The counts are there only with several processes.
    """

    losses: dict[str, torch.Tensor]  # each summed over its targets
    targets: dict[str, Number]
    tokens: Number
    rows: Number


def accumulate_gradients(
    accelerator: Accelerator, model: torch.nn.Module, micro_batches: Sequence[MicroBatch]
) -> StepSums:
    """Adds the gradient of one optimizer step to the parameters' `.grad`.

    Args:
        model: returns the mean loss over the targets of its inputs, as the heads of `transformers` do.
        micro_batches: those of this process, at least one. Every process has the same number.
    """
    counts = count_targets(accelerator, micro_batches)
    sums = add_gradients(accelerator, model, micro_batches, counts.targets)
    return with_losses(accelerator, counts, sums)


def allow_unused_parameters(accelerator: Accelerator, model: Any, steps: Iterator[Sequence[Any]]) -> None:
    """Tells DistributedDataParallel, before it wraps the model, whether some parameters get no gradient.

    Otherwise it would wait for their gradients. Some heads have such a parameter: a second bias that is not used, or
    the pooler of an encoder whose output is pooled elsewhere. AdamW skips them, as it does on one process. Looking
    for them in each step costs time. So a few rows of a micro-batch show first whether there are any. All processes
    must call this together.

    Args:
        steps: the first one is used; its micro-batches have a `split(pieces)`. The model draws dropout here, so the
            seed must be set after this.
    """
    if accelerator.distributed_type not in (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        return
    model.to(accelerator.device).train()
    batch = next(steps)[0]
    some = batch.split(-(-len(batch.row_ids) // 4))[0]
    with accelerator.autocast():
        add_gradients(accelerator, model, [some], some.targets, reduce=False)
    unused = any(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    model.zero_grad(set_to_none=True)
    if int(accelerator.reduce(torch.tensor(int(unused), device=accelerator.device), "sum")):
        accelerator.ddp_handler.find_unused_parameters = True


def count_targets(accelerator: Accelerator, micro_batches: Sequence[MicroBatch]) -> StepSums:
    """Counts the targets, tokens and rows of a step over all processes. All processes must call this together."""
    counted = [(*batch.targets.values(), batch.tokens, len(batch.row_ids)) for batch in micro_batches]
    counts: Sequence[Number] = [sum(column) for column in zip(*counted, strict=True)]
    if accelerator.num_processes > 1:
        counts = accelerator.reduce(_as_tensor(counts).to(accelerator.device), "sum").unbind()
    *totals, tokens, rows = counts
    return StepSums({}, dict(zip(micro_batches[0].targets, totals, strict=True)), tokens, rows)


def add_gradients(
    accelerator: Accelerator,
    model: torch.nn.Module,
    micro_batches: Sequence[MicroBatch],
    targets: Mapping[str, Number],
    *,
    reduce: bool = True,
) -> dict[str, torch.Tensor]:
    """Adds this process's share to the parameters' `.grad`, and returns the sums of its losses.

    Args:
        targets: how many there are over all processes.
        reduce: whether the last backward pass averages the gradients over the processes.
    """
    device = accelerator.device
    sums = {name: torch.zeros((), device=device) for name in targets}
    # DistributedDataParallel averages over the processes, but the sum is needed here.
    scales = {name: _divided(accelerator.num_processes, count) for name, count in targets.items()}
    for i, batch in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with nullcontext() if last and reduce else accelerator.no_sync(model):
            with mixed_precision(accelerator):
                output = model(**batch.to(device).inputs)
            loss = torch.zeros((), device=device)
            for name, count in batch.targets.items():
                if count:
                    summed = output[name] * count
                    loss = loss + summed * scales[name]
                    sums[name] += summed.detach().float()
                else:  # the mean over no targets is NaN, but every head must take part in the backward pass
                    loss = loss + sum(output[key].float().sum() * 0.0 for key in output if "logits" in key)
            accelerator.backward(loss)
    return sums


def with_losses(accelerator: Accelerator, counts: StepSums, sums: Mapping[str, torch.Tensor]) -> StepSums:
    """Adds the losses, summed over all processes, to the counts of a step. All processes must call this together."""
    losses = accelerator.reduce(torch.stack(list(sums.values())), "sum").unbind()
    return replace(counts, losses=dict(zip(sums, losses, strict=True)))


def read_numbers(numbers: Sequence[Number]) -> list[float]:
    """Brings the numbers into the computer's memory. Those on the device come together, in one copy."""
    found = [value for value in numbers if isinstance(value, torch.Tensor)]
    if not found:
        return [float(value) for value in numbers]
    wide = torch.float32 if found[0].device.type == "mps" else torch.float64
    read = iter(torch.stack([value.to(wide) for value in found]).tolist())
    return [next(read) if isinstance(value, torch.Tensor) else float(value) for value in numbers]


@dataclass
class StepNumbers:
    """The numbers of a step, in the computer's memory and not on the device."""

    losses: dict[str, float]  # each summed over its targets and over all processes
    targets: dict[str, float]
    tokens: int
    rows: int
    norm: float  # of the gradient, before it was clipped
    arrived: list[float]  # how many processes got each signal
    rate: float


def numbers_of_step(sums: StepSums, norm: Number, asked: Sequence[Number], rate: float) -> StepNumbers:
    """Reads all numbers of a step from the device at once."""
    losses, targets = list(sums.losses.values()), list(sums.targets.values())
    found = iter(read_numbers([*losses, *targets, sums.tokens, sums.rows, norm, *asked]))
    return StepNumbers(
        losses={name: next(found) for name in sums.losses},
        targets={name: _whole(next(found)) for name in sums.targets},
        tokens=int(next(found)),
        rows=int(next(found)),
        norm=next(found),
        arrived=list(found),
        rate=rate,
    )


def _whole(count: float) -> float:
    """A number of targets as an int; a sum of their weights stays what it is."""
    return int(count) if count.is_integer() else count


def check_finite(step: int, seen: StepNumbers, check_gradient: bool) -> None:
    """Raises FloatingPointError if the loss of a step is not finite, or its gradient if that is checked."""
    # With float16 loss scaling, an infinite gradient is normal: the scaler skips that step.
    what = "gradient" if check_gradient and not math.isfinite(seen.norm) else None
    if not math.isfinite(sum(seen.losses.values())):
        what = "loss"
    if what is not None:
        raise FloatingPointError(
            f"the {what} is not finite at step {step} (learning rate {seen.rate:.3g}); nothing was changed by this "
            "step and the checkpoints before it stay. A lower --learning_rate, more --warmup_steps or a smaller "
            "--max_grad_norm may help"
        )


def clip_gradients(accelerator: Accelerator, model: Any, max_norm: float) -> torch.Tensor:
    """Scales the gradients down to a total norm of `max_norm`. Returns the norm before that, on the device.

    On a CPU, the norm of a word embedding sums only the rows with a gradient, in their order, if no head shares the
    embedding. So the number of other rows does not change the last bit of the norm.

    Args:
        model: a prepared `PreTrainedModel`.
        max_norm: infinity only measures.
    """
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        whole = accelerator.clip_grad_norm_(model.parameters(), max_norm)
        return cast(torch.Tensor, whole.full_tensor() if hasattr(whole, "full_tensor") else whole)
    accelerator.unscale_gradients()
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    on_cpu = accelerator.device.type == "cpu"
    words = _words_of_their_own(accelerator.unwrap_model(model, keep_torch_compile=False)) if on_cpu else None
    gradients: list[Any] = [p.grad for p in trained]
    gradients = [g[g.any(1)] if p is words else g for p, g in zip(trained, gradients, strict=True)]
    norm = torch.nn.utils.get_total_norm(gradients)
    # On a GPU the comparison would wait for the device, and multiplying by 1 costs little.
    if max_norm < math.inf and (not on_cpu or norm > max_norm):
        torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
    return norm


def _words_of_their_own(model: Any) -> Any:
    """The word embedding, or None if a head shares it, since then every row has a gradient."""
    words: Any = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    return None if head is not None and head.weight is words else words


def _as_tensor(counts: Sequence[Number]) -> torch.Tensor:
    """Whole numbers become int64. Sums of weights become float64, so that they keep all their digits."""
    return torch.tensor(counts, dtype=torch.float64 if any(isinstance(n, float) for n in counts) else torch.int64)


def _divided(processes: int, count: Number) -> Number:
    """`processes / count`, in float32 on the device if `count` is a tensor. Not used if `count` is 0."""
    if isinstance(count, torch.Tensor):
        return (processes / count.double()).float()
    return processes / count if count else 0.0
