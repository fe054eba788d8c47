"""Compares the speed of the recipes with what a user would run instead: the table of benchmarks/README.md.

    python benchmarks/speed.py                                         every row, about half an hour
    python benchmarks/speed.py --row ner-bert-32 --data data/wnut17/train.conll --repetitions 5

The sides of a row run in one process and take turns. A result is the median over the repetitions, with its range. The
memory of a side is the peak of a separate process that runs it once. Weights are random, because only speed is
measured. Without --data, it takes the sample sentences. Sides in bfloat16 run only if the processor (or the GPU) can
multiply bfloat16.

Writes the rows to benchmarks/results.json and the table to benchmarks/README.md. --write false only prints them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import torch
import transformers
from sides import Steps, accelerator_of, recipe_steps, speed_of, trainer_speed, tutorial_steps
from stock import tokenize_and_align_labels
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
    pipeline,
)

from finetune import data, models, training
from finetune.arguments import DEFAULT_MODEL, DataArguments
from finetune.models import RecurrentConfig, RecurrentForTokenClassification
from finetune.tasks import masked, tagging
from finetune.training import peak_memory_mb
from finetune.training.precision import cpu_has_bf16
from recipes.pretrain import PretrainConfig

HERE = Path(__file__).parent
SMALL = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
BF16 = torch.cuda.is_available() or cpu_has_bf16()
OURS = "bf16" if BF16 else "no"

Side = Callable[[], float]  # runs a share of the work, returns units a second
Sides = dict[str, Callable[[], Side]]  # by name, what gets it ready; ours is the last


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    work: str
    sides: Callable[[argparse.Namespace], Sides]
    to_reach: str  # the ratio that was asked for, as the project's plan has it
    unit: str = "tokens/s"


# Data.


@cache
def sentences(path: Path | None) -> datasets.Dataset:
    """The tagged sentences of the file, or the samples, eight times."""
    if path is not None:
        return data.read_tagged(DataArguments(train_file=str(path)))["train"]
    samples = data.read_tagged(DataArguments(dataset_name="samples"))["train"]
    return datasets.concatenate_datasets([samples] * 8)


def numbered(split: datasets.Dataset, labels: list[str]) -> datasets.Dataset:
    """Tags as numbers, as in the data sets of the tutorials."""
    label2id = {label: i for i, label in enumerate(labels)}
    return split.map(lambda row: {"ner_tags": [label2id[tag] for tag in row["ner_tags"]]}, keep_in_memory=True)


@cache
def ner(path: Path | None) -> tuple[Any, list[str], data.Rows, datasets.Dataset]:
    """The tokenizer, the labels, our rows, and the same rows by `tokenize_and_align_labels` of the tutorials."""
    tokenizer = models.load_tokenizer(DEFAULT_MODEL)
    split = sentences(path)
    labels = data.entity_labels(split)
    rows = data.align(split, tokenizer, labels, max_seq_length=128).rows
    encoded = numbered(split, labels).map(
        partial(tokenize_and_align_labels, tokenizer=tokenizer, max_length=128),
        batched=True,
        remove_columns=split.column_names,
        keep_in_memory=True,
    )
    if len(rows) != len(encoded):
        raise SystemExit(
            "a sentence of --data is longer than 128 subwords, or has none: the sides' rows would differ"
        )
    return tokenizer, labels, rows, encoded


def plan_of(batches: data.TrainBatches) -> list[list[int]]:
    """The rows of an epoch's batches."""
    return [batch for (batch,) in batches.plan(0)]


# Rows of the table. What a side needs is made when it is its turn to get ready.


def ready(steps: Steps, count: int) -> Side:
    """Takes one step to warm up. Returns the function that takes `count` steps."""
    next(steps)
    return lambda: speed_of(steps, count)


def ner_sides(
    arguments: argparse.Namespace, model_class: Any, config: Any, batch_size: int, steps: int, *, pad: int = 0
) -> Sides:
    """A token classifier, batches of sentences."""
    tokenizer, labels, rows, encoded = ner(arguments.data)
    collator = DataCollatorForTokenClassification(tokenizer)
    batches = data.TrainBatches(rows, pad, batch_size)

    def model() -> Any:
        torch.manual_seed(0)
        return model_class(config(num_labels=len(labels), max_position_embeddings=514))

    def stock(precision: str) -> Side:
        return ready(tutorial_steps(model(), encoded, collator, plan_of(batches), precision=precision), steps)

    def trainer() -> Side:
        kept = model()
        return lambda: trainer_speed(kept, encoded, collator, batch_size, steps)

    def ours() -> Side:
        kept = models.run_without_padding(model())
        models.compact_vocabulary(kept, tokenizer, [rows.tokens["input_ids"], np.array([pad])])
        return ready(recipe_steps(kept, batches, precision=OURS), steps)

    return with_bf16({"stock": partial(stock, "no"), "Trainer": trainer, "finetune": ours}, partial(stock, "bf16"))


def mlm_sides(
    arguments: argparse.Namespace, config: Any, batch_size: int, steps: int, *, vocab_size: int, fused: bool = False
) -> Sides:
    """Masked tokens in rows of 128, 15 % of them masked."""
    flags = PretrainConfig(dataset_name="samples", max_seq_length=128, objective="roberta")
    tokenizer = models.load_tokenizer(DEFAULT_MODEL)
    corpora = data.read_corpus(flags)["train"]
    rows = data.pretraining_rows([data.tokenize(corpus, tokenizer) for corpus in corpora], flags, tokenizer, "train")
    batches = data.TrainBatches(rows, tokenizer.pad_token_id, batch_size, count=masked.targets)
    unmasked, _ = rows.in_epoch(0).unmasked(np.arange(rows.rows_in(0)))
    parts = np.split(unmasked.tokens["input_ids"], unmasked.offsets[1:-1])
    encoded = datasets.Dataset.from_dict(
        {"input_ids": parts, "attention_mask": [np.ones_like(part) for part in parts]}
    )
    collator = DataCollatorForLanguageModeling(tokenizer)

    def model() -> Any:
        torch.manual_seed(0)
        return BertForMaskedLM(config(vocab_size=vocab_size))

    def stock(precision: str) -> Side:
        made = tutorial_steps(model(), encoded, collator, plan_of(batches), precision=precision, fused=fused)
        return ready(made, steps)

    def trainer() -> Side:
        kept = model()
        return lambda: trainer_speed(kept, encoded, collator, batch_size, steps)

    def ours() -> Side:
        kept = models.project_masked_positions(models.run_without_padding(model()))
        return ready(recipe_steps(kept, batches, precision=OURS), steps)

    return with_bf16({"stock": partial(stock, "no"), "Trainer": trainer, "finetune": ours}, partial(stock, "bf16"))


def long_sides(arguments: argparse.Namespace) -> Sides:
    """Rows of 384 tokens without padding, and a head with two outputs for each token, as for extractive QA."""
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, 30_000, 384 * 64)
    rows = data.Rows(np.arange(65) * 384, {"input_ids": ids, "labels": generator.integers(0, 2, len(ids))})
    listed = [{key: values[i : i + 384] for key, values in rows.tokens.items()} for i in range(0, len(ids), 384)]
    encoded = datasets.Dataset.from_list([row | {"attention_mask": np.ones(384, np.int64)} for row in listed])
    collator = DataCollatorForTokenClassification(models.load_tokenizer(DEFAULT_MODEL))
    batches = data.TrainBatches(rows, 0, 4)

    def model() -> Any:
        torch.manual_seed(0)
        return BertForTokenClassification(BertConfig(num_labels=2))

    def stock(precision: str) -> Side:
        return ready(tutorial_steps(model(), encoded, collator, plan_of(batches), precision=precision), 2)

    def ours() -> Side:
        return ready(recipe_steps(models.run_without_padding(model()), batches, precision=OURS), 2)

    return with_bf16({"stock": partial(stock, "no"), "finetune": ours}, partial(stock, "bf16"))


def bilstm_sides(arguments: argparse.Namespace) -> Sides:
    """Two layers with 256 units in each direction. The stock side pads, as the tutorials do."""
    split = sentences(arguments.data)
    labels = data.entity_labels(split)
    tokenizer = models.train_word_tokenizer(word for words in split["tokens"] for word in words)
    rows = data.align(split, tokenizer, labels, max_seq_length=128).rows
    del rows.tokens["char_ids"]
    config = RecurrentConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=2,
        char_features="none",
        word_dropout=0.0,
        id2label=dict(enumerate(labels)),
    )

    def stock(precision: str) -> Side:
        def steps() -> Steps:
            torch.manual_seed(0)
            size = {"num_layers": 2, "batch_first": True, "bidirectional": True, "dropout": 0.5}
            parts = torch.nn.ModuleList(
                [
                    torch.nn.Embedding(config.vocab_size, config.embedding_size),
                    torch.nn.LSTM(config.embedding_size, 256, **size),
                    torch.nn.Linear(512, len(labels)),
                ]
            )
            optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-3)
            while True:
                for (batch,) in data.TrainBatches(rows, 0, 64).epoch(0):
                    embedding, lstm, head = parts
                    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                        features = torch.nn.functional.dropout(embedding(batch.inputs["input_ids"]), 0.5)
                        logits = head(torch.nn.functional.dropout(lstm(features)[0], 0.5))
                    targets = batch.inputs["labels"].flatten()
                    torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    yield batch.tokens

        return ready(steps(), 6)

    def ours() -> Side:
        torch.manual_seed(0)
        batches = data.TrainBatches(rows, 0, 64, group_by_length=True)
        return ready(recipe_steps(RecurrentForTokenClassification(config), batches, precision=OURS), 6)

    return with_bf16({"stock": partial(stock, "no"), "finetune": ours}, partial(stock, "bf16"))


def with_bf16(sides: Sides, stock: Callable[[], Side]) -> Sides:
    """Adds the stock side in bfloat16, if the machine can multiply bfloat16."""
    return {"stock": sides["stock"]} | ({"stock bf16": stock} if BF16 else {}) | sides


def alignment_sides(arguments: argparse.Namespace) -> Sides:
    """From a data set to labelled rows, on one core. benchmarks/alignment.py compares the outputs."""
    split = sentences(arguments.data)
    labels = data.entity_labels(split)
    with_numbers = numbered(split, labels)
    tokenizer = models.load_tokenizer(DEFAULT_MODEL)
    words = sum(map(len, split["tokens"]))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    def stock() -> float:
        began = time.perf_counter()
        with_numbers.map(
            partial(tokenize_and_align_labels, tokenizer=tokenizer, max_length=128),
            batched=True,
            remove_columns=split.column_names,
            keep_in_memory=True,
            load_from_cache_file=False,
        )
        return words / (time.perf_counter() - began)

    def ours() -> float:
        began = time.perf_counter()
        data.align(split, tokenizer, labels, max_seq_length=128)
        return words / (time.perf_counter() - began)

    return {"stock": lambda: stock, "finetune": lambda: ours}


def prediction_sides(arguments: argparse.Namespace, config: Any, count: int) -> Sides:
    """From sentences to a label for each word."""
    tokenizer, labels, _, _ = ner(arguments.data)
    split = sentences(arguments.data).select(range(count))
    words = sum(map(len, split["tokens"]))

    def model() -> Any:
        torch.manual_seed(0)
        return BertForTokenClassification(config(num_labels=len(labels), id2label=dict(enumerate(labels)))).eval()

    def stock(batch_size: int) -> Side:
        tagger: Any = pipeline(
            "token-classification", model=model(), tokenizer=tokenizer, aggregation_strategy="first"
        )
        texts = [" ".join(sentence) for sentence in split["tokens"]]

        def side() -> float:
            began = time.perf_counter()
            tagger(texts, batch_size=batch_size)
            return words / (time.perf_counter() - began)

        return side

    def ours() -> Side:
        accelerator = accelerator_of(OURS)
        kept = accelerator.prepare_model(models.run_without_padding(model()), evaluation_mode=True)

        def side() -> float:
            began = time.perf_counter()
            alignment = data.align(split, tokenizer, labels, max_seq_length=128)
            batches = data.EvalBatches(alignment.rows, 0, 32)
            found = training.collect(accelerator, kept, batches, partial(tagging.collect, settings={}))
            alignment.to_words(found.arrays["labels"])
            return words / (time.perf_counter() - began)

        return side

    return {"stock": partial(stock, 1), "stock, 32 at once": partial(stock, 32), "finetune": ours}


def peak_sides(arguments: argparse.Namespace) -> Sides:
    """Floating-point operations per second: of training steps of BERT-base, and of products of large matrices."""
    _, _, rows, _ = ner(arguments.data)
    sides = ner_sides(arguments, BertForTokenClassification, BertConfig, 32, 1)
    # Six operations a token and weight of the linears, and 12 H operations a pair of tokens in each layer.
    weights = 12 * 12 * 768**2
    lengths = rows.lengths.astype(np.float64)
    a_token = 6 * weights + 12 * 768 * 12 * (lengths**2).sum() / lengths.sum()

    def products() -> Side:
        x = torch.randn(4096, 4096, dtype=torch.bfloat16 if BF16 else torch.float32)

        def side() -> float:
            began = time.perf_counter()
            x @ x
            return 2 * 4096**3 / (time.perf_counter() - began) / 1e9

        side()
        return side

    def ours() -> Side:
        speed = sides["finetune"]()
        return lambda: speed() * a_token / 1e9

    return {"products": products, "finetune": ours}


BERT, XLMR = BertConfig, partial(XLMRobertaConfig, vocab_size=250_002, pad_token_id=1)
TAGGER = BertForTokenClassification
SMALL_BERT = partial(BertConfig, **SMALL)
ROWS = {
    "ner-bert-32": Row(
        "BERT-base NER, batch 32", partial(ner_sides, model_class=TAGGER, config=BERT, batch_size=32, steps=2), "5; 2"
    ),
    "ner-bert-8": Row(
        "BERT-base NER, batch 8", partial(ner_sides, model_class=TAGGER, config=BERT, batch_size=8, steps=4), "3"
    ),
    "ner-xlmr-8": Row(
        "XLM-R-base (250,002 pieces) NER, batch 8",
        partial(ner_sides, model_class=XLMRobertaForTokenClassification, config=XLMR, batch_size=8, steps=3, pad=1),
        "7",
    ),
    "mlm-bert": Row(
        "BERT-base MLM, 8 x 128 tokens",
        partial(mlm_sides, config=BERT, batch_size=8, steps=2, vocab_size=30_522),
        "3.5",
    ),
    "mlm-250k": Row(
        "6 layers x 384 MLM, 250,002 pieces, 8 x 128, stock with fused AdamW",
        partial(mlm_sides, config=SMALL_BERT, batch_size=8, steps=2, vocab_size=250_002, fused=True),
        "6",
    ),
    "rows-of-384": Row("BERT-base, rows of 384, batch 4, no padding", long_sides, "3"),
    "align": Row("tokenise and align, one core", alignment_sides, "3.5", "words/s"),
    "bilstm": Row("BiLSTM 2 x 256, batch 64", bilstm_sides, "3"),
    "peak": Row("BERT-base NER, batch 32, against the peak of products of matrices", peak_sides, "0.35", "GFLOP/s"),
    "predict-small": Row(
        "prediction, 6 layers x 384", partial(prediction_sides, config=SMALL_BERT, count=200), "4", "words/s"
    ),
    "predict-bert": Row("prediction, BERT-base", partial(prediction_sides, config=BERT, count=60), "4", "words/s"),
}
MEASURED_MEMORY = ("ner-bert-32", "ner-bert-8", "ner-xlmr-8", "mlm-bert", "mlm-250k", "rows-of-384", "bilstm")


# Measuring.


def others_load(seconds: float = 1.0) -> float:
    """The number of cores that other processes keep busy."""
    me = psutil.Process()
    before, own = psutil.cpu_times(), me.cpu_times()
    time.sleep(seconds)
    after, mine = psutil.cpu_times(), me.cpu_times()
    busy = sum(getattr(after, name) - getattr(before, name) for name in ("user", "system", "nice"))
    return max(busy - (mine.user + mine.system - own.user - own.system), 0.0) / seconds


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs all sides of a row in turns."""
    load = others_load()
    if load > 0.2 or name == "align":
        torch.set_num_threads(1)
    sides = {side: get_ready() for side, get_ready in ROWS[name].sides(arguments).items()}
    runs = [{side: run() for side, run in sides.items()} for _ in range(arguments.repetitions)]
    found: dict[str, Any] = {"unit": ROWS[name].unit, "threads": torch.get_num_threads(), "load": round(load, 2)}
    found["sides"] = {side: spread([run[side] for run in runs]) for side in sides}
    found["ratios"] = {
        side: spread([run["finetune"] / run[side] for run in runs]) for side in sides if side != "finetune"
    }
    if name in MEASURED_MEMORY:
        found["memory_mb"] = {side: memory_of(name, side, arguments) for side in sides}
    return found


def spread(values: list[float]) -> list[float]:
    """The median, the least and the greatest value."""
    return [float(f"{value:.4g}") for value in (statistics.median(values), min(values), max(values))]


def memory_of(name: str, side: str, arguments: argparse.Namespace) -> float:
    """The peak, in megabytes, of a process that prepares one side and runs it once."""
    command = [sys.executable, __file__, "--row", name, "--memory_of", side]
    if arguments.data is not None:
        command += ["--data", str(arguments.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def machine() -> dict[str, str]:
    """The machine on which the results were measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    if torch.cuda.is_available():
        processor = torch.cuda.get_device_name()
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": "yes" if BF16 else "emulated, so not used",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=ROWS, action="append", help="may be given more than once [all]")
    parser.add_argument("--data", type=Path, help="a column file of tagged sentences [the samples]")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--write", choices=("true", "false"), default="true")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        ROWS[arguments.row[0]].sides(arguments)[arguments.memory_of]()()
        print(peak_memory_mb(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
        return
    for name in arguments.row or ROWS:
        # A process for each row, so that one row's memory and threads are not the next one's.
        if arguments.row is None or len(arguments.row) > 1:
            again = [word for word in sys.argv[1:] if word not in ("--row", *ROWS)]
            subprocess.run([sys.executable, __file__, "--row", name, *again], check=True)
            continue
        found = measure(name, arguments)
        print(json.dumps({name: found}), flush=True)
        if arguments.write == "true":
            write("speed", name, found)
    if arguments.write == "true":
        write_table()


def write(part: str, name: str, found: dict[str, Any]) -> None:
    """Writes a result to results.json."""
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results.setdefault(part, {})[name] = found | {"machine": machine()}
    path.write_text(json.dumps(results, indent=1) + "\n")


def write_table() -> None:
    """Writes the table of results.json between its marks in README.md."""
    results = json.loads((HERE / "results.json").read_text())["speed"]
    lines = [
        "| work | stock | finetune | ratio to stock (range) | to `Trainer` | to stock bf16 | asked for "
        "| memory, stock and finetune |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in ROWS.items():
        if name not in results:
            continue
        found = results[name]
        base, *_ = [side for side in found["sides"] if side != "finetune"]
        memory = found.get("memory_mb", {})
        cells = [
            f"{row.work} (`--row {name}`)",
            f"{found['sides'][base][0]:,.0f} {found['unit']}",
            f"{found['sides']['finetune'][0]:,.0f}",
            ratio(found["ratios"][base]),
            ratio(found["ratios"].get("Trainer") or found["ratios"].get("stock, 32 at once")),
            ratio(found["ratios"].get("stock bf16")),
            row.to_reach,
            f"{memory[base]:,.0f} and {memory['finetune']:,.0f} MB: {memory['finetune'] / memory[base]:.2f}"
            if memory
            else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition("<!-- table -->")
    _, _, after = rest.partition("<!-- end -->")
    readme.write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end -->" + after)


def ratio(found: list[float] | None) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})" if found else ""


if __name__ == "__main__":
    main()
