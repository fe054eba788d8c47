"""The tables of a comparison as CSV, with all digits, and as LaTeX, rounded for a paper.

A CSV has one value in a cell, so that a spreadsheet or pandas reads it. LaTeX needs the package `booktabs`.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.reporting import comparison_words as words

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "→": r"$\rightarrow$", "\n": " ",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table in both forms. Each row has as many cells as its head."""

    caption: str
    csv_rows: Sequence[Sequence[Any]]  # the first row is the head; None and NaN become empty cells
    latex_rows: Sequence[Sequence[str]]  # the first row is the head; texts without LaTeX

    @property
    def csv(self) -> str:
        """The text of a CSV file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([_cell(value) for value in row] for row in self.csv_rows)
        return text.getvalue()

    def latex(self, label: str) -> str:
        """A `table` with this label."""
        head, *body = ([latex_escaped(cell) for cell in row] for row in self.latex_rows)
        lines = [f"{' & '.join(row)} \\\\" for row in body]
        return "\n".join(
            [
                r"% needs \usepackage{booktabs}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{latex_escaped(self.caption)}}}",
                rf"\label{{tab:{label}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
                r"\toprule",
                f"{' & '.join(head)} \\\\",
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def latex_escaped(text: str) -> str:
    """The text with the signs that LaTeX reads as commands written out."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


def tables_of(report: Mapping[str, Any]) -> dict[str, Table]:
    """name -> table, for all tables of a report: the name is that of its files."""
    found = {"scores": _scores(report), "costs": _costs(report)}
    if report["pairs"]:
        found["differences"] = _differences(report)
    for title, breakdown in report["breakdowns"].items():
        found[f"by_{title.replace(' ', '_')}"] = breakdown_table(title, breakdown)
    if report["confusion"]:
        found["confusion"] = confusion_table(report)
    if "scorers" in report:
        found["scorers"] = _scorers(report)
    return found


def _scores(report: Mapping[str, Any]) -> Table:
    head = ["model", "score", "seeds", "mean", "stdev", "low", "high", "values"]
    rows = []
    for name, model in report["models"].items():
        for key in dict.fromkeys((f"{report['split']}_{report['metric']}", f"eval_{report['metric']}")):
            if score := model["scores"].get(key):
                numbers = [score[part] for part in ("mean", "stdev", "low", "high")]
                rows.append([name, key, len(score["values"]), *numbers, " ".join(map(str, score["values"]))])
    shown = [row[:4] for row in (["model", *words.columns(report)], *words.cells(report))]
    return Table(f"Scores on {report['data']['name']}. {words.TOLD}", [head, *rows], shown)


def _costs(report: Mapping[str, Any]) -> Table:
    keys = list(next(iter(report["models"].values()))["cost"])
    rows = [[name, *(model["cost"][key] for key in keys)] for name, model in report["models"].items()]
    shown = [[row[0], *row[4:]] for row in (["model", *words.columns(report)], *words.cells(report))]
    return Table(f"Costs on {report['data']['name']}, a mean over the seeds.", [["model", *keys], *rows], shown)


def _differences(report: Mapping[str, Any]) -> Table:
    keys = ["first", "second", "difference", "low", "high", "p_bootstrap", "p_randomisation", "p_holm"]
    rows = [[*(pair[key] for key in keys), words.verdict(pair)] for pair in report["pairs"]]
    shown = [
        [
            pair["first"],
            pair["second"],
            f"{pair['difference']:+.4f}",
            f"{pair['low']:+.4f} to {pair['high']:+.4f}",
            words.p_value(pair["p_holm"]),
            words.verdict(pair),
        ]
        for pair in report["pairs"]
    ]
    return Table(
        f"Differences of {words.measure_of(report)}: the first model minus the second one, the 95 % interval of the "
        "bootstrap, and p after Holm's correction.",
        [[*keys, "the first is"], *rows],
        [["first", "second", "difference", "95 % interval", "p", "the first is"], *shown],
    )


def _scorers(report: Mapping[str, Any]) -> Table:
    names = list(next(iter(report["scorers"].values())))
    rows = [[name, *scores.values()] for name, scores in report["scorers"].items()]
    shown = [[row[0], *(f"{value:.4f}" for value in row[1:])] for row in rows]
    return Table(
        f"{words.measure_of(report)} of the same predictions by several scorers.",
        [["model", *names], *rows],
        [["model", *names], *shown],
    )


def breakdown_table(title: str, found: Mapping[str, Any]) -> Table:
    """A breakdown of a report. In the CSV, each row is one group of one model."""
    groups = found["size"]
    rows = [
        [name, group, groups[group], score]
        for name, scores in found["scores"].items()
        for group, score in scores.items()
    ]
    head = ["model", *(f"{group} ({size:,})" for group, size in groups.items())]
    return Table(
        f"By {title}. In brackets the number of {found['of']}.",
        [["model", title, "size", "score"], *rows],
        [head, *([name, *(f"{scores[group]:.4f}" for group in groups)] for name, scores in found["scores"].items())],
    )


def confusion_table(report: Mapping[str, Any]) -> Table:
    """The confusions of all models, with all labels. In the CSV, each row is one cell. LaTeX has the 20 largest.

    The label `none` stands for an entity without a counterpart.
    """
    labels = report["labels"]
    cells = []
    for name, table in report["confusion"].items():
        names = [*labels, "none"][: len(table)]
        cells += [
            [name, gold, said, value]
            for gold, row in zip(names, table, strict=True)
            for said, value in zip(names, row, strict=True)
        ]
    wrong = sorted((cell for cell in cells if cell[1] != cell[2] and cell[3] > 0), key=lambda cell: -cell[3])
    return Table(
        "The most frequent confusions, a mean over the seeds.",
        [["model", "gold", "predicted", "number"], *cells],
        [["model", "gold", "predicted", "number"], *([*cell[:3], f"{cell[3]:.1f}"] for cell in wrong[:20])],
    )
