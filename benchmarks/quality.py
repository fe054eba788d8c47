"""Compares the scores of the recipes and of the stock way, with the same checkpoint, epochs, batch and seeds.

    python benchmarks/quality.py --task ner --data data/wnut17 --seeds 0,1,2
    python benchmarks/quality.py --task sentiment --data data/sst2 --seeds 0,1,2
    python benchmarks/quality.py --task several --data data/goemotions --seeds 0,1,2 --max_train_samples 8000
    python benchmarks/quality.py --task number --data data/sick --seeds 0,1,2
    python benchmarks/quality.py --task pairs --data data/mrpc_with_dev --seeds 0,1,2
    ACCELERATE_MIXED_PRECISION=bf16 python benchmarks/quality.py --task ner --data data/wnut17 --sides finetune

`--data` is a folder with the files train, dev and test, as in recipes/README.md. The forms are: .conll (ner); .tsv
without a header, with text and label (sentiment), or with text, comma-separated labels and an id (several); .tsv of
SICK (number); .tsv of MRPC (pairs). MRPC has no dev split; benchmarks/README.md says how to make one from train.

The sides are: `finetune`, the recipe with its defaults; `padded`, the recipe that also computes padding and trains
the whole vocabulary (`--padding_free false --compact_vocabulary false`); `stock`, `transformers.Trainer`. `--sides`
chooses some of them. For several labels, the recipe tunes its threshold on dev. The stock way has the threshold 0.5;
scores with `_tuned` have the threshold that is best on dev. Each run is a separate process. The script prints a line
for each run and the means, and keeps all runs in benchmarks/quality_<task>.json.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from sklearn.metrics import f1_score
from stock import stock_run

from finetune.tasks import classification
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

EPOCHS, BATCH, RATE = 3, 16, 5e-5
# The measure that is told, the subwords of a row, and the flags that say what is in the files.
TASKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ner": ("f1", 128, {}),
    "sentiment": ("accuracy", 128, {"column_names": "text,label"}),
    "several": ("f1_micro", 64, {"column_names": "text,label,id", "label_separator": ","}),
    "number": (
        "pearson",
        64,
        {
            "text_column_name": "sentence_A",
            "text_pair_column_name": "sentence_B",
            "label_column_name": "relatedness_score",
            "problem_type": "regression",
        },
    ),
    "pairs": (
        "accuracy",
        128,
        {"text_column_name": "#1 String", "text_pair_column_name": "#2 String", "label_column_name": "Quality"},
    ),
}
KEPT = (
    *("train_runtime", "test_words_scored", "test_f1_macro", "test_spearman", "test_mse", "test_f1"),
    *("test_f1_micro_tuned", "test_f1_macro_tuned"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sides", default="finetune,padded,stock")
    parser.add_argument("--learning_rate", type=float, default=RATE)
    parser.add_argument("--max_train_samples", type=int)
    arguments = parser.parse_args()
    metric = TASKS[arguments.task][0]
    path = Path(__file__).parent / f"quality_{arguments.task}.json"
    for seed in map(int, arguments.seeds.split(",")):
        for side in arguments.sides.split(","):
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                results = fresh.apply(run, (arguments, side, seed))
            precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            name = side if precision == "no" else f"{side} {precision}"
            kept = (f"test_{metric}", *KEPT)
            one = {"side": name, "seed": seed} | {key: results[key] for key in kept if key in results}
            print(json.dumps(one), flush=True)
            report(path, arguments, metric, one)


def run(arguments: argparse.Namespace, side: str, seed: int) -> dict[str, float]:
    """Trains and scores one side with one seed."""
    ner = arguments.task == "ner"
    _, length, columns = TASKS[arguments.task]
    shared = {
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": BATCH,
        "learning_rate": arguments.learning_rate,
        "warmup_steps": 0,  # as on the stock side
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        common = shared | {"output_dir": folder, "max_seq_length": length, "disable_tqdm": True}
        common |= files_of(arguments.data, arguments.task)
        common["max_train_samples"] = arguments.max_train_samples
        config = NerConfig(**common) if ner else SentimentConfig(**common, **columns)
        if side != "stock":
            if side == "padded":
                config.padding_free = config.compact_vocabulary = False
            results = dict((finetune_ner if ner else finetune_sentiment)(config).results)
            if arguments.task == "pairs":  # the F1 that is usual for MRPC: of the pairs that say the same
                _, right, said, _ = classification.reread(Path(folder), "test")
                results["test_f1"] = float(f1_score(right, said, pos_label="1"))
            return results
    return stock_run(config, words=ner)


def files_of(folder: Path, task: str) -> dict[str, str]:
    """The flags that name the files of a folder with train, dev and test."""
    ending = "conll" if task == "ner" else "tsv"
    stems = {"train": "train", "validation": "dev", "test": "test"}
    return {f"{split}_file": str(folder / f"{stem}.{ending}") for split, stem in stems.items()}


def report(path: Path, arguments: argparse.Namespace, metric: str, run: dict) -> None:
    """Adds a run to the file, and prints the means over the seeds."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [old for old in runs if (old["side"], old["seed"]) != (run["side"], run["seed"])] + [run]
    summary: dict = {"task": arguments.task, "data": arguments.data.name, "learning_rate": arguments.learning_rate}
    if arguments.max_train_samples:
        summary["max_train_samples"] = arguments.max_train_samples
    for side in dict.fromkeys(old["side"] for old in runs):
        scores = [old[f"test_{metric}"] for old in sorted(runs, key=lambda old: old["seed"]) if old["side"] == side]
        if scores:
            spread = statistics.stdev(scores) if len(scores) > 1 else None  # one run has none
            summary[side] = {"mean": statistics.mean(scores), "stdev": spread, "min": min(scores), "max": max(scores)}
            told = "" if spread is None else f"  stdev {spread:.4f}"
            print(f"{side:10s} test_{metric}: mean {statistics.mean(scores):.4f}{told}  {scores}", flush=True)
    path.write_text(json.dumps(summary | {"runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
