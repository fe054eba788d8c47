"""How often the test for collapsed runs is right: many tiny runs that are slow, healthy or truly collapse.

    python benchmarks/collapse.py --output_dir runs/collapse     # 24 runs of 240 steps, a few minutes on one core

Each run trains a tiny BERT with random weights, or an LSTM, on a part of the samples, with `--on_collapse ignore`. So
it goes on, and its end shows whether the alarm was right. Prints a table of Markdown, a row for each kind of run.

| kind | what it is | an alarm is |
|---|---|---|
| slow | a rate that is much too low | false |
| healthy | a rate with which this model learns | false |
| absurd | a rate with which no model learns | right |
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from random_checkpoint import build

from finetune import data
from finetune.arguments import DataArguments
from recipes.ner import NerConfig, finetune_ner

SCHEDULES = ("linear", "cosine", "constant")


def runs(bert: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The kind of each run, and its flags."""
    for schedule, warmup in product(SCHEDULES, (0.0, 0.5)):
        yield "slow", flags(bert, 5e-5, schedule, warmup)
    for (model, rate), schedule in product(((bert, 0.03), (bert, 3.0), ("lstm", 1.0)), ("linear", "constant")):
        yield "absurd", flags(model, rate, schedule)
    for (model, rate), schedule in product(((bert, 1e-3), ("lstm", 1e-2)), SCHEDULES):
        yield "healthy", flags(model, rate, schedule)
    for schedule, warmup in product(SCHEDULES, (0.0, 0.5)):
        yield "slow", flags(bert, 5e-6, schedule, warmup)


def flags(model: str, rate: float, schedule: str, warmup: float = 0.0) -> dict[str, Any]:
    """The flags of a run that differ from those of the others."""
    schedule = "constant_with_warmup" if schedule == "constant" and warmup else schedule
    return {
        "model_name_or_path": model,
        "learning_rate": rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": warmup,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--output_dir", type=Path, default=None, help="a new folder [a temporary one]")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(argv)
    folder = chosen.output_dir or Path(tempfile.mkdtemp())
    words = data.read_tagged(DataArguments(dataset_name="samples"))["train"]["tokens"]
    bert = folder / "bert"
    build("wordpiece", [" ".join(row) for row in words], bert, vocab_size=500, hidden_size=32, layers=2, positions=64)
    print("| kind | model | rate | schedule | warm-up | alarm at step | F1 | loss in the end |")
    print("|---|---|---:|---|---:|---:|---:|---:|", flush=True)
    for number, (kind, own) in enumerate(runs(str(bert))):
        result = finetune_ner(
            NerConfig(
                **own,
                dataset_name="samples",
                output_dir=str(folder / str(number)),
                max_seq_length=32,
                max_train_samples=150,
                max_eval_samples=60,
                max_steps=240,
                per_device_train_batch_size=4,
                hidden_size=50 if own["model_name_or_path"] == "lstm" else 200,
                eval_strategy="steps",
                eval_steps=40,
                save_strategy="no",
                load_best_model_at_end=False,
                on_collapse="ignore",
                disable_tqdm=True,
                seed=chosen.seed,
            )
        ).results
        model = Path(own["model_name_or_path"]).name
        told = (kind, model, f"{own['learning_rate']:g}", own["lr_scheduler_type"], f"{own['warmup_steps']:g}")
        ends = (result.get("collapse_1_step", "none"), f"{result['eval_f1']:.3f}", f"{result['eval_loss']:.2f}")
        print(f"| {' | '.join(map(str, (*told, *ends)))} |", flush=True)


if __name__ == "__main__":
    main()
