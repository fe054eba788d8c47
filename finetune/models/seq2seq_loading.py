"""Makes or loads the encoder-decoder that `--model_name_or_path` names."""

from typing import Any

from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from finetune.arguments import DEFAULT_MODEL
from finetune.models.configuration import RecurrentSeq2SeqConfig, TransformerSeq2SeqConfig
from finetune.models.encoder_decoders import RecurrentForSeq2Seq
from finetune.models.pretrained import load_config, load_pretrained, resolve
from finetune.models.seq2seq_arguments import (
    RECURRENT,
    SEQ2SEQ,
    WARM_STARTED,
    check_seq2seq_flags,
    is_new_seq2seq,
)
from finetune.models.seq2seq_transformer import TransformerForSeq2Seq
from finetune.models.target_loss import start_and_end
from finetune.models.tokenizer_fit import check_tokenizer, position_limit
from finetune.models.warm_started import SharedEncoderDecoderConfig, new_warm_started, suited
from finetune.spelling import did_you_mean

_MOST_PARAMETERS = 10**9
_KINDS = {
    RecurrentSeq2SeqConfig.model_type,
    TransformerSeq2SeqConfig.model_type,
    SharedEncoderDecoderConfig.model_type,
    "encoder-decoder",
}


def load_seq2seq(
    arguments: Any, tokenizer: Any, target_tokenizer: Any, *, max_source_length: int = 1, max_target_length: int = 1
) -> Any:
    """An encoder-decoder in float32, whose `generation_config` knows the tokens that start and end a text.

    Args:
        arguments: a config with the fields of `Seq2SeqModelArguments`.
        tokenizer: of the source.
        target_tokenizer: of the target; the same object if both sides have one. For bert2bert and its like, both are
            the checkpoint's.
        max_source_length, max_target_length: of the longest source and target to come.

    Raises:
        ValueError: naming the flag that is wrong.
    """
    check_seq2seq_flags(arguments)
    name = arguments.model_name_or_path
    start, end = start_and_end(target_tokenizer)
    ends = {
        "decoder_start_token_id": start,
        "eos_token_id": end,
        "pad_token_id": target_tokenizer.pad_token_id,
    }
    if not is_new_seq2seq(name):
        model = _saved(arguments)
    elif name in WARM_STARTED:
        model = _warm_started(arguments)
    else:
        joint = tokenizer is target_tokenizer
        model = _new(arguments, len(tokenizer), len(target_tokenizer), joint, ends)
    _check_tokenizers(model, name, tokenizer, target_tokenizer)
    for part, length, flag in (
        (model.encoder, max_source_length, "max_seq_length"),
        (model.decoder, max_target_length, "max_target_length"),
    ):
        limit = position_limit(part) if hasattr(part, "config") else None
        if limit is not None and length > limit:
            raise ValueError(
                f"--{flag} {length}: {arguments.encoder_name_or_path or name} has positions for {limit} "
                f"tokens; give at most {limit}"
            )
    model.config.update(ends)
    decoding = GenerationConfig() if is_new_seq2seq(name) else model.generation_config  # a saved one has more in it
    decoding.update(**ends)
    model.generation_config = decoding
    return model


def _saved(arguments: Any) -> Any:
    name = arguments.model_name_or_path
    hint = did_you_mean(name, SEQ2SEQ)
    if hint and "/" not in name:
        raise ValueError(f"--model_name_or_path {name}: no such folder, and no built-in encoder-decoder{hint}")
    path = resolve(name)
    config = load_config(path, name, arguments.model_revision)
    if config.model_type not in _KINDS:
        raise ValueError(
            f"--model_name_or_path {name}: a {config.model_type} checkpoint, no encoder-decoder of this package; for "
            "an encoder give bert2bert, roberta2roberta or xlmr2xlmr, and the checkpoint as --encoder_name_or_path"
        )
    model = load_pretrained(AutoModelForSeq2SeqLM, path, arguments.model_revision, config=config, head="saved")
    return suited(model, arguments.padding_free) if hasattr(config, "encoder") else model


def _warm_started(arguments: Any) -> Any:
    name, checkpoint = arguments.model_name_or_path, arguments.encoder_name_or_path
    if checkpoint is None and WARM_STARTED[name] != "bert":
        raise ValueError(f"--model_name_or_path {name}: give its checkpoint as --encoder_name_or_path")
    return new_warm_started(
        name,
        checkpoint or DEFAULT_MODEL,
        arguments.model_revision,
        share_weights=arguments.tie_encoder_decoder,
        padding_free=arguments.padding_free,
    )


def _new(arguments: Any, source_size: int, target_size: int, joint: bool, ends: dict[str, int]) -> Any:
    name = arguments.model_name_or_path
    recurrent = name in RECURRENT
    layers, dropout = arguments.num_hidden_layers, arguments.dropout
    shape: dict[str, Any] = ends | {
        "source_vocab_size": source_size,
        "vocab_size": target_size,
        "hidden_size": arguments.hidden_size,
        "num_hidden_layers": layers or (1 if recurrent else 3),
        "dropout": dropout if dropout is not None else 0.3 if recurrent else 0.1,
        "tie_word_embeddings": arguments.share_embeddings,
        "share_embeddings": arguments.share_embeddings and joint,
    }
    size = arguments.embedding_size if recurrent else arguments.hidden_size
    H = arguments.hidden_size
    parameters = (source_size + 2 * target_size) * size + shape["num_hidden_layers"] * 20 * H * (H + size)
    if parameters > _MOST_PARAMETERS:
        raise ValueError(
            f"--hidden_size {H}: this model would have about {parameters:,} parameters, and {_MOST_PARAMETERS:,} are "
            "the most; give a smaller one"
        )
    if not recurrent:
        return TransformerForSeq2Seq(
            TransformerSeq2SeqConfig(
                **shape,
                intermediate_size=4 * H,
                num_attention_heads=arguments.num_attention_heads,
                norm_first=arguments.norm_first,
            )
        )
    attention = {"attention": arguments.attention} if "attention" in RECURRENT[name] else {}
    return RecurrentForSeq2Seq(
        RecurrentSeq2SeqConfig(
            **shape | RECURRENT[name] | attention,
            embedding_size=arguments.embedding_size,
            bidirectional=arguments.bidirectional,
            input_feeding=arguments.input_feeding,
        )
    )


def _check_tokenizers(model: Any, name: str, tokenizer: Any, target_tokenizer: Any) -> None:
    if hasattr(model.config, "encoder"):
        check_tokenizer(tokenizer, model.encoder, name)
        check_tokenizer(target_tokenizer, model.decoder, name)
        return
    for side, given, size in (
        ("source", tokenizer, model.config.source_vocab_size),
        ("target", target_tokenizer, model.config.vocab_size),
    ):
        if len(given) > size:
            raise ValueError(
                f"--model_name_or_path {name}: the tokenizer of the {side} has {len(given):,} pieces, and the model "
                f"{size:,}; give the tokenizer that it was trained with"
            )
