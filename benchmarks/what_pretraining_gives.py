"""Shows what pretraining gives: compares a pretrained model, fine-tuned for entities, with one of random weights.

    ACCELERATE_MIXED_PRECISION=bf16 python benchmarks/what_pretraining_gives.py \\
        --checkpoint runs/small_bert --data data/wnut17 --seeds 0,1,2

Both sides have the same tokenizer, data, batches and number of epochs. Each side takes the learning rate of
`--learning_rates` that is best on the development split with the first seed. Prints a line for each run and the
means, and writes benchmarks/what_pretraining_gives.json.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from recipes.ner import NerConfig, finetune_ner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True, type=Path, help="a folder with train.conll, dev.conll, test.conll")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--learning_rates", default="2e-4,5e-4,1e-3")
    parser.add_argument("--epochs", type=float, default=5)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    rates = [float(rate) for rate in arguments.learning_rates.split(",")]
    summary: dict = {"data": arguments.data.name, "epochs": arguments.epochs}

    with tempfile.TemporaryDirectory() as work:

        def run(side: str, seed: int, rate: float) -> dict:
            checkpoint = arguments.checkpoint if side == "pretrained" else f"{work}/random-{seed}"
            if side == "random":
                torch.manual_seed(seed)
                AutoModel.from_config(AutoConfig.from_pretrained(arguments.checkpoint)).save_pretrained(checkpoint)
                AutoTokenizer.from_pretrained(arguments.checkpoint).save_pretrained(checkpoint)
            config = NerConfig(
                train_file=str(arguments.data / "train.conll"),
                validation_file=str(arguments.data / "dev.conll"),
                test_file=str(arguments.data / "test.conll"),
                model_name_or_path=checkpoint,
                output_dir=f"{work}/run",
                overwrite_output_dir=True,
                learning_rate=rate,
                warmup_steps=0.1,
                num_train_epochs=arguments.epochs,
                seed=seed,
                disable_tqdm=True,
            )
            results = finetune_ner(config).results
            done = {"side": side, "seed": seed, "learning_rate": rate}
            done |= {key: results[key] for key in ("eval_f1", "test_f1", "test_words_scored", "train_runtime")}
            print(json.dumps(done), flush=True)
            return done

        for side in ("pretrained", "random"):
            tried = [run(side, seeds[0], rate) for rate in rates]
            best = max(tried, key=lambda result: result["eval_f1"])
            runs = [best, *(run(side, seed, best["learning_rate"]) for seed in seeds[1:])]
            scores = [result["test_f1"] for result in runs]
            spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
            summary[side] = {"mean": statistics.mean(scores), "stdev": spread, "runs": runs, "tried": tried}
            print(f"{side}: test F1 {statistics.mean(scores):.4f} +- {spread:.4f} {scores}", flush=True)
    text = json.dumps(summary, indent=2) + "\n"
    (Path(__file__).parent / "what_pretraining_gives.json").write_text(text)


if __name__ == "__main__":
    main()
