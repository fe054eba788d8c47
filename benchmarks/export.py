"""Labels a test split with `pipeline()`, with this package, and with the exports of a model, and compares them.

    python recipes/ner.py --config recipes/configs/ner/wnut17.yaml --output_dir runs/wnut17
    OMP_NUM_THREADS=1 python benchmarks/export.py --model runs/wnut17 --data data/wnut17/test.conll
    OMP_NUM_THREADS=1 python benchmarks/export.py --shape bert-base --data data/wnut17/test.conll --sentences 200

Each side labels the same sentences, given as text. The sides take turns, and a figure is the median of the rounds
with its range. Seconds are processor time, so that other programs disturb little. F1 counts an entity as right if its
type, its first and its last character are; the interval is that of the difference to torch in float32 (paired
bootstrap over the sentences). `--shape bert-base` measures a BERT-base with random weights, whose F1 says nothing.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification, pipeline

import finetune
from finetune import data, metrics
from finetune.arguments import DEFAULT_MODEL
from finetune.models.pretrained import resolve
from recipes.export import ExportConfig, export_model

Spans = list[set[tuple[str, int, int]]]
REFERENCE = "finetune, float32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="the folder of a run of recipes/ner.py")
    parser.add_argument("--shape", choices=["bert-base"])
    parser.add_argument("--data", required=True, help="a column file of words and tags")
    parser.add_argument("--sentences", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_loss", type=float, default=0.005)
    arguments = parser.parse_args()
    if (arguments.model is None) == (arguments.shape is None):
        parser.error("give either --model or --shape")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(arguments.model) if arguments.model else random_bert(Path(place) / "model", arguments.data)
        table(measured(arguments, folder, Path(place)), arguments.model is not None)


def measured(arguments: argparse.Namespace, folder: Path, place: Path) -> dict[str, dict[str, Any]]:
    """The rates of each side, words in a second, and its spans."""
    split = data.read_conll(arguments.data)
    sentences, tags = (column[: arguments.sentences] for column in (split.words, split.tags))
    texts, gold = [" ".join(words) for words in sentences], spans_of(sentences, tags)
    sides = sides_of(arguments, folder, place)
    found: dict[str, dict[str, Any]] = {name: {"rates": []} for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            began = time.process_time()
            answers = side(texts)
            found[name]["rates"].append(sum(map(len, sentences)) / (time.process_time() - began))
            found[name]["counts"] = np.array(
                [(len(own & right), len(own), len(right)) for own, right in zip(answers, gold, strict=True)]
            )
    return found


def sides_of(arguments: argparse.Namespace, folder: Path, place: Path) -> dict[str, Callable[[list[str]], Spans]]:
    """What labels texts, by name."""
    tagger: Any = pipeline("token-classification", model=str(folder), aggregation_strategy="first", device="cpu")

    def stock(size: int) -> Callable[[list[str]], Spans]:
        return lambda texts: [
            {(one["entity_group"], one["start"], one["end"]) for one in entities}
            for entities in tagger(texts, batch_size=size)
        ]

    def ours(where: Path, precision: str = "no", runtime: str = "torch") -> Callable[[list[str]], Spans]:
        os.environ["ACCELERATE_MIXED_PRECISION"] = precision
        predictor = finetune.load_predictor(where, runtime=runtime)
        del os.environ["ACCELERATE_MIXED_PRECISION"]
        return lambda texts: [
            {(one["label"], one["start"], one["end"]) for one in answer["entities"]} for answer in predictor(texts)
        ]

    sides = {
        "pipeline()": stock(1),
        "pipeline(batch_size=32)": stock(32),
        REFERENCE: ours(folder),
        "finetune, bf16": ours(folder, "bf16"),
    }
    loss = arguments.max_loss if arguments.model else 1.0
    for precision in ("float32", "int8"):
        export = place / precision
        config = ExportConfig(model_name_or_path=str(folder), output_dir=str(export), max_loss=loss)
        config.precision = precision  # type: ignore[assignment]
        told = export_model(config)
        print(json.dumps({"export": precision, **told}), flush=True)
        sides[f"onnx, {precision}"] = ours(export, runtime="onnx")
    return sides


def spans_of(sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> Spans:
    """The entities of each sentence, in characters of its words with a space between them."""
    found = []
    for words, own in zip(sentences, tags, strict=True):
        begins = np.cumsum([0, *(len(word) + 1 for word in words)])
        entities = metrics.entity_spans(own)
        found.append({(kind, int(begins[first]), int(begins[end]) - 1) for first, end, kind in entities})
    return found


def random_bert(folder: Path, conll: str) -> Path:
    """A BERT-base with random weights that tags the types of a file; its run's folder for the proof of the export."""
    split = data.read_conll(conll)
    labels = sorted({tag for own in split.tags for tag in own})
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    BertForTokenClassification(BertConfig(**names)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve(DEFAULT_MODEL), model_max_length=128).save_pretrained(folder)
    development = folder / "dev.conll"
    lines = ("".join(f"{word}\t{tag}\n" for word, tag in zip(*both, strict=True)) for both in
             zip(split.words[:50], split.tags[:50], strict=True))  # fmt: skip
    development.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "run.yaml").write_text(f"train_file: {conll}\nvalidation_file: {development}\n", encoding="utf-8")
    return folder


def table(found: dict[str, dict[str, Any]], trained: bool) -> None:
    """Prints a row for each side."""
    base = found["pipeline(batch_size=32)"]["rates"]
    print("| side | words/s (range) | times pipeline(batch_size=32) (range) | F1 | less than float32, 95 % |")
    print("|---|---:|---:|---:|---:|")
    for name, one in found.items():
        rates, ratios = one["rates"], [own / stock for own, stock in zip(one["rates"], base, strict=True)]
        cells = [spread(rates, ",.0f"), spread(ratios, ".2f"), "", ""]
        if trained:
            cells[2] = f"{metrics.score(one['counts'].sum(0)):.4f}"
            if name != REFERENCE:
                two = {REFERENCE: found[REFERENCE]["counts"][None], name: one["counts"][None]}
                difference = metrics.compare_models(two)[0]
                cells[3] = f"{difference.difference:.4f} ({difference.low:.4f} to {difference.high:.4f})"
        print(f"| {name} | {' | '.join(cells)} |")


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
