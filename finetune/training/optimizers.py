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

# Finds the number of a layer in a parameter's name. It is the first number, as in
# bert.encoder.layer.3.output.dense.weight, transformer.h.3.ln_1.weight or encoder.recurrent_above.1.weight_ih_l0. If
# there is only a torch layer, it is that layer's number, as in encoder.recurrent.weight_ih_l0_reverse.
_LAYER = re.compile(r"\.(\d+)\.|_l(\d+)(?:_reverse)?$")


def build_optimizer(model: Any, config: TrainingArguments) -> torch.optim.AdamW:
    """AdamW over the parameters that train, fused where torch has it.

    Biases and norms do not decay. The head has its own learning rate if one is given. With `layerwise_lr_decay` d,
    the rate of the n-th layer from the top is d^n times the encoder's rate, and that of the embeddings is
    d^(layers + 1) times the encoder's rate (Clark et al., 2020, appendix A).

    Raises:
        ValueError: for flags about layers or a head that the model does not have.
    """
    depths = _depths(model)
    top = max((depth for depth in depths.values() if depth is not None), default=0)
    _check_layers(model, config, top)
    _freeze(model, config, depths)
    _check_head(model, config, depths)
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
    # The optimizer does not see some rows (see finetune.models.CompactEmbedding). Only the main process saves them,
    # so only it needs to decay them.
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        for module in model.modules():
            if hasattr(module, "decay_unused"):
                optimizer.register_step_post_hook(partial(_decay_unused, module))
    return optimizer


def _decay_unused(module: Any, optimizer: torch.optim.Optimizer, *_: Any) -> None:
    # A GradScaler calls a fused optimizer's step even if a gradient is infinite. This tensor then says so.
    found_inf = getattr(optimizer, "found_inf", None)
    if found_inf is not None and found_inf.item():
        return
    for group in optimizer.param_groups:
        if any(parameter is module.weight for parameter in group["params"]):
            module.decay_unused(1 - group["lr"] * group["weight_decay"])


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainingArguments, total_steps: int) -> LRScheduler:
    """The learning rate schedule over `total_steps`. It steps once for each optimizer step."""
    warmup = config.warmup_steps or 0.0
    return get_scheduler(
        config.lr_scheduler_type,
        optimizer,
        num_warmup_steps=int(warmup) if warmup >= 1 else math.ceil(warmup * total_steps),
        num_training_steps=total_steps,
    )


def forget_steps(optimizer: Any, scale: float) -> torch.optim.Optimizer:
    """Takes an optimizer back to its first step, and multiplies its peak rates by `scale`.

    Returns:
        The optimizer without the wrapper of Accelerate, for a new schedule.
    """
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    inner.state.clear()
    inner.defaults["lr"] *= scale  # the polynomial schedule takes its peak from here
    for group in inner.param_groups:
        group["lr"] = group["initial_lr"] = group["initial_lr"] * scale
    inner.zero_grad(set_to_none=True)
    return inner


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _depths(model: Any) -> dict[str, int | None]:
    """The depth of each parameter: 0 for embeddings, n + 1 for layer n, None for the head.

    Parameters before the layers count as embeddings. Parameters after them count as the last layer.
    """
    depths: dict[str, int | None] = {}
    top = 0
    after = []
    for name, _ in model.named_parameters():
        layer = _LAYER.search(name)
        if not name.startswith(f"{model.base_model_prefix}."):
            depths[name] = None
        elif ".characters." in name:  # a baseline's character features of a word, used beside its embedding
            depths[name] = 0
        elif layer:
            depths[name] = int(layer.group(1) or layer.group(2)) + 1
            top = max(top, depths[name] or 0)
        else:
            depths[name] = 0
            if top and "embeddings" not in name:
                after.append(name)
    return depths | dict.fromkeys(after, top)


def _check_layers(model: Any, config: TrainingArguments, top: int) -> None:
    """Refuses flags about single layers if the model has no such layers."""
    flag = f"--freeze_layers {config.freeze_layers}" if config.freeze_layers else ""
    flag = flag or (f"--layerwise_lr_decay {config.layerwise_lr_decay}" if config.layerwise_lr_decay != 1 else "")
    its_config = getattr(getattr(model, model.base_model_prefix, None), "config", None)
    layers = getattr(its_config, "num_hidden_layers", top)
    if flag and layers != top:
        raise ValueError(
            f"{flag}: {model.config.model_type} has {layers} layers, and weights for {top}: layers share weights, or "
            "have none of their own; leave this flag out"
        )
    if config.freeze_layers > top:
        raise ValueError(f"--freeze_layers {config.freeze_layers}: the model has {top} layers")


def _check_head(model: nn.Module, config: TrainingArguments, depths: dict[str, int | None]) -> None:
    """Refuses flags about the head if it has no weights of its own, as in a language model."""
    if all(depths[name] is not None for name, _ in _trained(model)):
        given = {
            "--freeze_encoder": config.freeze_encoder,
            "--head_learning_rate": config.head_learning_rate is not None,
        }
        if flags := [name for name, is_given in given.items() if is_given]:
            raise ValueError(f"{flags[0]}: the head of this model has no weights of its own; leave this flag out")


def _freeze(model: nn.Module, config: TrainingArguments, depths: dict[str, int | None]) -> None:
    for name, parameter in model.named_parameters():
        depth = depths[name]
        below = config.freeze_layers > 0 and depth is not None and depth <= config.freeze_layers
        if depth is not None and (config.freeze_encoder or below):
            parameter.requires_grad = False
