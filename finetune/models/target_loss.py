"""The loss of text to text: the mean over the target tokens of the cross-entropy.

Shapes: B rows, T tokens of the longest target, N target tokens of a batch, H hidden, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

IGNORED = -100


def set_target_loss(model: PreTrainedModel, *, label_smoothing: float = 0.0) -> PreTrainedModel:
    """Gives an encoder-decoder the share of label smoothing (Szegedy et al., 2016) for its training.

    The share goes into `model.config`, and is saved with it. The loss in evaluation mode is never smoothed, since its
    exponential is the perplexity.

    Raises:
        ValueError: for a share below 0, or of 1 or more.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"--label_smoothing_factor {label_smoothing}: it must be at least 0 and below 1")
    config: Any = model.config
    config.label_smoothing = float(label_smoothing)
    return model


def start_and_end(tokenizer: Any) -> tuple[int, int]:
    """The id that a decoder starts with, and the id that ends a target. BERT has [CLS] and [SEP] for them.

    Raises:
        ValueError: if the tokenizer has no token for the end.
    """
    start = next(
        (i for i in (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id) if i is not None), None
    )
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if start is None or end is None:
        raise ValueError(f"the tokenizer of the target ({type(tokenizer).__name__}) has no token that ends a text")
    return start, end


def decoder_inputs(labels: Tensor, config: Any) -> Tensor:
    """The labels, one place to the right, behind the start token: int64 (B, T)."""
    shifted = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=config.decoder_start_token_id)
    return shifted.masked_fill(shifted == IGNORED, config.pad_token_id)


def logits_and_loss(
    hidden: Tensor, project: nn.Module, labels: Tensor | None, smoothing: float, training: bool
) -> tuple[Tensor, Tensor | None]:
    """The logits, and the loss if there are labels.

    In training the projection to the vocabulary, which costs most, runs only where there is a target. Then the logits
    are (N, V), row after row. Else they are (B, T, V).

    Args:
        hidden: (B, T, H).
        project: (..., H) -> (..., V).
    """
    if labels is None:
        return project(hidden), None
    real = labels != IGNORED
    if training:
        logits = project(hidden[real])
        return logits, cross_entropy(logits.float(), labels[real], label_smoothing=smoothing)
    logits = project(hidden)
    return logits, cross_entropy(logits[real].float(), labels[real])
