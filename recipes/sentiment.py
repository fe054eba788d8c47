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
from typing import Any, Literal

from finetune import cli, data, metrics, models, reporting, training
from finetune.arguments import DataArguments, ModelArguments, TrainingArguments, flag


@dataclass
class SentimentConfig(TrainingArguments, ModelArguments, DataArguments):
    """All flags of this recipe."""

    text_column_name: str = flag("text", "Column of the texts.")
    text_pair_column_name: str | None = flag(None, "Column of the second texts, for pairs.")
    label_column_name: str = flag("label", "Column of the labels: words or whole numbers.")
    pooling: Literal["mean", "max", "last", "attention"] = flag("attention", "Baselines: words to one vector.")


def resolved(config: SentimentConfig) -> SentimentConfig:
    """The config with the defaults of its model. Raises ValueError for flags that this model has no use for."""
    baseline = models.is_baseline(config.model_name_or_path)
    config = training.with_defaults(
        config,
        learning_rate=2e-3 if baseline else 5e-5,
        num_train_epochs=20 if baseline else 3,
        metric="accuracy",
    )
    models.check_flags(config)
    return config


def finetune_sentiment(config: SentimentConfig) -> training.RunResult:
    """Trains, evaluates and saves a classifier. Raises ValueError for what a user can mend."""
    # 1. The run: processes, precision, seed, a folder that holds nothing else.
    run = training.start_run(resolved(config), metrics=("accuracy", "f1_macro", "recall_macro", "loss"))
    config, accelerator = run.config, run.accelerator

    # 2. The data, and the labels of its training split.
    splits = data.read_labelled(
        config, config.text_column_name, config.label_column_name, config.text_pair_column_name
    )
    if config.eval_strategy != "no" and "validation" not in splits:
        raise ValueError("--eval_strategy needs a --validation_file; without one give --eval_strategy no")
    labels = data.class_labels(splits["train"])
    data.check_labels(splits, labels, "label")
    for split, dataset in splits.items():
        run.print(f"{split} labels: {data.label_counts(dataset, 'label')}")

    # 3. The model and its tokenizer.
    columns = ["text", "text_pair"] if config.text_pair_column_name else ["text"]
    model, tokenizer = models.load(
        "sequence-classification",
        config,
        labels,
        words=(text for column in columns for text in splits["train"][column]),
        max_seq_length=config.max_seq_length,
        pooling=config.pooling,
    )
    tokenizer.model_max_length = config.max_seq_length  # where pipeline(truncation=True) cuts a text, too

    # 4. Texts to subwords, without padding.
    encoded = {
        split: data.encode_texts(dataset, tokenizer, labels, max_seq_length=config.max_seq_length)
        for split, dataset in splits.items()
    }
    for split, texts in encoded.items():
        run.print(f"{split}: {texts}")
    if config.compact_vocabulary and run.holds_whole_parameters:
        seen = [texts.rows.tokens["input_ids"] for texts in encoded.values()]
        run.print("embedding: {:,} of {:,} rows train".format(*models.compact_vocabulary(model, tokenizer, seen)))

    # 5. How to score: one prediction for every text.
    def predict(model: Any, split: str, name: str) -> tuple[training.Predictions, dict[str, float]]:
        rows = encoded[split].rows
        batches = data.eval_batches(rows, tokenizer, config.per_device_eval_batch_size)
        predictions = training.predict(accelerator, model, batches)
        scores = metrics.classification_scores(rows.samples["labels"], predictions.labels)
        scores |= predictions.costs
        return predictions, {f"{name}_{key}": value for key, value in scores.items()}

    # 6. Train.
    rows = {split: inputs.rows for split, inputs in encoded.items()}
    batches = data.train_batches(rows, tokenizer, config, accelerator)
    outcome = training.train(run, model, tokenizer, batches, lambda model: predict(model, "validation", "eval")[1])

    # 7. Save the model, then what it says on the evaluation splits.
    run.save_model(outcome.model, tokenizer)
    results = dict(outcome.results)
    for split, name in (("validation", "eval"), ("test", "test")):
        if split in splits:
            predictions, scores = predict(outcome.model, split, name)
            results |= scores
            run.print(
                f"{name}: accuracy {scores[f'{name}_accuracy']:.4f}  f1_macro {scores[f'{name}_f1_macro']:.4f}  "
                f"recall_macro {scores[f'{name}_recall_macro']:.4f}  texts {len(splits[split]):,}"
            )
            if accelerator.is_main_process:
                said = ([labels[i] for i in predictions.labels], predictions.scores.tolist())
                given = [splits[split][column] for column in (*columns, "label")]
                header = [*columns, "label", "predicted", "score"]
                path = run.file(f"predictions_{name}.tsv")
                reporting.write_predictions(path, header, zip(*given, *said, strict=True))
    if accelerator.is_main_process:
        reporting.write_model_card(
            run.output_dir,
            task="text-classification",
            base_model=config.model_name_or_path,
            model_type=model.config.model_type,
            data=config.dataset_name or str(config.train_file),
            split_sizes={split: len(dataset) for split, dataset in splits.items()},
            labels=labels,
            results=results,
            settings=reporting.told_settings(config),
        )
    return run.finish(results, outcome.history)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(SentimentConfig, argv)
    cli.run(finetune_sentiment, config)


if __name__ == "__main__":
    main()
