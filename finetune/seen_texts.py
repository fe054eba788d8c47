"""Says which texts of a run its checkpoint has seen before, if `recipes/pretrain.py` has trained it.

Labels are no part of what pretraining reads. But a score on texts that the checkpoint has seen is another claim than
one on new texts. So it is told, and stands in the model card.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from finetune import config_files, data

_LARGEST = 2**27  # characters of a corpus that is read again
_COLUMNS = ("text", "text_pair", "target", "context", "question")


def told_of_seen_texts(model: str, splits: Mapping[str, Any], task: Any) -> str | None:
    """A sentence on the texts that the checkpoint was pretrained on; None if it was not pretrained here.

    Args:
        model: the checkpoint, as `--model_name_or_path` names it.
        splits: the data of the run, as the task reads it.
    """
    file = Path(model) / "run.yaml"
    if not file.is_file():
        return None
    flags = config_files.read_settings(file)
    if "mlm_probability" not in flags:  # a run of another recipe
        return None
    source = flags.get("train_file") or f"{flags.get('dataset_name')} ({flags.get('dataset_config_name')})"
    about = f"{model} was pretrained on the text of {source}, without labels"
    seen = _texts(flags)
    if seen is None:
        return f"{about}; it cannot be read here, so it is not known whether texts of this run's evaluation are in it"
    counts = []
    for split in ("validation", "test"):
        if split in splits:
            samples = _parts(splits[split], task)
            found = sum(not seen.isdisjoint(parts) for parts in samples)
            what = f"{found:,} of the {len(samples):,} texts"
            if any(len(parts) > 1 for parts in samples):
                what = f"texts of {found:,} of the {len(samples):,} samples"
            counts.append(f"{what} of the {split} split")
    return f"{about}; in it are {' and '.join(counts)}" if counts else about


def _parts(dataset: Any, task: Any) -> list[set[str]]:
    """The texts of each sample without their white space: of pairs both, of questions also the passage."""
    names = [name for name in _COLUMNS if name in dataset.column_names]
    if not names:
        return [{"".join(words)} - {""} for words in task.inputs(dataset)[0]]
    rows = zip(*(dataset[name][:] for name in names), strict=True)
    return [{"".join(text.split()) for text in row} - {""} for row in rows]


def _texts(flags: Mapping[str, Any]) -> set[str] | None:
    """The training documents and sentences of a pretraining without their white space; None if they are not here."""
    local = flags.get("train_file") or flags.get("dataset_name") == "samples"
    if not local or flags.get("parallel_columns"):
        return None
    found: set[str] = set()
    left = _LARGEST
    try:
        for corpus in data.corpora_of(SimpleNamespace(**flags))["train"]:
            for document in corpus:
                parts = ["".join(sentence.split()) for sentence in document.sentences]
                found.update(parts, ["".join(parts)])
                left -= sum(map(len, parts))
                if left < 0:
                    return None
    except (ValueError, OSError, AttributeError):  # a file that has moved, or has changed
        return None
    return found
