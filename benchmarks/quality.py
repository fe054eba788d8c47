"""Do the recipes score what the stock way scores? Both sides, same checkpoint, epochs, batch and seeds.

    python benchmarks/quality.py --task ner --data data/wnut17 --seeds 0,1,2
    python benchmarks/quality.py --task sentiment --data data/sst2 --seeds 0,1,2
    ACCELERATE_MIXED_PRECISION=bf16 python benchmarks/quality.py --task ner --data data/wnut17 --sides finetune

`--data` is a folder with train, dev and test as .conll (ner) or headerless .tsv of text and label (sentiment). Sides:
`finetune`, the recipe with its defaults; `padded`, the recipe with every layer on padding and the whole vocabulary
(`--padding_free false --compact_vocabulary false`); `stock`, `transformers.Trainer`. Prints a line a run and the
means, and keeps the runs so far in benchmarks/quality_<task>.json; `--sides` runs some only.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from stock import stock_ner, stock_sentiment

from finetune import data, models
from finetune.arguments import DEFAULT_MODEL
from finetune.models.pretrained import resolve
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

EPOCHS, BATCH, RATE, LENGTH = 3, 16, 5e-5, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["ner", "sentiment"], required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sides", default="finetune,padded,stock")
    parser.add_argument("--learning_rate", type=float, default=RATE)
    arguments = parser.parse_args()
    ner = arguments.task == "ner"
    metric = "f1" if ner else "accuracy"
    ending = "conll" if ner else "tsv"
    files = {
        f"{split}_file": str(arguments.data / f"{name}.{ending}")
        for split, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
    }
    path = Path(__file__).parent / f"quality_{arguments.task}.json"
    for seed in map(int, arguments.seeds.split(",")):
        for side in arguments.sides.split(","):
            shared = {
                "num_train_epochs": EPOCHS,
                "per_device_train_batch_size": BATCH,
                "learning_rate": arguments.learning_rate,
                "seed": seed,
            }
            with tempfile.TemporaryDirectory() as folder:
                common = shared | files | {"output_dir": folder, "max_seq_length": LENGTH, "disable_tqdm": True}
                config = NerConfig(**common) if ner else SentimentConfig(**common, column_names="text,label")
                if side != "stock":
                    if side == "padded":
                        config.padding_free = config.compact_vocabulary = False
                    results = (finetune_ner if ner else finetune_sentiment)(config).results
                else:
                    splits = data.read_tagged(config) if ner else data.read_labelled(config)
                    labels = (data.entity_labels if ner else data.class_labels)(splits["train"])
                    tokenizer = models.load_tokenizer(DEFAULT_MODEL, for_words=ner)
                    results = (stock_ner if ner else stock_sentiment)(
                        splits, labels, resolve(DEFAULT_MODEL), tokenizer, max_length=LENGTH, **shared
                    )
            kept = ("train_runtime", f"test_{metric}", "test_words_scored", "test_f1_macro")
            precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            name = side if precision == "no" else f"{side} {precision}"
            run = {"side": name, "seed": seed} | {key: results[key] for key in kept if key in results}
            print(json.dumps(run), flush=True)
            report(path, arguments, metric, run)


def report(path: Path, arguments: argparse.Namespace, metric: str, run: dict) -> None:
    """Adds a run to the file, and prints the means over the seeds."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [old for old in runs if (old["side"], old["seed"]) != (run["side"], run["seed"])] + [run]
    summary: dict = {"task": arguments.task, "data": arguments.data.name, "learning_rate": arguments.learning_rate}
    for side in dict.fromkeys(old["side"] for old in runs):
        scores = [old[f"test_{metric}"] for old in sorted(runs, key=lambda old: old["seed"]) if old["side"] == side]
        if scores:
            spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
            summary[side] = {"mean": statistics.mean(scores), "stdev": spread, "min": min(scores), "max": max(scores)}
            print(
                f"{side:10s} test_{metric}: mean {statistics.mean(scores):.4f}  stdev {spread:.4f}  {scores}",
                flush=True,
            )
    path.write_text(json.dumps(summary | {"runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
