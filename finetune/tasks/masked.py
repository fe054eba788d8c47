"""Masked tokens, and a question about a pair of segments: does the second follow the first?

The model is one that `finetune.models.project_masked_positions` made.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from finetune import data, metrics, training

PAIRS = {"bert": "nsp", "sop": "sop"}  # objective -> the name of its question about a pair of segments

USE = 'fill = pipeline("fill-mask", model=FOLDER)\nfill(f"The committee {fill.tokenizer.mask_token} the proposal.")'


def targets(inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """The number of masked tokens in a batch, and the number of pairs."""
    masked = int((inputs["labels"] != -100).sum())
    if "next_sentence_label" not in inputs:
        return {"loss": masked}
    return {"mlm_loss": masked, "nsp_loss": int((inputs["next_sentence_label"] != -100).sum())}


def collect(output: Any, batch: Any) -> dict[str, Tensor]:
    """For each row: how many masked tokens the model predicts correctly, and whether its answer on the pair is right.

    Both are int64 (B,).
    """
    labels = batch.inputs["labels"]
    masked = labels != -100
    right = torch.zeros_like(labels)
    right[masked] = (output["logits"].argmax(-1) == labels[masked]).long()
    found = {"mlm": right.sum(1)}
    if "nsp_logits" in output:
        found["nsp"] = (output["nsp_logits"].argmax(-1) == batch.inputs["next_sentence_label"]).long()
    return found


def score(found: Any, pairs: str = "nsp") -> dict[str, float]:
    """The scores of an evaluation.

    Args:
        found: the result of `finetune.training.collect`.
        pairs: the name of the question on pairs, `nsp` or `sop`.
    """
    correct = {name: int(found.arrays["nsp" if name == "nsp_loss" else "mlm"].sum()) for name in found.losses}
    return metrics.language_modelling_scores(found.losses, found.targets, correct, pairs)


def metrics_of(objective: str) -> tuple[str, ...]:
    """The scores that `--metric_for_best_model` may name."""
    pairs = (f"{PAIRS[objective]}_accuracy",) if objective in PAIRS else ()
    return ("mlm_loss", "mlm_accuracy", "loss", *pairs)


def questions_on_translations(rows: Mapping[str, Any], objective: str) -> dict[str, Any]:
    """For translation pairs, two more evaluations of each split; else none.

    Both mask only words of the first language: once beside their translation, once beside another text.
    """
    found: dict[str, Any] = {}
    for split in rows if objective == "tlm" else ():
        if split != "train":
            found[f"{split} with_translation"] = replace(rows[split], only_first=True)
            found[f"{split} with_other"] = replace(rows[split], only_first=True, shift=1)
    return found


def evaluate(
    accelerator: Any, tokenizer: Any, rows: Mapping[str, Any], config: Any, model: Any, split: str, name: str
) -> dict[str, float]:
    """The scores of a split, and the losses of its parts: of each language, or with and without translations.

    Args:
        rows: split -> its rows, and those of `questions_on_translations`.
        name: the names of the scores begin with it.
    """

    def count(rows: Any) -> training.Collected:
        batches = data.eval_batches(rows.in_epoch(0), tokenizer, config.per_device_eval_batch_size, targets)
        return training.collect(accelerator, model, batches, collect)

    pairs = PAIRS.get(config.objective)
    found = count(rows[split])
    scores = score(found, pairs or "")
    scores |= {"loss": sum(scores.get(f"{part}_loss", 0.0) for part in ("mlm", pairs))}
    scores |= {"masked": next(iter(found.targets.values())), "runtime": round(found.runtime, 3)}
    if pairs:
        scores[f"{pairs}_majority"] = rows[split].majority()
    parts = {key.split()[1]: rows[key] for key in rows if key.startswith(f"{split} ")}
    if config.objective == "xlm-r":
        parts = {part.language: replace(rows[split], documents=[part]) for part in rows[split].documents}
    for part, its_rows in parts.items():
        scores[f"mlm_loss_{part}"] = score(count(its_rows))["mlm_loss"]
    return {f"{name}_{key}": value for key, value in scores.items()}
