"""The precision of a run: the model that it saves tells it, and whoever uses the model computes in it again."""

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def note_precision(accelerator: Accelerator, model: Any) -> None:
    """Writes `mixed_precision` into the model's config, where the run has one; a float32 run leaves no such key."""
    vars(model.config).pop("mixed_precision", None)  # of a run before, whose model goes on here
    if accelerator.mixed_precision != "no":
        model.config.mixed_precision = accelerator.mixed_precision


def prepare_to_predict(model: Any, device: torch.device) -> Any:
    """Puts a model on `device`, to compute as its run did: so it gives what the evaluation of the run gave.

    `accelerate launch --mixed_precision` and `ACCELERATE_MIXED_PRECISION` say otherwise. A model that tells nothing
    computes in float32, and on a CPU one of a float16 run does so, too.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION") or getattr(model.config, "mixed_precision", "no")
    dtype = _DTYPES.get(str(asked))
    model = model.to(device)
    if dtype is not None and (device.type != "cpu" or dtype is torch.bfloat16):
        # As Accelerate does it in training.
        model.forward = convert_outputs_to_fp32(torch.autocast(device.type, dtype)(model.forward))
    return model
