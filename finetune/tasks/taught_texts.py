"""Distillation of classifiers: a teacher gives a distribution for each text, the odds of each label, or a number.

`taught_words.py` explains the functions.

Shapes: N texts, R rows, L labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finetune import data
from finetune.tasks.classification import NUMBER, ONE, SEVERAL

WORDS = False
_LEAST = 1e-30  # a probability whose logarithm is finite


def samples(dataset: Any) -> list[Any]:
    """The texts, or pairs of texts."""
    if "text_pair" not in dataset.column_names:
        return list(dataset["text"])
    return list(zip(dataset["text"], dataset["text_pair"], strict=True))


def size(samples: Sequence[Any]) -> int:
    """N."""
    return len(samples)


def encode(samples: Sequence[Any], tokenizer: Any, cut: Any) -> data.Encoded:
    """Texts to subwords, as in an evaluation."""
    paired = isinstance(samples[0], tuple)
    return data.encode_strings(
        [sample[0] for sample in samples] if paired else list(samples),
        [sample[1] for sample in samples] if paired else None,
        tokenizer,
        max_seq_length=cut.max_seq_length,
        windows=cut.long_texts == "window",
    )


def collect(output: Any, batch: Any, problem_type: str) -> dict[str, Any]:
    """Log-probabilities of one label; the logits of several; or the number; (B, L)."""
    logits = output.logits.float()
    return {"outputs": logits.log_softmax(-1) if problem_type == ONE else logits}


def outputs(encoded: data.Encoded, found: Mapping[str, np.ndarray], problem_type: str) -> np.ndarray:
    """What was collected, for each text. Of several windows, it is the mean of their probabilities or numbers."""
    values = found["outputs"]
    if encoded.text_of is None:
        return values
    begins = np.flatnonzero(np.diff(encoded.text_of, prepend=-1))
    counts = np.diff(np.append(begins, len(encoded.text_of)))[:, None]

    def mean(own: np.ndarray) -> np.ndarray:
        return np.asarray(np.add.reduceat(own.astype(np.float64), begins, axis=0) / counts)

    if problem_type == NUMBER:
        return mean(values).astype(np.float32)
    if problem_type == SEVERAL:
        yes, no = (np.maximum(mean(1 / (1 + np.exp(sign * values.astype(np.float64)))), _LEAST) for sign in (-1, 1))
        return np.log(yes / no).astype(np.float32)
    return np.log(np.maximum(mean(np.exp(values.astype(np.float64))), _LEAST)).astype(np.float32)


def unlabeled(encoded: data.Encoded, problem_type: str, labels: int) -> data.Rows:
    """The rows, with -100 for every label, or NaN for the number."""
    R = len(encoded.rows)
    none: np.ndarray = np.full(R, -100, np.int32)
    if problem_type == NUMBER:
        none = np.full(R, np.nan, np.float32)
    elif problem_type == SEVERAL:
        none = np.full((R, labels), -100, np.float32)
    return replace(encoded.rows, samples={"labels": none})


def with_teacher(
    rows: data.Rows, encoded: data.Encoded, sides: Sequence[Any], orders: Sequence[np.ndarray]
) -> data.Rows:
    """A text's output stands at each of its windows."""
    texts = np.arange(len(encoded.rows)) if encoded.text_of is None else encoded.text_of
    column: Any = data.Lookup(sides, texts, orders)
    return replace(rows, samples=rows.samples | {"teacher": column})
