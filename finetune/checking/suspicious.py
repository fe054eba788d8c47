"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang, 2021) with cleanlab.

A model labels samples that it has not seen. A label is suspicious if the model gives it a low probability, compared
with what the model usually gives to samples with this label.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.checking import out_of_fold
from finetune.checking.samples import ENTITIES, LABEL, LABELS, NUMBER, TAGS, Samples
from finetune.checking.sections import Section, cut, many
from finetune.data.folds import fold_of

_NUMBERS_TOLD = 0.05  # the share of numbers that are told, those farthest from the model's


@dataclass(frozen=True)
class Suspicion:
    """A label that is probably wrong."""

    sample: int
    word: int | None  # of tagged words, the number of the word in its sentence
    label: Any
    suggested: Any  # what the model says
    score: float  # the model's probability of the label as it stands; of numbers, cleanlab's score


def suspicions(samples: Samples, folds: int, train: Callable[..., np.ndarray] | None = None) -> list[Suspicion]:
    """The suspicious labels of all splits, the most suspicious first.

    Args:
        folds: the number of models. Texts that are equal or nearly equal are in one fold.
        train: `train(samples, rows that are seen, rows that are not)` gives the probabilities of the labels of the
            rows that are not seen, in the order of `names_of_labels`; None: a linear model.

    Raises:
        ValueError: for data without labels, with one label only, or if cleanlab is not installed.
    """
    try:
        import cleanlab  # noqa: F401
    except ImportError as error:
        raise ValueError("--label_errors: cleanlab is not installed; the extra `check` brings it") from error
    if samples.kind not in (ENTITIES, TAGS, LABEL, LABELS, NUMBER):
        raise ValueError("--label_errors: for words with tags, and for texts with labels or numbers")
    fold = fold_of(samples.units[0].texts, folds, found=samples.units[0].found)
    names = names_of_labels(samples)
    targets = targets_of(samples, names)
    if samples.kind in (ENTITIES, TAGS, LABEL) and len(names) < 2:
        raise ValueError("--label_errors: the data has only one label")
    if train is not None:
        said = _by_network(samples, fold, train)
    elif samples.kind in (ENTITIES, TAGS):
        said = out_of_fold.of_words(samples.words, targets, fold)
    else:
        said = out_of_fold.of_texts(samples.units[0].texts, targets, fold)
    if samples.kind == NUMBER:
        return _numbers(samples, targets, said)
    if samples.kind == LABELS:
        return _several(samples, targets, said, names)
    return _one(samples, targets, said, names)


def names_of_labels(samples: Samples) -> list[str]:
    """All labels, sorted; of entities the tags in IOB2."""
    if samples.kind == NUMBER:
        return []
    cells = samples.labels if samples.kind != LABEL else [[label] for label in samples.labels]
    return sorted({label for cell in cells for label in cell})


def targets_of(samples: Samples, names: list[str]) -> np.ndarray:
    """The labels as `out_of_fold` takes them."""
    if samples.kind == NUMBER:
        return np.array(samples.labels, dtype=np.float64)
    index = {label: i for i, label in enumerate(names)}
    if samples.kind == LABELS:
        table = np.zeros((len(samples), len(names)), dtype=bool)
        for row, labels in zip(table, samples.labels, strict=True):
            row[[index[label] for label in labels]] = True
        return table
    cells = samples.labels if samples.kind != LABEL else [[label] for label in samples.labels]
    return np.array([index[label] for cell in cells for label in cell], dtype=np.int64)


def _by_network(samples: Samples, fold: np.ndarray, train: Callable[..., np.ndarray]) -> np.ndarray:
    of_words = samples.kind in (ENTITIES, TAGS)
    owner = np.arange(len(fold))
    if of_words:
        owner = np.repeat(owner, [len(row) for row in samples.words])
    found: np.ndarray | None = None
    for number in range(int(fold.max()) + 1):
        said = train(samples, np.flatnonzero(fold != number), np.flatnonzero(fold == number))
        if found is None:
            found = np.zeros((len(owner), *said.shape[1:]))
        found[fold[owner] == number] = said
    assert found is not None
    return found


def _one(samples: Samples, targets: np.ndarray, said: np.ndarray, names: list[str]) -> list[Suspicion]:
    from cleanlab.filter import find_label_issues

    order = find_label_issues(targets, said, return_indices_ranked_by="self_confidence", n_jobs=1)
    if samples.kind == LABEL:
        places: list[tuple[int, int | None]] = [(sample, None) for sample in range(len(samples))]
    else:
        places = [(sample, word) for sample, words in enumerate(samples.words) for word in range(len(words))]
    best = said.argmax(1)
    return [
        Suspicion(places[i][0], places[i][1], names[targets[i]], names[best[i]], float(said[i, targets[i]]))
        for i in order
        if best[i] != targets[i]
    ]


def _several(samples: Samples, targets: np.ndarray, said: np.ndarray, names: list[str]) -> list[Suspicion]:
    from cleanlab import filter as of_one_label
    from cleanlab import multilabel_classification as of_several
    from cleanlab import rank

    some = ~targets.all(0)  # cleanlab does not take a label that every text has
    if not some.any():
        raise ValueError("--label_errors: every text has the same labels")
    told, shares = targets[:, some], said[:, some]
    if some.sum() == 1:  # nor a single one that only some have; that is a choice between two
        yes, two = told[:, 0].astype(np.int64), np.hstack([1 - shares, shares])
        order = of_one_label.find_label_issues(yes, two, return_indices_ranked_by="self_confidence", n_jobs=1)
        scores = rank.get_label_quality_scores(yes, two)
    else:
        rows = [np.flatnonzero(row).tolist() for row in told]
        order = of_several.filter.find_label_issues(
            rows, shares, return_indices_ranked_by="self_confidence", n_jobs=1
        )
        scores = of_several.get_label_quality_scores(rows, shares)
    found = []
    for i in order:
        suggested = [name for name, share in zip(names, said[i], strict=True) if share >= 0.5]
        if set(suggested) != set(samples.labels[i]):
            found.append(Suspicion(int(i), None, samples.labels[i], suggested, float(scores[i])))
    return found


def _numbers(samples: Samples, targets: np.ndarray, said: np.ndarray) -> list[Suspicion]:
    from cleanlab.regression.rank import get_label_quality_scores

    scores = get_label_quality_scores(targets, said)
    order = np.argsort(scores, kind="stable")[: max(round(_NUMBERS_TOLD * len(targets)), 1)]
    return [Suspicion(int(i), None, samples.labels[i], round(float(said[i]), 4), float(scores[i])) for i in order]


def section(samples: Samples, found: list[Suspicion], model: str) -> Section:
    """The suspicious labels as a table: of tagged words, a row for each sentence."""
    of_words = samples.kind in (ENTITIES, TAGS)
    by_sample: dict[int, list[Suspicion]] = {}
    for own in found:
        by_sample.setdefault(own.sample, []).append(own)
    rows = []
    for sample, those in by_sample.items():
        score = min(own.score for own in those)
        if of_words:
            those = sorted(those, key=lambda own: own.word or 0)
            marked = {own.word: own for own in those}
            words = [f"*{word}*" if at in marked else word for at, word in enumerate(samples.words[sample])]
            first = [samples.words[sample][own.word or 0] for own in those]
            label, said = (
                "; ".join(f"{word} {told(own)}" for word, own in zip(first, those, strict=True))
                for told in (lambda own: own.label, lambda own: own.suggested)
            )
            text = " ".join(words)
        else:
            text, label, said = samples.text(sample), _told(those[0].label), _told(those[0].suggested)
        place = samples.where(sample, those[0].word or 0)
        rows.append([round(score, 4), text if len(text) < 400 else f"{text[:400]} ...", label, said, place])
    kept, more = cut(rows)
    what = many(len(found), "word") if of_words else many(len(found), "text")
    says = f"{what} with a suspicious label" + (f", in {many(len(by_sample), 'sentence')}." if of_words else ".")
    note = (
        f"Labels of {model} for samples that it has not seen; confident learning by cleanlab (Northcutt, Jiang and "
        "Chuang, 2021). The score is the model's probability of the label as it stands. A rare but right label looks "
        "suspicious, too: a person has to decide. patch.jsonl has all of them, to edit and to apply."
    )
    if samples.kind == NUMBER:
        note += f" Of numbers, the {_NUMBERS_TOLD:.0%} farthest from the model's are told."
    columns = ["score", "text", "label", "the model's", "place"]
    return Section(
        "label_errors", "Suspicious labels", says, columns, kept, note, bool(found), more, {"labels": len(found)}
    )


def _told(label: Any) -> str:
    return ", ".join(label) or "no label" if isinstance(label, list) else str(label)


def network(config: Any, recipe: Callable[..., Any], folder: Path) -> Callable[..., np.ndarray]:
    """A `train` for `suspicions`: trains the model of a config on some samples, and labels the others.

    Args:
        config: of the recipe.
        recipe: `finetune_ner` or `finetune_sentiment`.
        folder: where the models are saved.
    """
    from finetune.checking import networks

    number = 0

    def train(samples: Samples, seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        nonlocal number
        number += 1
        print(f"fold {number}: {config.model_name_or_path} learns from {len(seen):,} samples", flush=True)
        place = folder / f"fold-{number}"
        names = names_of_labels(samples)
        return networks.probabilities(samples, names, seen, unseen, config, recipe, place)

    return train


def records(samples: Samples, found: list[Suspicion], readings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of a patch file, which `finetune.checking.patches` applies.

    Args:
        readings: how each file was read, as `keeping_readings` gives it.
    """
    sentences = _sentences(samples, readings)
    lines: dict[int, dict[str, Any]] = {}
    for own in found:
        place = samples.place(own.sample)
        line = lines.setdefault(
            own.sample,
            {
                "accept": False,
                "file": place[0],
                "line": place[1][0] if isinstance(place[1], list) else place[1],
                **({"sentence": sentences[own.sample]} if own.sample in sentences else {}),
                "text": " ".join(samples.words[own.sample]),
                "changes": [],
                "read": readings.get(place[0]),
            },
        )
        change: dict[str, Any] = {"label": own.label, "new_label": own.suggested, "score": round(own.score, 6)}
        if own.word is not None:
            change = {"word": own.word, "token": samples.words[own.sample][own.word], **change}
        line["changes"].append(change)
    return list(lines.values())


def _sentences(samples: Samples, readings: Mapping[str, Any]) -> dict[int, int]:
    """Of samples that are sentences of a text with spans: the number of the sentence in its text, from 1 on."""
    found: dict[int, int] = {}
    seen: Counter[Any] = Counter()
    for sample in range(len(samples)):
        file, lines = samples.place(sample)
        how = readings.get(file)
        if how is not None and how.get("split_sentences"):
            text = (int(samples.split[sample]), file, 0 if how["form"] == "brat" else lines[0])
            seen[text] += 1
            found[sample] = seen[text]
    return found
