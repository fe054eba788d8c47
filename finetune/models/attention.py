"""BERT, RoBERTa and XLM-R without padding: the encoder's layers run on the real tokens of a batch, laid end to end.

Linears, norms and activations see `(1, N, H)`; attention alone sees sequences. The model's inputs and outputs have
the shapes that they always have, so that no head, recipe or metric knows.

Shapes: B sequences, T tokens of the longest, N real tokens, H hidden, A heads, D of a head; b sequences of t tokens.
"""

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.utils import is_flash_attn_2_available

from finetune.models.dropout import dropout as fast_dropout
from finetune.models.dropout import use_fast_dropout

NAME = "finetune_packed"
KINDS = ("bert", "roberta", "xlm-roberta")  # whose encoders are known to be a plain stack of layers
_TORCH_HAS_VARLEN = importlib.util.find_spec("torch.nn.attention.varlen") is not None
_PLAIN_BELOW = 512  # tokens: on a CPU, three plain operations instead of the fused one up to here


@dataclass(frozen=True)
class Packing:
    """Where the sequences of a batch are among its real tokens; on a CPU the shorter sequences come first."""

    real: Tensor  # bool (B, T)
    at: Tensor  # int64 (N,): each token's place in the batch, laid flat
    same_length: list[tuple[int, int]]  # (b, t), in the order of the tokens; on a CPU only

    @cached_property
    def ends(self) -> Tensor:
        """int32 (B + 1,), from 0: where each sequence ends among the tokens of a GPU's batch."""
        return torch.nn.functional.pad(self.real.sum(1).cumsum(0), (1, 0)).int()

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...)."""
        return padded.flatten(0, 1)[self.at]

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, ...) -> (B, T, ...), 0 on padding."""
        B, T = self.real.shape
        return packed.new_zeros(B * T, *packed.shape[1:]).index_copy(0, self.at, packed).unflatten(0, (B, T))


def packing_of(real: Tensor) -> Packing:
    """How to pack a batch.

    Args:
        real: bool (B, T); of any form, since the real tokens of a row need not be its first ones.
    """
    if real.device.type != "cpu":
        return Packing(real, real.flatten().nonzero()[:, 0], [])
    lengths, order = real.sum(1).sort(stable=True)
    rows, columns = real[order].nonzero(as_tuple=True)
    counts = zip(*(each.tolist() for each in lengths.unique_consecutive(return_counts=True)), strict=True)
    return Packing(real, order[rows] * real.shape[1] + columns, [(b, t) for t, b in counts if t])


def run_without_padding(model: PreTrainedModel) -> PreTrainedModel:
    """Makes the encoder of a BERT, RoBERTa or XLM-R skip padding, and on a CPU its dropout fast.

    Outputs are the same, up to rounding, but for the hidden states of padding, which are 0. Other models stay as they
    are, and on an accelerator that is no CUDA GPU all do.
    """
    if model.config.model_type not in KINDS or (torch.accelerator.is_available() and not torch.cuda.is_available()):
        return model
    use_fast_dropout(model)
    model.set_attn_implementation(NAME)
    encoder: Any = model.base_model.encoder
    own = encoder.forward

    def forward(self: Any, hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
        if model.config._attn_implementation != NAME:  # somebody has set another one since
            return own(hidden_states, attention_mask=attention_mask, **kwargs)
        if attention_mask is None:
            attention_mask = torch.ones(hidden_states.shape[:2], device=hidden_states.device)
        packing = packing_of(attention_mask.bool())
        packed = packing.pack(hidden_states)[None]  # (1, N, H)
        output = own(packed, attention_mask=None, packing=packing, **kwargs)
        output.last_hidden_state = packing.unpack(output.last_hidden_state[0])
        return output

    encoder.forward = MethodType(forward, encoder)
    return model


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence of the packed tokens; an attention function of `transformers`.

    Args:
        query, key, value: (1, A, N, D).
        packing: of the N tokens.

    Returns:
        (1, N, A, D), and no attention weights.
    """
    assert packing is not None, "this attention function is for encoders that run_without_padding has prepared"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # (N, A, D)
    if q.device.type == "cpu":
        return _by_length(q, k, v, packing, scale, dropout)[None], None
    if q.dtype in (torch.float16, torch.bfloat16):
        if not dropout and _TORCH_HAS_VARLEN:
            return _torch_varlen(q, k, v, packing, scale)[None], None
        if is_flash_attn_2_available():
            return _flash_varlen(q, k, v, packing, scale, dropout)[None], None
    return _padded(q, k, v, packing, scale, dropout)[None], None


def _by_length(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Sequences of one length together: (N, A, D) of each -> (N, A, D)."""
    A, D = q.shape[1:]
    tokens = [b * t for b, t in packing.same_length]
    contexts = []
    for (b, t), *states in zip(packing.same_length, q.split(tokens), k.split(tokens), v.split(tokens), strict=True):
        # (b x t, A, D) -> (b x A, t, D)
        q_h, k_h, v_h = (part.unflatten(0, (b, t)).transpose(1, 2).reshape(b * A, t, D) for part in states)
        context = attend(q_h, k_h, v_h, scale, dropout)
        contexts.append(context.unflatten(0, (b, A)).transpose(1, 2).reshape(b * t, A, D))
    return torch.cat(contexts)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
    """Softmax attention on a CPU, without padding: (heads, t, D) of each -> (heads, t, D)."""
    if q.shape[1] > _PLAIN_BELOW:
        return scaled_dot_product_attention(q[None], k[None], v[None], dropout_p=dropout, scale=scale)[0]
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)  # (heads, t, t)
    weights = scores.softmax(-1)
    if dropout:
        weights = fast_dropout(weights, dropout)
    return weights.to(v.dtype) @ v


def _padded(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Attention alone on padded sequences: what a GPU has for every dtype and for dropout."""
    q, k, v = (packing.unpack(part).transpose(1, 2) for part in (q, k, v))  # (B, A, T, D)
    mask = packing.real[:, None, None, :]
    context = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return packing.pack(context.transpose(1, 2))


def _torch_varlen(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    T = packing.real.shape[1]  # a bound of the lengths that costs no look into the GPU's memory
    context: Any = varlen_attn(q, k, v, packing.ends, packing.ends, T, T, scale=scale)
    return context


def _flash_varlen(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    T = packing.real.shape[1]
    context: Tensor = flash_attn_varlen_func(
        q, k, v, packing.ends, packing.ends, T, T, dropout_p=dropout, softmax_scale=scale
    )
    return context


def _padding_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The (B, T) mask as it came, for the encoder; attention itself needs none."""
    return attention_mask


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _padding_mask)
