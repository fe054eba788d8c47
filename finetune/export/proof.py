"""The proof: the development split, labelled by the model in torch and by its export.

Shapes: N samples, K counts of each.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune import metrics, stages

RESAMPLES = 2000
LEAST = 30  # samples: of fewer, all may be labelled alike by chance


@dataclass(frozen=True)
class Development:
    """The development split as the model is given it."""

    task: Any  # a module of `finetune.tasks`
    labels: list[str]
    settings: dict[str, Any]
    dataset: Any
    encoded: Any
    gold: Any
    metric: str


@dataclass(frozen=True)
class Labelled:
    """What a model says of it."""

    answers: list[Any]
    counts: np.ndarray  # (N, K)
    score: float
    per_second: float  # samples in a second of the processor's time


def development(predictor: Any, config: Any) -> Development:
    """Reads the development split.

    Args:
        config: a recipe's config, with the flags of the model's run.

    Raises:
        ValueError: where there is none, or it holds what the model does not know.
    """
    task = predictor.task
    splits = task.read(config)
    if "validation" not in splits:
        raise ValueError("--validation_file: the proof needs a development split; give one, or --precision float32")
    dataset = splits["validation"]
    if not len(dataset):
        raise ValueError("--validation_file: the development split is empty")
    return Development(
        task,
        predictor.labels,
        stages.asked(task, "settings", splits, config) | predictor.settings,
        dataset,
        task.encode(dataset, predictor.tokenizer, predictor.labels, config),
        task.gold(dataset, predictor.labels),
        task.headline(dataset),
    )


def labelled(split: Development, run: Callable[[Any], Mapping[str, np.ndarray]]) -> Labelled:
    """Labels the split."""
    began = time.process_time()
    found = run(split.encoded.rows)
    seconds = time.process_time() - began
    said = split.task.decode(split.encoded, found)
    counts = np.asarray(split.task.counts(split.gold, said, split.labels, split.settings))
    with tempfile.TemporaryDirectory() as folder:
        split.task.write(Path(folder).joinpath, "eval", split.dataset, said, split.labels, split.settings)
        answers = split.task.reread(Path(folder), "eval")[2]
    return Labelled(answers, counts, _score(split, counts.sum(0)), len(split.dataset) / max(seconds, 1e-9))


def _score(split: Development, sums: np.ndarray) -> float:
    return float(split.task.score(sums, split.labels, split.settings)[split.metric])


def compared(split: Development, torch: Labelled, onnx: Labelled, seed: int = 0) -> dict[str, Any]:
    """Agreement, and the difference of the scores with its 95 % interval (paired bootstrap over the samples)."""
    score = partial(np.apply_along_axis, lambda sums: _score(split, sums), -1)
    tables = {"onnx": onnx.counts[None], "torch": torch.counts[None]}
    found = metrics.compare_models(tables, score=score, resamples=RESAMPLES, seed=seed)[0]
    same = sum(one == other for one, other in zip(torch.answers, onnx.answers, strict=True))
    return {
        "metric": split.metric,
        "samples": len(split.dataset),
        "same_answers": same / len(split.dataset),
        "torch": torch.score,
        "onnx": onnx.score,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "torch_per_second": round(torch.per_second, 1),
        "onnx_per_second": round(onnx.per_second, 1),
    }
