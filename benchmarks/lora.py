"""Compares LoRA with full training: score, memory, speed, and megabytes on the disk.

    python benchmarks/lora.py --task sentiment --data data/sst2 --seeds 0,1,2,3,4
    python benchmarks/lora.py --task ner --data data/wnut17 --seeds 0,1,2,3,4
    python benchmarks/lora.py --task ner --data data/wnut17 --seeds 0,1 --rates 2e-4,5e-4,1e-3,2e-3
    python benchmarks/lora.py --task sentiment --data data/sst2 --seeds 0 --max_train_samples 400

`--data` and the tasks are those of benchmarks/quality.py. For each seed the sides take turns, and every second seed
begins with the other side. Each run is a process of its own, so that its memory is its own. Both sides have the same
rows, epochs and batches. Full training has the rate of the recipe's default. `--rates` gives the rates of LoRA;
each is a side.

A run's memory is the peak of its process on a CPU, or what the GPU had allocated at its peak. The script prints a
line for each run. Then it prints, for each side of LoRA, the differences from full training over the seeds: their
mean, and with three seeds or more the 95 % interval of Student's t for pairs. It keeps all runs in
benchmarks/lora_<data>.json. Those that it has are not made again.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from paired import told_gain
from quality import BATCH, EPOCHS, TASKS, files_of

from finetune import training
from finetune.arguments import DEFAULT_MODEL
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

FULL = "full"
COSTS = ("peak_memory_mb", "train_tokens_per_second", "checkpoint_mb", "weights_to_keep_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model_name_or_path", default=DEFAULT_MODEL)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--lora_r", type=int, default=8)
    parser.add_argument("--lora_alpha", type=int)
    parser.add_argument("--lora_dropout", type=float, default=0.0)
    parser.add_argument("--lora_target_modules")
    parser.add_argument("--rates", default="1e-3", help="comma-separated learning rates of LoRA")
    parser.add_argument("--max_train_samples", type=int)
    parser.add_argument("--max_eval_samples", type=int)
    parser.add_argument("--output_file", type=Path, help="default: benchmarks/lora_<data>.json")
    arguments = parser.parse_args()
    path = arguments.output_file or Path(__file__).parent / f"lora_{arguments.data.name}.json"
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("seeds", "rates", "output_file")
    }
    found = json.loads(path.read_text()) if path.exists() else {"settings": settings, "runs": []}
    if found["settings"] != settings:
        raise SystemExit(f"{path} has runs with other settings ({found['settings']}); give another --output_file")
    sides = [FULL, *(f"LoRA {float(rate):g}" for rate in arguments.rates.split(","))]
    for number, seed in enumerate(map(int, arguments.seeds.split(","))):
        for side in sides if number % 2 == 0 else sides[::-1]:
            if any((run["side"], run["seed"]) == (side, seed) for run in found["runs"]):
                continue
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                found["runs"].append(fresh.apply(run_once, (arguments, side, seed)))
            print(json.dumps(found["runs"][-1]), flush=True)
            path.write_text(json.dumps(found, indent=2) + "\n")
    print(*report(found["runs"], f"test_{TASKS[arguments.task][0]}"), sep="\n")


def run_once(arguments: argparse.Namespace, side: str, seed: int) -> dict[str, Any]:
    """Trains and scores one side with one seed."""
    ner = arguments.task == "ner"
    metric, length, columns = TASKS[arguments.task]
    flags: dict[str, Any] = files_of(arguments.data, arguments.task) | {
        "model_name_or_path": arguments.model_name_or_path,
        "num_train_epochs": arguments.epochs,
        "per_device_train_batch_size": BATCH,
        "seed": seed,
        "max_seq_length": length,
        "max_train_samples": arguments.max_train_samples,
        "max_eval_samples": arguments.max_eval_samples,
        "disable_tqdm": True,
    }
    if side != FULL:
        flags |= {"learning_rate": float(side.split()[1]), "save_adapter": True}
        flags |= {name: value for name, value in vars(arguments).items() if name.startswith("lora_")}
    with tempfile.TemporaryDirectory() as folder:
        flags["output_dir"] = folder
        config = NerConfig(**flags) if ner else SentimentConfig(**flags, **columns)
        results = (finetune_ner if ner else finetune_sentiment)(config).results
        kept = Path(folder) / ("model.safetensors" if side == FULL else "adapter")
        run: dict[str, Any] = {"side": side, "seed": seed, "device": device()}
        run |= {name: results[name] for name in (f"eval_{metric}", f"test_{metric}", "train_runtime", *COSTS[:2])}
        run["trained_parameters"] = results.get("trained_parameters", results["total_parameters"])
        run["checkpoint_mb"] = megabytes(training.checkpoints(Path(folder))[-1])
        run["weights_to_keep_mb"] = megabytes(kept)
    return run


def device() -> str:
    """What computed."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


def megabytes(path: Path) -> float:
    """The size of a file, or of all files of a folder, in units of 10^6 bytes."""
    files = path.rglob("*") if path.is_dir() else [path]
    return round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 2)


def report(runs: list[dict[str, Any]], metric: str) -> list[str]:
    """Lines: the means of each side, and what LoRA has more or less than full training, by seed."""
    sides = {
        side: {run["seed"]: run for run in runs if run["side"] == side} for side in {run["side"]: 0 for run in runs}
    }
    lines = []
    for side, by_seed in sides.items():
        means = {name: statistics.mean(run[name] for run in by_seed.values()) for name in (metric, *COSTS)}
        told = "  ".join(
            f"{name} {value:,.4f}" if value < 1 else f"{name} {value:,.1f}" for name, value in means.items()
        )
        trained = next(iter(by_seed.values()))["trained_parameters"]
        lines.append(f"{side:12s} {len(by_seed)} seeds  {told}  trained_parameters {trained:,}")
    for side in [side for side in sides if side != FULL and FULL in sides]:
        seeds = sorted(sides[side].keys() & sides[FULL].keys())
        differences = [100 * (sides[side][seed][metric] - sides[FULL][seed][metric]) for seed in seeds]
        lines.append(f"{side} - {FULL}, {metric} in points: {told_gain(differences)}  {rounded(differences)}")
        for name in COSTS:
            ratios = [sides[side][seed][name] / sides[FULL][seed][name] for seed in seeds]
            lines.append(f"{side} / {FULL}, {name}: {statistics.geometric_mean(ratios):.3f}  {rounded(ratios)}")
    return lines


def rounded(numbers: list[float]) -> list[float]:
    return [round(number, 3) for number in numbers]


if __name__ == "__main__":
    main()
