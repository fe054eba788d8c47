"""Checks the flags of pretraining: their values, and whether they fit together."""

from dataclasses import fields
from typing import Any, Literal

Objective = Literal["bert", "sop", "roberta", "xlm-r", "tlm"]
InputForm = Literal["segment_pair", "sentence_pair", "full_sentences", "doc_sentences"]

FORMS: dict[str, tuple[InputForm, ...]] = {  # the first is the default
    "bert": ("segment_pair", "sentence_pair"),
    "sop": ("segment_pair",),
    "roberta": ("full_sentences", "doc_sentences", "segment_pair", "sentence_pair"),
    "xlm-r": ("full_sentences", "doc_sentences"),
    "tlm": ("sentence_pair",),
}


def parallel_columns(config: Any) -> tuple[str, ...]:
    """The names in `--parallel_columns`."""
    return tuple(name.strip() for name in (config.parallel_columns or "").split(",") if name.strip())


def check_pretraining_flags(config: Any) -> None:
    """Refuses flags of `recipes/pretrain.py` that make no sense, before any data is read.

    Raises:
        ValueError: naming the flag.
    """
    forms = FORMS[config.objective]
    if config.input_form not in ("default", *forms):
        raise ValueError(f"--input_form {config.input_form}: --objective {config.objective} has {', '.join(forms)}")
    if config.max_seq_length < 8:
        raise ValueError(f"--max_seq_length {config.max_seq_length}: must be at least 8, to leave room for words")
    if not 0 < config.mlm_probability <= 1:
        raise ValueError(f"--mlm_probability {config.mlm_probability}: must be above 0, and at most 1")
    for name in ("mask_replace_prob", "random_replace_prob", "short_seq_prob", "sampling_alpha"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"--{name} {getattr(config, name)}: must be from 0 to 1")
    if config.mask_replace_prob + config.random_replace_prob > 1:
        raise ValueError(
            f"--mask_replace_prob {config.mask_replace_prob} --random_replace_prob {config.random_replace_prob}: "
            "their sum must be at most 1"
        )
    for name in (
        "dupe_factor",
        "vocab_size",
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
    ):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be at least 1")
    if config.dropout is not None and not 0 <= config.dropout < 1:
        raise ValueError(f"--dropout {config.dropout}: must be at least 0 and below 1")
    if not 0 <= config.validation_split_percentage < 100:
        raise ValueError(
            f"--validation_split_percentage {config.validation_split_percentage}: must be from 0 to below 100"
        )
    _refuse_idle_flags(config)
    parallel = parallel_columns(config)
    if config.objective == "tlm" and (len(parallel) < 2 or config.dataset_name is not None):
        raise ValueError(
            "--objective tlm needs --parallel_columns: two or more columns of the table in --train_file, one for "
            "each language, such as en,de"
        )
    if config.objective != "tlm" and parallel:
        raise ValueError("--parallel_columns is for --objective tlm")


def _refuse_idle_flags(config: Any) -> None:
    """Refuses flags that other flags leave without effect."""
    form = FORMS[config.objective][0] if config.input_form == "default" else config.input_form
    missing = config.config_name is not None and config.tokenizer_name is None  # told when it is to be loaded
    trained = config.tokenizer_name in ("wordpiece", "byte-bpe", "unigram") or missing
    needs = {
        "dupe_factor": (config.static_masks, "--static_masks"),
        "short_seq_prob": (form == "segment_pair", "inputs of the form segment_pair"),
        "sampling_alpha": (config.objective == "xlm-r", "--objective xlm-r"),
        "vocab_size": (trained, "a tokenizer that is trained: --tokenizer_name wordpiece, byte-bpe or unigram"),
        "do_lower_case": (config.tokenizer_name == "wordpiece" or missing, "--tokenizer_name wordpiece"),
        "streaming": (config.dataset_name is not None, "a data set of the Hub: --dataset_name"),
    }
    defaults = {field.name: field.default for field in fields(config)}
    for name, (has_it, what) in needs.items():
        if not has_it and getattr(config, name) != defaults[name]:
            raise ValueError(f"--{name} {getattr(config, name)}: it needs {what}; leave it out")
