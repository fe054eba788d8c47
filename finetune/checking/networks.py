"""Out-of-fold probabilities of a network: a recipe trains it on some samples, and it labels the others.

Shapes: N samples to label, W words of them, L labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from finetune import data
from finetune.checking.samples import ENTITIES, LABELS, NUMBER, TAGS, Samples
from finetune.files import remove

_NO_DATA = (
    *("dataset_name", "dataset_config_name", "train_file", "validation_file", "test_file", "column_names"),
    *("fold", "label_separator"),
)


def probabilities(
    samples: Samples,
    names: Sequence[str],
    seen: np.ndarray,
    unseen: np.ndarray,
    config: Any,
    recipe: Callable[..., Any],
    folder: Path,
) -> np.ndarray:
    """Trains on the samples `seen`, and labels the samples `unseen`.

    Args:
        names: the L labels, in the order of the result.
        config: of the recipe; its data is replaced by the samples.
        folder: of the run, which is removed at the end.

    Returns:
        Of words (W, L); of texts (N, L), for one label or several; of numbers (N,).
    """
    from finetune.prediction import load_predictor

    of_words = samples.kind in (ENTITIES, TAGS)
    columns = ("tokens", "ner_tags") if of_words else ("text", "label")
    own = replace(
        config,
        **dict.fromkeys(name for name in _NO_DATA if hasattr(config, name)),
        text_column_name=columns[0],
        label_column_name=columns[1],
        output_dir=str(folder),
        overwrite_output_dir=True,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
    )
    texts = samples.units[0].texts
    if of_words:
        kind = "plain" if samples.kind == TAGS else "entities"
        own = replace(own, tagging=kind, tagging_scheme="auto", label_names=None)  # the tags are IOB2, with names
    elif own.text_pair_column_name is not None:
        own = replace(own, text_pair_column_name=None)  # a pair is one text here
    rows = [
        {columns[0]: samples.words[i] if of_words else texts[i], columns[1]: samples.labels[i]} for i in seen.tolist()
    ]
    try:
        recipe(own, {"train": rows})
        task = importlib.import_module(f"finetune.tasks.{'tagging' if of_words else 'classification'}")
        predictor = load_predictor(folder, task=_with_all(task, samples.kind))
        return _labelled(samples, names, unseen, predictor)
    finally:
        remove(folder)


def _with_all(task: Any, kind: str) -> Any:
    """The task, but its `collect` also keeps the probabilities of all labels."""

    def collect(output: Any, batch: Any, settings: Any) -> dict[str, Any]:
        logits = output.logits.float()
        if kind in (ENTITIES, TAGS):
            logits = batch.without_padding(logits)
        said = logits if kind == NUMBER else logits.sigmoid() if kind == LABELS else logits.softmax(-1)
        return task.collect(output, batch, settings) | {"said": said}

    return SimpleNamespace(**{**vars(task), "collect": collect})


def _labelled(samples: Samples, names: Sequence[str], unseen: np.ndarray, predictor: Any) -> np.ndarray:
    """The probabilities by a loaded model, in the order of `names`. A label that it does not know has a small one."""
    at = {label: i for i, label in enumerate(predictor.labels)}
    if samples.kind in (ENTITIES, TAGS):
        words = [samples.words[i] for i in unseen.tolist()]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in words], dtype=np.int64)])
        alignment = data.align_words(
            [word for row in words for word in row],
            offsets,
            predictor.tokenizer,
            max_seq_length=predictor.max_seq_length,
            doc_stride=predictor.doc_stride,
        )
        said = predictor.collect(alignment.rows)["said"]
        of_label = [alignment.to_words(np.ascontiguousarray(said[:, i]))[0] for i in range(said.shape[1])]
        said = np.stack(of_label, axis=1)
        said[said.sum(1) == 0, at.get("O", 0)] = 1.0  # words without a subword
    else:
        texts = [samples.units[0].texts[i] for i in unseen.tolist()]
        encoded = data.encode_strings(texts, None, predictor.tokenizer, max_seq_length=predictor.max_seq_length)
        said = predictor.collect(encoded.rows)["said"]
    if samples.kind == NUMBER:
        return np.asarray(said[:, 0], dtype=np.float64)
    found = np.full((len(said), len(names)), 1e-6)
    for i, name in enumerate(names):
        if name in at:
            found[:, i] = np.maximum(said[:, at[name]], 1e-6)
    return found if samples.kind == LABELS else found / found.sum(1, keepdims=True)
