"""Finished runs -> the numbers of a comparison, from the files that the runs wrote.

All is read back from `all_results.json`, `history.jsonl` and `predictions_<split>`, so that a report can be made
again without training, and says what the files say.

Shapes: S seeds of a model, N sentences of the split.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from finetune import data, metrics, models
from finetune.arguments import DataArguments

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
)
# Flags of the data, which the report describes, and those that change no score.
_NOT_TOLD = {field.name for field in fields(DataArguments)} | {
    "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "seed", "train_sampling_strategy",
    "text_column_name", "text_pair_column_name", "label_column_name", "disable_tqdm", "report_to", "push_to_hub",
    "hub_model_id", "logging_steps", "save_strategy", "save_steps", "save_total_limit", "dataloader_num_workers",
}  # fmt: skip
_BASELINE_ONLY = ("embeddings", "hidden_size", "num_hidden_layers", "dropout", "char_features", "pooling")
_NO_SCORES = ("runtime", "tokens", "words")  # of the keys in all_results.json that begin with a split
EXAMPLES = 100  # sentences with errors in a report


@dataclass
class _Run:
    """What one run left behind."""

    config: Any
    folder: Path
    results: dict[str, float]
    history: list[dict[str, float]]
    words: list[list[str]]  # of each sentence
    gold: list[Any]  # the tags of each sentence, or its label
    predicted: list[Any]
    scores: list[float]  # of each label, where the run wrote them


def comparison_of(runs: Mapping[tuple[str, int], Any], splits: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Statistics, costs and breakdowns of finished runs.

    Args:
        runs: for each (model, seed) its config; all of one task and of the same data.
        splits: the data as the runs read it (`read_tagged` or `read_labelled`).
        split: which predictions to compare: `test`, or `eval`.

    Raises:
        ValueError: if a run has no predictions there, or others than for the sentences of the first.
    """
    read: dict[str, dict[int, _Run]] = {}
    for (name, seed), config in runs.items():
        read.setdefault(name, {})[seed] = _read(config, split)
    some = next(iter(next(iter(read.values())).values()))
    for (name, seed), run in _each(read):
        if run.words != some.words or run.gold != some.gold:
            raise ValueError(
                f"{run.folder}: {name} with seed {seed} was tested on other sentences than {some.folder}; compare "
                "runs of the same data"
            )
    ner = "tokens" in splits["train"].column_names
    _check_data(some, splits["test" if split == "test" else "validation"], ner)
    compared = (_entities if ner else _classes)(read, splits, some)
    metric = "f1" if ner else "accuracy"
    counts = compared.pop("counts")
    for name, seeds in read.items():
        for run, table in zip(seeds.values(), counts[name], strict=True):
            said, counted = run.results[f"{split}_{metric}"], float(metrics.score(table.sum(0)))
            if not math.isclose(said, counted, abs_tol=1e-9):
                raise ValueError(
                    f"{run.folder}: all_results.json says {split}_{metric} {said:.4f}, predictions_{split} give "
                    f"{counted:.4f}; one of them was changed, run it again"
                )
    told = _told([run.config for _, run in _each(read)])
    return {
        "task": "ner" if ner else "sentiment",
        "metric": metric,
        "split": split,
        "data": {
            "name": _data_name(some.config),
            "splits": {name: _describe(dataset, ner) for name, dataset in splits.items()},
        },
        "models": {
            name: _model(list(seeds.values()), list(seeds), split, metric, told) for name, seeds in read.items()
        },
        "pairs": [asdict(pair) for pair in metrics.compare_models(counts)] if len(counts) > 1 else [],
        **compared,
    }


def _read(config: Any, split: str) -> _Run:
    folder = Path(config.output_dir)
    results = json.loads((folder / "all_results.json").read_text())
    path = folder / "history.jsonl"
    history = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    conll, tsv = (folder / f"predictions_{split}.{ending}" for ending in ("conll", "tsv"))
    if conll.exists():
        sentences, predicted = (data.read_conll(conll, tag_column=column, written_here=True) for column in (1, 2))
        return _Run(config, folder, results, history, sentences.words, sentences.tags, predicted.tags, [])
    if not tsv.exists():
        raise ValueError(f"{folder}: no predictions_{split}; give the runs a {split} split")
    csv.field_size_limit(2**31 - 1)  # a text may be long
    with tsv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    words = [" ".join(row[key] for key in ("text", "text_pair") if key in row).split() for row in rows]
    scores = [float(row["score"]) if row["score"] else math.nan for row in rows]
    return _Run(
        config, folder, results, history, words, [r["label"] for r in rows], [r["predicted"] for r in rows], scores
    )


def _check_data(run: _Run, dataset: Any, ner: bool) -> None:
    """A finished run is not run again, so its data must be what the files hold now."""
    if ner:
        # A column file holds no sentence without words.
        words, tags = ([row for row in dataset[name] if row] for name in ("tokens", "ner_tags"))
        same = run.words == words and run.gold == tags
    else:
        columns = [dataset[name] for name in ("text", "text_pair") if name in dataset.column_names]
        words = [" ".join(texts).split() for texts in zip(*columns, strict=True)]
        same = run.words == words and run.gold == dataset["label"][:]
    if not same:
        raise ValueError(
            f"{run.folder}: this run was tested on other data than its files hold now; remove its folder, or give "
            "--overwrite_output_dir"
        )


def _each(read: Mapping[str, Mapping[int, _Run]]) -> list[tuple[tuple[str, int], _Run]]:
    return [((name, seed), run) for name, seeds in read.items() for seed, run in seeds.items()]


def _data_name(config: Any) -> str:
    return config.dataset_name or Path(config.train_file).parent.name or Path(config.train_file).name


def _describe(dataset: Any, ner: bool) -> dict[str, Any]:
    if ner:
        labels = Counter(span[2] for tags in dataset["ner_tags"] for span in metrics.entity_spans(tags))
        words = sum(map(len, dataset["tokens"]))
    else:
        labels = Counter(dataset["label"])
        columns = [name for name in ("text", "text_pair") if name in dataset.column_names]
        words = sum(len(text.split()) for name in columns for text in dataset[name])
    return {"sentences": len(dataset), "words": words, "labels": dict(sorted(labels.items()))}


def _told(configs: Sequence[Any]) -> list[str]:
    """The flags that a report tells of: the usual ones, and what any model has otherwise than by default."""
    changed = {
        field.name
        for config in configs
        for field in fields(config)
        if field.name not in _NOT_TOLD and getattr(config, field.name) != field.default
    }
    return [*TOLD, *sorted(changed - set(TOLD))]


def _model(
    runs: Sequence[_Run], seeds: Sequence[int], split: str, metric: str, told: Sequence[str]
) -> dict[str, Any]:
    """Scores and costs over the seeds."""
    config, results = runs[0].config, [run.results for run in runs]
    parts = {key: key.partition("_") for key in results[0]}
    known = {key: name for key, (of, _, name) in parts.items() if of in (split, "eval") and name not in _NO_SCORES}
    scores = {
        key: asdict(
            metrics.over_seeds(
                [float(run[key]) for run in results],
                *((-math.inf, math.inf) if name in ("loss", "words_scored") else (0.0, 1.0)),
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
        row = min(float(tokens[0]) / max(sentences, 1), config.max_seq_length)  # a long sentence is several windows
        flops = metrics.flops_per_token(runs[0].folder, row, letters)
    cost |= {
        "predict_tokens_per_second": float(np.mean(tokens / seconds)),
        "predict_sentences_per_second": float(np.mean(sentences / seconds)),
        "flops_per_token": flops,
        "flops_per_word": flops * float(tokens[0]) / max(words, 1),
    }
    baseline = models.is_baseline(config.model_name_or_path)
    if "flops_per_token" in results[0]:  # no network
        told = ["model_name_or_path"]
    else:
        told = [key for key in told if hasattr(config, key) and (baseline or key not in _BASELINE_ONLY)]
    return {
        "seeds": list(seeds),
        "depends_on_seed": "flops_per_token" not in results[0],  # the dictionary and the SVM do not
        "settings": {key: getattr(config, key) for key in told if getattr(config, key) is not None},
        "scores": scores,
        "cost": cost,
        "curve": _curve([run.history for run in runs], f"eval_{metric}"),
    }


def _curve(histories: Sequence[Sequence[Mapping[str, float]]], key: str) -> list[dict[str, float]]:
    """Mean, least and greatest score at every evaluation that all seeds have."""
    lines = [{line["epoch"]: line[key] for line in history if key in line} for history in histories]
    common = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    found = []
    for epoch in common:
        values = [line[epoch] for line in lines]
        found.append({"epoch": epoch, "mean": float(np.mean(values)), "low": min(values), "high": max(values)})
    return found


# --- entities


def _entities(read: Mapping[str, Mapping[int, _Run]], splits: Mapping[str, Any], some: _Run) -> dict[str, Any]:
    gold = [metrics.entity_spans(tags) for tags in some.gold]
    spans = {key: [metrics.entity_spans(tags) for tags in run.predicted] for key, run in _each(read)}
    types = sorted({span[2] for said in (gold, *spans.values()) for sentence in said for span in sentence})
    seen = {
        (*words[begin:end], kind)
        for words, tags in zip(splits["train"]["tokens"], splits["train"]["ner_tags"], strict=True)
        for begin, end, kind in metrics.entity_spans(tags)
    }
    cut = _subwords(read)

    def surface(sentence: int, span: metrics.Span) -> tuple[str, ...]:
        return tuple(some.words[sentence][span[0] : span[1]])

    groups: dict[str, Callable[[int, metrics.Span], Hashable]] = {
        "label": lambda sentence, span: span[2],
        "sentence length": lambda sentence, span: metrics.length_group(len(some.words[sentence])),
        "seen in training": lambda sentence, span: (
            "seen" if (*surface(sentence, span), span[2]) in seen else "unseen"
        ),
    }
    scorers: dict[str, Callable[[Any], list[Any]]] = {
        "conlleval": lambda sentences: [metrics.entity_spans(tags) for tags in sentences],
        "strict IOB2": lambda sentences: [metrics.entity_spans(tags, strict=True) for tags in sentences],
    }
    kept: list[int] = []
    if cut is not None:
        subwords, limit, splits_words = cut
        kept = [_kept(row, limit) for row in subwords]
        scorers[f"truncated at {limit} subwords"] = lambda sentences: [
            metrics.entity_spans(tags[:n]) for tags, n in zip(sentences, kept, strict=True)
        ]
        if splits_words:
            groups["subwords per word"] = lambda sentence, span: metrics.fertility_group(
                int(subwords[sentence][span[0] : span[1]].sum()), span[1] - span[0]
            )

    return {
        "counts": {
            name: np.stack([metrics.sentence_counts(gold, spans[name, seed]) for seed in seeds])
            for name, seeds in read.items()
        },
        "labels": types,
        "confusion": {
            name: np.mean(
                [metrics.entity_confusion(gold, spans[name, seed], types) for seed in seeds], axis=0
            ).tolist()
            for name, seeds in read.items()
        },
        "breakdowns": {title: _by(read, gold, spans, group) for title, group in groups.items()},
        "scorers": {
            name: {
                title: _mean_f1(scorer(some.gold), [scorer(run.predicted) for run in seeds.values()])
                for title, scorer in scorers.items()
            }
            for name, seeds in read.items()
        },
        **({"words_kept_by_truncation": sum(kept)} if cut is not None else {}),
        "examples": _entity_examples(read, gold, spans, some),
    }


def _subwords(read: Mapping[str, Mapping[int, _Run]]) -> tuple[list[np.ndarray], int, bool] | None:
    """How many subwords the first transformer's tokenizer makes of each word, or else the first baseline's.

    Returns:
        These, how many of them an input holds beside its special tokens, and whether a word may be several; None
        where no model is a network.
    """
    import pyarrow as pa

    networks = [run for _, run in _each(read) if (run.folder / "config.json").exists()]
    networks.sort(key=lambda run: models.is_baseline(run.config.model_name_or_path))
    if not networks:
        return None
    run = networks[0]
    tokenizer = models.load_tokenizer(str(run.folder), for_words=True)
    starts = data.encode_words(tokenizer, pa.array([word for words in run.words for word in words])).starts
    bounds = np.cumsum([len(words) for words in run.words])[:-1]
    special = sum(map(len, data.special_tokens(tokenizer)))
    splits_words = not models.is_baseline(run.config.model_name_or_path)
    return np.split(np.diff(starts), bounds), run.config.max_seq_length - special, splits_words


def _kept(subwords: np.ndarray, limit: int) -> int:
    """How many words begin within the first `limit` subwords."""
    return int((np.cumsum(subwords) - subwords < limit).sum())


def _by(
    read: Mapping[str, Mapping[int, _Run]], gold: Any, spans: Any, group: Callable[[int, metrics.Span], Hashable]
) -> dict[str, Any]:
    """For each group: its gold entities, and each model's F1, the mean over its seeds."""
    counts = {key: metrics.entities_by(gold, said, group) for key, said in spans.items()}
    sizes = Counter(str(group(sentence, span)) for sentence, found in enumerate(gold) for span in found)
    nothing = np.zeros(3, np.int64)
    scores = {
        name: {
            at: float(np.mean([metrics.score(counts[name, seed].get(at, nothing)) for seed in seeds]))
            for at in sorted(sizes, key=_in_order)
        }
        for name, seeds in read.items()
    }
    return {"size": {at: sizes[at] for at in sorted(sizes, key=_in_order)}, "of": "gold entities", "scores": scores}


def _in_order(group: str) -> tuple[int, str]:
    """`1-10` before `11-20` before `over 50`, `up to 2` before `up to 3`."""
    digits = "".join(character if character.isdecimal() else " " for character in group).split()
    return (int(digits[0]) + group.startswith("over") if digits else 0, group)


def _mean_f1(gold: Any, predicted: Sequence[Any]) -> float:
    return float(np.mean([metrics.score(metrics.sentence_counts(gold, said).sum(0)) for said in predicted]))


def _entity_examples(
    read: Mapping[str, Mapping[int, _Run]], gold: Any, spans: Any, some: _Run
) -> list[dict[str, Any]]:
    """The sentences with most entities missed, made up or misnamed, a mean over the models' first seeds."""
    first = {name: spans[name, next(iter(seeds))] for name, seeds in read.items()}
    found = []
    for sentence, right in enumerate(gold):
        wrong = {name: len(set(right) ^ set(said[sentence])) for name, said in first.items()}
        if any(wrong.values()):
            found.append(
                {
                    "sentence": sentence,
                    "words": some.words[sentence],
                    "gold": right,
                    "predicted": {name: said[sentence] for name, said in first.items()},
                    "wrong": wrong,
                }
            )
    return sorted(found, key=lambda one: -sum(one["wrong"].values()))[:EXAMPLES]


# --- classes


def _classes(read: Mapping[str, Mapping[int, _Run]], splits: Mapping[str, Any], some: _Run) -> dict[str, Any]:
    from sklearn.metrics import confusion_matrix, f1_score

    labels = data.class_labels(splits["train"])
    gold = np.array(some.gold)
    lengths = np.array([metrics.length_group(len(words)) for words in some.words])
    groups = sorted(set(lengths.tolist()), key=_in_order)
    sizes = Counter(some.gold)

    def mean(function: Callable[[np.ndarray], Any]) -> dict[str, Any]:
        return {
            name: np.mean([function(np.array(run.predicted)) for run in seeds.values()], axis=0)
            for name, seeds in read.items()
        }

    by_label = mean(lambda said: f1_score(gold, said, labels=labels, average=None, zero_division=0))
    by_length = mean(lambda said: [(said == gold)[lengths == group].mean() for group in groups])
    return {
        "counts": {
            name: np.stack([metrics.accuracy_counts(gold, np.array(run.predicted)) for run in seeds.values()])
            for name, seeds in read.items()
        },
        "labels": labels,
        "confusion": {
            name: table.tolist()
            for name, table in mean(lambda said: confusion_matrix(gold, said, labels=labels)).items()
        },
        "breakdowns": {
            "label": {
                "size": {label: sizes[label] for label in labels},
                "of": "texts, by F1",
                "scores": {name: dict(zip(labels, map(float, row), strict=True)) for name, row in by_label.items()},
            },
            "text length": {
                "size": {group: int((lengths == group).sum()) for group in groups},
                "of": "texts, by accuracy",
                "scores": {name: dict(zip(groups, map(float, row), strict=True)) for name, row in by_length.items()},
            },
        },
        "examples": _class_examples(read, some),
    }


def _class_examples(read: Mapping[str, Mapping[int, _Run]], some: _Run) -> list[dict[str, Any]]:
    """The texts that the models' first seeds got wrong with the most confidence (1 where a model tells none)."""
    first = {name: next(iter(seeds.values())) for name, seeds in read.items()}
    found = []
    for at, right in enumerate(some.gold):
        said = {name: run.predicted[at] for name, run in first.items()}
        sure = {name: None if math.isnan(run.scores[at]) else run.scores[at] for name, run in first.items()}
        wrong = {name: int(label != right) for name, label in said.items()}
        if any(wrong.values()):
            found.append(
                {
                    "sentence": at,
                    "words": some.words[at],
                    "gold": right,
                    "predicted": said,
                    "confidence": sure,
                    "wrong": wrong,
                    "order": sum((1.0 if sure[name] is None else sure[name] or 0.0) for name in said if wrong[name]),
                }
            )
    return sorted(found, key=lambda one: -one.pop("order"))[:EXAMPLES]
