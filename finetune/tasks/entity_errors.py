"""Compares the entities of several models: by type, by sentence length, seen in training or not; and their errors.

Shapes: N sentences.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finetune import data, metrics, models
from finetune.tasks.samples import Runs, by_error, each, first_run, in_order


def compared(read: Runs, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Compares models by the predictions of their runs: counts for the scores, breakdowns, confusions and errors.

    Args:
        splits: of a cross-validation, `folds` has the splits of each fold, in the order of the samples.
    """
    some = first_run(read)
    gold = [metrics.entity_spans(tags) for tags in some.gold]
    spans = {key: [metrics.entity_spans(tags) for tags in run.predicted] for key, run in each(read)}
    types = sorted({span[2] for said in (gold, *spans.values()) for sentence in said for span in sentence})
    folds = splits.get("folds") or [splits]
    seen = [_seen_in(own["train"]) for own in folds]
    fold = np.zeros(len(gold), np.int64)
    if len(folds) > 1:  # a sentence without words is no sample
        fold = np.repeat(np.arange(len(folds)), [sum(map(bool, own["test"]["tokens"])) for own in folds])
    in_spans = {
        name: {seed: replace(run, gold=gold, predicted=spans[name, seed]) for seed, run in seeds.items()}
        for name, seeds in read.items()
    }
    cut = _subwords(read)

    def surface(sentence: int, span: metrics.Span) -> tuple[str, ...]:
        return tuple(some.words[sentence][span[0] : span[1]])

    groups: dict[str, Callable[[int, metrics.Span], Hashable]] = {
        "label": lambda sentence, span: span[2],
        "sentence length": lambda sentence, span: metrics.length_group(len(some.words[sentence])),
        "seen in training": lambda sentence, span: (
            "seen" if (*surface(sentence, span), span[2]) in seen[fold[sentence]] else "unseen"
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
        "metric": "f1",
        "score": metrics.score,
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
        "examples": by_error(
            in_spans, lambda right, said: len(set(right) ^ set(said)), shown=list, kinds=error_kinds
        ),
    }


def _seen_in(train: Any) -> set[tuple[str, ...]]:
    """The words and the type of each entity of a training split."""
    return {
        (*words[begin:end], kind)
        for words, tags in zip(train["tokens"], train["ner_tags"], strict=True)
        for begin, end, kind in metrics.entity_spans(tags)
    }


def error_kinds(right: Sequence[metrics.Span], said: Sequence[metrics.Span]) -> list[str]:
    """Names of the errors in the entities of a sentence, each once.

    An entity that a model says is of a `wrong type` if the right one has the same words, has `wrong limits` if it
    only overlaps a right one, and is `invented` otherwise. A right entity is `missed` if the model says none that
    overlaps it.
    """
    found = set()
    for span in set(said) - set(right):
        over = [one for one in right if one[0] < span[1] and span[0] < one[1]]
        if any(one[:2] == span[:2] for one in over):
            found.add("wrong type")
        else:
            found.add("wrong limits" if over else "invented")
    if any(not any(one[0] < span[1] and span[0] < one[1] for one in said) for span in right):
        found.add("missed")
    return sorted(found)


def _subwords(read: Runs) -> tuple[list[np.ndarray], int, bool] | None:
    """The number of subwords of each word, by the tokenizer of the first transformer, or else of the first baseline.

    Returns:
        These numbers for each sentence, the largest number of subwords in an input without its special tokens, and
        whether a word may have several subwords. None if no model is a network.
    """
    import pyarrow as pa

    networks = [run for _, run in each(read) if (run.folder / "config.json").exists()]
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
    """The number of words that begin within the first `limit` subwords."""
    return int((np.cumsum(subwords) - subwords < limit).sum())


def _by(read: Runs, gold: Any, spans: Any, group: Callable[[int, metrics.Span], Hashable]) -> dict[str, Any]:
    """For each group: the number of correct entities, and the F1 of each model as a mean over its seeds."""
    counts = {key: metrics.entities_by(gold, said, group) for key, said in spans.items()}
    sizes = Counter(str(group(sentence, span)) for sentence, found in enumerate(gold) for span in found)
    nothing = np.zeros(3, np.int64)
    scores = {
        name: {
            at: float(np.mean([metrics.score(counts[name, seed].get(at, nothing)) for seed in seeds]))
            for at in sorted(sizes, key=in_order)
        }
        for name, seeds in read.items()
    }
    return {"size": {at: sizes[at] for at in sorted(sizes, key=in_order)}, "of": "gold entities", "scores": scores}


def _mean_f1(gold: Any, predicted: Sequence[Any]) -> float:
    return float(np.mean([metrics.score(metrics.sentence_counts(gold, said).sum(0)) for said in predicted]))
