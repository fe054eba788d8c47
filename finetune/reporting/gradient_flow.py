"""A table and a figure of how far back gradients reach, from the result of `recipes/gradient_flow.py`."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

# The colours of Okabe and Ito, which colour-blind readers can tell apart.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7")
TITLES = ("At initialisation", "After training")


def gradient_flow_table(result: Mapping[str, Any]) -> str:
    """Markdown tables: how well each model learned, and its gradient at each distance, relative to distance 0."""
    models, length = result["models"], result["config"]["length"]
    distances = sorted({k for k in (0, 1, 2, 5, 10, 25, 50, 100, 200, 500, 1000) if k < length} | {length - 1})
    lines = [
        f"Median over {len(next(iter(models.values()))['loss'])} seeds, and the range.",
        "",
        f"| adding problem, {length} positions | mean squared error | steps | seconds |",
        "|---|---:|---:|---:|",
        f"| always 1 | {result['baseline_loss']:.4f} | | |",
    ]
    for name, found in models.items():
        cells = (_spread(found["loss"], ".4f"), _spread(found["steps"], ".0f"), _spread(found["seconds"], ".0f"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for when, title in (("before", "at initialisation"), ("after", "after training")):
        lines += ["", f"| gradient {title}, at distance | {' | '.join(models)} |", f"|---|{'---:|' * len(models)}"]
        at_0 = (_spread([norms[0] for norms in found[when]], ".3g") for found in models.values())
        lines.append(f"| 0, its norm | {' | '.join(at_0)} |")
        for k in distances:
            relative = ([norms[k] / norms[0] for norms in found[when]] for found in models.values())
            lines.append(f"| {k} | {' | '.join(_spread(values, '.1e') for values in relative)} |")
    return "\n".join(lines) + "\n"


def gradient_flow_figure(result: Mapping[str, Any]) -> Figure:
    """The gradients as lines (median and range over the seeds). The value at the largest distance is beside each."""
    drawing = Figure(figsize=(10.5, 4.2), layout="constrained")
    colours = dict(zip(result["models"], COLOURS, strict=False))
    panels = drawing.subplots(1, 2, sharey=True)
    ends: list[list[tuple[float, str]]] = [[], []]
    for ax, at_end, when, title in zip(panels, ends, ("before", "after"), TITLES, strict=True):
        for name, found in result["models"].items():
            relative = torch.tensor([[norm / norms[0] for norm in norms] for norms in found[when]])
            median = relative.quantile(0.5, dim=0)
            ax.plot(median, color=colours[name], label=name, linewidth=2)
            ax.fill_between(
                range(len(median)), relative.amin(0), relative.amax(0), color=colours[name], alpha=0.2, linewidth=0
            )
            at_end.append((max(float(median[-1]), 1e-30), name))
        ax.set_yscale("log")
        ax.set_title(title)
        ax.set_xlabel("distance from the last position")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("norm of the gradient, relative to distance 0")
    # Labels that would overlap are moved apart, once the common axis is known.
    low, high = (math.log10(value) for value in panels[0].get_ylim())
    for ax, at_end in zip(panels, ends, strict=True):
        height = -math.inf
        for value, name in sorted(at_end):
            height = max((math.log10(value) - low) / (high - low), height + 0.055)
            ax.text(
                1.01, height, f"{name} {value:.0e}", transform=ax.transAxes, color=colours[name], va="center", size=9
            )
    return drawing


def _spread(values: Sequence[float], form: str) -> str:
    middle, low, high = (format(f(values), form) for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low} to {high})"
