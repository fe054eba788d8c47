"""What several tasks need of samples: those of a prediction, and those of several models' runs.

The runs are those of `finetune/comparison/runs.py`, by the name of the model and the seed.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST = 4_000_000  # characters of JSON for the samples of a report, so that a browser opens the page at once
Runs = Mapping[str, Mapping[int, Any]]


def is_pair(sample: Any) -> bool:
    """Whether a sample is two texts."""
    return isinstance(sample, tuple) and len(sample) == 2 and all(isinstance(text, str) for text in sample)


def each(runs: Runs) -> list[tuple[tuple[str, int], Any]]:
    """All runs, with the name of the model and the seed."""
    return [((name, seed), run) for name, seeds in runs.items() for seed, run in seeds.items()]


def first_run(runs: Runs) -> Any:
    """Some run: all have the same samples."""
    return each(runs)[0][1]


def in_order(group: str) -> tuple[int, str]:
    """`1-10` before `11-20` before `over 50`, `up to 2` before `up to 3`."""
    digits = "".join(character if character.isdecimal() else " " for character in group).split()
    return (int(digits[0]) + group.startswith("over") if digits else 0, group)


def by_error(
    runs: Runs,
    error: Callable[[Any, Any], float],
    *,
    by_confidence: bool = False,
    shown: Callable[[Any], Any] | None = None,
    kinds: Callable[[Any, Any], Sequence[str]] | None = None,
    most: int = MOST,
) -> list[dict[str, Any]]:
    """All samples, with what the first seed of each model says. The ones with the greatest errors come first.

    Args:
        error: of what is right and what a model says; 0: none.
        by_confidence: an error counts as much as the model was sure of it; fully if the model tells no confidence.
        shown: how a report has what is right, and what a model says [as text].
        kinds: names of the errors in what a model says, if it is not right.
        most: after so many characters of JSON, the other samples are left out.
    """
    shown = shown or as_text
    first = {name: next(iter(seeds.values())) for name, seeds in runs.items()}
    some = first_run(runs)
    order = []
    for at, right in enumerate(some.gold):
        wrong = {name: error(right, run.predicted[at]) for name, run in first.items()}
        sure = {name: run.scores[at] if by_confidence else math.nan for name, run in first.items()}
        weight = sum(wrong[name] * (1.0 if math.isnan(sure[name]) else sure[name]) for name in first)
        order.append((-weight, at, wrong, sure))
    found: list[dict[str, Any]] = []
    size = 0
    for _, at, wrong, sure in sorted(order, key=lambda one: one[:2]):
        right = some.gold[at]
        sample = {
            "sentence": at,
            "words": some.words[at],
            "gold": shown(right),
            "predicted": {name: shown(run.predicted[at]) for name, run in first.items()},
            "confidence": {name: None if math.isnan(score) else score for name, score in sure.items()},
            "wrong": wrong,
            "kinds": {
                name: list(kinds(right, run.predicted[at])) if kinds and wrong[name] else []
                for name, run in first.items()
            },
        }
        length = len(json.dumps(sample, ensure_ascii=False))
        if size + length > most:
            if found:
                break
            continue  # a sample that alone is too long must not hide the others
        size += length
        found.append(sample)
    return found


def as_text(value: Any) -> str:
    """A label, several labels or a number, for a report."""
    return ", ".join(value) if isinstance(value, list) else str(value)
