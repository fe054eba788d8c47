"""What a user would do without this package: `transformers.Trainer`, its collators, and the steps of the tutorials.

It follows the tutorials for token and text classification closely. So a difference of the scores comes from how the
data is treated. Checkpoint, epochs, batch, learning rate and seed are the same as in the recipe.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.metrics
import torch
from datasets import Dataset
from scipy.stats import pearsonr
from seqeval.metrics import f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from finetune import data, metrics, models
from finetune.models.pretrained import resolve
from finetune.tasks import classification, tagging


def stock_run(config: Any, *, words: bool) -> dict[str, float]:
    """Trains and scores with the checkpoint, data, epochs, batch, rate and seed of a recipe's config.

    Args:
        words: whether it is a config of `recipes/ner.py`; else of `recipes/sentiment.py`.
    """
    task: Any = tagging if words else classification
    splits, tokenizer = task.read(config), models.load_tokenizer(config.model_name_or_path, for_words=words)
    given = (splits, task.labels(splits), resolve(config.model_name_or_path), tokenizer)
    settings = {
        "max_length": config.max_seq_length,
        "num_train_epochs": config.num_train_epochs,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
    }
    if words:
        return stock_ner(*given, **settings)
    return stock_texts(*given, problem_type=data.problem_type_of(splits["train"]), **settings)


def tokenize_and_align_labels(examples: dict, tokenizer: Any, max_length: int) -> dict:
    """The function of the tutorials: it truncates, and labels first subwords in a loop. Tags are numbers."""
    tokenized = tokenizer(examples["tokens"], truncation=True, max_length=max_length, is_split_into_words=True)
    labels = []
    for i, tags in enumerate(examples["ner_tags"]):
        previous = None
        row = []
        for word in tokenized.word_ids(batch_index=i):
            if word is None or word == previous:
                row.append(-100)
            else:
                row.append(tags[word])
            previous = word
        labels.append(row)
    tokenized["labels"] = labels
    return tokenized


def stock_ner(
    splits: dict[str, Dataset],
    labels: list[str],
    path: str,
    tokenizer: Any,
    *,
    max_length: int,
    **settings: Any,
) -> dict[str, float]:
    """Trains and scores a tagger. `test_words_scored` is the number of words that truncation leaves."""
    label2id = {label: i for i, label in enumerate(labels)}
    set_seed(settings["seed"])
    model = AutoModelForTokenClassification.from_pretrained(
        path, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id=label2id, dtype=torch.float32
    )
    numbered = {
        name: split.map(lambda row: {"ner_tags": [label2id[tag] for tag in row["ner_tags"]]}, keep_in_memory=True)
        for name, split in splits.items()
    }
    encoded = {
        name: split.map(
            lambda rows: tokenize_and_align_labels(rows, tokenizer, max_length),
            batched=True,
            remove_columns=split.column_names,
            keep_in_memory=True,
        )
        for name, split in numbered.items()
    }

    def compute_metrics(output: Any) -> dict[str, float]:
        predicted, gold = np.argmax(output.predictions, axis=2), output.label_ids
        kept = [row != -100 for row in gold]
        tags = [
            [[labels[i] for i in row[keep]] for row, keep in zip(side, kept, strict=True)]
            for side in (gold, predicted)
        ]
        return {"f1": float(f1_score(*tags)), "words_scored": int(sum(keep.sum() for keep in kept))}

    return _train(model, encoded, DataCollatorForTokenClassification(tokenizer), compute_metrics, "f1", **settings)


def stock_texts(
    splits: dict[str, Dataset],
    labels: list[str],
    path: str,
    tokenizer: Any,
    *,
    max_length: int,
    problem_type: str,
    **settings: Any,
) -> dict[str, float]:
    """Trains and scores a classifier of texts or pairs: one label, several (threshold 0.5), or a number.

    For several labels, scores with names in `_tuned` have the threshold that is best on the validation split. If
    there are two labels, `f1` is the F1 of the second one.
    """
    label2id = {label: i for i, label in enumerate(labels)}
    set_seed(settings["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(
        path, num_labels=len(labels), problem_type=problem_type, dtype=torch.float32
    )

    def target(label: Any) -> Any:
        if problem_type == "regression":
            return float(label)
        if problem_type == "multi_label_classification":
            return [float(name in label) for name in labels]
        return label2id[label]

    def encode(rows: dict) -> dict:
        texts = [rows[name] for name in ("text", "text_pair") if name in rows]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        return encoded | {"labels": [target(label) for label in rows["label"]]}

    encoded = {
        name: split.map(encode, batched=True, remove_columns=split.column_names, keep_in_memory=True)
        for name, split in splits.items()
    }

    def compute_metrics(output: Any) -> dict[str, float]:
        said, gold = output.predictions, output.label_ids
        if problem_type == "regression":
            return {"pearson": float(pearsonr(said.ravel(), gold.ravel()).statistic)}
        if problem_type == "multi_label_classification":
            return several_f1(gold, said > 0)
        chosen = np.argmax(said, axis=1)
        scores = {"accuracy": float((chosen == gold).mean())}
        return scores | ({"f1": float(sklearn.metrics.f1_score(gold, chosen))} if len(labels) == 2 else {})

    def tuned(validation: Any, test: Any) -> dict[str, float]:
        (gold_v, p_v), (gold, p) = ((one.label_ids, 1 / (1 + np.exp(-one.predictions))) for one in (validation, test))
        threshold = metrics.tuned_threshold(gold_v > 0, p_v)
        return {f"{name}_tuned": value for name, value in several_f1(gold, p >= threshold).items()}

    metric = {"regression": "pearson", "multi_label_classification": "f1_micro"}.get(problem_type, "accuracy")
    collator = DataCollatorWithPadding(tokenizer)
    more = tuned if problem_type == "multi_label_classification" else None
    return _train(model, encoded, collator, compute_metrics, metric, more, **settings)


def several_f1(gold: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """F1 of several labels, from arrays (N, L). The macro mean is over the labels that occur in `gold`."""
    occurs = np.flatnonzero(gold.any(0))
    return {
        "f1_micro": float(sklearn.metrics.f1_score(gold, said, average="micro", zero_division=0)),
        "f1_macro": float(sklearn.metrics.f1_score(gold, said, labels=occurs, average="macro", zero_division=0)),
    }


def _train(
    model: Any,
    encoded: dict[str, Dataset],
    collator: Any,
    compute_metrics: Callable,
    metric: str,
    more: Callable[[Any, Any], dict[str, float]] | None = None,
    **settings: Any,
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model=metric,
                weight_decay=0.01,
                report_to="none",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                **settings,
            ),
            train_dataset=encoded["train"],
            eval_dataset=encoded["validation"],
            data_collator=collator,
            compute_metrics=compute_metrics,
        )
        trained = trainer.train()
        test = trainer.predict(encoded["test"])
        scores = {"train_runtime": trained.metrics["train_runtime"], **test.metrics}
        if more is not None:
            found = more(trainer.predict(encoded["validation"]), test)
            scores |= {f"test_{name}": value for name, value in found.items()}
        return scores
