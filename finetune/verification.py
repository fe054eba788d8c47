"""Recomputes what a run says about itself: its scores, from its predictions, and from its data and its model.

| what | from | finds |
|---|---|---|
| `check_card` | the card and `all_results.json` | a score in one of them that the other does not have |
| `check_predictions` | `predictions_<split>` | a changed prediction, a changed score |
| `same_gold` | the data | other data than the run was evaluated on |
| `check_model` | the model and the data | other weights, a changed prediction, score or setting |

None of them knows a task.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import csv
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune import reporting, saved_settings, stages

# How far a recomputed score may be from the one that is told: this number, or this share of the score.
FROM_FILES = 1e-5  # files have numbers with 6 decimals
SAME_MACHINERY = 1e-5  # float32 on a CPU; other threads add in another order
OTHER_MACHINERY = 0.01  # a GPU, another precision

_SHOWN = 40  # characters of an answer in a message
# What the settings of a model are in JSON, if they are there.
_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("threshold", "score_temperature", "null_score_diff_threshold"), (int, float)),
    "entity_scale": list,
    "promises": dict,
}


@dataclass
class Report:
    """What a run says, what was recomputed, and what does not follow."""

    folder: Path
    said: dict[str, Any]  # all_results.json
    stored: dict[str, Any]  # the settings of the task in config.json; {} if there is no model
    labels: list[str]  # of the model
    from_predictions: dict[str, Any] = field(default_factory=dict)
    from_model: dict[str, Any] = field(default_factory=dict)
    limit: float = SAME_MACHINERY  # for scores of the model
    share: float = 0.0  # of the model's answers that may differ
    problems: list[str] = field(default_factory=list)  # what does not follow, besides scores
    notes: list[str] = field(default_factory=list)  # what was done, and what could not be checked

    @property
    def wrong(self) -> list[str]:
        """The scores in `all_results.json` that do not follow."""
        sides = ((self.from_predictions, FROM_FILES), (self.from_model, self.limit))
        return [
            key
            for key, value in self.said.items()
            if any(key in found and not close(value, found[key], limit) for found, limit in sides)
        ]

    @property
    def untold(self) -> list[str]:
        """Scores that were recomputed, and that `all_results.json` does not have."""
        return [key for key in {**self.from_predictions, **self.from_model} if key not in self.said]

    @property
    def left(self) -> list[str]:
        """What `all_results.json` has and nothing recomputes, such as times."""
        return [key for key in self.said if key not in self.from_predictions and key not in self.from_model]

    @property
    def follows(self) -> bool:
        """Whether everything that was recomputed is as the run says."""
        return not (self.wrong or self.untold or self.problems)


def close(said: Any, found: Any, limit: float) -> bool:
    """Whether two values are equal; numbers up to `limit`, or up to this share of them; whole numbers exactly."""
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        return said.keys() == found.keys() and all(close(said[key], found[key], limit) for key in said)
    if isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(said) == len(found) and all(close(*pair, limit) for pair in zip(said, found, strict=True))
    numbers = isinstance(said, (int, float)) and isinstance(found, (int, float))
    if not numbers or (isinstance(said, int) and isinstance(found, int)):
        return bool(said == found)
    return (math.isnan(said) and math.isnan(found)) or math.isclose(said, found, rel_tol=limit, abs_tol=limit)


def read(folder: Path) -> Report:
    """What a run says of itself.

    Raises:
        ValueError: if the folder is not that of a finished run, or a file of it is damaged.
    """
    if (folder / "export.json").is_file():
        raise ValueError(f"--model_name_or_path {folder}: an exported model; give the folder of its run")
    said = _json(folder, "all_results.json")
    if said is None:
        raise ValueError(f"--model_name_or_path {folder}: no all_results.json; give the folder of a finished run")
    for key in reporting.shown_scores(said):
        _check_kind(folder / "all_results.json", key, said[key], (int, float))
    config = _json(folder, "config.json")
    if config is None:
        return Report(folder, said, {}, [], notes=["there is no model in this folder"])
    for key, kind in _SETTINGS.items():
        if config.get(key) is not None:
            _check_kind(folder / "config.json", key, config[key], kind)
    names = config.get("id2label") or {}
    settings = saved_settings.DEFAULTS | {key: value for key, value in config.items() if value is not None}
    try:
        labels = [names[str(i)] for i in range(len(names))]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: id2label must have a label for each number from 0 on") from error
    return Report(folder, said, settings, labels)


def _check_kind(file: Path, key: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        what = {list: "a list", dict: "an object"}.get(kind, "a number")
        raise ValueError(f"{file}: {key} is {value!r:.100}; it must be {what}")


def _json(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / name}: not JSON: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{folder / name}: must be an object of JSON")
    return found


def check_card(report: Report, notes: Sequence[str] = ()) -> None:
    """Compares the card with `all_results.json`, row by row.

    Args:
        notes: sentences that follow from the settings of the model, and that the card has.
    """
    path = report.folder / "README.md"
    if not path.is_file():
        report.notes.append("there is no card (README.md)")
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    told, right = reporting.scores_of_card(text), reporting.told_scores(report.said)
    for key in {**right, **told}:
        if told.get(key) != right.get(key):
            other = f"all_results.json gives {right[key]}" if key in right else "all_results.json has no such score"
            report.problems.append(f"README.md says {key} {told.get(key, '(nothing)')}, and {other}")
    for key, value in reporting.metadata_of_card(text).items():
        if not close(report.said.get(key), value, 1e-9):
            report.problems.append(
                f"the metadata of README.md says {key} {value}, and all_results.json {report.said.get(key)}"
            )
    for line in notes:
        if line not in text:
            report.problems.append(f"README.md does not say what follows from the settings of the model: {line}")


def check_predictions(report: Report, task: Any) -> None:
    """Recomputes the scores of each split from its predictions alone.

    Args:
        task: a module of `finetune.tasks`.
    """
    if not hasattr(task, "restored") or not hasattr(task, "reread"):
        report.notes.append("this task writes no predictions from which its scores could be recomputed")
        return
    for _, name in stages.SPLITS:
        if not any(key.startswith(f"{name}_") for key in report.said):
            continue
        read = _reread(report, task, name)
        if read is None:
            continue
        try:
            gold, said = task.restored(read, report.labels, report.stored)
            counts = np.asarray(task.counts(gold, said, report.labels, report.stored))
            scores = task.score(counts.sum(0), report.labels, report.stored)
        except (ValueError, LookupError, TypeError) as error:
            report.problems.append(f"predictions_{name}: {error}")
            continue
        scores = scores | stages.asked(task, "remarks", gold, said)
        report.from_predictions |= {f"{name}_{key}": value for key, value in scores.items()}


def _reread(report: Report, task: Any, name: str) -> Any:
    """What the task reads from the predictions of a split; None if that is not possible, which is then a problem."""
    try:
        return task.reread(report.folder, name)
    except (ValueError, LookupError, TypeError, OSError, csv.Error) as error:
        sentence = f"predictions_{name} cannot be read: {error}"
        if sentence not in report.problems:
            report.problems.append(sentence)
        return None


def same_gold(report: Report, task: Any, name: str, dataset: Any) -> bool:
    """Whether the predictions of a split have the inputs and the right answers of the data. Else it is a problem."""
    read = _reread(report, task, name)
    if read is None:
        return True
    for what, ours, theirs in zip(("inputs", "right answers"), read[:2], task.inputs(dataset), strict=True):
        if len(ours) != len(theirs):
            report.problems.append(
                f"predictions_{name} has {len(ours):,} samples, and the data has {len(theirs):,} in this split"
            )
            return False
        at = next((i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
        if at is not None:
            report.problems.append(
                f"predictions_{name} has other {what} than the data: sample {at} has {_short(ours[at])}, and the "
                f"data {_short(theirs[at])}"
            )
            return False
    return True


def check_model(report: Report, job: stages.Job, model: Any, split: str, name: str) -> None:
    """Evaluates the model again with its stored settings, and compares its scores, its answers and the settings.

    Args:
        job: with the encoded split; its settings are those of the model.
    """
    task, gold = job.task, job.gold[split]
    said, scores = stages.evaluate(job, model, split, name, also=("logs", "raw_scores"), tune=False)
    errors = stages.asked(task, "calibration", gold, said, job.labels, job.settings)
    report.from_model |= scores | {f"{name}_{key}": value for key, value in errors.items()}
    report.from_model.pop(f"{name}_runtime", None)
    if hasattr(task, "reread"):
        _check_answers(report, job, said, split, name)
    if split == "validation":
        _check_settings(report, job, said)


def _check_answers(report: Report, job: stages.Job, said: Any, split: str, name: str) -> None:
    """Writes the answers as a run does, and compares them with those that the run wrote."""
    task = job.task
    ours = _reread(report, task, name)
    if ours is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        task.write(Path(folder).joinpath, name, job.splits[split], said, job.labels, job.settings)
        theirs = task.reread(Path(folder), name)
    if len(ours[2]) != len(theirs[2]):
        return  # `same_gold` has found it
    numbers = job.settings.get("problem_type") == "regression"
    answers, scores = ([*zip(*sides, strict=True)] for sides in ((ours[2], theirs[2]), (ours[3], theirs[3])))
    answers = [(_number(one), _number(other)) for one, other in answers] if numbers else answers
    differ = [i for i, pair in enumerate(answers) if not close(*pair, report.limit)]
    if len(differ) > report.share * len(answers):
        at = differ[0]
        report.problems.append(
            f"the model gives other answers than predictions_{name} for {len(differ):,} of {len(answers):,} samples, "
            f"such as for sample {at}: {_short(answers[at][1])}, and the file has {_short(answers[at][0])}"
        )
        return
    told = f"; {len(differ):,} differ" if differ else ""
    report.notes.append(f"the model gives the answers of predictions_{name} again ({len(answers):,} samples{told})")
    differ = [i for i, pair in enumerate(scores) if not close(*pair, max(report.limit, FROM_FILES))]
    if len(differ) > report.share * len(scores):
        at = differ[0]
        report.problems.append(
            f"the model is otherwise sure of its answers than predictions_{name} says, for {len(differ):,} samples, "
            f"such as for sample {at}: {scores[at][1]}, and the file has {scores[at][0]}"
        )


def _number(cell: Any) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def _check_settings(report: Report, job: stages.Job, said: Any) -> None:
    """Chooses the settings that the development split chooses, and compares them with those in `config.json`."""
    arguments = (job.gold["validation"], said, job.labels, job.settings)
    found = stages.tuned(job, said)
    for function in ("calibrate", "promises"):
        found |= stages.asked(job.task, function, *arguments)
    for key, value in found.items():
        if not close(report.stored.get(key), value, max(report.limit, 1e-3)):
            report.problems.append(
                f"config.json has {key} {_short(report.stored.get(key))}, and the development split gives "
                f"{_short(value)}"
            )
    if found:
        report.notes.append(f"chosen again on the development split: {', '.join(found)}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 3 * _SHOWN else f"{text[: 3 * _SHOWN]}..."


def again(config: Any, task: Any, splits: Mapping[str, Any], report: Report, accelerator: Any) -> stages.Job:
    """A job as the run had it, with the settings that its model has now."""
    from finetune import training

    fresh = stages.asked(task, "settings", splits, config)
    settings = {key: report.stored.get(key, value) for key, value in fresh.items()}
    return stages.Job(training.Run(config, accelerator), task, dict(splits), report.labels, settings)


def as_text(report: Report) -> str:
    """The report for a terminal: a table of the scores, what was checked, and what does not follow."""
    wrong, untold = set(report.wrong), report.untold
    rows: list[tuple[str, ...]] = [("score", "said", "predictions", "model")]
    for key in [*report.said, *untold]:
        if key in report.left:
            continue
        values = [side.get(key) for side in (report.said, report.from_predictions, report.from_model)]
        exact = key in wrong or key in untold
        rows.append((key, *("-" if value is None else _told(value, exact) for value in values)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", *(f"{note[0].upper()}{note[1:]}." for note in report.notes)]
    if report.left:
        lines.append(f"Not recomputed: {', '.join(report.left)}.")
    found = [
        *(f"{key}: all_results.json says {report.said[key]}, and {_sides(report, key)}" for key in report.wrong),
        *(f"{key}: all_results.json does not have it, and {_sides(report, key)}" for key in untold),
        *report.problems,
    ]
    if found:
        return "\n".join([*lines, "", f"{report.folder}: this does not follow:", *(f"- {line}" for line in found)])
    count = len(report.said) - len(report.left)
    if not count:
        return "\n".join([*lines, "", f"{report.folder}: nothing could be recomputed."])
    return "\n".join([*lines, "", f"{report.folder}: all {count} recomputed scores are as the run says."])


def _told(value: Any, exact: bool) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return repr(value) if exact else f"{value:.4f}"


def _sides(report: Report, key: str) -> str:
    sides = (("the predictions give", report.from_predictions), ("the model gives", report.from_model))
    return ", ".join(f"{what} {found[key]}" for what, found in sides if key in found)
