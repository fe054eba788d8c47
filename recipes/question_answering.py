"""Questions about passages: fine-tune BERT, RoBERTa or XLM-R, or train a recurrent reader.

python recipes/question_answering.py --dataset_name samples --output_dir runs/questions
python recipes/question_answering.py --train_file train.json --validation_file dev.json --output_dir runs/squad
python recipes/question_answering.py --train_file train.json --validation_file dev.json --model_name_or_path bilstm
accelerate launch --num_processes 2 --cpu recipes/question_answering.py --train_file train.json ...

from recipes.question_answering import QuestionConfig, finetune_questions
result = finetune_questions(QuestionConfig(train_file="train.json", validation_file="dev.json"))
result.results["eval_f1"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune import cli, models, stages, training
from finetune.arguments import DataArguments, FoldArguments, ModelArguments, TrainingArguments, flag
from finetune.from_python import documented, names_of_python


@documented
@dataclass
class QuestionConfig(TrainingArguments, ModelArguments, FoldArguments, DataArguments):
    """All flags of this recipe."""

    question_column_name: str = flag("question", "The column of a table that holds the questions.")
    context_column_name: str = flag("context", "The column of a table that holds the passages.")
    answer_column_name: str = flag("answers", "The column of a table that holds the answers.")
    max_seq_length: int = flag(384, "Subwords of question and passage in one window, special tokens included.")
    doc_stride: int | None = flag(None, "Subwords of the passage that neighbouring windows share [half a window].")
    max_answer_length: int = flag(30, "The longest answer that is predicted, in subwords.")
    null_score_diff_threshold: float | None = flag(
        None,
        "Give an answer if its log-odds against no answer are above this [tuned on the validation split; without one "
        "0, or no limit if all training questions have an answer].",
    )


def resolved(config: QuestionConfig) -> QuestionConfig:
    """The config with the defaults of its model. Raises ValueError for flags that this model has no use for."""
    threshold = config.null_score_diff_threshold
    if config.max_answer_length < 1:
        raise ValueError(f"--max_answer_length {config.max_answer_length}: must be at least 1")
    if threshold is not None and math.isnan(threshold):
        raise ValueError("--null_score_diff_threshold nan: must be a number")
    training.refuse_on_collapse(config)
    resolved: QuestionConfig = stages.with_defaults(config)
    return resolved


@names_of_python
def finetune_questions(config: QuestionConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains, evaluates and saves a reader.

    Args:
        data: rows from Python instead of files: for `train`, `validation` and `test` a `datasets.Dataset`, a frame of
            pandas or polars, or a list with a dict for each row.

    Raises:
        ValueError: for what a user can mend.
    """
    from finetune.tasks import questions as task

    # 1. The run (processes, precision, seed, a folder that holds nothing else), and its data.
    job = stages.begin(resolved(config), task, data)
    config = job.config

    # 2. The model and its tokenizer.
    model, tokenizer = models.load(
        "question-answering",
        config,
        job.labels,
        words=task.words(job.splits["train"]),
        max_seq_length=config.max_seq_length,
    )

    # 3. Questions and passages to windows of subwords, without padding.
    stages.encode(job, model, tokenizer)

    # 4. Train, and evaluate as often as the flags say.
    outcome = stages.fit(job, model)

    # 5. Save the model, what it says on the evaluation splits, its scores, its card.
    return stages.report(job, outcome)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(QuestionConfig, argv)
    cli.run(finetune_questions, config)


if __name__ == "__main__":
    main()
