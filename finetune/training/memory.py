"""Measures memory. Cuts a step that does not fit into memory into smaller micro-batches; it stays the same step."""

import re
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from finetune.training.steps import StepSums, add_gradients, count_targets, with_losses

SMALLER_MICRO_BATCHES = (
    "--auto_find_batch_size true cuts the micro-batches for the same step, as does a smaller "
    "--per_device_train_batch_size with more --gradient_accumulation_steps; a single row that is too long needs "
    "--gradient_checkpointing true or a smaller --max_seq_length"
)
SMALLER_OPTIMIZER = (
    "AdamW keeps two numbers beside each weight that trains; --freeze_layers, --freeze_encoder or a smaller model "
    "need less"
)
SMALLER_EVALUATION = "a smaller --per_device_eval_batch_size needs less"


def peak_memory_mb(device: torch.device) -> float:
    """The peak in megabytes (2^20 bytes): memory allocated on a GPU, or memory of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count the parent's memory at the time it started this process
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found is not None:
            return int(found.group(1)) / 2**10
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def gradients_that_fit(
    accelerator: Accelerator, model: torch.nn.Module, micro_batches: Sequence[Any], pieces: int
) -> tuple[StepSums, int]:
    """Does `accumulate_gradients` with each micro-batch cut into `pieces`. Doubles that number until they fit.

    The sums of a step do not depend on how it is cut (see `steps.py`). So its gradient is the same, except for the
    order of additions and for dropout. With several processes, all begin again if one must: each process adds up its
    own gradients, and they are averaged only when every process has finished.

    Args:
        micro_batches: with a `split(pieces)` (see `finetune.data.Batch`).

    Returns:
        The sums, and how many pieces fitted.

    Raises:
        The original error, if memory is out for a single row; MemoryError on the other processes.
    """
    counts = count_targets(accelerator, micro_batches)
    generators = [torch.default_generator]
    if accelerator.device.type == "cuda":  # a GPU draws dropout from its own generator
        generators.append(torch.cuda.default_generators[accelerator.device.index or 0])
    while True:
        random = [generator.get_state() for generator in generators]
        out_of_memory: BaseException | None = None
        try:
            cut = [piece for batch in micro_batches for piece in batch.split(pieces)]
            sums = add_gradients(accelerator, model, cut, counts.targets, reduce=False)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            out_of_memory = error.with_traceback(None)  # the traceback holds the tensors of the step
        stuck = out_of_memory is not None and pieces >= max(len(batch.row_ids) for batch in micro_batches)
        any_out, any_stuck = out_of_memory is not None, stuck
        if accelerator.num_processes > 1:  # reads from the device's memory, since no process may go on alone
            said = torch.tensor([any_out, any_stuck], dtype=torch.int64, device=accelerator.device)
            any_out, any_stuck = map(bool, accelerator.reduce(said, "sum").tolist())
        if not any_out:
            _average_gradients(accelerator, model)
            return with_losses(accelerator, counts, sums), pieces
        if any_stuck:
            raise out_of_memory or MemoryError("another process is out of memory with one row")
        model.zero_grad(set_to_none=True)
        for generator, state in zip(generators, random, strict=True):
            generator.set_state(state)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        pieces *= 2


def checkpoint_gradients(model: Any) -> None:
    """Makes each layer of the encoder discard its activations and compute them again in the backward pass.

    The second time it draws the same dropout, so the trained weights are the same.

    Raises:
        ValueError: for a model that has no such layers.
    """
    encoder = model.base_model
    if not getattr(encoder, "supports_gradient_checkpointing", False):  # a plain module has no such name
        raise ValueError(
            f"--gradient_checkpointing: {model.config.model_type} has no layers to compute twice; leave this flag out"
        )
    encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


@contextmanager
def memory_errors_explained(where: str, what_helps: str) -> Iterator[None]:
    """Turns an error about missing memory into a MemoryError that says where it was and what helps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"out of memory {where}: {what_helps}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, CUDA or torch's CPU allocator had no memory left. The CPU allocator says so only in words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) and "memory" in str(error)


def _average_gradients(accelerator: Accelerator, model: torch.nn.Module) -> None:
    """Does what DistributedDataParallel does in a backward pass outside `no_sync`."""
    if accelerator.num_processes == 1:
        return
    for parameter in model.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= accelerator.num_processes
