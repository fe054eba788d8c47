"""Trains the runs of a comparison that are not finished, one after the other or several at a time."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune.comparison import processes
from finetune.comparison.finished import DIGEST, digest_of, state_of
from finetune.comparison.runs import RunName
from finetune.files import printable, write_text


def train_missing(
    runs: Mapping[RunName, tuple[Callable[[Any], Any], Any]],
    splits: Mapping[int | None, Mapping[str, Any]],
    task: Any,
    jobs: int,
    given: Mapping[str, Any],
) -> dict[RunName, str]:
    """Trains the runs that are not finished. If one fails, the others still run.

    Args:
        runs: what trains each run, and its config.
        splits: of each fold, or of None; as the task reads them.
        jobs: how many runs train at a time.
        given: arguments of each run beside its config.

    Returns:
        Why runs failed.

    Raises:
        ValueError: if a finished run saw other data.
    """
    digests = {fold: digest_of(own) for fold, own in splits.items()}
    headlines = {fold: task.headline(own["train"]) for fold, own in splits.items()}
    states = {name: state_of(own, digests[name.fold], headlines[name.fold]) for name, (_, own) in runs.items()}
    reasons: dict[RunName, str] = {}
    todo = {
        name: (partial(train, **given), own if states[name] == "new" else replace(own, resume_from_checkpoint="true"))
        for name, (train, own) in runs.items()
        if states[name] in ("new", "begun")
    }

    def tell(name: RunName) -> None:
        number, state = list(runs).index(name) + 1, states[name]
        print(f"\n=== {name} ({number} of {len(runs)}{'' if state == 'new' else ', ' + state})", flush=True)

    def ended(name: RunName, reason: str | None) -> None:
        if reason is not None:
            print(printable(f"failed: {reason}"), flush=True)
            reasons[name] = reason
        elif os.environ.get("RANK", "0") == "0":
            write_text(Path(runs[name][1].output_dir) / DIGEST, digests[name.fold])

    if jobs == 1:
        for name in runs:
            tell(name)
            if name in todo:
                ended(name, processes.train(*todo[name]))
    else:
        for name in runs:
            if name not in todo:
                tell(name)
        processes.train_side_by_side(todo, jobs, tell, ended)
    return reasons
