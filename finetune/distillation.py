"""Distillation: a student learns from the outputs of teachers, on texts with labels and on texts without.

`finetune/models/distilled_loss.py` explains the loss, `finetune/teachers.py` where the outputs come from.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from finetune import data, models, stages, tasks
from finetune.arguments import WordFileArguments
from finetune.data.messages import listed
from finetune.teachers import Teacher, outputs

logger = logging.getLogger(__name__)

TEMPERATURE = 2.0
_AT_ONCE = 2**18  # targets
_NUMBER = "regression"
_OF_WORDS: tuple[str, ...] = ("tagging", "label_all_tokens", "doc_stride", "head", "decoding")
_OF_WORDS += tuple(own.name for own in fields(WordFileArguments))
_OF_TEXTS = ("text_pair_column_name", "problem_type", "label_separator", "long_texts", "pooling")


def resolved(config: Any, teachers: Sequence[Teacher]) -> Any:
    """The config with the defaults of its student and of the task of its teachers.

    Raises:
        ValueError: for flags that make no sense, that the student does not use, or that are for another task.
    """
    teacher = teachers[0]
    words = tasks.taught(teacher.head).WORDS
    _check_flags(config, words)
    numbers = not words and teacher.problem_type == _NUMBER
    if numbers and config.temperature is not None:
        raise ValueError(f"--temperature {config.temperature:g}: the teacher gives numbers, which have none")
    if config.problem_type not in (None, teacher.problem_type):
        raise ValueError(f"--problem_type {config.problem_type}: the teacher was trained for {teacher.problem_type}")
    config = replace(
        config,
        text_column_name=config.text_column_name or ("tokens" if words else "text"),
        label_column_name=config.label_column_name or ("ner_tags" if words else "label"),
        problem_type=None if words else teacher.problem_type,
        temperature=None if numbers else TEMPERATURE if config.temperature is None else config.temperature,
    )
    return stages.with_defaults(config)


def _check_flags(config: Any, words: bool) -> None:
    if config.temperature is not None and not 0 < config.temperature < float("inf"):
        raise ValueError(f"--temperature {config.temperature:g}: must be greater than 0")
    if not 0 <= config.distil_alpha <= 1:
        raise ValueError(f"--distil_alpha {config.distil_alpha:g}: must be from 0 to 1")
    others = set(_OF_TEXTS if words else _OF_WORDS)
    given = [own.name for own in fields(config) if own.name in others and getattr(config, own.name) != own.default]
    if given:
        kinds = ("words", "texts") if words else ("texts", "words")
        raise ValueError(
            f"{', '.join(f'--{name}' for name in given)}: the teacher labels {kinds[0]}, and this is for a teacher "
            f"that labels {kinds[1]}; leave it out"
        )


@dataclass
class Lesson:
    """What a student learns from."""

    job: stages.Job
    teachers: list[Teacher]
    taught: Any  # a module as `finetune/tasks/taught_words.py`
    unlabeled: list[Any]  # samples without labels
    orders: list[np.ndarray]  # for each teacher, which of its outputs belongs to each label of the student
    sides: dict[str, list[np.ndarray]] = field(
        default_factory=dict
    )  # outputs of each teacher for each list of samples

    @property
    def problem_type(self) -> Any:
        """What the outputs are."""
        return self.job.settings.get("problem_type", "single_label_classification")

    @property
    def start(self) -> list[float] | None:
        """Where the bias of a new head begins, as in the recipe of the task."""
        return None if self.taught.WORDS else self.job.task.start(self.job.splits["train"])

    def words(self) -> Iterable[str]:
        """What a baseline's vocabulary is made from: the words or texts of both kinds of samples."""
        more = itertools.chain.from_iterable(s if isinstance(s, (list, tuple)) else (s,) for s in self.unlabeled)
        return itertools.chain(self.job.task.words(self.job.splits["train"]), more)


def begin(job: stages.Job, teachers: Sequence[Teacher]) -> Lesson:
    """Reads the text without labels, and checks that teachers and student have the same labels.

    Raises:
        ValueError: for a mistake that the user can correct.
    """
    config, taught = job.config, tasks.taught(teachers[0].head)
    found = job.settings.get("problem_type", teachers[0].problem_type)
    if found != teachers[0].problem_type and not taught.WORDS:
        raise ValueError(
            f"--teacher {teachers[0].folder}: trained for {teachers[0].problem_type}, and the data is {found}"
        )
    orders = [_order(teacher, job.labels) for teacher in teachers]
    samples: list[Any] = []
    if config.unlabeled_file is not None:
        # Of other files, the name of a column says nothing about a column file.
        named = not taught.WORDS or str(config.train_file).lower().endswith(data.CONLL_ENDINGS)
        samples = data.read_unlabeled(
            config.unlabeled_file,
            words=taught.WORDS,
            text_column=config.text_column_name if named else "tokens",
            pair_column=config.text_pair_column_name,
            column_names=config.column_names,
            encoding=config.encoding,
            delimiter=config.delimiter,
        )
        _tell_of_evaluation_texts(job, taught, samples)
    return Lesson(job, list(teachers), taught, samples, orders)


def _order(teacher: Teacher, labels: Sequence[str]) -> np.ndarray:
    if teacher.problem_type == _NUMBER:
        return np.zeros(1, np.int64)
    theirs, ours = set(teacher.labels), set(labels)
    told = [
        f"only {who} has {listed(sorted(own))}"
        for who, own in (("the teacher", theirs - ours), ("the training data", ours - theirs))
        if own
    ]
    if told:
        raise ValueError(f"--teacher {teacher.folder}: other labels than the training data: {'; '.join(told)}")
    return np.array([teacher.labels.index(label) for label in labels])


def _tell_of_evaluation_texts(job: stages.Job, taught: Any, samples: Sequence[Any]) -> None:
    """Warns if texts without labels are also texts that the student is evaluated on."""

    def key(sample: Any) -> Any:
        return tuple(sample) if isinstance(sample, list) else sample

    known = set(map(key, samples))
    for split in ("validation", "test"):
        if split in job.splits and (
            same := sum(key(sample) in known for sample in taught.samples(job.splits[split]))
        ):
            logger.warning(
                "--unlabeled_file %s: %s of the %s texts of the %s split are in it; the student sees these texts, "
                "though not their labels",
                *(job.config.unlabeled_file, f"{same:,}", f"{len(job.splits[split]):,}", split),
            )


def ask(lesson: Lesson) -> None:
    """Lets the teachers answer, or finds their answers on the disk."""
    job = lesson.job
    lists = {"train": lesson.taught.samples(job.splits["train"])}
    if lesson.unlabeled:
        lists["unlabeled"] = lesson.unlabeled
    for teacher in lesson.teachers:
        for name, samples in lists.items():
            found = outputs(
                *(teacher, samples, job.run, job.config.teacher_cache),
                batch_size=job.config.per_device_eval_batch_size,
            )
            lesson.sides.setdefault(name, []).append(found)


@dataclass(frozen=True)
class TaughtRows:
    """The rows of a training split with the outputs of the teachers."""

    rows: data.Rows
    told: str

    def __str__(self) -> str:
        return self.told


def with_teachers(lesson: Lesson, encoded: Any, tokenizer: Any) -> TaughtRows:
    """Adds the outputs of the teachers to the rows of the training split, and the rows of the text without labels.

    Args:
        encoded: the training split, as the task encodes it.
    """
    job, taught = lesson.job, lesson.taught
    rows = taught.with_teacher(encoded.rows, encoded, _sides(lesson, "train"), lesson.orders)
    told = str(encoded)
    if lesson.unlabeled:
        more = taught.encode(lesson.unlabeled, tokenizer, job.config)
        own = taught.unlabeled(more, lesson.problem_type, len(job.labels))
        own = taught.with_teacher(own, more, _sides(lesson, "unlabeled"), lesson.orders)
        told += (
            f"\nwithout labels: {len(lesson.unlabeled):,} {'sentences' if taught.WORDS else 'texts'}, "
            f"{int(own.offsets[-1]):,} subwords"
        )
        rows = data.joined(rows, own)
    if job.blind_loss is None:
        job.blind_loss = _blind_loss(lesson, rows)
    return TaughtRows(rows, told)


def _blind_loss(lesson: Lesson, rows: data.Rows) -> float:
    """The loss of a collapsed run; 0 if it is not known. It is known where a target has one label, without a CRF."""
    config: Any = lesson.job.config
    if lesson.problem_type != "single_label_classification":
        return 0.0
    columns = rows.tokens if lesson.taught.WORDS else rows.samples
    column, labels = columns["teacher"], columns["labels"]
    return models.blind_distilled_loss(
        labels,
        (column[at : at + _AT_ONCE] for at in range(0, len(labels), _AT_ONCE)),
        temperature=config.temperature,
        alpha=config.distil_alpha,
    )


def _sides(lesson: Lesson, name: str) -> list[list[np.ndarray]]:
    return [[table] for table in lesson.sides[name]]


def set_loss(lesson: Lesson, model: Any) -> None:
    """Gives the student the loss of `finetune.models.set_distilled_loss`, and tells the model card of it."""
    job, config, problem = lesson.job, lesson.job.config, lesson.problem_type
    if lesson.taught.WORDS:
        job.task.check_flags(model, config)
    models.set_distilled_loss(
        model, problem_type=problem, temperature=config.temperature or 1.0, alpha=config.distil_alpha
    )

    def targets(inputs: Mapping[str, Any]) -> dict[str, float]:
        if "teacher" not in inputs:  # an evaluation
            found: dict[str, float] = job.task.targets(inputs)
            return found
        return {"loss": models.distilled_targets(inputs["labels"], inputs["teacher"], problem)}

    job.targets = targets
    job.blind_loss = 0.0 if hasattr(model, "crf") else None
    names = ", ".join(f"`{teacher.folder.resolve().name}`" for teacher in lesson.teachers)
    told = "" if config.temperature is None else f"temperature {config.temperature:g}, "
    more = f", and on {len(lesson.unlabeled):,} texts without labels" if lesson.unlabeled else ""
    job.events.append(f"distilled from {names}: {told}share of the labels {config.distil_alpha:g}{more}")
