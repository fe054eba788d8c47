"""A GPU that is pretended: tensors say `cuda` and are computed on the CPU.

So code takes its branches for CUDA without one, with real numbers, and three things are seen that a GPU would punish:
a CPU tensor beside a CUDA one in one operation (an error here as there), looks into the device's memory, which wait
for all that was asked of it, and copies to it. Not seen are kernels, their speed and their rounding, what only CUDA
has (attention of variable length), and backward passes, which autograd gives to threads of the device.

For a process of its own: nothing of this can be taken back.
"""

import ctypes
import subprocess
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

ROOT = Path(__file__).parents[1]
GUARD = """#include <c10/core/impl/DeviceGuardImplInterface.h>
C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>)
"""
aten = torch.ops.aten
looks: Counter[str] = Counter()  # by the line that looks
copies: Counter[str] = Counter()  # to the device

# What must know the numbers before it can go on. (Indexing by bool tensors does, too.)
_LOOKS = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique_consecutive", "unique_dim", "_unique", "_unique2",
    "equal", "bincount", "repeat_interleave",
}  # fmt: skip
_ANY_DEVICE = {"_to_copy", "copy_", "set_", "_has_same_storage_numel", "_pack_padded_sequence"}


def compile_guard(folder: Path) -> Path:
    """Builds what tells torch, without CUDA, that a device of this kind may be named."""
    source, built = folder / "guard.cpp", folder / "guard.so"
    source.write_text(GUARD)
    torch_folder = Path(torch.__file__).parent
    command = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{torch_folder}/include", str(source), "-o", str(built)]
    subprocess.run([*command, f"-L{torch_folder}/lib", "-lc10"], check=True, capture_output=True, text=True)
    return built


def pretend(guard: Path) -> None:
    """From here on this process has a GPU."""
    ctypes.CDLL(str(guard))
    torch.cuda.is_available = lambda: True
    torch.cuda.is_bf16_supported = lambda *_: True
    torch.cuda.current_device = lambda: 0
    torch.cuda._lazy_init = lambda: None
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(..., device="cuda") passes by what is below
    Pretended().__enter__()


class OnGpu(torch.Tensor):
    """Says `cuda`; its numbers are in `on_cpu`."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, on_cpu: torch.Tensor) -> "OnGpu":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            on_cpu.shape,
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device="cuda:0",
        )
        made.on_cpu = on_cpu
        return made

    def __repr__(self) -> str:
        return f"OnGpu({self.on_cpu})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def tolist(self) -> Any:  # torch reads a subclass number by number
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Pretended(TorchDispatchMode):
    """Also sees the operations that make tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _lstm_cell(ours: Any, before: Any, cell: Any, bias: Any = None, bias_before: Any = None) -> tuple[Any, ...]:
    """What torch has for CUDA alone."""
    gates = ours + before + (0 if bias is None else bias + bias_before)
    i, f, g, o = gates.chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell, gates


_KERNELS = {"_thnn_fused_lstm_cell": _lstm_cell}


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in given if isinstance(x, OnGpu)]
    asked = kwargs.get("device")
    to_gpu = asked is not None and torch.device(asked).type == "cuda"
    to_cpu = asked is not None and not to_gpu
    if not ours and not to_gpu:
        return func(*args, **kwargs)
    name = func.overloadpacket.__name__
    strangers = [x for x in given if not isinstance(x, OnGpu) and x.ndim]
    if ours and strangers and name not in _ANY_DEVICE:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu")
    _count(func, name, args, kwargs, ours, to_gpu, to_cpu)
    inner_args, inner_kwargs = tree_map_only(OnGpu, lambda x: x.on_cpu, (args, kwargs))
    if asked is not None:
        inner_kwargs = inner_kwargs | {"device": torch.device("cpu")}
        if name == "_to_copy" and not (to_cpu and ours):
            inner_kwargs["non_blocking"] = False
    if inner_kwargs.get("pin_memory"):
        inner_kwargs = inner_kwargs | {"pin_memory": False}
    found = _KERNELS.get(name, func)(*inner_args, **inner_kwargs)
    if name == "_pack_padded_sequence":  # the sizes stay in the computer's memory
        return OnGpu(found[0]), found[1]
    if to_cpu or (name == "copy_" and not isinstance(args[0], OnGpu)):
        return args[0] if name == "copy_" else found
    wrapped = tree_map_only(torch.Tensor, OnGpu, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _count(func: Any, name: str, args: Any, kwargs: Any, ours: list[Any], to_gpu: bool, to_cpu: bool) -> None:
    into = isinstance(args[0], OnGpu) if name == "copy_" else to_gpu
    look = bool(ours) and (
        name in _LOOKS or (name in ("_to_copy", "copy_") and not into and (to_cpu or name == "copy_"))
    )
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
        filled = name != "index" and args[2].numel() == 1 and len(masks) == len(args[1])  # a masked_fill
        look = bool(masks) and not filled
    if look:
        looks[_place()] += 1
    elif name in ("_to_copy", "copy_") and into:
        source = args[1] if name == "copy_" else args[0]
        if not isinstance(source, OnGpu) and source.numel() > 1:
            copies[_place()] += 1


def _place() -> str:
    """The innermost line of the project that is being run, without its number, which changes with any edit."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path != Path(__file__) and ".venv" not in path.parts:
            return f"{path.relative_to(ROOT)} {frame.name}"
    return "elsewhere"
