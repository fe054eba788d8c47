"""The trials of a search, in optuna's journal: which values come next, which trial goes on, when a search is done.

The journal is a file that several processes and machines append to. A lock file guards it; it also works on network
file systems. Under this lock a process takes a trial: one whose process died, or a new one.

The values of a trial depend on the seed, its number and what the other trials have shown so far. So one process alone
always tries the same values, and two processes at once seldom propose the same.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from finetune.trials import claims
from finetune.trials.ranges import Range, Value, combinations

JOURNAL = "search.journal"
_NAME = "search"
_KEPT = ("run.yaml", "history.jsonl", "all_results.json", ".written", ".lock")  # of a trial that is not the best
_MOST_DEATHS = 3
_TAIL = 2**20  # bytes at the end of the journal that are longer than its last line
_RANDOM = 10  # trials before the sampler begins to learn
_BEFORE_PRUNING = 5  # trials that are finished


@dataclass
class Search:
    """An open search."""

    folder: Path
    study: optuna.Study
    ranges: Mapping[str, Range]
    seed: int
    most: int  # trials
    choices: int | None = None  # combinations of values, if each of them is tried

    def folder_of(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.folder / "trials" / f"{number:03d}"

    def claim_of(self, number: int) -> Path:
        """The file that says who runs a trial."""
        return self.folder / ".running" / f"{number:03d}"

    def trials(self) -> list[FrozenTrial]:
        """All trials that were begun, in the order of their numbers."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING]

    def next_trial(self) -> optuna.Trial | None:
        """Takes a trial for this process: one that a dead process left, or a new one. None if there is none.

        A trial with the values of a finished one takes over its result, and is passed over.
        """
        with locked(self.folder):
            for old in self.trials():
                if old.state == TrialState.RUNNING and claims.take(self.claim_of(old.number)):
                    if self._died_too_often(old):
                        continue
                    return self._with_values(optuna.Trial(self.study, old._trial_id))
            while len(self.trials()) < self.most:
                trial = self._with_values(self.study.ask())
                if not self._same_as_another(trial):
                    claims.take(self.claim_of(trial.number))
                    return trial
        return None

    def leave(self, trial: optuna.Trial) -> bool:
        """Ends this process's claim on a trial. If the trial is not finished, any process may go on with it.

        Returns:
            Whether it is finished.
        """
        finished = self.state_of(trial).state.is_finished()
        if not finished:
            trial.set_user_attr("given_back", True)
        claims.release(self.claim_of(trial.number))
        return finished

    def state_of(self, trial: optuna.Trial) -> FrozenTrial:
        """The trial as it is in the journal now."""
        return self.study.get_trials(deepcopy=False)[trial.number]

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """Notes that a trial failed."""
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """The trial with the best score; of equal ones the first."""
        return self._best_of(self.trials())

    def _best_of(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        sign = -1 if self.study.direction == optuna.study.StudyDirection.MINIMIZE else 1
        return max(finished, key=lambda trial: (sign * trial.values[0], -trial.number), default=None)

    def slim(self) -> None:
        """Removes the models and checkpoints of finished trials, except those of the best trial.

        Another process may do the same at the same time.
        """
        trials = self.trials()  # read once: a better trial may finish at any moment
        best = self._best_of(trials)
        for trial in trials:
            if trial.state.is_finished() and (best is None or trial.number != best.number):
                folder = self.folder_of(trial.number)
                for path in folder.iterdir() if folder.is_dir() else ():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    elif path.name not in _KEPT:
                        path.unlink(missing_ok=True)

    def _with_values(self, trial: optuna.Trial) -> optuna.Trial:
        """Gives the trial its values. If it has some already, these stay."""
        own = np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0]
        self.study.sampler = optuna.samplers.TPESampler(seed=int(own), n_startup_trials=_RANDOM)
        for name, one in self.ranges.items():
            propose(trial, name, one)
        return trial

    def _same_as_another(self, trial: optuna.Trial) -> bool:
        for other in self.trials():
            if other.number != trial.number and other.state.is_finished() and other.params == trial.params:
                trial.set_user_attr("same_as", other.number)
                if other.state == TrialState.COMPLETE:
                    self.study.tell(trial, other.values[0])
                elif other.state == TrialState.PRUNED:
                    for step, value in other.intermediate_values.items():
                        trial.report(value, step)
                    self.study.tell(trial, state=TrialState.PRUNED)
                else:
                    self.fail(trial, other.user_attrs.get("reason", ""))
                return True
        return False

    def _died_too_often(self, old: FrozenTrial) -> bool:
        """Fails a trial whose process died more than three times at the same place."""
        trial = optuna.Trial(self.study, old._trial_id)
        if old.user_attrs.get("given_back"):  # then it did not die
            trial.set_user_attr("given_back", False)
            return False
        steps = (path.name.rpartition("-")[2] for path in self.folder_of(old.number).glob("checkpoint-*"))
        place = len(old.intermediate_values), max((int(step) for step in steps if step.isdecimal()), default=0)
        before = old.user_attrs.get("died", {"place": [], "times": 0})
        times = before["times"] + 1 if before["place"] == list(place) else 1
        trial.set_user_attr("died", {"place": list(place), "times": times})
        if times <= _MOST_DEATHS:
            return False
        self.fail(trial, f"its process died {times} times at the same place")
        claims.release(self.claim_of(old.number))
        return True


def propose(trial: optuna.Trial, name: str, one: Range) -> Value:
    """A value of the range for this trial."""
    if one.choices:
        return trial.suggest_categorical(name, list(one.choices))
    assert one.low is not None
    assert one.high is not None
    if one.is_whole:
        step = int(one.step or 1)
        high = int(one.high) - (int(one.high) - int(one.low)) % step
        return trial.suggest_int(name, int(one.low), high, step=step, log=one.log)
    low, high_number, step_number = float(one.low), float(one.high), one.step
    if step_number is not None:
        high_number = one.steps()[-1]
    return trial.suggest_float(name, low, high_number, step=step_number, log=one.log)


def open_search(
    folder: Path,
    ranges: Mapping[str, Range],
    settings: Mapping[str, Any],
    first: Mapping[str, Value],
    *,
    seed: int,
    most: int,
    minimize: bool,
    check: Any,
) -> Search:
    """Opens the search of a folder, or begins one there.

    Args:
        ranges: the flags that are searched.
        settings: what must be the same if the search is continued, as JSON: name -> value.
        first: the values of the first trial; it may leave out flags.
        seed: of the values that are tried.
        most: the number of trials.
        minimize: whether a lower score is better.
        check: is called before a new search writes anything. It raises ValueError for a mistake of the user.

    Raises:
        ValueError: if the folder holds a search with other settings, or something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not (folder / JOURNAL).exists():
        if folder.exists() and (
            not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())
        ):
            raise ValueError(f"--output_dir {folder}: this folder holds something that is no search; give another")
        check()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        study = load_study(folder, minimize)
        there = study.user_attrs.get("settings")
        if there is None:
            study.set_user_attr("settings", dict(settings))
        else:
            _refuse_others(folder, there, json.loads(json.dumps(settings)))
        search = Search(folder, study, ranges, seed, most)
        every = combinations(ranges, most)
        if every is not None:  # each is tried once; the sampler has nothing to choose
            search.choices = len(every)
            order = np.random.default_rng(seed).permutation(len(every))
            every = sorted((every[i] for i in order), key=lambda one: dict(first).items() != one.items())
            for one in every:
                study.enqueue_trial(one, skip_if_exists=True)
            search.most = len(study.get_trials(deepcopy=False))  # some of a search with fewer trials may be equal
        elif there is None and first:
            study.enqueue_trial(dict(first))
    return search


def load_study(folder: Path, minimize: bool) -> optuna.Study:
    """The study in the journal of a search. It stops trials that are worse than the median of the others."""
    journal = str(folder / JOURNAL)
    _cut_half_line(folder / JOURNAL)
    storage = JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_BEFORE_PRUNING)
    try:
        return optuna.load_study(study_name=_NAME, storage=storage, pruner=pruner)
    except KeyError:
        direction = optuna.study.StudyDirection.MINIMIZE if minimize else optuna.study.StudyDirection.MAXIMIZE
        return optuna.create_study(study_name=_NAME, storage=storage, pruner=pruner, direction=direction)


def _cut_half_line(journal: Path) -> None:
    """Removes the end of a journal that was not written whole, on a full disk or without power: it ends a line."""
    lock = JournalFileOpenLock(str(journal))
    lock.acquire()
    try:
        with journal.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL, 0))
            tail = file.read()
            file.truncate(size - len(tail) + tail.rfind(b"\n") + 1 if b"\n" in tail else size)
    except FileNotFoundError:
        return
    finally:
        lock.release()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from taking a trial. It is not the lock of the journal, which each line takes anew."""
    lock = JournalFileOpenLock(str(folder / ".taking"))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _refuse_others(folder: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises ValueError if two settings differ. A flag that one of them does not know is not given there."""
    different = [name for name in {**there, **asked} if there.get(name) != asked.get(name)]
    if not different:
        return
    told = ", ".join(
        f"{name} was {_shown(there.get(name))} and is {_shown(asked.get(name))}" for name in different[:3]
    )
    raise ValueError(
        f"--output_dir {folder}: holds a search with other settings ({told}); give another folder, or what it was"
    )


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)[:80]
