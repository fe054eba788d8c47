"""What a student gains from a teacher: the same student with and without it over seeds, and words a second of each.

    python benchmarks/distil.py --config sentiment/sst2_recurrent --teacher_config sentiment/sst2 \\
        --runs runs/distil_sst2
    python benchmarks/distil.py --config ner/wnut17_recurrent --teacher_config ner/wnut17 --runs runs/distil_wnut17 \\
        --variant 'soft=--distil_alpha 0' --variant 'more=--distil_alpha 0 --unlabeled_file more.txt'

Both configs are configs of the recipes, of the same task; give the command in the folder that holds their data/. The
runs are: `teacher`; for each seed `alone-SEED`, the
student by the recipe of the task; and for each variant `NAME-SEED`, the student by recipes/distil.py with the flags
of the variant. Without `--variant` there is one, `distilled`, with the defaults. `--flags` are for all students. Each
run is a process. A run that has an all_results.json already is not repeated, so the command may be stopped and given
again, also with more seeds and variants. The teacher's outputs are computed once.

It prints a table: test scores, their paired differences to the student alone (mean and 95 % interval by Student's t),
and the words a second that each model labels on one thread (processor time, the models take turns). The numbers are
also written to RUNS/distil.json.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from paired import told_gain

import finetune
from finetune import data
from finetune.tasks import classification

ROOT = Path(__file__).parents[1]
SCORE = {"sentiment": "accuracy", "ner": "f1"}


def trained(recipe: str, folder: Path, flags: list[str]) -> dict:
    """The results of a run, which is made if it is not there."""
    if not (folder / "all_results.json").is_file():
        command = [sys.executable, str(ROOT / f"recipes/{recipe}.py"), *flags, "--output_dir", str(folder)]
        began = time.perf_counter()
        done = subprocess.run([*command, "--overwrite_output_dir", "--disable_tqdm", "true"], check=False)
        if done.returncode:
            raise SystemExit(f"{folder}: the run ended with status {done.returncode}")
        print(f"{folder}: {time.perf_counter() - began:.0f} s", flush=True)
    return json.loads((folder / "all_results.json").read_text())


def samples_of(folder: Path, task: str, most: int) -> tuple[list, int]:
    """The samples of the test split of a run, and the number of their words."""
    if task == "ner":
        found = data.read_conll(folder / "predictions_test.conll", tag_column=1, written_here=True).words[:most]
        return found, sum(map(len, found))
    found = [" ".join(words) for words in classification.reread(folder, "test")[0][:most]]
    return found, sum(len(data.split_words(text)) for text in found)


def words_a_second(folders: dict[str, Path], task: str, most: int, rounds: int) -> dict[str, float]:
    """For each model; the models take turns."""
    samples, words = samples_of(folders["teacher"], task, most)
    label: dict[str, Callable] = {name: finetune.load_predictor(folder) for name, folder in folders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in folders}
    for _ in range(rounds):
        for name, own in label.items():
            began = time.process_time()
            own(samples)
            seconds[name].append(time.process_time() - began)
    return {name: words / statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="of the student, such as sentiment/sst2_recurrent")
    parser.add_argument("--teacher_config", required=True)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of all runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variant", action="append", help="NAME=FLAGS of recipes/distil.py")
    parser.add_argument("--flags", default="", help="flags of all students, such as '--num_train_epochs 10'")
    parser.add_argument("--teacher_flags", default="")
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of the speed")
    parser.add_argument("--samples", type=int, default=500, help="test samples for the measurement of the speed")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    recipe = arguments.config.partition("/")[0]
    if recipe not in SCORE or arguments.teacher_config.partition("/")[0] != recipe:
        raise SystemExit(f"--config, --teacher_config: two configs of one task are needed, {' or '.join(SCORE)}")
    variants = dict(own.split("=", 1) for own in arguments.variant or ["distilled="])
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    teacher = arguments.runs / "teacher"
    results = {
        "teacher": [
            trained(recipe, teacher, ["--config", arguments.teacher_config, *shlex.split(arguments.teacher_flags)])
        ]
    }
    for seed in seeds:
        own = ["--config", arguments.config, "--seed", str(seed), *shlex.split(arguments.flags)]
        results.setdefault("alone", []).append(trained(recipe, arguments.runs / f"alone-{seed}", own))
        for name, flags in variants.items():
            learned = [*own, "--teacher", str(teacher), *shlex.split(flags)]
            results.setdefault(name, []).append(trained("distil", arguments.runs / f"{name}-{seed}", learned))

    first = {name: arguments.runs / f"{name}-{seeds[0]}" for name in ("alone", *variants)}
    rates = words_a_second({"teacher": teacher, **first}, recipe, arguments.samples, arguments.rounds)
    score = f"test_{SCORE[recipe]}"
    told = {}
    print(f"\n| model | {score} | stdev | against the student alone | parameters | words a second |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, runs in results.items():
        scores = [run[score] for run in runs]
        alone = [run[score] for run in results["alone"]]
        gain = told_gain([100 * (a - b) for a, b in zip(scores, alone, strict=True)]) if name in variants else ""
        spread = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        parameters = runs[0]["total_parameters"]
        cells = (name, f"{statistics.mean(scores):.4f}", spread, gain, f"{parameters:,}", f"{rates[name]:,.0f}")
        print(f"| {' | '.join(cells)} |", flush=True)
        told[name] = {"scores": scores, "parameters": parameters, "words_a_second": round(rates[name])}
        told[name] |= {"train_runtime": [run["train_runtime"] for run in runs], "flags": variants.get(name, "")}
    (arguments.runs / "distil.json").write_text(json.dumps({"seeds": seeds, "score": score} | told, indent=1) + "\n")


if __name__ == "__main__":
    main()
