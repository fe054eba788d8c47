"""Texts that occur twice, within a split and in two splits; and the test score without them."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune import metrics
from finetune.checking.samples import ENTITIES, LABELS, QUESTIONS, Samples, Unit
from finetune.checking.sections import Section, cut, many
from finetune.data.near_duplicates import normal_form

_RULE = (
    "Equal: the same characters, apart from capital letters, spaces and forms of a character (Unicode NFKC). Nearly "
    "equal: a Jaccard similarity of the sets of character 5-grams of {similarity} or more, or one word replaced, "
    "added or removed in a text of at least 5 words. MinHash (Broder, 1997) proposes pairs; each is counted exactly."
)


def in_another_split(unit: Unit, split: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    """Which texts of a split have an equal text, and which only a nearly equal text, in another split.

    With `other` equal to `split`: which texts have one before them.

    Returns:
        Two arrays of numbers of texts.
    """
    own = np.flatnonzero(unit.split == split)
    group = unit.found.group
    if split == other:
        _, first = np.unique(group[own], return_index=True)
        repeated = np.ones(len(own), dtype=bool)
        repeated[first] = False
        equal, rest = own[repeated], own[~repeated]
        place = np.full(int(group.max(initial=0)) + 1, -1)
        place[group[rest]] = np.arange(len(rest))
        one, two = place[unit.found.first], place[unit.found.second]
        later = np.maximum(one, two)[(one >= 0) & (two >= 0)]
        return equal, rest[np.unique(later)]
    there = np.zeros(int(group.max(initial=0)) + 1, dtype=bool)
    there[group[unit.split == other]] = True
    near = np.zeros_like(there)
    near[unit.found.first[there[unit.found.second]]] = True
    near[unit.found.second[there[unit.found.first]]] = True
    return own[there[group[own]]], own[near[group[own]] & ~there[group[own]]]


def duplicates(samples: Samples, similarity: float) -> Section:
    """How many texts occur twice, for each pair of splits."""
    rows = []
    leaks, within = [], 0
    numbers: dict[str, float] = {}
    for unit in samples.units:
        for b, other in enumerate(samples.splits):
            for a in range(b + 1):
                equal, near = in_another_split(unit, b, a)
                size = int((unit.split == b).sum())
                name = samples.splits[a]
                where = f"twice in {name}" if a == b else f"{other}, also in {name}"
                share = (len(equal) + len(near)) / max(size, 1)
                rows.append([unit.name, where, size, len(equal), len(near), round(share, 4)])
                numbers[f"{unit.name}_{other}_in_{name}_equal"] = len(equal)
                numbers[f"{unit.name}_{other}_in_{name}_nearly_equal"] = len(near)
                if a != b and len(equal) + len(near):
                    leaks.append(f"{len(equal) + len(near):,} of {size:,} {other} {unit.name} are also in {name}")
                elif a == b:
                    within += len(equal) + len(near)
    says = "; ".join(leaks) + ". " if leaks else "No text of one split stands in another split. "
    says += f"{within:,} texts repeat an earlier text of their own split."
    crowded = sum(unit.found.crowded for unit in samples.units)
    note = _RULE.format(similarity=similarity)
    if crowded:
        note += f" {crowded:,} texts are so much alike many others that not all of their pairs were compared."
    columns = ["of", "where", "texts", "equal", "nearly equal", "share"]
    return Section("duplicates", "Duplicates", says, columns, rows, note, bool(leaks) or within > 0, numbers=numbers)


def pairs_shown(samples: Samples) -> Section:
    """Pairs of texts in two splits, and then pairs in one split: an earlier text, and what is equal or like it."""
    found: list[tuple[bool, float, int, int, int]] = []  # in one split, -similarity, unit, text, text
    for number, unit in enumerate(samples.units):
        members: dict[int, list[int]] = {}
        for text, group in enumerate(unit.found.group.tolist()):
            members.setdefault(group, []).append(text)
        alike = [(own[0], other, 1.0) for own in members.values() for other in own[1:]]
        pairs = zip(unit.found.first.tolist(), unit.found.second.tolist(), unit.found.similarity, strict=True)
        for first, second, similarity in pairs:
            ones, twos = members[first][:20], members[second][:20]
            crossing = ((a, b) for a in ones for b in twos if unit.split[a] != unit.split[b])
            one, two = next(crossing, (ones[0], twos[0]))
            alike.append((one, two, float(similarity)))
        for one, two, similarity in alike:
            within = bool(unit.split[one] == unit.split[two])
            found.append((within, -similarity, number, min(one, two), max(one, two)))
    kept, more = cut(sorted(found))
    rows = [_pair(samples, samples.units[number], one, two, -similarity) for _, similarity, number, one, two in kept]
    columns = ["similarity", "of", "splits", "first", "place", "second", "place of the second", "labels"]
    says = f"{many(len(found), 'pair')}, those in two splits first."
    return Section("duplicate_pairs", "Pairs of duplicates", says, columns, rows, more=more)


def _pair(samples: Samples, unit: Unit, one: int, two: int, similarity: float) -> list[Any]:
    a, b = unit.rows[one][0], unit.rows[two][0]
    splits = " and ".join(dict.fromkeys(samples.splits[unit.split[text]] for text in (one, two)))
    same = "same" if samples.labels[a] == samples.labels[b] else "different"
    texts = [text if len(text) <= 200 else f"{text[:200]} ..." for text in (unit.texts[one], unit.texts[two])]
    return [*(round(similarity, 3), unit.name, splits, texts[0], samples.where(a), texts[1], samples.where(b), same)]


def seen_in_training(samples: Samples, split: str) -> np.ndarray:
    """Which samples of a split have an equal or a nearly equal text in training, bool (samples of the split,)."""
    unit, own = samples.units[0], samples.of(split)
    seen = np.zeros(len(samples), dtype=bool)
    for texts in in_another_split(unit, samples.splits.index(split), samples.splits.index("train")):
        for text in texts:
            seen[unit.rows[text]] = True
    return seen[own.start : own.stop]


def score_without(samples: Samples, run: Mapping[str, Any] | None) -> Section | None:
    """The score of the test split without the samples that stand in training; or the share of these samples.

    Args:
        run: of a finished run its `folder`, `split`, `metric`, the `counts` of each sample (N, K), and `score`, which
            makes a score of their sums.
    """
    split = run["split"] if run else "test" if "test" in samples.splits else samples.splits[-1]
    if split == "train" or split not in samples.splits:
        return None
    seen = seen_in_training(samples, split)
    title = f"The {split} score and the training data"
    count = f"{int(seen.sum()):,} of {len(seen):,} {split} samples ({seen.mean():.1%}) have a text that training has"
    share: dict[str, float] = {"share": round(float(seen.mean()), 6), "samples": int(seen.sum())}
    if run is None:
        says = f"{count}, equal or nearly equal. A run's folder (--run) tells what the score is without them."
        return Section("score", title, says, [], [], look=bool(seen.any()), numbers=share)
    groups: Sequence[tuple[str, np.ndarray]] = [
        ("all", np.ones(len(seen), dtype=bool)),
        ("without those in training", ~seen),
        ("only those in training", seen),
    ]
    scores = {
        name: float(run["score"](run["counts"][chosen].sum(0))) if chosen.any() else None for name, chosen in groups
    }
    rows: list[list[Any]] = []
    for name, chosen in groups:
        score = scores[name]
        rows.append([name, int(chosen.sum()), None if score is None else round(score, 4)])
    whole, without = scores["all"], scores["without those in training"]
    says = f"{count}. {run['metric']} of {run['folder']}: "
    if whole is None or without is None:
        says += "no sample is left without them."
    else:
        points = 100 * (whole - without)
        says += f"{whole:.4f}, and {without:.4f} without them: {points:+.2f} points stand on them."
        share |= {"score": whole, "score_without": without, "points": points}
    columns = ["samples", "number", str(run["metric"])]
    return Section("score", title, says, columns, rows, look=bool(seen.any()), numbers=share)


def contradictions(samples: Samples) -> Section:
    """Equal texts with different labels; of questions, equal questions about equal passages."""
    keys: list[list[int]] = [[] for _ in range(len(samples))]
    for unit in samples.units if samples.kind == QUESTIONS else samples.units[:1]:
        for text, group in enumerate(unit.found.group.tolist()):
            for row in unit.rows[text]:
                keys[row].append(group)
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(tuple(key), []).append(row)
    found = []
    for own in groups.values():
        marks = [_annotation(samples, sample) for sample in own] if len(own) > 1 else [None]
        if len(set(marks)) > 1:
            first = {mark: told_label(samples, sample) for mark, sample in zip(marks[::-1], own[::-1], strict=True)}
            found.append((own, [first[mark] for mark in marks]))
    of_rows = sum(len(own) for own, _ in found)
    rows = []
    for own, told in sorted(found, key=lambda one: -len(one[0])):
        labels = "; ".join(f"{label} ({told.count(label)})" for label in dict.fromkeys(told))
        places = ", ".join(samples.where(sample) for sample in own[:5]) + (" ..." if len(own) > 5 else "")
        rows.append([samples.text(own[0]), len(own), labels, places])
    rows, more = cut(rows)
    says = f"{many(len(found), 'text')} with several labels, in {many(of_rows, 'row')}." if found else "None."
    return Section(
        "contradictions",
        "One text, several labels",
        says,
        ["text", "rows", "labels", "places"],
        rows,
        "Texts are equal as under Duplicates.",
        bool(found),
        more,
        {"texts": len(found), "rows": of_rows},
    )


def _annotation(samples: Samples, sample: int) -> Any:
    """What is equal if two equal texts have the same label, whatever their capital letters and spaces are."""
    if samples.kind == QUESTIONS:
        return tuple(sorted(set(map(normal_form, samples.labels[sample]))))
    if samples.kind != ENTITIES:
        return told_label(samples, sample)
    sizes = [len(normal_form(word).replace(" ", "")) for word in samples.words[sample]]
    spans = metrics.entity_spans(samples.labels[sample])
    return tuple((sum(sizes[:begin]), sum(sizes[:end]), kind) for begin, end, kind in spans)


def told_label(samples: Samples, sample: int) -> str:
    """The label, the labels, the entities or the answer of a sample, as a text."""
    label = samples.labels[sample]
    if samples.kind == ENTITIES:
        words = samples.words[sample]
        return (
            ", ".join(f"{' '.join(words[a:b])} {kind}" for a, b, kind in metrics.entity_spans(label)) or "no entity"
        )
    if samples.kind in (LABELS, QUESTIONS):
        return ", ".join(sorted(set(label))) or ("no label" if samples.kind == LABELS else "no answer")
    return " ".join(label) if isinstance(label, list) else str(label)
