"""Near duplicates, against slow loops over all pairs and against datasketch."""

import itertools
import random

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from finetune.data.near_duplicates import (
    SHORTEST,
    bands_and_rows,
    minhash,
    near_duplicates,
    normal_form,
)

WORDS = ["the", "a", "harbour", "ship", "Ada", "saw", "wrote", "long", "ago", "quickly", "café", "東京", "naïve"]
WORDS += ["12,5", "...", "river", "in", "of", "and", "by"]


def made_up(number: int, seed: int) -> list[str]:
    """Texts of random words, and copies of them with words or letters replaced, added and removed."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 14))) for _ in range(number)]
    for text in list(texts):
        words = text.split()
        for _ in range(draw.randint(0, 2)):
            at = draw.randrange(len(words))
            words[at : at + draw.randint(0, 1)] = draw.choices(WORDS, k=draw.randint(0, 1))
            words = words or ["so"]
        copy = " ".join(words)
        texts.append(copy.upper() if draw.random() < 0.2 else copy)
    draw.shuffle(texts)
    return texts


def grams(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(max(len(text) - 4, 1))}


def edit_distance_of_one(one: list[str], other: list[str]) -> bool:
    if one == other or min(len(one), len(other)) < SHORTEST or abs(len(one) - len(other)) > 1:
        return False
    if len(one) == len(other):
        return sum(a != b for a, b in zip(one, other, strict=True)) == 1
    long, short = sorted((one, other), key=len, reverse=True)
    return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def by_pair(texts: list[str], found) -> dict[tuple[str, str], tuple[float, bool]]:
    of_group = {int(number): normal_form(text) for number, text in zip(found.group, texts, strict=True)}
    return {
        tuple(sorted((of_group[int(a)], of_group[int(b)]))): (similarity, one_word)
        for a, b, similarity, one_word in zip(
            found.first, found.second, found.similarity, found.one_word, strict=True
        )
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_pairs_of_a_slow_loop(seed):
    texts = made_up(150, seed)
    forms = sorted({normal_form(text) for text in texts})
    found = near_duplicates(texts, 0.7)
    assert [normal_form(texts[i]) == normal_form(texts[j]) for i in range(60) for j in range(60)] == [
        bool(found.group[i] == found.group[j]) for i in range(60) for j in range(60)
    ]
    pairs = by_pair(texts, found)
    expected, missed = {}, []
    for one, other in itertools.combinations(forms, 2):
        jaccard = len(grams(one) & grams(other)) / len(grams(one) | grams(other))
        one_word = edit_distance_of_one(one.split(), other.split())
        if one_word or jaccard >= 0.7:
            expected[one, other] = (jaccard, one_word)
            if (one, other) not in pairs:
                missed.append((jaccard, one_word))
    assert len(expected) > 30
    assert pairs.keys() <= expected.keys()
    for pair, (jaccard, one_word) in pairs.items():
        assert pairs[pair] == pytest.approx((expected[pair][0], expected[pair][1])), pair
        assert one_word == expected[pair][1]
        assert jaccard == pytest.approx(expected[pair][0])
    assert len(missed) <= len(expected) / 50
    assert all(jaccard < 0.8 and not one_word for jaccard, one_word in missed)


def test_datasketch_finds_no_pair_that_is_not_here(samples):
    draw = random.Random(0)
    texts = [" ".join(words) for words in samples["train"]["tokens"]]
    for text in texts[:100]:
        at = draw.randrange(len(text))
        texts.append(text[:at] + draw.choice("abc ") + text[at + 2 :])
    forms = sorted({normal_form(text) for text in texts})
    index = MinHashLSH(threshold=0.7, num_perm=128)
    sketches = {}
    for form in forms:
        sketches[form] = MinHash(num_perm=128)
        sketches[form].update_batch([gram.encode() for gram in grams(form)])
        index.insert(form, sketches[form])
    theirs = {
        tuple(sorted((form, other)))
        for form in forms
        for other in index.query(sketches[form])
        if other != form and len(grams(form) & grams(other)) >= 0.7 * len(grams(form) | grams(other))
    }
    assert len(theirs) > 50
    assert theirs <= by_pair(texts, near_duplicates(texts, 0.7)).keys()


def test_a_signature_estimates_the_similarity():
    draw = np.random.default_rng(0)
    one, other = (np.unique(draw.integers(0, 2**64, 4000, dtype=np.uint64)) for _ in range(2))
    other = np.unique(np.concatenate([one[:3000], other[:1000]]))
    jaccard = len(np.intersect1d(one, other)) / len(np.union1d(one, other))
    offsets = np.array([0, len(one), len(one) + len(other)])
    alike = np.mean([np.equal(*minhash(np.concatenate([one, other]), offsets, seed)).mean() for seed in range(30)])
    assert alike == pytest.approx(jaccard, abs=0.03)  # its standard error is 0.008


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_pair_at_the_threshold_is_proposed_with_99_percent(similarity):
    bands, rows = bands_and_rows(similarity)
    assert bands * rows <= 128
    assert 1 - (1 - similarity**rows) ** bands >= 0.99
    if bands > 1:
        assert 1 - (1 - similarity ** (rows + 1)) ** (128 // (rows + 1)) < 0.99


def test_crowded_buckets_are_told():
    texts = [f"the order with the number {i} was sent to you today" for i in range(100)]
    found = near_duplicates(texts)
    assert found.crowded == 100
    pairs = np.stack([found.first, found.second])
    assert set(pairs.ravel().tolist()) == set(range(100))
    assert len(found.first) >= 100 * 64 - 64 * 65 / 2
    assert near_duplicates(texts[:60]).crowded == 0
    assert len(near_duplicates(texts[:60]).first) == 60 * 59 / 2


def test_few_texts_and_no_texts():
    assert len(near_duplicates([]).group) == 0
    assert near_duplicates(["a", "A ", "ａ"]).group.tolist() == [0, 0, 0]
    assert near_duplicates(["", "b"]).group.tolist() == [0, 1]
    with pytest.raises(ValueError, match="--similarity 0: must be above 0"):
        near_duplicates(["a"], 0)
