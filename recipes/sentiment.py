"""Sentiment, or any classification of texts or text pairs, with a transformer or a recurrent baseline.

python recipes/sentiment.py --dataset_name samples --output_dir runs/sentiment
python recipes/sentiment.py --dataset_name samples --model_name_or_path bilstm --output_dir runs/bilstm
accelerate launch recipes/sentiment.py --config recipes/configs/sentiment/sst2.yaml --output_dir runs/sst2
accelerate launch --num_processes 2 --cpu recipes/sentiment.py --train_file train.csv --test_file test.csv ...

from recipes.sentiment import SentimentConfig, finetune_sentiment
result = finetune_sentiment(SentimentConfig(dataset_name="samples", output_dir="runs/sentiment"))
result.results["test_accuracy"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune import cli, models, stages, training
from finetune.arguments import (
    DataArguments,
    FoldArguments,
    LossArguments,
    ModelArguments,
    TextFileArguments,
    TrainingArguments,
    flag,
)
from finetune.from_python import documented, names_of_python


@documented
@dataclass
class SentimentConfig(
    TrainingArguments, LossArguments, ModelArguments, TextFileArguments, FoldArguments, DataArguments
):
    """All flags of this recipe."""

    text_column_name: str = flag("text", "Column of the texts.")
    text_pair_column_name: str | None = flag(None, "Column of the second texts, for pairs of texts.")
    label_column_name: str = flag(
        "label", "Column of the labels; or comma-separated columns of 0 and 1, one for each label."
    )
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = flag(
        None, "Whether a text has one label, several labels, or a number [as in the training data]."
    )
    label_separator: str | None = flag(None, "The character between labels, if a cell of a column has several.")
    long_texts: Literal["cut", "window"] = flag(
        "cut",
        "Texts longer than max_seq_length. cut: drop the rest; window: average the scores of overlapping windows.",
    )
    pooling: Literal["mean", "max", "last", "attention"] = flag(
        "attention", "Baselines: how the vectors of the words become one vector."
    )


def resolved(config: SentimentConfig) -> SentimentConfig:
    """The config with the defaults of its model. Raises ValueError for flags that this model does not use."""
    resolved: SentimentConfig = stages.with_defaults(config)
    return resolved


@names_of_python
def finetune_sentiment(config: SentimentConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains, evaluates and saves a classifier.

    Args:
        data: rows from Python instead of files: for `train`, `validation` and `test` a `datasets.Dataset`, a frame of
            pandas or polars, or a list with a dict for each row.

    Raises:
        ValueError: for a mistake that the user can correct.
    """
    from finetune.tasks import classification as task

    # 1. Start the run (processes, precision, seed, its folder), and read its data.
    job = stages.begin(resolved(config), task, data)
    config = job.config

    # 2. Load the model and its tokenizer.
    def load() -> Any:
        return models.load(
            "sequence-classification",
            config,
            job.labels,
            words=task.words(job.splits["train"]),
            max_seq_length=config.max_seq_length,
            pooling=config.pooling,
            pairs=config.text_pair_column_name is not None,
            start=task.start(job.splits["train"], config.class_weights),
        )

    model, tokenizer = load()
    stages.set_loss(job, model, "label")
    tokenizer.model_max_length = config.max_seq_length  # where pipeline(truncation=True) cuts a text, too

    # 3. Turn texts into subwords, without padding.
    stages.encode(job, model, tokenizer)

    # 4. Train, and evaluate as often as the flags say. If the run collapses, begin again.
    outcome = stages.fit(job, model, load)

    # 5. Save the model, its predictions on the evaluation splits, its scores and its card.
    return stages.report(job, outcome)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(SentimentConfig, argv)
    cli.run(finetune_sentiment, config)


if __name__ == "__main__":
    main()
