"""Compares how OpenMP threads may wait: on free cores, and beside a process that keeps one core busy.

    python benchmarks/threads.py                             # a quarter of an hour
    python benchmarks/threads.py --model bilstm --rounds 3 --seconds 2

OpenMP reads its settings once, when torch is loaded. So each policy has its own process. The processes take turns. In
each round, a process runs some steps on free cores, and some steps beside a program that computes on core 0. A result
is the median of tokens per second (without padding) over the rounds, with its range.

The models are those of `recipes/ner.py` with its defaults, on the samples.

Prints the table.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
OURS = "as the recipes set it"
# torch's wheels for Linux carry GNU's OpenMP (libgomp), which does not know KMP_BLOCKTIME.
POLICIES: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SET = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "KMP_BLOCKTIME")
FREE = 0.2  # cores that others may keep busy in a share that counts as free
BUSY = "import os\nos.sched_setaffinity(0, {0})\nwhile True: pass"


def work(name: str) -> None:
    """A worker. For each line of standard input (seconds), it takes steps and prints its tokens per second."""
    import torch
    from sides import recipe_steps

    from finetune import data, models
    from recipes.ner import NerConfig

    torch.manual_seed(0)
    config = NerConfig(dataset_name="samples", **({"model_name_or_path": "bilstm"} if name == "bilstm" else {}))
    split = data.read_tagged(config)["train"]
    labels = data.entity_labels(split)
    words = (word for sentence in split["tokens"] for word in sentence)
    model, tokenizer = models.load("token-classification", config, labels, words=words, max_seq_length=128)
    rows = data.align(split, tokenizer, labels, max_seq_length=128).rows
    models.compact_vocabulary(model, tokenizer, [rows.tokens["input_ids"]])
    batches = data.TrainBatches(rows, tokenizer.pad_token_id, config.per_device_train_batch_size)
    steps = recipe_steps(model, batches, precision="no")
    next(steps)
    print("ready", torch.get_num_threads(), flush=True)
    for line in sys.stdin:
        tokens, began = 0, time.perf_counter()
        while time.perf_counter() - began < float(line):
            tokens += next(steps)
        print(tokens / (time.perf_counter() - began), flush=True)


def measure(name: str, rounds: int, seconds: float, tries: int) -> dict[str, dict[str, list[float]]]:
    """Tokens per second of each policy: on free cores, and beside a process that computes on core 0."""
    clean = {key: value for key, value in os.environ.items() if key not in SET}
    command = [sys.executable, __file__, "--worker", name]
    workers = {}
    for policy, settings in POLICIES.items():
        workers[policy] = subprocess.Popen(
            command, env=clean | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        workers[policy].stdout.readline()
    found: dict[str, dict[str, list[float]]] = {policy: {"free": [], "busy": []} for policy in POLICIES}
    for _ in range(rounds):
        for policy, worker in workers.items():
            for _ in range(tries):
                if used_by_others(0.2) < FREE:
                    speed, others = share(worker, seconds)
                    if others < FREE:
                        found[policy]["free"].append(speed)
                        break
        busy = subprocess.Popen([sys.executable, "-c", BUSY])
        try:
            for policy, worker in workers.items():
                found[policy]["busy"].append(share(worker, seconds)[0])
        finally:
            busy.kill()
            busy.wait()
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return found


def used_by_others(seconds: float) -> float:
    """The number of cores that are in use while this program sleeps."""
    return psutil.cpu_percent(seconds) / 100 * (psutil.cpu_count() or 1)


def share(worker: subprocess.Popen[str], seconds: float) -> tuple[float, float]:
    """Tokens per second of some steps of the worker, and the number of cores that other processes used meanwhile."""
    process = psutil.Process(worker.pid)
    before, own, began = psutil.cpu_times(), process.cpu_times(), time.perf_counter()
    worker.stdin.write(f"{seconds}\n")
    worker.stdin.flush()
    speed = float(worker.stdout.readline())
    after, mine, took = psutil.cpu_times(), process.cpu_times(), time.perf_counter() - began
    used = sum(getattr(after, name) - getattr(before, name) for name in ("user", "system", "nice", "steal"))
    return speed, max(used - (mine.user + mine.system - own.user - own.system), 0.0) / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["bilstm", "minilm"], action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--tries", type=int, default=150, help="How often to look for a moment of free cores.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker)
    print("| model | threads | tokens/s, cores free | beside a busy process | times the default, free | busy |")
    print("|---|---|---:|---:|---:|---:|")
    for name in arguments.model or ["bilstm", "minilm"]:
        found = measure(name, arguments.rounds, arguments.seconds, arguments.tries)
        plain = {side: statistics.median(values) for side, values in next(iter(found.values())).items() if values}
        for policy, sides in found.items():
            cells, ratios = [], []
            for side, values in sides.items():
                if not values:
                    cells, ratios = [*cells, "never free"], [*ratios, ""]
                    continue
                middle = statistics.median(values)
                cells.append(f"{middle:,.0f} ({min(values):,.0f} to {max(values):,.0f}; {len(values)})")
                ratios.append(f"{middle / plain[side]:.2f}" if side in plain else "")
            print(f"| {name} | {policy} | {' | '.join(cells)} | {' | '.join(ratios)} |", flush=True)
    return None


if __name__ == "__main__":
    main()
