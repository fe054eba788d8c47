"""The model card: `README.md` of a run's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from finetune.files import write_text
from finetune.reporting.environment import machine, versions

# Ends of results that are no scores, such as `eval_words`; `eval_ece_words` is one.
_NO_SCORES = ("_runtime", "_tokens", "_words", "_questions", "_scored", "_masked")
_NEW = ("-seq2seq",)  # ends of model types that start with random weights
_OWN = ("recurrent", "encoder-crf")  # model types of this package, which transformers alone does not know
_TOLD = (
    "learning_rate",
    "per_device_train_batch_size",
    "tokens_per_batch",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_seq_length",
    "seed",
)
# Flags that the card shows if they were given.
_PRACTICES = (
    "max_train_samples",
    "max_eval_samples",
    "head",
    "decoding",
    "head_learning_rate",
    "layerwise_lr_decay",
    "freeze_encoder",
    "freeze_layers",
    "class_weights",
    "label_smoothing_factor",
    "focal_gamma",
    "label_all_tokens",
    "long_texts",
    "context",
    "context_size",
    "early_stopping_patience",
    "average_checkpoints",
    "gradient_checkpointing",
    "teacher_forcing",
    "num_beams",
)


def told_settings(config: Any) -> dict[str, Any]:
    """The flags of a run that its model card shows: the usual ones, and others that are not at their defaults."""
    told = {name: getattr(config, name) for name in _TOLD}
    defaults = {own.name: own.default for own in fields(config)}
    given = (name for name in _PRACTICES if name in defaults and getattr(config, name) != defaults[name])
    told |= {name: getattr(config, name) for name in given}
    del told["per_device_train_batch_size" if config.tokens_per_batch else "tokens_per_batch"]
    if config.lora_r is not None:
        told |= {
            "LoRA rank": config.lora_r,
            "LoRA alpha": config.lora_alpha or 2 * config.lora_r,
            "LoRA dropout": config.lora_dropout,
            "LoRA in": config.lora_target_modules or "all linear layers of attention and feed-forward",
        }
    return told


def told_length(config: Any, results: Mapping[str, float]) -> str:
    """How long the training was, in a line; also how long it should have been, if that is longer."""
    steps, epochs = int(results.get("train_steps", 0)), results.get("train_epochs", 0.0)
    told = f"trained for {steps:,} steps" + (f", {epochs:g} epochs" if epochs else "")
    if 0 < steps < config.max_steps:
        return f"{told}, of {config.max_steps:,} steps that were asked for"
    if config.max_steps <= 0 and 0 < epochs < config.num_train_epochs:
        return f"{told}, of {config.num_train_epochs:g} epochs that were asked for"
    return told


def told_scores(results: Mapping[str, float]) -> dict[str, str]:
    """The scores that a card shows, as it shows them.

    Args:
        results: the content of `all_results.json`.
    """
    return {key: f"{results[key]:.4f}" for key in shown_scores(results)}


def shown_scores(results: Mapping[str, Any]) -> list[str]:
    """The names of these scores."""
    return [
        key
        for key in results
        if key.startswith(("eval_", "test_"))
        and (key.endswith("_ece_words") or not key.endswith(_NO_SCORES))
        and key not in ("eval_loss", "test_loss")
    ]


def write_model_card(
    folder: Path,
    *,
    task: str,
    metric: str,
    use: str,
    base_model: str,
    model_type: str,
    data: str,
    split_sizes: Mapping[str, int],
    results: Mapping[str, float],
    settings: Mapping[str, Any],
    length: str = "",
    where: str = "",
    license: str | None = None,
    place: str | None = None,
    labels: Sequence[str] = (),
    notes: Sequence[str] = (),
    events: Sequence[str] = (),
) -> None:
    """Writes `README.md`: what the model is, its data, its scores, its settings, and how to use it.

    Args:
        task: the name of the task on the Hub, such as `token-classification`.
        metric: the score for the metadata of the card.
        use: lines of Python with FOLDER for the place of the model. `pipeline` or `finetune` is imported before them.
        base_model: the Hub id, or the name of the baseline. If it is a path, only its last part is shown.
        model_type: as in the model's config.
        data: the name of the data set. If it is a path, only its last part is shown.
        results: the content of `all_results.json`.
        settings: the flags to show.
        length: how long the training was, as `told_length` says it.
        where: the device, the number of processes and the precision.
        license: the licence of the data.
        place: the model's name on the Hub, if it is uploaded.
        notes: sentences about the scores.
        events: what happened in the training, such as that it was begun again.
    """
    name, base = folder.resolve().name, _public(base_model)
    data = _public(data)
    scores = told_scores(results)
    macro = any(key.endswith("_macro") for key in scores)
    recurrent = model_type == "recurrent"
    done = "pretrained" if task == "fill-mask" else "trained" if model_type.endswith(_NEW) else "fine-tuned"
    kind = f"A recurrent baseline (`{base}`)" if recurrent else f"`{base}`, {done}"
    lines = [
        "---",
        _metadata(name, task, metric, None if model_type == "recurrent" or "/" not in base else base, data, results),
        "---",
        "",
        f"# {name}",
        "",
        f"{kind} for {task.replace('-', ' ')} on {data} "
        f"({', '.join(f'{size:,} {split}' for split, size in split_sizes.items())})."
        + (f" The licence of the data: {license}." if license else ""),
        "",
        *([f"Labels: {', '.join(f'`{label}`' for label in labels)}", ""] if labels else []),
        "## Scores",
        "",
        "Losses and log-probabilities are in nats. Other scores, except perplexities and bits, are fractions between "
        "0 and 1. They are of one run with one seed: the spread over seeds is not known from it.",
        *(["f1_macro and recall_macro are means over the labels that occur in the split."] if macro else []),
        *notes,
        "",
        "| score | value |",
        "|---|---:|",
        *(f"| {key} | {value} |" for key, value in scores.items()),
        "",
        "## Training",
        "",
        *([f"- {length}"] if length else []),
        *([f"- best epoch: {results['best_epoch']:g}"] if "best_epoch" in results else []),
        *([_averaged(int(results["averaged_checkpoints"]))] if "averaged_checkpoints" in results else []),
        *(f"- {key}: {value}" for key, value in settings.items()),
        *(f"- {event}" for event in events),
        f"- parameters: {results['total_parameters']:,}",
        *([f"- of which trained: {results['trained_parameters']:,}"] if "trained_parameters" in results else []),
        *_machine(where, results),
        f"- with {', '.join(f'{package} {version}' for package, version in versions().items())}",
        "",
        "## Use",
        "",
        "```python",
        *_imports(use, model_type),
        "",
        f"FOLDER = {json.dumps(place or name, ensure_ascii=False)}  # {_what_to_replace(place)}",
        use,
        "```",
        "",
    ]
    write_text(folder / "README.md", "\n".join(lines))


def _metadata(
    name: str, task: str, metric: str, base_model: str | None, data: str, results: Mapping[str, float]
) -> str:
    """What the Hub reads, as YAML."""
    scored = [split for split in ("eval", "test") if f"{split}_{metric}" in results]
    scores = [
        EvalResult(
            task_type=task,
            dataset_type=data,
            dataset_name=data,
            dataset_split="validation" if split == "eval" else split,
            metric_type=metric,
            metric_value=results[f"{split}_{metric}"],
        )
        for split in scored
    ]
    return ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag=task,
        base_model=base_model,
        tags=["finetune"],
        eval_results=scores or None,
    ).to_yaml()


def _averaged(number: int) -> str:
    if number == 1:
        return "- averaging: the best evaluated weights alone were better than any mean, or as good"
    return f"- averaging: the weights are the mean of the best {number} evaluated weights"


def _machine(where: str, results: Mapping[str, float]) -> list[str]:
    """What the training ran on, what it cost, and the day."""
    here = machine()
    processor = here["processor"].rpartition(", ")[0]  # `where` has the threads
    parts = [*([where] if where else []), processor, f"{here['memory']} of memory", here["system"]]
    lines = [f"- on {'; '.join(parts)}"]
    if "train_runtime" in results and "peak_memory_mb" in results:
        lines.append(
            f"- cost: {results['train_runtime']:,.0f} s, at most {results['peak_memory_mb']:,.0f} MB of memory"
        )
    return [*lines, f"- date: {datetime.now(UTC).date().isoformat()}"]


def _what_to_replace(place: str | None) -> str:
    if place is not None:
        return "on the Hub; or replace this by the folder of this card"
    return "replace this by the path of this card's folder, or by the model's name on the Hub"


def _imports(use: str, model_type: str) -> list[str]:
    if "pipeline(" not in use:
        return ["import finetune  # pip install finetune-recipes"]
    own = (
        ["import finetune  # pip install finetune-recipes; so that pipeline() knows this kind of model"]
        if model_type in _OWN
        else []
    )
    return [*own, "from transformers import pipeline"]


def _public(name: str) -> str:
    """A Hub id as it is; the last part of a path, because a card should not show the folders of a machine."""
    path = Path(name)
    return path.name if path.is_absolute() or path.exists() or len(path.parts) > 2 else name
