"""A run: its processes, its seed, its folder."""

import errno
import json
import logging
import math
import os
import re
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    LoggerType,
    ProjectConfiguration,
    broadcast_object_list,
    set_seed,
)

from finetune.arguments import TrainingArguments
from finetune.cli import did_you_mean, to_yaml, turn_bars_off
from finetune.files import match_modes, printable, remove, sync, write_text
from finetune.from_python import typed
from finetune.training import folder as own
from finetune.training.resume import checkpoint_to_resume
from finetune.training.saving import is_full_disk, unwrapped, weights_of
from finetune.training.signals import end_with_launcher
from finetune.training.waits import LONG_WAIT

logger = logging.getLogger(__name__)

_changed = ExitStack()  # undoes what a run has changed in this process


@dataclass
class RunResult:
    """What a recipe function returns."""

    output_dir: Path
    results: dict[str, float]  # all_results.json
    history: list[dict[str, float]] = field(default_factory=list)  # history.jsonl


@dataclass
class Run:
    """The processes of a run and its folder. The folder is made when the first file is written."""

    config: Any  # a recipe's config, with every default resolved
    accelerator: Accelerator
    checkpoint: Path | None = None  # the one that the run is resumed from

    @property
    def output_dir(self) -> Path:
        """`--output_dir`."""
        return Path(self.config.output_dir)

    @property
    def holds_whole_parameters(self) -> bool:
        """Whether every process has all of every parameter. With FSDP it has a part of each parameter."""
        return self.accelerator.distributed_type != DistributedType.FSDP

    def print(self, *lines: object) -> None:
        """Prints on the main process, without breaking a progress bar."""
        if self.accelerator.is_main_process:
            from tqdm import tqdm

            tqdm.write(printable("\n".join(map(str, lines))), file=sys.stdout)
            sys.stdout.flush()

    def on_one_process(self, function: Callable[[], Any]) -> Any:
        """Calls `function` on the main process, and returns its result on every process."""
        found = [function() if self.accelerator.is_main_process else None]
        return broadcast_object_list(found)[0]

    def create_folder(self) -> None:
        """Makes the folder, locks it and writes `run.yaml`. A run that is overwritten is removed first.

        Raises:
            ValueError: if another process writes there, or has written there since `start_run` checked.
        """
        if (mistake := self.on_one_process(self._take_folder)) is not None:
            raise ValueError(mistake)

    def file(self, name: str) -> Path:
        """The path of a file that the main process will write now. The list of this run's files gets its name."""
        own.note_written(self.output_dir, [name])
        return self.output_dir / name

    def release(self) -> None:
        """Releases the folder's lock, and undoes what the run has changed in this process."""
        own.unlock(self.output_dir)
        _changed.close()

    def _take_folder(self) -> str | None:
        folder = self.output_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
            own.lock(folder)
            _check_output_dir(self.config)  # again, now that nobody else can change it
            if self.config.overwrite_output_dir and not self.config.resume_from_checkpoint:
                own.empty(folder)
        except ValueError as error:
            own.unlock(folder)
            return str(error)
        own.remove_unfinished(folder)
        own.note_written(folder)
        # Repeating a run means neither replacing nor continuing it.
        repeatable = replace(self.config, overwrite_output_dir=False, resume_from_checkpoint=None)
        here = self.accelerator
        processes = "1 process" if here.num_processes == 1 else f"{here.num_processes} processes"
        launched = f"# mixed precision {here.mixed_precision}, {processes}, on a {here.device.type}\n"
        write_text(folder / "run.yaml", launched + to_yaml(repeatable))
        if _trackers(self.config):
            own.note_written(folder, [own.TRACKED_AS])
            if (folder / own.TRACKED_AS).is_symlink():  # TensorBoard would write through it
                remove(folder / own.TRACKED_AS)
        return None

    def save_model(self, model: Any, tokenizer: Any) -> None:
        """Writes the model, without its wrappers, and the tokenizer as `from_pretrained` expects them.

        Raises:
            OSError: with the number ENOSPC if the disk is full; no half-written file is left.
        """
        weights = weights_of(self.accelerator, model)
        if self.accelerator.is_main_process:
            beside = self.output_dir / ".model.writing"
            remove(beside)
            beside.mkdir()
            try:
                unwrapped(self.accelerator, model).save_pretrained(beside, state_dict=weights)
                tokenizer.save_pretrained(beside)
            except BaseException as error:
                remove(beside)
                if is_full_disk(error):
                    raise OSError(errno.ENOSPC, f"{self.output_dir}: no room for the trained model") from error
                raise
            match_modes(beside)
            written = [path for path in beside.rglob("*") if path.is_file()]
            own.note_written(self.output_dir, [path.relative_to(beside).as_posix() for path in written])
            for path in written:
                sync(path)
            for path in beside.iterdir():
                path.replace(self.output_dir / path.name)
            beside.rmdir()
            sync(self.output_dir)
        self.accelerator.wait_for_everyone()

    def finish(self, results: dict[str, float], history: list[dict[str, float]]) -> RunResult:
        """Writes `all_results.json`, ends the trackers, and uploads the folder if `--push_to_hub` is given."""
        if self.accelerator.is_main_process:
            write_text(self.output_dir / "all_results.json", json.dumps(results, indent=2) + "\n")
        if not any(key.startswith(("eval_", "test_")) for key in results):
            self.print(_without_scores(results, history))
        self.accelerator.wait_for_everyone()
        if _trackers(self.config):
            self.accelerator.end_training()
        self.release()
        if self.config.push_to_hub and self.accelerator.is_main_process:
            from huggingface_hub import HfApi

            name = self.config.hub_model_id or self.output_dir.resolve().name
            url = HfApi().create_repo(name, exist_ok=True)
            HfApi().upload_folder(
                repo_id=url.repo_id,
                folder_path=self.output_dir,
                ignore_patterns=["checkpoint-*", ".*", f"{own.TRACKED_AS}/**"],
            )
        return RunResult(self.output_dir, results, history)


def with_defaults(config: Any, *, learning_rate: float, num_train_epochs: float, metric: str | None) -> Any:
    """Fills in the flags of a recipe's config whose default depends on the model.

    Args:
        learning_rate, num_train_epochs, metric: the values for flags that are not given.

    Raises:
        ValueError: for a value whose type is not that of its flag.
    """
    resume = str(config.resume_from_checkpoint or "false")  # from Python it may also be True
    config = typed(replace(config, resume_from_checkpoint=resume))
    return replace(
        config,
        learning_rate=learning_rate if config.learning_rate is None else config.learning_rate,
        num_train_epochs=num_train_epochs if config.num_train_epochs is None else config.num_train_epochs,
        train_sampling_strategy=config.train_sampling_strategy
        or ("group_by_length" if config.tokens_per_batch else "random"),
        resume_from_checkpoint=None if resume.lower() == "false" else resume,
        metric_for_best_model=config.metric_for_best_model or metric,
        load_best_model_at_end=config.load_best_model_at_end and config.eval_strategy != "no",
    )


def start_run(config: Any, *, metrics: Sequence[str]) -> Run:
    """Sets up Accelerate and the seed, and refuses flags that make no sense, before any data is read.

    Args:
        config: as `with_defaults` returns it.
        metrics: the names that `--metric_for_best_model` may have.

    Raises:
        ValueError: naming the flag. Also if the checkpoint to resume from is damaged, or belongs to another run.
    """
    _changed.close()  # undoes the changes of an earlier run that failed in this process
    _check_flags(config)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError(
            "DeepSpeed takes the optimizer's step inside the backward pass, where a loss that is NaN cannot stop it, "
            "and pickles its checkpoints, which are not loaded here; to shard a model, launch with "
            "recipes/configs/accelerate/fsdp.yaml"
        )
    if config.metric_for_best_model not in (None, *metrics):
        raise ValueError(f"--metric_for_best_model {config.metric_for_best_model}: choose from {', '.join(metrics)}")
    _check_trackers(_trackers(config))
    _check_output_dir(config)
    if config.push_to_hub:
        _check_hub()
    end_with_launcher()
    # Huge pages make a CPU a tenth faster, if nothing has been allocated yet (benchmarks/README.md).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # The replacement that this warning names still copies the buffers at the start, without a flag (accelerate 1.15).
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    accelerator = Accelerator(
        # Without this, processes that torchrun starts on a machine without a GPU do not find each other.
        cpu=not torch.accelerator.is_available(),
        # Accumulation is done in steps.py, where the number of targets is known.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=_trackers(config) or None,
        project_config=ProjectConfiguration(project_dir=config.output_dir),
        kwargs_handlers=[
            # The buffers are constants; processes may run different numbers of micro-batches between steps.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=LONG_WAIT),
        ],
    )
    if config.auto_find_batch_size and accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            "--auto_find_batch_size: under FSDP the processes wait for each other in every layer, so none can begin "
            "a step again; a smaller --per_device_train_batch_size with more --gradient_accumulation_steps makes the "
            "same step"
        )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError(
            "--mixed_precision fp16: on a CPU this would train in float32; give bf16 or no to accelerate launch"
        )
    if accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu" and not cpu_has_bf16():
        logger.warning(
            "mixed precision bf16: this processor has neither avx512_bf16 nor AMX; a product of matrices in bfloat16 "
            "takes %.0f times as long here as in float32. Give --mixed_precision no to accelerate launch",
            bf16_slowdown(),
        )
    accelerator.wait_for_everyone()  # no process may create the folder while another one checks it
    _changed.callback(turn_bars_off())  # hides bars for files that are written in no time
    if config.full_determinism:
        if "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"  # both cuBLAS and cuDNN's LSTM accept this
            _changed.callback(os.environ.pop, "CUBLAS_WORKSPACE_CONFIG", None)
        _changed.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
    set_seed(config.seed, deterministic=config.full_determinism)
    run = Run(config, accelerator)
    if accelerator.device.type == "cuda":
        _changed.callback(use_tf32(config.tf32))
        run.print(f"products in float32: {'TF32; --tf32 false is more exact' if config.tf32 else 'all 23 bits'}")
    if (mistake := run.on_one_process(lambda: _busy(run.output_dir))) is not None:
        raise ValueError(mistake)
    run.checkpoint, told = checkpoint_to_resume(config, accelerator)
    if told:
        run.print(*told)
    return run


def _without_scores(results: dict[str, float], history: list[dict[str, float]]) -> str:
    """The line at the end of a run whose data has neither a validation nor a test split."""
    losses = [line["loss"] for line in history if "loss" in line]
    parts = [f"{results['train_steps']:,} steps"] if "train_steps" in results else []
    parts += [f"loss {losses[-1]:.4f} over the last ones"] if losses else []
    parts += [f"{results['train_runtime']:,.1f} s", "no score: there is no --validation_file and no --test_file"]
    return f"train: {'  '.join(parts)}"


def use_tf32(use: bool) -> Callable[[], None]:
    """Sets whether a GPU may use TF32 for float32.

    This covers matrix products, and cuDNN's recurrent layers and convolutions. Torch's default is no for matrix
    products, and yes for cuDNN.

    Returns:
        A function that restores both settings.
    """
    products, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    def put_back() -> None:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = cudnn

    torch.set_float32_matmul_precision("high" if use else "highest")
    torch.backends.cudnn.allow_tf32 = use
    return put_back


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def bf16_slowdown() -> float:
    """How many times as long a linear layer takes in bfloat16 as in float32 on this processor. Takes 0.1 s."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.ones(256, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
        torch.nn.functional.linear(x, weight)
        began = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times[dtype] = time.perf_counter() - began
    return times[torch.bfloat16] / times[torch.float32]


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


def _trackers(config: TrainingArguments) -> list[str]:
    return [name.strip() for name in config.report_to.split(",") if name.strip() not in ("", "none")]


def _check_trackers(names: Sequence[str]) -> None:
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


def _check_flags(config: TrainingArguments) -> None:
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
    for name in ("tokens_per_batch", "max_train_samples", "max_eval_samples", "early_stopping_patience"):
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
    if config.load_best_model_at_end:
        if config.save_strategy != config.eval_strategy:
            raise ValueError(
                "--load_best_model_at_end needs a checkpoint at each evaluation: give --save_strategy the value of "
                f"--eval_strategy ({config.eval_strategy}), or --load_best_model_at_end false"
            )
        if config.save_strategy == "steps" and config.eval_steps % config.save_steps:
            raise ValueError(
                f"--eval_steps {config.eval_steps}: --load_best_model_at_end needs a checkpoint at each evaluation, "
                f"so give a multiple of --save_steps ({config.save_steps})"
            )
    if config.early_stopping_patience is not None and config.eval_strategy == "no":
        raise ValueError("--early_stopping_patience needs evaluations: give --eval_strategy epoch or steps")


def _check_output_dir(config: TrainingArguments) -> None:
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


def _busy(folder: Path) -> str | None:
    """Why this process may not write in a run's folder, or None. The lock itself is taken later."""
    try:
        own.check_unlocked(folder)
    except ValueError as error:
        return str(error)
    return None


def _check_hub() -> None:
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:
        raise ValueError(f"--push_to_hub: no access to the Hub: {str(error).strip().splitlines()[0]}") from error
