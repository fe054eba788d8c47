"""Plots of a comparison, drawn by matplotlib without a screen, as PNG files and as SVG inside a page.

If there are many labels, a plot shows only `MOST` of them: the ones that are confused most often, or the most
frequent ones if a report has no confusions.

Shapes: K labels.
"""

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

_INK = "#123456"  # is replaced by the text colour of the page, which may be light or dark
# The colours of Okabe and Ito, which colour-blind readers can tell apart. Here the text colour stands for their
# black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", _INK)
MARKERS = "osD^vPX*"
MOST = 20  # largest number of labels in a plot
_NAME = 30  # largest number of characters of a name in a plot
_WIDTH = 5.2  # inches; with text of 10 points it can be read on a phone, 390 pixels wide, without scrolling
_SCALE = 1.5  # pixels of the page for each point, if there is room


def comparison_plots(report: Mapping[str, Any]) -> dict[str, Callable[[], Figure]]:
    """name -> function that draws the plot, for all plots of a report, in order."""
    report = _without_formulas(report)
    plots: dict[str, Callable[[], Figure]] = {"scores": partial(_scores, report)}
    if any(len(model["curve"]) > 1 for model in report["models"].values()):
        plots["learning_curves"] = partial(_curves, report)
    plots["quality_and_cost"] = partial(_costs, report)
    for title in report["breakdowns"]:
        plots[f"by_{title.replace(' ', '_')}"] = partial(_groups, report, title)
    if report["confusion"]:
        plots["confusion"] = partial(_confusion, report)
    return plots


def confusion_shown(report: Mapping[str, Any], name: str) -> tuple[list[str], list[str], np.ndarray]:
    """The names of the rows, the names of the columns, and the cells of a model's confusion matrix.

    It has at most `MOST` labels: the ones with the most errors of all models. If labels are left out, the column
    `others` has the number of times they were predicted. The row and the column `none` are for entities without a
    counterpart.
    """
    labels, table = list(report["labels"]), np.array(report["confusion"][name], dtype=float)
    none = ["none"] if len(table) > len(labels) else []
    if len(labels) <= MOST:
        return [*labels, *none], [*labels, *none], table
    chosen = _most_confused(report)
    rows = table[[*chosen, *range(len(labels), len(table))]]
    left = np.setdiff1d(np.arange(len(labels)), chosen)
    cells = np.column_stack([rows[:, chosen], rows[:, left].sum(1), rows[:, len(labels) :]])
    names = [labels[at] for at in chosen]
    return [*names, *none], [*names, "others", *none], cells


def _most_confused(report: Mapping[str, Any]) -> list[int]:
    """The numbers of the labels with the most errors, in the order of the labels.

    An error counts for the gold label and for the predicted label.
    """
    wrong = np.sum([np.array(table, dtype=float) for table in report["confusion"].values()], axis=0)
    np.fill_diagonal(wrong, 0.0)
    errors = (wrong.sum(0) + wrong.sum(1))[: len(report["labels"])]
    return sorted(np.argsort(-errors, kind="stable")[:MOST].tolist())


def _named(name: str) -> str:
    """The name, cut if it is too long for a plot."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _without_formulas(value: Any) -> Any:
    """The value with each `$` escaped, because matplotlib reads text between two of them as a formula."""
    if isinstance(value, str):
        return value.replace("$", r"\$")
    if isinstance(value, Mapping):
        return {_without_formulas(key): _without_formulas(item) for key, item in value.items()}
    return [_without_formulas(item) for item in value] if isinstance(value, (list, tuple)) else value


def png(figure: Figure) -> bytes:
    """A PNG of the figure, on white. The same figure always gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return content.getvalue()


def inline_svg(figure: Figure, name: str) -> str:
    """An `<svg>` for a page. Its text has the colour of the page, and its ids occur nowhere else on the page.

    The same figure always gives the same SVG.
    """
    text = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue()[text.getvalue().index("<svg") :], flags=re.DOTALL)
    svg = svg.replace(_INK, "currentColor")
    pixels = round(_SCALE * 72 * figure.get_figwidth())  # the page makes it smaller where it does not fit
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 width="{pixels}"', svg, count=1)
    # The ids of all figures of a page share one space.
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg).replace("<svg ", '<svg role="img" ', 1)


def _figure(
    draw: Callable[..., None], title: str, width: float = _WIDTH, height: float = 3.4, count: int = 1
) -> Figure:
    """`draw` is given the axes of so many plots, one below the other."""
    with rc_context({"text.color": _INK, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        plots = figure.subplots(count, squeeze=False)[:, 0]
        for axes in plots:
            axes.patch.set_alpha(0)
            axes.tick_params(which="both", colors=_INK)
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        draw(*plots)
    return figure


def _style(number: int) -> dict[str, Any]:
    """A colour and a marker, of which no two of the first 64 models have the same."""
    lap = number // len(COLOURS)
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[(number + lap) % len(MARKERS)]}


def _label(report: Mapping[str, Any]) -> str:
    measure = "F1" if report["metric"] == "f1" else report["metric"]
    return f"{report['split'].replace('eval', 'dev')} {measure}"


def _score(report: Mapping[str, Any], model: Mapping[str, Any]) -> Mapping[str, Any]:
    return model["scores"][f"{report['split']}_{report['metric']}"]


def _has_interval(score: Mapping[str, Any]) -> bool:
    return score["low"] is not None and score["low"] == score["low"]  # NaN in memory, null in JSON


def _scores(report: Mapping[str, Any]) -> Figure:
    names = list(report["models"])

    def draw(axes: Any) -> None:
        for number, name in enumerate(names):
            score = _score(report, report["models"][name])
            y = len(names) - 1 - number
            if _has_interval(score):
                axes.plot(
                    [score["low"], score["high"]], [y, y], color=_style(number)["color"], linewidth=5, alpha=0.3
                )
            axes.plot(score["values"], [y] * len(score["values"]), linestyle="none", **_style(number))
        axes.set_yticks(range(len(names)), list(map(_named, reversed(names))))
        # The label ends at the right edge, because long names leave little room below the axes.
        some = any(_has_interval(_score(report, model)) for model in report["models"].values())
        told = ", and the 95 % interval of the mean" if some else ""
        axes.set_xlabel(f"{_label(report)}: each seed{told}", loc="right")
        axes.grid(axis="x", alpha=0.3)
        axes.set_ylim(-0.6, len(names) - 0.4)

    return _figure(draw, f"{_label(report)} of each model", height=1.5 + 0.42 * len(names))


def _curves(report: Mapping[str, Any]) -> Figure:
    def draw(axes: Any) -> None:
        for number, (name, model) in enumerate(report["models"].items()):
            curve = model["curve"]
            if not curve:
                continue
            # As a share of the training, because models train for different numbers of epochs.
            share = np.array([point["epoch"] for point in curve]) / curve[-1]["epoch"]
            axes.plot(share, [point["mean"] for point in curve], label=_named(name), markersize=4, **_style(number))
            bounds = ([point[key] for point in curve] for key in ("low", "high"))
            axes.fill_between(share, *bounds, color=_style(number)["color"], alpha=0.15, linewidth=0)
        axes.set_xlabel("share of the training")
        axes.set_ylabel(_label({**report, "split": "eval"}))
        axes.grid(alpha=0.3)
        _legend(axes)

    return _figure(draw, "Learning curves: the mean of the seeds,\nand the least and the greatest score", height=4.0)


def _costs(report: Mapping[str, Any]) -> Figure:
    costs = (
        ("train_runtime", "seconds of training"),
        ("predict_sentences_per_second", "sentences a second in prediction"),
        ("total_parameters", "parameters"),
    )

    def draw(*plots: Any) -> None:
        for axes, (key, title) in zip(plots, costs, strict=True):
            for number, (name, model) in enumerate(report["models"].items()):
                if model["cost"][key] > 0:
                    x, y = model["cost"][key], _score(report, model)["mean"]
                    axes.plot([x], [y], linestyle="none", label=_named(name), markersize=8, **_style(number))
            axes.set_xscale("log")
            low, high = axes.get_xlim()
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 50 else (1.0,)))
            axes.xaxis.set_major_formatter(_short)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel(title)
            axes.set_ylabel(_label(report))
            axes.grid(alpha=0.3)
        _legend(plots[0])

    return _figure(draw, "What the quality costs", height=0.6 + 2.3 * len(costs), count=len(costs))


def _short(value: float, position: int | None = None) -> str:
    """2000 -> 2k, 3000000 -> 3M, 0.1 -> 0.1."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _groups(report: Mapping[str, Any], title: str) -> Figure:
    found = report["breakdowns"][title]
    groups, cut = list(found["size"]), ""
    if title == "label" and len(groups) > MOST:
        if report["confusion"]:
            chosen = {report["labels"][at] for at in _most_confused(report)}
        else:  # of several labels, or of tags
            chosen = set(sorted(groups, key=lambda group: -found["size"][group])[:MOST])
        cut = f", the most {'confused' if report['confusion'] else 'frequent'} of {len(groups):,}"
        groups = [group for group in groups if group in chosen]
    width = 0.8 / len(report["models"])
    measure = found["of"].partition(", by ")[2] or "F1"

    def draw(axes: Any) -> None:
        for number, (name, scores) in enumerate(found["scores"].items()):
            at = np.arange(len(groups)) + (number - (len(report["models"]) - 1) / 2) * width
            hatch = "///" if number >= len(COLOURS) else None
            values = [scores[group] for group in groups]
            axes.barh(at, values, width * 0.9, label=_named(name), color=_style(number)["color"], hatch=hatch)
        axes.set_yticks(range(len(groups)), [f"{_named(group)}\n({found['size'][group]:,})" for group in groups])
        axes.invert_yaxis()
        axes.set_xlabel(f"{measure} (in brackets: number of {found['of'].partition(',')[0]})")
        axes.grid(axis="x", alpha=0.3)
        _legend(axes)

    bar = 0.15 * len(report["models"])
    return _figure(draw, f"{measure} by {title}{cut}", height=1.4 + len(groups) * max(0.45, 0.15 + bar))


def _confusion(report: Mapping[str, Any]) -> Figure:
    """The confusion matrix of the best model. Colours show shares of each gold label; the cells have counts."""
    name = max(report["models"], key=lambda model: _score(report, report["models"][model])["mean"])
    rows, columns, table = confusion_shown(report, name)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    left = len(report["labels"]) - MOST
    cut = f"\n{left:,} labels with fewer errors are left out" if left > 0 else ""

    def draw(axes: Any) -> None:
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            colour = "black" if shares[row, column] > 0.5 else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(len(columns)), list(map(_named, columns)), rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), list(map(_named, rows)))
        axes.set_xlabel(f"predicted by {_named(name)}, a mean over its seeds{cut}")
        axes.set_ylabel("gold")
        axes.spines[:].set_visible(False)

    title = f"What {_named(name)} confuses"
    return _figure(draw, title, width=2.6 + 0.75 * len(columns), height=2.1 + 0.45 * len(rows))


def _legend(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()  # only of this plot, if the figure has several
    columns = 58 // (6 + max(map(len, labels), default=0))  # 58 characters fit, and a marker takes 6 of them
    columns = min(max(columns, 1), 4, max(len(handles), 1))
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
