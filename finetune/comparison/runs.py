"""Names the runs of a comparison, and reads the files of finished ones.

All numbers of a report come from `all_results.json`, `history.jsonl` and `predictions_<split>`. So a report can be
made again without training, and it agrees with the files.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune import training


@dataclass(frozen=True)
class RunName:
    """Which run of a comparison it is."""

    model: str
    seed: int
    fold: int | None = None  # of a cross-validation, from 1 on

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    @property
    def folder(self) -> str:
        """The path of its folder in that of the comparison."""
        return f"{self.model}/seed-{self.seed}" + ("" if self.fold is None else f"/fold-{self.fold}")


@dataclass
class Run:
    """The settings, scores and predictions of a finished run."""

    config: Any
    folder: Path
    results: dict[str, float]
    history: list[dict[str, float]]
    words: list[list[str]]  # of each sample
    gold: list[Any]  # the correct answer for each sample, in the form of the task's `reread`
    predicted: list[Any]
    scores: list[float]  # of each prediction; empty if the run did not write them
    # Of a cross-validation, the run of each fold. Then the samples and scores are those of all folds, one after the
    # other, and config, folder and history are those of the first one.
    folds: list["Run"] = field(default_factory=list)

    @property
    def parts(self) -> list["Run"]:
        """The runs of the folds, or this run."""
        return self.folds or [self]


def read_run(config: Any, split: str, task: Any) -> Run:
    """Reads the files of a run.

    Args:
        split: `test` or `eval`.
        task: a module of `finetune.tasks`.

    Raises:
        ValueError: if the run has no predictions for this split.
    """
    folder = Path(config.output_dir)
    told = training.RunResult.read(folder)
    if not any(folder.glob(f"predictions_{split}.*")):
        raise ValueError(f"{folder}: no predictions_{split}; give the runs a {split} split")
    try:
        samples = task.reread(folder, split)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder}: no {Path(error.filename).name}: a run of another task, or of an older version; give another "
            "folder, or --overwrite_output_dir"
        ) from error
    return Run(config, folder, told.results, told.history, *samples)


def check_data(run: Run, dataset: Any, task: Any) -> None:
    """Checks that the data files have not changed since a finished run, because it is not run again.

    Raises:
        ValueError: if they have changed.
    """
    if (run.words, run.gold) != task.inputs(dataset):
        raise ValueError(
            f"{run.folder}: the data for evaluation has changed since this run; remove the folder, or give "
            "--overwrite_output_dir"
        )
