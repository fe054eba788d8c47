"""Checks a data set before a model is trained on it: duplicates, contradictions, distributions, suspicious labels.

python recipes/check_data.py --task ner --dataset_name samples
python recipes/check_data.py --task sentiment --train_file train.csv --test_file test.csv --run runs/sentiment
python recipes/check_data.py --task ner --train_file train.conll --label_errors --output_dir runs/check
python recipes/check_data.py --apply runs/check/patch.jsonl --output_dir corrected

You may add all flags of the task's recipe that say what the data is, which tokenizer reads it, and how a network is
trained for --label_errors. Tables with ! have something to look at. Files of the data are never changed.

from recipes.check_data import CheckConfig, check
from recipes.ner import NerConfig
found = check(CheckConfig(NerConfig(train_file="train.conll", test_file="test.conll")))
found["duplicates"]["numbers"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune import cli, reporting
from finetune.files import printable
from finetune.from_python import names_of_python
from recipes import ner, question_answering, sentiment, seq2seq
from recipes.__main__ import module_of

# task -> the class of its recipe's flags, and what trains a network for --label_errors, if that is possible
RECIPES: dict[str, tuple[Any, Callable[..., Any] | None]] = {
    "ner": (ner.NerConfig, ner.finetune_ner),
    "sentiment": (sentiment.SentimentConfig, sentiment.finetune_sentiment),
    "question_answering": (question_answering.QuestionConfig, None),
    "seq2seq": (seq2seq.Seq2SeqConfig, None),
}


@dataclass
class CheckConfig:
    """The data to check, and how."""

    config: Any = None  # of the recipe that will train; None with `apply`
    output_dir: str = "runs/check"
    run: str | None = None
    similarity: float = 0.7
    min_examples: int = 10
    label_errors: bool = False
    folds: int = 5
    network: bool = False  # for label_errors, train the model of `config` instead of a linear one
    apply: str | None = None


@names_of_python
def check(config: CheckConfig, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Checks the data, or applies a patch. `finetune.check_data` explains what is checked.

    Args:
        data: rows from Python instead of files, as the recipes take them.

    Returns:
        The content of `data_check.json`; of a patch, the number of changes by the file that was written.

    Raises:
        ValueError: for a mistake that the user can correct.
    """
    from finetune import checking

    folder = Path(config.output_dir)
    if config.apply is not None:
        changed = checking.apply_patch(Path(config.apply), folder)
        for file, changes in changed.items():
            print(f"{file}: {changes:,} label(s) changed")
        return dict(changed)

    if config.label_errors:
        checking.keep_accepted(folder / "patch.jsonl")

    # 1. Read the data, and check it.
    trains = dict(RECIPES.values())
    report = checking.checked(
        config.config,
        data,
        run=config.run,
        similarity=config.similarity,
        min_examples=config.min_examples,
        label_errors=config.label_errors,
        folds=config.folds,
        train=trains.get(type(config.config)) if config.network else None,
    )

    # 2. Show the tables, and write the files.
    print(printable(reporting.data_check_table([asdict(section) for section in report.sections])))
    written = checking.write(folder, report, config.config)
    print(f"\n{', '.join(map(str, written))}")
    return report.as_json()


def options() -> argparse.ArgumentParser:
    """The parser of the flags that this command has beside those of the recipe."""
    parser = argparse.ArgumentParser(
        prog=cli.program(),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    own = "The recipe whose data it is [found from the name of the files]."
    add("--task", type=module_of, choices=list(RECIPES), help=own)
    add("--output_dir", default="runs/check", help="The folder for data_check.json, data_check.html, patch.jsonl.")
    add("--run", help="A run's folder: the test score without the samples that training has, too.")
    add("--similarity", type=float, default=0.7, help="The least Jaccard similarity of nearly equal texts [0.7].")
    add("--min_examples", type=int, default=10, help="A label with fewer training examples is rare [10].")
    add("--label_errors", action="store_true", help="Look for wrong labels with a model, and write patch.jsonl.")
    add("--folds", type=int, default=5, help="With --label_errors: models, each labels what it has not seen [5].")
    add(
        "--model_name_or_path",
        help="A checkpoint: its tokenizer is tried on the data. With --label_errors it is also trained, once for "
        "each fold; so is a baseline such as bilstm [a linear model, which needs seconds].",
    )
    add("--apply", metavar="patch.jsonl", help="Write the files that a patch corrects to --output_dir.")
    return parser


def parse(argv: Sequence[str] | None = None) -> CheckConfig:
    """Builds the config from the command line; the flags of the task's recipe may also come from a YAML file."""
    parser = options()
    own, words = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    given = {key: value for key, value in vars(own).items() if key not in ("task", "model_name_or_path")}
    if own.apply is not None:
        others = [f"--{key}" for key, value in vars(own).items() if value != parser.get_default(key)]
        others = [name for name in others if name not in ("--apply", "--output_dir")] + words
        if others:
            parser.error(f"{others[0]}: --apply takes --output_dir and no other flag")
        return CheckConfig(**given)
    model = own.model_name_or_path
    task = own.task or _task_of(words)
    if task is None:
        parser.error(f"--task: give one of {', '.join(RECIPES)}")
    if model is not None and own.label_errors and RECIPES[task][1] is None:
        parser.error(f"--label_errors: not for {task}, whose samples have no label of a few")
    words += [f"--model_name_or_path={model}"] if model is not None else []
    config = cli.parse(RECIPES[task][0], words)
    return CheckConfig(config, network=model is not None, **given)


def _task_of(words: Sequence[str]) -> str | None:
    """The task that the name of the training file, or a flag of the task, tells; None if it does not."""
    from finetune import data

    given = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, sign, value = word.partition("=")
        given[name] = value if sign else following
    if "--train_target_file" in given:
        return "seq2seq"
    if "--text_pair_column_name" in given:
        return "sentiment"
    file = Path(given.get("--train_file", ""))
    if file.suffix.lower() in data.CONLL_ENDINGS:
        return "ner"
    config = given.get("--config", "").partition("/")[0]
    return config if config in RECIPES else None


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    cli.run(check, parse(argv))


if __name__ == "__main__":
    main()
