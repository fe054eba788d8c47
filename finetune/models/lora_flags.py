"""The flags of LoRA: which values make sense. This file does not import torch."""

import importlib.util
import math
from dataclasses import fields
from typing import Any

from finetune.arguments import TrainingArguments

ALL_LINEAR = "all-linear"


def lora_defaults() -> dict[str, Any]:
    """The flags of LoRA, with their defaults."""
    own = ("lora_", "save_adapter")
    return {field.name: field.default for field in fields(TrainingArguments) if field.name.startswith(own)}


def check_lora_flags(config: Any) -> None:
    """Refuses flags of LoRA that make no sense, before any data is read.

    Raises:
        ValueError: naming the flag. Also if peft is not installed.
    """
    if config.lora_r is None:
        for name, default in lora_defaults().items():
            if getattr(config, name) != default:
                raise ValueError(f"--{name}: it belongs to LoRA; give --lora_r, too, such as --lora_r 8")
        return
    if config.lora_r < 1:
        raise ValueError(f"--lora_r {config.lora_r}: the rank of a matrix is at least 1")
    if config.lora_alpha is not None and not 0 < config.lora_alpha < math.inf:
        raise ValueError(f"--lora_alpha {config.lora_alpha}: must be positive")
    if not 0 <= config.lora_dropout < 1:
        raise ValueError(f"--lora_dropout {config.lora_dropout}: must be at least 0 and below 1")
    if config.lora_target_modules is not None and not target_names(config):
        raise ValueError("--lora_target_modules: names no layer; give query,value or all-linear, or leave it out")
    if config.freeze_encoder:
        raise ValueError("--lora_r: it trains the encoder, and --freeze_encoder does not; leave out one of them")
    if importlib.util.find_spec("peft") is None:
        raise ValueError(
            '--lora_r: peft is not installed; the extra `lora` brings it: pip install "finetune-recipes[lora]"'
        )


def refuse_lora(config: Any, what: str) -> None:
    """Refuses the flags of LoRA in a recipe that trains all weights.

    Args:
        what: what the recipe trains.

    Raises:
        ValueError: if one of these flags is given.
    """
    for name, default in lora_defaults().items():
        if getattr(config, name) != default:
            raise ValueError(f"--{name}: {what} is trained whole, without LoRA; leave this flag out")


def target_names(config: Any) -> list[str]:
    """The names in `--lora_target_modules`."""
    return [name.strip() for name in (config.lora_target_modules or "").split(",") if name.strip()]
