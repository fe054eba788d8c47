"""Models that predict the next token: recurrent ones, a small transformer, and checkpoints.

Shapes: B rows, T tokens, H hidden, E embedding, V vocabulary, M targets of the batch.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, processors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import ModelOutput

from finetune.models.configuration import RecurrentConfig
from finetune.models.names import LANGUAGE_MODELS, TRAINED_TOKENIZERS, is_new_language_model
from finetune.models.pretrained import load_config, load_pretrained, load_tokenizer, resolve
from finetune.models.recurrent import RecurrentModel, RecurrentPreTrainedModel, run_cells
from finetune.models.tokenizer_fit import check_tokenizer, position_limit, suit_tokenizer
from finetune.models.tokenizers import train_tokenizer

logger = logging.getLogger(__name__)

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


def predict_next_words(model: Any) -> Any:
    """Gives a causal language model of `transformers` a forward that returns, with labels, what `next_word_output`
    returns. Without labels it calls the model's own forward.
    """
    model.forward = MethodType(_forward, model)  # a deep copy of the model binds it to itself
    return model


def _forward(self: Any, input_ids: Tensor | None = None, labels: Tensor | None = None, **inputs: Any) -> Any:
    own = type(self).forward(self, input_ids=input_ids, **inputs, **({} if labels is None else {"use_cache": False}))
    if labels is None:
        return own
    return next_word_output(nn.Identity(), own.logits[:, :-1], labels[:, 1:], self.training)


def tokenizer_for_language_model(
    texts: Callable[[], Iterable[str]],
    *,
    name: str,
    revision: str,
    tokenizer_name: str | None,
    vocab_size: int,
    on_one_process: Callable[[Callable[[], str]], str] = lambda function: function(),
) -> Any:
    """A tokenizer that is trained on `texts`, for `byte-bpe` and `unigram`, or that of a checkpoint.

    A new one puts the token that begins a document before a text, and nothing behind it.

    Raises:
        ValueError: naming the flag.
    """
    if tokenizer_name not in TRAINED_TOKENIZERS:
        flag = "--tokenizer_name" if tokenizer_name else "--model_name_or_path"
        return load_tokenizer(tokenizer_name or name, revision, flag=flag, needs_padding=False)
    kind = tokenizer_name
    pieces = Tokenizer.from_str(on_one_process(lambda: train_tokenizer(kind, texts, vocab_size=vocab_size).to_str()))
    pieces.decoder = decoders.ByteLevel() if kind == "byte-bpe" else decoders.Metaspace()
    begin = [("<s>", pieces.token_to_id("<s>"))]
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=begin)
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=names, **special)


def load_language_model(config: Any, tokenizer: Any, *, unigram_counts: np.ndarray | None = None) -> Any:
    """A new language model of the shape that the flags say, or a checkpoint, in float32.

    Args:
        config: the flags of `recipes/language_model.py`.
        unigram_counts: how often each id occurs. The bias of a new recurrent model's head starts at the logarithm of
            these frequencies.

    Raises:
        ValueError: naming the flag. Also for a model in which a position sees a later one.
    """
    name = config.model_name_or_path
    model: Any
    if not is_new_language_model(name):
        path = resolve(name)
        settings = load_config(path, name, config.model_revision)
        _check_kind(settings, name)
        model = load_pretrained(AutoModelForCausalLM, path, config.model_revision, config=settings, head="saved")
    else:
        model = _new_transformer(config, tokenizer) if name == "transformer" else _new_recurrent(config, tokenizer)
        if unigram_counts is not None and name != "transformer":
            frequencies = torch.from_numpy(unigram_counts).float() + 1.0
            with torch.no_grad():
                model.lm_head.bias.copy_((frequencies / frequencies.sum()).log())
    limit = position_limit(model)
    if limit is not None and config.max_seq_length > limit:
        raise ValueError(f"--max_seq_length {config.max_seq_length}: {name} has positions for {limit} tokens")
    suit_tokenizer(tokenizer, model)
    tokenizer.padding_side = "right"
    check_tokenizer(tokenizer, model, name)
    check_causal(model, name)
    return model if isinstance(model, RecurrentForCausalLM) else predict_next_words(model)


def load_to_generate(name: str) -> tuple[Any, Any]:
    """A saved model that writes text, in evaluation mode, and its tokenizer.

    Raises:
        ValueError: if it does not load, or is neither a language model nor a masked one.
    """
    from transformers import AutoModelForMaskedLM

    path = resolve(name)
    config = load_config(path, name, "main", "generate:")
    saved = str((config.architectures or ["nothing"])[0])
    masked = saved.endswith(("ForMaskedLM", "ForPreTraining"))
    if not masked:
        _check_kind(config, name, "generate:")
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = load_pretrained(auto, path, "main", config=config, head="saved")
    tokenizer = load_tokenizer(name, flag="generate:", needs_padding=False)
    check_tokenizer(tokenizer, model, name)
    return model.eval(), tokenizer


def _check_kind(config: Any, name: str, flag: str = "--model_name_or_path") -> None:
    saved = str((config.architectures or ["nothing"])[0])
    if not saved.endswith(("ForCausalLM", "LMHeadModel")) or config.is_encoder_decoder:
        raise ValueError(
            f"{flag} {name}: holds {saved}, which does not predict the next token; give a causal language model, as "
            f"recipes/language_model.py writes it, or a new one: {', '.join(LANGUAGE_MODELS)}"
        )


@torch.no_grad()
def check_causal(model: Any, name: str) -> None:
    """Raises ValueError if what a model says at a position depends on a later token, as in a BERT."""
    was_training = model.training
    ids = torch.arange(4, 12, device=model.device)[None] % model.config.vocab_size
    other = ids.clone()
    other[:, -1] = 3 % model.config.vocab_size
    said = [model.eval()(input_ids=some).logits[:, :-1] for some in (ids, other)]
    model.train(was_training)
    if not torch.allclose(said[0], said[1], rtol=1e-5, atol=1e-5):
        raise ValueError(f"--model_name_or_path {name}: its positions see later tokens, so it cannot predict them")


def _new_recurrent(config: Any, tokenizer: Any) -> RecurrentForCausalLM:
    settings: dict[str, Any] = dict(  # noqa: C408
        cell=config.model_name_or_path,
        bidirectional=False,
        vocab_size=len(tokenizer),
        embedding_size=config.embedding_size or config.hidden_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        char_features="none",
        dropout=config.dropout,
        word_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        unk_token_id=tokenizer.unk_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    return RecurrentForCausalLM(RecurrentConfig(**settings))


def _new_transformer(config: Any, tokenizer: Any) -> PreTrainedModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    heads = config.num_attention_heads or max(config.hidden_size // 64, 1)
    if config.hidden_size % heads:
        raise ValueError(
            f"--hidden_size {config.hidden_size}: not a multiple of the {heads} heads (--num_attention_heads)"
        )
    settings = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=config.max_seq_length,
        n_embd=config.hidden_size,
        n_layer=config.num_hidden_layers,
        n_head=heads,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    return GPT2LMHeadModel(settings)


AutoModelForCausalLM.register(RecurrentConfig, RecurrentForCausalLM, exist_ok=True)  # see `finetune/_auto.py`
