"""Masked tokens, and a question about a pair of segments: does the second follow the first?

The model is one that `finetune.models.project_masked_positions` made.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from finetune import metrics

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
