"""LoRA (Hu et al., 2022, "Low-Rank Adaptation of Large Language Models"), through `peft`.

A linear layer W of the encoder stays as it is. Beside it two small matrices train, A (r x in) and B (out x r). The
layer then computes W x + (alpha / r) B A x. B starts at 0, so the training begins at the checkpoint. The head trains
whole, and so does all that starts at random.

By default every linear layer inside the encoder's layers gets LoRA: the four projections of the attention, and both
layers of the feed-forward part. Hu et al. adapted only the attention. He et al. (2022, "Towards a Unified View of
Parameter-Efficient Transfer Learning") found that it does more in the feed-forward part. Dettmers et al. (2023,
"QLoRA") and Biderman et al. (2024, "LoRA Learns Less and Forgets Less") found that all linear layers together come
closest to full training.

At the end A and B are merged into W, so the saved model is like any other.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune.models.cpu_dropout import use_fast_dropout
from finetune.models.lora_flags import ALL_LINEAR, target_names
from finetune.models.seq2seq_arguments import is_new_seq2seq
from finetune.spelling import did_you_mean

# The part of a layer's name after the number of its layer, as attention.self.query in encoder.layer.3.attention...
_IN_A_LAYER = re.compile(r".*\.\d+\.(.+)")
_TASKS = {
    "ForTokenClassification": "TOKEN_CLS",
    "ForSequenceClassification": "SEQ_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
_OWN_CLASSES = ("encoder-crf", "encoder-decoder")
_ADAPTER = "default"  # peft's own name of an only adapter


def add_lora(model: Any, config: Any) -> str:
    """Puts LoRA into the linear layers of an encoder or an encoder-decoder, in place. All other parts are frozen.

    These train whole: the head, the pooler, and what starts at random in a new bert2bert and its like. The model gets
    two attributes for the training: `weights_elsewhere`, the names of the weights that a checkpoint need not hold,
    because `--model_name_or_path` has them; and `added_weights`, the names of all A and B.

    Args:
        model: in float32, with its head. A and B are drawn from torch's random generator.
        config: a recipe's config.

    Returns:
        A line: how many parameters train, and which.

    Raises:
        ValueError: naming the flag, for a model or for layers that cannot have LoRA.
    """
    _refuse(model, config)
    from peft import LoraConfig, inject_adapter_in_model

    whole = _whole(model, config)
    linear = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and not whole(f"{name}.")
    ]
    chosen, targets = _targets(linear, target_names(config), config)
    every = [name for name, _ in model.named_modules()]
    if _named(every, targets) != chosen:  # a name also fits a layer of the head
        targets = chosen
    parameters = sum(parameter.numel() for parameter in model.parameters())
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=2 * config.lora_r if config.lora_alpha is None else config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        base_model_name_or_path=config.model_name_or_path,
        revision=config.model_revision,
    )
    inject_adapter_in_model(settings, model, _ADAPTER)
    for layer in _lora_layers(model):
        use_fast_dropout(layer)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".lora_" in name or whole(name)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = model.state_dict(keep_vars=True)  # unlike named_parameters, it has both names of a tied weight
    model.weights_elsewhere = frozenset(
        name for name, weight in weights.items() if isinstance(weight, nn.Parameter) and not weight.requires_grad
    )
    model.added_weights = frozenset(name for name in weights if ".lora_" in name)
    return (
        f"LoRA: {trained:,} parameters train, {trained / parameters:.1%} of {parameters:,}; rank {settings.r}, alpha "
        f"{settings.lora_alpha} in {', '.join(sorted(targets))}"
    )


@torch.no_grad()
def merge_lora(model: Any) -> None:
    """Adds (alpha / r) B A to each W, and takes A and B out, in place. The model is then like one without LoRA."""
    with _all_bits():
        for name, layer in list(_named_lora_layers(model)):
            layer.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())
    for name in ("peft_config", "weights_elsewhere", "added_weights"):
        vars(model).pop(name, None)
    model.requires_grad_(True)


def adapter_of(model: Any) -> Callable[[Path], None]:
    """What writes the adapter of a model into a folder: A, B and the head, as peft's own `save_pretrained` does.

    The weights are copied now, so the model may be merged before the adapter is written.
    """
    from peft import get_peft_model_state_dict

    settings = model.peft_config[_ADAPTER]
    heads = _heads(model)
    kept = get_peft_model_state_dict(model, adapter_name=_ADAPTER, save_embedding_layers=False)
    kept |= {
        name: value
        for name, value in model.state_dict().items()
        if any(name.startswith(f"{head}.") for head in heads)
    }
    tensors = {f"base_model.model.{name}": value.detach().cpu().clone() for name, value in kept.items()}
    settings.task_type = next(task for ending, task in _TASKS.items() if type(model).__name__.endswith(ending))
    settings.modules_to_save = [head.rpartition(".")[2] for head in heads]
    settings.target_modules = sorted(settings.target_modules)  # a set has another order in each process
    settings.inference_mode = True

    def write(folder: Path) -> None:
        from safetensors.torch import save_file

        settings.save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    return write


def _refuse(model: Any, config: Any) -> None:
    name, kind = config.model_name_or_path, model.config.model_type
    if kind.startswith("recurrent"):
        raise ValueError(f"--lora_r: {name} is recurrent, and LoRA is for transformers; leave this flag out")
    if kind == "transformer-seq2seq" and is_new_seq2seq(name):
        raise ValueError(f"--lora_r: {name} starts at random, and LoRA adapts a model that is trained; leave it out")
    if kind.startswith("shared-"):
        raise ValueError("--lora_r: it cannot adapt weights that encoder and decoder share; leave this flag out")
    if config.save_adapter and (kind in _OWN_CLASSES or kind.endswith("-seq2seq")):
        raise ValueError(
            "--save_adapter: an adapter goes onto a checkpoint and its head, and peft cannot make "
            f"{'a CRF' if 'crf' in kind else 'an encoder-decoder'} of a checkpoint; leave this flag out"
        )


def _whole(model: Any, config: Any) -> Callable[[str], bool]:
    """Tells of the name of a weight whether it trains whole."""
    if hasattr(model, "decoder") and hasattr(model, "encoder"):
        heads = ["decoder.cls.", "decoder.lm_head.", "output."]
        if is_new_seq2seq(config.model_name_or_path):
            heads += ["decoder."] if config.model_name_or_path == "bert2rnd" else []
            return lambda name: name.startswith(tuple(heads)) or ".crossattention." in name
        return lambda name: name.startswith(tuple(heads))
    within = f"{model.base_model_prefix}."
    pooler = f"{within}pooler."
    return lambda name: not name.startswith(within) or name.startswith(pooler)


def _heads(model: Any) -> list[str]:
    """The modules with weights that train whole, of an encoder with a head."""
    found = {
        name for name, child in model.named_children() if name != model.base_model_prefix and _has_weights(child)
    }
    pooler = getattr(model.base_model, "pooler", None)
    return sorted(found | ({f"{model.base_model_prefix}.pooler"} if pooler is not None else set()))


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _targets(linear: list[str], asked: list[str], config: Any) -> tuple[list[str], list[str]]:
    """The layers that get LoRA, and the ends of their names.

    Args:
        linear: the linear layers that may have it.
        asked: the names in the flag; empty: those inside the encoder's layers.
    """
    ends = {name: found.group(1) for name in linear if (found := _IN_A_LAYER.fullmatch(name))}
    if not asked:
        if not ends:
            raise ValueError(f"--lora_r: {config.model_name_or_path} has no layers with linear layers; leave it out")
        return list(ends), sorted(set(ends.values()))
    if asked == [ALL_LINEAR]:
        return linear, sorted({ends.get(name, name) for name in linear})
    for one in asked:
        if not _named(linear, [one]):
            known = sorted({ends.get(name, name) for name in linear})
            hint = did_you_mean(one, sorted({name.rpartition(".")[2] for name in known}))
            raise ValueError(
                f"--lora_target_modules {one}: no linear layer of {config.model_name_or_path} has this name{hint}; "
                f"there are {', '.join(known)}; or give {ALL_LINEAR}"
            )
    return _named(linear, asked), asked


def _named(names: Iterable[str], ends: list[str]) -> list[str]:
    """The names that have one of these ends, as peft compares them."""
    return [name for name in names if name in ends or name.endswith(tuple(f".{end}" for end in ends))]


def _named_lora_layers(model: nn.Module) -> Iterable[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _lora_layers(model: nn.Module) -> Iterable[Any]:
    return (layer for _, layer in _named_lora_layers(model))


@contextmanager
def _all_bits() -> Any:
    """On a GPU, products of float32 matrices without TF32, since here each is made only once."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
