"""A plot of the trials of a search: the best score so far, and the score by each flag."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from finetune.reporting.plots import COLOURS

_LOOKS = {"finished": ("o", COLOURS[0]), "ended early": ("x", COLOURS[1])}
_COLUMNS = 3  # plots side by side


def trials_figure(rows: Sequence[Mapping[str, Any]], metric: str, flags: Mapping[str, str], lower: bool) -> Figure:
    """Draws the trials that have a score.

    Args:
        rows: of the trials: `trial`, `state`, the score by the name of the metric, and `values`, its flags.
        flags: the name of each flag, and the scale of its axis: `linear`, `log` or `choices`.
        lower: whether a lower score is better.
    """
    scored = [row for row in rows if row[metric] is not None and row["state"] in _LOOKS]
    columns = min(_COLUMNS, len(flags) + 1)
    lines = -(-(len(flags) + 1) // columns)
    figure = Figure(figsize=(0.6 + 3.4 * columns, 0.7 + 3.0 * lines), layout="constrained")
    plots = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes in plots:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    _by_number(plots[0], scored, metric, lower)
    for axes, (name, scale) in zip(plots[1:], flags.items(), strict=False):
        _by_flag(axes, scored, metric, name, scale)
    for axes in plots[len(flags) + 1 :]:
        axes.remove()
    for axes in plots[::columns]:
        axes.set_ylabel(f"eval {metric}")
    figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _by_number(axes: Any, rows: Sequence[Mapping[str, Any]], metric: str, lower: bool) -> None:
    for state, (marker, colour) in _LOOKS.items():
        some = [row for row in rows if row["state"] == state]
        if some:
            at = [row["trial"] for row in some]
            axes.plot(at, [row[metric] for row in some], marker, color=colour, label=state)
    finished = [row for row in rows if row["state"] == "finished"]
    if finished:
        best = [(min if lower else max)(row[metric] for row in finished[: i + 1]) for i in range(len(finished))]
        axes.step([row["trial"] for row in finished], best, where="post", color=COLOURS[2], label="best so far")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _by_flag(axes: Any, rows: Sequence[Mapping[str, Any]], metric: str, name: str, scale: str) -> None:
    places = sorted({row["values"][name] for row in rows}, key=lambda value: (isinstance(value, str), str(value)))
    if all(isinstance(value, (int, float)) for value in places):
        places = sorted(places)
    for state, (marker, colour) in _LOOKS.items():
        some = [(row["values"][name], row[metric]) for row in rows if row["state"] == state]
        if some:
            at = [places.index(value) if scale == "choices" else value for value, _ in some]
            axes.plot(at, [score for _, score in some], marker, color=colour)
    if scale == "log":
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    elif scale == "choices":  # each has a place on the axis, at equal distances
        axes.set_xticks(range(len(places)), ["none" if place is None else str(place) for place in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel(name)
