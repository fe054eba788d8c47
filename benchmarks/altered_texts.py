"""Makes text without labels from training texts: altered copies, for a student to learn from its teacher.

    python benchmarks/altered_texts.py data/sst2/train.tsv altered.jsonl --copies 10
    python benchmarks/altered_texts.py data/wnut17/train.conll altered.jsonl --copies 10

In a copy, each word is replaced with a probability of 0.1; the new word is drawn from all words of the training texts
(Xie et al., 2017, "Data Noising as Smoothing in Neural Network Language Models"). Then, of a quarter of the copies,
only 1 to 5 words in a row are kept. Tang et al. (2019, "Distilling Task-Specific Knowledge from BERT into Simple
Neural Networks") do likewise; they put a mask in the place of words, and also replace words by others of the same
part of speech. Copies that are equal to a training text or to one another are left out. The same seed gives the same
file.

Reads a column file (words in the first column), or a table whose first column is a text; spaces part its words.
"""

import argparse
import json
import random
from pathlib import Path

from finetune import data

REPLACED = 0.1  # of the words
SHORT = 0.25  # of the copies
LONGEST = 5  # words of a short copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--copies", type=int, default=10, help="of each text")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    of_words = arguments.file.suffix.lower() in data.CONLL_ENDINGS
    if of_words:
        texts = [tuple(words) for words in data.read_conll(arguments.file).words]
    else:
        lines = arguments.file.read_text(encoding="utf-8").splitlines()
        texts = [tuple(line.split("\t")[0].split()) for line in lines]
    found = altered(texts, arguments.copies, random.Random(arguments.seed))
    with arguments.output.open("w", encoding="utf-8") as file:
        for words in found:
            told = {"tokens": list(words)} if of_words else {"text": " ".join(words)}
            file.write(json.dumps(told, ensure_ascii=False) + "\n")
    print(f"{arguments.output}: {len(found):,} altered copies of {len(texts):,} texts")


def altered(texts: list[tuple[str, ...]], copies: int, draw: random.Random) -> list[tuple[str, ...]]:
    """The altered copies, without those that are equal to a text or to one another."""
    pool = [word for words in texts for word in words]
    found = dict.fromkeys(one_copy(words, pool, draw) for words in texts if words for _ in range(copies))
    known = set(texts)
    return [words for words in found if words not in known]


def one_copy(words: tuple[str, ...], pool: list[str], draw: random.Random) -> tuple[str, ...]:
    """One altered copy of a text."""
    new = [draw.choice(pool) if draw.random() < REPLACED else word for word in words]
    if draw.random() < SHORT:
        length = draw.randint(1, min(LONGEST, len(new)))
        begin = draw.randint(0, len(new) - length)
        new = new[begin : begin + length]
    return tuple(new)


if __name__ == "__main__":
    main()
