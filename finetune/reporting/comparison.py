"""Writes a comparison of models in three forms with the same numbers: JSON, Markdown, and a page of HTML."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.files import remove, write_text
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
_MEASURES = {"bleu": "BLEU", "f1": "F1", "log_probability": "log-probability a word", "pearson": "Pearson's r"}
_PLOTS = ("scores", "learning_curves", "quality_and_cost", "confusion", *(f"by_{group}" for group in _GROUPS))


def write_comparison(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes `comparison.json`, `comparison.md`, `report.html` and `plots/*.png`.

    If a plot cannot be drawn or written, the report names it with the reason. If `plots` is a link, the link is
    removed, and nothing is written to its target. Other files in `plots` stay.

    Args:
        report: the result of `finetune.comparison.comparison_of`, with `command`, `machine` and `failures`.
    """
    import jinja2

    from finetune.reporting.plots import confusion_shown

    folder.mkdir(parents=True, exist_ok=True)
    plots, failed = _draw(folder / "plots", report)
    report = {**report, "plots_failed": failed}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("comparison.html").render(
        report=report,
        table=_cells(report),
        columns=_columns(report),
        matrix=_matrix(report),
        plots=plots,
        confusions={name: confusion_shown(report, name) for name in report["confusion"]},
        flat=_flat,
        marked=_marked,
        told=_told,
        in_short=_in_short(report),
        one_seed=_one_seed,
    )
    write_text(
        folder / "comparison.json", json.dumps(_plain(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    )
    write_text(folder / "comparison.md", _markdown(report, list(plots)))
    write_text(folder / "report.html", page)


def _draw(folder: Path, report: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Writes the plots. Returns (name -> SVG) of the plots, and (name -> reason) of the plots that failed."""
    from finetune.reporting.plots import comparison_plots, inline_svg, save_png

    drawn, failed = {}, {}
    if folder.is_symlink():
        remove(folder)
    for name, draw in comparison_plots(report).items():
        try:
            folder.mkdir(exist_ok=True)
            figure = draw()
            save_png(figure, folder / f"{name}.png")
            drawn[name] = inline_svg(figure, name)
        except Exception as error:  # any error: the numbers are more important than a picture
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
    for name in _PLOTS:
        if name not in drawn and folder.is_dir():
            remove(folder / f"{name}.png")  # an earlier report may have written it
    return drawn, failed


def comparison_table(report: Mapping[str, Any]) -> str:
    """A Markdown table with a line for each model."""
    return aligned([["model", *_columns(report)], *_cells(report)])


def add_comparison_to_card(folder: Path, report: Mapping[str, Any], name: str) -> None:
    """Adds the results of a comparison to the model card of a run. They replace those of an earlier comparison."""
    card = folder / "README.md"
    if not card.exists():
        return
    score, best = _score(report, name), f"{report['split']}_{report['metric']}"
    lines = [
        f"{best} over {len(score['values'])} seed(s): {_with_spread(score)}"
        f"{_interval(score)}. Other models, on the same data ({report['data']['name']}):",
        "",
        *(f"- {other}: {_with_spread(_score(report, other))}" for other in report["models"] if other != name),
        "",
        *(f"- {_sentence(report, pair)}" for pair in report["pairs"] if name in (pair["first"], pair["second"])),
    ]
    head, begin, end = "## Compared", "<!-- comparison -->", "<!-- end of comparison -->"
    text = card.read_text(encoding="utf-8")
    if begin in text:
        before, _, rest = text.partition(f"\n{head}\n")
        text = before + rest.partition(f"{end}\n")[2]
    text = text.replace(" They are of one run with one seed: the spread over seeds is not known from it.", "")
    before, use, after = text.partition("## Training\n")
    write_text(card, before + "\n".join([head, "", begin, *lines, end, "", ""]) + use + after)


def _columns(report: Mapping[str, Any]) -> list[str]:
    measure = _MEASURES.get(report["metric"], report["metric"])
    return [
        f"{report['split'].replace('eval', 'dev')} {measure}",
        "95 % interval",
        f"dev {measure}",
        "parameters",
        "training s",
        "tokens/s",
        "prediction tokens/s",
        "sentences/s",
        "peak MB",
        "MFLOP a word",
    ]


def _cells(report: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, model in report["models"].items():
        score, cost = _score(report, name), model["cost"]
        dev = model["scores"].get(f"eval_{report['metric']}")
        rows.append(
            [
                name,
                _with_spread(score),
                _interval(score).strip(" ()").removeprefix("95 % interval ") or "-",
                _with_spread(dev) if dev else "-",
                f"{cost['total_parameters']:,.0f}",
                f"{cost['train_runtime']:,.1f}",
                f"{cost['train_tokens_per_second']:,.0f}",
                f"{cost['predict_tokens_per_second']:,.0f}",
                f"{cost['predict_sentences_per_second']:,.0f}",
                f"{cost['peak_memory_mb']:,.0f}",
                f"{cost['flops_per_word'] / 1e6:,.2f}",
            ]
        )
    return rows


def _matrix(report: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The pair for each row and column. Its difference is row minus column."""
    table: dict[str, dict[str, Mapping[str, Any]]] = {}
    for pair in report["pairs"]:
        table.setdefault(pair["first"], {})[pair["second"]] = pair
        table.setdefault(pair["second"], {})[pair["first"]] = {
            **pair,
            "difference": -pair["difference"],
            "low": -pair["high"],
            "high": -pair["low"],
        }
    return table


def _score(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return report["models"][name]["scores"][f"{report['split']}_{report['metric']}"]


def _with_spread(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.4f}" + (f" ± {score['stdev']:.4f}" if len(score["values"]) > 1 else "")


def _interval(score: Mapping[str, Any]) -> str:
    seeds = len(score["values"])
    if seeds < 3:
        return " (two seeds: no interval)" if seeds == 2 else ""
    if score["low"] is None or math.isnan(score["low"]):
        return " (all seeds have this score: no interval)"
    return f" (95 % interval {score['low']:.4f} to {score['high']:.4f})"


def _one_seed(report: Mapping[str, Any], pair: Mapping[str, Any]) -> list[str]:
    """The models of a pair that depend on the seed, but were trained with only one seed."""
    of_pair = {name: report["models"][name] for name in (pair["first"], pair["second"])}
    return [name for name, model in of_pair.items() if model["depends_on_seed"] and len(model["seeds"]) == 1]


def _flat(pair: Mapping[str, Any]) -> bool:
    """Whether all resamples give the same difference, for example if two models predict nothing with any seed."""
    return bool(pair["low"] == pair["high"])


def _sentence(report: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    holm, bootstrap, randomisation = (_p(pair[f"p_{key}"]) for key in ("holm", "bootstrap", "randomisation"))
    return (
        f"{pair['first']} minus {pair['second']}: {pair['difference']:+.4f} ({pair['low']:+.4f} to "
        f"{pair['high']:+.4f}; p {bootstrap} by bootstrap, {randomisation} by randomisation, {holm} after Holm's "
        "correction)"
        + ("; every resample gives this difference, so the interval has no width" if _flat(pair) else "")
        + "".join(f"; {name} has one seed: nothing is known about other seeds" for name in _one_seed(report, pair))
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _markdown(report: Mapping[str, Any], figures: Sequence[str]) -> str:
    measure = _MEASURES.get(report["metric"], report["metric"])
    lines = [
        f"# {report['data']['name']}: {', '.join(report['models'])}",
        "",
        _in_short(report),
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
    lines += ["", "## Scores and costs", "", comparison_table(report), "", _told(report), ""]
    lines += [f"- {sentence}" for sentence in report.get("collapses", ())]
    for failure in report["failures"]:
        lines.append(f"- **failed**: {failure['model']}, seed {failure['seed']}: {failure['reason']}")
    if report["pairs"]:
        lines += ["", "## More than chance?", "", *(f"- {_sentence(report, pair)}" for pair in report["pairs"])]
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
    return "\n".join(lines)


def _words_line(report: Mapping[str, Any]) -> str:
    words = report["data"]["splits"]["test" if report["split"] == "test" else "validation"]["words"]
    kept = report.get("words_kept_by_truncation")
    return f"Words scored: {words:,} of {words:,}{'' if kept is None else f'; with truncation {kept:,}'}."


def _told(report: Mapping[str, Any]) -> str:
    """What the columns of the table mean."""
    return (
        "A score is the mean over the seeds, with the standard deviation. With three or more seeds there is an "
        "interval of Student's t, cut at the limits of the score. Tokens are subwords, or words for baselines; "
        "so compare models by sentences/s. This time does not include tokenising, except for the SVM, whose features "
        "are computed from the text. Operations: 2 for each weight outside of embeddings and each token, and the "
        "attention of a transformer. Training takes three times as many."
    )


def _in_short(report: Mapping[str, Any]) -> str:
    """A sentence on the best model, and on whether chance alone may explain its distance to the next one."""
    means = {name: _score(report, name)["mean"] for name in report["models"]}
    order = sorted(means, key=lambda name: -means[name])
    measure = _columns(report)[0]
    first = [name for name in order if means[order[0]] - means[name] < 5e-5]  # equal in the digits of the report
    if len(first) > 1:
        return f"{', '.join(first[:-1])} and {first[-1]} have the same {measure}, {means[order[0]]:.4f}" + (
            "." if len(first) == len(order) else f"; the next is {order[len(first)]}, {means[order[len(first)]]:.4f}."
        )
    best = f"{order[0]} has the highest {measure}, {_with_spread(_score(report, order[0]))}."
    if len(order) < 2:
        return best
    pair = _matrix(report)[order[0]][order[1]]
    if pair["p_holm"] < 0.05:
        verdict = "chance alone would hardly give such a difference"
    else:
        verdict = "chance alone may give such a difference, so it is not known which of the two is better"
    seeds = "".join(
        f" {name} was trained with one seed: the result of another seed is not known."
        for name in _one_seed(report, pair)
    )
    return (
        f"{best} The next is {order[1]}, {pair['difference']:.4f} lower: {verdict} (p {_p(pair['p_holm'])}).{seeds}"
    )


def _marked(words: Sequence[str], spans: Sequence[tuple[int, int, str]]) -> list[tuple[str, str | None]]:
    """Splits a sentence into pieces: (words, type of the entity or None)."""
    pieces: list[tuple[str, str | None]] = []
    at = 0
    for begin, end, kind in sorted(spans):
        pieces += [(" ".join(words[at:begin]), None), (" ".join(words[begin:end]), kind)]
        at = end
    return [(text, kind) for text, kind in [*pieces, (" ".join(words[at:]), None)] if text]


def _plain(value: Any) -> Any:
    """The value in a form that JSON can have: NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
