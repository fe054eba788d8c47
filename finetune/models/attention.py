"""BERT, RoBERTa and XLM-R without padding: the encoder's layers run on the real tokens of a batch, laid end to end.

Linears, norms and activations see `(1, N, H)`; attention alone sees sequences, those of similar length together. The
model's inputs and outputs have the shapes that they always have, so that no head, recipe or metric knows.

Shapes: B sequences, T tokens of the longest, N real tokens, H hidden, A heads, D of a head; a group has b sequences
and t tokens of its longest.
"""

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from finetune.models.dropout import dropout as fast_dropout
from finetune.models.dropout import use_fast_dropout

NAME = "finetune_packed"
KINDS = ("bert", "roberta", "xlm-roberta")  # whose encoders are known to be a plain stack of layers
_PLAIN_BELOW = 512  # tokens: on a CPU, three plain operations instead of the fused one up to here
_ROUND = 16  # lengths that are equal when rounded up to a multiple of this share a group


@dataclass(frozen=True)
class Group:
    """Sequences of similar length among the packed tokens."""

    tokens: torch.Tensor  # int64 (b, t): where a sequence's tokens are; 0 past its end
    real: torch.Tensor | None  # bool (b, t); None: all of them are


def run_without_padding(model: PreTrainedModel) -> PreTrainedModel:
    """Makes the encoder of a BERT, RoBERTa or XLM-R skip padding, and its dropout fast.

    Outputs are the same, up to rounding, but for the hidden states of padding, which are 0. Other models stay as they
    are, and on a machine with an accelerator all do: what this is worth there has not been measured.
    """
    if model.config.model_type not in KINDS or torch.accelerator.is_available():
        return model
    use_fast_dropout(model)
    model.set_attn_implementation(NAME)
    encoder: Any = model.base_model.encoder
    own = encoder.forward

    def forward(self: Any, hidden_states: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
        if model.config._attn_implementation != NAME:  # somebody has set another one since
            return own(hidden_states, attention_mask=attention_mask, **kwargs)
        shape = hidden_states.shape  # (B, T, H)
        if attention_mask is None:
            attention_mask = torch.ones(shape[:2], dtype=torch.bool, device=hidden_states.device)
        real = attention_mask.bool()
        at = real.flatten().nonzero()[:, 0]  # (N,)
        packed = hidden_states.flatten(0, 1)[at][None]  # (1, N, H)
        output = own(packed, attention_mask=None, sequences=groups_of(real), **kwargs)
        unpacked = packed.new_zeros(shape[0] * shape[1], shape[2]).index_copy(0, at, output.last_hidden_state[0])
        output.last_hidden_state = unpacked.view(shape)
        return output

    encoder.forward = MethodType(forward, encoder)
    return model


def groups_of(real: torch.Tensor) -> list[Group]:
    """Sequences by length.

    Args:
        real: bool (B, T); of any form, since the real tokens of a row need not be its first ones.
    """
    lengths = real.sum(1)
    ends = lengths.cumsum(0)
    groups = []
    rounded = -(-lengths // _ROUND) * _ROUND
    for size in rounded.unique().tolist():
        rows = (rounded == size).nonzero()[:, 0]
        longest = int(lengths[rows].max())
        if longest == 0:
            continue
        steps = torch.arange(longest, device=real.device)
        within = steps < lengths[rows, None]  # (b, t)
        tokens = torch.where(within, (ends - lengths)[rows, None] + steps, 0)
        groups.append(Group(tokens, None if bool(within.all()) else within))
    return groups


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    sequences: list[Group] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each sequence of the packed tokens; an attention function of `transformers`.

    Args:
        query, key, value: (1, A, N, D).
        sequences: the groups that together hold every token once.

    Returns:
        (1, N, A, D), and no attention weights.
    """
    assert sequences is not None, "this attention function is for encoders that run_without_padding has prepared"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # (N, A, D)
    result = torch.zeros_like(q)
    for group in sequences:
        q_g, k_g, v_g = (states[group.tokens].transpose(1, 2) for states in (q, k, v))  # (b, A, t, D)
        mask = None if group.real is None else group.real[:, None, None, :]
        context = attend(q_g, k_g, v_g, mask, scale, dropout).transpose(1, 2)  # (b, t, A, D)
        if group.real is None:
            result = result.index_copy(0, group.tokens.flatten(), context.flatten(0, 1).to(result.dtype))
        else:
            result = result.index_copy(0, group.tokens[group.real], context[group.real].to(result.dtype))
    return result[None], None


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, dropout: float
) -> torch.Tensor:
    """Softmax attention: (b, A, t, D) of each, with `mask` bool (b, 1, 1, t)."""
    if q.device.type != "cpu" or q.shape[2] > _PLAIN_BELOW:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    scores = (q * scale) @ k.transpose(2, 3)  # (b, A, t, t)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if dropout:
        weights = fast_dropout(weights, dropout)
    return weights.to(v.dtype) @ v


def _padding_mask(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """The (B, T) mask as it came, for the encoder; attention itself needs none."""
    return attention_mask


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _padding_mask)
