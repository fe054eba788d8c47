"""Batches, made in this one place from rows without padding.

Which rows make an optimizer step hangs on (seed, epoch) alone: not on the number of processes, of workers, or
of micro-batches, and not on where a run was resumed.

Shapes: B rows, T tokens of the longest of them, C bytes of a word.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from finetune.data.rows import Rows

_PADDING = {"labels": -100}


class RowSource(Protocol):
    """Rows, or what makes them when they are asked for."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray: ...

    def take(self, row_ids: Sequence[int] | np.ndarray) -> Rows: ...


class EpochSource(Protocol):
    """The rows of each epoch."""

    def rows_in(self, epoch: int) -> int: ...

    def in_epoch(self, epoch: int) -> RowSource: ...


@dataclass
class Batch:
    """A micro-batch.

    | `inputs` key | dtype, shape | padding |
    |---|---|---|
    | `input_ids` | int64 (B, T) | the tokenizer's |
    | `attention_mask` | int64 (B, T) | 0 |
    | `labels` | int64 (B, T) or (B,) | -100 |
    | `token_type_ids` | int64 (B, T), where the tokenizer gives them | 0 |
    | `position_ids` | int64 (B, T), where the model is not to count itself | 0 |
    | `char_ids` | int64 (B, T, C), the baselines' | 0 |
    | `next_sentence_label` | int64 (B,), pretraining on pairs | |
    """

    inputs: dict[str, torch.Tensor]
    row_ids: np.ndarray  # int64 (B,): which rows these are; none in a batch that only keeps processes in step

    def to(self, device: Any) -> "Batch":
        """The batch with its tensors on `device`."""
        return Batch({key: value.to(device) for key, value in self.inputs.items()}, self.row_ids)

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int(self.inputs["attention_mask"].sum()) if len(self.row_ids) else 0

    @property
    def targets(self) -> dict[str, int]:
        """How many targets each mean loss that the model returns is over, by its name in the model's output."""
        labels = int((self.inputs["labels"] != -100).sum())
        if "next_sentence_label" not in self.inputs:
            return {"loss": labels}
        return {"mlm_loss": labels, "nsp_loss": int((self.inputs["next_sentence_label"] != -100).sum())}

    def without_padding(self, values: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) -> (real tokens, ...), row after row."""
        return values[self.inputs["attention_mask"].bool()]


def collate(rows: RowSource, pad_token_id: int, row_ids: Sequence[int] | np.ndarray) -> Batch:
    """Puts rows into one padded batch, padding on the right."""
    ids = np.asarray(row_ids, dtype=np.int64)
    taken = rows.take(ids)
    lengths = taken.lengths
    mask = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
    inputs = {"attention_mask": torch.from_numpy(mask.astype(np.int64))}
    for key, values in taken.tokens.items():
        padding = pad_token_id if key == "input_ids" else _PADDING.get(key, 0)
        padded = np.full((*mask.shape, *values.shape[1:]), padding, dtype=np.int64)
        padded[mask] = values
        inputs[key] = torch.from_numpy(padded)
    for key, values in taken.samples.items():
        inputs[key] = torch.from_numpy(values.astype(np.int64))
    return Batch(inputs, ids)


@dataclass(frozen=True)
class TrainBatches:
    """The optimizer steps of each epoch, as this process sees them."""

    rows: EpochSource
    pad_token_id: int
    per_device_batch_size: int
    gradient_accumulation_steps: int = 1
    num_processes: int = 1
    process_index: int = 0
    seed: int = 42
    num_workers: int = 0

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step, over all processes and micro-batches."""
        return self.per_device_batch_size * self.gradient_accumulation_steps * self.num_processes

    def steps_in(self, epoch: int) -> int:
        """Optimizer steps of an epoch; the last one may hold fewer rows."""
        return -(-self.rows.rows_in(epoch) // self.rows_per_step)

    def steps_of(self, epochs: float) -> int:
        """Optimizer steps of so many epochs, the last of which may be a part of one."""
        whole = int(epochs)
        steps = sum(self.steps_in(epoch) for epoch in range(whole))
        return steps if whole == epochs else steps + math.ceil(self.steps_in(whole) * (epochs - whole))

    def locate(self, step: int) -> tuple[int, int]:
        """Optimizer steps done -> the epoch to go on with, and the steps of it that are done."""
        epoch = 0
        while step >= (steps := self.steps_in(epoch)):
            step -= steps
            epoch += 1
        return epoch, step

    def plan(self, epoch: int, first_step: int = 0) -> Iterator[list[list[int]]]:
        """For each step of the epoch from `first_step` on, this process's micro-batches as lists of row ids.

        Every process has the same number of micro-batches, since sharded models wait for each other in each; in a
        short last step some may be empty.
        """
        rows = self.rows.rows_in(epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(rows)
        for i in range(first_step * self.rows_per_step, rows, self.rows_per_step):
            group = order[i : i + self.rows_per_step]
            mine = group[self.process_index :: self.num_processes].tolist()
            most = -(-len(group) // self.num_processes)
            size = self.per_device_batch_size
            yield [mine[j : j + size] for j in range(0, most, size)]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each step of the epoch, from step `first_step` on."""
        rows = self.rows.in_epoch(epoch)
        # The workers run ahead of the steps; each side goes through the plan by itself.
        ahead, steps = self.plan(epoch, first_step), self.plan(epoch, first_step)
        batches = iter(
            DataLoader(
                range(len(rows)),  # type: ignore[arg-type]
                batch_sampler=filter(None, itertools.chain.from_iterable(ahead)),
                collate_fn=partial(collate, rows, self.pad_token_id),
                num_workers=self.num_workers,
                # Without its own, an iterator would draw from the global generator, and a resumed epoch, which
                # has one iterator more, would see other dropout.
                generator=torch.Generator(),
            )
        )
        for step in steps:
            yield [next(batches) if micro_batch else self._idle(rows) for micro_batch in step]

    def _idle(self, rows: RowSource) -> Batch:
        """A batch to run that counts for nothing."""
        batch = collate(rows, self.pad_token_id, [0])
        for key in ("labels", "next_sentence_label"):
            if key in batch.inputs:
                batch.inputs[key] = torch.full_like(batch.inputs[key], -100)
        return Batch(batch.inputs, batch.row_ids[:0])


@dataclass(frozen=True)
class EvalBatches:
    """Each row once, rows of similar length together. The batches are the same for any number of processes."""

    rows: RowSource
    pad_token_id: int
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(-self.rows.lengths, kind="stable")

    def __getitem__(self, i: int) -> Batch:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return collate(self.rows, self.pad_token_id, self._order[i * self.batch_size : (i + 1) * self.batch_size])
