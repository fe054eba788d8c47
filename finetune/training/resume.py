"""Finds the checkpoint to resume from, and checks the flags: a resumed run ends as if it had never been stopped.

All flags must be those of the checkpoint's run, except the flags that are named here. So a new flag counts as one
that changes the training, until somebody adds it here.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from finetune.config_files import read_settings
from finetune.training.manifest import damage
from finetune.training.saving import checkpoints, weights_folder

# These may be changed freely: the steps stay the same.
_FREE = {
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "dataloader_num_workers",
    "gradient_checkpointing",
    "report_to",
    "push_to_hub",
    "hub_model_id",
    "disable_tqdm",
    "dry_run",
    "teacher_cache",
    "save_adapter",
    "data_license",
}
# With these the training stays the same, but not every byte of every file. A line says so.
_TOLD = {
    "auto_find_batch_size",
    "padding_free",
    "per_device_eval_batch_size",
    "logging_steps",
    "load_best_model_at_end",
    "average_checkpoints",
}
# How a step is cut. The product of these and the number of processes must stay the same.
_CUT = {"per_device_train_batch_size", "tokens_per_batch", "gradient_accumulation_steps"}
_LENGTH = {"num_train_epochs", "max_steps"}


def find_checkpoint(output_dir: Path, flag: str | None) -> tuple[Path | None, list[str]]:
    """Finds the checkpoint that `--resume_from_checkpoint` means: a folder, or with `true` the newest undamaged one.

    Returns:
        The folder, or None if there is none, with a line that says so; and a line for each newer checkpoint that is
        damaged.

    Raises:
        ValueError: for a folder that is no checkpoint, or a damaged one. The message names the newest undamaged
            checkpoint beside it.
    """
    if flag is None:  # `with_defaults` turns `false` into None
        return None, []
    if flag.lower() == "true":
        passed_over = [
            f"{path} is passed over: it is a link; name the folder itself"
            for path in sorted(output_dir.glob("checkpoint-*"))
            if path.is_symlink()
        ]
        for folder in reversed(checkpoints(output_dir)):
            if (reason := damage(folder)) is None:
                return folder, passed_over
            passed_over.append(f"{folder} is passed over: {reason}")
        left = "no whole checkpoint is left" if passed_over else f"no checkpoint in {output_dir}"
        return None, [*passed_over, f"{left}: from the start"]
    folder = Path(flag)
    if not (folder / "state.json").is_file() and not (folder / "manifest.json").is_file():
        raise ValueError(
            f"--resume_from_checkpoint {flag}: no checkpoint here (a folder with a state.json), nor is it 'true'"
        )
    if reason := damage(folder):
        others = (other for other in reversed(checkpoints(folder.absolute().parent)) if not _same(other, folder))
        whole = next((folder.parent / other.name for other in others if damage(other) is None), None)
        offer = f"the newest whole one is {whole}" if whole else "there is no whole one beside it"
        raise ValueError(f"--resume_from_checkpoint {flag}: {reason}; {offer}")
    return folder, []


def training_of(config: Any, accelerator: Accelerator) -> dict[str, Any]:
    """What a checkpoint saves about its run, as JSON. A resumed run compares itself with it."""
    return {
        "flags": asdict(config),
        "processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
    }


def checkpoint_to_resume(config: Any, accelerator: Accelerator) -> tuple[Path | None, list[str]]:
    """The checkpoint that the flags ask for, and lines to print about it. The main process decides for all.

    Raises:
        ValueError: if the checkpoint cannot be used, or a flag would make this another run.
    """
    found: list[Any] = [None, [], None]
    if accelerator.is_main_process:
        try:
            folder, told = find_checkpoint(Path(config.output_dir), config.resume_from_checkpoint)
            if folder is not None:
                told += _compare(folder, config, accelerator)
            if folder is None or not _same(folder.absolute().parent, Path(config.output_dir)):
                _check_replaced(config)
            found = [folder, told, None]
        except ValueError as error:
            found[2] = str(error)
    folder, told, mistake = broadcast_object_list(found)
    if mistake is not None:
        raise ValueError(mistake)
    return folder, told


def _check_replaced(config: Any) -> None:
    """Refuses to write over a run that had other flags, if this run does not continue one of its checkpoints."""
    path = Path(config.output_dir) / "run.yaml"
    if config.resume_from_checkpoint is None or not path.exists():
        return
    try:
        there = read_settings(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: does not tell of a run; give another --output_dir") from error
    if "output_dir" not in there:  # every run.yaml has it
        raise ValueError(f"{path}: does not tell of a run; give another --output_dir")
    changed = _changed({field.name: field.default for field in fields(config)} | there, asdict(config))
    others = [f"--{name} was {_shown(a)} there" for name, (a, _) in changed.items() if name not in _FREE | _TOLD]
    if others:
        raise ValueError(
            f"--output_dir {config.output_dir}: holds another run ({', '.join(others)}), which would be lost; give "
            "another folder"
        )


def missing_weights(folder: Path, step: int) -> str:
    """What to say where the weights of one of the best evaluations are needed and are not in `folder`."""
    return (
        f"the best checkpoint so far, checkpoint-{step}, is not in {folder}; put it back, or give "
        "--load_best_model_at_end false"
    )


def finished_mean(folder: Path) -> int | None:
    """How many weights the model of a finished run is the mean of. None if it has not finished, or took no mean."""
    try:
        results = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
        found = results.get("averaged_checkpoints")
    except (OSError, ValueError, AttributeError):
        return None
    return int(found) if found and (folder / "model.safetensors").is_file() else None


def check_data(checkpoint: Path, old: tuple[int, str], new: tuple[int, str]) -> None:
    """Refuses data that differ from the checkpoint's data, although the flags are the same.

    Args:
        old, new: the number of steps, and the digest of the rows.
    """
    if old != new:
        how = f"its run had {old[0]} steps and the same flags give {new[0]} now, so " if old[0] != new[0] else ""
        raise ValueError(
            f"--resume_from_checkpoint {checkpoint}: {how}the data, or what the tokenizer makes of it, has changed "
            "since; put back what it was, or begin a new run in another folder"
        )


def check_base(checkpoint: Path, old: str, new: str) -> None:
    """Refuses another model under the same name, if a checkpoint holds only what trains.

    Args:
        old, new: the digests of the other weights.
    """
    if old != new:
        raise ValueError(
            f"--resume_from_checkpoint {checkpoint}: it holds only what trains, and the other weights, those of "
            "--model_name_or_path, have changed since; put back what they were, or begin a new run in another folder"
        )


def check_metric(checkpoint: Path | None, metric: str) -> None:
    """Refuses a checkpoint whose run chose by another score than the task's own, where no flag names one."""
    if checkpoint is None:
        return
    flags = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["run"]["flags"]
    if (there := flags.get("metric_for_best_model")) not in (None, metric):
        raise ValueError(
            f"--resume_from_checkpoint {checkpoint}: --metric_for_best_model is {metric} and was {there}: give what "
            "it was, or begin a new run in another folder"
        )


def _compare(folder: Path, config: Any, accelerator: Accelerator) -> list[str]:
    """Lines about the differences between the checkpoint's run and this one. ValueError if they may not differ so."""
    new = training_of(config, accelerator)
    try:
        state = json.loads((folder / "state.json").read_text())
        old = state["run"]
        defaults = {field.name: field.default for field in fields(config)}
        changed = _changed(defaults | old["flags"], new["flags"])  # a flag that is newer than the run: its default
        cuts = [_cut(side) for side in (old, new)]
        best = [] if state["best_step"] is None else [int(state["best_step"])]
        best += [int(step) for _, step in state.get("ranked", [])[1 : config.average_checkpoints or 1]]
        trained = state["step"] >= state["total_steps"]
        trained = trained or state["evaluations_since_best"] >= (config.early_stopping_patience or math.inf)
        precisions = [side["mixed_precision"] for side in (old, new)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"--resume_from_checkpoint {folder}: its state.json does not tell of its run") from error

    where = f"--resume_from_checkpoint {folder}"
    others = {name: values for name, values in changed.items() if name not in _FREE | _TOLD | _CUT}
    if others:
        differences = ", ".join(f"--{name} is {_shown(b)} and was {_shown(a)}" for name, (a, b) in others.items())
        longer = "; a run of another length has another schedule" if others.keys() & _LENGTH else ""
        raise ValueError(f"{where}: {differences}{longer}: give what it was, or begin a new run in another folder")
    if precisions[0] != precisions[1]:
        raise ValueError(
            f"{where}: mixed precision is {precisions[1]} and was {precisions[0]}: give --mixed_precision "
            f"{precisions[0]} to accelerate launch"
        )
    (unit, old_step, old_words), (new_unit, new_step, new_words) = cuts
    if (unit, old_step) != (new_unit, new_step):
        raise ValueError(f"{where}: a step is {new_words} and was {old_words}: give what makes the same step")
    if config.load_best_model_at_end and best:
        _check_best_weights(folder, best, trained, config)
    told = []
    if old_words != new_words:
        told.append(
            f"a step is {new_words} and was {old_words}: it holds the same rows, so the training goes on, but not to "
            "the same last digits"
        )
    if some := sorted(changed.keys() & _TOLD):
        names = ", ".join(f"--{name}" for name in some)
        told.append(f"{names}: not as before, so the files of this run may differ from those of one never stopped")
    return told


def _check_best_weights(checkpoint: Path, best: list[int], trained: bool, config: Any) -> None:
    """Refuses a checkpoint if weights are not there that its run needs at the end: now, not after hours of training.

    Args:
        best: the steps of the best evaluations; only those that are needed.
        trained: nothing is left but to load them.
    """
    where = f"--resume_from_checkpoint {checkpoint}"
    here = checkpoint.absolute().parent
    folders = [here, Path(config.output_dir)]
    path = weights_folder(folders, best[0])
    if path is None:
        raise ValueError(f"--resume_from_checkpoint: {missing_weights(folders[-1], best[0])}")
    if reason := _damaged_weights(path):
        raise ValueError(
            f"{where}: the best checkpoint so far, {path}, is damaged: {reason}; give --load_best_model_at_end "
            "false, or an older checkpoint"
        )
    if trained and finished_mean(here) is not None:  # the model of that run is the mean
        return
    for step in best[1:]:
        path = weights_folder(folders, step)
        reason = "they are not there" if path is None else _damaged_weights(path)
        if reason:
            raise ValueError(
                f"{where}: --average_checkpoints {config.average_checkpoints} needs the weights after step {step} in "
                f"{path or folders[-1]}: {reason}; put them back, or give --average_checkpoints 1"
            )


def _damaged_weights(folder: Path) -> str | None:
    """As `damage`. Of a checkpoint that has only its weights left, these are checked."""
    return damage(folder, "model.safetensors" if folder.name.endswith("-weights") else None)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The flags that differ, with the old value and the new one."""
    # If no flag names a metric, the task chooses its own again. The old run has written down the chosen one.
    mine = {name: value for name, value in new.items() if (name, value) != ("metric_for_best_model", None)}
    return {
        name: (old[name], value) for name, value in mine.items() if old[name] != value and not _same(old[name], value)
    }


def _same(old: Any, new: Any) -> bool:
    """Whether two values name the same file, as a relative and an absolute path may do."""
    if not isinstance(old, str | Path) or not isinstance(new, str | Path):  # a number would be a file descriptor
        return False
    try:
        return os.path.samefile(old, new)
    except (OSError, ValueError):
        return False


def _cut(run: Mapping[str, Any]) -> tuple[str, int, str]:
    """The unit that a step is counted in, the number of units in a step, and both in words."""
    flags, processes = run["flags"], run["processes"]
    unit = "tokens_per_batch" if flags["tokens_per_batch"] else "per_device_train_batch_size"
    parts = (int(flags[unit]), int(flags["gradient_accumulation_steps"]), int(processes))
    words = "--{} {} x --gradient_accumulation_steps {} x {} process{}".format(
        unit, *parts, "" if processes == 1 else "es"
    )
    return unit, parts[0] * parts[1] * parts[2], words


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
