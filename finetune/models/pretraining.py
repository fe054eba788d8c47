"""Models for pretraining: `transformers`' own heads for masked tokens and next sentences, on masked positions only.

Shapes: B rows, T tokens of the longest, H hidden, V vocabulary, M masked tokens of the batch.
"""

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)
from transformers.modeling_outputs import ModelOutput

from finetune.models.attention import run_without_padding
from finetune.models.pretrained import load_config, load_pretrained, load_tokenizer, resolve
from finetune.models.tokenizer_fit import check_tokenizer, position_limit, suit_tokenizer
from finetune.models.tokenizers import SUBWORDS, subword_tokenizer, train_tokenizer

SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")

_CONFIGS = {"bert": BertConfig, "roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig}
_MASKED = {"bert": BertForMaskedLM, "roberta": RobertaForMaskedLM, "xlm-roberta": XLMRobertaForMaskedLM}


def tokenizer_for_pretraining(
    texts: Callable[[], Iterable[str]],
    *,
    tokenizer_name: str | None,
    config_name: str | None,
    model_name_or_path: str,
    revision: str = "main",
    vocab_size: int,
    lowercase: bool,
    on_one_process: Callable[[Callable[[], str]], str],
) -> Any:
    """The checkpoint's tokenizer, another one, or one that is trained on `texts`.

    Args:
        texts: returns the texts; it is called once for each reading.
        tokenizer_name: a folder or a Hub id, or `wordpiece`, `byte-bpe` or `unigram` to train a new tokenizer.
        config_name: see `load_for_pretraining`. A new tokenizer needs a new model, and the other way round.
        on_one_process: calls a function on one process and returns its result on all processes.

    Raises:
        ValueError: naming the flag.
    """
    if tokenizer_name in SUBWORDS:
        if config_name is None:
            raise ValueError(f"--tokenizer_name {tokenizer_name}: a new tokenizer needs a new model: --config_name")
        pieces = on_one_process(
            lambda: train_tokenizer(tokenizer_name, texts, vocab_size=vocab_size, lowercase=lowercase).to_str()
        )
        return subword_tokenizer(tokenizer_name, Tokenizer.from_str(pieces), lowercase=lowercase)
    if tokenizer_name is None and config_name is not None:
        raise ValueError(
            "--config_name needs a --tokenizer_name: wordpiece, byte-bpe, unigram, or a tokenizer's place"
        )
    flag = "--tokenizer_name" if tokenizer_name else "--model_name_or_path"
    return load_tokenizer(tokenizer_name or model_name_or_path, revision, flag=flag)


def load_for_pretraining(
    tokenizer: Any,
    *,
    model_name_or_path: str | None,
    revision: str = "main",
    config_name: str | None = None,
    shape: dict[str, int | None] | None = None,
    dropout: float | None = None,
    unigram_counts: np.ndarray | None = None,
    next_sentence: bool = False,
    padding_free: bool = True,
    max_seq_length: int,
) -> PreTrainedModel:
    """A BERT, RoBERTa or XLM-R with the head for masked tokens, in float32, from a checkpoint or with random weights.

    Its class is `transformers`' own, so the saved model loads in `fill-mask` and as the encoder of any head. Its
    forward is that of `project_masked_positions`.

    Args:
        tokenizer: gives a new model its vocabulary size and special ids.
        model_name_or_path: the checkpoint to continue from; ignored if there is a `config_name`.
        config_name: start from random weights: bert, roberta, xlm-roberta, or the folder of a config.json.
        shape: values that replace those of the config, such as `num_hidden_layers`. None keeps the config's value.
        dropout: of hidden states and attention. None keeps the config's value.
        unigram_counts: how often each id occurs. A new model's output bias starts at the logarithm of these
            frequencies, so it need not spend its first epoch on learning them.
        next_sentence: add a second head for next sentences or sentence order; only BERT has one.
        padding_free: run without padding (see `run_without_padding`).
        max_seq_length: the longest input to come.

    Raises:
        ValueError: naming the flag.
    """
    flag = "--model_name_or_path" if config_name is None else "--config_name"
    name = config_name or model_name_or_path or ""
    given = {key: value for key, value in (shape or {}).items() if value is not None}
    config: Any
    if config_name in _CONFIGS:
        config = _CONFIGS[config_name]()
    elif config_name is not None:
        try:
            config = load_config(resolve(config_name), config_name, revision, flag="--config_name")
        except ValueError as error:
            raise ValueError(f"{error}; or give bert, roberta, xlm-roberta") from error
    else:
        config = load_config(resolve(name), name, revision)
    if config.model_type not in _MASKED:
        raise ValueError(f"{flag} {name}: pretraining is for {', '.join(_MASKED)}; this is {config.model_type}")
    if next_sentence and config.model_type != "bert":
        raise ValueError(
            f"{flag} {name}: --objective bert and sop need a model that tells two segments apart, a BERT; this is "
            f"{config.model_type}; use --objective roberta or xlm-r"
        )
    if next_sentence and config.type_vocab_size < 2:
        raise ValueError(
            f"{flag} {name}: --objective bert and sop need a model that tells two segments apart; type_vocab_size in "
            f"its config.json is {config.type_vocab_size}; use --objective roberta or xlm-r"
        )
    model_class = BertForPreTraining if next_sentence else _MASKED[config.model_type]
    if dropout is not None:
        config.update({"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout})
    if config_name is None:
        if given:
            raise ValueError(f"--{next(iter(given))}: the checkpoint has its shape; a new one needs --config_name")
        model = load_pretrained(model_class, resolve(name), revision, config=config, head="saved or new")
    else:
        model = model_class(_new_config(config, given, tokenizer, max_seq_length))
        if unigram_counts is not None:
            frequencies = torch.from_numpy(unigram_counts).float() + 1.0
            with torch.no_grad():
                model.get_output_embeddings().bias.copy_((frequencies / frequencies.sum()).log())
    limit = position_limit(model)
    if limit is not None and max_seq_length > limit:
        raise ValueError(f"--max_seq_length {max_seq_length}: {name} has positions for {limit} tokens")
    suit_tokenizer(tokenizer, model)
    check_tokenizer(tokenizer, model, name)
    if padding_free:
        run_without_padding(model)
    return project_masked_positions(model)


def _new_config(config: Any, shape: dict[str, int], tokenizer: Any, max_seq_length: int) -> Any:
    config.update(shape)
    if "hidden_size" in shape:  # the usual proportions, unless the other flags are given
        if "num_attention_heads" not in shape:
            config.num_attention_heads = max(config.hidden_size // 64, 1)
        if "intermediate_size" not in shape:
            config.intermediate_size = 4 * config.hidden_size
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"--hidden_size {config.hidden_size}: not a multiple of the {config.num_attention_heads} heads "
            "(--num_attention_heads)"
        )
    config.vocab_size = len(tokenizer)
    config.pad_token_id = tokenizer.pad_token_id
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    # RoBERTa and XLM-R count positions from the padding id + 1.
    before = 0 if config.model_type == "bert" else tokenizer.pad_token_id + 1
    config.max_position_embeddings = max(max_seq_length + before, config.max_position_embeddings, 512 + before)
    if config.model_type != "bert":
        config.type_vocab_size = 1
    return config


def project_masked_positions(model: PreTrainedModel) -> PreTrainedModel:
    """Gives a model a forward that computes the projection to the vocabulary only at positions with a label.

    The model has a head for masked tokens. Loss and gradient are those of the model's own forward.

    Inputs of the new forward:

    | key | dtype, shape | ignore index |
    |---|---|---|
    | `input_ids`, `attention_mask`, `token_type_ids`, `position_ids` | int64 (B, T) | |
    | `labels` | int64 (B, T) | -100 |
    | `next_sentence_label` | int64 (B,), for `BertForPreTraining` | -100 |

    It returns `loss` (the sum of the means), `logits` (M, V) of the labelled tokens row after row, and with two heads
    `mlm_loss`, `nsp_loss` and `nsp_logits` (B, 2). Without labels it calls the model's own forward.
    """
    model.forward = MethodType(forward, model)  # a deep copy of the model binds it to itself
    words = model.get_input_embeddings()
    if model.get_output_embeddings().weight is words.weight:
        words.__class__ = SharedEmbedding
    return model


def forward(
    self: Any,
    input_ids: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    next_sentence_label: torch.Tensor | None = None,
    **inputs: Any,
) -> Any:
    """The forward pass that `project_masked_positions` gives a model."""
    if labels is None:
        return type(self).forward(self, input_ids=input_ids, **inputs)
    hidden = self.base_model(input_ids=input_ids, **inputs)
    labels = labels.flatten()
    masked = (labels != -100).nonzero()[:, 0]  # only once, since on a GPU this waits for all earlier work
    logits = _head(self)(hidden.last_hidden_state.flatten(0, 1)[masked])  # (M, V)
    mlm_loss = cross_entropy(logits.float(), labels[masked])
    if next_sentence_label is None:
        return ModelOutput(loss=mlm_loss, logits=logits)
    nsp_logits = self.cls.seq_relationship(hidden.pooler_output)  # (B, 2)
    nsp_loss = cross_entropy(nsp_logits.float(), next_sentence_label)
    return ModelOutput(
        loss=mlm_loss + nsp_loss, mlm_loss=mlm_loss, nsp_loss=nsp_loss, logits=logits, nsp_logits=nsp_logits
    )


class SharedEmbedding(nn.Embedding):
    """An embedding whose table the head shares, so its gradient is dense anyway.

    On a CPU, the gradients of the few rows that were looked up are added to that gradient. Otherwise torch would add
    a second table that is zero in all other rows.
    """

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """int64 of any shape -> (..., H)."""
        sparse = self.weight.device.type == "cpu" and self.weight.is_leaf
        return nn.functional.embedding(input_ids, self.weight, self.padding_idx, sparse=sparse)


def _head(model: Any) -> nn.Module:
    """From hidden states (..., H) to the vocabulary (..., V)."""
    head: nn.Module = model.cls.predictions if model.config.model_type == "bert" else model.lm_head
    return head
