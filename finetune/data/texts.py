"""Texts, or pairs of texts, with one label each -> rows of subwords."""

from __future__ import annotations  # names of the lazy parts in signatures would import datasets

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data.alignment import special_tokens
from finetune.data.rows import Rows

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Encoded:
    """Tokenised texts."""

    rows: Rows  # one row a text, or a window of it; the target is samples["labels"]
    texts_cut: int  # texts longer than max_seq_length, which are cut there
    unknown: int  # unknown-token subwords
    text_of: np.ndarray | None = None  # int64 (rows,): the text of each window, ascending; None: one row a text

    def __str__(self) -> str:
        rows, tokens = len(self.rows), int(self.rows.offsets[-1])
        texts = rows if self.text_of is None else int(self.text_of.max(initial=-1)) + 1
        long = f"{self.texts_cut:,} texts cut at max_seq_length"
        if self.text_of is not None:
            long = f"{rows:,} windows of max_seq_length and less"
        return (
            f"{texts:,} texts, {tokens:,} subwords ({tokens / max(texts, 1):.1f} a text), "
            f"{self.unknown:,} unknown; {long}"
        )


def encode_texts(
    dataset: datasets.Dataset,
    tokenizer: Any,
    labels: Sequence[str],
    *,
    max_seq_length: int = 128,
    windows: bool = False,
) -> Encoded:
    """Tokenises column `text`, and `text_pair` where there is one; of a pair the longer side is cut first.

    Args:
        dataset: as `read_labelled` returns, or without labels.
        tokenizer: a fast tokenizer.
        labels: as `label_targets` takes them.
        max_seq_length: special tokens included; at least 8.
        windows: a longer text goes into windows that overlap by half, instead of being cut.
    """
    return encode_strings(
        list(dataset["text"]),
        list(dataset["text_pair"]) if "text_pair" in dataset.column_names else None,
        tokenizer,
        label_targets(dataset, labels) if "label" in dataset.column_names else None,
        max_seq_length=max_seq_length,
        windows=windows,
    )


def label_targets(dataset: datasets.Dataset, labels: Sequence[str]) -> np.ndarray:
    """What a model learns from column `label`.

    Args:
        labels: the labels that an index stands for; none of a number.

    Returns:
        | column | dtype, shape |
        |---|---|
        | one label | int32 (N,) |
        | several labels | float32 (N, L), 1 where a text has the label |
        | a number | float32 (N,) |
    """
    index = {label: i for i, label in enumerate(labels)}
    column = dataset["label"][:]
    kind = dataset.features["label"]
    if getattr(kind, "dtype", "") == "float64":
        return np.array(column, dtype=np.float32)
    if hasattr(kind, "feature"):
        targets = np.zeros((len(column), len(labels)), dtype=np.float32)
        for row, own in zip(targets, column, strict=True):
            row[[index[label] for label in own]] = 1.0
        return targets
    return np.array([index[label] for label in column], dtype=np.int32)


def encode_strings(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    tokenizer: Any,
    targets: np.ndarray | None = None,
    *,
    max_seq_length: int = 128,
    windows: bool = False,
) -> Encoded:
    """`encode_texts` for N texts that are no data set, and that may have no labels.

    Args:
        pairs: N second texts.
        targets: as `label_targets` gives them.
    """
    if max_seq_length < 8:
        raise ValueError(f"--max_seq_length {max_seq_length}: must be at least 8, to leave room for words")
    full = tokenizer(texts, pairs, return_attention_mask=False, verbose=False)
    lengths = np.array([len(ids) for ids in full["input_ids"]])
    cut = np.flatnonzero(lengths > max_seq_length).tolist()
    if windows and pairs is not None:
        raise ValueError("--long_texts window: for single texts; of a pair the longer side is cut")
    text_of = None
    if windows:
        full, text_of = _windows(full, tokenizer, max_seq_length)
        targets, cut = None if targets is None else targets[text_of], []
    if len(cut):
        short = tokenizer(
            [texts[i] for i in cut],
            [pairs[i] for i in cut] if pairs else None,
            truncation="longest_first",
            max_length=max_seq_length,
            return_attention_mask=False,
        )
        for key, values in short.items():
            for i, value in zip(cut, values, strict=True):
                full[key][i] = value
    tokens = {
        key: np.array([value for row in full[key] for value in row], dtype=dtype)
        for key, dtype in (("input_ids", np.int32), ("token_type_ids", np.int32), ("char_ids", np.uint8))
        if key in full
    }
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in full["input_ids"]], dtype=np.int64)])
    unknown = int((tokens["input_ids"] == tokenizer.unk_token_id).sum()) if tokenizer.unk_token_id is not None else 0
    samples = {} if targets is None else {"labels": targets}
    return Encoded(Rows(offsets, tokens, samples), len(cut), unknown, text_of)


def _windows(full: Any, tokenizer: Any, max_seq_length: int) -> tuple[dict[str, list[Any]], np.ndarray]:
    """The rows of all texts, cut into windows with the special tokens around each, and the text of each window."""
    prefix, suffix = (len(ids) for ids in special_tokens(tokenizer))
    content = max_seq_length - prefix - suffix
    step = content - content // 2
    found: dict[str, list[Any]] = {key: [] for key in full}
    text_of = []
    for text, ids in enumerate(full["input_ids"]):
        length = len(ids) - prefix - suffix
        count = 1 if length <= content else 1 + -(-(length - content) // step)
        for k in range(count):
            begin = prefix + min(k * step, max(length - content, 0))  # the last window ends with the text
            end = begin + min(content, length)
            for key in found:
                row = full[key][text]
                found[key].append([*row[:prefix], *row[begin:end], *row[len(row) - suffix :]])
            text_of.append(text)
    return found, np.array(text_of, dtype=np.int64)


@cache
def warn_of_cut_texts(max_seq_length: int) -> None:
    """Says once, for a prediction, that texts are cut."""
    logger.warning("texts of more than %d subwords are cut there, as in training and evaluation", max_seq_length)
