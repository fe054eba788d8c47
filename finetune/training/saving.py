"""Checkpoints. One appears whole or not at all, and loading it runs no code from a file.

| file | holds |
|---|---|
| `model.safetensors`, `config.json`, tokenizer files | the model, as `from_pretrained` expects it (*) |
| `optimizer.safetensors`, `optimizer.json` | AdamW's state by parameter name, and its groups |
| `random.safetensors` | the random generators of each process |
| `carried.safetensors` | the states that a recurrent language model carries from step to step, if it has any |
| `state.json` | how far the run has come, the schedule, the flags of the run |
| `history.jsonl` | the lines of the run so far |
| `manifest.json` | size and SHA-256 of all these (see `manifest.py`) |

(*) With LoRA, `model.safetensors` has only the weights that train. The run loads the others again.

While a run trains, `checkpoint-<step>-weights` may be what is left of a checkpoint: `model.safetensors` and
`manifest.json`. It cannot be resumed, but its weights are needed at the end (see `best.py`).
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import state_dict as distributed

from finetune.files import match_modes, remove, sync
from finetune.training.folder import note_written, remove_at_once, remove_unfinished
from finetune.training.manifest import MANIFEST, write_manifest

_NAME = re.compile(r"checkpoint-(\d+)")
_WEIGHTS = "checkpoint-{}-weights"
_KEPT = ("model.safetensors", MANIFEST)
_FULL = distributed.StateDictOptions(full_state_dict=True, cpu_offload=True)


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first. Each was whole when written; `damage` finds later damage."""
    found = [
        path
        for path in output_dir.glob("checkpoint-*")
        if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    return sorted(found, key=step_of)


def save_checkpoint(
    folder: Path,
    accelerator: Accelerator,
    model: torch.nn.Module,
    tokenizer: Any,
    optimizer: Any,
    state: dict[str, Any],
    history: list[dict[str, float]],
) -> None:
    """Writes a checkpoint under a temporary name, syncs it to the disk, and renames it. All processes take part.

    Raises:
        OSError: on every process, with the number ENOSPC, if the disk is full. The earlier checkpoints stay.
    """
    elsewhere = weights_elsewhere(accelerator, model)
    weights = {name: value for name, value in weights_of(accelerator, model).items() if name not in elsewhere}
    optimizer_state = distributed.get_optimizer_state_dict(model, _inner(optimizer), options=_FULL)
    random = gather_object([{"cpu": torch.get_rng_state(), **_cuda_random()}])
    carried = _carried(accelerator, model)
    full_disk = ""
    if accelerator.is_main_process:
        remove_unfinished(folder.parent)
        beside = folder.with_name(f".{folder.name}.writing")
        tensors, rest = _split(optimizer_state)
        try:
            beside.mkdir(parents=True)
            unwrapped(accelerator, model).save_pretrained(beside, state_dict=weights)
            tokenizer.save_pretrained(beside)
            save_file(tensors, beside / "optimizer.safetensors")
            (beside / "optimizer.json").write_text(json.dumps(rest))
            save_file(
                {f"{rank}.{kind}": value for rank, kinds in enumerate(random) for kind, value in kinds.items()},
                beside / "random.safetensors",
            )
            if carried is not None:
                save_file({"carried": carried}, beside / "carried.safetensors")
            if accelerator.scaler is not None:
                state = state | {"scaler": accelerator.scaler.state_dict()}
            (beside / "state.json").write_text(json.dumps(state, indent=2))
            (beside / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
            match_modes(beside)
            write_manifest(beside)
            written = [path for path in beside.rglob("*") if path.is_file()]
            for path in (*written, beside):
                sync(path)
            names = [path.relative_to(beside).as_posix() for path in written]
            note_written(folder.parent, [f"{folder.name}/{name}" for name in names])
        except BaseException as error:
            remove(beside)
            if not is_full_disk(error):
                raise
            full_disk = _no_room(folder, [*weights.values(), *tensors.values()])
        else:
            if folder.is_symlink() or folder.exists():  # the run was resumed from an older checkpoint than this one
                remove_at_once(folder)
            beside.rename(folder)
            sync(folder.parent)
    (full_disk,) = broadcast_object_list([full_disk])  # all processes also wait here for the main process
    if full_disk:
        raise OSError(errno.ENOSPC, full_disk)


def unwrapped(accelerator: Accelerator, model: Any) -> Any:
    """The model without the wrappers of processes and of `torch.compile`."""
    return accelerator.unwrap_model(model, keep_torch_compile=False)


def weights_of(accelerator: Accelerator, model: Any) -> dict[str, torch.Tensor]:
    """The whole `state_dict`, without the prefix that `torch.compile` adds to names. All processes take part."""
    # With unwrap=True, Accelerate would replace the wrapper of a compiled model by the bare model.
    bare = model if accelerator.distributed_type == DistributedType.FSDP else unwrapped(accelerator, model)
    weights = accelerator.get_state_dict(bare, unwrap=False)
    return {name.replace("_orig_mod.", ""): value for name, value in weights.items()}


def load_state(folder: Path) -> dict[str, Any]:
    """The `state` that `save_checkpoint` was called with."""
    try:
        return dict(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise _not_whole(folder, error) from error


def load_checkpoint(folder: Path, accelerator: Accelerator, model: torch.nn.Module, optimizer: Any) -> None:
    """Restores the model, the optimizer, carried states and the random generators from a checkpoint."""
    state = load_state(folder)
    bare = unwrapped(accelerator, model)
    try:
        load_weights(folder, accelerator, model)
        if (there := getattr(bare, "carried", None)) is not None and there.numel():
            there.copy_(load_file(folder / "carried.safetensors")["carried"])
        joined = _join(
            load_file(folder / "optimizer.safetensors"), json.loads((folder / "optimizer.json").read_text())
        )
        _load_optimizer(bare, model, _inner(optimizer), joined)
        random = load_file(folder / "random.safetensors")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _not_whole(folder, error) from error
    rank = accelerator.process_index
    if f"{rank}.cpu" in random:
        torch.set_rng_state(random[f"{rank}.cpu"])
        if torch.cuda.is_available() and f"{rank}.cuda" in random:
            torch.cuda.set_rng_state(random[f"{rank}.cuda"])
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])


def load_weights(folder: Path, accelerator: Accelerator, model: torch.nn.Module) -> None:
    """Loads `model.safetensors` into the model, wrapped or not."""
    set_weights(load_file(folder / "model.safetensors"), accelerator, model)


def set_weights(weights: Mapping[str, torch.Tensor], accelerator: Accelerator, model: torch.nn.Module) -> None:
    """Gives the model, wrapped or not, the weights of a whole `state_dict`, or of one that a checkpoint holds."""
    # save_pretrained keeps only the first name of tied weights.
    strict = not getattr(unwrapped(accelerator, model), "all_tied_weights_keys", None)
    elsewhere = weights_elsewhere(accelerator, model)
    options = distributed.StateDictOptions(full_state_dict=True, strict=strict and not elsewhere)
    found = distributed.set_model_state_dict(model, dict(weights), options=options)
    missing = [name for name in found.missing_keys if name.replace("_orig_mod.", "") not in elsewhere]
    if strict and (missing or found.unexpected_keys):
        raise RuntimeError(f"missing weights: {missing}; unknown weights: {found.unexpected_keys}")


def digest_of_elsewhere(accelerator: Accelerator, model: Any) -> str:
    """The SHA-256 of the weights that checkpoints leave out, or the empty string if there are none."""
    elsewhere = weights_elsewhere(accelerator, model)
    if not elsewhere:
        return ""
    digest, weights = hashlib.sha256(), unwrapped(accelerator, model).state_dict()
    for name in sorted(elsewhere):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_elsewhere(accelerator: Accelerator, model: Any) -> frozenset[str]:
    """The names of the weights that need not be in a checkpoint, because a run loads them from somewhere else."""
    names: frozenset[str] = getattr(unwrapped(accelerator, model), "weights_elsewhere", frozenset())
    return names


def remove_old_checkpoints(
    output_dir: Path, keep: int, best_step: int | None, step: int, averaged: Collection[int] = ()
) -> None:
    """Keeps the newest `keep` checkpoints up to `step`, the best one, and all those after `step`.

    Those after `step` come from a run that went further. They may be damaged, so they do not count as the newest.

    Args:
        averaged: of these steps, the weights stay.
    """
    for path in [path for path in checkpoints(output_dir) if step_of(path) <= step][:-keep]:
        if step_of(path) in averaged and step_of(path) != best_step:
            keep_only_weights(path)
        elif step_of(path) != best_step:
            remove_at_once(path)
    needed = {_WEIGHTS.format(number) for number in averaged}
    remove_weights(output_dir, step, but=needed)
    for name in needed:
        _remove_all_but_weights(output_dir / name)  # a killed run may have left other files


def keep_only_weights(checkpoint: Path) -> None:
    """Removes all files of a checkpoint but the weights. It is renamed first, so no half has a checkpoint's name."""
    folder = checkpoint.with_name(_WEIGHTS.format(step_of(checkpoint)))
    if folder.is_symlink() or folder.exists():
        remove_at_once(folder)
    checkpoint.rename(folder)
    sync(folder.parent)
    _remove_all_but_weights(folder)


def weights_folder(folders: Sequence[Path], step: int) -> Path | None:
    """The checkpoint after a step in one of these runs, or what is left of it; None if there is neither."""
    for folder in folders:
        for path in (folder / f"checkpoint-{step}", folder / _WEIGHTS.format(step)):
            if path.is_dir() and not path.is_symlink():
                return path
    return None


def remove_weights(output_dir: Path, step: int | None = None, but: Collection[str] = ()) -> None:
    """Removes what is left of checkpoints up to `step` (None: of all), except the folders named in `but`."""
    for path in output_dir.glob(_WEIGHTS.format("*")):
        found = _NAME.fullmatch(path.name.removesuffix("-weights"))
        if found and (step is None or int(found.group(1)) <= step) and path.name not in but:
            remove_at_once(path)


def _remove_all_but_weights(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
        if path.name not in _KEPT:
            remove(path)


def is_full_disk(error: BaseException) -> bool:
    """Whether a write failed because the disk is full. safetensors and tokenizers say this only in their message."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in numbers or any(f"(os error {number})" in str(error) for number in numbers)


def _load_optimizer(
    bare: torch.nn.Module, model: torch.nn.Module, optimizer: torch.optim.Optimizer, joined: dict[str, Any]
) -> None:
    """Sets the optimizer's state. A parameter that never got a gradient has no state.

    Raises:
        ValueError: if the state belongs to parameters that the model does not have, or has other shapes.
    """
    parameters = {name.replace("_orig_mod.", ""): value for name, value in bare.named_parameters()}
    for name, state in joined["state"].items():
        for value in state.values():
            shape = tuple(parameters[name].shape) if name in parameters else None
            if tuple(value.shape) not in ((), shape):
                here = "not in the model" if shape is None else f"{shape} in the model"
                raise ValueError(f"optimizer state of {name} is {tuple(value.shape)}, and the weight is {here}")
    options = distributed.StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)
    distributed.set_optimizer_state_dict(model, optimizer, joined, options=options)
    for name, parameter in parameters.items():
        if name not in joined["state"]:
            optimizer.state.pop(parameter, None)  # torch has created a state for it


def _not_whole(folder: Path, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())[:300]
    return ValueError(f"--resume_from_checkpoint {folder}: no whole checkpoint of this model: {reason}")


def _no_room(folder: Path, tensors: list[torch.Tensor]) -> str:
    storages = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in tensors}  # tied weights once
    needed, free = sum(storages.values()), shutil.disk_usage(folder.parent).free
    kept = checkpoints(folder.parent)
    stays = f"{kept[-1].name} is whole" if kept else "there is no checkpoint before it"
    return (
        f"{folder}: no room on the disk: a checkpoint takes {needed / 2**20:,.1f} MB and {free / 2**20:,.1f} MB are "
        f"free; {stays}; make room and go on with --resume_from_checkpoint true"
    )


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder, or -1."""
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


def _carried(accelerator: Accelerator, model: Any) -> torch.Tensor | None:
    """The carried states of all lanes. Process p of n has those of lanes p, p + n, ... (see `TrainBatches.plan`)."""
    own = getattr(unwrapped(accelerator, model), "carried", None)
    if own is None or not own.numel():
        return None
    tables = gather_object([own.cpu()])
    return torch.stack([tables[lane % len(tables)][lane] for lane in range(len(own))])


def _cuda_random() -> dict[str, torch.Tensor]:
    return {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
