"""Takes optimizer steps one at a time: as the tutorials do, as `transformers.Trainer` does, and as the recipes do.

All sides have the same rows, the same batches and the same first weights. After each step, `Steps` yields the number
of its tokens without padding.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, get_scheduler

from finetune import data, training
from finetune.arguments import TrainingArguments as OurArguments

Steps = Iterator[int]
SCHEDULED = 1000  # steps of the schedule; no side comes near its end


def accelerator_of(precision: str) -> Accelerator:
    """A new accelerator. The shared state of an earlier one is cleared, because it would refuse another precision."""
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)


def tutorial_steps(
    model: Any,
    dataset: Dataset,
    collator: Callable,
    plan: Sequence[list[int]],
    *,
    precision: str,
    fused: bool = False,
) -> Steps:
    """The loop of the `*_no_trainer.py` examples of `transformers`: padded batches, AdamW, a linear schedule.

    Args:
        dataset: the tokenised rows.
        collator: the `DataCollator` of the example.
        plan: the rows of each batch; the example itself shuffles.
        fused: whether AdamW is fused; in the examples it is not.
    """
    accelerator = accelerator_of(precision)
    loader = DataLoader(dataset, batch_sampler=plan, collate_fn=collator)  # type: ignore[arg-type]
    unchanged = ("bias", "LayerNorm.weight")
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if (not n.endswith(unchanged)) is decays],
            "weight_decay": w,
        }
        for decays, w in ((True, 0.01), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-5, fused=fused or None)
    schedule = get_scheduler("linear", optimizer, 0, SCHEDULED)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    model.train()
    while True:
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield int(batch["attention_mask"].sum())


def trainer_speed(
    model: Any, dataset: Dataset, collator: Callable, batch_size: int, steps: int, *, bf16: bool = False
) -> float:
    """Tokens per second (without padding) of `Trainer.train()` with its defaults, after the first step."""
    tokens: list[int] = []
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    def counted(rows: list[dict[str, Any]]) -> Any:
        batch = collator(rows)
        tokens.append(int(batch["attention_mask"].sum()))
        return batch

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            max_steps=steps + 1,
            per_device_train_batch_size=batch_size,
            use_cpu=not torch.cuda.is_available(),
            bf16=bf16,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        AcceleratorState._reset_state(reset_partial_state=False)
        trainer = Trainer(model, settings, data_collator=counted, train_dataset=dataset, callbacks=[Clock()])
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    return sum(tokens[1 : steps + 1]) / (ends[-1] - ends[0])


def recipe_steps(model: Any, batches: data.TrainBatches, *, precision: str) -> Steps:
    """The steps of `finetune.training.train` between two evaluations, on a prepared model."""
    config = OurArguments(learning_rate=5e-5)
    accelerator = accelerator_of(precision)
    optimizer = training.build_optimizer(model, config)
    schedule = training.build_schedule(optimizer, config, SCHEDULED)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    prepared.train()
    epoch = 0
    while True:
        for micro_batches in batches.epoch(epoch):
            sums = training.accumulate_gradients(accelerator, prepared, micro_batches)
            training.clip_gradients(accelerator, prepared, config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            yield sums.tokens
        epoch += 1


def speed_of(steps: Steps, count: int) -> float:
    """Tokens per second (without padding) over the next `count` steps."""
    began = time.perf_counter()
    tokens = sum(next(steps) for _ in range(count))
    return tokens / (time.perf_counter() - began)
