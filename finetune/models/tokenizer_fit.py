"""Do a tokenizer and a model belong together, and how long may an input be?"""

from typing import Any

import torch
from transformers import PreTrainedModel

from finetune.models.attention import KINDS


def suit_tokenizer(tokenizer: Any, model: PreTrainedModel) -> None:
    """Tells a tokenizer, and so whoever loads it later, how long an input may be, and where padding goes."""
    limit = position_limit(model)
    if limit is not None:
        tokenizer.model_max_length = min(limit, tokenizer.model_max_length)
    if model.config.model_type in KINDS:  # they count positions from the first column on
        tokenizer.padding_side = "right"


def check_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Refuses a tokenizer that is not the one the model was trained with, as far as that can be seen.

    Raises:
        ValueError: for more pieces than the model has embeddings, and, for a BERT, RoBERTa or XLM-R, for lost special
            tokens.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} pieces but {name} has embeddings for {vocabulary}; they do not "
            "belong together"
        )
    piece, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= vocabulary:
        raise ValueError(
            f"the tokenizer gives {piece!r:.100} the id {highest} but {name} has embeddings for {vocabulary}; they "
            "do not belong together"
        )
    if model.config.model_type not in KINDS:
        return
    special = tokenizer("x", return_special_tokens_mask=True)["special_tokens_mask"]
    if len(special) < 2 or not (special[0] and special[-1]):
        raise ValueError(
            f"the tokenizer puts no special tokens around a text, as {name} needs them ([CLS] and [SEP], <s> and "
            "</s>); has its tokenizer.json lost them?"
        )
    if tokenizer.pad_token_id != model.config.pad_token_id:
        raise ValueError(
            f"the tokenizer's padding token has the id {tokenizer.pad_token_id}, that of {name} has "
            f"{model.config.pad_token_id}; they do not belong together, or the tokenizer has lost its special tokens"
        )


def position_limit(model: PreTrainedModel) -> int | None:
    """Tokens that the model has positions for; None: any number."""
    positions = _positions(model)
    return None if positions is None else positions.num_embeddings - first_position(model)


def first_position(model: PreTrainedModel) -> int:
    """What the model counts positions from: RoBERTa and XLM-R start after the padding id."""
    positions = _positions(model)
    return 0 if positions is None or positions.padding_idx is None else positions.padding_idx + 1


def _positions(model: PreTrainedModel) -> torch.nn.Embedding | None:
    for name, module in model.named_modules():
        if name.endswith("embeddings.position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module
    return None
