"""Compares our alignment with `tokenize_and_align_labels` of the tutorials: words per second, tokenisation apart.

    python benchmarks/alignment.py
    python benchmarks/alignment.py --data data/wnut17/train.conll --max_seq_length 128

Both sides run in one process and take turns. Shown are medians and ranges over the repetitions, for:

- `tokenise`: only the tokenizer, on the sentences (our side: on the distinct words);
- `align`: from the output of the tokenizer and tags as numbers to labelled inputs: their loop over tokens, our
arrays; - `all`: from the data set to labelled inputs: their function, our `align`.

Without --data, it takes the sample sentences, eight times. First it compares the rows of both sides: rows that are
not truncated must be equal.
"""

import argparse
import gc
import statistics
import time
from pathlib import Path

import datasets
import numpy as np
from stock import tokenize_and_align_labels
from transformers import BatchEncoding

from finetune import data, models
from finetune.arguments import DEFAULT_MODEL, DataArguments
from finetune.data import alignment


def labels_of_tokens(tokenized, tags: list[list[int]]) -> list[list[int]]:
    """The loop of `tokenize_and_align_labels`, without the call of the tokenizer."""

    class Ready:
        def __call__(self, *_, **__):
            return BatchEncoding({}, tokenized.encodings)

    rows = {"tokens": None, "ner_tags": tags}
    return tokenize_and_align_labels(rows, Ready(), 0)["labels"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model_name_or_path", default=DEFAULT_MODEL)
    parser.add_argument("--max_seq_length", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()

    if arguments.data:
        train = data.read_tagged(DataArguments(train_file=str(arguments.data)))["train"]
    else:
        train = data.read_tagged(DataArguments(dataset_name="samples"))["train"]
        train = datasets.concatenate_datasets([train] * 8)
    labels = data.entity_labels(train)
    label2id = {label: i for i, label in enumerate(labels)}
    tokenizer = models.load_tokenizer(arguments.model_name_or_path)
    sentences, tags = train["tokens"][:], train["ner_tags"][:]
    tag_ids = [[label2id[tag] for tag in row] for row in tags]  # as the tutorials' data sets have them
    words = sum(map(len, sentences))
    length = arguments.max_seq_length
    prefix, suffix = alignment.special_tokens(tokenizer)
    content = length - len(prefix) - len(suffix)

    times: dict[str, list[float]] = {}

    def timed(name, function, *inputs, **keywords):
        began = time.perf_counter()
        output = function(*inputs, **keywords)
        times.setdefault(name, []).append(time.perf_counter() - began)
        return output

    for _ in range(arguments.repetitions + 1):
        gc.enable()
        gc.collect()
        gc.disable()  # as timeit does: a collection would fall to whichever side runs when it is due
        cut = {"truncation": True, "max_length": length, "is_split_into_words": True}
        tokenized = timed("stock tokenise", tokenizer, sentences, **cut)
        stock_labels = timed("stock align", labels_of_tokens, tokenized, tag_ids)
        rows_in = {"tokens": sentences, "ner_tags": tag_ids}
        timed("stock all", tokenize_and_align_labels, rows_in, tokenizer, length)

        flat, offsets = alignment.flatten_words(train)
        gold = np.array([tag for row in tag_ids for tag in row])
        subwords = timed("our tokenise", alignment.encode_words, tokenizer, flat)
        aligned = timed(
            "our align", alignment.cut_windows, subwords, offsets, gold, prefix, suffix, content, content // 2
        )
        timed("our all", data.align, train, tokenizer, labels, max_seq_length=length)
    rows = aligned.rows

    first_words = np.maximum.reduceat(aligned.word_of_token, rows.offsets[:-1])
    sentence_of_row = np.searchsorted(aligned.sentence_offsets, first_words, side="right") - 1
    row_of = dict(zip(sentence_of_row.tolist(), range(len(rows)), strict=True))
    compared = 0
    for i, (ids, row) in enumerate(zip(tokenized["input_ids"], stock_labels, strict=True)):
        if len(ids) < arguments.max_seq_length:
            a, b = rows.offsets[row_of[i]], rows.offsets[row_of[i] + 1]
            assert rows.tokens["input_ids"][a:b].tolist() == ids
            assert rows.tokens["labels"][a:b].tolist() == row
            compared += 1
    print(f"{len(sentences):,} sentences, {words:,} words, {len(rows):,} rows; {compared:,} rows compared and equal")

    times = {name: values[1:] for name, values in times.items()}  # the first is a warm-up
    print(f"{'':10s} {'stock words/s':>15s} {'our words/s':>15s} {'ratio':>7s}  range of {arguments.repetitions}")
    for part in ("tokenise", "align", "all"):
        stock, ours = times[f"stock {part}"], times[f"our {part}"]
        ratios = [a / b for a, b in zip(stock, ours, strict=True)]
        print(
            f"{part:10s} {words / statistics.median(stock):15,.0f} {words / statistics.median(ours):15,.0f} "
            f"{statistics.median(ratios):7.1f}  {min(ratios):.1f} to {max(ratios):.1f}"
        )


if __name__ == "__main__":
    main()
