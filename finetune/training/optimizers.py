"""AdamW's parameter groups, and the schedule."""

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from finetune.arguments import TrainingArguments

_LAYER = re.compile(r"\.layers?\.(\d+)\.")


def build_optimizer(model: Any, config: TrainingArguments) -> torch.optim.AdamW:
    """AdamW over the parameters that train, fused where torch has it.

    Biases and norms do not decay. The head has its own learning rate where one is given. With
    `layerwise_lr_decay` d, the n-th layer from the top has d^n times the encoder's rate, and the embeddings
    d^(layers + 1) times (Clark et al., 2020, appendix A).
    """
    depths = {name: _depth(model, name) for name, _ in model.named_parameters()}
    top = max((depth for depth in depths.values() if depth is not None), default=0)
    _freeze(model, config, depths, top)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in _trained(model):
        depth = depths[name]
        if depth is None:
            head_rate = config.learning_rate if config.head_learning_rate is None else config.head_learning_rate
            rate = head_rate or 0.0
        else:
            rate = (config.learning_rate or 0.0) * config.layerwise_lr_decay ** (top + 1 - depth)
        decay = 0.0 if parameter.ndim < 2 else config.weight_decay
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    optimizer = torch.optim.AdamW(
        list(groups.values()),
        lr=config.learning_rate or 0.0,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,
    )
    # Some rows are kept from the optimizer (see finetune.models.CompactEmbedding). The main process writes them, so
    # no other one needs to work on them.
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        for module in model.modules():
            if hasattr(module, "decay_unused"):
                optimizer.register_step_post_hook(partial(_decay_unused, module))
    return optimizer


def _decay_unused(module: Any, optimizer: torch.optim.Optimizer, *_: Any) -> None:
    # A GradScaler calls a fused optimizer's step also where a gradient is infinite, and tells it so by this tensor.
    found_inf = getattr(optimizer, "found_inf", None)
    if found_inf is not None and found_inf.item():
        return
    for group in optimizer.param_groups:
        if any(parameter is module.weight for parameter in group["params"]):
            module.decay_unused(1 - group["lr"] * group["weight_decay"])


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainingArguments, total_steps: int) -> LRScheduler:
    """The schedule over `total_steps`, stepped once for each optimizer step."""
    warmup = config.warmup_steps
    return get_scheduler(
        config.lr_scheduler_type,
        optimizer,
        num_warmup_steps=int(warmup) if warmup >= 1 else math.ceil(warmup * total_steps),
        num_training_steps=total_steps,
    )


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _depth(model: Any, name: str) -> int | None:
    """0 for embeddings, n + 1 for layer n, None for the head; what follows the layers belongs to the last."""
    prefix = f"{model.base_model_prefix}."
    if not name.startswith(prefix):
        return None
    if layer := _LAYER.search(name):
        return int(layer.group(1)) + 1
    return 0 if "embeddings" in name else getattr(model.config, "num_hidden_layers", None) or _layers(model)


def _layers(model: nn.Module) -> int:
    found = [int(layer.group(1)) + 1 for name, _ in model.named_parameters() if (layer := _LAYER.search(name))]
    return max(found, default=1)


def _freeze(model: nn.Module, config: TrainingArguments, depths: dict[str, int | None], top: int) -> None:
    if config.freeze_layers > top:
        raise ValueError(f"--freeze_layers {config.freeze_layers}: the model has {top} layers")
    for name, parameter in model.named_parameters():
        depth = depths[name]
        below = config.freeze_layers > 0 and depth is not None and depth <= config.freeze_layers
        if depth is not None and (config.freeze_encoder or below):
            parameter.requires_grad = False
