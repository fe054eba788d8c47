"""Named entities: fine-tune BERT, RoBERTa, XLM-R or train a recurrent baseline on words with a tag each.

python recipes/ner.py --dataset_name samples --output_dir runs/ner
python recipes/ner.py --dataset_name samples --model_name_or_path bilstm --output_dir runs/bilstm
accelerate launch recipes/ner.py --config recipes/configs/ner/wnut17.yaml --output_dir runs/wnut17
accelerate launch --num_processes 2 --cpu recipes/ner.py --train_file train.conll --test_file test.conll ...

from recipes.ner import NerConfig, finetune_ner
result = finetune_ner(NerConfig(dataset_name="samples", output_dir="runs/ner"))
result.results["test_f1"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune import cli, data, metrics, models, reporting, training
from finetune.arguments import DataArguments, ModelArguments, TrainingArguments, flag


@dataclass
class NerConfig(TrainingArguments, ModelArguments, DataArguments):
    """All flags of this recipe."""

    text_column_name: str = flag("tokens", "Column of the words; in column files a number [the first].")
    label_column_name: str = flag("ner_tags", "Column of the tags; in column files a number [the last].")
    label_all_tokens: bool = flag(False, "Train on every subword of a word, not only on the first.")
    doc_stride: int | None = flag(None, "Subwords that neighbouring windows share [half a window].")
    head: Literal["linear", "crf"] = flag("linear", "A CRF over the words instead of one softmax for each.")


def resolved(config: NerConfig) -> NerConfig:
    """The config with the defaults of its model. Raises ValueError for flags that this model has no use for."""
    baseline = models.is_baseline(config.model_name_or_path)
    config = training.with_defaults(
        config,
        learning_rate=2e-3 if baseline else 5e-5,
        num_train_epochs=20 if baseline else 3,
        metric="f1",
    )
    models.check_flags(config)
    return config


def finetune_ner(config: NerConfig) -> training.RunResult:
    """Trains, evaluates and saves a tagger. Raises ValueError for what a user can mend."""
    # 1. The run: processes, precision, seed, a folder that holds nothing else.
    run = training.start_run(resolved(config), metrics=("f1", "precision", "recall", "f1_strict", "accuracy", "loss"))
    config, accelerator = run.config, run.accelerator

    # 2. The data, and the labels of its training split.
    splits = data.read_tagged(config, config.text_column_name, config.label_column_name)
    if config.eval_strategy != "no" and "validation" not in splits:
        raise ValueError("--eval_strategy needs a --validation_file; without one give --eval_strategy no")
    labels = data.entity_labels(splits["train"])
    data.check_labels(splits, labels, "ner_tags")
    for split, dataset in splits.items():
        run.print(f"{split} labels: {data.label_counts(dataset, 'ner_tags')}")

    # 3. The model and its tokenizer.
    model, tokenizer = models.load(
        "token-classification",
        config,
        labels,
        words=(word for words in splits["train"]["tokens"] for word in words),
        max_seq_length=config.max_seq_length,
        head=config.head,
    )
    if hasattr(model, "crf") and (config.label_all_tokens or config.doc_stride == 0):
        raise ValueError(
            "--label_all_tokens, --doc_stride 0: a CRF works on words, so it labels first subwords only, and windows "
            "must overlap"
        )

    # 4. Words to subwords: windows without padding.
    alignments = {
        split: data.align(
            dataset,
            tokenizer,
            labels,
            max_seq_length=config.max_seq_length,
            doc_stride=config.doc_stride,
            label_all_tokens=config.label_all_tokens,
        )
        for split, dataset in splits.items()
    }
    for split, dataset in splits.items():
        run.print(f"{split}: {data.alignment_report(dataset, tokenizer, config.max_seq_length)}")
    if config.compact_vocabulary and run.holds_whole_parameters:
        seen = [alignment.rows.tokens["input_ids"] for alignment in alignments.values()]
        run.print("embedding: {:,} of {:,} rows train".format(*models.compact_vocabulary(model, tokenizer, seen)))

    # 5. How to score: one prediction for every word, then entities.
    def predict(model: Any, split: str, name: str) -> tuple[Any, dict[str, float]]:
        alignment = alignments[split]
        batches = data.eval_batches(alignment.rows, tokenizer, config.per_device_eval_batch_size)
        predictions = training.predict(accelerator, model, batches)
        tags, words_scored = alignment.to_words(predictions.labels)
        scores = metrics.entity_scores(alignment.gold, tags, alignment.sentence_offsets, labels)
        scores |= {"words": alignment.words, "words_scored": words_scored}
        scores |= predictions.costs
        return tags, {f"{name}_{key}": value for key, value in scores.items()}

    # 6. Train.
    rows = {split: alignment.rows for split, alignment in alignments.items()}
    batches = data.train_batches(rows, tokenizer, config, accelerator)
    outcome = training.train(run, model, tokenizer, batches, lambda model: predict(model, "validation", "eval")[1])

    # 7. Save the model, then what it says on the evaluation splits.
    run.save_model(outcome.model, tokenizer)
    results = dict(outcome.results)
    for split, name in (("validation", "eval"), ("test", "test")):
        if split in splits:
            tags, scores = predict(outcome.model, split, name)
            results |= scores
            run.print(
                f"{name}: f1 {scores[f'{name}_f1']:.4f}  precision {scores[f'{name}_precision']:.4f}  "
                f"recall {scores[f'{name}_recall']:.4f}  words {scores[f'{name}_words']:,}  "
                f"words_scored {scores[f'{name}_words_scored']:,}"
            )
            if accelerator.is_main_process:
                offsets = alignments[split].sentence_offsets
                predicted = ([labels[tag] for tag in tags[a:b]] for a, b in itertools.pairwise(offsets))
                path = run.file(f"predictions_{name}.conll")
                data.write_conll(path, splits[split]["tokens"], splits[split]["ner_tags"], predicted)
    if accelerator.is_main_process:
        reporting.write_model_card(
            run.output_dir,
            task="token-classification",
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
    config = cli.parse(NerConfig, argv)
    cli.run(finetune_ner, config)


if __name__ == "__main__":
    main()
