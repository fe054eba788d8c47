"""What finished runs left behind.

All is read back from `all_results.json`, `history.jsonl` and `predictions_<split>`, so that a report can be made
again without training, and says what the files say.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Run:
    """What one run left behind."""

    config: Any
    folder: Path
    results: dict[str, float]
    history: list[dict[str, float]]
    words: list[list[str]]  # of each sample
    gold: list[Any]  # what is right for each sample, as the task's `reread` has it
    predicted: list[Any]
    scores: list[float]  # of each prediction, where the run wrote them


def read_run(config: Any, split: str, task: Any) -> Run:
    """Reads what a run wrote.

    Args:
        split: `test`, or `eval`.
        task: a module of `finetune.tasks`.

    Raises:
        ValueError: if it has no predictions for this split.
    """
    folder = Path(config.output_dir)
    results = json.loads((folder / "all_results.json").read_text())
    path = folder / "history.jsonl"
    history = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not any(folder.glob(f"predictions_{split}.*")):
        raise ValueError(f"{folder}: no predictions_{split}; give the runs a {split} split")
    try:
        samples = task.reread(folder, split)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder}: no {Path(error.filename).name}, which runs of an older version lack; remove its folder, or "
            "give --overwrite_output_dir"
        ) from error
    return Run(config, folder, results, history, *samples)


def check_data(run: Run, dataset: Any, task: Any) -> None:
    """A finished run is not run again, so its data must be what the files hold now.

    Raises:
        ValueError: if it is other data.
    """
    if (run.words, run.gold) != task.inputs(dataset):
        raise ValueError(
            f"{run.folder}: this run was tested on other data than its files hold now; remove its folder, or give "
            "--overwrite_output_dir"
        )
