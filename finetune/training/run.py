"""A run: its processes, its seed, its folder."""

import errno
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    broadcast_object_list,
    set_seed,
)

from finetune.cli import turn_bars_off
from finetune.config_files import to_yaml
from finetune.files import match_modes, printable, remove, sync, write_text
from finetune.from_python import typed
from finetune.training import folder as own
from finetune.training.checks import check_flags, check_hub, check_output_dir, check_trackers, trackers
from finetune.training.precision import bf16_slowdown, cpu_has_bf16, use_tf32
from finetune.training.resume import checkpoint_to_resume
from finetune.training.saving import is_full_disk, remove_weights, unwrapped, weights_of
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

    @classmethod
    def read(cls, folder: str | Path) -> "RunResult":
        """The result of a finished run, from its folder, such as after `notebook_launcher`, which returns nothing.

        Raises:
            ValueError: if the folder is not that of a finished run.
        """
        results, history = Path(folder, "all_results.json"), Path(folder, "history.jsonl")
        if not results.is_file():
            raise ValueError(f"{folder}: no finished run; a run's folder has all_results.json")
        lines = history.read_text(encoding="utf-8").splitlines() if history.is_file() else []
        return cls(
            Path(folder), json.loads(results.read_text(encoding="utf-8")), [json.loads(line) for line in lines]
        )


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
            check_output_dir(self.config)  # again, now that nobody else can change it
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
        if trackers(self.config):
            own.note_written(folder, [own.TRACKED_AS])
            if (folder / own.TRACKED_AS).is_symlink():  # TensorBoard would write through it
                remove(folder / own.TRACKED_AS)
        return None

    def save_model(self, model: Any, tokenizer: Any, adapter: Callable[[Path], None] | None = None) -> None:
        """Writes the model, without its wrappers, and the tokenizer as `from_pretrained` expects them.

        Args:
            adapter: if given, it writes an adapter into the folder `adapter` beside them.

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
                if adapter is not None:
                    (beside / "adapter").mkdir()
                    adapter(beside / "adapter")
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
                if path.is_dir():  # a run that is resumed at its end has one already
                    remove(self.output_dir / path.name)
                path.replace(self.output_dir / path.name)
            beside.rmdir()
            sync(self.output_dir)
        self.accelerator.wait_for_everyone()

    def finish(self, results: dict[str, float], history: list[dict[str, float]]) -> RunResult:
        """Writes `all_results.json`, ends the trackers, and uploads the folder if `--push_to_hub` is given."""
        if self.accelerator.is_main_process:
            write_text(self.output_dir / "all_results.json", json.dumps(results, indent=2) + "\n")
            remove_weights(self.output_dir)  # last: a run that is killed before this needs them again
        if not any(key.startswith(("eval_", "test_")) for key in results):
            self.print(_without_scores(results, history))
        self.accelerator.wait_for_everyone()
        if trackers(self.config):
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


def with_defaults(
    config: Any, *, learning_rate: float, num_train_epochs: float, metric: str | None, warmup_steps: float = 0.0
) -> Any:
    """Fills in the flags of a recipe's config whose default depends on the model.

    Args:
        learning_rate, num_train_epochs, metric, warmup_steps: the values for flags that are not given.

    Raises:
        ValueError: for a value whose type is not that of its flag.
    """
    resume = str(config.resume_from_checkpoint or "false")  # from Python it may also be True
    config = typed(replace(config, resume_from_checkpoint=resume))
    return replace(
        config,
        learning_rate=learning_rate if config.learning_rate is None else config.learning_rate,
        num_train_epochs=num_train_epochs if config.num_train_epochs is None else config.num_train_epochs,
        warmup_steps=warmup_steps if config.warmup_steps is None else config.warmup_steps,
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
    check_flags(config)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError(
            "DeepSpeed takes the optimizer's step inside the backward pass, where a loss that is NaN cannot stop it, "
            "and pickles its checkpoints, which are not loaded here; to shard a model, launch with "
            "recipes/configs/accelerate/fsdp.yaml"
        )
    if config.metric_for_best_model not in (None, *metrics):
        raise ValueError(f"--metric_for_best_model {config.metric_for_best_model}: choose from {', '.join(metrics)}")
    check_trackers(trackers(config))
    check_output_dir(config)
    if config.push_to_hub:
        check_hub()
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
        log_with=trackers(config) or None,
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
    if config.lora_r is not None and accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            "--lora_r: a model that FSDP has cut into parts cannot be merged with LoRA; launch with "
            "recipes/configs/accelerate/many_gpus.yaml, where each process has the whole model"
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


def where(run: Run, model: Any) -> str:
    """One line: the device, the processes, the precision, the model and its parameters."""

    def number(n: int, what: str) -> str:
        return f"{n:,} {what}" if n == 1 else f"{n:,} {what}{'es' if what.endswith('s') else 's'}"

    here = run.accelerator
    device = number(torch.get_num_threads(), "thread")
    if here.device.type == "cuda":
        device = torch.cuda.get_device_name(here.device)
    precision = {"no": "float32"}.get(here.mixed_precision, here.mixed_precision)
    name = getattr(run.config, "config_name", None) or run.config.model_name_or_path
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{here.device.type} ({device}), {number(here.num_processes, 'process')}, {precision}: {name}, "
        f"{parameters:,} parameters"
    )


def _without_scores(results: dict[str, float], history: list[dict[str, float]]) -> str:
    """The line at the end of a run whose data has neither a validation nor a test split."""
    losses = [line["loss"] for line in history if "loss" in line]
    parts = [f"{results['train_steps']:,} steps"] if "train_steps" in results else []
    parts += [f"loss {losses[-1]:.4f} over the last ones"] if losses else []
    parts += [f"{results['train_runtime']:,.1f} s", "no score: there is no --validation_file and no --test_file"]
    return f"train: {'  '.join(parts)}"


def _busy(folder: Path) -> str | None:
    """Why this process may not write in a run's folder, or None. The lock itself is taken later."""
    try:
        own.check_unlocked(folder)
    except ValueError as error:
        return str(error)
    return None
