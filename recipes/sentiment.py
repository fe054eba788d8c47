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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from finetune import cli, data, models, stages, training
from finetune.arguments import DataArguments, ModelArguments, TrainingArguments, flag


@dataclass
class SentimentConfig(TrainingArguments, ModelArguments, DataArguments):
    """All flags of this recipe."""

    text_column_name: str = flag("text", "Column of the texts.")
    text_pair_column_name: str | None = flag(None, "Column of the second texts, for pairs.")
    label_column_name: str = flag("label", "Column of the labels; or, with commas, a column of 0 and 1 for each.")
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = flag(
        None, "What the labels are: one a text, several, or a number [what the training split says]."
    )
    label_separator: str | None = flag(None, "What stands between the labels of a cell that holds several.")
    long_texts: Literal["cut", "window"] = flag(
        "cut", "Texts beyond max_seq_length: cut, or windows that overlap by half, whose scores are averaged."
    )
    class_weights: str | None = flag(None, "Weights of labels in the loss: balanced, or a=1,b=3.")
    label_smoothing_factor: float = flag(0.0, "Share of each target that all labels get alike.")
    focal_gamma: float = flag(0.0, "Focal loss: targets count by (1 - p) ** gamma.")
    pooling: Literal["mean", "max", "last", "attention"] = flag("attention", "Baselines: words to one vector.")


def resolved(config: SentimentConfig) -> SentimentConfig:
    """The config with the defaults of its model. Raises ValueError for flags that this model has no use for."""
    resolved: SentimentConfig = stages.with_defaults(config)
    return resolved


def finetune_sentiment(config: SentimentConfig) -> training.RunResult:
    """Trains, evaluates and saves a classifier. Raises ValueError for what a user can mend."""
    from finetune.tasks import classification as task

    # 1. The run (processes, precision, seed, a folder that holds nothing else), and its data.
    job = stages.begin(resolved(config), task)
    config = job.config

    # 2. The model and its tokenizer.
    model, tokenizer = models.load(
        "sequence-classification",
        config,
        job.labels,
        words=task.words(job.splits["train"]),
        max_seq_length=config.max_seq_length,
        pooling=config.pooling,
        pairs=config.text_pair_column_name is not None,
    )
    weights = None
    if config.class_weights is not None:
        weights = data.class_weights(config.class_weights, job.splits["train"], job.labels, "label")
        job.targets = partial(task.targets, weights=weights)  # the loss is a mean over these weights
    models.set_loss(
        model,
        problem_type=job.settings["problem_type"],
        class_weights=weights,
        label_smoothing=config.label_smoothing_factor,
        focal_gamma=config.focal_gamma,
    )
    tokenizer.model_max_length = config.max_seq_length  # where pipeline(truncation=True) cuts a text, too

    # 3. Texts to subwords, without padding.
    stages.encode(job, model, tokenizer)

    # 4. Train, and evaluate as often as the flags say.
    outcome = stages.fit(job, model)

    # 5. Save the model, what it says on the evaluation splits, its scores, its card.
    return stages.report(job, outcome)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(SentimentConfig, argv)
    cli.run(finetune_sentiment, config)


if __name__ == "__main__":
    main()
