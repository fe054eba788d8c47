"""What several tasks need of samples: those of a prediction, and those of several models' runs.

The runs are those of `finetune/comparison/runs.py`, by the name of the model and the seed.
"""

from collections.abc import Callable, Mapping
from typing import Any

EXAMPLES = 100  # samples with errors in a report
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


def worst(read: Runs, error: Callable[[Any, Any], float]) -> list[dict[str, Any]]:
    """The texts with the greatest errors of the models' first seeds together."""
    first = {name: next(iter(seeds.values())) for name, seeds in read.items()}
    some = first_run(read)
    found = []
    for at, right in enumerate(some.gold):
        said = {name: run.predicted[at] for name, run in first.items()}
        wrong = {name: error(right, own) for name, own in said.items()}
        if any(wrong.values()):
            shown = {name: _shown(own) for name, own in said.items()}
            found.append(
                {
                    "sentence": at,
                    "words": some.words[at],
                    "gold": _shown(right),
                    "predicted": shown,
                    "confidence": dict.fromkeys(first),
                    "wrong": wrong,
                }
            )
    return sorted(found, key=lambda one: -sum(one["wrong"].values()))[:EXAMPLES]


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
