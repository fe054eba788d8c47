"""Questions about passages: fine-tune BERT, RoBERTa or XLM-R, or train a recurrent reader.

python recipes/question_answering.py --train_file train.json --validation_file dev.json --output_dir runs/questions
python recipes/question_answering.py --train_file train.json --validation_file dev.json --model_name_or_path bilstm
accelerate launch --num_processes 2 --cpu recipes/question_answering.py --train_file train.json ...

from recipes.question_answering import QuestionConfig, finetune_questions
result = finetune_questions(QuestionConfig(train_file="train.json", validation_file="dev.json"))
result.results["eval_f1"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from finetune import cli, data, models, reporting, training
from finetune.arguments import DataArguments, ModelArguments, TrainingArguments, flag


@dataclass
class QuestionConfig(TrainingArguments, ModelArguments, DataArguments):
    """All flags of this recipe."""

    question_column_name: str = flag("question", "Column of the questions, in a table.")
    context_column_name: str = flag("context", "Column of the passages, in a table.")
    answer_column_name: str = flag("answers", "Column of the answers, in a table.")
    max_seq_length: int = flag(384, "Subwords of question and passage in one window, special tokens included.")
    doc_stride: int | None = flag(None, "Passage subwords that neighbouring windows share [half a window].")
    max_answer_length: int = flag(30, "Subwords of the longest answer that is predicted.")
    null_score_diff_threshold: float | None = flag(
        None, "Answer where the best span is so much likelier (in nats) than none [tuned on the validation split]."
    )


def resolved(config: QuestionConfig) -> QuestionConfig:
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


def finetune_questions(config: QuestionConfig) -> training.RunResult:
    """Trains, evaluates and saves a reader. Raises ValueError for what a user can mend."""
    from finetune.tasks import questions as task

    # 1. The run: processes, precision, seed, a folder that holds nothing else.
    run = training.start_run(resolved(config), metrics=("f1", "exact_match", "loss"))
    config, accelerator = run.config, run.accelerator

    # 2. The data: questions, passages, and where the answers stand.
    splits = data.read_questions(
        config, config.question_column_name, config.context_column_name, config.answer_column_name
    )
    if config.eval_strategy != "no" and "validation" not in splits:
        raise ValueError("--eval_strategy needs a --validation_file; without one give --eval_strategy no")

    # 3. The model and its tokenizer.
    model, tokenizer = models.load(
        "question-answering",
        config,
        labels=(),
        words=(text for column in ("context", "question") for text in splits["train"][column]),
        max_seq_length=config.max_seq_length,
    )

    # 4. Questions and passages to windows of subwords, without padding.
    windows = {
        split: data.window_questions(
            dataset["question"][:],
            dataset["context"][:],
            tokenizer,
            task.first_answers(dataset),
            max_seq_length=config.max_seq_length,
            doc_stride=config.doc_stride,
            token_types=models.is_baseline(config.model_name_or_path),
        )
        for split, dataset in splits.items()
    }
    for split, cut in windows.items():
        run.print(f"{split}: {cut}")
    if config.compact_vocabulary and run.holds_whole_parameters:
        seen = [cut.rows.tokens["input_ids"] for cut in windows.values()]
        run.print("embedding: {:,} of {:,} rows train".format(*models.compact_vocabulary(model, tokenizer, seen)))

    # 5. How to score: one answer for every question, from all of its windows.
    def predict(model: Any, split: str, name: str, threshold: float | None = None) -> tuple[Any, dict[str, float]]:
        batches = data.eval_batches(windows[split].rows, tokenizer, config.per_device_eval_batch_size)
        found = training.collect(
            accelerator, model, batches, partial(task.collect, max_answer_length=config.max_answer_length)
        )
        spans = task.decode(windows[split], splits[split]["context"][:], found.arrays)
        gold = splits[split]["answers"][:]
        if threshold is None:
            threshold = task.tuned_threshold(gold, spans)
        scores = task.score(task.counts(gold, task.answers(spans, threshold)).sum(0))
        scores |= {"questions": len(gold), "questions_scored": len(spans)} | found.costs
        return (spans, threshold), {f"{name}_{key}": value for key, value in scores.items()}

    # 6. Train.
    rows = {split: cut.rows for split, cut in windows.items()}
    batches = data.train_batches(rows, tokenizer, config, accelerator)
    outcome = training.train(run, model, tokenizer, batches, lambda model: predict(model, "validation", "eval")[1])

    # 7. Save the model, then what it says on the evaluation splits.
    results, threshold = dict(outcome.results), config.null_score_diff_threshold
    for split, name in (("validation", "eval"), ("test", "test")):
        if split in splits:
            (spans, threshold), scores = predict(outcome.model, split, name, threshold)
            results |= scores
            run.print(
                f"{name}: exact_match {scores[f'{name}_exact_match']:.4f}  f1 {scores[f'{name}_f1']:.4f}  "
                f"questions {scores[f'{name}_questions']:,}"
            )
            if accelerator.is_main_process:
                task.write(run.file, name, splits[split]["id"][:], task.answers(spans, threshold), spans)
    accelerator.unwrap_model(outcome.model).config.null_score_diff_threshold = threshold
    run.save_model(outcome.model, tokenizer)
    if accelerator.is_main_process:
        reporting.write_model_card(
            run.output_dir,
            task="question-answering",
            base_model=config.model_name_or_path,
            model_type=model.config.model_type,
            data=config.dataset_name or str(config.train_file),
            split_sizes={split: len(dataset) for split, dataset in splits.items()},
            results=results,
            settings=reporting.told_settings(config),
        )
    return run.finish(results, outcome.history)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(QuestionConfig, argv)
    cli.run(finetune_questions, config)


if __name__ == "__main__":
    main()
