"""A figure of how runs learned: the loss and a score against the steps, from their histories."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finetune.reporting.plots import COLOURS, MARKERS


def training_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], score: str) -> Figure:
    """Left, the loss in training as a line, and the loss of each evaluation as marks. Right, a score.

    Args:
        runs: name of the run -> its history, which is `RunResult.history` and the lines of `history.jsonl`.
        score: a key of the evaluations in them, such as `eval_f1`.

    Raises:
        ValueError: if no run has this score.
    """
    if not any(score in line for lines in runs.values() for line in lines):
        known = sorted({key for lines in runs.values() for line in lines for key in line if key.startswith("eval_")})
        raise ValueError(f"training_curves: no run has {score}; they have {', '.join(known) or 'no evaluations'}")
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for number, (name, lines) in enumerate(runs.items()):
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        losses.plot(*_points(lines, "loss"), color=look["color"])
        losses.plot(*_points(lines, "eval_loss"), linestyle="none", **look)
        scores.plot(*_points(lines, score), label=name, **look)
    for axes, title in ((losses, "loss (line: training, marks: evaluation)"), (scores, score)):
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def _points(lines: Sequence[Mapping[str, float]], key: str) -> tuple[list[Any], list[Any]]:
    """The steps at which the history has a value, and the values."""
    found = [(line["step"], line[key]) for line in lines if key in line]
    return [step for step, _ in found], [value for _, value in found]
