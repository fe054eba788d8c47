"""The Transformer (Vaswani et al., 2017): an encoder-decoder of attention alone, with sinusoidal positions.

Linear layers, norms and activations run on the real tokens of a batch, laid end to end. Only attention sees padding.

Shapes: B rows, S source tokens, T target tokens, N real tokens of a batch, H hidden, A heads, D of a head,
V vocabulary of the target.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from finetune.models.attention import Packing, packing_of
from finetune.models.configuration import TransformerSeq2SeqConfig
from finetune.models.cpu_dropout import FastDropout
from finetune.models.target_loss import IGNORED, decoder_inputs, logits_and_loss


@dataclass(frozen=True)
class Places:
    """Where the real tokens of a batch stand. Without padding nothing has to move."""

    shape: tuple[int, int]  # (B, T)
    packing: Packing | None

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) -> (N, ...)."""
        return padded.flatten(0, 1) if self.packing is None else self.packing.pack(padded)

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, ...) -> (B, T, ...), 0 on padding."""
        return packed.unflatten(0, self.shape) if self.packing is None else self.packing.unpack(packed)


def places_of(real: Tensor) -> Places:
    """`real`: bool (B, T)."""
    return Places((real.shape[0], real.shape[1]), None if real.all() else packing_of(real))


class Attention(nn.Module):
    """Attention with several heads, of tokens to the tokens before them, or to a memory."""

    def __init__(self, config: TransformerSeq2SeqConfig, layer: int = 0) -> None:
        super().__init__()
        H = config.hidden_size
        self.heads, self.layer = config.num_attention_heads, layer
        self.query, self.key, self.value, self.output = (nn.Linear(H, H) for _ in range(4))

    def forward(
        self,
        tokens: Tensor,
        at: Places,
        memory: Tensor,
        memory_at: Places,
        seen: Tensor | None,
        cache: Cache | None = None,
        filled: bool = False,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """
        Args:
            tokens: (N, H).
            memory: (M, H), to which they attend.
            seen: bool, of a shape that fits (B, A, T, S): where attention may go; default: everywhere.
            cache: of the keys and values of this attention.
            filled: whether all keys and values are in the cache already.
            weights: gets the attention weights (B, A, T, S).

        Returns:
            (N, H).
        """
        q = self._by_head(self.query(tokens), at)
        k: Any
        v: Any
        if filled and cache is not None:
            kept: Any = cache.layers[self.layer]
            k, v = kept.keys, kept.values
        else:
            k, v = self._by_head(self.key(memory), memory_at), self._by_head(self.value(memory), memory_at)
            if cache is not None:
                k, v = cache.update(k, v, self.layer)
        if weights is not None:
            scores = (q @ k.transpose(2, 3)).float() * q.shape[-1] ** -0.5
            if seen is not None:
                scores = scores.masked_fill(~seen, torch.finfo(torch.float32).min)
            weights.append(scores.softmax(-1))
            context = weights[-1].to(v.dtype) @ v
        else:
            context = scaled_dot_product_attention(q, k, v, attn_mask=seen)
        result: Tensor = self.output(at.pack(context.transpose(1, 2)).flatten(1))
        return result

    def _by_head(self, states: Tensor, at: Places) -> Tensor:
        """(N, H) -> (B, A, T, D)."""
        return at.unpack(states).unflatten(2, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, config: TransformerSeq2SeqConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, H) -> (N, H)."""
        result: Tensor = self.down(relu(self.up(tokens)))
        return result


class Residual(nn.Module):
    """The sum of a sublayer's input and output, normalised as the paper does, or with its input normalised."""

    def __init__(self, config: TransformerSeq2SeqConfig) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(config.hidden_size), FastDropout(config.dropout)
        self.norm_first = config.norm_first

    def forward(self, tokens: Tensor, sublayer: Any) -> Tensor:
        """(N, H) -> (N, H)."""
        if self.norm_first:
            return tokens + self.dropout(sublayer(self.norm(tokens)))
        result: Tensor = self.norm(tokens + self.dropout(sublayer(tokens)))
        return result


class EncoderLayer(nn.Module):
    """Attention to the whole source, then a feed-forward network."""

    def __init__(self, config: TransformerSeq2SeqConfig) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(config), FeedForward(config)
        self.after_attention, self.after_feed_forward = Residual(config), Residual(config)

    def forward(self, tokens: Tensor, at: Places, seen: Tensor | None) -> Tensor:
        """(N, H) -> (N, H)."""
        tokens = self.after_attention(tokens, lambda x: self.attention(x, at, x, at, seen))
        result: Tensor = self.after_feed_forward(tokens, self.feed_forward)
        return result


class DecoderLayer(nn.Module):
    """Attention to the words before, attention to the source, then a feed-forward network."""

    def __init__(self, config: TransformerSeq2SeqConfig, layer: int) -> None:
        super().__init__()
        self.attention, self.source_attention = Attention(config, layer), Attention(config, layer)
        self.feed_forward = FeedForward(config)
        self.after_attention, self.after_source, self.after_feed_forward = (Residual(config) for _ in range(3))

    def forward(
        self,
        tokens: Tensor,
        at: Places,
        seen: Tensor | None,
        memory: Tensor,
        memory_at: Places,
        source_seen: Tensor | None,
        cache: EncoderDecoderCache | None,
        weights: list[Tensor] | None,
    ) -> Tensor:
        """(N, H) -> (N, H)."""
        own = None if cache is None else cache.self_attention_cache
        other = None if cache is None else cache.cross_attention_cache
        layer = self.attention.layer
        filled = cache is not None and bool(cache.is_updated.get(layer))
        tokens = self.after_attention(tokens, lambda x: self.attention(x, at, x, at, seen, own))
        tokens = self.after_source(
            tokens,
            lambda x: self.source_attention(x, at, memory, memory_at, source_seen, other, filled, weights),
        )
        if cache is not None:
            cache.is_updated[layer] = True
        result: Tensor = self.after_feed_forward(tokens, self.feed_forward)
        return result


class TransformerEncoder(nn.Module):
    """Reads the source."""

    main_input_name = "input_ids"

    def __init__(self, config: TransformerSeq2SeqConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.source_vocab_size, config.hidden_size)
        self.dropout = FastDropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size) if config.norm_first else nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """
        Args:
            input_ids: int64 (B, S).
            attention_mask: int64 (B, S); default: no padding.

        Returns:
            `last_hidden_state` (B, S, H), 0 on padding.
        """
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        at = places_of(real)
        tokens = self.dropout(at.pack(embed(self.embeddings, input_ids, 0)))
        seen = None if at.packing is None else real[:, None, None]
        for layer in self.layers:
            tokens = layer(tokens, at, seen)
        return BaseModelOutput(last_hidden_state=at.unpack(self.norm(tokens)))


class TransformerDecoder(nn.Module):
    """Writes the target."""

    def __init__(self, config: TransformerSeq2SeqConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = FastDropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size) if config.norm_first else nn.Identity()

    def forward(
        self,
        ids: Tensor,
        real: Tensor,
        memory: Tensor,
        memory_real: Tensor,
        cache: EncoderDecoderCache | None,
        weights: list[Tensor] | None,
    ) -> Tensor:
        """
        Args:
            ids: int64 (B, T), behind those in the cache.
            real: bool (B, T); padding is on the right.
            memory: (B, S, H).
            memory_real: bool (B, S).

        Returns:
            (B, T, H), 0 on padding.
        """
        T, past = ids.shape[1], 0 if cache is None else cache.get_seq_length()
        at = places_of(real)
        filled = cache is not None and bool(cache.is_updated.get(0))  # then the layers do not read the memory
        memory_at = Places((memory.shape[0], memory.shape[1]), None) if filled else places_of(memory_real)
        tokens = self.dropout(at.pack(embed(self.embeddings, ids, past)))
        # Padding is on the right, so the mask that hides later words hides it, too.
        seen = torch.ones(T, past + T, dtype=torch.bool, device=ids.device).tril(past) if T > 1 else None
        source_seen = None if memory_real.all() else memory_real[:, None, None]
        packed = memory_at.pack(memory)
        for layer in self.layers:
            tokens = layer(tokens, at, seen, packed, memory_at, source_seen, cache, weights)
        return at.unpack(self.norm(tokens))


class TransformerForSeq2Seq(PreTrainedModel, GenerationMixin):
    """The Transformer with a projection to the target's vocabulary."""

    config_class = TransformerSeq2SeqConfig
    base_model_prefix = "encoder"

    def __init__(self, config: TransformerSeq2SeqConfig) -> None:
        super().__init__(config)
        self.encoder, self.decoder = TransformerEncoder(config), TransformerDecoder(config)
        self.output = nn.Linear(config.hidden_size, config.vocab_size)
        self._tied_weights_keys = {"output.weight": "decoder.embeddings.weight"}
        if config.share_embeddings:
            self._tied_weights_keys["encoder.embeddings.weight"] = "decoder.embeddings.weight"
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        """The words of the source."""
        return self.encoder.embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The projection to the target's vocabulary."""
        return self.output

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: Any = None,
        cache: EncoderDecoderCache | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """
        | input | dtype, shape |
        |---|---|
        | `input_ids` | int64 (B, S), the source |
        | `attention_mask` | int64 (B, S); default: no padding |
        | `labels` | int64 (B, T): the target and its end token, no start token; -100 on padding |
        | `decoder_input_ids` | int64 (B, T); default: `labels` behind the start token |

        Returns: `logits` and `loss` as `logits_and_loss` makes them; if they are asked for, `cross_attentions`
        (B, A, T, S) of each layer.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        memory = encoder_outputs.last_hidden_state
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("give decoder_input_ids or labels")
            decoder_input_ids = decoder_inputs(labels, self.config)
        if attention_mask is None:
            attention_mask = torch.ones(memory.shape[:2], device=memory.device)
        real = torch.ones_like(decoder_input_ids, dtype=torch.bool)
        if labels is not None:  # up to the last target
            real = (labels != IGNORED).flip(1).cumsum(1).flip(1) > 0
        weights: list[Tensor] | None = [] if output_attentions else None
        hidden = self.decoder(decoder_input_ids, real, memory, attention_mask.bool(), cache, weights)
        logits, loss = logits_and_loss(hidden, self.output, labels, self.config.label_smoothing, self.training)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            cache=cache,
            cross_attentions=None if weights is None else tuple(weights),
            encoder_last_hidden_state=memory,
        )


def embed(embeddings: Any, ids: Tensor, first: int) -> Tensor:
    """Word vectors times the root of their size, plus the sinusoids of their places: (B, T) -> (B, T, H).

    Args:
        first: the place of the first word.
    """
    words: Tensor = embeddings(ids)
    H = words.shape[-1]
    places = torch.arange(first, first + ids.shape[1], device=ids.device, dtype=torch.float32)
    rates = 10_000.0 ** (-torch.arange(0, H, 2, device=ids.device, dtype=torch.float32) / H)
    angles = places[:, None] * rates  # (T, H / 2)
    sinusoids = torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
    return words * H**0.5 + sinusoids.to(words.dtype)
