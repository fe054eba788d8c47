"""BERT, RoBERTa and XLM-R without padding: the encoder's layers run on the real tokens of a batch, laid end to end.

Linears, norms and activations see `(1, N, H)`; only attention sees sequences. The model's inputs and outputs keep
their usual shapes, so no head, recipe or metric needs to change.

Shapes: B sequences, T tokens of the longest, N real tokens, H hidden, A heads, D of a head; b sequences of t tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from finetune.models.cpu_dropout import dropout as fast_dropout
from finetune.models.cpu_dropout import use_fast_dropout

NAME = "finetune_packed"
KINDS = ("bert", "roberta", "xlm-roberta")  # their encoders are known to be a plain stack of layers
_PLAIN_BELOW = 512  # tokens: up to here a CPU uses three plain operations instead of the fused one


@dataclass(frozen=True)
class Packing:
    """The places of a batch's sequences among its real tokens. On a CPU the shorter sequences come first."""

    real: Tensor  # bool (B, T)
    at: Tensor  # int64 (N,): each token's place in the batch, laid flat
    same_length: list[tuple[int, int]]  # (b, t), in the order of the tokens; on a CPU only

    @cached_property
    def ends(self) -> Tensor:
        """int32 (B + 1,), from 0: where each sequence ends among the tokens of a GPU's batch."""
        return torch.nn.functional.pad(self.real.sum(1).cumsum(0), (1, 0)).int()

    @cached_property
    def shown(self) -> Tensor:
        """int64 (B * T,): which token stands at each place of the batch, laid flat; on padding it is the first."""
        tokens = torch.arange(len(self.at), device=self.at.device)
        return self.at.new_zeros(self.real.numel()).index_copy(0, self.at, tokens)

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
        real: bool (B, T). The real tokens of a row need not be its first ones.
    """
    if real.device.type != "cpu":
        return Packing(real, real.flatten().nonzero()[:, 0], [])
    lengths, order = real.sum(1).sort(stable=True)
    rows, columns = real[order].nonzero(as_tuple=True)
    counts = zip(*(each.tolist() for each in lengths.unique_consecutive(return_counts=True)), strict=True)
    return Packing(real, order[rows] * real.shape[1] + columns, [(b, t) for t, b in counts if t])


def run_without_padding(model: PreTrainedModel) -> PreTrainedModel:
    """Makes the encoder of a BERT, RoBERTa or XLM-R skip padding. On a CPU it also makes its dropout fast.

    Outputs are the same, up to rounding, except that the hidden states of padding are 0. Other models stay as they
    are. So do a decoder, which must not see the following words, an encoder whose linear layers run in chunks of T,
    and all models on an accelerator that is not a CUDA GPU. If a forward pass must return the hidden states of all
    layers, it is padded.

    Copies and pickles of the model run in the same way, since nothing here keeps a reference to the model.
    """
    if not _can_pack(model.config) or (torch.accelerator.is_available() and not torch.cuda.is_available()):
        return model
    use_fast_dropout(model)
    model.set_attn_implementation(NAME)
    encoder: Any = model.base_model.encoder
    if _pack not in encoder._forward_pre_hooks.values():
        encoder.register_forward_pre_hook(_pack, with_kwargs=True)
        encoder.register_forward_hook(_unpack, with_kwargs=True)
    return model


def _can_pack(config: Any) -> bool:
    return config.model_type in KINDS and not config.is_decoder and not config.chunk_size_feed_forward


def _pack(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Runs before an encoder's forward pass: removes the padding of its inputs, if they and its config allow that."""
    if encoder.config._attn_implementation != NAME:  # another one has been set since
        return args, kwargs
    mask: Tensor | None = kwargs.get("attention_mask")
    every_layer = kwargs.get("output_hidden_states", encoder.config.output_hidden_states)
    if len(args) > 1 or every_layer or not _can_pack(encoder.config) or (mask is not None and mask.ndim != 2):
        if mask is not None and mask.ndim == 2:
            kwargs["attention_mask"] = mask[:, None, None, :].bool()
        return args, kwargs
    (hidden_states,) = args
    real = torch.ones(hidden_states.shape[:2], device=hidden_states.device) if mask is None else mask
    packing = packing_of(real.bool())
    return (packing.pack(hidden_states)[None],), kwargs | {"attention_mask": None, "packing": packing}  # (1, N, H)


def _unpack(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Runs after an encoder's forward pass: puts the hidden states back into (B, T)."""
    packing: Packing | None = kwargs.get("packing")
    if packing is not None:
        output.last_hidden_state = packing.unpack(output.last_hidden_state[0])
    return output


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
        packing: of the N tokens. None: the inputs are padded, and torch's own attention is used.

    Returns:
        (1, N, A, D), and no attention weights.
    """
    if packing is None:
        padded: Tensor = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )[0]
        return padded, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # (N, A, D)
    if q.device.type == "cpu":
        return _by_length(q, k, v, packing, scale, dropout)[None], None
    varlen = varlen_attention(q.device, q.dtype, q.shape[2], dropout > 0)
    if varlen is not None:
        return varlen(q, k, v, packing.ends, packing.real.shape[1], scale, dropout)[None], None
    return _padded(q, k, v, packing, scale, dropout)[None], None


def _by_length(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Attention for all sequences of the same length at once. `q`, `k`, `v`: (N, A, D); returns (N, A, D)."""
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
    """Softmax attention on a CPU, without padding. `q`, `k`, `v`: (heads, t, D); returns (heads, t, D)."""
    if q.shape[1] > _PLAIN_BELOW:
        return scaled_dot_product_attention(q[None], k[None], v[None], dropout_p=dropout, scale=scale)[0]
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)  # (heads, t, t)
    weights = scores.softmax(-1)
    if dropout:
        weights = fast_dropout(weights, dropout)
    return weights.to(v.dtype) @ v


def _padded(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, dropout: float) -> Tensor:
    """Pads the sequences for attention only. A GPU can do this for every dtype and with dropout."""
    B, T = packing.real.shape
    q, k, v = (
        _Spread.apply(part, packing).unflatten(0, (B, T)).transpose(1, 2) for part in (q, k, v)
    )  # (B, A, T, D)
    mask = packing.real[:, None, None, :]
    context = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    collected: Tensor = _Collect.apply(context.transpose(1, 2).flatten(0, 1), packing)
    return collected


class _Spread(torch.autograd.Function):
    """(N, ...) -> (B * T, ...), with one copy in each direction. Padding holds the first token, and a mask hides it.

    The gradient of padding is not read. It is 0, since no token attends to padding and `_Collect` leaves it out.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packed.index_select(0, packing.shown)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(0, ctx.packing.at), None


class _Collect(torch.autograd.Function):
    """(B * T, ...) -> (N, ...), whose gradient is 0 on padding."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return padded.index_select(0, packing.at)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        spread = gradient.new_zeros(packing.real.numel(), *gradient.shape[1:])
        return spread.index_copy_(0, packing.at, gradient), None


@cache
def varlen_attention(
    device: torch.device, dtype: torch.dtype, head_size: int, dropout: bool
) -> Callable[..., Tensor] | None:
    """Attention over sequences of any lengths, laid end to end, if this device has it. It is tried on a single token.

    Returns None for float32, for GPUs before Ampere, for head sizes that the kernels refuse, and for a torch that
    does not have it or has an older form of it.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return None
    states = torch.zeros(3, 1, 1, head_size, device=device, dtype=dtype)
    ends = torch.tensor([0, 1], device=device, dtype=torch.int32)
    for attention in (_flash_varlen,) if dropout else (_torch_varlen, _flash_varlen):
        try:
            with torch.enable_grad():
                q, k, v = (part.requires_grad_() for part in states.clone())
                attention(q, k, v, ends, 1, 1.0, 0.1 if dropout else 0.0).sum().backward()
        except (ImportError, RuntimeError, TypeError):
            continue
        return attention
    return None


def _torch_varlen(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, scale: float, dropout: float
) -> Tensor:
    """`longest`: an upper bound of the lengths that is known without reading the GPU's memory."""
    from torch.nn.attention.varlen import varlen_attn

    context: Any = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale)
    return context


def _flash_varlen(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, scale: float, dropout: float
) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    context: Tensor = flash_attn_varlen_func(
        q, k, v, ends, ends, longest, longest, dropout_p=dropout, softmax_scale=scale
    )
    return context


def _padding_mask(attention_mask: Tensor | None = None, config: Any = None, **kwargs: Any) -> Tensor | None:
    """The unchanged (B, T) mask for an encoder that packs. For other models, the mask of torch's own attention."""
    if _can_pack(config):
        return attention_mask
    mask: Tensor | None = sdpa_mask(attention_mask=attention_mask, config=config, **kwargs)
    return mask


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _padding_mask)
