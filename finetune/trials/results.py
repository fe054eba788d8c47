"""What a search leaves: the best flags as a YAML file, a table of the trials as Markdown and CSV, and a plot."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from finetune import reporting, training
from finetune.config_files import to_yaml
from finetune.files import write_bytes, write_text
from finetune.trials.study import Search, locked

_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "ended early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def tell_results(search: Search, metric: str) -> list[dict[str, Any]]:
    """A row for each trial, in the order of their numbers.

    Returns:
        Rows with `trial`, `state`, the score by the name of the metric, `seconds` of training, `reason` of a failure,
        and `values`, the flags. A trial that was ended early has the score of its last evaluation.
    """
    rows = []
    for trial in search.trials():
        finished = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.values is not None
        rows.append(
            {
                "trial": trial.number,
                "state": _STATES[trial.state],
                metric: trial.values[0] if finished else None,
                "seconds": _seconds(search.folder_of(trial.number), trial),
                "reason": _reason(trial),
                "values": {name: trial.params.get(name) for name in search.ranges},
            }
        )
    return rows


def write_results(search: Search, config: Any, metric: str, command: str) -> None:
    """Writes `best.yaml`, `trials.md`, `trials.csv` and `trials.png` into the folder of the search.

    Args:
        config: of the recipe, as the user gave it.
        metric: the score that the search compares by.
        command: the command that trains with a file of flags, such as `finetune ner`.
    """
    folder, names = search.folder, list(search.ranges)
    scales = {
        name: "choices" if own.choices else "log" if own.log else "linear" for name, own in search.ranges.items()
    }
    rows = tell_results(search, metric)
    while True:
        # Drawing takes seconds. optuna takes a lock away from a process that holds it for 30 seconds.
        figure = reporting.trials_figure(rows, metric, scales, training.is_better_lower(metric))
        plot = reporting.png(figure)
        with locked(folder):  # another process of the search may write the files, too
            drawn, rows = rows, tell_results(search, metric)
            if drawn == rows:
                best = search.best()
                if best is not None:
                    write_text(folder / "best.yaml", _best_flags(search, best, rows, config, metric, command))
                write_text(folder / "trials.csv", _csv(rows, metric, names))
                write_text(folder / "trials.md", _page(rows, metric, names))
                write_bytes(folder / "trials.png", plot)
                return


def _best_flags(
    search: Search, best: FrozenTrial, rows: Sequence[dict[str, Any]], config: Any, metric: str, command: str
) -> str:
    """The text of `best.yaml`."""
    own = replace(config, **best.params, output_dir=str(search.folder / "best"))
    values = ", ".join(f"{name} {shown(value)}" for name, value in best.params.items())
    return (
        f"# The best of {_counted(rows)}: trial {best.number}, eval {metric} {best.values[0]:.4f}\n"
        f"# with {values}.\n# {command} --config {search.folder / 'best.yaml'}\n{to_yaml(own)}"
    )


def trials_table(rows: Sequence[dict[str, Any]], metric: str, names: Sequence[str]) -> str:
    """A Markdown table of the trials, the best first, then those without a score."""
    lower = training.is_better_lower(metric)
    ranked = sorted(rows, key=lambda row: _rank(row, metric, lower))
    body = [
        [
            str(row["trial"]),
            *(shown(row["values"][name]) for name in names),
            "-" if row[metric] is None else f"{row[metric]:.4f}",
            "-" if row["seconds"] is None else f"{row['seconds']:,.0f}",
            row["state"],
        ]
        for row in ranked
    ]
    return reporting.aligned([["trial", *names, f"eval {metric}", "seconds", "state"], *body])


def shown(value: Any) -> str:
    """A value of a flag, for a table or a line."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _rank(row: dict[str, Any], metric: str, lower: bool) -> tuple[int, float, int]:
    order = list(_STATES.values()).index(row["state"])
    value = row[metric] if row[metric] is not None else 0.0
    return order, value if lower else -value, row["trial"]


def _page(rows: Sequence[dict[str, Any]], metric: str, names: Sequence[str]) -> str:
    failures = [f"- trial {row['trial']}: {row['reason']}" for row in rows if row["state"] == "failed"]
    lines = [
        "# What was tried",
        "",
        f"{_counted(rows)}. Scores are of the validation data. They chose the best trial, so on new data it will "
        "score a little less. No trial has seen test data.",
        "",
        trials_table(rows, metric, names),
        "",
        "A trial that was ended early has the score of its last evaluation. Seconds are those of its training.",
        *(["", "Failed:", "", *failures] if failures else []),
        "",
        "![Score by trial, and by each flag](trials.png)",
    ]
    return "\n".join(lines) + "\n"


def _csv(rows: Sequence[dict[str, Any]], metric: str, names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *names, f"eval_{metric}", "seconds", "state", "reason"])
    for row in rows:
        cells = [row["trial"], *row["values"].values(), row[metric], row["seconds"], row["state"], row["reason"]]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def _counted(rows: Sequence[dict[str, Any]]) -> str:
    counts = {state: sum(row["state"] == state for row in rows) for state in _STATES.values()}
    parts = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{len(rows)} trial{'' if len(rows) == 1 else 's'} ({parts})"


def _seconds(folder: Path, trial: FrozenTrial) -> float | None:
    path = folder / "all_results.json"
    if trial.state == TrialState.COMPLETE and path.exists():
        return float(json.loads(path.read_text())["train_runtime"])
    return trial.user_attrs.get("seconds")


def _reason(trial: FrozenTrial) -> str:
    if "same_as" in trial.user_attrs:
        return f"the same values as trial {trial.user_attrs['same_as']}"
    return str(trial.user_attrs.get("reason", ""))
