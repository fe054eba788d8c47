"""Which runs of a comparison are finished: a run with the same flags, on the same data."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from finetune import config_files, models
from finetune.arguments import DataArguments, FoldArguments, TextFileArguments, WordFileArguments

# Flags that do not change a run's weights and scores.
IDLE_FLAGS = (
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "disable_tqdm",
    "report_to",
    "push_to_hub",
)
# Flags that say which data a run reads.
_COLUMNS = (
    *("text_column_name", "text_pair_column_name", "label_column_name", "problem_type", "label_separator"),
    *("question_column_name", "context_column_name", "answer_column_name"),
    *("source_column_name", "target_column_name"),
    *("train_target_file", "validation_target_file", "test_target_file"),
    *("sentences", "validation_split_percentage"),
)
_KINDS = (DataArguments, FoldArguments, TextFileArguments, WordFileArguments)
_FILES = (field.name for kind in _KINDS for field in fields(kind))
DATA_FLAGS = (*(name for name in _FILES if name != "max_seq_length"), *_COLUMNS)
DIGEST = "data.sha256"  # a file in a run's folder: the digest of the data that the run saw
_METRIC = "metric_for_best_model"
_SCORES = ("bleu_tokenize",)  # flags that say how a score is counted


def check_same_data(configs: Sequence[Any]) -> None:
    """Raises ValueError if two configs name different data, or count a score in different ways."""
    first, *others = configs
    for own in others:
        for name in (*DATA_FLAGS, *_SCORES):
            values = [getattr(config, name, None) for config in (first, own)]
            if values[0] != values[1]:
                what = "compare by one score" if name in _SCORES else "compare on one data set"
                raise ValueError(f"--{name} is {values[0]} for one model and {values[1]} for another; {what}")


def digest_of(splits: Mapping[str, Any]) -> str:
    """SHA-256 of all rows. With it, a later comparison checks that a finished run saw the same data."""
    whole = hashlib.sha256()
    for name, rows in sorted(splits.items()):
        # A row may move to another line or file; that is not a change of the data.
        whole.update(json.dumps([name, rows.remove_columns(["source", "line"]).to_dict()]).encode())
        whole.update(rows.info.description.encode())  # the labels that are declared
    return whole.hexdigest()


def state_of(config: Any, digest: str, metric: str) -> str:
    """`finished` or `begun` if the folder holds a run of this config, else `new`.

    If the folder holds a run of another config, `start_run` refuses the new run later.

    Args:
        digest: of the data, as `digest_of` gives it.
        metric: the main score of the task.

    Raises:
        ValueError: if a finished run saw other data.
    """
    folder = Path(config.output_dir)
    try:
        there = config_files.read_settings(folder / "run.yaml")
    except (OSError, ValueError):
        return "new"
    # A flag that is missing in run.yaml did not exist at that time. The run behaved as its default does.
    did = {field.name: there.get(field.name, field.default) for field in fields(config)}
    passed_over = {*IDLE_FLAGS, *models.flags_without_use(config)}
    # If no flag names a metric, a run takes the metric of its task and writes its name to run.yaml.
    did, asked = ({**own, _METRIC: own.get(_METRIC) or metric} for own in (did, asdict(config)))
    if any(did[name] != value for name, value in asked.items() if name not in passed_over):
        return "new"
    if config.overwrite_output_dir:
        return "new"
    if not (folder / "all_results.json").exists():
        return "begun"
    seen = folder / DIGEST
    if not seen.exists():  # the run was not started by a comparison
        return "finished, on training data that is not checked"
    if seen.read_text() != digest:
        raise ValueError(
            f"{folder}: the data files have changed since this run; remove its folder, or give --overwrite_output_dir"
        )
    return "finished"
