"""Distillation: a small transformer or a recurrent baseline learns from a fine-tuned teacher, for words or for texts.

python recipes/sentiment.py --dataset_name samples --output_dir runs/teacher
python recipes/distil.py --teacher runs/teacher --dataset_name samples --model_name_or_path bilstm \\
    --output_dir runs/student
python recipes/distil.py --teacher runs/teacher --dataset_name samples --model_name_or_path bilstm \\
    --unlabeled_file reviews.txt --distil_alpha 0.2 --output_dir runs/student

from recipes.distil import DistilConfig, distil
distil(DistilConfig(teacher="runs/teacher", dataset_name="samples", model_name_or_path="bilstm", output_dir="runs/s"))
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from finetune import cli, distillation, models, stages, tasks, teachers, training
from finetune.arguments import (
    DataArguments,
    ModelArguments,
    TeacherArguments,
    TextFileArguments,
    TrainingArguments,
    WordFileArguments,
    flag,
)
from finetune.from_python import documented, names_of_python


@documented
@dataclass
class DistilConfig(
    TrainingArguments, TeacherArguments, ModelArguments, WordFileArguments, TextFileArguments, DataArguments
):
    """All flags of this recipe."""

    text_column_name: str | None = flag(
        None, "Column of the texts, or of the words [text, tokens; as in ner and sentiment].", "--word_column"
    )
    label_column_name: str | None = flag(
        None, "Column of the labels [label, ner_tags; as in ner and sentiment].", "--tag_column"
    )
    text_pair_column_name: str | None = flag(None, "Texts: column of the second texts, for pairs of texts.")
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = flag(
        None, "Texts: whether a text has one label, several labels, or a number [as the teacher]."
    )
    label_separator: str | None = flag(None, "Texts: the character between labels, if a cell has several.")
    long_texts: Literal["cut", "window"] = flag("cut", "Texts longer than max_seq_length, as in sentiment.")
    pooling: Literal["mean", "max", "last", "attention"] = flag(
        "attention", "Texts, baselines: how the vectors of the words become one vector."
    )
    tagging: Literal["auto", "plain", "entities"] = flag("auto", "Words: what the tags are, as in ner.")
    label_all_tokens: bool = flag(False, "Words: train on the labels of all subwords, not only of the first one.")
    doc_stride: int | None = flag(None, "Words: number of subwords that neighbouring windows share [half a window].")
    head: Literal["linear", "crf"] = flag("linear", "Words: crf: a CRF also learns which tag follows which.")
    decoding: Literal["argmax", "viterbi"] = flag("argmax", "Words: viterbi: tags that fit together, as in ner.")


@names_of_python
def distil(config: DistilConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains, evaluates and saves a student.

    Args:
        data: rows from Python instead of files, as in the other recipes.

    Raises:
        ValueError: for a mistake that the user can correct.
    """
    # 1. Start the run, and read its data, and the text without labels. The task is that of the teacher.
    found = teachers.find_teachers(config.teacher)
    task = tasks.of_head(found[0].head)
    job = stages.begin(distillation.resolved(config, found), task, data)
    config = job.config
    lesson = distillation.begin(job, found)

    # 2. Let the teacher answer, or find its answers on the disk. Then load the student and its tokenizer.
    distillation.ask(lesson)

    def load() -> Any:
        return models.load(
            found[0].head,
            config,
            job.labels,
            words=lesson.words(),
            max_seq_length=config.max_seq_length,
            head=config.head,
            pooling=config.pooling,
            pairs=config.text_pair_column_name is not None,
            start=lesson.start,
        )

    model, tokenizer = load()
    distillation.set_loss(lesson, model)

    # 3. Turn words into subwords, without padding. The teacher's answers stand beside them.
    stages.encode(job, model, tokenizer, partial(distillation.with_teachers, lesson, tokenizer=tokenizer))

    # 4. Train, and evaluate as often as the flags say. If the run collapses, begin again.
    outcome = stages.fit(job, model, load)

    # 5. Save the student, its predictions on the evaluation splits, its scores and its card.
    return stages.report(job, outcome)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(DistilConfig, argv)
    cli.run(distil, config)


if __name__ == "__main__":
    main()
