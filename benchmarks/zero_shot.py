"""Trains on each language and tests on all, with a multilingual checkpoint and with a BiLSTM.

python benchmarks/zero_shot.py --data data/masakhaner --checkpoint CHECKPOINT

Each folder in --data is a language, with the column files train.*, dev.* and test.*. A finished run is not run again.
Writes zero_shot.json beside this file, and prints a table: the mean and the standard deviation over the seeds.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import finetune
from finetune import data, metrics
from recipes.compare import CompareConfig, compare
from recipes.ner import NerConfig

SETTINGS = {
    "xlmr": {"num_train_epochs": 6, "learning_rate": 2e-4, "per_device_train_batch_size": 16},
    "bilstm": {"num_train_epochs": 15, "learning_rate": 2e-3, "per_device_train_batch_size": 32},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--output_dir", default=Path("runs/zero_shot"), type=Path)
    parser.add_argument("--max_train_samples", type=int, default=1500, help="of each language, the first ones")
    parser.add_argument("--seeds", default="0,1")
    arguments = parser.parse_args()
    languages = sorted(path.name for path in arguments.data.iterdir() if path.is_dir())
    files = {
        language: {name: next((arguments.data / language).glob(f"{name}.*")) for name in ("train", "dev", "test")}
        for language in languages
    }
    seeds = tuple(map(int, arguments.seeds.split(",")))
    table: dict[str, dict[str, dict[str, list[float]]]] = {}
    for language, own in files.items():
        shared = {
            "train_file": str(own["train"]),
            "validation_file": str(own["dev"]),
            "test_file": str(own["test"]),
            "max_train_samples": arguments.max_train_samples,
            "disable_tqdm": True,
        }
        models = {
            name: NerConfig(
                model_name_or_path=arguments.checkpoint if name == "xlmr" else name, **shared, **SETTINGS[name]
            )
            for name in SETTINGS
        }
        compare(CompareConfig(models, seeds, str(arguments.output_dir / language)))
        for name in SETTINGS:
            folders = [arguments.output_dir / language / name / f"seed-{seed}" for seed in seeds]
            scores = {other: [f1_on(folder, files[other]["test"]) for folder in folders] for other in languages}
            table.setdefault(name, {})[language] = scores
            print(language, name, scores, flush=True)
    path = Path(__file__).parent / "zero_shot.json"
    path.write_text(
        json.dumps({"settings": SETTINGS, "max_train_samples": arguments.max_train_samples, **table}, indent=1) + "\n"
    )
    for name, rows in table.items():
        print(f"\n| {name}, trained on | {' | '.join(languages)} |\n|---|{'---:|' * len(languages)}")
        for language, scores in rows.items():
            print(f"| {language} | {' | '.join(spread(scores[other]) for other in languages)} |")


def spread(scores: list[float]) -> str:
    return f"{np.mean(scores):.3f}" + (f" ± {np.std(scores, ddof=1):.3f}" if len(scores) > 1 else "")


def f1_on(folder: Path, test: Path) -> float:
    """Entity F1 of the model in `folder` on the sentences of `test`."""
    gold = data.read_conll(test)
    said = [answer["predicted"] for answer in finetune.predict(folder, gold.words)]
    labels = sorted({tag for tags in (*gold.tags, *said) for tag in tags})
    index = {label: i for i, label in enumerate(labels)}
    offsets = np.cumsum([0, *map(len, gold.tags)])
    ids = [np.array([index[tag] for tags in side for tag in tags]) for side in (gold.tags, said)]
    return metrics.entity_scores(*ids, offsets, labels)["f1"]


if __name__ == "__main__":
    main()
