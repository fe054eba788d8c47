"""Verify a run: recompute its scores from its predictions, its data and its model, and compare them with its card.

python recipes/verify.py --model_name_or_path runs/ner
python recipes/verify.py --model_name_or_path runs/ner --train_file /new/place/train.conll

The exit status is 1 if something does not follow; docs/verify.md says what is compared, and how exactly.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune import cli, config_files, metrics, models, stages, tasks, training, verification
from finetune import data as texts  # `data` is what comes from Python
from finetune.arguments import ModelArguments, flag
from finetune.files import printable
from finetune.from_python import documented, names_of_python, typed
from finetune.verification import Report
from recipes import distil, language_model, ner, pretrain, question_answering, sentiment, seq2seq

# Takes a job without a model, and the folder of its run. Returns the model with the run's loss, and its tokenizer.
Load = Callable[[Any, Path], tuple[Any, Any]]


@documented
@dataclass
class VerifyConfig:
    """All flags of this recipe."""

    model_name_or_path: str | None = flag(None, "The folder of a finished run.")
    train_file: str | None = flag(None, "Training data, where it is now [the run's].")
    validation_file: str | None = flag(None, "Validation data, where it is now [the run's].")
    test_file: str | None = flag(None, "Test data, where it is now [the run's].")
    max_difference: float | None = flag(
        None,
        "How far a score of the model may be from what the run says, and which share of its answers may differ "
        "[0.00001, and no answer; 0.01 on a GPU or in another precision than float32].",
    )


@names_of_python
def verify(config: VerifyConfig, data: Mapping[str, Any] | None = None) -> Report:
    """Recomputes the scores of a run, prints what it finds, and returns it.

    Args:
        data: for a run on rows from Python: the same rows.

    Raises:
        ValueError: if the folder is not that of a finished run.
    """
    # 1. What the run says of itself, and the flags that it had.
    folder = check(config)
    report = verification.read(folder)
    recipe, flags = flags_of_run(config, report)
    task = getattr(tasks, recipe.task or ("classification" if flags.problem_type else "tagging"))

    # 2. The card against the results, and the scores from the predictions alone.
    verification.check_card(report, stages.asked(task, "notes", report.stored) if report.stored else ())
    if report.stored:
        verification.check_predictions(report, task)

    # 3. The data, and the model on this data.
    splits = read_data(report, flags, task, data)
    if splits and report.stored:
        accelerator = machinery(config, report)
        if recipe.load is None:
            check_pretraining(report, flags, splits, accelerator)
        else:
            check_model(report, flags, task, splits, accelerator, recipe.load)

    print(printable(verification.as_text(report)))
    return report


def check(config: VerifyConfig) -> Path:
    """Refuses flags that cannot be meant, and returns the folder of the run."""
    if config.model_name_or_path is None:
        raise ValueError("--model_name_or_path is missing: give the folder of a finished run")
    folder = Path(config.model_name_or_path)
    if not folder.is_dir():
        raise ValueError(f"--model_name_or_path {folder}: no such folder; give the folder of a finished run")
    if config.max_difference is not None and not 0 <= config.max_difference < 1:
        raise ValueError(f"--max_difference {config.max_difference}: must be at least 0 and below 1")
    return folder


def flags_of_run(config: VerifyConfig, report: Report) -> tuple[Recipe, Any]:
    """The recipe whose flags `run.yaml` has, and its config with their values.

    Raises:
        ValueError: if there is no such file, if it has not the flags of a recipe, or a value that no flag has.
    """
    file = report.folder / "run.yaml"
    if not file.is_file():
        raise ValueError(f"{file}: no such file; give the folder of a finished run")
    written = config_files.read_settings(file)
    known = {name: {own.name for own in fields(recipe.config)} for name, recipe in RECIPES.items()}
    name = min(known, key=lambda name: len(known[name] ^ written.keys()))
    if len(known[name] & written.keys()) < len(known[name]) / 2:
        raise ValueError(f"{file}: not the flags of one of the recipes {', '.join(RECIPES)}")
    if unknown := sorted(written.keys() - known[name]):
        report.notes.append(f"run.yaml has flags that this version does not know: {', '.join(unknown)}")
    flags = RECIPES[name].config(**{key: value for key, value in written.items() if key in known[name]})
    moved = {key: getattr(config, key) for key in ("train_file", "validation_file", "test_file")}
    try:
        return RECIPES[name], replace(typed(flags), **{key: value for key, value in moved.items() if value})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_data(report: Report, flags: Any, task: Any, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """The splits of the run; {} if they cannot be read, which the report then says."""
    if data is None and flags.dataset_name is None and flags.train_file is None:
        report.notes.append("the run had rows from Python, so that neither they nor the model were checked")
        return {}
    try:
        return dict(task.read(flags, data) if hasattr(task, "read") else texts.read_corpus(flags, data))
    except (ValueError, OSError) as error:
        report.notes.append(f"the data cannot be read, so that neither it nor the model was checked: {error}")
        return {}


def machinery(config: VerifyConfig, report: Report) -> Any:
    """Accelerate, on the device that is here. Sets how exactly the model must repeat what the run says."""
    from accelerate import Accelerator
    from torch import accelerator as hardware

    here = Accelerator(cpu=not hardware.is_available())
    first = (report.folder / "run.yaml").read_text(encoding="utf-8").partition("\n")[0]
    as_here = re.fullmatch(r"# mixed precision no, .*, on a cpu", first) and here.device.type == "cpu"
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if config.max_difference is not None:
        report.limit = report.share = config.max_difference
    elif not as_here or precision != "no":
        report.limit = report.share = verification.OTHER_MACHINERY
    return here


def check_model(
    report: Report, flags: Any, task: Any, splits: Mapping[str, Any], accelerator: Any, load: Load
) -> None:
    """Compares the predictions with the data. Then evaluates the model again where they agree."""
    if task.labels(splits) != report.labels:
        report.problems.append("the model has other labels than the training data; so it was not evaluated")
        return
    flags = replace(flags, model_name_or_path=str(report.folder))
    job = verification.again(flags, task, splits, report, accelerator)
    model, job.tokenizer = load(job, report.folder)
    model = training.prepare_to_predict(model, accelerator.device)
    report.from_model["total_parameters"] = sum(own.numel() for own in model.parameters())
    for split, name in stages.SPLITS:
        if split in splits and verification.same_gold(report, task, name, splits[split]):
            job.encoded[split] = task.encode(splits[split], job.tokenizer, job.labels, flags)
            job.gold[split] = task.gold(splits[split], job.labels)
            verification.check_model(report, job, model, split, name)


def load_labelling(job: stages.Job, folder: Path, column: str | None) -> tuple[Any, Any]:
    """A model of `recipes/ner.py`, `sentiment.py` or `question_answering.py`, with the loss of its run."""
    arguments = ModelArguments(model_name_or_path=str(folder), padding_free=job.config.padding_free)
    _, _, model, tokenizer = models.load_finetuned(arguments, max_seq_length=job.config.max_seq_length)
    if column is not None:
        stages.set_loss(job, model, column)
    return model, tokenizer


def load_student(job: stages.Job, folder: Path) -> tuple[Any, Any]:
    """A model of `recipes/distil.py`. In an evaluation, no answers of its teacher count."""
    model, tokenizer = load_labelling(job, folder, None)
    kind = job.settings.get("problem_type", "single_label_classification")
    return models.set_loss(model, problem_type=kind), tokenizer


def load_text_to_text(job: stages.Job, folder: Path) -> tuple[Any, Any]:
    """A model of `recipes/seq2seq.py`. How it decodes is saved with it."""
    model, tokenizers = load_labelling(job, folder, None)
    models.set_target_loss(model, label_smoothing=job.config.label_smoothing_factor)
    return model, tokenizers


def load_language_model(job: stages.Job, folder: Path) -> tuple[Any, Any]:
    """A model of `recipes/language_model.py`."""
    tokenizer = models.tokenizer_for_language_model(
        lambda: (), name=str(folder), revision="main", tokenizer_name=None, vocab_size=job.config.vocab_size
    )
    return models.load_language_model(job.config, tokenizer), tokenizer


def check_pretraining(report: Report, flags: Any, splits: Mapping[str, Any], accelerator: Any) -> None:
    """Evaluates a model of `recipes/pretrain.py` again, on the same masks. It writes no predictions."""
    from finetune.tasks import masked

    name = str(report.folder)
    config = replace(flags, model_name_or_path=name, config_name=None, tokenizer_name=None)
    shape = dict.fromkeys((*models.SHAPE, "dropout"))
    tokenizer = models.load_tokenizer(name)
    documents = {split: [texts.tokenize(corpus, tokenizer) for corpus in parts] for split, parts in splits.items()}
    counts = texts.unigram_counts(documents["train"], len(tokenizer))
    model = pretrain.load_model(replace(config, **shape), tokenizer, counts)
    rows = pretrain.rows_of(config, documents, tokenizer, model)
    model = training.prepare_to_predict(model, accelerator.device)
    report.from_model["unigram_entropy"] = metrics.unigram_entropy(counts)
    report.from_model["total_parameters"] = sum(own.numel() for own in model.parameters())
    for split, prefix in stages.SPLITS:
        if split in splits:
            scores = masked.evaluate(accelerator, tokenizer, rows, config, model, split, prefix)
            scores.pop(f"{prefix}_runtime")
            report.from_model |= scores


@dataclass(frozen=True)
class Recipe:
    """A recipe whose runs can be verified."""

    config: Any  # the class of its flags
    task: str | None  # of `finetune.tasks`; None: that of the teacher
    load: Load | None  # None: it has no `stages.Job`


RECIPES: dict[str, Recipe] = {
    "ner": Recipe(ner.NerConfig, "tagging", partial(load_labelling, column="ner_tags")),
    "sentiment": Recipe(sentiment.SentimentConfig, "classification", partial(load_labelling, column="label")),
    "qa": Recipe(question_answering.QuestionConfig, "questions", partial(load_labelling, column=None)),
    "distil": Recipe(distil.DistilConfig, None, load_student),
    "seq2seq": Recipe(seq2seq.Seq2SeqConfig, "seq2seq", load_text_to_text),
    "language-model": Recipe(language_model.LanguageModelConfig, "next_word", load_language_model),
    "pretrain": Recipe(pretrain.PretrainConfig, "masked", None),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    if not cli.run(verify, cli.parse(VerifyConfig, argv)).follows:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
