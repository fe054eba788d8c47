"""Compares two parts of pretraining with the stock way: the making of inputs, and the projection to the vocabulary.

    OMP_NUM_THREADS=1 python benchmarks/pretraining.py

Both sides run in one process and take turns. Shown are medians and ranges of their ratios.

1. Rows per second, with 128 subwords and batches of 32. Our side makes instances and masks, from tokenised documents
   to tensors. The stock side is `transformers.DataCollatorForLanguageModeling` on blocks that are already in memory.
   Both mask single tokens.
2. Seconds of a training step (forward and backward of 6 layers x 384, 8 x 128 subwords, 15 % masked). Our side
   projects only the masked positions; the stock side is the model's own forward. Vocabularies: 30,522, 50,265 and
   250,002.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling

from finetune import data, models
from finetune.tasks import masked
from recipes.pretrain import PretrainConfig

LENGTH, BATCH = 128, 32


def compare(
    ours: Callable[[], float], stock: Callable[[], float], repetitions: int
) -> tuple[float, float, list[float]]:
    """Runs both sides in turns. Prints their medians (higher is better) and ratios."""
    ours(), stock()  # warm up
    pairs = [(ours(), stock()) for _ in range(repetitions)]
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        sorted(a / b for a, b in pairs),
    )


def told(name: str, ours: float, stock: float, ratios: list[float], form: str) -> str:
    return (
        f"| {name} | {stock:{form}} | {ours:{form}} | {statistics.median(ratios):.1f} | "
        f"{ratios[0]:.1f} to {ratios[-1]:.1f} |"
    )


def batching(repetitions: int, objective: str, masking: str) -> str:
    config = PretrainConfig(dataset_name="samples", max_seq_length=LENGTH, objective=objective, masking=masking)
    corpora = data.read_corpus(config)["train"]
    texts = (sentence for corpus in corpora for sentence in corpus.sentences())
    tokenizer = models.subword_tokenizer(
        "wordpiece", models.train_tokenizer("wordpiece", lambda: texts, vocab_size=4000)
    )
    documents = [data.tokenize(corpus, tokenizer) for corpus in corpora]
    tokens = np.concatenate([part.tokens for part in documents])
    whole = len(tokens) // (LENGTH - 2)
    blocks = [
        {"input_ids": [tokenizer.cls_token_id, *block, tokenizer.sep_token_id]}
        for block in tokens[: whole * (LENGTH - 2)].reshape(whole, LENGTH - 2).tolist()
    ]
    collator = DataCollatorForLanguageModeling(tokenizer)

    def stock() -> float:
        began = time.perf_counter()
        for i in range(0, len(blocks), BATCH):
            collator(blocks[i : i + BATCH])
        return len(blocks) / (time.perf_counter() - began)

    def ours() -> float:
        began = time.perf_counter()
        rows = data.pretraining_rows(documents, config, tokenizer, "train")  # builds the instances anew
        batches = data.TrainBatches(rows, tokenizer.pad_token_id, BATCH, count=masked.targets)
        made = sum(len(batch.row_ids) for (batch,) in batches.epoch(0))
        return made / (time.perf_counter() - began)

    name = f"rows a second, {objective}, {masking.replace('_', ' ')} masks"
    return told(name, *compare(ours, stock, repetitions), ",.0f")


def projection(repetitions: int, vocab_size: int) -> str:
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertForMaskedLM(BertConfig(vocab_size=vocab_size, **shape))
    ids = torch.randint(1000, vocab_size, (8, LENGTH))
    labels = torch.where(torch.rand(ids.shape) < 0.15, ids, -100)
    own = model.forward
    masked_only = models.project_masked_positions(model).forward

    def steps_a_second(forward: Callable[..., Any]) -> float:
        model.zero_grad()
        began = time.perf_counter()
        forward(input_ids=ids, labels=labels)["loss"].backward()
        return 1 / (time.perf_counter() - began)

    figures = compare(lambda: steps_a_second(masked_only), lambda: steps_a_second(own), repetitions)
    return told(f"steps a second, vocabulary of {vocab_size:,}", *figures, ".2f")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    repetitions = parser.parse_args().repetitions
    print(f"{torch.get_num_threads()} thread(s), load of the machine {os.getloadavg()[0]:.1f}")
    print("| work | stock | finetune | ratio, median | range |")
    print("|---|---:|---:|---:|---:|")
    for objective, masking in (
        ("roberta", "token"),
        ("bert", "token"),
        ("roberta", "whole_word"),
        ("roberta", "span"),
    ):
        print(batching(repetitions, objective, masking), flush=True)
    for vocab_size in (30_522, 50_265, 250_002):
        print(projection(repetitions, vocab_size), flush=True)


if __name__ == "__main__":
    main()
