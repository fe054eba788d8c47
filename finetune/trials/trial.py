"""One trial of a search, in a process of its own: trains, reports each evaluation, and is ended if it is hopeless."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from finetune import data, training
from finetune.trials.study import load_study

TENTHS = 10  # trials are compared after each tenth of their steps


def run_trial(
    recipe: Callable[[Any], Any], folder: Path, number: int, metric: str, prunes: bool, config: Any
) -> None:
    """Trains, and notes in the journal how it went.

    Args:
        recipe: the function of a recipe.
        folder: of the search.
        number: of the trial, which is running.
        metric: the score without its prefix, such as `f1`.
        prunes: whether the trial may be ended early.
        config: of the recipe, with the values of the trial.

    Raises:
        ValueError: if the score is not a number.
    """
    study = load_study(folder, training.is_better_lower(metric))
    trial = optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    began = time.monotonic()

    def listen(share: float, scores: Mapping[str, float]) -> None:
        nonlocal began
        if not scores:
            began = time.monotonic()  # the first step comes next
            return
        report(trial, share, scores[f"eval_{metric}"])
        if prunes and share < 1 and trial.should_prune():
            raise optuna.TrialPruned

    try:
        with data.without_test_data(), training.told_evaluations(listen):
            recipe(config)
    except optuna.TrialPruned:
        trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
        study.tell(trial, state=TrialState.PRUNED)
        return
    score = json.loads((Path(config.output_dir) / "all_results.json").read_text())[f"eval_{metric}"]
    if not math.isfinite(score):
        raise ValueError(f"eval_{metric} is {score}, which is no score")
    study.tell(trial, score)


def report(trial: optuna.Trial, share: float, value: float) -> None:
    """Notes a score for each tenth of the training that has passed since the last score.

    Trials are compared at the same share of their steps and not at the same epoch. The reason is the learning rate,
    which falls to zero at the end: after two epochs, a trial of two epochs is at its best, and one of six is not.
    A tenth that ended between two evaluations has the score of the earlier one.

    Args:
        share: of the steps that are done.
    """
    told = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    now = math.floor(share * TENTHS + 1e-9)
    if told:
        last = max(told)
        for tenth in range(last + 1, now):
            trial.report(told[last], tenth)
    if now > 0 and now not in told and math.isfinite(value):
        trial.report(value, now)


def run_until_ready(recipe: Callable[[Any], Any], config: Any) -> None:
    """Does all that comes before the first step, and writes nothing: a mistake in the flags shows here."""

    def listen(share: float, scores: Mapping[str, float]) -> None:
        raise optuna.TrialPruned

    try:
        with data.without_test_data(), training.told_evaluations(listen):
            recipe(config)
    except optuna.TrialPruned:
        return
