"""Training steps against the tutorials' way, in real tokens a second: both sides in one process, alternating.

    OMP_NUM_THREADS=1 python benchmarks/speed.py --data ../shared/data/wnut17/train.conll

The stock side is `run_ner_no_trainer.py` as it is written: rows padded to the longest of the batch, the model's own
attention and dropout, `torch.optim.AdamW`, in float32, and once more under bf16 autocast. Ours takes the same batches
of the same rows through the same weights without padding, with our dropout and fused AdamW, under bf16 autocast.
Weights are random: this measures speed alone.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForTokenClassification, XLMRobertaConfig, XLMRobertaForTokenClassification

from finetune import data, models
from finetune.arguments import DEFAULT_MODEL, DataArguments

SHAPES: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "BERT-base": (BertForTokenClassification, BertConfig, {}),
    "6 layers x 384": (
        BertForTokenClassification,
        BertConfig,
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "XLM-R-base": (XLMRobertaForTokenClassification, XLMRobertaConfig, {"vocab_size": 250_002, "pad_token_id": 1}),
}


def side(shape: str, labels: int, *, ours: bool, bf16: bool) -> Callable[[data.Batch], None]:
    """A function that takes one training step on a batch."""
    model_class, config_class, settings = SHAPES[shape]
    torch.manual_seed(0)
    model = model_class(config_class(num_labels=labels, max_position_embeddings=514, **settings)).train()
    if ours:
        models.run_without_padding(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True if ours else None)
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()

    def step(batch: data.Batch) -> None:
        with autocast:
            loss = model(**batch.inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(step: Callable[[data.Batch], None], batches: list[data.Batch]) -> float:
    """Real tokens a second."""
    began = time.perf_counter()
    for batch in batches:
        step(batch)
    return sum(batch.tokens for batch in batches) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="BERT-base")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    split = data.read_tagged(DataArguments(train_file=str(arguments.data)))["train"]
    labels = data.entity_labels(split)
    tokenizer = models.load_tokenizer(DEFAULT_MODEL)
    rows = data.align(split, tokenizer, labels, max_seq_length=128).rows
    batches = [
        batch
        for (batch,), _ in zip(
            data.TrainBatches(rows, 1, arguments.batch_size).epoch(0), range(arguments.steps), strict=False
        )
    ]
    padded = sum(batch.inputs["input_ids"].numel() for batch in batches)
    print(
        f"{arguments.shape}, batch {arguments.batch_size}, {torch.get_num_threads()} thread(s), load of the machine "
        f"{os.getloadavg()[0]:.1f}; padding {1 - sum(batch.tokens for batch in batches) / padded:.0%} of the tokens"
    )
    sides = {
        "stock": side(arguments.shape, len(labels), ours=False, bf16=False),
        "stock bf16": side(arguments.shape, len(labels), ours=False, bf16=True),
        "finetune bf16": side(arguments.shape, len(labels), ours=True, bf16=True),
    }
    for step in sides.values():
        step(batches[0])  # warm up
    runs = [{name: measure(step, batches) for name, step in sides.items()} for _ in range(arguments.repetitions)]
    for name in sides:
        speeds = sorted(run[name] for run in runs)
        ratios = sorted(run["finetune bf16"] / run[name] for run in runs)
        print(
            f"{name:14s} {statistics.median(speeds):8,.0f} tokens/s   ours against it: "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
