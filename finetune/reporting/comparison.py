"""Writes a comparison of models in three forms with the same numbers: JSON, Markdown, and a page of HTML."""

import json
import math
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.files import remove, write_bytes, write_text
from finetune.reporting import comparison_words as words
from finetune.reporting import sample_pages, table_files
from finetune.reporting.tables import aligned

_TEMPLATES = Path(__file__).parent
_GROUPS = (
    "label",
    "sentence_length",
    "seen_in_training",
    "subwords_per_word",
    "text_length",
    "kind_of_question",
    "source_length",
    "words_of_the_document",
)
_PLOTS = ("scores", "learning_curves", "quality_and_cost", "confusion", *(f"by_{group}" for group in _GROUPS))
_TABLES = ("scores", "costs", "differences", "confusion", "scorers", *(f"by_{group}" for group in _GROUPS))
_LONG_FILE = 100_000  # characters; the page does not hold a longer file


def write_comparison(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes `comparison.json`, `comparison.md`, `report.html`, `plots/*.png`, and `tables/*.csv` and `*.tex`.

    `report.html` is whole without the other files. If a plot cannot be drawn or written, the report names it with the
    reason. If `plots` or `tables` is a link, the link is removed, and nothing is written to its target. Other files
    in these folders stay.

    Args:
        report: the result of `finetune.comparison.comparison_of`, with `command`, `machine` and `failures`.
    """
    import jinja2

    from finetune.reporting.attention_maps import maps_as_html
    from finetune.reporting.plots import confusion_shown

    folder.mkdir(parents=True, exist_ok=True)
    plots, failed = _draw(folder / "plots", report)
    report = {**report, "plots_failed": failed}
    files = _write_tables(folder / "tables", report)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("comparison.html").render(
        report=report,
        table=words.cells(report),
        columns=words.columns(report),
        matrix=words.matrix(report),
        plots=plots,
        confusions={name: confusion_shown(report, name) for name in report["confusion"]},
        files=files,
        samples=sample_pages.samples_as_json(report),
        attention=maps_as_html(report.get("attention")),
        words=words,
    )
    write_text(folder / "comparison.json", _as_json(_plain(report)))
    write_text(folder / "comparison.md", _markdown(report, list(plots)))
    write_text(folder / "report.html", page)


def _as_json(report: Mapping[str, Any]) -> str:
    """JSON with a line for each number, but only one line for each sample: there may be thousands."""
    lists = {"examples": report["examples"]} | ({"attention": report["attention"]} if "attention" in report else {})
    rest = {key: value for key, value in report.items() if key not in lists}

    def one_line(value: Any) -> str:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)

    lines = [json.dumps(rest, indent=1, allow_nan=False, ensure_ascii=False).removesuffix("\n}")]
    for key, value in lists.items():
        body = (
            "[\n  " + ",\n  ".join(map(one_line, value)) + "\n ]"
            if isinstance(value, list) and value
            else one_line(value)
        )
        lines.append(f" {one_line(key)}: {body}")
    return ",\n".join(lines) + "\n}\n"


def _write_tables(folder: Path, report: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Writes each table as CSV and as LaTeX.

    Returns:
        name of the table -> file name -> the address of a link to it: the whole file, or if that is long, its path.
    """
    if folder.is_symlink():
        remove(folder)
    folder.mkdir(exist_ok=True)
    files: dict[str, dict[str, str]] = {}
    for name, table in table_files.tables_of(report).items():
        for file, text in ((f"{name}.csv", table.csv), (f"{name}.tex", table.latex(name))):
            write_text(folder / file, text)
            inside = f"data:text/plain;charset=utf-8,{urllib.parse.quote(text)}"
            files.setdefault(name, {})[file] = inside if len(inside) <= _LONG_FILE else f"tables/{file}"
    for name in _TABLES:
        if name not in files:  # an earlier report may have written it
            remove(folder / f"{name}.csv")
            remove(folder / f"{name}.tex")
    return files


def _draw(folder: Path, report: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Writes the plots. Returns (name -> SVG) of the plots, and (name -> reason) of the plots that failed."""
    from finetune.reporting.plots import comparison_plots, inline_svg, png

    drawn, failed = {}, {}
    if folder.is_symlink():
        remove(folder)
    for name, draw in comparison_plots(report).items():
        try:
            folder.mkdir(exist_ok=True)
            figure = draw()
            write_bytes(folder / f"{name}.png", png(figure))
            drawn[name] = inline_svg(figure, name)
        except Exception as error:  # any error: the numbers are more important than a picture
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
    for name in _PLOTS:
        if name not in drawn and folder.is_dir():
            remove(folder / f"{name}.png")  # an earlier report may have written it
    return drawn, failed


def add_comparison_to_card(folder: Path, report: Mapping[str, Any], name: str) -> None:
    """Adds the results of a comparison to the model card of a run. They replace those of an earlier comparison."""
    card = folder / "README.md"
    if not card.exists():
        return
    score, best = words.score_of(report, name), f"{report['split']}_{report['metric']}"
    best += f" of a cross-validation with {len(report['folds'])} folds" if "folds" in report else ""
    lines = [
        f"{best} over {len(score['values'])} seed(s): {words.with_spread(score)}"
        f"{words.interval(score)}. Other models, on the same data ({report['data']['name']}):",
        "",
        *(
            f"- {other}: {words.with_spread(words.score_of(report, other))}"
            for other in report["models"]
            if other != name
        ),
        "",
        *(f"- {words.sentence(report, pair)}" for pair in report["pairs"] if name in (pair["first"], pair["second"])),
    ]
    head, begin, end = "## Compared", "<!-- comparison -->", "<!-- end of comparison -->"
    text = card.read_text(encoding="utf-8")
    if begin in text:
        before, _, rest = text.partition(f"\n{head}\n")
        text = before + rest.partition(f"{end}\n")[2]
    text = text.replace(" They are of one run with one seed: the spread over seeds is not known from it.", "")
    before, use, after = text.partition("## Training\n")
    write_text(card, before + "\n".join([head, "", begin, *lines, end, "", ""]) + use + after)


def _markdown(report: Mapping[str, Any], figures: Sequence[str]) -> str:
    measure = words.MEASURES.get(report["metric"], report["metric"])
    lines = [
        f"# {report['data']['name']}: {', '.join(report['models'])}",
        "",
        words.in_short(report),
        *(["", caution] if (caution := words.caution(report)) else []),
        "",
        "```sh",
        report["command"],
        "```",
        "",
    ]
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in report["machine"].items()), ""]
    for name, split in report["data"]["splits"].items():
        labels = ", ".join(f"{label} {count:,}" for label, count in split["labels"].items())
        lines.append(f"- {name}: {split['sentences']:,} sentences, {split['words']:,} words; {labels}")
    lines += [
        "",
        "## Scores and costs",
        "",
        words.comparison_table(report),
        "",
        f"{words.TOLD} {words.COSTS_TOLD}",
        "",
    ]
    lines += [f"- {sentence}" for sentence in report.get("collapses", ())]
    for failure in report["failures"]:
        lines.append(f"- **failed**: {words.failure_told(failure)}")
    if report["pairs"]:
        lines += [
            "",
            "## Which model is better?",
            "",
            *(f"- {words.sentence(report, pair)}" for pair in report["pairs"]),
        ]
    for title, found in report["breakdowns"].items():
        lines += ["", f"## By {title}", "", f"In brackets the number of {found['of']}.", ""]
        head = ["model", *(f"{group} ({size:,})" for group, size in found["size"].items())]
        lines.append(
            aligned([head, *([name, *(f"{v:.4f}" for v in row.values())] for name, row in found["scores"].items())])
        )
    if "scorers" in report:
        scorers = list(next(iter(report["scorers"].values())))
        lines += ["", "## How the scorer changes the score", "", f"{measure} on the same predictions.", ""]
        body = [[name, *(f"{v:.4f}" for v in row.values())] for name, row in report["scorers"].items()]
        lines += [aligned([["model", *scorers], *body]), "", _words_line(report)]
    lines += ["", "## Settings", ""]
    for name, model in report["models"].items():
        told = ", ".join(f"{key} {value}" for key, value in model["settings"].items())
        lines.append(f"- {name} (seeds {', '.join(map(str, model['seeds']))}): {told}")
    lines += ["", "## Plots", "", *(f"![{name}](plots/{name}.png)" for name in figures), ""]
    lines += [f"- **failed**: the plot {name}: {reason}" for name, reason in report["plots_failed"].items()]
    lines += [
        "",
        "All tables are in `tables/`, as CSV and as LaTeX. `report.html` has the samples with what each model says.",
        "",
    ]
    return "\n".join(lines)


def _words_line(report: Mapping[str, Any]) -> str:
    number = report["data"]["splits"]["test" if report["split"] == "test" else "validation"]["words"]
    kept = report.get("words_kept_by_truncation")
    return f"Words scored: {number:,} of {number:,}{'' if kept is None else f'; with truncation {kept:,}'}."


def _plain(value: Any) -> Any:
    """The value in a form that JSON can have: NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
