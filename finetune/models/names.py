"""The names that `--model_name_or_path` may have, and the flags that the named model does not use."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from finetune.cli import did_you_mean
from finetune.models.seq2seq_arguments import seq2seq_flags_without_use

BASELINES: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn", "bidirectional": False},
    "lstm": {"cell": "lstm", "bidirectional": False},
    "gru": {"cell": "gru", "bidirectional": False},
    "bilstm": {"cell": "lstm", "bidirectional": True},
    "bilstm-crf": {"cell": "lstm", "bidirectional": True, "crf": True},
}
_COMPARED = ("svm", "dictionary")  # only recipes/compare.py trains these
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
    if is_new_baseline(name):
        return True
    try:
        return bool(json.loads((Path(name) / "config.json").read_text())["model_type"] == "recurrent")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


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
    if flag == "--model_name_or_path" and name in _COMPARED:
        raise ValueError(f"{flag} {name}: only recipes/compare.py trains this one")
    hint = did_you_mean(name, BASELINES) if flag == "--model_name_or_path" and not slash else ""
    if hint:
        raise ValueError(f"{flag} {name}: no such folder, and no baseline{hint}")


def flags_without_use(config: Any) -> dict[str, Any]:
    """The flags of a config that its model ignores, with their defaults."""
    name = config.model_name_or_path
    if hasattr(config, "encoder_name_or_path"):
        return seq2seq_flags_without_use(config)
    if name in _COMPARED:
        return {}
    idle = set(_SHAPE)
    if is_new_baseline(name):
        idle = {"tokenizer_name"} | (set() if config.embeddings else {"model_revision"})
        idle |= {"embedding_size"} if config.embeddings else set()
        idle |= {"char_hidden_size"} if config.char_features == "none" else set()
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
