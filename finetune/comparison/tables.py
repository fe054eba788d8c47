"""Finished runs -> the numbers of a comparison: scores, costs, statistics.

Shapes: S seeds of a model, N samples of the split.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from finetune import metrics, models, stages, training
from finetune.arguments import DataArguments, TextFileArguments, WordFileArguments
from finetune.comparison.cross_validation import joined
from finetune.comparison.runs import Run, RunName, check_data, read_run
from finetune.tasks.samples import each

TOLD = (
    "model_name_or_path",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "max_seq_length",
    "embeddings",
    "hidden_size",
    "num_hidden_layers",
    "dropout",
    "char_features",
    "pooling",
    "head",
    "decoding",
)
# Flags of the data (the report describes it elsewhere), and flags that do not change a score.
_FILES = (DataArguments, TextFileArguments, WordFileArguments)
_NOT_TOLD = {field.name for kind in _FILES for field in fields(kind)} | {
    "fold", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "seed", "train_sampling_strategy",
    "text_column_name", "text_pair_column_name", "label_column_name", "source_column_name", "target_column_name",
    "train_target_file", "validation_target_file", "test_target_file", "disable_tqdm", "report_to", "push_to_hub",
    "hub_model_id", "logging_steps", "save_strategy", "save_steps", "save_total_limit", "dataloader_num_workers",
}  # fmt: skip
_BASELINE_ONLY = ("embeddings", "hidden_size", "num_hidden_layers", "dropout", "char_features", "pooling")
_NO_SCORES = ("runtime", "tokens", "words")  # of the keys in all_results.json that begin with a split

# The least and the greatest value of a score, if they are not 0 and 1.
_LIMITS = {
    **dict.fromkeys(("loss", "words_scored", "questions", "questions_scored"), (-math.inf, math.inf)),
    "perplexity": (1.0, math.inf),
    "mse": (0.0, math.inf),
    **dict.fromkeys(("pearson", "spearman"), (-1.0, 1.0)),
    "log_probability": (-math.inf, 0.0),
    **dict.fromkeys(("bits_per_character", "scored_tokens"), (0.0, math.inf)),
}


def comparison_of(
    runs: Mapping[tuple[str, int], Any],
    splits: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    split: str,
    task: Any,
) -> dict[str, Any]:
    """Statistics, costs and breakdowns of finished runs.

    Args:
        runs: (model, seed) -> config; all runs have the same task and the same data. Of a cross-validation: a list
            with the config of each fold.
        splits: the data as the task reads it. Of a cross-validation: a list with the splits of each fold.
        split: which predictions to compare: `test` or `eval`.
        task: a module of `finetune.tasks`.

    Raises:
        ValueError: if a run has no predictions for this split, or predictions for other samples than the first run.
    """
    folds = [] if isinstance(splits, Mapping) else list(splits)
    data = [splits] if isinstance(splits, Mapping) else folds
    found: dict[str, dict[int, Run]] = {}
    for (name, seed), config in runs.items():
        parts = [read_run(own, split, task) for own in (config if folds else [config])]
        found.setdefault(name, {})[seed] = joined(parts, folds, task) if folds else parts[0]
    some = next(iter(next(iter(found.values())).values()))
    for (name, seed), run in each(found):
        if run.words != some.words or run.gold != some.gold:
            raise ValueError(
                f"{run.folder}: {name} with seed {seed} was evaluated on other sentences than {some.folder}; compare "
                "runs with the same data"
            )
    for part, own in zip(some.parts, data, strict=True):
        check_data(part, own["test" if split == "test" else "validation"], task)
    compared = task.compared(found, {**data[0], "folds": folds} if folds else data[0])
    counts, metric, score = (compared.pop(key) for key in ("counts", "metric", "score"))
    for name, seeds in found.items():
        for run, table in zip(seeds.values(), counts[name], strict=True):
            said, counted = run.results[f"{split}_{metric}"], float(score(table.sum(0)))
            if not math.isclose(said, counted, abs_tol=1e-9):
                raise ValueError(
                    f"{run.folder}: all_results.json has {split}_{metric} {said:.4f}, but predictions_{split} give "
                    f"{counted:.4f}; one of the files was changed; run it again"
                )
    told = _told([run.config for _, run in each(found)])
    low, high = _LIMITS.get(metric, (0.0, 1.0))
    pairs = metrics.compare_models(counts, score=score, widest=high - low) if len(counts) > 1 else []
    return {
        "task": task.PIPELINE,
        "metric": metric,
        "split": split,
        "data": {
            "name": _data_name(some.config),
            "splits": _described_folds(folds, task) if folds else _described(data[0], task),
        },
        **({"folds": [len(own["test"]) for own in folds]} if folds else {}),
        "models": {
            name: _model(list(seeds.values()), list(seeds), split, metric, told) for name, seeds in found.items()
        },
        "pairs": [asdict(pair) for pair in pairs],
        "collapses": [
            f"{RunName(name, seed, fold)}: {sentence}"
            for (name, seed), run in each(found)
            for fold, part in (enumerate(run.folds, start=1) if run.folds else [(None, run)])
            for sentence in training.told_collapses(part.config, part.results)
        ],
        **{"labels": [], "confusion": {}, "breakdowns": {}, "examples": []},
        **compared,
    }


def _data_name(config: Any) -> str:
    file = Path(config.train_file or "data from Python")
    return config.dataset_name or file.parent.name or file.name


def _described(splits: Mapping[str, Any], task: Any) -> dict[str, Any]:
    return {name: _describe(dataset, task) for name, dataset in splits.items()}


def _described_folds(folds: Sequence[Mapping[str, Any]], task: Any) -> dict[str, Any]:
    """The test splits of all folds, which are all samples."""
    each_fold = [_describe(own["test"], task) for own in folds]
    labels: Counter[str] = Counter()
    for own in each_fold:
        labels.update(own["labels"])
    sums = {key: sum(own[key] for own in each_fold) for key in ("sentences", "words")}
    return {"test": sums | {"labels": dict(sorted(labels.items()))}}


def _describe(dataset: Any, task: Any) -> dict[str, Any]:
    words, _ = task.inputs(dataset)
    return {
        "sentences": len(dataset),
        "words": sum(map(len, words)),
        "labels": stages.asked(task, "label_numbers", dataset),
    }


def _told(configs: Sequence[Any]) -> list[str]:
    """The flags that a report shows: the usual ones, and each flag that is not the default for some model."""
    changed = {
        field.name
        for config in configs
        for field in fields(config)
        if field.name not in _NOT_TOLD and getattr(config, field.name) != field.default
    }
    return [*TOLD, *sorted(changed - set(TOLD))]


def _model(runs: Sequence[Run], seeds: Sequence[int], split: str, metric: str, told: Sequence[str]) -> dict[str, Any]:
    """Scores and costs over the seeds."""
    config, results = runs[0].config, [run.results for run in runs]
    parts = {key: key.partition("_") for key in results[0]}
    known = {key: name for key, (of, _, name) in parts.items() if of in (split, "eval") and name not in _NO_SCORES}
    scores = {
        key: asdict(
            metrics.over_seeds(
                [float(run[key]) for run in results],
                *_LIMITS.get(name, (0.0, 1.0)),
            )
        )
        | {"values": [run[key] for run in results]}
        for key, name in known.items()
    }
    tokens, seconds = (np.array([float(run[f"{split}_{key}"]) for run in results]) for key in ("tokens", "runtime"))
    sentences, words = len(runs[0].words), sum(map(len, runs[0].words))
    cost = {
        key: float(np.mean([run[key] for run in results]))
        for key in ("total_parameters", "train_runtime", "train_tokens_per_second", "peak_memory_mb")
    }
    flops = results[0].get("flops_per_token")
    if flops is None:
        letters = sum(len(word.encode()) for sentence in runs[0].words for word in sentence) / max(words, 1)
        row = min(float(tokens[0]) / max(sentences, 1), config.max_seq_length)  # a long sentence has several windows
        flops = metrics.flops_per_token(runs[0].folder, row, letters)
    cost |= {
        "predict_tokens_per_second": float(np.mean(tokens / seconds)),
        "predict_sentences_per_second": float(np.mean(sentences / seconds)),
        "flops_per_token": flops,
        "flops_per_word": flops * float(tokens[0]) / max(words, 1),
    }
    name = config.model_name_or_path
    baseline = models.is_baseline(name) or models.is_new_seq2seq(name)
    if "flops_per_token" in results[0]:  # the SVM or the dictionary
        told = ["model_name_or_path"]
    else:
        told = [key for key in told if hasattr(config, key) and (baseline or key not in _BASELINE_ONLY)]
    return {
        "seeds": list(seeds),
        "depends_on_seed": "flops_per_token" not in results[0],  # the SVM and the dictionary do not
        "settings": {key: getattr(config, key) for key in told if getattr(config, key) is not None},
        "scores": scores,
        "cost": cost,
        "curve": _curve([part.history for run in runs for part in run.parts], f"eval_{metric}"),
    }


def _curve(histories: Sequence[Sequence[Mapping[str, float]]], key: str) -> list[dict[str, float]]:
    """The mean, the least and the greatest score over the runs, at each evaluation that all of them have."""
    lines = [{line["epoch"]: line[key] for line in history if key in line} for history in histories]
    common = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    found = []
    for epoch in common:
        values = [line[epoch] for line in lines]
        found.append({"epoch": epoch, "mean": float(np.mean(values)), "low": min(values), "high": max(values)})
    return found
