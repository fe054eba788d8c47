"""The runs of all folds of a cross-validation as one run: its scores come from the counts of all samples together.

Each sample of the training data is in the test split of one fold. So for each seed, it is scored once, by a model
that has not seen it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finetune import stages
from finetune.comparison.runs import Run

_SUMS = ("tokens", "runtime")  # of an evaluation
_MEANS = ("train_runtime", "train_tokens_per_second", "peak_memory_mb", "total_parameters", "flops_per_token")


def joined(runs: Sequence[Run], folds: Sequence[Mapping[str, Any]], task: Any) -> Run:
    """One run from those of the folds.

    Its scores of the test split are those of all samples. Its scores of the validation split are those of the
    validation parts of all folds. Costs are means over the folds.

    Args:
        runs: with the predictions of the test split, in the order of `folds`.
        folds: the splits of each fold, as the task reads them.

    Raises:
        ValueError: if the scores of a run do not follow from its predictions.
    """
    headline = task.headline(folds[0]["train"])
    for run, splits in zip(runs, folds, strict=True):
        said, counted = run.results[f"test_{headline}"], _scores([run], [splits], task)[headline]
        if not math.isclose(said, counted, abs_tol=1e-5):  # files have numbers with 6 decimals
            raise ValueError(
                f"{run.folder}: all_results.json has test_{headline} {said:.4f}, but predictions_test give "
                f"{counted:.4f}; one of the files was changed; run it again"
            )
    results = {f"test_{key}": value for key, value in _scores(runs, folds, task).items()}
    if all("validation" in splits for splits in folds):
        found = [task.reread(run.folder, "eval") for run in runs]
        held_out = [Run(run.config, run.folder, {}, [], *own) for run, own in zip(runs, found, strict=True)]
        results |= {f"eval_{key}": value for key, value in _scores(held_out, folds, task).items()}
    for key in _SUMS:
        results[f"test_{key}"] = float(sum(run.results[f"test_{key}"] for run in runs))
    for key in _MEANS:
        if key in runs[0].results:
            results[key] = float(np.mean([run.results[key] for run in runs]))
    words, gold, predicted, scores = _samples(runs)
    return replace(
        runs[0], results=results, words=words, gold=gold, predicted=predicted, scores=scores, folds=list(runs)
    )


def _samples(runs: Sequence[Run]) -> tuple[list[Any], ...]:
    """Words, right answers, predictions and scores of the samples of all runs."""
    return tuple(
        [sample for run in runs for sample in getattr(run, name)] for name in ("words", "gold", "predicted", "scores")
    )


def _scores(runs: Sequence[Run], folds: Sequence[Mapping[str, Any]], task: Any) -> dict[str, float]:
    """The scores of all predictions of some runs together."""
    labels, settings = task.labels(folds[0]), stages.asked(task, "settings", folds[0], runs[0].config)
    gold, said = task.restored(_samples(runs), labels, settings)
    counts = np.asarray(task.counts(gold, said, labels, settings))
    scores: dict[str, float] = task.score(counts.sum(0), labels, settings)
    return scores | stages.asked(task, "remarks", gold, said)
