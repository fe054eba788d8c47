"""What a saved model says about its use: the settings of its task, and how its run read and cut its inputs."""

import json
from pathlib import Path
from typing import Any

from finetune import data

_LARGEST_STATE = 2**20  # bytes of a checkpoint's state.json

DEFAULTS: dict[str, Any] = {
    "problem_type": "single_label_classification",
    "threshold": 0.5,
    "long_texts": "cut",
    "max_answer_length": 30,
    "null_score_diff_threshold": None,
    "score_temperature": None,
    "entity_scale": None,
    "promises": None,
    "decoding": "argmax",
    **data.CONTEXT_SETTINGS,
}


def of_model(config: Any) -> dict[str, Any]:
    """The settings of the task in a model's config. A model that was not trained here gets the defaults."""
    found = {name: getattr(config, name, None) for name in DEFAULTS}
    return {name: DEFAULTS[name] if value is None else value for name, value in found.items()}


def of_run(name: str, revision: str = "main") -> dict[str, Any]:
    """How a run read and cut its inputs, from its `run.yaml` or the state of its checkpoint; {} if it has neither.

    Args:
        name: the folder of the run or of its checkpoint, or a model of the Hub.
    """
    folder = Path(name)
    if folder.is_dir():
        file = next((folder / own for own in ("run.yaml", "state.json") if (folder / own).is_file()), None)
    else:
        file = _of_hub(name, revision)
    if file is None:
        return {}
    from finetune import config_files

    written = config_files.read_settings(file) if file.name == "run.yaml" else _flags_of_checkpoint(file)
    kinds: dict[str, Any] = {
        "max_seq_length": int,
        "doc_stride": int | None,
        "padding_free": bool,
        "text_column_name": str,
        "text_pair_column_name": str | None,
        "source_column_name": str,
        "question_column_name": str,
        "context_column_name": str,
        "train_file": str | None,
        "file_format": str,
        "document_column": str | None,
        "label_column_name": str | None,
        "label_separator": str | None,
        "sentence_column": str | None,
        "context": str,
        "context_size": int | None,
        "split_sentences": bool,
    }
    settings = {key: written[key] for key in kinds if key in written}
    for key, value in settings.items():
        if not isinstance(value, kinds[key]):
            raise ValueError(f"{file}: {key} has the invalid value {value!r:.100}")
    return settings


def _of_hub(name: str, revision: str) -> Path | None:
    """The `run.yaml` that `--push_to_hub` uploaded beside a model; None if there is none, or no connection."""
    from transformers.utils import cached_file

    quiet = ("gated_repo", "missing_entries", "connection_errors")
    try:
        found = cached_file(
            name, "run.yaml", revision=revision, **{f"_raise_exceptions_for_{what}": False for what in quiet}
        )
    except OSError:  # no such model: loading it will tell
        return None
    return None if found is None else Path(found)


def text_columns_of(settings: dict[str, Any]) -> tuple[str | None, str | None]:
    """The run's columns of what its model reads: texts and second texts, questions and passages, or sources."""
    first = ("question_column_name", "source_column_name", "text_column_name")
    second = ("context_column_name", "text_pair_column_name")
    found = (next((settings[name] for name in names if settings.get(name)), None) for names in (first, second))
    return next(found), next(found)


def word_column_of(settings: dict[str, Any]) -> int | str | None:
    """The run's column of words in a column file: its number, or its name in the header line.

    None is the default: the first column, but the second of a CoNLL-U file (`finetune/data/conll.py`). A run on
    another kind of file has a name, too, which says nothing of column files.
    """
    name = settings.get("text_column_name")
    number = data.column_number(name)
    if number is not None:
        return number or None
    form, file = settings.get("file_format", "auto"), str(settings.get("train_file"))
    columns = form == "conll" or (form == "auto" and file.lower().endswith(data.CONLL_ENDINGS))
    return name if columns and name != "tokens" else None


def word_columns_of(settings: dict[str, Any]) -> data.WordColumns | None:
    """The columns of a run on a table with a word in each row; None for another kind of file."""
    form, file = settings.get("file_format", "auto"), str(settings.get("train_file")).lower()
    if form != "table" and not (form == "auto" and file.endswith((".csv", ".tsv"))):
        return None
    words, tags = settings.get("text_column_name"), settings.get("label_column_name")
    return data.WordColumns(
        likely_words=None if words == "tokens" else words,
        likely_sentences=settings.get("sentence_column"),
        likely_tags=None if tags == "ner_tags" else tags,
    )


def _flags_of_checkpoint(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _LARGEST_STATE:
        raise ValueError(f"{file}: too large for a file that a run writes")
    try:
        flags = json.loads(file.read_text(encoding="utf-8"))["run"]["flags"]
    except (LookupError, TypeError):  # the file belongs to another program
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON: {' '.join(str(error).split())[:300]}") from error
    return flags if isinstance(flags, dict) else {}
