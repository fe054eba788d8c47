"""Runs a model over every row exactly once, on any number of processes.

Shapes: N rows, T tokens of all rows, B rows of a batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from finetune.training.memory import SMALLER_EVALUATION, memory_errors_explained
from finetune.training.sharding import mixed_precision


@dataclass(frozen=True)
class Collected:
    """What an evaluation found, in the order of the rows."""

    arrays: dict[str, np.ndarray]  # (N, ...) or (T, ...), by the task's names for them; empty if there are no rows
    losses: dict[str, float]  # each summed over its targets
    targets: dict[str, float]
    tokens: int  # the tokens that the model was given, without padding
    runtime: float  # seconds

    @property
    def costs(self) -> dict[str, float]:
        """`loss` (the sum of the means over the targets), `tokens` and `runtime`, as results have them."""
        loss = sum((self.losses[name] / (self.targets[name] or 1) for name in self.losses), 0.0)
        return {"loss": loss, "tokens": self.tokens, "runtime": round(self.runtime, 3)}


@torch.no_grad()
def collect(
    accelerator: Accelerator,
    model: torch.nn.Module,
    batches: Any,
    collected: Callable[[Any, Any], dict[str, torch.Tensor]],
    run: Callable[[Any, Any], Any] | None = None,
    *,
    alone: bool = False,
) -> Collected:
    """Runs the model over `batches` (see `finetune.data.EvalBatches`) and keeps what `collected` returns.

    The processes share the batches. The batches are the same for any number of processes, and so are the results.
    The results stay on the device until the last batch. Then they are gathered by row id.

    Args:
        collected: takes the model's output and the batch on the device, and returns tensors with a row for each row
            of the batch, (B, ...), or for each of its real tokens, `batch.without_padding(...)`. Their further
            dimensions are the same for all batches.
        run: takes the model, with its wrappers, and a batch on the device, and returns the output. Default: the
            model's forward.
        alone: this process runs all batches, and waits for no other process.

    Raises:
        RuntimeError: if a row did not come back exactly once.
    """
    began = time.perf_counter()
    model.eval()
    mine = []
    for number, batch, on_device, output in _outputs(accelerator, model, batches, run or _forward, alone):
        losses = {name: output[name].detach() for name, count in batch.targets.items() if count}
        mine.append((number, batch.row_ids, collected(output, on_device), losses, batch.targets))
    parts = [_on_host(part) for part in mine]
    gathered = sorted(parts if alone else gather_object(parts), key=lambda part: part[0])
    rows = batches.rows
    if not len(rows):  # no word of the split has a subword
        return Collected({}, {"loss": 0.0}, {"loss": 0}, 0, time.perf_counter() - began)
    ids = np.concatenate([part[1] for part in gathered])
    _check_once(ids, len(rows))
    arrays = {key: _in_order([part[2][key] for part in gathered], ids, rows) for key in gathered[0][2]}
    # Summed in the order of the batches, not in the order in which they arrive.
    targets = {name: sum(part[4][name] for part in gathered) for name in gathered[0][4]}
    losses = {
        name: sum((part[3][name] * part[4][name] for part in gathered if part[4][name]), 0.0) for name in targets
    }
    return Collected(arrays, losses, targets, int(rows.lengths.sum()), time.perf_counter() - began)


def _on_host(part: Any) -> Any:
    number, ids, found, losses, targets = part
    arrays = {key: value.cpu().numpy() for key, value in found.items()}
    return number, ids, arrays, {name: float(loss) for name, loss in losses.items()}, targets


def _in_order(parts: Sequence[np.ndarray], ids: np.ndarray, rows: Any) -> np.ndarray:
    values = np.concatenate(parts)
    if len(values) != len(rows):  # tokens, row after row: put each row's tokens where they belong
        offsets = np.concatenate([[0], np.cumsum(rows.lengths)])
        ids = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in ids])
    ordered = np.empty_like(values)
    ordered[ids] = values
    return ordered


def _forward(model: Any, batch: Any) -> Any:
    return model(**batch.inputs)


def _outputs(
    accelerator: Accelerator, model: torch.nn.Module, batches: Any, run: Callable[[Any, Any], Any], alone: bool
) -> Iterator[tuple[int, Any, Any, Any]]:
    """For each batch of this process: its number, the batch, the batch on the device, and the model's output."""
    processes, own = (1, 0) if alone else (accelerator.num_processes, accelerator.process_index)
    # Sharded models need the same number of batches on each process. Results of the surplus batches are not kept.
    for first in range(0, len(batches), processes):
        number = first + own
        batch = batches[min(number, len(batches) - 1)]
        on_device = batch.to(accelerator.device)
        with memory_errors_explained("in the evaluation", SMALLER_EVALUATION), mixed_precision(accelerator):
            output = run(model, on_device)
        if number < len(batches):
            yield number, batch, on_device, output


def _check_once(row_ids: np.ndarray, rows: int) -> None:
    times = np.bincount(row_ids, minlength=rows)
    if (times != 1).any():
        row = int(np.flatnonzero(times != 1)[0])
        raise RuntimeError(f"row {row} was evaluated {times[row]} times; this is a bug in batching or gathering")
