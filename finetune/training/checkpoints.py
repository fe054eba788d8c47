"""Checkpoints that appear whole or not at all, and load without running code from a file.

| file | holds |
|---|---|
| `model.safetensors`, `config.json`, tokenizer files | the model, as `from_pretrained` expects it |
| `optimizer.safetensors`, `optimizer.json` | AdamW's state by parameter name, and its groups |
| `random.safetensors` | the random generators of each process |
| `state.json` | where the run stands, the schedule |
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import state_dict as distributed

_NAME = re.compile(r"checkpoint-(\d+)")
_FULL = distributed.StateDictOptions(full_state_dict=True, cpu_offload=True)


def checkpoints(output_dir: Path) -> list[Path]:
    """The whole checkpoints of a run, the oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=_step)


def find_checkpoint(output_dir: Path, flag: str | None) -> Path | None:
    """What `--resume_from_checkpoint` means: a folder, or with `true` the newest one, None if there is none."""
    if flag is None:  # what start_run makes of `false` too
        return None
    if flag.lower() == "true":
        return next(reversed(checkpoints(output_dir)), None)
    if not (Path(flag) / "state.json").is_file():
        raise ValueError(
            f"--resume_from_checkpoint {flag}: no checkpoint here (a folder with a state.json), nor is it 'true'"
        )
    return Path(flag)


def save_checkpoint(
    folder: Path,
    accelerator: Accelerator,
    model: torch.nn.Module,
    tokenizer: Any,
    optimizer: Any,
    state: dict[str, Any],
) -> None:
    """Writes a checkpoint beside its place, syncs it to the disk, and renames it. All processes take part."""
    weights = accelerator.get_state_dict(model)
    optimizer_state = distributed.get_optimizer_state_dict(model, _inner(optimizer), options=_FULL)
    random = gather_object([{"cpu": torch.get_rng_state(), **_cuda_random()}])
    if accelerator.is_main_process:
        beside = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        accelerator.unwrap_model(model).save_pretrained(beside, state_dict=weights)
        tokenizer.save_pretrained(beside)
        tensors, rest = _split(optimizer_state)
        save_file(tensors, beside / "optimizer.safetensors")
        (beside / "optimizer.json").write_text(json.dumps(rest))
        save_file(
            {f"{rank}.{kind}": value for rank, kinds in enumerate(random) for kind, value in kinds.items()},
            beside / "random.safetensors",
        )
        if accelerator.scaler is not None:
            state = state | {"scaler": accelerator.scaler.state_dict()}
        (beside / "state.json").write_text(json.dumps(state, indent=2))
        for path in (*beside.iterdir(), beside):
            _sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        _sync(folder.parent)
    accelerator.wait_for_everyone()


def load_checkpoint(folder: Path, accelerator: Accelerator, model: torch.nn.Module, optimizer: Any) -> dict[str, Any]:
    """Puts model, optimizer and random generators back to where they were, and returns the saved state."""
    try:
        state = json.loads((folder / "state.json").read_text())
        load_weights(folder, accelerator, model)
        joined = _join(
            load_file(folder / "optimizer.safetensors"), json.loads((folder / "optimizer.json").read_text())
        )
        distributed.set_optimizer_state_dict(model, _inner(optimizer), joined, options=_FULL)
        random = load_file(folder / "random.safetensors")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"--resume_from_checkpoint {folder}: no whole checkpoint of this model: {reason}") from error
    rank = accelerator.process_index
    if f"{rank}.cpu" in random:
        torch.set_rng_state(random[f"{rank}.cpu"])
        if torch.cuda.is_available() and f"{rank}.cuda" in random:
            torch.cuda.set_rng_state(random[f"{rank}.cuda"])
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])
    return state


def load_weights(folder: Path, accelerator: Accelerator, model: torch.nn.Module) -> None:
    """Loads `model.safetensors` into the model, wrapped or not."""
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    # save_pretrained drops the names of tied weights, of which the first one stands for all.
    strict = not getattr(accelerator.unwrap_model(model), "all_tied_weights_keys", None)
    options = distributed.StateDictOptions(full_state_dict=True, strict=strict)
    distributed.set_model_state_dict(model, weights, options=options)


def remove_old_checkpoints(output_dir: Path, keep: int, best_step: int | None) -> None:
    """Leaves the newest `keep` checkpoints and the best one, and nothing that a killed run was writing."""
    for path in output_dir.glob(".checkpoint-*.writing"):
        shutil.rmtree(path)
    for path in checkpoints(output_dir)[:-keep]:
        if _step(path) != best_step:
            shutil.rmtree(path)


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)


def _split(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Optimizer state -> tensors by `parameter/name`, and what JSON can hold."""
    tensors = {
        f"{parameter}/{name}": value.contiguous()
        for parameter, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, {"param_groups": state["param_groups"]}


def _join(tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        parameter, name = key.rsplit("/", 1)
        state.setdefault(parameter, {})[name] = value
    return {"state": state, **rest}


def _cuda_random() -> dict[str, torch.Tensor]:
    return {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
