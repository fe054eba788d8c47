"""Losses of a student that learns from labels and from the outputs of teachers (Hinton et al., 2015).

A target is a word or a text. If it has a label and a teacher's output, its loss is

    alpha * hard + (1 - alpha) * T^2 * KL(q || p)

`hard` is the usual loss of the label. p is the student's distribution and q the mean of those of the teachers, both
from logits divided by the temperature T. The factor T^2 keeps the gradient of the second part as large as that of the
first one (Hinton et al., section 2.1). Without a label, or without a teacher's output, the other part has weight 1.
The loss of a batch is the mean over its targets.

Shapes: B rows, T tokens of the longest, K teachers, L labels, n targets.
"""

from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid
from transformers import PreTrainedModel

from finetune.models.crf import LinearChainCrf, words_of_chain
from finetune.models.losses import IGNORED, ProblemType, forward_with_loss, set_loss

ONE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"


def set_distilled_loss(
    model: PreTrainedModel,
    *,
    problem_type: ProblemType = "single_label_classification",
    temperature: float,
    alpha: float,
) -> PreTrainedModel:
    """Gives a student the loss that this module explains. It counts where a batch has the input `teacher`.

    Inputs of the new forward, beside those of the model:

    | `problem_type` | `labels` | `teacher`, float |
    |---|---|---|
    | `single_label_classification` | int64 (B,) or (B, T); -100: no label | log-probabilities (B, K, L) or (B, T, K, L); zeros: no output |
    | `multi_label_classification` | float (B, L) of 0 and 1; -100: no label | logits (B, K, L) |
    | `regression` | float (B,); NaN: no number | numbers (B, K, 1) |

    For a CRF, p are the probabilities of a word's labels given the whole sentence (its marginals), and `hard` is the
    share of the word in the loss of its sentence. Wang et al. (2020, "Structure-Level Knowledge Distillation For
    Multilingual Sequence Labeling") call this posterior distillation.

    Args:
        temperature: greater than 0. Numbers do not use it.
        alpha: the share of the labels, from 0 to 1.
    """  # noqa: E501  # a table
    set_loss(model, problem_type=problem_type)
    student: Any = model
    student.distillation = (problem_type, float(temperature), float(alpha))
    student.forward = MethodType(_forward, model)
    return model


def _forward(
    self: Any, *args: Any, labels: Tensor | None = None, teacher: Tensor | None = None, **inputs: Any
) -> Any:
    problem, temperature, alpha = self.distillation
    usual = type(self).forward if problem == ONE else forward_with_loss
    if teacher is None:
        return usual(self, *args, labels=labels, **inputs)
    assert labels is not None
    crf = getattr(self, "crf", None)
    if crf is not None and not self.training:
        raise RuntimeError("the distilled loss of a CRF is for training: in evaluation its logits are no emissions")
    output = usual(self, *args, labels=None, **inputs)
    logits = output.logits.float()
    if crf is not None:
        loss = chain_loss(crf, logits, labels, teacher, temperature, alpha)
    elif problem == SEVERAL:
        loss = several_labels_loss(logits, labels, teacher, temperature, alpha)
    elif problem == NUMBER:
        loss = number_loss(logits[:, 0], labels, teacher, alpha)
    else:
        loss = one_label_loss(logits.flatten(0, -2), labels.flatten(), teacher.flatten(0, -3), temperature, alpha)
    return type(output)(**{"loss": loss} | dict(output))


def one_label_loss(logits: Tensor, labels: Tensor, teacher: Tensor, temperature: float, alpha: float) -> Tensor:
    """Args: `logits` float32 (n, L), `labels` int64 (n,), `teacher` float32 (n, K, L)."""
    labelled, taught = labels != IGNORED, _taught(teacher)
    hard = cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")  # 0 without a label
    soft = _divergence((logits / temperature).log_softmax(-1), teacher, temperature)
    share = torch.where(taught, alpha, 1.0) * labelled
    losses = share * hard + torch.where(labelled, 1 - share, 1.0) * soft * taught
    return losses.sum() / (labelled | taught).sum()


def several_labels_loss(logits: Tensor, labels: Tensor, teacher: Tensor, temperature: float, alpha: float) -> Tensor:
    """Each label of each text is a target. Args: `logits`, `labels` float32 (B, L), `teacher` float32 (B, K, L)."""
    labelled = labels != IGNORED
    hard = binary_cross_entropy_with_logits(logits, labels.clamp(min=0.0).float(), reduction="none")
    q = (teacher.float() / temperature).sigmoid().mean(1)
    entropy = torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q)
    soft = entropy - q * logsigmoid(logits / temperature) - (1 - q) * logsigmoid(-logits / temperature)
    return torch.where(labelled, alpha * hard + (1 - alpha) * temperature**2 * soft, temperature**2 * soft).mean()


def number_loss(numbers: Tensor, labels: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Squared errors. Args: `numbers`, `labels` float32 (B,), `teacher` float32 (B, K, 1)."""
    labelled = ~labels.isnan()
    hard = (numbers - labels.float().nan_to_num()) ** 2
    soft = (numbers - teacher.float().mean(1)[:, 0]) ** 2
    return torch.where(labelled, alpha * hard + (1 - alpha) * soft, soft).mean()


def chain_loss(
    crf: LinearChainCrf, emissions: Tensor, labels: Tensor, teacher: Tensor, temperature: float, alpha: float
) -> Tensor:
    """The loss of a CRF. Args: `emissions` float32 (B, T, L), `labels` int64 (B, T), `teacher` (B, T, K, L).

    The words of a row either all have a label, or none has one.
    """
    mask = (labels != IGNORED) | _taught(teacher)
    if not bool(mask.any()):
        return emissions.sum() * 0.0
    rows, position, inside = words_of_chain(mask)
    chain, own_labels, own_teacher = emissions[rows, position], labels[rows, position], teacher[rows, position]
    with torch.autocast(emissions.device.type, enabled=False):
        labelled, taught = own_labels[:, 0] != IGNORED, _taught(own_teacher) & inside
        known = own_labels.masked_fill(own_labels == IGNORED, 0)
        hard = crf.negative_log_likelihood(chain, known, inside)
        log_p = crf.log_marginals(chain, inside)
        soft = _divergence((log_p / temperature).log_softmax(-1), own_teacher, temperature)
        soft = (soft * taught).sum(1)
        share = torch.where(taught.any(1), alpha, 1.0) * labelled
        losses = share * hard + torch.where(labelled, 1 - share, 1.0) * soft
    return losses.sum() / mask.sum()


def _taught(teacher: Tensor) -> Tensor:
    """Which targets have an output of every teacher. Log-probabilities are not all zero."""
    return (teacher != 0).any(-1).all(-1)


def _divergence(log_p: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(q || p) of each target, where q is the mean of the teachers. (..., L), (..., K, L) -> (...)."""
    q = (teacher.float() / temperature).softmax(-1).mean(-2)
    return temperature**2 * (torch.xlogy(q, q) - q * log_p).sum(-1)


def distilled_targets(labels: Tensor, teacher: Tensor, problem_type: ProblemType) -> int:
    """The number of targets that the loss of a batch is the mean of. The tensors are on the CPU."""
    if problem_type != ONE:
        return labels.numel()
    known = np.asarray(labels) != IGNORED
    return int((known | np.asarray(_taught(teacher))).sum())
