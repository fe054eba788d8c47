"""Makes batches from rows without padding. No other module pads.

The seed and the epoch alone decide which rows make an optimizer step. The number of processes, of workers or of
micro-batches does not change it, nor does the step where a run was resumed.

Shapes: B rows, T tokens of the longest row, C bytes of a word.
"""

import hashlib
import itertools
import math
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from finetune.arguments import TrainingArguments
from finetune.data.rows import PADDING, Rows, dtype_of, padded

Count = Callable[[Mapping[str, torch.Tensor]], dict[str, float]]
_COMPARED = 10_000  # rows that tell one data set from another
_OF_SIDES = ("offsets", "values")
_SORTED_STEPS = 50  # steps whose rows are sorted by length together


class RowSource(Protocol):
    """Rows that exist already, or that are made when they are asked for."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> np.ndarray: ...

    def take(self, row_ids: Sequence[int] | np.ndarray) -> Rows: ...


class EpochSource(Protocol):
    """The rows of each epoch.

    If their order is fixed, the source has an attribute `lanes`, the number of rows in a step. Its `steps(epoch)` are
    the rows of each step. A step may lack rows at its end.
    """

    def rows_in(self, epoch: int) -> int: ...

    def in_epoch(self, epoch: int) -> RowSource: ...


def labels_counted(inputs: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The number of targets of a loss that is the mean over the labels. A label of -100 is no target."""
    return {"loss": int((inputs["labels"] != -100).sum())}


@dataclass
class Batch:
    """A micro-batch.

    | `inputs` key | dtype, shape | padding |
    |---|---|---|
    | `input_ids` | int64 (B, T) | the tokenizer's |
    | `attention_mask` | int64 (B, T) | 0 |
    | `labels` | int64 (B, T) or (B,); float32 where the rows hold floats | -100 |
    | `token_type_ids` | int64 (B, T), where the tokenizer gives them | 0 |
    | `position_ids` | int64 (B, T), where the model must not number the positions itself | 0 |
    | `char_ids` | int64 (B, T, C), for the baselines | 0 |
    | `next_sentence_label` | int64 (B,), pretraining on pairs | |
    | `lane`, `continues` | int64 (B,), recurrent language models (see `finetune/data/next_words.py`) | |
    | a column of `Rows.sides` | int64 (B, the longest row of this column) | -100 for `labels`, else 0 |
    """

    inputs: dict[str, torch.Tensor]
    row_ids: np.ndarray  # int64 (B,): which rows these are; empty in a batch that only keeps processes in step
    count: Count = labels_counted
    sides: tuple[str, ...] = ()  # the columns that have a length of their own
    samples: tuple[str, ...] = ()  # the columns with one value for each row

    def to(self, device: Any) -> "Batch":
        """The batch with its tensors on `device`. The program does not wait until a copy to a GPU is finished."""
        gpu = torch.cuda.is_available() and torch.device(device).type == "cuda"
        values = {key: value.pin_memory() if gpu else value for key, value in self.inputs.items()}
        moved = {key: value.to(device, non_blocking=gpu) for key, value in values.items()}
        return replace(self, inputs=moved)

    def split(self, pieces: int) -> list["Batch"]:
        """The same rows in `pieces` batches or fewer, each with about the same number of rows.

        Columns that would hold padding alone are cut off.
        """
        if pieces == 1 or len(self.row_ids) < 2:
            return [self]
        parts, fixed = [], {*self.sides, *self.samples}
        for rows in np.array_split(np.arange(len(self.row_ids)), min(pieces, len(self.row_ids))):
            own = {key: value[rows] for key, value in self.inputs.items()}
            T, longest = own["attention_mask"].shape[1], int(own["attention_mask"].sum(1).max())
            kept = slice(T - longest, T) if self._padded_left else slice(longest)
            cut = [key for key, v in own.items() if v.ndim > 1 and v.shape[1] == T and key not in fixed]
            own |= {key: own[key][:, kept].contiguous() for key in cut}
            parts.append(replace(self, inputs=own, row_ids=self.row_ids[rows]))
        return parts

    @property
    def _padded_left(self) -> bool:
        first, last = self.inputs["attention_mask"][:, 0], self.inputs["attention_mask"][:, -1]
        return bool((first < last).any())

    @property
    def tokens(self) -> int:
        """Real tokens of all sides, padding not counted."""
        if not len(self.row_ids):
            return 0
        sides = sum(int((self.inputs[key] != PADDING.get(key, 0)).sum()) for key in self.sides)
        return int(self.inputs["attention_mask"].sum()) + sides

    @property
    def targets(self) -> dict[str, float]:
        """The number of targets of each mean loss that the model returns, by the loss's name in the model's output.

        For weighted targets it is the sum of their weights.
        """
        counts = self.count(self.inputs)
        # The numbers keep their type, since all processes must reduce tensors of one dtype.
        return counts if len(self.row_ids) else {name: type(count)(0) for name, count in counts.items()}

    def without_padding(self, values: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) -> (real tokens, ...), row after row."""
        return values[self.inputs["attention_mask"].bool()]


def collate(
    rows: RowSource,
    pad_token_id: int,
    row_ids: Sequence[int] | np.ndarray,
    *,
    pad_left: bool = False,
    count: Count = labels_counted,
) -> Batch:
    """Puts rows into one padded batch. The padding is on the right; for models such as XLNet it is on the left."""
    ids = np.asarray(row_ids, dtype=np.int64)
    taken = rows.take(ids)
    inputs = {key: torch.from_numpy(values) for key, values in padded(taken, pad_token_id, pad_left=pad_left).items()}
    return Batch(inputs, ids, count, tuple(taken.sides), tuple(taken.samples))


@dataclass(frozen=True)
class TrainBatches:
    """The optimizer steps of each epoch, as this process sees them.

    Args:
        tokens_per_batch: replaces `per_device_batch_size`. A micro-batch then holds as many rows as fit into this
            number of tokens, where each row counts as long as the longest one, on each of its sides. A step holds as
            many rows as `gradient_accumulation_steps` times `num_processes` such micro-batches would.
        group_by_length: rows of about the same length make a step. The order of the steps is drawn again for each
            epoch.
        evaluated: rows of the other splits. A resumed run must have the same ones.
        count: counts the targets of a batch from its inputs.
    """

    rows: EpochSource
    pad_token_id: int
    per_device_batch_size: int
    gradient_accumulation_steps: int = 1
    num_processes: int = 1
    process_index: int = 0
    seed: int = 42
    num_workers: int = 0
    tokens_per_batch: int | None = None
    group_by_length: bool = False
    evaluated: Sequence[EpochSource] = ()
    pad_left: bool = False
    count: Count = labels_counted
    _steps: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_seed(self, seed: int) -> "TrainBatches":
        """The same rows in another order."""
        return replace(self, seed=seed)

    def steps_in(self, epoch: int) -> int:
        """The number of optimizer steps of an epoch. Some steps may hold fewer rows than others."""
        if self.tokens_per_batch is None and not self._ordered:
            return -(-self.rows.rows_in(epoch) // (self.per_device_batch_size * self._micro_batches))
        if epoch not in self._steps:
            self._steps[epoch] = len(self._groups(epoch))
        return self._steps[epoch]

    def steps_of(self, epochs: float) -> int:
        """The number of optimizer steps in `epochs` epochs. `epochs` need not be a whole number."""
        whole = int(epochs)
        steps = sum(self.steps_in(epoch) for epoch in range(whole))
        part = round(epochs - whole, 9)  # 2.1 - 2 is a little more than 0.1
        return steps + math.ceil(round(self.steps_in(whole) * part, 6)) if part else steps

    def locate(self, step: int) -> tuple[int, int]:
        """From the number of steps done: the epoch to go on with, and how many of its steps are done.

        Raises:
            ValueError: for an epoch without rows, since it has no step, and neither has any later epoch.
        """
        epoch = 0
        while step >= (steps := self.steps_in(epoch)):
            if not steps:
                raise ValueError("no row to train on: the tokenizer makes nothing of the training data's words")
            step -= steps
            epoch += 1
        return epoch, step

    def digest(self) -> str:
        """SHA-256 of the rows of all splits.

        Instances cost time to build, so only their lengths and 10,000 of their rows count.
        """
        whole = hashlib.sha256()
        for source in (self.rows, *self.evaluated):
            rows = source.in_epoch(0)
            compared = len(rows) if isinstance(rows, Rows) else min(len(rows), _COMPARED)
            some = rows.take(np.linspace(0, len(rows) - 1, compared).astype(np.int64))
            whole.update(rows.lengths.astype(np.int64).tobytes())
            sides = {f"{name} {part}": getattr(some.sides[name], part) for name in some.sides for part in _OF_SIDES}
            for name, values in sorted((some.tokens | some.samples | sides).items()):
                whole.update(name.encode())
                whole.update(values.astype(dtype_of(values)).tobytes())
        return whole.hexdigest()

    def plan(self, epoch: int, first_step: int = 0) -> Iterator[list[list[int]]]:
        """For each step of the epoch from `first_step` on, this process's micro-batches as lists of row ids.

        Every process has the same number of micro-batches, since the processes of a sharded model wait for each
        other in each of them. In a short step some micro-batches may be empty.
        """
        sizes = None if self.tokens_per_batch is None else _sizes(self.rows.in_epoch(epoch))
        for group in self._groups(epoch)[first_step:]:
            mine = group[self.process_index :: self.num_processes].tolist()
            most = -(-len(group) // self.num_processes)
            size = self.per_device_batch_size
            if self.tokens_per_batch is not None and sizes is not None:
                size = self.tokens_per_batch // max(int(sizes[group].max(0).sum()), 1)
            yield [mine[j : j + size] for j in range(0, most, size)]

    @property
    def _ordered(self) -> bool:
        return bool(getattr(self.rows, "lanes", 0))

    @property
    def _micro_batches(self) -> int:
        """The number of micro-batches of a step, over all processes."""
        return self.gradient_accumulation_steps * self.num_processes

    def _groups(self, epoch: int) -> list[np.ndarray]:
        """The rows of each step of an epoch. They depend on the seed and the size of a step, not on how it is cut."""
        if self._ordered:
            return self.rows.steps(epoch)  # type: ignore[attr-defined]
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(self.rows.rows_in(epoch))
        rows_per_step = self.per_device_batch_size * self._micro_batches
        if self.tokens_per_batch is None and not self.group_by_length:
            return [order[i : i + rows_per_step] for i in range(0, len(order), rows_per_step)]
        sizes = np.maximum(_sizes(self.rows.in_epoch(epoch)), 1)  # an empty text counts as a token
        lengths = sizes.sum(1)
        tokens = None if self.tokens_per_batch is None else self.tokens_per_batch * self._micro_batches
        if tokens is not None and len(order):
            if int(lengths.max()) > (self.tokens_per_batch or 0):
                raise ValueError(
                    f"--tokens_per_batch {self.tokens_per_batch}: the longest input has {lengths.max()} tokens; give "
                    "at least that many, or a smaller --max_seq_length"
                )
            rows_per_step = max(int(tokens / lengths.mean()), 1)
        # Sorted within _SORTED_STEPS steps, not all at once: otherwise the same rows would always be together.
        groups = []
        for i in range(0, len(order), _SORTED_STEPS * rows_per_step):
            some = order[i : i + _SORTED_STEPS * rows_per_step]
            if self.group_by_length:
                some = some[np.argsort(-lengths[some], kind="stable")]
            begin = 0
            while begin < len(some):
                size = rows_per_step if tokens is None else _rows_that_fit(sizes[some[begin:]], tokens)
                groups.append(some[begin : begin + size])
                begin += size
        return [groups[i] for i in generator.permutation(len(groups))]

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[list[Batch]]:
        """The micro-batches of each step of the epoch, from step `first_step` on."""
        rows = self.rows.in_epoch(epoch)
        # The workers are ahead of the steps, so the workers and the steps each have an iterator over the plan.
        ahead, steps = self.plan(epoch, first_step), self.plan(epoch, first_step)
        batches = iter(
            DataLoader(
                range(len(rows)),  # type: ignore[arg-type]
                batch_sampler=filter(None, itertools.chain.from_iterable(ahead)),
                collate_fn=partial(collate, rows, self.pad_token_id, pad_left=self.pad_left, count=self.count),
                num_workers=self.num_workers,
                worker_init_fn=_outlive_a_sigterm,
                # Without a generator of its own, an iterator would draw from the global one. A resumed epoch has
                # one more iterator, so its dropout would differ.
                generator=torch.Generator(),
            )
        )
        for step in steps:
            yield [next(batches) if micro_batch else self._idle(rows) for micro_batch in step]

    def _idle(self, rows: RowSource) -> Batch:
        """A batch without targets. A process runs it only to keep in step with the others."""
        batch = collate(rows, self.pad_token_id, [0], pad_left=self.pad_left, count=self.count)
        inputs = {key: value for key, value in batch.inputs.items() if key != "lane"}  # it carries no state on
        return replace(batch, inputs=inputs, row_ids=batch.row_ids[:0])


def train_batches(
    rows: Mapping[str, EpochSource],
    tokenizer: Any,
    config: TrainingArguments,
    processes: Any,
    count: Count = labels_counted,
) -> TrainBatches:
    """The batches that the flags of a run ask for.

    Args:
        rows: the rows of each split. Those of `train` make the batches.
        tokenizer: says how rows are padded.
        processes: has `num_processes` and `process_index`, as an `Accelerator` does.
        count: see `TrainBatches`.
    """
    return TrainBatches(
        rows["train"],
        tokenizer.pad_token_id,
        config.per_device_train_batch_size,
        config.gradient_accumulation_steps,
        processes.num_processes,
        processes.process_index,
        config.seed,
        config.dataloader_num_workers,
        config.tokens_per_batch,
        config.train_sampling_strategy == "group_by_length",
        [rows[split] for split in sorted(rows) if split != "train"],
        pad_left=tokenizer.padding_side == "left",
        count=count,
    )


def eval_batches(rows: RowSource, tokenizer: Any, batch_size: int, count: Count = labels_counted) -> "EvalBatches":
    """The rows in batches for an evaluation, padded as the tokenizer pads."""
    left = tokenizer.padding_side == "left"
    return EvalBatches(rows, tokenizer.pad_token_id, batch_size, pad_left=left, count=count)


@dataclass(frozen=True)
class EvalBatches:
    """Each row once, rows of similar length together. The batches are the same for any number of processes."""

    rows: RowSource
    pad_token_id: int
    batch_size: int
    pad_left: bool = False
    count: Count = labels_counted

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(-self.rows.lengths, kind="stable")

    def __getitem__(self, i: int) -> Batch:
        if not 0 <= i < len(self):
            raise IndexError(i)
        ids = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        return collate(self.rows, self.pad_token_id, ids, pad_left=self.pad_left, count=self.count)


def _outlive_a_sigterm(worker: int) -> None:
    """Lets a worker ignore the first SIGTERM.

    Launchers and schedulers send it to the whole group of processes. The run then finishes its step, and needs the
    worker for that. A worker ends when its run says so or is gone. If it still lives when the run exits, Python sends
    it SIGTERM twice.
    """

    def note(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, note)


def _sizes(rows: RowSource) -> np.ndarray:
    """The lengths of each row, a column for each side, int64 (N, sides)."""
    return rows.sizes if isinstance(rows, Rows) else rows.lengths[:, None]


def _rows_that_fit(sizes: np.ndarray, tokens: int) -> int:
    """How many of the first rows fit into `tokens`, at least one. Each row counts as long as the longest one."""
    longest = np.maximum.accumulate(sizes[:tokens]).sum(1)
    return max(int((longest * np.arange(1, len(longest) + 1) <= tokens).sum()), 1)
