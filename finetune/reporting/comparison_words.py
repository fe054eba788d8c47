"""The sentences and the cells of a comparison: scores with their spread, intervals, and which model is better."""

import math
from collections.abc import Mapping
from typing import Any

from finetune.reporting.tables import aligned

MEASURES = {"bleu": "BLEU", "f1": "F1", "log_probability": "log-probability a word", "pearson": "Pearson's r"}
_LEVEL = 0.05  # a p below this: chance alone would hardly give such a difference

TOLD = (
    "A score is the mean over the seeds, with the standard deviation. With three or more seeds there is an "
    "interval of Student's t, cut at the limits of the score. Two seeds say too little for an interval."
)
COSTS_TOLD = (
    "Tokens are subwords, or words for baselines; so compare models by sentences/s. This time does not include "
    "tokenising, except for the SVM, whose features are computed from the text. Operations: 2 for each weight "
    "outside of embeddings and each token, and the attention of a transformer. Training takes three times as many."
)


def measure_of(report: Mapping[str, Any]) -> str:
    """The name of the score that models are compared by, such as `test F1`."""
    name = MEASURES.get(report["metric"], report["metric"])
    if "folds" in report:
        return f"{name} over {len(report['folds'])} folds"
    return f"{report['split'].replace('eval', 'dev')} {name}"


def caution(report: Mapping[str, Any]) -> str:
    """What the scores of a cross-validation mean, or those of a validation split; nothing for a test split."""
    if report.get("split") == "eval":
        return (
            "There is no test split, so the models are compared on the validation split. Their best epochs were "
            "chosen there (and the C of an SVM). So the scores are too high, and not equally so for all models."
        )
    if "folds" not in report:
        return ""
    sizes = report["folds"]
    size = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    return (
        f"This is a cross-validation with {len(sizes)} folds of {size} samples. For each "
        f"seed, each of the {sum(sizes):,} samples is scored once, by a model that has not seen it; a score is "
        "computed from all of them together. A document is in one fold; without documents, nearly equal texts are in "
        "one fold. The models of the folds learn from mostly the same samples. So scores with other training "
        "data may differ by more than the intervals and p-values say (Bengio and Grandvalet, 2004). Costs are means "
        "over the folds."
    )


def failure_told(failure: Mapping[str, Any]) -> str:
    """Which run failed, and why."""
    fold = f", fold {failure['fold']}" if "fold" in failure else ""
    return f"{failure['model']}, seed {failure['seed']}{fold}: {failure['reason']}"


def score_of(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """That score of a model over its seeds."""
    score: Mapping[str, Any] = report["models"][name]["scores"][f"{report['split']}_{report['metric']}"]
    return score


def columns(report: Mapping[str, Any]) -> list[str]:
    """The head of the table of scores and costs, without the column of the models. Three columns have scores."""
    return [
        measure_of(report),
        "95 % interval",
        f"dev {MEASURES.get(report['metric'], report['metric'])}",
        "parameters",
        "training s",
        "tokens/s",
        "prediction tokens/s",
        "sentences/s",
        "peak MB",
        "MFLOP a word",
    ]


def cells(report: Mapping[str, Any]) -> list[list[str]]:
    """A row for each model: its name, and a cell for each of `columns`."""
    rows = []
    for name, model in report["models"].items():
        score, cost = score_of(report, name), model["cost"]
        dev = model["scores"].get(f"eval_{report['metric']}")
        rows.append(
            [
                name,
                with_spread(score),
                interval(score).strip(" ()").removeprefix("95 % interval ") or "-",
                with_spread(dev) if dev else "-",
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


def comparison_table(report: Mapping[str, Any]) -> str:
    """A Markdown table with a line for each model."""
    return aligned([["model", *columns(report)], *cells(report)])


def matrix(report: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
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


def with_spread(score: Mapping[str, Any]) -> str:
    """The mean, and with two or more seeds the standard deviation."""
    return f"{score['mean']:.4f}" + (f" ± {score['stdev']:.4f}" if len(score["values"]) > 1 else "")


def interval(score: Mapping[str, Any]) -> str:
    """The interval of the mean in brackets, or why there is none; nothing for one seed."""
    seeds = len(score["values"])
    if seeds < 3:
        return " (two seeds: no interval)" if seeds == 2 else ""
    if score["low"] is None or math.isnan(score["low"]):
        return " (all seeds have this score: no interval)"
    return f" (95 % interval {score['low']:.4f} to {score['high']:.4f})"


def one_seed(report: Mapping[str, Any], pair: Mapping[str, Any]) -> list[str]:
    """The models of a pair that depend on the seed, but were trained with only one seed."""
    of_pair = {name: report["models"][name] for name in (pair["first"], pair["second"])}
    return [name for name, model in of_pair.items() if model["depends_on_seed"] and len(model["seeds"]) == 1]


def flat(pair: Mapping[str, Any]) -> bool:
    """Whether all resamples give the same difference, for example if two models predict nothing with any seed."""
    return bool(pair["low"] == pair["high"])


def verdict(pair: Mapping[str, Any]) -> str:
    """`better`, `worse` or `not decided`: the first model of the pair beside the second one."""
    if pair["p_holm"] >= _LEVEL:
        return "not decided"
    return "better" if pair["difference"] > 0 else "worse"


def sentence(report: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    """What is known about a pair of models, with its numbers."""
    first, second, found = pair["first"], pair["second"], verdict(pair)
    said = {
        "better": f"{first} is better than {second}",
        "worse": f"{second} is better than {first}",
        "not decided": f"not decided between {first} and {second}",
    }[found]
    holm, bootstrap, randomisation = (p_value(pair[f"p_{key}"]) for key in ("holm", "bootstrap", "randomisation"))
    return (
        f"{said}: {first} minus {second} is {pair['difference']:+.4f} ({pair['low']:+.4f} to {pair['high']:+.4f}; "
        f"p {bootstrap} by bootstrap, {randomisation} by randomisation, {holm} after Holm's correction)"
        + ("; every resample gives this difference, so the interval has no width" if flat(pair) else "")
        + "".join(f"; {name} has one seed: nothing is known about other seeds" for name in one_seed(report, pair))
    )


def p_value(value: float) -> str:
    """A p-value for a reader."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def in_short(report: Mapping[str, Any]) -> str:
    """Which model is the best one, and whether the test can tell it from the next one."""
    means = {name: score_of(report, name)["mean"] for name in report["models"]}
    order = sorted(means, key=lambda name: -means[name])
    measure = measure_of(report)
    first = [name for name in order if means[order[0]] - means[name] < 5e-5]  # equal in the digits of the report
    if len(first) > 1:
        return f"{', '.join(first[:-1])} and {first[-1]} have the same {measure}, {means[order[0]]:.4f}" + (
            "." if len(first) == len(order) else f"; the next is {order[len(first)]}, {means[order[len(first)]]:.4f}."
        )
    best, told = order[0], f"{order[0]} has the highest {measure}, {with_spread(score_of(report, order[0]))}."
    if len(order) < 2:
        return told
    pair = matrix(report)[best][order[1]]
    seeds = "".join(
        f" {name} was trained with one seed: the result of another seed is not known."
        for name in one_seed(report, pair)
    )
    told = f"{told} The next is {order[1]}, {pair['difference']:.4f} lower."
    if verdict(pair) == "better":
        return f"{told} Chance alone would hardly give such a difference (p {p_value(pair['p_holm'])}).{seeds}"
    if pair["low"] > 0:
        why = (
            f"{len(report['pairs'])} pairs of models are compared here, and among so many one may differ like this "
            "by chance"
        )
    else:
        lower = abs(min(pair["low"], 0.0))
        why = (
            f"with other test sentences or other seeds, {best} may be up to {lower:.4f} lower or "
            f"{pair['high']:.4f} higher"
        )
    return (
        f"{told} This test cannot tell which of the two is better: {why} (p {p_value(pair['p_holm'])}). It does not "
        f"show that they are equally good; more test sentences or more seeds may decide it.{seeds}"
    )
