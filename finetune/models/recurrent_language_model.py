"""Recurrent language models, and the loss of every language model.

Shapes: B rows, T tokens, H hidden, E embedding, V vocabulary, M targets of the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GenerationMixin
from transformers.modeling_outputs import ModelOutput

from finetune.models.configuration import RecurrentConfig
from finetune.models.recurrent import RecurrentModel, RecurrentPreTrainedModel, run_cells

_AT_ONCE = 1024  # targets of an evaluation whose logits are in memory at once


class RecurrentForCausalLM(RecurrentPreTrainedModel, GenerationMixin):
    """A recurrent language model: an embedding, recurrent layers, and the embedding again as the head.

    In training it carries its state from a row to the next row of the same lane (see `carry_state`). The gradient
    stays within the row: truncated back-propagation through time.
    """

    _tied_weights_keys = {"lm_head.weight": "encoder.embeddings.weight"}  # noqa: RUF012
    _is_stateful = True
    carried: Tensor

    def __init__(self, config: RecurrentConfig) -> None:
        if config.bidirectional or config.char_features != "none":
            raise ValueError("a language model reads in one direction, and no characters")
        super().__init__(config)
        self.encoder = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)
        same = config.hidden_size == config.embedding_size
        self.projection = nn.Identity() if same else nn.Linear(config.hidden_size, config.embedding_size)
        self.lm_head = nn.Linear(config.embedding_size, config.vocab_size)
        self.register_buffer("carried", torch.zeros(0), persistent=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):  # as a head, it would be sure of itself before it has learned anything
            module.weight *= 0.1

    def carry_state(self, lanes: int) -> None:
        """Makes room for the states of so many lanes: `carried`, (lanes, layers, K, H)."""
        kinds = 2 if self.config.cell == "lstm" else 1
        shape = (lanes, self.config.num_hidden_layers, kinds, self.config.hidden_size)
        self.carried = torch.zeros(shape, device=self.device)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        state: Tensor | None = None,
        lane: Tensor | None = None,
        continues: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> ModelOutput:
        """
        | input | dtype, shape |
        |---|---|
        | `input_ids`, `attention_mask` | int64 (B, T), padding on the right |
        | `labels` | int64 (B, T): those of `input_ids` that are targets, else -100 |
        | `state` | float (B, layers, K, H), as this model returns it; default: zero |
        | `lane`, `continues` | int64 (B,): which carried state a row has, and 1 if it goes on from that state |

        Returns: with labels what `next_word_output` returns, else `logits` (B, T, V) and the `state` after the row.
        """
        if labels is None:
            if attention_mask is not None and state is None and not attention_mask[:, 0].all():
                raise ValueError("a recurrent language model takes padding on the right only")
            hidden, state = self._run(input_ids, state)
            logits = self._logits(hidden[:, -logits_to_keep:])
            return ModelOutput(logits=logits, **({} if use_cache is False else {"state": state}))
        if lane is not None and continues is not None and self.training:
            state = self.carried[lane] * continues[:, None, None, None]
        hidden, last = self._run(input_ids[:, :-1], state)
        if lane is not None and self.training:
            # A row that ends before the last column is the last of its document, so its state is not used again.
            self.carried[lane] = last.detach().to(self.carried.dtype)
        return next_word_output(self._logits, hidden, labels[:, 1:], self.training)

    def _run(self, input_ids: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        encoder = self.encoder
        cells = [encoder.recurrent, *encoder.recurrent_above.values()]
        features, states = (
            encoder.dropout(encoder.embeddings(input_ids)),
            None if state is None else _split(state, cells),
        )
        hidden, last = run_cells(cells, features, states, encoder.dropout)
        return hidden, _joined(last)

    def _logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V)."""
        return self.lm_head(self.projection(self.dropout(hidden)))

    # For `generate`:

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict, *args: Any, **kwargs: Any
    ) -> dict:
        if "state" in outputs:
            model_kwargs["state"] = outputs.state
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)

    def _reorder_cache(self, state: Tensor, beams: Tensor) -> Tensor:
        return state.index_select(0, beams.to(state.device))


def _split(state: Tensor, cells: Sequence[Any]) -> list[Any]:
    """(B, layers, K, H) -> the state of each layer, in the form of its cell, (1, B, H)."""
    parts = [state[:, layer].transpose(0, 1).to(cell.weight_hh_l0.dtype) for layer, cell in enumerate(cells)]
    pairs = [(part[:1].contiguous(), part[1:].contiguous()) for part in parts]
    return [pair if isinstance(cell, nn.LSTM) else pair[0] for pair, cell in zip(pairs, cells, strict=True)]


def _joined(states: Sequence[Any]) -> Tensor:
    """What `_split` takes apart."""
    return torch.stack([torch.cat(state) if isinstance(state, tuple) else state for state in states]).permute(
        2, 0, 1, 3
    )


def next_word_output(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, training: bool
) -> ModelOutput:
    """The loss of a language model.

    Args:
        head: (M, H) -> (M, V).
        hidden: (B, T, H).
        targets: int64 (B, T), the token after each of them, or -100.

    Returns:
        `loss`, the mean over the targets. In training also the targets' `logits` (M, V). Otherwise `nll`, float64
        (B,), the sum of each row; then no more than a few logits are in memory at once.
    """
    at = targets != -100
    chosen, right = hidden[at], targets[at]
    if training:
        logits = head(chosen)
        return ModelOutput(loss=cross_entropy(logits.float(), right), logits=logits)
    some = zip(chosen.split(_AT_ONCE), right.split(_AT_ONCE), strict=True)
    losses = torch.cat([cross_entropy(head(h).float(), t, reduction="none") for h, t in some]).double()
    nll = torch.zeros(len(targets), dtype=torch.float64, device=targets.device)
    nll.index_add_(0, at.nonzero()[:, 0], losses)
    return ModelOutput(loss=losses.mean().float(), nll=nll)


AutoModelForCausalLM.register(RecurrentConfig, RecurrentForCausalLM, exist_ok=True)  # see `finetune/_auto.py`
