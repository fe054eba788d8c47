"""What a practice gains: the same data and seeds with it and without it, the gain, its interval and its cost.

    python benchmarks/practices.py --data wnut17 --practices stock,defaults --seeds 0,1,2,3,4
    ACCELERATE_MIXED_PRECISION=bf16 python benchmarks/practices.py --data sst2,sick --practices defaults,no-warmup
    python benchmarks/practices.py --table

A practice is a set of flags of the recipe, in `PRACTICES`; `stock` is `transformers.Trainer` as in `stock.py`. Each
run is a separate process, and adds a line to benchmarks/practices.jsonl; a run that is there is not run again. The
data lies under `--data_dir` in the folders that recipes/README.md names.

`--table` prints a row for each practice and data set, in two tables: the defaults on five data sets, as it was
planned before their runs, and all others. The gain is the mean over the seeds of the score with the practice minus
the score of what it is compared with, with the same seed. Its 95 % interval and its p are Student's, of these
differences; Holm's correction is over the rows of a table. So the interval says what other seeds would give on the
same test split. It does not say what other test splits would give. Both runs of a pair are of one machine, and so
is their time.
"""

import argparse
import json
import math
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import finetune  # noqa: F401  # before torch: it sets how threads wait
from finetune import cli, metrics
from finetune.arguments import DEFAULT_MODEL
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

FILE = Path(__file__).parent / "practices.jsonl"
EPOCHS = 3  # the batch has 16 rows on both sides
# The recipe, the measure, and the flags that say what is in the files.
DATA: dict[str, tuple[str, str, list[str]]] = {
    "wnut17": ("ner", "f1", ["--max_seq_length", "128"]),
    # Swahili; give a multilingual checkpoint with it.
    "swa": ("ner", "f1", ["--max_seq_length", "128", "--max_train_samples", "2000"]),
    "ncbi": ("ner", "f1", ["--max_seq_length", "128", "--file_format", "conll"]),
    # NCBI as documents, with four types. The epochs make `document` and `side-by-side` see as many subwords as this.
    "abstracts": (
        "ner",
        "f1",
        [
            *("--file_format", "brat", "--max_seq_length", "128", "--split_sentences", "true"),
            *("--num_train_epochs", "5"),
        ],
    ),
    "sst2": ("sentiment", "accuracy", ["--column_names", "text,label", "--max_seq_length", "128"]),
    "mrpc": (
        "sentiment",
        "accuracy",
        [
            *("--text_column_name", "#1 String", "--text_pair_column_name", "#2 String"),
            *("--label_column_name", "Quality", "--max_seq_length", "128"),
        ],
    ),
    "goemotions": (
        "sentiment",
        "f1_micro",
        [
            *("--column_names", "text,label,id", "--label_separator", ",", "--max_seq_length", "64"),
            *("--max_train_samples", "4000"),
        ],
    ),
    "goemotions_whole": (
        "sentiment",
        "f1_micro",
        ["--column_names", "text,label,id", "--label_separator", ",", "--max_seq_length", "64"],
    ),
    "sick": (
        "sentiment",
        "pearson",
        [
            *("--text_column_name", "sentence_A", "--text_pair_column_name", "sentence_B", "--max_seq_length", "64"),
            *("--label_column_name", "relatedness_score", "--problem_type", "regression"),
        ],
    ),
}
FILES = {
    "wnut17": "wnut17/{}.conll,train,dev,test",
    "swa": "masakhaner/swa/{}.conll,train,dev,test",
    "ncbi": "ncbi_disease/conll/{}.tsv,train,devel,test",
    "abstracts": "ncbi_disease/brat/{},train,devel,test",
    "sst2": "sst2/{}.tsv,train,dev,test",
    "mrpc": "mrpc_with_dev/{}.tsv,train,dev,test",
    "goemotions": "goemotions/{}.tsv,train,dev,test",
    "goemotions_whole": "goemotions/{}.tsv,train,dev,test",
    "sick": "sick/{}.tsv,train,dev,test",
}
AS_STOCK = ["--learning_rate", "5e-5", "--warmup_steps", "0"]
# What each practice is compared with, and its flags.
PRACTICES: dict[str, tuple[str, list[str]]] = {
    "stock": ("", []),
    "stock-rate": ("stock", AS_STOCK),
    "defaults": ("stock", []),
    "no-warmup": ("defaults", ["--warmup_steps", "0"]),
    "six-epochs": ("defaults", ["--num_train_epochs", "6"]),
    "two-epochs": ("defaults", ["--num_train_epochs", "2"]),
    "average": ("defaults", ["--average_checkpoints", "3"]),
    "crf": ("defaults", ["--head", "crf"]),
    "viterbi": ("defaults", ["--decoding", "viterbi"]),
    "lora": ("defaults", ["--lora_r", "8"]),
    "document": ("defaults", ["--context", "document", "--context_size", "32", "--num_train_epochs", "2"]),
    "document-same-epochs": ("defaults", ["--context", "document", "--context_size", "32"]),
    "side-by-side": ("defaults", ["--context", "side_by_side", "--per_device_train_batch_size", "6"]),
    "adapted": ("defaults", []),  # from the folder of recipes/pretrain.py, which --model_name_or_path names
}


PLANNED = [("defaults", name) for name in ("wnut17", "ncbi", "sst2", "goemotions", "sick")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wnut17", help="of " + ", ".join(DATA))
    parser.add_argument("--practices", default="stock,defaults", help="of " + ", ".join(PRACTICES))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--data_dir", default="data", type=Path)
    parser.add_argument("--model_name_or_path", default=DEFAULT_MODEL, help="the checkpoint of all these runs")
    parser.add_argument("--table", action="store_true", help="train nothing; print the table")
    arguments = parser.parse_args()
    if "adapted" in arguments.practices.split(",") and arguments.model_name_or_path == DEFAULT_MODEL:
        parser.error("adapted starts from a folder of recipes/pretrain.py; name it with --model_name_or_path")
    if arguments.table:
        print(table(read(), planned=True), table(read(), planned=False), sep="\n\n")
        return
    for name in arguments.data.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            for practice in arguments.practices.split(","):
                if (name, practice, seed, machine()) not in read():
                    given = (name, practice, seed, arguments.data_dir, arguments.model_name_or_path)
                    with multiprocessing.get_context("spawn").Pool(1) as fresh:
                        line = fresh.apply(run, given)
                    print(json.dumps(line), flush=True)
                    with FILE.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(line) + "\n")


def machine() -> str:
    """The name of the processor, or an empty one where it is not told. Older lines have none."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def read() -> dict[tuple[str, str, int, str], dict[str, Any]]:
    """The runs that were made."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    return {
        (one["data"], one["practice"], one["seed"], one.get("machine", "")): one for one in map(json.loads, lines)
    }


def run(name: str, practice: str, seed: int, data_dir: Path, checkpoint: str) -> dict[str, Any]:
    """Trains and scores one practice with one seed."""
    from stock import stock_run  # here, because it loads torch

    recipe, metric, flags = DATA[name]
    form, *splits = FILES[name].split(",")
    for split, stem in zip(("train", "validation", "test"), splits, strict=True):
        flags = [*flags, f"--{split}_file", str(data_dir / form.format(stem))]
    flags = ["--model_name_or_path", checkpoint, "--num_train_epochs", str(EPOCHS), *flags]
    flags += ["--seed", str(seed), "--disable_tqdm", "true"]
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        flags = [*flags, "--output_dir", folder, *PRACTICES[practice][1]]
        kind, train = (NerConfig, finetune_ner) if recipe == "ner" else (SentimentConfig, finetune_sentiment)
        config: Any = cli.parse(kind, flags)  # type: ignore[type-var]
        if practice == "stock":  # with the rate of `transformers.Trainer`
            results = stock_run(replace(config, learning_rate=5e-5), words=recipe == "ner")
        else:
            results = train(config).results  # type: ignore[operator]
    # The threshold of several labels is tuned on the development split, on both sides.
    score = results.get(f"test_{metric}_tuned", results[f"test_{metric}"])
    line = {"data": name, "practice": practice, "seed": seed, "metric": metric, "score": round(score, 6)}
    line |= {"seconds": round(time.process_time() - began, 1)}  # of the processor, whole run
    line |= {"precision": os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), "machine": machine()}
    if checkpoint != DEFAULT_MODEL:
        line |= {"checkpoint": Path(checkpoint).name}
    if metric == "f1_micro":  # macro, too; and the stock way's usual threshold, 0.5
        line |= {"f1_macro": round(results.get("test_f1_macro_tuned", results["test_f1_macro"]), 6)}
        if "test_f1_micro_tuned" in results:
            line |= {f"f1_{mean}_at_half": round(results[f"test_f1_{mean}"], 6) for mean in ("micro", "macro")}
    return line | {key: results[key] for key in ("restarts", "averaged_checkpoints") if key in results}


def table(runs: dict[tuple[str, str, int, str], dict[str, Any]], *, planned: bool) -> str:
    """The rows of one of the two tables, as Markdown."""
    rows = []
    for practice, (against, _) in PRACTICES.items():
        for name in DATA:
            pairs = {}  # by seed; of a seed that two machines have run, the first pair counts
            for (its, kind, seed, where), one in runs.items():
                other = runs.get((name, against, seed, where))
                if (its, kind) == (name, practice) and other:
                    pairs.setdefault(seed, (one, other))
            if len(pairs) >= 3 and planned == ((practice, name) in PLANNED):
                rows.append((practice, against, name, *zip(*pairs.values(), strict=True)))
    gains = [[100 * (a["score"] - b["score"]) for a, b in zip(row[3], row[4], strict=True)] for row in rows]
    over = [metrics.over_seeds(gain) for gain in gains]
    corrected = metrics.holm([p_of(gain) for gain in gains])
    lines = [
        "| practice | against | data (score) | seeds | with it | without | gain in points | 95 % | Holm's p | time |",
        "|---|---|---|---:|---:|---:|---:|---|---:|---:|",
    ]
    for (practice, against, name, one, other), gain, p in zip(rows, over, corrected, strict=True):
        mean_one, mean_other = (100 * sum(line["score"] for line in side) / len(side) for side in (one, other))
        timed = all("seconds" in line for line in (*one, *other))
        ratio = sum(line["seconds"] for line in one) / sum(line["seconds"] for line in other) if timed else math.nan
        lines.append(
            f"| {practice} | {against} | {name} ({DATA[name][1]}) | {len(one)} | {mean_one:.1f} | {mean_other:.1f} | "
            f"{gain.mean:+.2f} | {told_interval(gain)} | {'< 0.001' if p < 0.0005 else f'{p:.3f}'} | "
            f"{ratio:.2f} |".replace("nan", "")
        )
    return "\n".join(lines)


def told_interval(gain: Any) -> str:
    """The interval; differences that are all equal have no spread."""
    ends = (gain.mean if math.isnan(end) else end for end in (gain.low, gain.high))
    return " to ".join(f"{end:+.2f}" for end in ends)


def p_of(differences: list[float]) -> float:
    """The two-sided p of Student's paired test. Equal differences have no spread: 1 for zeros, else 0."""
    from scipy import stats

    p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return p if math.isfinite(p) else float(not any(differences))


if __name__ == "__main__":
    main()
