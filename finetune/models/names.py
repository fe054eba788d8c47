"""The names that `--model_name_or_path` may have, and the flags that the named model does not use."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from finetune.models.lora_flags import check_lora_flags, lora_defaults, refuse_lora
from finetune.models.model_type import model_type_of
from finetune.models.seq2seq_arguments import seq2seq_flags_without_use
from finetune.spelling import did_you_mean

BASELINES: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn", "bidirectional": False},
    "lstm": {"cell": "lstm", "bidirectional": False},
    "gru": {"cell": "gru", "bidirectional": False},
    "bilstm": {"cell": "lstm", "bidirectional": True},
    "bilstm-crf": {"cell": "lstm", "bidirectional": True, "crf": True},
}
LANGUAGE_MODELS = ("rnn", "lstm", "gru", "transformer")  # of recipes/language_model.py
TRAINED_TOKENIZERS = ("byte-bpe", "unigram")  # there; they lose no character but spaces
COMPARED = ("svm", "dictionary", "unigram", "5-gram")  # only recipes/compare.py trains these
_SHAPE = (
    "cell",
    "hidden_size",
    "num_hidden_layers",
    "embedding_size",
    "embeddings",
    "char_features",
    "char_hidden_size",
    "dropout",
    "word_dropout",
    "min_word_frequency",
    "pooling",
)


def is_baseline(name: str) -> bool:
    """Whether `--model_name_or_path` is a recurrent baseline: a built-in one, or a saved one to be continued."""
    return is_new_baseline(name) or model_type_of(name) == "recurrent"


def is_new_baseline(name: str) -> bool:
    """Whether `name` is a built-in baseline. If a folder has this name, the folder counts."""
    return isinstance(name, str) and name in BASELINES and not Path(name).exists()


def check_place(name: str, flag: str) -> None:
    """Refuses names that cannot be a Hub id: a path that does not exist, a misspelt baseline. Uses no network.

    Raises:
        ValueError: with similar names that exist.
    """
    path = Path(name)
    if path.is_dir():
        return
    if path.is_file():
        raise ValueError(f"{flag} {name}: this is a file; give the folder of a saved model")
    name = name.rstrip("/")
    owner, slash, _ = name.partition("/")
    # A Hub id is `name` or `owner/name`.
    if name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name or (slash and Path(owner).is_dir()):
        beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
        raise ValueError(f"{flag} {name}: no such folder{did_you_mean(path.name, beside, name[: -len(path.name)])}")
    if flag == "--model_name_or_path" and name in COMPARED:
        raise ValueError(f"{flag} {name}: only recipes/compare.py trains this one")
    if flag == "--model_name_or_path" and name in BASELINES:
        raise ValueError(
            f"{flag} {name}: this baseline is for words, texts and questions; name another model, such as those of "
            "docs/models.md"
        )
    hint = did_you_mean(name, BASELINES) if flag == "--model_name_or_path" and not slash else ""
    if hint:
        raise ValueError(f"{flag} {name}: no such folder, and no baseline{hint}")


def flags_without_use(config: Any) -> dict[str, Any]:
    """The flags of a config that its model ignores, with their defaults."""
    name = config.model_name_or_path
    if hasattr(config, "encoder_name_or_path"):
        return seq2seq_flags_without_use(config)
    if name in COMPARED or not hasattr(config, "char_features"):  # another recipe's models have other flags
        return {}
    idle = set(_SHAPE)
    if is_new_baseline(name):
        idle = {"tokenizer_name"} | (set() if config.embeddings else {"model_revision"})
        idle |= {"embedding_size"} if config.embeddings else set()
        idle |= {"char_hidden_size"} if config.char_features == "none" else set()
    idle |= set(lora_defaults()) if is_baseline(name) else set()
    return {field.name: field.default for field in fields(config) if field.name in idle}


def check_flags(config: Any) -> None:
    """Refuses flags that were given and that the model does not use.

    Raises:
        ValueError: naming the flags.
    """
    given = [f"--{name}" for name, default in flags_without_use(config).items() if getattr(config, name) != default]
    if given:
        name = config.model_name_or_path
        if is_new_baseline(name):
            why = f"{name} has no use for {'this flag' if len(given) == 1 else 'these flags'}"
        elif is_baseline(name):
            why = f"{name} is a saved baseline, which goes on as it was saved"
        else:
            why = f"for recurrent baselines only, and {name} is none"
        raise ValueError(f"{', '.join(given)}: {why}; leave {'it' if len(given) == 1 else 'them'} out")
    check_lora_flags(config)


def is_new_language_model(name: str) -> bool:
    """Whether `name` is one of `LANGUAGE_MODELS`. If a folder has this name, the folder counts."""
    return name in LANGUAGE_MODELS and not Path(name).exists()


def check_language_model_flags(config: Any) -> None:
    """Refuses flags of `recipes/language_model.py` that make no sense, before any data is read.

    Raises:
        ValueError: naming the flag.
    """
    name, new = config.model_name_or_path, is_new_language_model(config.model_name_or_path)
    refuse_lora(config, "a language model")
    for flag in ("vocab_size", "hidden_size", "num_hidden_layers", "embedding_size", "num_attention_heads"):
        value = getattr(config, flag)
        if value is not None and value < 1:
            raise ValueError(f"--{flag} {value}: must be at least 1")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"--dropout {config.dropout}: must be at least 0 and below 1")
    if config.max_seq_length < 2:
        raise ValueError(f"--max_seq_length {config.max_seq_length}: must be at least 2, a token and the next one")
    if config.eval_context is not None and not 1 <= config.eval_context < config.max_seq_length:
        raise ValueError(
            f"--eval_context {config.eval_context}: must be at least 1 and below --max_seq_length "
            f"{config.max_seq_length}"
        )
    if not 0 <= config.validation_split_percentage < 100:
        raise ValueError(f"--validation_split_percentage {config.validation_split_percentage}: from 0 to below 100")
    if new and config.tokenizer_name == "wordpiece":
        raise ValueError("--tokenizer_name wordpiece: it changes the text to be scored; take byte-bpe, unigram")
    if not new and name not in COMPARED and config.tokenizer_name is not None:
        raise ValueError(f"--tokenizer_name {config.tokenizer_name}: {name} has its own; leave this flag out")
    recurrent = is_baseline(name)
    idle = {"eval_context"} if recurrent else {"embedding_size"}
    idle |= {"num_attention_heads"} if name != "transformer" else set()
    idle |= {"model_revision"} if new else set()
    idle |= {"streaming"} if config.dataset_name is None else set()
    if not new:
        idle |= {"hidden_size", "num_hidden_layers", "embedding_size", "dropout", "vocab_size"}
    if name not in COMPARED:
        defaults = {field.name: field.default for field in fields(config)}
        for flag in sorted(idle):
            if getattr(config, flag) != defaults[flag]:
                raise ValueError(f"--{flag}: {name} has no use for this flag; leave it out")
    if recurrent:
        _check_lanes(config)


def _check_lanes(config: Any) -> None:
    """Refuses what would change the order of the rows of a recurrent language model, or take a step again."""
    why = "a recurrent language model carries its state from step to step"
    if config.tokens_per_batch is not None:
        raise ValueError(f"--tokens_per_batch: {why}, so each step has the next row of each document; leave it out")
    if config.train_sampling_strategy == "group_by_length":
        raise ValueError(f"--train_sampling_strategy group_by_length: {why}, so the order is fixed; leave it out")
    if config.auto_find_batch_size:
        raise ValueError(
            f"--auto_find_batch_size: {why}, so no step can begin again; a smaller --per_device_train_batch_size "
            "with more --gradient_accumulation_steps makes the same step"
        )
