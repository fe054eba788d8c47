"""Losses of classifiers: weights for labels, label smoothing, focal losses, several labels for a text, and numbers.

Every loss is a weighted mean over the targets: the sum of weight times loss, divided by the sum of the weights.
`target_weight` gives that divisor, so that the loop can put batches together.

Shapes: B rows, T tokens of the longest, L labels.
"""

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, mse_loss
from transformers import PreTrainedModel

from finetune.models.crf import LinearChainCrf

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
IGNORED = -100


def set_loss(
    model: PreTrainedModel,
    *,
    problem_type: ProblemType = "single_label_classification",
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> PreTrainedModel:
    """Gives a model with a head for labels the loss that the arguments ask for.

    The settings go into `model.config`, and are saved with it. If each target has one label and no other setting is
    given, the model keeps its own forward, which has that loss.

    `labels` of the new forward:

    | `problem_type` | dtype, shape | loss of a target |
    |---|---|---|
    | `single_label_classification` | int64 (B,), or (B, T) for tokens | cross-entropy, weighted by the label |
    | `multi_label_classification` | float (B, L) of 0 and 1 | binary cross-entropy; weighted if the target is 1 |
    | `regression` | float (B,) | squared error of the one output |

    A label of -100 is no target; for regression, -100 is a value. Smoothing divides a share of each target equally
    among all labels (Szegedy et al., 2016); if the target is 0 or 1, it divides the share between both answers. The
    focal loss (Lin et al., 2017) multiplies -log p by (1 - p)^gamma, where p is the probability of the right answer.

    Args:
        class_weights: one for each label.

    Raises:
        ValueError: for settings that do not fit the model or the problem.
    """
    config: Any = model.config
    asked = class_weights is not None or label_smoothing != 0 or focal_gamma != 0
    if asked and any(isinstance(module, LinearChainCrf) for module in model.modules()):
        raise ValueError(
            "a CRF learns whole sequences of labels, so that class weights, label smoothing and a focal loss have no "
            "meaning for it; leave these flags out, or take a model without a CRF"
        )
    if asked and problem_type == "regression":
        raise ValueError(
            "a number has no labels, so that class weights, label smoothing and a focal loss do not go with it; "
            "leave these flags out"
        )
    outputs = config.num_labels
    if problem_type == "regression" and outputs != 1:
        raise ValueError(f"a number is one output, but this model has {outputs}")
    if class_weights is not None:
        _check_weights(class_weights, outputs)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"--label_smoothing_factor {label_smoothing}: it must be at least 0 and below 1")
    if not 0 <= focal_gamma < math.inf:
        raise ValueError(f"--focal_gamma {focal_gamma}: it must be 0 or greater")

    if problem_type != "single_label_classification" or asked:
        config.problem_type = problem_type
        config.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]
        config.label_smoothing, config.focal_gamma = float(label_smoothing), float(focal_gamma)
        model.forward = MethodType(forward_with_loss, model)
        return model
    # The settings of an earlier training do not count now.
    if config.problem_type not in (None, problem_type):
        config.problem_type = None
    for name in ("class_weights", "label_smoothing", "focal_gamma"):
        if hasattr(config, name):
            delattr(config, name)
    if getattr(model.forward, "__func__", None) is forward_with_loss:
        del model.forward
    return model


def _check_weights(weights: Sequence[float], labels: int) -> None:
    if len(weights) != labels:
        raise ValueError(f"{len(weights)} class weights, but the model has {labels} labels")
    # Smoothing gives a share of each target to all labels. So a target of weight 0 would not count, but still train.
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"class weights must be numbers greater than 0, not {list(weights)}")


def forward_with_loss(self: Any, *args: Any, labels: Tensor | None = None, **inputs: Any) -> Any:
    """The forward of a model with another loss than its own, as `set_loss` gives it."""
    # The class's forward, not the one that this model had: a copy of the model must not call the original.
    output = type(self).forward(self, *args, **inputs)
    if labels is None:
        return output
    return type(output)(**{"loss": _loss(output.logits.float(), labels, self.config)} | dict(output))


def _loss(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """The weighted mean over the targets; NaN if there are none."""
    if config.problem_type == "regression":
        return mse_loss(logits.flatten(), labels.flatten().float())
    weights = None
    if config.class_weights is not None:
        weights = torch.tensor(config.class_weights, dtype=torch.float32, device=logits.device)
    smoothing, gamma = config.label_smoothing, config.focal_gamma
    if config.problem_type == "multi_label_classification":
        return several_labels_loss(logits, labels.float(), weights, smoothing, gamma)
    return one_label_loss(logits.flatten(0, -2), labels.flatten(), weights, smoothing, gamma)


def one_label_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, gamma: float) -> Tensor:
    """The loss of targets with one label each.

    Args:
        logits: float32 (targets, L).
        labels: int64 (targets,).
        weights: float32 (L,).
    """
    if gamma == 0:
        return cross_entropy(logits, labels, weights, ignore_index=IGNORED, label_smoothing=smoothing)
    kept = labels != IGNORED
    log_p = logits.log_softmax(-1)
    weight = torch.ones_like(log_p) if weights is None else weights.expand_as(log_p)
    losses = -weight * _focus(log_p, gamma) * log_p
    at = labels.masked_fill(~kept, 0)[:, None]
    right = losses.gather(1, at)[:, 0]
    summed = (((1 - smoothing) * right + smoothing * losses.mean(1)) * kept).sum()
    return summed / (weight.gather(1, at)[:, 0] * kept).sum()


def several_labels_loss(
    logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float, gamma: float
) -> Tensor:
    """The loss of targets that are 0 or 1.

    Args:
        logits, labels: float32 (B, L).
        weights: float32 (L,), for targets that are 1. Targets that are 0 have weight 1.
    """
    kept = labels != IGNORED
    positive = torch.ones_like(logits) if weights is None else weights
    is_so = labels * (1 - smoothing) + smoothing / 2
    log_yes, log_no = logsigmoid(logits), logsigmoid(-logits)
    losses = -is_so * positive * _focus(log_yes, gamma) * log_yes - (1 - is_so) * _focus(log_no, gamma) * log_no
    return (losses * kept).sum() / ((labels * positive + 1 - labels) * kept).sum()


def _focus(log_p: Tensor, gamma: float) -> Tensor | float:
    """(1 - p)^gamma. With p = 1 and a gamma below 1 the gradient would be NaN, so p stays just below 1."""
    if gamma == 0:
        return 1.0
    least: float = torch.finfo(log_p.dtype).tiny
    return (-torch.expm1(log_p)).clamp(min=least).pow(gamma)


def target_weight(
    labels: Tensor | np.ndarray,
    problem_type: ProblemType = "single_label_classification",
    class_weights: Sequence[float] | None = None,
) -> float:
    """The divisor of the mean loss over these labels: the number of targets, or the sum of their weights.

    Args:
        labels: on the CPU, as the model's forward takes them.

    Returns:
        An int if there are no weights.
    """
    values = np.asarray(labels)
    if problem_type == "regression":
        return values.size
    kept = values != IGNORED
    if class_weights is None:
        return int(kept.sum())
    weights = np.asarray(class_weights, dtype=np.float64)
    if problem_type == "multi_label_classification":
        return float(np.where(values == 1, weights, 1.0)[kept].sum())
    return float(weights[values[kept].astype(np.int64)].sum())
