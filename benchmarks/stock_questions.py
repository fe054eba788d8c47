"""Questions as a user would answer them without this package: `transformers.Trainer`, and the method of the example
`run_qa.py` before and after it, written anew.

Before: the question and a part of the passage are one input; parts overlap by `doc_stride` subwords. An input that
does not show the whole answer learns "no answer". After: the 20 best starts and the 20 best ends of each input are
paired. Of all pairs of a question that are spans of the passage of at most 30 subwords, the one with the highest sum
of logits is the answer.
"""

import tempfile
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

N_BEST, LONGEST_ANSWER = 20, 30


def stock_questions(
    train: Dataset,
    tests: dict[str, Dataset],
    path: str,
    *,
    max_length: int,
    doc_stride: int,
    bf16: bool,
    **settings: Any,
) -> tuple[dict[str, list[str]], float]:
    """Trains a model, and answers the questions of each test split.

    Args:
        train, tests: with the columns of `finetune.data.read_questions`.

    Returns:
        The answers of each split in the order of its questions, and the seconds of the training.
    """
    set_seed(settings["seed"])
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForQuestionAnswering.from_pretrained(path, dtype=torch.float32)

    def of(split: Dataset, with_answers: bool) -> Dataset:
        return split.map(
            lambda rows: inputs_of(rows, tokenizer, max_length, doc_stride, with_answers),
            batched=True,
            remove_columns=split.column_names,
            keep_in_memory=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                save_strategy="no",
                weight_decay=0.01,
                report_to="none",
                disable_tqdm=True,
                per_device_eval_batch_size=32,
                use_cpu=not torch.cuda.is_available(),
                bf16=bf16,
                **settings,
            ),
            train_dataset=of(train, True),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        seconds = trainer.train().metrics["train_runtime"]
        trainer.args.train_sampling_strategy = "random"  # batches by length would give the logits in another order
        answers = {}
        for name, split in tests.items():
            encoded = of(split, False)
            logits = trainer.predict(encoded.select_columns(["input_ids", "attention_mask"])).predictions  # type: ignore[arg-type]
            answers[name] = best_answers(split["context"][:], encoded, *logits[:2])
    return answers, seconds


def inputs_of(rows: dict, tokenizer: Any, max_length: int, doc_stride: int, with_answers: bool) -> dict:
    """The inputs of some questions, with the positions of their answers, or with what leads back to the passage."""
    encoded = tokenizer(
        [question.lstrip() for question in rows["question"]],
        rows["context"],
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    question_of, places = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    within = [
        [place if side == 1 else None for place, side in zip(row, encoded.sequence_ids(i), strict=True)]
        for i, row in enumerate(places)
    ]
    if not with_answers:
        return {**encoded, "question": question_of, "places": within}
    spans = [
        _span(row, rows["answer_starts"][q], rows["answers"][q]) for q, row in zip(question_of, within, strict=True)
    ]
    starts, ends = zip(*spans, strict=True)
    return {**encoded, "start_positions": list(starts), "end_positions": list(ends)}


def _span(places: list[tuple[int, int] | None], starts: list[int], texts: list[str]) -> tuple[int, int]:
    """The first and the last token of the first answer; the first token of the input twice if it is not in sight."""
    shown = [i for i, place in enumerate(places) if place is not None]
    if not starts:
        return 0, 0
    begin, end = starts[0], starts[0] + len(texts[0])
    if places[shown[0]][0] > begin or places[shown[-1]][1] < end:  # type: ignore[index]
        return 0, 0
    first = max(i for i in shown if places[i][0] <= begin)  # type: ignore[index]
    last = min(i for i in shown if places[i][1] >= end)  # type: ignore[index]
    return first, last


def best_answers(passages: list[str], encoded: Dataset, starts: np.ndarray, ends: np.ndarray) -> list[str]:
    """The answer of each question.

    Args:
        starts, ends: logits (inputs, tokens).
    """
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(passages)
    for i, (question, places) in enumerate(zip(encoded["question"][:], encoded["places"][:], strict=True)):
        for first in np.argsort(-starts[i])[:N_BEST].tolist():
            for last in np.argsort(-ends[i])[:N_BEST].tolist():
                if not first <= last < min(first + LONGEST_ANSWER, len(places)):
                    continue
                if places[first] is None or places[last] is None:
                    continue
                score = float(starts[i, first] + ends[i, last])
                if score > best[question][0]:
                    best[question] = score, passages[question][places[first][0] : places[last][1]]
    return [text for _, text in best]
