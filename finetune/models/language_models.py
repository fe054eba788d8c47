"""Loads models that predict the next token: new recurrent ones, a new small transformer, and checkpoints."""

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, processors
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from finetune.models.configuration import RecurrentConfig
from finetune.models.names import LANGUAGE_MODELS, TRAINED_TOKENIZERS, is_new_language_model
from finetune.models.pretrained import load_config, load_pretrained, load_tokenizer, resolve
from finetune.models.recurrent_language_model import RecurrentForCausalLM, next_word_output
from finetune.models.tokenizer_fit import check_tokenizer, position_limit, suit_tokenizer
from finetune.models.tokenizers import train_tokenizer


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
    length = min(8, position_limit(model) or 8)
    ids = torch.arange(4, 4 + length, device=model.device)[None] % model.config.vocab_size
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
