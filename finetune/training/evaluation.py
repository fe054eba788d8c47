"""Predictions for every row, once each, over any number of processes.

Shapes: N rows, T tokens of all rows, B rows of a batch, L labels.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from finetune.training.memory import SMALLER_EVALUATION, memory_errors_explained
from finetune.training.sharding import mixed_precision


@dataclass(frozen=True)
class Predictions:
    """Predicted labels in the order of the rows."""

    labels: np.ndarray  # int64 (T,) for token classification, (N,) for sequences
    scores: np.ndarray  # float32, same shape: the probability of the label
    loss: float  # mean over the targets
    tokens: int  # that the model was given, padding not counted
    runtime: float  # seconds

    @property
    def costs(self) -> dict[str, float]:
        """`loss`, `tokens` and `runtime`, as results have them."""
        return {"loss": self.loss, "tokens": self.tokens, "runtime": round(self.runtime, 3)}


@torch.no_grad()
def predict(accelerator: Accelerator, model: torch.nn.Module, batches: Any) -> Predictions:
    """Runs the model over `batches` (see `finetune.data.EvalBatches`), shared out over the processes.

    The batches are the same for any number of processes, so are the predictions. These, never logits, are
    gathered, by row id.

    Raises:
        RuntimeError: if a row did not come back exactly once.
    """
    began = time.perf_counter()
    model.eval()
    mine = []
    for number, batch, on_device, output in _outputs(accelerator, model, batches):
        logits = output.logits.float()
        if logits.ndim == 3:
            logits = on_device.without_padding(logits)  # (real tokens, L)
        scores, labels = logits.softmax(-1).amax(-1), logits.argmax(-1)
        targets = batch.targets["loss"]
        loss = float(output.loss) * targets if targets else 0.0
        mine.append(
            (
                number,
                batch.row_ids,
                labels.cpu().numpy(),
                scores.cpu().numpy(),
                loss,
                targets,
            )
        )
    gathered = sorted(gather_object(mine), key=lambda part: part[0])
    return _assemble(gathered, batches.rows, time.perf_counter() - began)


def _assemble(parts: list[Any], rows: Any, runtime: float) -> Predictions:
    if not len(rows):  # no word of the split has a subword
        return Predictions(np.zeros(0, np.int64), np.zeros(0, np.float32), 0.0, 0, runtime)
    ids = np.concatenate([part[1] for part in parts])
    _check_once(ids, len(rows))
    labels, scores = (np.concatenate([part[i] for part in parts]) for i in (2, 3))
    if len(labels) != len(rows):  # tokens, row after row: put each row's tokens where they belong
        at = np.concatenate([np.arange(rows.offsets[i], rows.offsets[i + 1]) for i in ids])
    else:
        at = ids
    order = np.empty_like(at)
    order[at] = np.arange(len(at))
    # Summed in the order of the batches, not in that of arrival.
    loss = sum(part[4] for part in parts) / max(sum(part[5] for part in parts), 1)
    return Predictions(labels[order], scores[order], loss, int(rows.offsets[-1]), runtime)


@dataclass(frozen=True)
class Collected:
    """What an evaluation found, in the order of the rows."""

    arrays: dict[str, np.ndarray]  # (N, ...), by the names that the task gave them
    loss: float  # mean over the targets
    tokens: int  # that the model was given, padding not counted
    runtime: float  # seconds

    @property
    def costs(self) -> dict[str, float]:
        """`loss`, `tokens` and `runtime`, as results have them."""
        return {"loss": self.loss, "tokens": self.tokens, "runtime": round(self.runtime, 3)}


@torch.no_grad()
def collect(
    accelerator: Accelerator,
    model: torch.nn.Module,
    batches: Any,
    collected: Callable[[Any, Any], dict[str, torch.Tensor]],
) -> Collected:
    """Runs the model over `batches`, shared out over the processes, and keeps of each row what `collected` makes of
    it.

    Args:
        collected: takes the model's output and the batch on the device, and returns tensors (B, ...), a row each;
            their further dimensions are the same for all batches.

    Raises:
        RuntimeError: if a row did not come back exactly once.
    """
    began = time.perf_counter()
    model.eval()
    mine = []
    for number, batch, on_device, output in _outputs(accelerator, model, batches):
        targets = batch.targets["loss"]
        loss = float(output.loss) * targets if targets else 0.0
        kept = {key: value.cpu().numpy() for key, value in collected(output, on_device).items()}
        mine.append((number, batch.row_ids, kept, loss, targets))
    gathered = sorted(gather_object(mine), key=lambda part: part[0])
    ids = np.concatenate([part[1] for part in gathered])
    _check_once(ids, len(batches.rows))
    arrays = {}
    for key in gathered[0][2]:
        values = np.concatenate([part[2][key] for part in gathered])
        arrays[key] = np.empty_like(values)
        arrays[key][ids] = values
    # Summed in the order of the batches, not in that of arrival.
    loss = sum(part[3] for part in gathered) / max(sum(part[4] for part in gathered), 1)
    return Collected(arrays, loss, int(batches.rows.offsets[-1]), time.perf_counter() - began)


@dataclass(frozen=True)
class Counts:
    """Sums over a split, by the name of the loss in the model's output."""

    losses: dict[str, float]
    targets: dict[str, int]
    correct: dict[str, int]
    runtime: float  # seconds

    def __add__(self, other: "Counts") -> "Counts":
        def add(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
            return {key: a[key] + b[key] for key in a}

        return Counts(
            add(self.losses, other.losses),
            add(self.targets, other.targets),
            add(self.correct, other.correct),
            self.runtime + other.runtime,
        )


@torch.no_grad()
def count_masked(accelerator: Accelerator, model: torch.nn.Module, batches: Any) -> Counts:
    """Counts how many masked tokens, and next sentences, the model predicts (see
    `finetune.models.project_masked_positions`). The batches are the same for any number of processes, so is the loss,
    to the last digit.

    Raises:
        RuntimeError: if a row did not come back exactly once.
    """
    began = time.perf_counter()
    model.eval()
    mine = []
    for number, batch, on_device, output in _outputs(accelerator, model, batches):
        labels = on_device.inputs["labels"]
        asked = {"mlm": (output["logits"], labels[labels != -100])}
        if "nsp_logits" in output:
            asked["nsp"] = (output["nsp_logits"], on_device.inputs["next_sentence_label"])
        sums = {}
        for name, targets in batch.targets.items():
            logits, right = asked["nsp" if name == "nsp_loss" else "mlm"]
            loss = float(output[name]) * targets if targets else 0.0
            sums[name] = (loss, targets, int((logits.argmax(-1) == right).sum()))
        mine.append((number, batch.row_ids, sums))
    gathered = sorted(gather_object(mine), key=lambda part: part[0])
    _check_once(np.concatenate([part[1] for part in gathered]), len(batches.rows))
    losses, targets, correct = (
        {name: sum(part[2][name][i] for part in gathered) for name in gathered[0][2]}
        for i in range(3)  # in the order of the batches, not in that of arrival
    )
    return Counts(losses, targets, correct, time.perf_counter() - began)


def _outputs(accelerator: Accelerator, model: torch.nn.Module, batches: Any) -> Iterator[tuple[int, Any, Any, Any]]:
    """This process's batches: their numbers, they themselves, on the device, and what the model makes of them."""
    processes = accelerator.num_processes
    # Each process runs the same number of batches, as sharded models need; the surplus is not kept.
    for first in range(0, len(batches), processes):
        number = first + accelerator.process_index
        batch = batches[min(number, len(batches) - 1)]
        on_device = batch.to(accelerator.device)
        with memory_errors_explained("in the evaluation", SMALLER_EVALUATION), mixed_precision(accelerator):
            output = model(**on_device.inputs)
        if number < len(batches):
            yield number, batch, on_device, output


def _check_once(row_ids: np.ndarray, rows: int) -> None:
    times = np.bincount(row_ids, minlength=rows)
    if (times != 1).any():
        row = int(np.flatnonzero(times != 1)[0])
        raise RuntimeError(f"row {row} was evaluated {times[row]} times; this is a bug in batching or gathering")
