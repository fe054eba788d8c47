"""How many runs learn nothing, over many seeds: without warm-up and restarts ("before"), and with both ("after").

    python benchmarks/lost_runs.py --data data/masakhaner/pcm --checkpoint CHECKPOINT

`--data` is a folder with the column files train.*, dev.* and test.*. Both sides have the same rate, epochs and rows.
A run that has found entities of the development split by the end of epoch 2 is not lost, and is stopped there. Any
other run goes on to its end. Prints a row of Markdown for each seed: F1 on the development split where each run
stopped (with the epoch, if it is not 2), and how often it began again. A run whose row is in RUNS/lost_runs.json is
not run again.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parents[1] / "recipes/ner.py"
SIDES = {"before": ["--warmup_steps", "0", "--on_collapse", "ignore"], "after": []}
ENOUGH = 2  # epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--runs", default=Path("runs/lost_runs"), type=Path)
    parser.add_argument("--learning_rate", default="2e-4")
    parser.add_argument("--epochs", default="6")
    parser.add_argument("--max_train_samples", default="1500", help="the first ones")
    parser.add_argument("--seeds", default="0,1,2,3,4,5,6,7,8,9")
    arguments = parser.parse_args()
    flags = [
        *("--model_name_or_path", arguments.checkpoint, "--learning_rate", arguments.learning_rate),
        *("--num_train_epochs", arguments.epochs, "--max_train_samples", arguments.max_train_samples),
        *("--per_device_train_batch_size", "16", "--disable_tqdm", "true"),
    ]
    for split, stem in (("train", "train"), ("validation", "dev"), ("test", "test")):
        flags += [f"--{split}_file", str(next(arguments.data.glob(f"{stem}.*")))]
    arguments.runs.mkdir(parents=True, exist_ok=True)
    file = arguments.runs / "lost_runs.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    seeds = arguments.seeds.split(",")
    for seed in seeds:
        for side, own in SIDES.items():
            if f"{side} {seed}" not in found:
                folder = str(arguments.runs / side / f"seed-{seed}")
                found[f"{side} {seed}"] = run([*flags, *own, "--seed", seed, "--output_dir", folder])
                print(side, seed, found[f"{side} {seed}"], flush=True)
                file.write_text(json.dumps(found, indent=2) + "\n")
    print("| seed | F1 before | F1 after | begun again |\n|---:|---:|---:|---:|")
    for seed in seeds:
        before, after = (found[f"{side} {seed}"] for side in SIDES)
        told = [f"{one['f1']:.4f}" + f" (epoch {one['epoch']})" * (one["epoch"] != ENOUGH) for one in (before, after)]
        print(f"| {seed} | {' | '.join(told)} | {after['restarts']} |")


def run(flags: list[str]) -> dict[str, Any]:
    """Trains until it is clear whether the run is lost. Returns the last F1, its epoch, and what collapsed."""
    last: dict[str, Any] = {"f1": 0.0, "epoch": 0, "restarts": 0, "collapses": 0}
    command = [sys.executable, str(RECIPE), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last["collapses"] += "the run has collapsed" in line
            last["restarts"] += "It begins again" in line
            if told := re.match(r"epoch (\d+)  f1 ([\d.]+)", line):
                last |= {"epoch": int(told[1]), "f1": float(told[2])}
                if last["epoch"] >= ENOUGH and last["f1"] > 0:
                    process.send_signal(signal.SIGTERM)
    if process.returncode not in (0, 128 + signal.SIGTERM):
        raise SystemExit(f"{' '.join(command)}: ended with status {process.returncode}")
    return last


if __name__ == "__main__":
    main()
