"""Compares the speed of finetune.predict and of transformers.pipeline with batches, on the same sentences.

python benchmarks/prediction.py --model runs/ner --data data/wnut17/test.conll

The two take turns. Seconds are processor time, so that other programs disturb little.
"""

import argparse
import statistics
import time

from transformers import pipeline

import finetune
from finetune import data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="a column file")
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    arguments = parser.parse_args()

    texts = [" ".join(words) for words in data.read_conll(arguments.data).words[: arguments.sentences]]
    predictor = finetune.load_predictor(arguments.model, batch_size=arguments.batch_size)
    tagger = pipeline("token-classification", model=arguments.model, aggregation_strategy="first", device="cpu")
    sides = {
        "finetune.predict": lambda: [predictor(texts[i : i + 256]) for i in range(0, len(texts), 256)],
        "pipeline": lambda: tagger(texts, batch_size=arguments.batch_size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            began = time.process_time()
            side()
            seconds[name].append(time.process_time() - began)
    for name, times in seconds.items():
        rate = len(texts) / statistics.median(times)
        print(f"{name:18s} {rate:8.1f} sentences a second of processor time")
    ours, stock = seconds.values()
    ratios = sorted(b / a for a, b in zip(ours, stock, strict=True))
    print(f"ratio, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
