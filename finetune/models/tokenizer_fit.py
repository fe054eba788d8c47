"""Checks whether a tokenizer and a model belong together, and how long an input may be."""

import logging
import re
from typing import Any

import torch
from transformers import PreTrainedModel

from finetune.models.attention import KINDS

logger = logging.getLogger(__name__)

# BERT's and XLM's, GPT-2's, BART's and RoFormer's embedding of positions.
_POSITIONS = re.compile(r"(^|\.)(position_embeddings|wpe|embed_positions)$")


def suit_tokenizer(tokenizer: Any, model: PreTrainedModel) -> None:
    """Sets in a tokenizer how long an input may be, where padding goes, and whether it gives token types.

    The settings are saved with the tokenizer. A model without token type embeddings for both texts of a pair gets no
    token types.
    """
    limit = position_limit(model)
    if limit is not None:
        tokenizer.model_max_length = min(limit, tokenizer.model_max_length)
    if model.config.model_type in KINDS:  # they count positions from the first column on
        tokenizer.padding_side = "right"
    kinds = _embedding(model, re.compile(r"(^|\.)token_type_embeddings$"))
    highest = max(tokenizer("x", "x").get("token_type_ids", [0]))
    if kinds is not None and highest >= kinds.num_embeddings:
        logger.warning(
            "the tokenizer gives token types from 0 to %d, and %s (%s) has embeddings for %d; they are left out",
            *(highest, model.name_or_path or "the model", model.config.model_type, kinds.num_embeddings),
        )
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the latter is saved


def check_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Refuses a tokenizer if it clearly is not the one that the model was trained with.

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
    """How many tokens the model has positions for; None: any number."""
    positions = _embedding(model, _POSITIONS)
    if positions is None:
        return None
    return positions.num_embeddings - getattr(positions, "offset", first_position(model))  # BART's has its own


def first_position(model: PreTrainedModel) -> int:
    """The number of the model's first position. RoBERTa and XLM-R start after the padding id."""
    positions = _embedding(model, _POSITIONS)
    return 0 if positions is None or positions.padding_idx is None else positions.padding_idx + 1


def _embedding(model: PreTrainedModel, name: re.Pattern[str]) -> torch.nn.Embedding | None:
    for path, module in model.named_modules():
        if name.search(path) and isinstance(module, torch.nn.Embedding):
            return module
    return None


def document_marks(tokenizer: Any) -> tuple[int, int]:
    """The ids that begin and end a document: those of the tokenizer's `bos` and `eos`, or one for both.

    Raises:
        ValueError: if the tokenizer has neither.
    """
    found = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    if not found:
        raise ValueError(f"the tokenizer ({type(tokenizer).__name__}) has no token that begins or ends a document")
    return found[0], found[-1]
