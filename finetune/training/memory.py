"""A step that does not fit into memory is cut into smaller micro-batches, and stays the same step."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator

from finetune.training.steps import StepSums, accumulate_gradients


def gradients_that_fit(
    accelerator: Accelerator, model: torch.nn.Module, micro_batches: Sequence[Any], pieces: int
) -> tuple[StepSums, int]:
    """`accumulate_gradients`, with each micro-batch cut into `pieces`, or into twice as many until they fit.

    The sums of a step do not hang on how it is cut (see `steps.py`), so its gradient is the same but for the order of
    additions, and for dropout.

    Args:
        micro_batches: with a `split(pieces)` (see `finetune.data.Batch`). One process alone: over several, one would
            begin again while the others wait for it.

    Returns:
        The sums, and how many pieces fitted.

    Raises:
        Whatever said that memory is out, if it is for one row.
    """
    while True:
        random = torch.get_rng_state()
        try:
            cut = [piece for batch in micro_batches for piece in batch.split(pieces)]
            return accumulate_gradients(accelerator, model, cut), pieces
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or pieces >= max(len(batch.row_ids) for batch in micro_batches):
                raise
        # Outside the handler, where the error's traceback no longer holds the tensors of the step.
        model.zero_grad(set_to_none=True)
        torch.set_rng_state(random)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        pieces *= 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, CUDA or torch's allocator for the CPU had no memory left; the last says so in words alone."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) and "memory" in str(error)
