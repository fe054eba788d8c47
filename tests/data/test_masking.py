"""Masking: exact shares, whole words, and draws that hang on (seed, epoch, sample) alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.masking import IGNORED, Masking, _geometric, mask_tokens, row_keys, uniform

MASK, ORDINARY = 4, np.arange(5, 1000)


def a_batch(rng, rows, longest=60, shortest=1, longest_word=5):
    """Rows with a special token at each end and words of one token to `longest_word`: ids, offsets, word numbers."""
    ids, words, offsets, number = [], [], [0], 0
    for _ in range(rows):
        row, row_words = [2], [-1]
        for _ in range(rng.integers(shortest, longest)):
            size = rng.integers(1, longest_word + 1)
            row += rng.integers(5, 1000, size).tolist()
            row_words += [number] * size
            number += 1
        ids += [*row, 3]
        words += [*row_words, -1]
        offsets.append(len(ids))
    return np.array(ids), np.array(offsets), np.array(words)


def chosen_one_by_one(masking, words, key):
    """The masked tokens of one row by the rules, written out."""
    units, last = [], None
    for i, word in enumerate(words):
        if word >= 0:
            if masking.unit == "token" or word != last or len(units[-1]) == 10:
                units.append([])
            units[-1].append(i)
        last = word
    free = sum(map(len, units))
    left = min(max(int(free * masking.mlm_probability + draw(key, 0, 0)), 1), free)
    taken = set()

    def take(unit):
        """Whether the row goes on."""
        nonlocal left
        fits = len(unit) <= left
        if fits or not taken or draw(key, 6, 0) * len(unit) < left:
            taken.update(unit)
        left -= len(unit)
        return left > 0

    if masking.unit == "span":
        for n in range(10_000) if left else ():
            start, length = int(draw(key, 4, n) * len(units)), _geometric(np.array([draw(key, 5, n)]))[0]
            if not all(take(unit) for unit in units[start : start + length] if not taken.issuperset(unit)):
                break
    else:
        for unit in sorted(units, key=lambda unit: draw(key, 1, unit[0])) if left else ():
            if not take(unit):
                break
    return taken


def draw(key, stream, number):
    return float(uniform(np.array([key]), stream, number)[0])


@pytest.mark.parametrize("unit", ["token", "whole_word", "span"])
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**40), probability=st.sampled_from([0.05, 0.15, 0.4, 1.0]), longest=st.sampled_from([5, 25])
)
def test_what_is_masked(unit, seed, probability, longest):
    """Which tokens, against the rules written out; what stands in their place, against what may."""
    ids, offsets, words = a_batch(np.random.default_rng(seed), rows=12, longest_word=longest)
    masking, keys = Masking(MASK, ORDINARY, unit, probability), row_keys(seed, 0, np.arange(12))
    shown, labels = mask_tokens(masking, ids, offsets, words, keys)
    chosen = labels != IGNORED
    assert (labels[chosen] == ids[chosen]).all()
    assert (shown[~chosen] == ids[~chosen]).all()
    assert set(shown[chosen & (shown != ids)]) <= {MASK, *ORDINARY.tolist()}
    for (begin, end), key in zip(itertools.pairwise(offsets), keys, strict=True):
        expected = chosen_one_by_one(masking, words[begin:end].tolist(), key)
        assert set(np.flatnonzero(chosen[begin:end]).tolist()) == expected


@pytest.mark.parametrize(("unit", "longest"), [("token", 5), *itertools.product(["whole_word", "span"], [1, 5, 40])])
def test_shares_are_within_three_standard_errors(unit, longest):
    """As many tokens as asked in expectation, however long the words are, in rows where a word is not over budget."""
    probability, rows = 0.15, 400
    ids, offsets, words = a_batch(np.random.default_rng(5), rows, shortest=75, longest=90, longest_word=longest)
    masking = Masking(MASK, ORDINARY, unit, probability)
    shown, labels = mask_tokens(masking, ids, offsets, words, row_keys(5, 0, np.arange(rows)))
    chosen = labels != IGNORED
    per_row = np.add.reduceat(words >= 0, offsets[:-1])
    masked = np.add.reduceat(chosen, offsets[:-1])
    # A row is rounded by chance to a token, or to a word of up to ten.
    most = 1 if unit == "token" else min(longest, 10)
    assert (np.abs(masked - per_row * probability) <= most).all()
    assert abs(masked.sum() - per_row.sum() * probability) <= 3 * np.sqrt(rows * most**2 / 4)

    # 80 % the mask token, 10 % another, 10 % unchanged; a span shares one draw, so its words are not independent.
    total = chosen.sum()
    spread = 1.0 if unit != "span" else np.sqrt(3.8 * min(longest, 10))  # words a span, tokens a word
    for count, share in (
        ((shown[chosen] == MASK).sum(), 0.8),
        (((shown != ids) & (shown != MASK))[chosen].sum(), 0.1 * (1 - 1 / len(ORDINARY))),
        ((shown == ids)[chosen].sum(), 0.1 + 0.1 / len(ORDINARY)),
    ):
        assert abs(count / total - share) <= 3 * spread * np.sqrt(share * (1 - share) / total)


def test_every_position_draws_its_own_replacement():
    """Among the random replacements of a row no token comes more often than among as many independent draws."""
    ids, offsets, words = a_batch(np.random.default_rng(2), 40, shortest=100, longest=120)
    masking = Masking(MASK, ORDINARY, "token", 1.0, 0.0, 1.0)
    shown, _ = mask_tokens(masking, ids, offsets, words, row_keys(0, 0, np.arange(40)))
    for begin, end in itertools.pairwise(offsets):
        drawn = shown[begin:end][words[begin:end] >= 0]
        # 995 ids: the number of different ones among n draws is 995 * (1 - (1 - 1 / 995) ** n) on average.
        expected = 995 * (1 - (1 - 1 / 995) ** len(drawn))
        assert abs(len(set(drawn.tolist())) - expected) < 5 * np.sqrt(expected)
    # Nor does a position draw the same in another row.
    first, second = (shown[offsets[i] + 1 : offsets[i] + 101] for i in (0, 1))
    assert (first == second).mean() < 0.1


def test_replacement_shares_can_be_set():
    ids, offsets, words = a_batch(np.random.default_rng(0), 200)
    keys = row_keys(0, 0, np.arange(200))
    all_masks = mask_tokens(Masking(MASK, ORDINARY, "token", 0.3, 1.0, 0.0), ids, offsets, words, keys)
    assert (all_masks[0][all_masks[1] != IGNORED] == MASK).all()
    as_they_are = mask_tokens(Masking(MASK, ORDINARY, "token", 0.3, 0.0, 0.0), ids, offsets, words, keys)
    assert (as_they_are[0] == ids).all()
    assert (as_they_are[1] == all_masks[1]).all()


@pytest.mark.parametrize("unit", ["token", "whole_word", "span"])
def test_a_rows_masks_do_not_hang_on_its_batch(unit):
    ids, offsets, words = a_batch(np.random.default_rng(1), 50)
    masking = Masking(MASK, ORDINARY, unit)
    samples = np.arange(1000, 1050)
    together = mask_tokens(masking, ids, offsets, words, row_keys(7, 3, samples))
    for i in (0, 17, 49):
        part = slice(offsets[i], offsets[i + 1])
        alone = mask_tokens(masking, ids[part], np.array([0, part.stop - part.start]), words[part],
                            row_keys(7, 3, samples[i : i + 1]))  # fmt: skip
        assert (alone[0] == together[0][part]).all()
        assert (alone[1] == together[1][part]).all()
    for other in (row_keys(7, 4, samples), row_keys(8, 3, samples), row_keys(7, 3, samples + 50)):
        assert (mask_tokens(masking, ids, offsets, words, other)[1] != together[1]).any()


def test_draws_are_uniform_and_independent():
    """Chi-square over 100 bins, and no correlation between neighbouring samples, positions, streams or seeds."""
    keys = row_keys(1, 0, np.arange(300))
    grid = np.stack([uniform(keys, 1, np.full(300, position)) for position in range(300)], 1)
    counts = np.bincount((grid.ravel() * 100).astype(int), minlength=100)
    assert ((counts - 900) ** 2 / 900).sum() < 99 + 4 * np.sqrt(2 * 99)
    others = [
        (grid[1:], grid[:-1]),
        (grid[:, 1:], grid[:, :-1]),
        (grid[:, 0], uniform(keys, 2, 0)),
        (grid[:, 0], uniform(row_keys(2, 0, np.arange(300)), 1, 0)),
        (grid[:, 0], uniform(row_keys(1, 1, np.arange(300)), 1, 0)),
    ]
    for first, second in others:
        n = first.size
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(n)


def test_span_lengths_are_spanberts():
    lengths = _geometric(np.random.default_rng(0).random(200_000))
    assert (lengths.min(), lengths.max()) == (1, 10)
    assert lengths.mean() == pytest.approx(3.8, abs=0.02)  # Joshi et al., 2020, section 3.1
    share = np.bincount(lengths, minlength=11)[1:] / len(lengths)
    assert np.allclose(share[1:] / share[:-1], 0.8, atol=0.03)


def test_spans_are_runs_of_words():
    ids, offsets, words = a_batch(np.random.default_rng(3), 300, longest=400)
    labels = mask_tokens(Masking(MASK, ORDINARY, "span"), ids, offsets, words, row_keys(0, 0, np.arange(300)))[1]
    chosen = labels != IGNORED
    first = np.flatnonzero((words >= 0) & (np.diff(words, prepend=-2) != 0))
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, chosen[first], 0])))[::2]
    assert 3 < runs.mean() < 5  # spans of 3.8 words, some of which touch


def test_each_span_is_replaced_by_a_draw_of_its_own():
    """Of a row's spans some become masks, some other tokens; one draw for the whole row would show but one kind."""
    N = 400
    ids, words = np.full(N, 7), np.arange(N)
    masking = Masking(MASK, np.array([8]), "span", 0.3, 0.5, 0.5)
    both = 0
    for sample in range(20):
        shown, labels = mask_tokens(masking, ids, np.array([0, N]), words, row_keys(0, 0, np.array([sample])))
        both += set(shown[labels != IGNORED].tolist()) == {MASK, 8}
    assert both == 20


def test_every_token_may_be_drawn_and_every_word_begin_a_span():
    rows = 4000
    offsets = np.arange(rows + 1) * 3
    ids, words = np.full(3 * rows, 1), np.arange(3 * rows)
    keys = row_keys(0, 0, np.arange(rows))
    shown, labels = mask_tokens(Masking(MASK, np.arange(5, 9), "token", 0.3, 0.0, 1.0), ids, offsets, words, keys)
    drawn = np.bincount(shown[labels != IGNORED], minlength=9)[5:]
    assert drawn.min() > 0.9 * drawn.mean()
    # One word a row: where its span begins. In a row of three, each word as often, since one fits anywhere.
    labels = mask_tokens(Masking(MASK, np.arange(5, 9), "span", 0.01), ids, offsets, words, keys)[1]
    begins = (labels.reshape(rows, 3) != IGNORED).sum(0)
    assert begins.sum() == rows
    assert begins.min() > 0.9 * begins.mean()


@pytest.mark.parametrize("unit", ["whole_word", "span"])
def test_a_word_ends_with_its_row(unit):
    """Also where the next row's first word has the same number."""
    keys = row_keys(0, 0, np.arange(2))
    masking = Masking(MASK, ORDINARY, unit, 0.01)
    labels = mask_tokens(masking, np.arange(10, 13), np.array([0, 2, 3]), np.array([0, 1, 1]), keys)[1]
    assert [(part != IGNORED).sum() for part in (labels[:2], labels[2:])] == [1, 1]
