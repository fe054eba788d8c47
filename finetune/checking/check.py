"""All checks of a data set, one after the other."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import importlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from finetune import reporting
from finetune.checking import consistency, distributions, duplicates, patches
from finetune.checking.samples import Samples, gather
from finetune.checking.sections import Section
from finetune.data.readings import keeping_readings

_TASKS = {
    "NerConfig": "tagging",
    "SentimentConfig": "classification",
    "QuestionConfig": "questions",
    "Seq2SeqConfig": "seq2seq",
}


@dataclass(frozen=True)
class Report:
    """What the checks found."""

    samples: Samples
    sections: list[Section]
    patch: list[dict[str, Any]]  # the lines of `patch.jsonl`; empty without `label_errors`

    def as_json(self) -> dict[str, Any]:
        """The content of `data_check.json`: of each section a title, a sentence, numbers, and rows."""
        return {section.name: section.as_json() for section in self.sections}


def check_data(
    config: Any,
    given: Mapping[str, Any] | None = None,
    *,
    output_dir: str | Path | None = None,
    run: str | Path | None = None,
    similarity: float = 0.7,
    min_examples: int = 10,
    label_errors: bool = False,
    folds: int = 5,
    train: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Checks a data set before a model is trained on it, and says what a person should look at.

    >>> from recipes.ner import NerConfig
    >>> check_data(NerConfig(train_file="train.conll", test_file="test.conll"))  # doctest: +SKIP

    Args:
        config: the config of the recipe that will train: `NerConfig`, `SentimentConfig`, `QuestionConfig` or
            `Seq2SeqConfig`. It names the data, the tokenizer and `max_seq_length`.
        given: rows from Python instead of files, as the recipes take them.
        output_dir: a folder for `data_check.json`, `data_check.html` and, with `label_errors`, `patch.jsonl`; None
            writes nothing.
        run: the folder of a run with predictions of the test split; the score is also told without the samples that
            training has.
        similarity: the least Jaccard similarity of two texts that count as nearly equal.
        min_examples: a label with fewer training examples is told as rare.
        label_errors: look for wrong labels with a model; this takes longer.
        folds: the number of models for `label_errors`. Each labels the samples that it has not seen.
        train: trains a network, as `recipes.ner.finetune_ner` does; None: a linear model, which takes seconds.

    Returns:
        The content of `data_check.json`.

    Raises:
        ValueError: for a mistake that the user can correct.
    """
    if output_dir is not None and label_errors:
        patches.keep_accepted(Path(output_dir) / "patch.jsonl")
    report = checked(
        config,
        given,
        run=run,
        similarity=similarity,
        min_examples=min_examples,
        label_errors=label_errors,
        folds=folds,
        train=train,
    )
    if output_dir is not None:
        write(Path(output_dir), report, config)
    return report.as_json()


def checked(
    config: Any,
    given: Mapping[str, Any] | None = None,
    *,
    run: str | Path | None = None,
    similarity: float = 0.7,
    min_examples: int = 10,
    label_errors: bool = False,
    folds: int = 5,
    train: Callable[..., Any] | None = None,
) -> Report:
    """As `check_data`, but writes nothing."""
    if not is_dataclass(config) or type(config).__name__ not in _TASKS:
        raise ValueError(f"config is {type(config).__name__}; give one of {', '.join(_TASKS)}")
    if min_examples < 0:
        raise ValueError(f"--min_examples {min_examples}: must be at least 0")
    task = importlib.import_module(f"finetune.tasks.{_TASKS[type(config).__name__]}")
    config = replace(config, eval_strategy="no")  # type: ignore[type-var]  # nothing is held out
    with keeping_readings() as readings:
        splits = task.read(config) if given is None else task.read(config, given)
    finished = None if run is None else _finished(config, task, splits, Path(run))
    samples = gather(splits, task.PIPELINE, similarity)
    sections = [
        duplicates.duplicates(samples, similarity),
        duplicates.score_without(samples, finished),
        duplicates.contradictions(samples),
        *consistency.of_words(samples),
        *distributions.of_labels(samples, min_examples),
        *_of_tokenizer(samples, config),
        duplicates.pairs_shown(samples),
    ]
    patch: list[dict[str, Any]] = []
    if label_errors:
        section, patch = _label_errors(samples, readings, config, folds, train)
        sections.insert(0, section)
    return Report(samples, [section for section in sections if section is not None], patch)


def _label_errors(
    samples: Samples, readings: Mapping[str, Any], config: Any, folds: int, train: Callable[..., Any] | None
) -> tuple[Section, list[dict[str, Any]]]:
    from finetune.checking import suspicious

    with tempfile.TemporaryDirectory(prefix="finetune-check-") as folder:
        own = None if train is None else suspicious.network(config, train, Path(folder))
        found = suspicious.suspicions(samples, folds, own)
    model = "a linear model" if train is None else config.model_name_or_path
    return suspicious.section(samples, found, model), suspicious.records(samples, found, readings)


def _of_tokenizer(samples: Samples, config: Any) -> list[Section]:
    from finetune.checking import tokens

    found = tokens.of_tokenizer(samples, config)
    return [] if found is None else [found]


def _finished(config: Any, task: Any, splits: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a run said of its test split, or of its validation split if it has no test split."""
    from finetune.comparison import runs

    split, name = next(
        ((split, name) for split, name in (("test", "test"), ("validation", "eval")) if split in splits), (None, None)
    )
    if split is None or name is None:
        raise ValueError(f"--run {folder}: its predictions need the split that they are of; give --test_file")
    if not (folder / "all_results.json").is_file():
        raise ValueError(f"--run {folder}: no finished run; a run's folder has all_results.json")
    run = runs.read_run(replace(config, output_dir=str(folder)), name, task)
    runs.check_data(run, splits[split], task)
    compared = task.compared({"run": {0: run}}, splits)
    return {
        "folder": str(folder),
        "split": split,
        "metric": compared["metric"],
        "counts": compared["counts"]["run"][0],
        "score": compared["score"],
    }


def write(folder: Path, report: Report, config: Any) -> list[Path]:
    """Writes `data_check.json`, `data_check.html` and a patch if there is one, and returns their paths."""
    name = config.dataset_name or Path(config.train_file or "data from Python").name
    sections = [asdict(section) for section in report.sections]
    reporting.write_data_check(folder, name, sections, report.as_json())
    written = [folder / "data_check.json", folder / "data_check.html"]
    if report.patch:
        written.append(folder / "patch.jsonl")
        patches.write_patch(written[-1], report.patch)
    return written
