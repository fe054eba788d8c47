"""The precision of a run. The saved model's config names it, so that a prediction computes in the same precision."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def note_precision(accelerator: Accelerator, model: Any) -> None:
    """Writes `mixed_precision` into the model's config. A float32 run leaves no such key."""
    vars(model.config).pop("mixed_precision", None)  # left by an earlier run that trained this model
    if accelerator.mixed_precision != "no":
        model.config.mixed_precision = accelerator.mixed_precision


def prepare_to_predict(model: Any, device: torch.device) -> Any:
    """Puts a model on `device` and lets it compute in the precision of its run, so that it gives the same results.

    `accelerate launch --mixed_precision` and `ACCELERATE_MIXED_PRECISION` override this. A model whose config names
    no precision computes in float32. On a CPU, a model of a float16 run computes in float32 too.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION") or getattr(model.config, "mixed_precision", "no")
    dtype = _DTYPES.get(str(asked))
    model = model.to(device)
    if dtype is not None and (device.type != "cpu" or dtype is torch.bfloat16):
        # Accelerate does the same in training.
        model.forward = convert_outputs_to_fp32(torch.autocast(device.type, dtype)(model.forward))
    return model


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
