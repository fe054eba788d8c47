"""Runs a trial in a process of its own, and notes how it ended. What SIGTERM and Ctrl-C do meanwhile."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna

from finetune.comparison import processes
from finetune.files import printable
from finetune.trials.study import Search
from finetune.trials.trial import run_until_ready

_STOPPED = tuple(f"its process ended with exit code {code}" for code in (143, 130, -15, -2))


def check_run(train: Callable[[Any], Any], config: Any) -> None:
    """Loads data and model as a trial does, up to its first step. Raises ValueError for a mistake of the user."""
    print("=== check: all that comes before the first step, with the values of the first trial", flush=True)
    reason = processes.train(partial(run_until_ready, train), config)
    if reason is not None:
        raise ValueError(reason.removeprefix("ValueError: "))


def run_in_own_process(search: Search, trial: optuna.Trial, run: Callable[[Any], Any], config: Any) -> None:
    """Runs a trial in a process of its own, and notes and prints how it ended.

    Raises:
        SystemExit, KeyboardInterrupt: after SIGTERM and Ctrl-C. Another process may then go on with the trial.
    """
    try:
        reason = processes.train(run, config)
        if reason in _STOPPED:  # somebody ended it, who wants the search to stop
            raise SystemExit(143)
    except BaseException:
        if not search.leave(trial):
            print(f"trial {trial.number} is given back; the same command goes on with it", flush=True)
        raise
    state = search.state_of(trial)
    if not state.state.is_finished():
        reason = reason or "its process ended without a result"
        search.fail(trial, reason)
        print(printable(f"trial {trial.number} failed: {reason}"), flush=True)
    elif state.state.name == "PRUNED":
        print(f"trial {trial.number} is ended early: it is worse than half of the others", flush=True)
    else:
        best = search.best()
        if best is None or best.number == trial.number:
            told = "the best so far"
        else:
            told = f"the best is trial {best.number}, {best.values[0]:.4f}"
        print(f"trial {trial.number}: {config.metric_for_best_model} {state.values[0]:.4f} ({told})", flush=True)
    search.leave(trial)
    search.slim()


@contextmanager
def sigterm_leaves() -> Iterator[None]:
    """Within it, SIGTERM raises SystemExit, so that the trial can save and is given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one changes nothing: the trial is saving already
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
