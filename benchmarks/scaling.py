"""Measures how the cost grows with the length of the rows, the number of rows, and the number of processes.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --part length

The model is a BERT of 6 layers x 384 with random weights, and batches have 2,048 tokens. For the number of rows it is
only 2 layers x 128, so that the cost of the data shows. Writes benchmarks/results.json and the tables of
benchmarks/README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from random_checkpoint import build
from sides import recipe_steps, speed_of, tutorial_steps
from speed import HERE, OURS, SMALL, others_load, plan_of, spread, write
from transformers import BertConfig, BertForTokenClassification, DataCollatorForTokenClassification

from finetune import data, models
from finetune.arguments import DEFAULT_MODEL, DataArguments
from finetune.training import peak_memory_mb

ROOT = HERE.parent
TOKENS = 2048
TINY = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}


def length(repetitions: int) -> dict[str, Any]:
    """Tokens per second of training, for rows of equal length: our loop, and the stock example in float32."""
    collator = DataCollatorForTokenClassification(models.load_tokenizer(DEFAULT_MODEL))
    found = {}
    for tokens in (32, 64, 128, 256, 512):
        generator = np.random.default_rng(0)
        ids = generator.integers(1000, 30_000, 64 * TOKENS)
        rows = data.Rows(np.arange(0, len(ids) + 1, tokens), {"input_ids": ids, "labels": ids % 2})
        batches = data.TrainBatches(rows, 0, TOKENS // tokens)
        listed = [{key: values[i : i + tokens] for key, values in rows.tokens.items()} for i in rows.offsets[:-1]]
        encoded = datasets.Dataset.from_list([row | {"attention_mask": np.ones(tokens, np.int64)} for row in listed])
        torch.manual_seed(0)
        stock = tutorial_steps(a_model(SMALL), encoded, collator, plan_of(batches), precision="no")
        ours = recipe_steps(models.run_without_padding(a_model(SMALL)), batches, precision=OURS)
        speed_of(stock, 1), speed_of(ours, 1)
        runs = [(speed_of(stock, 2), speed_of(ours, 2)) for _ in range(repetitions)]
        found[str(tokens)] = {
            "stock": spread([run[0] for run in runs]),
            "finetune": spread([run[1] for run in runs]),
            "ratio": spread([run[1] / run[0] for run in runs]),
        }
    return found


def rows(repetitions: int) -> dict[str, Any]:
    """Words per second from files to rows, seconds to the first step, tokens per second of training, and memory."""
    samples = data.read_tagged(DataArguments(dataset_name="samples"))["train"]
    pairs = [pair for row in samples for pair in zip(row["tokens"], row["ner_tags"], strict=True)]
    labels, tokenizer = data.entity_labels(samples), models.load_tokenizer(DEFAULT_MODEL)
    found = {}
    for count in (1_000, 10_000, 100_000):
        generator = np.random.default_rng(0)
        lengths = generator.integers(5, 40, count)
        drawn = iter(generator.integers(0, len(pairs), lengths.sum()).tolist())
        chosen = [[pairs[next(drawn)] for _ in range(n)] for n in lengths]
        columns = {
            "tokens": [[w for w, _ in row] for row in chosen],
            "ner_tags": [[t for _, t in row] for row in chosen],
        }
        split = datasets.Dataset.from_dict(columns)
        runs = []
        for _ in range(repetitions):
            began = time.perf_counter()
            aligned = data.align(split, tokenizer, labels, max_seq_length=128)
            prepared = time.perf_counter()
            batches = data.TrainBatches(aligned.rows, 0, 32)
            steps = recipe_steps(models.run_without_padding(a_model(TINY)), batches, precision=OURS)
            next(steps)
            first = time.perf_counter()
            runs.append((int(lengths.sum()) / (prepared - began), first - prepared, speed_of(steps, 25)))
        names = ("words/s to rows", "seconds to the first step", "tokens/s in training")
        found[str(count)] = {
            name: spread(list(values)) for name, values in zip(names, zip(*runs, strict=True), strict=True)
        }
        found[str(count)]["peak MB so far"] = round(peak_memory_mb(torch.device("cpu")))
    return found


def processes(repetitions: int) -> dict[str, Any]:
    """Tokens per second of `recipes/ner.py` on the samples: one process with 1 or 2 threads, two with one each."""
    found: dict[str, list[float]] = {}
    samples = data.read_tagged(DataArguments(dataset_name="samples"))["train"]
    with tempfile.TemporaryDirectory() as folder:
        texts = [" ".join(words) for words in samples["tokens"]]
        build("wordpiece", texts, Path(folder) / "model", vocab_size=4000, hidden_size=384, layers=6, positions=512)
        for _ in range(repetitions):
            for count, threads in ((1, 1), (1, 2), (2, 1)):
                output = Path(folder) / "run"
                command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
                command += ["recipes/ner.py", "--dataset_name=samples", f"--model_name_or_path={folder}/model"]
                command += [f"--per_device_train_batch_size={32 // count}", "--max_steps=12", "--eval_strategy=no"]
                command += ["--save_strategy=no", f"--output_dir={output}", "--overwrite_output_dir=true"]
                environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
                subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
                results = json.loads((output / "all_results.json").read_text())
                name = f"{count} process{'es' if count > 1 else ''}, {threads} thread{'s' if threads > 1 else ''}"
                found.setdefault(name, []).append(results["train_tokens_per_second"])
    return {name: spread(values) for name, values in found.items()}


def a_model(shape: dict[str, int]) -> BertForTokenClassification:
    return BertForTokenClassification(BertConfig(num_labels=9, **shape))


PARTS = {"length": length, "rows": rows, "processes": processes}


def write_tables() -> None:
    """Writes the tables of results.json between their marks in README.md."""
    results = json.loads((HERE / "results.json").read_text()).get("scaling", {})
    readme = HERE / "README.md"
    for part in PARTS:
        if part not in results:
            continue
        found = {key: value for key, value in results[part].items() if key not in ("machine", "threads", "load")}
        if part == "processes":
            lines = ["| | tokens/s (range) |", "|---|---:|"]
            lines += [f"| {name} | {shown(values)} |" for name, values in found.items()]
        else:
            columns = list(next(iter(found.values())))
            lines = [f"| {part} | {' | '.join(columns)} |", f"|---:|{'---:|' * len(columns)}"]
            lines += [
                f"| {int(key):,} | {' | '.join(shown(values[column]) for column in columns)} |"
                for key, values in found.items()
            ]
        before, _, rest = readme.read_text().partition(f"<!-- {part} -->")
        _, _, after = rest.partition("<!-- end -->")
        readme.write_text(f"{before}<!-- {part} -->\n" + "\n".join(lines) + f"\n<!-- end -->{after}")


def shown(value: Any) -> str:
    if not isinstance(value, list):
        return f"{value:,}"
    form = ",.0f" if value[0] >= 100 else ".2f"
    return f"{value[0]:{form}} ({value[1]:{form}} to {value[2]:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="may be given more than once [all]")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    for part in arguments.part or PARTS:
        # A process for each part, so that one part's memory and threads are not the next one's.
        if arguments.part is None or len(arguments.part) > 1:
            again = [sys.executable, __file__, "--part", part, "--repetitions", str(arguments.repetitions)]
            subprocess.run(again, check=True)
            continue
        load = others_load()
        if load > 0.2:
            torch.set_num_threads(1)
        found = PARTS[part](arguments.repetitions)
        print(json.dumps({part: found}), flush=True)
        write("scaling", part, found | {"threads": torch.get_num_threads(), "load": round(load, 2)})
    write_tables()


if __name__ == "__main__":
    main()
