"""What the check of a data set finds of faults that were put into it, and how long it takes.

    python benchmarks/check_data.py copies --data_dir data     # near duplicates across splits
    python benchmarks/check_data.py labels --data_dir data     # wrong labels
    python benchmarks/check_data.py time --data_dir data       # 100,000 sentences

copies: 3 % of the test sentences are copied into training, with one word changed. labels: 5 % of the labels are
replaced by another label at random; told are the precision among as many suspicious labels as were replaced, and the
recall among all suspicious labels. time: processor seconds of one core, without --label_errors.
"""

import argparse
import itertools
import random
import time
from pathlib import Path

import numpy as np

from finetune import checking, data
from finetune.arguments import DataArguments
from finetune.checking import duplicates, suspicious
from finetune.data.near_duplicates import SHORTEST
from recipes.ner import NerConfig
from recipes.sentiment import SentimentConfig


def read_rows(name: str, data_dir: Path) -> dict[str, list[dict]]:
    """The rows of a data set by split."""
    if name == "samples ner":
        splits = data.read_tagged(DataArguments(dataset_name="samples"))
    elif name == "samples sentiment":
        splits = data.read_labelled(DataArguments(dataset_name="samples"))
    elif name == "WNUT-17":
        files = {f"{split}_file": str(data_dir / f"wnut17/{own}.conll") for split, own in SPLITS.items()}
        splits = data.read_tagged(DataArguments(**files))
    else:
        files = {f"{split}_file": str(data_dir / f"sst2/{own}.tsv") for split, own in SPLITS.items()}
        splits = data.read_labelled(DataArguments(**files, column_names="text,label"))
    columns = ["tokens", "ner_tags"] if "tokens" in splits["train"].column_names else ["text", "label"]
    return {split: list(rows.select_columns(columns)) for split, rows in splits.items()}


SPLITS = {"train": "train", "validation": "dev", "test": "test"}
NAMES = ("samples ner", "samples sentiment", "WNUT-17", "SST-2")
QUIET = {"model_name_or_path": "bilstm"}  # no tokenizer: the time is that of the check alone


def config_of(rows: dict[str, list[dict]]) -> NerConfig | SentimentConfig:
    return NerConfig(**QUIET) if "tokens" in rows["train"][0] else SentimentConfig(**QUIET)


def copies(name: str, data_dir: Path, seed: int) -> None:
    rows = read_rows(name, data_dir)
    draw = random.Random(seed)
    sentences = [row.get("tokens") or row["text"].split() for row in rows["test"]]
    chosen = draw.sample(range(len(sentences)), max(round(0.03 * len(sentences)), 1))
    before = duplicates.seen_in_training(checking.checked(config_of(rows), rows).samples, "test")
    for i in chosen:
        words = list(sentences[i])
        at = draw.randrange(len(words))
        words[at] = draw.choice([word for word in draw.choice(sentences) if word != words[at]] or ["another"])
        row = rows["test"][i]
        rows["train"].append(row | ({"tokens": words} if "tokens" in row else {"text": " ".join(words)}))
    after = duplicates.seen_in_training(checking.checked(config_of(rows), rows).samples, "test")
    long = [i for i in chosen if len(sentences[i]) >= SHORTEST]
    found = [i for i in chosen if after[i]]
    print(
        f"{name}: {len(chosen)} copies, {len(found)} found; of {len(long)} with at least {SHORTEST} words "
        f"{sum(bool(after[i]) for i in long)} found; before {int(before.sum())} test samples were seen in training, "
        f"now {int(after.sum())}",
        flush=True,
    )


def labels(name: str, data_dir: Path, seed: int) -> None:
    rows = {"train": read_rows(name, data_dir)["train"]}
    of_words = "tokens" in rows["train"][0]
    random_numbers = np.random.default_rng(seed)
    cells = [tag for row in rows["train"] for tag in (row["ner_tags"] if of_words else [row["label"]])]
    names = sorted(set(cells))
    wrong = random_numbers.choice(len(cells), round(0.05 * len(cells)), replace=False)
    for i in wrong:
        cells[i] = str(random_numbers.choice([label for label in names if label != cells[i]]))
    ends = np.cumsum([len(row["ner_tags"]) if of_words else 1 for row in rows["train"]])
    for row, (begin, end) in zip(rows["train"], itertools.pairwise([0, *ends]), strict=True):
        row |= {"ner_tags": cells[begin:end]} if of_words else {"label": cells[begin]}
    samples = checking.checked(config_of(rows), rows).samples
    began = time.process_time()
    found = suspicious.suspicions(samples, 5)
    seconds = time.process_time() - began
    begins = np.concatenate([[0], ends[:-1]])
    right = [int(begins[one.sample]) + (one.word or 0) in set(wrong.tolist()) for one in found]
    print(
        f"{name}: {len(wrong):,} of {len(cells):,} labels replaced; precision at {len(wrong):,}: "
        f"{np.mean(right[: len(wrong)]):.3f}; {len(found):,} suspicious, recall {sum(right) / len(wrong):.3f}, "
        f"precision {np.mean(right):.3f}; {seconds:.1f} processor seconds",
        flush=True,
    )


def timed(number: int, data_dir: Path, seed: int, tokenizer: str | None) -> None:
    """Real sentences: news, encyclopedia, image captions. Words with a capital letter count as entities."""
    files = ("corpus/news.train.txt", "corpus/news.dev.txt", "corpus/wiki.train.txt")
    files += ("multi30k/train.en", "multi30k/train.de")
    lines = [line for file in files for line in (data_dir / file).read_text(encoding="utf-8").splitlines() if line]
    if len(lines) < number:
        raise SystemExit(f"--sentences {number}: there are {len(lines)}")
    sentences = [line.split() for line in random.Random(seed).sample(lines, number)]
    words = [word for row in sentences for word in row]
    rows = [
        {"tokens": row, "ner_tags": ["O", *("B-X" if word[0].isupper() else "O" for word in row[1:])]}
        for row in sentences
    ]
    cut = number * 8 // 10
    given = {"train": rows[:cut], "test": rows[cut:]}
    config = NerConfig(model_name_or_path=tokenizer or "bilstm")
    checking.checked(config, {split: own[:100] for split, own in given.items()})  # what is imported once
    began = time.process_time()
    report = checking.checked(config, given)
    seconds = time.process_time() - began
    print(
        f"{number:,} sentences, {len(words):,} words, tokenizer {tokenizer or 'none'}: {seconds:.1f} processor "
        f"seconds; {report.sections[0].says}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("copies", "labels", "time"))
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--tokenizer", help="time: also what this checkpoint's tokenizer does")
    args = parser.parse_args()
    if args.what == "time":
        timed(args.sentences, args.data_dir, args.seed, args.tokenizer)
        return
    for name in (args.only,) if args.only else NAMES:
        (copies if args.what == "copies" else labels)(name, args.data_dir, args.seed)


if __name__ == "__main__":
    main()
