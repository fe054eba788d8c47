"""Checks the flags of a run and its folder before any data is read. A check raises ValueError with one sentence."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from finetune.arguments import TrainingArguments
from finetune.spelling import did_you_mean
from finetune.training import folder as own

_END_OF_POLYNOMIAL = 1e-7  # the last rate of transformers' polynomial schedule


def trackers(config: TrainingArguments) -> list[str]:
    """The names in `--report_to`."""
    return [name.strip() for name in config.report_to.split(",") if name.strip() not in ("", "none")]


def check_trackers(names: Sequence[str]) -> None:
    """Refuses a tracker that is not installed. Accelerate would ignore it without a message."""
    known = [str(name) for name in LoggerType if name != LoggerType.ALL]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"; choose from {', '.join(known)}, none"
            raise ValueError(f"--report_to {name}: no tracker of Accelerate{hint}")
        if name not in map(str, get_available_trackers()):
            raise ValueError(
                f"--report_to {name}: this tracker is not installed here; install its package, or leave it out"
            )


def refuse_on_collapse(config: TrainingArguments) -> None:
    """Refuses `--on_collapse` in a recipe whose runs cannot be seen to collapse."""
    if config.on_collapse != "restart":
        raise ValueError(f"--on_collapse {config.on_collapse}: for labels of words and of texts; leave it out")


def check_flags(config: TrainingArguments) -> None:
    """Refuses values that make no sense, and flags that contradict each other."""
    for name in (
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "logging_steps",
        "eval_steps",
        "save_steps",
        "save_total_limit",
    ):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name} {getattr(config, name)}: must be at least 1")
    for name in (
        "tokens_per_batch",
        "max_train_samples",
        "max_eval_samples",
        "average_checkpoints",
        "early_stopping_patience",
    ):
        value = getattr(config, name, None)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be at least 1")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed {config.seed}: must be from 0 to {2**32 - 1}")
    for name in ("adam_beta1", "adam_beta2"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"--{name} {getattr(config, name)}: must be at least 0 and below 1")
    for name in ("learning_rate", "num_train_epochs", "layerwise_lr_decay", "adam_epsilon"):
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f"--{name} {getattr(config, name)}: must be positive")
    if config.lr_scheduler_type == "polynomial" and (config.learning_rate or 0.0) <= _END_OF_POLYNOMIAL:
        raise ValueError(
            f"--learning_rate {config.learning_rate}: --lr_scheduler_type polynomial ends at {_END_OF_POLYNOMIAL}; "
            "give a larger one"
        )
    for name in (
        "max_grad_norm",
        "warmup_steps",
        "weight_decay",
        "head_learning_rate",
        "freeze_layers",
        "dataloader_num_workers",
    ):
        value = getattr(config, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"--{name} {value}: must not be negative")
    _check_evaluations(config)
    if config.early_stopping_patience is not None and config.eval_strategy == "no":
        raise ValueError("--early_stopping_patience needs evaluations: give --eval_strategy epoch or steps")


def _check_evaluations(config: TrainingArguments) -> None:
    """Refuses flags that ask for the best weights, but not for a checkpoint at each evaluation."""
    averaged = f"--average_checkpoints {config.average_checkpoints}"
    if config.average_checkpoints is not None:
        if config.eval_strategy == "no":
            raise ValueError(f"{averaged} needs evaluations: give --eval_strategy epoch or steps")
        if not config.load_best_model_at_end:
            raise ValueError(f"{averaged} needs --load_best_model_at_end true: it averages the best weights")
    if not config.load_best_model_at_end:
        return
    needing, without = "--load_best_model_at_end", "--load_best_model_at_end false"
    if config.average_checkpoints is not None:
        needing, without = averaged, "no --average_checkpoints and --load_best_model_at_end false"
    if config.save_strategy != config.eval_strategy:
        raise ValueError(
            f"{needing} needs a checkpoint at each evaluation: give --save_strategy the value of --eval_strategy "
            f"({config.eval_strategy}), or {without}"
        )
    if config.save_strategy == "steps" and config.eval_steps % config.save_steps:
        raise ValueError(
            f"--eval_steps {config.eval_steps}: {needing} needs a checkpoint at each evaluation, so give a multiple "
            f"of --save_steps ({config.save_steps})"
        )


def check_output_dir(config: TrainingArguments) -> None:
    """Refuses a folder that cannot be written, or that holds what this run may not replace."""
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder}: this is a file; give a folder")
    existing = next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
    if not existing.is_dir():
        raise ValueError(f"--output_dir {folder}: lies below a file; give a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"--output_dir {folder}: {existing} is not writable")
    if own.holds_nothing(folder):
        return
    overwritten = config.overwrite_output_dir and config.resume_from_checkpoint is None
    if not (folder / "run.yaml").exists() and not (overwritten and own.is_listed(folder)):
        raise ValueError(f"--output_dir {folder}: this folder holds something that is no run; give another")
    if not config.overwrite_output_dir and config.resume_from_checkpoint is None:
        raise ValueError(
            f"--output_dir {folder}: this folder already holds a run; give another, or continue it with "
            "--resume_from_checkpoint true, or replace it with --overwrite_output_dir"
        )
    if overwritten and not own.is_listed(folder):
        raise ValueError(
            f"--overwrite_output_dir: {folder} has no list of what a run wrote there (.written), so nothing in it is "
            "removed; give another --output_dir"
        )
    if overwritten and (foreign := own.not_written(folder)) is not None:
        raise ValueError(
            f"--overwrite_output_dir: no run wrote {foreign}, which would be lost; move it, or give another "
            "--output_dir"
        )


def check_hub() -> None:
    """Refuses `--push_to_hub` without access to the Hub."""
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:
        raise ValueError(f"--push_to_hub: no access to the Hub: {str(error).strip().splitlines()[0]}") from error
