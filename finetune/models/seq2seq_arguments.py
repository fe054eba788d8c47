"""The flags of the models of text to text, and which model uses which. This file does not import torch."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from finetune.arguments import flag
from finetune.models.model_type import model_type_of

RECURRENT: dict[str, dict[str, Any]] = {
    "rnn2rnn": {"cell": "rnn"},
    "lstm2lstm": {"cell": "lstm"},
    "gru2gru": {"cell": "gru"},
    "lstm2lstm-attention": {"cell": "lstm", "attention": "additive"},
    "gru2gru-attention": {"cell": "gru", "attention": "additive"},
}
WARM_STARTED = {"bert2bert": "bert", "bert2rnd": "bert", "roberta2roberta": "roberta", "xlmr2xlmr": "xlm-roberta"}
SEQ2SEQ = (*RECURRENT, "transformer", *WARM_STARTED)

_FOR_RECURRENT = ("embedding_size", "bidirectional", "teacher_forcing")
_FOR_ATTENTION = ("attention", "input_feeding")
_FOR_TRANSFORMER = ("num_attention_heads", "norm_first")
_FOR_NEW = ("hidden_size", "num_hidden_layers", "dropout", "share_embeddings")
_FOR_WARM_STARTED = ("encoder_name_or_path", "tie_encoder_decoder")


@dataclass
class Seq2SeqModelArguments:
    """Which encoder-decoder, and its shape."""

    model_name_or_path: str = flag(
        "transformer",
        f"The folder of a saved encoder-decoder, or a new one: {', '.join(SEQ2SEQ)}.",
    )
    model_revision: str = flag("main", "Branch, tag or commit of a Hub checkpoint.")
    encoder_name_or_path: str | None = flag(
        None, "bert2bert and its like: the checkpoint of encoder and decoder [MiniLM for bert2bert and bert2rnd]."
    )
    tie_encoder_decoder: bool = flag(False, "bert2bert and its like: the decoder has the weights of the encoder.")
    padding_free: bool = flag(True, "bert2bert and its like, on a CPU: no layer of the encoder runs on padding.")
    hidden_size: int = flag(256, "New models: size of a layer; an encoder of two directions has half in each.")
    num_hidden_layers: int | None = flag(
        None, "New models: layers of the encoder, and of the decoder [1; transformer: 3]."
    )
    dropout: float | None = flag(None, "New models: dropout [0.3; transformer: 0.1].")
    share_embeddings: bool = flag(
        True,
        "New models: one embedding for the target and the output layer, and for the source if its tokenizer is "
        "the target's.",
    )
    embedding_size: int = flag(256, "Recurrent ones: word vector size.")
    bidirectional: bool = flag(True, "Recurrent ones: the encoder reads in both directions.")
    attention: Literal["additive", "dot"] = flag(
        "additive", "lstm2lstm-attention, gru2gru-attention: the score of Bahdanau et al. or of Luong et al. (2015)."
    )
    input_feeding: bool = flag(
        False, "With attention: what was read goes into the next step; slower, since the decoder runs step by step."
    )
    teacher_forcing: float = flag(
        1.0,
        "Recurrent ones: share of the target's words that the decoder is given in the last epoch; it falls from 1.",
    )
    num_attention_heads: int = flag(4, "transformer: heads of a layer.")
    norm_first: bool = flag(False, "transformer: normalise before each sublayer, not after it.")


def is_new_seq2seq(name: str) -> bool:
    """Whether `name` is a built-in encoder-decoder. If a folder has this name, the folder counts."""
    return name in SEQ2SEQ and not Path(name).exists()


def seq2seq_flags_without_use(config: Any) -> dict[str, Any]:
    """The flags that the model of a config ignores, with their defaults; also those of a new tokenizer."""
    name = config.model_name_or_path
    idle: set[str] = {*_FOR_RECURRENT, *_FOR_ATTENTION, *_FOR_TRANSFORMER, *_FOR_NEW, *_FOR_WARM_STARTED}
    if not is_new_seq2seq(name):
        # A model of the Hub is not loaded yet, so its kind is unknown.
        idle -= {"teacher_forcing"} if model_type_of(name) in ("recurrent-seq2seq", None) else set()
    elif name in RECURRENT:
        idle -= {*_FOR_RECURRENT, *_FOR_NEW, *(_FOR_ATTENTION if "attention" in RECURRENT[name] else ())}
    elif name == "transformer":
        idle -= {*_FOR_TRANSFORMER, *_FOR_NEW}
    else:
        idle -= set(_FOR_WARM_STARTED)
    found = {field.name: field.default for field in fields(Seq2SeqModelArguments) if field.name in idle}
    has_tokenizer = not is_new_seq2seq(name) or name in WARM_STARTED
    return found | ({"vocab_size": 8000, "joint_vocabulary": True} if has_tokenizer else {})


def check_seq2seq_flags(config: Any) -> None:
    """Refuses values that no model can have, and flags that were given and that the model does not use.

    Raises:
        ValueError: naming the flag.
    """
    name = config.model_name_or_path
    given = [
        f"--{key}"
        for key, default in seq2seq_flags_without_use(config).items()
        if getattr(config, key, default) != default
    ]
    if given:
        those = "this flag" if len(given) == 1 else "these flags"
        raise ValueError(
            f"{', '.join(given)}: {name} has no use for {those}; leave {'it' if len(given) == 1 else 'them'} out"
        )
    beams, penalty = getattr(config, "num_beams", 1), getattr(config, "length_penalty", 1.0)
    if beams < 1:
        raise ValueError(f"--num_beams {beams}: must be at least 1")
    if not math.isfinite(penalty):
        raise ValueError(f"--length_penalty {penalty}: must be a number")
    for key in ("hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads"):
        value = getattr(config, key)
        if value is not None and not 1 <= value <= 100_000:
            raise ValueError(f"--{key} {value}: must be from 1 to 100,000")
    if config.dropout is not None and not 0 <= config.dropout < 1:
        raise ValueError(f"--dropout {config.dropout}: must be at least 0 and below 1")
    if not 0 <= config.teacher_forcing <= 1:
        raise ValueError(f"--teacher_forcing {config.teacher_forcing}: must be from 0 to 1")
    if config.teacher_forcing < 1 and getattr(config, "max_steps", 0) > 0:
        raise ValueError(
            f"--teacher_forcing {config.teacher_forcing}: the share falls with the epochs; give --num_train_epochs "
            "instead of --max_steps"
        )
    if name == "transformer" and config.hidden_size % (2 * config.num_attention_heads):
        raise ValueError(
            f"--hidden_size {config.hidden_size}: must be a multiple of twice --num_attention_heads "
            f"({config.num_attention_heads})"
        )
    if name in RECURRENT and config.bidirectional and config.hidden_size % 2:
        raise ValueError(f"--hidden_size {config.hidden_size}: two directions need an even number")


def teacher_forcing_in(epoch: int, epochs: float, last: float) -> float:
    """The share of words that the decoder is given in an epoch, counted from 0: from 1 to `last` in equal steps.

    A linear schedule of scheduled sampling (Bengio et al., 2015).
    """
    steps = max(-(-epochs // 1) - 1, 1)
    return 1.0 - (1.0 - last) * min(epoch / steps, 1.0) if epochs > 1 else last
