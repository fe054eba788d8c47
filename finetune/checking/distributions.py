"""How labels, lengths and words are distributed over the splits, and how far apart two splits are."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from finetune import metrics
from finetune.checking.samples import ENTITIES, NUMBER, TEXTS, Samples
from finetune.checking.sections import Section, cut, many

_DEALS = 200  # random divisions of two splits
_MOST_TEXTS = 2000  # of a split, for the classifier that tells two splits apart


def labels_by_split(samples: Samples, least: int) -> Section:
    """How often each label occurs in each split, and which labels have fewer than `least` training examples."""
    counts = {split: Counter[str]() for split in samples.splits}
    for sample in range(len(samples)):
        counts[samples.splits[int(samples.split[sample])]].update(samples.each_label(sample))
    totals = {split: max(own.total(), 1) for split, own in counts.items()}
    every = sorted(
        {label for own in counts.values() for label in own}, key=lambda label: (-counts["train"][label], label)
    )
    rows: list[list[Any]] = []
    for label in every:
        cells: list[Any] = []
        for split in samples.splits:
            cells += [counts[split][label], round(counts[split][label] / totals[split], 4)]
        rows.append([label, *cells])
    few = [label for label in every if 0 < counts["train"][label] < least]
    unseen = [label for label in every if not counts["train"][label]]
    untested = [
        (label, split)
        for split in samples.splits[1:]
        for label in every
        if counts["train"][label] and not counts[split][label]
    ]
    what = "entities" if samples.kind == ENTITIES else "examples"
    says = [f"{many(len(every), 'label')}."]
    if few:
        told = ", ".join(f"{label} {counts['train'][label]}" for label in few[:10])
        says.append(f"Fewer than {least} training {what}: {told}{' ...' * (len(few) > 10)}.")
    if unseen:
        says.append(
            f"Not in training, so no model can learn them: {', '.join(unseen[:10])}{' ...' * (len(unseen) > 10)}."
        )
    alike = spelled_alike(every)
    if alike:
        told = "; ".join(" and ".join(map(repr, group)) for group in alike[:10])
        says.append(f"Perhaps one label, written in several ways: {told}{' ...' * (len(alike) > 10)}.")
    for split in samples.splits[1:]:
        own = [label for label, of in untested if of == split]
        if own:
            says.append(f"In training but not in {split}: {', '.join(own[:10])}{' ...' * (len(own) > 10)}.")
    kept, more = cut(rows)
    columns = ["label", *(name for split in samples.splits for name in (split, f"share of {split}"))]
    return Section(
        "labels",
        "Labels by split",
        " ".join(says),
        columns,
        kept,
        f"Of entities, types are counted by entity. Rare: fewer than {least} training examples.",
        bool(few or unseen or alike),
        more,
        {"labels": len(every), "rare": len(few), "not_in_training": len(unseen), "written_alike": len(alike)},
    )


def spelled_alike(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ only in capital letters, in forms of a character (Unicode NFKC), or in spaces,
    hyphens and underscores between letters. So `1-2` is not `12`, and `-1` is not `1`.
    """
    groups: dict[str, list[str]] = {}
    for label in labels:
        text = unicodedata.normalize("NFKC", label).casefold().strip()
        groups.setdefault(re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", "", text), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def numbers_by_split(samples: Samples) -> Section:
    """The distribution of a number in each split."""
    rows = []
    for split in samples.splits:
        numbers = np.array([samples.labels[i] for i in samples.of(split)])
        quantiles = np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1])
        rows.append([split, len(numbers), *(round(float(x), 4) for x in (numbers.mean(), numbers.std(), *quantiles))])
    columns = ["split", "texts", "mean", "deviation", "least", "quarter", "half", "three quarters", "greatest"]
    says = f"From {rows[0][4]:g} to {rows[0][8]:g} in {rows[0][0]}, {rows[0][2]:g} on average."
    return Section("labels", "Numbers by split", says, columns, rows)


def lengths(samples: Samples) -> Section:
    """Words of a sample, or of each of its parts, by split."""
    rows: list[list[Any]] = []
    empty, longest = 0, dict[str, int]()
    for split in samples.splits:
        parts = samples.parts_of(split)
        for name, texts in parts.items():
            own = np.array([len(words) for words in texts])
            quantiles = np.quantile(own, [0, 0.5, 0.95, 1]) if len(own) else np.zeros(4)
            where = split if len(parts) == 1 else f"{split}, {name}"
            mean = round(float(own.mean()), 1) if len(own) else 0.0
            rows.append([where, len(own), int(own.sum()), mean, *(int(x) for x in quantiles)])
            empty += int((own == 0).sum())
            longest[name] = max(longest.get(name, 0), int(own.max(initial=0)))
    long = max(longest.values())
    says = " ".join(f"The longest of the {name} has {many(size, 'word')}." for name, size in longest.items())
    says += f" {many(empty, 'sample')} without a word." if empty else ""
    return Section(
        "lengths",
        "Lengths",
        says,
        ["split", "samples", "words", "words a sample", "least", "half have at most", "95 % have at most", "most"],
        rows,
        "Words of texts are what stands between spaces.",
        empty > 0,
        numbers={"empty": empty, "longest": long},
    )


def distances(samples: Samples, seed: int = 0) -> Section | None:
    """How far each other split is from training: in labels, words and entities, and for a classifier."""
    others = [split for split in samples.splits if split != "train"]
    if not others:
        return None
    rows: list[list[Any]] = []
    told = []
    numbers: dict[str, float] = {}
    for split in others:
        own: list[tuple[str, float, float | None, float | None]] = []
        if samples.kind == NUMBER:
            own.append(("numbers: Kolmogorov-Smirnov distance", *_number_distance(samples, split)))
        elif samples.kind != TEXTS:
            own.append(("labels: Jensen-Shannon distance", *_label_distance(samples, split, seed)))
        own.append(("unseen words: share", _unseen_words(samples, split), None, None))
        if samples.kind == ENTITIES:
            own.append(("unseen entities: share", _unseen_entities(samples, split), None, None))
        own.append(("classifier: accuracy", *_told_apart(samples, split, seed)))
        for name, value, chance, p in own:
            shown = None if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
            rows.append([split, name, round(value, 4), None if chance is None else round(chance, 4), shown])
            numbers[f"{split}_{name.partition(':')[0].replace(' ', '_').replace(',', '')}"] = value
            if p is not None and p < 0.01:
                told.append(f"{split}, {name.partition(':')[0]}")
    says = (
        "More than chance gives, for p below 0.01: " + "; ".join(told) + "." if told else "No more than chance gives."
    )
    note = (
        "Distances are 0 for equal and 1 for disjoint distributions. Jensen-Shannon distance: the root of the "
        "divergence in bits (Lin, 1991; Endres and Schindelin, 2003). Its p is of a randomisation test "
        f"(Noreen, 1989): whole samples are dealt to the two splits at random, {_DEALS} times; 95 % of these "
        "distances are at most what the column `by chance` has. Classifier: a logistic regression on words and pairs "
        f"of words learns which split a sample is of, from half of at most {_MOST_TEXTS:,} samples of each, and is "
        "tested on the other half; 0.5 is chance (Lopez-Paz and Oquab, 2017); its p is binomial. Kolmogorov-Smirnov: "
        "the usual test of two samples. Unseen: not in training."
    )
    columns = ["split against train", "measure", "value", "by chance, up to", "p"]
    return Section(
        "distances", "How far apart the splits are", says, columns, rows, note, bool(told), numbers=numbers
    )


def jensen_shannon(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The Jensen-Shannon distance of counts, in the last dimension: the root of the divergence in bits, 0 to 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = (np.nan_to_num(counts / counts.sum(-1, keepdims=True)) for counts in (one, other))
        middle = (p + q) / 2
        parts = [np.where(x > 0, x * np.log2(x / middle), 0.0).sum(-1) for x in (p, q)]
    found: np.ndarray = np.sqrt(np.clip((parts[0] + parts[1]) / 2, 0, 1))
    return found


def _label_distance(samples: Samples, split: str, seed: int) -> tuple[float, float, float]:
    """The distance, what 95 % of random divisions have at most, and p."""
    train, own = samples.of("train"), samples.of(split)
    rows = [samples.each_label(i) for i in (*train, *own)]
    index = {label: i for i, label in enumerate(sorted({label for row in rows for label in row}))}
    table = np.zeros((len(rows), len(index)))
    for row, labels in enumerate(rows):
        for label in labels:
            table[row, index[label]] += 1
    whole = table.sum(0)
    observed = float(jensen_shannon(table[: len(train)].sum(0), table[len(train) :].sum(0)))
    random = np.random.default_rng(seed)
    dealt = np.array(
        [table[random.choice(len(rows), len(own), replace=False, shuffle=False)].sum(0) for _ in range(_DEALS)]
    )
    found = jensen_shannon(dealt, whole - dealt)
    p = (1 + int((found >= observed - 1e-12).sum())) / (1 + _DEALS)
    return observed, float(np.quantile(found, 0.95)), p


def _number_distance(samples: Samples, split: str) -> tuple[float, None, float]:
    from scipy.stats import ks_2samp

    sides = [[samples.labels[i] for i in samples.of(name)] for name in ("train", split)]
    found = ks_2samp(*sides)
    return float(found.statistic), None, float(found.pvalue)


def _unseen_words(samples: Samples, split: str) -> float:
    known = {word for i in samples.of("train") for word in samples.words[i]}
    own = [word in known for i in samples.of(split) for word in samples.words[i]]
    return 1 - sum(own) / max(len(own), 1)


def _unseen_entities(samples: Samples, split: str) -> float:
    def surfaces(name: str) -> list[tuple[str, ...]]:
        return [
            tuple(samples.words[i][a:b])
            for i in samples.of(name)
            for a, b, _ in metrics.entity_spans(samples.labels[i])
        ]

    known, own = set(surfaces("train")), surfaces(split)
    return sum(surface not in known for surface in own) / max(len(own), 1)


def _told_apart(samples: Samples, split: str, seed: int) -> tuple[float, float, float]:
    """The accuracy of a classifier on samples that it did not see, what chance gives up to (95 %), and p."""
    from scipy.stats import binom
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(seed)
    sizes = [len(samples.of(name)) for name in ("train", split)]
    number = min(*sizes, _MOST_TEXTS)
    if number < 2:
        return 0.5, 1.0, 1.0
    chosen = [random.choice(np.array(samples.of(name)), number, replace=False) for name in ("train", split)]
    texts = [" ".join(samples.words[i]) for side in chosen for i in side]
    rows = HashingVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), n_features=2**18).transform(texts)
    sides = np.repeat([0, 1], number)
    learn = np.concatenate([np.arange(number // 2), number + np.arange(number // 2)])
    test = np.setdiff1d(np.arange(2 * number), learn)
    model = LogisticRegression(solver="liblinear", C=10.0).fit(rows[learn], sides[learn])
    right = int((model.predict(rows[test]) == sides[test]).sum())
    chance = float(binom.ppf(0.95, len(test), 0.5)) / len(test)
    return right / len(test), chance, float(binom.sf(right - 1, len(test), 0.5))


def of_labels(samples: Samples, least: int) -> list[Section]:
    """The sections about labels, lengths and distances."""
    by_split: Sequence[Section] = ()
    if samples.kind == NUMBER:
        by_split = [numbers_by_split(samples)]
    elif samples.kind != TEXTS:
        by_split = [labels_by_split(samples, least)]
    far = distances(samples)
    return [*by_split, *([far] if far else []), lengths(samples)]
