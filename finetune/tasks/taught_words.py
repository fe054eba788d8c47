"""Distillation of taggers: a teacher gives one distribution over the labels for each word.

`taught_texts.py` has functions of the same names:

| name | what it is |
|---|---|
| `WORDS` | whether samples are lists of words |
| `samples(dataset)` | what the teacher labels, as `finetune.predict` takes it |
| `size(samples)` | the number of outputs |
| `encode(samples, tokenizer, cut)` | an object with `rows`; `cut` has `max_seq_length` ... |
| `collect(output, batch, problem_type)` | the part of a batch's output to keep, computed on the device |
| `outputs(encoded, found, problem_type)` | what is kept on the disk: float32 (outputs, L) |
| `unlabeled(encoded, problem_type, L)` | the rows of samples, with no label |
| `with_teacher(rows, encoded, sides, orders)` | the rows with a column `teacher`, a `Lookup` |

Shapes: W words of all sentences, T tokens of all rows, L labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finetune import data
from finetune.tasks.tagging import Windows

WORDS = True


def samples(dataset: Any) -> list[list[str]]:
    """The words of each sentence."""
    return list(dataset["tokens"])


def size(samples: Sequence[Sequence[str]]) -> int:
    """W."""
    return sum(map(len, samples))


def encode(samples: Sequence[Sequence[str]], tokenizer: Any, cut: Any) -> data.Alignment:
    """Words to subwords, in windows, as in an evaluation."""
    offsets = np.concatenate([[0], np.cumsum([len(words) for words in samples], dtype=np.int64)])
    return data.align_words(
        [word for words in samples for word in words],
        offsets,
        tokenizer,
        max_seq_length=cut.max_seq_length,
        doc_stride=cut.doc_stride,
    )


def collect(output: Any, batch: Any, problem_type: str) -> dict[str, Any]:
    """The log-probabilities of each real token. Those of a CRF are its marginals already."""
    return {"outputs": batch.without_padding(output.logits.float()).log_softmax(-1)}


def outputs(encoded: data.Alignment, found: Mapping[str, np.ndarray], problem_type: str) -> np.ndarray:
    """Log-probabilities of each word, from the window that shows it with the most context.

    A word of which the teacher's tokenizer makes no subword has zeros: the teacher says nothing of it.
    """
    return encoded.to_words(found["outputs"])[0]


def unlabeled(encoded: data.Alignment, problem_type: str, labels: int) -> data.Rows:
    """The rows, with -100 for every label."""
    rows = encoded.rows
    return replace(rows, tokens=rows.tokens | {"labels": np.full_like(rows.tokens["labels"], -100)})


def with_teacher(
    rows: data.Rows, encoded: data.Alignment | Windows, sides: Sequence[Any], orders: Sequence[np.ndarray]
) -> data.Rows:
    """A word's output stands at its first subword, in the window that shows the word with the most context."""
    alignment = encoded.alignment if isinstance(encoded, Windows) else encoded
    column: Any = data.Lookup(sides, alignment.word_of_token, orders)
    return replace(rows, tokens=rows.tokens | {"teacher": column})
