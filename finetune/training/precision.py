"""The precision of a run. The saved model's config names it, so that a prediction computes in the same precision."""

import os
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
