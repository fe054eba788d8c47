"""Questions trained in English and asked in six languages: the recipe, the stock way, and the recurrent reader.

    python benchmarks/split_xquad.py --data data/xquad --output_dir data/xquad_split
    ACCELERATE_MIXED_PRECISION=bf16 OMP_NUM_THREADS=1 python benchmarks/questions.py --data data/xquad_split \\
        --checkpoint CHECKPOINT --seeds 0,1,2 --lengths 384,96

Sides: `finetune`, the recipe; `stock`, `stock_questions.py`, from the same checkpoint with the same epochs, batches,
rate and warm-up; `bilstm`, the recurrent reader, whose word vectors start from the checkpoint's. The model of the
last epoch is tested. All answers are scored by the same function. The recipe must answer every question, or the run
fails. The stock way leaves a question without an answer if none of its pairs is a span. Each run is written to
questions.json, beside this file, as soon as it is done, and is not run again. `--sides finetune-whole-softmax` is the
recipe whose softmax in training also covers the question, as the stock way's does: it shows what that alone changes.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from stock_questions import stock_questions

import finetune
from finetune import data, metrics
from finetune.arguments import DataArguments
from finetune.models import spans
from recipes.question_answering import QuestionConfig, finetune_questions

LANGUAGES = ("en", "de", "es", "ru", "zh", "ar")
SETTINGS = {
    "num_train_epochs": 2,
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 8,
    "train_sampling_strategy": "group_by_length",  # so that the stock way pads less, and takes half the time
    "warmup_steps": 0.1,
}
READER = {"num_train_epochs": 10, "learning_rate": 2e-3, "per_device_train_batch_size": 16}
FILE = Path(__file__).parent / "questions.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--lengths", default="384,96")
    parser.add_argument("--sides", default="finetune,stock,bilstm")
    arguments = parser.parse_args()
    for length in map(int, arguments.lengths.split(",")):
        for seed in map(int, arguments.seeds.split(",")):
            for side in arguments.sides.split(","):
                if any((one["side"], one["length"], one["seed"]) == (side, length, seed) for one in runs()):
                    continue
                with multiprocessing.get_context("spawn").Pool(1) as fresh:
                    one = fresh.apply(run, (arguments.data, arguments.checkpoint, side, length, seed))
                print(json.dumps(one), flush=True)
                FILE.write_text(
                    json.dumps({"settings": SETTINGS, "reader": READER, "runs": [*runs(), one]}, indent=1) + "\n"
                )
    table()


def runs() -> list[dict[str, Any]]:
    """Those that are done."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text())["runs"] if FILE.exists() else []
    return found


def run(folder: Path, checkpoint: str, side: str, length: int, seed: int) -> dict[str, Any]:
    """Trains one side with one seed, and scores it on each language's test split."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    tests = {
        language: data.read_questions(DataArguments(train_file=str(folder / f"{language}.test.json")))["train"]
        for language in LANGUAGES
    }
    if side == "stock":
        train = data.read_questions(DataArguments(train_file=str(folder / "en.train.json")))["train"]
        answers, seconds = stock_questions(
            train, tests, checkpoint, max_length=length, doc_stride=length // 3, bf16=precision == "bf16",
            seed=seed, **SETTINGS,
        )  # fmt: skip
    else:
        answers, seconds = ours(folder, checkpoint, side, length, seed, tests)
    one: dict[str, Any] = {"side": side, "length": length, "seed": seed, "precision": precision}
    for language, split in tests.items():
        gold, said = split["answers"][:], answers[language]
        answered = sum(map(bool, said))
        if len(said) != len(gold) or (side != "stock" and answered < len(gold)):
            raise ValueError(f"{side}, {language}: {len(gold)} questions, {answered} answers")
        scores = metrics.answer_scores(metrics.answer_counts(gold, said).sum(0))
        one[language] = {"exact_match": scores["exact_match"], "f1": scores["f1"], "answered": answered}
    return one | {"train_runtime": seconds}


def ours(
    folder: Path, checkpoint: str, side: str, length: int, seed: int, tests: dict[str, Any]
) -> tuple[dict[str, list[str]], float]:
    """The answers of the recipe's model, and the seconds of its training."""
    own: dict[str, Any] = {"model_name_or_path": checkpoint} | SETTINGS
    if side == "finetune-whole-softmax":
        softmax_over_all()
    if side == "bilstm":
        own = {"model_name_or_path": side, "embeddings": checkpoint} | READER
    with tempfile.TemporaryDirectory() as place:
        config = QuestionConfig(
            train_file=str(folder / "en.train.json"), test_file=str(folder / "en.test.json"), output_dir=place,
            max_seq_length=length, seed=seed, eval_strategy="no", save_strategy="no", disable_tqdm=True, **own,
        )  # fmt: skip
        results = finetune_questions(config).results
        answer = finetune.load_predictor(place)
        answers = {
            language: [
                found["answer"] for found in answer(list(zip(split["question"][:], split["context"][:], strict=True)))
            ]
            for language, split in tests.items()
        }
        predicted = json.loads((Path(place) / "predictions_test.json").read_text(encoding="utf-8"))
        if answers["en"] != list(predicted.values()):
            raise ValueError("predict and the evaluation answer differently")
    return answers, results["train_runtime"]


def softmax_over_all() -> None:
    """In training, the softmax of starts and ends covers the question and the separators, too, as the stock way's."""

    def forward(
        self: Any, input_ids: Any = None, attention_mask: Any = None, passage: Any = None,
        start_positions: Any = None, end_positions: Any = None, **inputs: Any,
    ) -> Any:  # fmt: skip
        training = start_positions is not None and self.training
        return within(
            self, input_ids=input_ids, attention_mask=attention_mask, passage=None if training else passage,
            start_positions=start_positions, end_positions=end_positions, **inputs,
        )  # fmt: skip

    within = spans._forward
    spans._forward = forward  # type: ignore[assignment]


def table() -> None:
    """Prints mean and standard deviation over the seeds."""
    print(f"\n| length | side | seeds | {' | '.join(LANGUAGES)} |\n|---:|---|---:|{'---:|' * len(LANGUAGES)}")
    for length, side in sorted({(one["length"], one["side"]) for one in runs()}, reverse=True):
        some = [one for one in runs() if (one["length"], one["side"]) == (length, side)]
        cells = []
        for language in LANGUAGES:
            pairs = [spread([one[language][key] for one in some]) for key in ("exact_match", "f1")]
            cells.append("; ".join(pairs))
        print(f"| {length} | {side} | {len(some)} | {' | '.join(cells)} |")


def spread(scores: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(scores):.3f}" + (f" ± {np.std(scores, ddof=1):.3f}" if len(scores) > 1 else "")


if __name__ == "__main__":
    main()
