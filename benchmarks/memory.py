"""Compares the memory formula of docs/SCALE.md with the memory that training needs on this machine.

    python benchmarks/memory.py

For each shape, a separate process takes three steps of a BERT in float32 on the CPU, with fused AdamW and rows of
equal length. The measured value is the peak of its resident memory minus the memory before the model was loaded.
"""

import json
import subprocess
import sys

SHAPES = [  # layers, hidden size, heads, vocabulary, rows, tokens of each
    (6, 384, 12, 30_522, 8, 128),
    (6, 384, 12, 30_522, 32, 128),
    (6, 384, 12, 30_522, 8, 512),
    (12, 768, 12, 30_522, 8, 128),
    (12, 384, 12, 250_002, 8, 128),
]


def predicted(layers: int, hidden: int, heads: int, vocabulary: int, rows: int, tokens: int) -> float:
    """The predicted bytes: 16 for each parameter, and 4 for each number that a layer keeps for its backward pass."""
    parameters = vocabulary * hidden + 512 * hidden + layers * (12 * hidden**2 + 13 * hidden)
    # For each token, in multiples of the hidden size: the inputs of six linear layers and two norms; queries, keys,
    # values and the context; input and output of GELU with four times the size; sums before the norms; dropout masks.
    kept = 26 * hidden
    attention = 3 * heads * tokens  # the scores, the probabilities, and the probabilities after dropout
    return 16 * parameters + 4 * layers * rows * tokens * (kept + attention)


def measure(shape: list[int]) -> float:
    import numpy as np
    import torch
    from sides import recipe_steps, speed_of
    from transformers import BertConfig, BertForTokenClassification

    from finetune import data, models
    from finetune.training import peak_memory_mb

    layers, hidden, heads, vocabulary, rows, tokens = shape
    torch.set_num_threads(1)
    before = peak_memory_mb(torch.device("cpu"))
    config = BertConfig(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=4 * hidden,
        vocab_size=vocabulary,
    )  # fmt: skip
    ids = np.random.default_rng(0).integers(1000, 30_000, 4 * rows * tokens)
    source = data.Rows(np.arange(0, len(ids) + 1, tokens), {"input_ids": ids, "labels": ids % 2})
    batches = data.TrainBatches(source, 0, rows)
    speed_of(recipe_steps(models.run_without_padding(BertForTokenClassification(config)), batches, precision="no"), 3)
    return peak_memory_mb(torch.device("cpu")) - before


def main() -> None:
    if len(sys.argv) > 1:
        print(measure(json.loads(sys.argv[1])))
        return
    print("| layers x hidden | vocabulary | rows x tokens | measured MB | formula MB | formula / measured |")
    print("|---|---:|---:|---:|---:|---:|")
    for shape in SHAPES:
        command = [sys.executable, __file__, json.dumps(shape)]
        measured = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        layers, hidden, _, vocabulary, rows, tokens = shape
        said = predicted(*shape) / 2**20
        print(
            f"| {layers} x {hidden} | {vocabulary:,} | {rows} x {tokens} | {measured:,.0f} | {said:,.0f} "
            f"| {said / measured:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
