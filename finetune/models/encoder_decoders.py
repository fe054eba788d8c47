"""Recurrent encoder-decoders: with a fixed-length bottleneck, or with attention.

Without attention the decoder knows the source by its first state alone, which is the encoder's last state (Sutskever
et al., 2014). So a sentence of any length must fit into a vector of one size. An encoder of two directions has half
of the size in each, and the two last states are joined.

With attention (Bahdanau et al., 2015; Luong et al., 2015) each state of the decoder also looks at all states of the
encoder. It looks with its state of the same step, as in Luong et al., for both ways to score: `additive` is
Bahdanau's v tanh(W s + U h), `dot` is Luong's s h. Then the decoder's states do not depend on what it looked at. So
if all words of the target are given, it runs over them in one call. With input feeding (Luong et al., section 3.3)
what the decoder has read goes into its next step, as in Bahdanau et al., and it runs step by step.

Shapes: B rows, S source tokens, T target tokens, E of a word, H hidden, L layers, K states of a cell (an LSTM has 2),
V vocabulary of the target.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling, Seq2SeqLMOutput

from finetune.models.configuration import RecurrentSeq2SeqConfig
from finetune.models.cpu_dropout import FastDropout
from finetune.models.recurrent import CELLS, RecurrentPreTrainedModel, run_cells, run_recurrent_with_states
from finetune.models.target_loss import decoder_inputs, logits_and_loss


@dataclass
class DecoderState:
    """What the decoder carries from one step to the next."""

    cells: list[Any]  # the state of each layer, in the form of its cell, (1, B, H)
    read: Tensor | None = None  # (B, 1, E): what the last step gave, for input feeding
    keys: Tensor | None = None  # (B, S, H): the encoder's states, ready to be compared; equal in all beams of a row

    def reorder_cache(self, rows: Tensor) -> None:
        """Puts other beams in the places of these; `generate` calls it. `rows`: int64 (B,)."""
        self.cells = [
            tuple(part[:, rows] for part in state) if isinstance(state, tuple) else state[:, rows]
            for state in self.cells
        ]
        self.read = None if self.read is None else self.read[rows]


class RecurrentEncoder(nn.Module):
    """Reads the source."""

    main_input_name = "input_ids"

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.source_vocab_size, config.embedding_size)
        self.dropout = FastDropout(config.dropout)
        directions = 1 + config.bidirectional
        self.cells = nn.ModuleList(
            CELLS[config.cell](
                config.hidden_size if layer else config.embedding_size,
                config.hidden_size // directions,
                batch_first=True,
                bidirectional=config.bidirectional,
            )
            for layer in range(config.num_hidden_layers)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            input_ids: int64 (B, S).
            attention_mask: int64 (B, S), padding on the right; default: none.

        Returns:
            `last_hidden_state` (B, S, H), 0 on padding; `pooler_output` (B, L, K, H), the last states.
        """
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        words = self.dropout(_embed(self.embeddings, input_ids))
        hidden, states = run_recurrent_with_states(list(self.cells), words, real.sum(1).clamp(min=1), self.dropout)
        last = [
            torch.stack([_directions_joined(part) for part in (state if isinstance(state, tuple) else (state,))], 1)
            for state in states
        ]
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=torch.stack(last, 1))


class RecurrentDecoder(nn.Module):
    """Writes the target: recurrent layers, attention if there is any, and a layer that joins the two."""

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        E, H = config.embedding_size, config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, E)
        self.dropout = FastDropout(config.dropout)
        below = E + (E if config.input_feeding else 0)
        self.cells = nn.ModuleList(
            CELLS[config.cell](H if layer else below, H, batch_first=True)
            for layer in range(config.num_hidden_layers)
        )
        self.attention = config.attention
        if self.attention == "additive":
            self.query, self.key = nn.Linear(H, H), nn.Linear(H, H, bias=False)
            self.energy = nn.Linear(H, 1, bias=False)
        self.readout = nn.Linear(H if self.attention == "none" else 2 * H, E)

    def step(
        self, words: Tensor, state: DecoderState, memory: Tensor, hidden_places: Tensor
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """One step or, without input feeding, several.

        Args:
            words: (B, T, E).
            memory: (B, S, H), the encoder's states.
            hidden_places: bool (B, 1, S), true on padding.

        Returns:
            (B, T, E), to be projected to the vocabulary; the attention (B, T, S), if there is any; the next state.
        """
        if state.read is not None:
            words = torch.cat([words, state.read.to(words.dtype)], 2)
        hidden, cells = run_cells(list(self.cells), words, state.cells, self.dropout)
        weights = None
        if self.attention != "none":
            weights = self._scores(hidden, state.keys).float()
            weights = weights.masked_fill(hidden_places, torch.finfo(torch.float32).min).softmax(2)
            hidden = torch.cat([hidden, weights.to(memory.dtype) @ memory], 2)
        read = torch.tanh(self.readout(hidden))
        fed = None if state.read is None else read[:, -1:]
        return self.dropout(read), weights, DecoderState(cells, fed, state.keys)

    def keys(self, memory: Tensor) -> Tensor | None:
        """(B, S, H) -> (B, S, H): what queries are compared with."""
        return self.key(memory) if self.attention == "additive" else memory if self.attention == "dot" else None

    def _scores(self, hidden: Tensor, keys: Any) -> Tensor:
        """(B, T, H), (B, S, H) -> (B, T, S)."""
        if self.attention == "dot":
            return hidden @ keys.to(hidden.dtype).transpose(1, 2)
        scores: Tensor = self.energy(torch.tanh(self.query(hidden)[:, :, None] + keys[:, None])).squeeze(3)
        return scores


class RecurrentForSeq2Seq(RecurrentPreTrainedModel, GenerationMixin):
    """A recurrent encoder-decoder with a projection to the target's vocabulary."""

    config_class = RecurrentSeq2SeqConfig  # type: ignore[assignment]

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__(config)
        self.encoder, self.decoder = RecurrentEncoder(config), RecurrentDecoder(config)
        self.output = nn.Linear(config.embedding_size, config.vocab_size)
        self._tied_weights_keys = {"output.weight": "decoder.embeddings.weight"}
        if config.share_embeddings:
            self._tied_weights_keys["encoder.embeddings.weight"] = "decoder.embeddings.weight"
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the first forward pass makes a `DecoderState`

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
        teacher_forcing: Tensor | None = None,
        encoder_outputs: Any = None,
        cache: DecoderState | None = None,
        output_attentions: bool = False,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """
        | input | dtype, shape |
        |---|---|
        | `input_ids` | int64 (B, S), the source |
        | `attention_mask` | int64 (B, S), padding on the right; default: none |
        | `labels` | int64 (B, T): the target and its end token, no start token; -100 on padding |
        | `decoder_input_ids` | int64 (B, T); default: `labels` behind the start token |
        | `teacher_forcing` | float (B,), default 1: how likely a step is given the right word in training |

        A step that is not given the right word gets the one that the model found most probable (scheduled sampling,
        Bengio et al., 2015).

        Returns: `logits` and `loss` as `logits_and_loss` makes them; `cache`, if there are no labels;
        `cross_attentions`, one (B, 1, T, S), if they are asked for and the model has attention.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        memory = encoder_outputs.last_hidden_state
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("give decoder_input_ids or labels")
            decoder_input_ids = decoder_inputs(labels, self.config)
        B, S = memory.shape[:2]
        real = memory.new_ones(B, S, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        state = self._first_state(encoder_outputs) if cache is None else cache
        given = None
        if teacher_forcing is not None and self.training and bool((teacher_forcing < 1).any()):
            chance = torch.rand(decoder_input_ids.shape, device=memory.device)
            given = chance < teacher_forcing[:, None]
        hidden, weights, state = self._decode(decoder_input_ids, state, memory, ~real[:, None], given)
        logits, loss = logits_and_loss(hidden, self.output, labels, self.config.label_smoothing, self.training)
        seen = output_attentions and weights is not None
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            cache=state if labels is None and use_cache else None,  # type: ignore[arg-type]  # `generate` takes it
            cross_attentions=(weights[:, None],) if seen and weights is not None else None,
            encoder_last_hidden_state=memory,
        )

    def _first_state(self, encoder_outputs: Any) -> DecoderState:
        cells: list[Any] = []
        for states in encoder_outputs.pooler_output.unbind(1):  # (B, K, H)
            parts = [part[None].contiguous() for part in states.unbind(1)]
            cells.append(tuple(parts) if len(parts) > 1 else parts[0])
        memory = encoder_outputs.last_hidden_state
        read = memory.new_zeros(len(memory), 1, self.config.embedding_size) if self.config.input_feeding else None
        return DecoderState(cells, read, self.decoder.keys(memory))

    def _decode(
        self, ids: Tensor, state: DecoderState, memory: Tensor, hidden_places: Tensor, given: Tensor | None
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """All steps of a target. `given`: bool (B, T), which words are the right ones; None: all of them."""
        decoder = self.decoder
        if given is None:
            words = decoder.dropout(_embed(decoder.embeddings, ids))
            if not self.config.input_feeding:
                return decoder.step(words, state, memory, hidden_places)
        steps: list[Tensor] = []
        weights: list[Any] = []
        for t in range(ids.shape[1]):
            if given is None:
                word = words[:, t : t + 1]
            else:
                now = ids[:, t]
                if t:  # the first one is the start token
                    now = torch.where(given[:, t], now, self.output(steps[-1][:, 0]).argmax(1))
                word = decoder.dropout(_embed(decoder.embeddings, now[:, None]))
            hidden, looked, state = decoder.step(word, state, memory, hidden_places)
            steps.append(hidden)
            weights.append(looked)
        return torch.cat(steps, 1), None if weights[0] is None else torch.cat(weights, 1), state


def _embed(embeddings: Any, ids: Tensor) -> Tensor:
    """Word vectors of about length 1, times the root of their size, since the output layer may share them."""
    words: Tensor = embeddings(ids)
    return words * words.shape[-1] ** 0.5


def _directions_joined(state: Tensor) -> Tensor:
    """(directions, B, h) -> (B, H)."""
    return state.transpose(0, 1).flatten(1)
