"""The dial: thresholds keep what they promise, on data whose true precision is known."""

import numpy as np
import pytest
from scipy import stats

from finetune import metrics
from finetune.metrics import promises

SPLITS, DELTA = 200, 0.1
# If each of 200 promises is broken with a probability of 0.1, more than 32 are so with a probability below 0.01.
MOST_BROKEN = 32


def drawn(rng, N, together):
    """Scores, which answers are right, and their sentences; `together`: those of one sentence are wrong together."""
    if not together:
        scores = rng.beta(4, 1, N)
        return scores, rng.random(N) < scores**1.3, None
    sentences = np.repeat(np.arange(N // 6), 6)
    scores = np.clip(rng.beta(4, 1, N // 6)[sentences] + rng.normal(0, 0.01, len(sentences)), 0, 1)
    return scores, rng.random(N // 6)[sentences] < scores**1.3, sentences


@pytest.mark.parametrize("together", [False, True])
def test_a_promise_is_broken_in_at_most_delta_of_200_splits(together):
    rng = np.random.default_rng(1)
    scores, right, _ = drawn(rng, 120_000, together)
    order = np.argsort(-scores)
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    wish = 0.85
    best = (np.flatnonzero(precision >= wish)[-1] + 1) / len(order)
    broken, made, shares = 0, 0, []
    for _ in range(SPLITS):
        own, good, groups = drawn(rng, 1200, together)
        for promise in metrics.promised_thresholds(own, good, len(own), [wish], groups=groups, delta=DELTA):
            above = np.searchsorted(-scores[order], -promise.threshold, side="right")
            broken += precision[above - 1] < wish
            made += 1
            shares.append(above / len(order))
            assert promise.answered == (own >= promise.threshold).sum()
            assert promise.found == good[own >= promise.threshold].mean()
            assert promise.recall == good[own >= promise.threshold].sum() / len(own)
    assert broken <= MOST_BROKEN
    # It is of use: most splits promise, and not much less than is possible.
    assert made > SPLITS * (0.6 if together else 0.95)
    assert np.mean(shares) > best * (0.5 if together else 0.8)


def test_a_model_that_is_not_good_enough_promises_nothing():
    rng = np.random.default_rng(0)
    found = [
        metrics.promised_thresholds(rng.random(500), rng.random(500) < 0.895, 500, [0.9], delta=DELTA)
        for _ in range(SPLITS)
    ]
    assert sum(map(bool, found)) <= MOST_BROKEN
    assert metrics.promised_thresholds(np.ones(20), np.ones(20, bool), 20, [0.95]) == []  # 20 right ones are luck
    assert metrics.promised_thresholds(np.zeros(0), np.zeros(0, bool), 0) == []
    with pytest.raises(ValueError, match=r"precision 1.5: must be between 0 and 1"):
        metrics.promised_thresholds(np.ones(5), np.ones(5, bool), 5, [1.5])


def test_answers_of_one_score_are_given_together():
    scores, right = np.repeat([0.9, 0.5], [300, 100]), np.repeat([True, False], [300, 100])
    (promise,) = metrics.promised_thresholds(scores, right, 400, [0.95])
    assert (promise.threshold, promise.answered, promise.found, promise.recall) == (0.9, 300, 1.0, 0.75)


def test_the_thresholds_do_not_look_at_what_is_right():
    rng = np.random.default_rng(0)
    scores = rng.random(300)
    sides = [promises.thresholds(scores, rng.random(300) < share) for share in (0.1, 0.9)]
    assert (sides[0].threshold == sides[1].threshold).all()
    assert (sides[0].answered == sides[1].answered).all()
    assert (np.diff(sides[0].answered) > 0).all()


def test_the_tail_is_the_binomial_distribution():
    for answered in (1, 7, 60):
        wrong = np.arange(answered + 1)
        found = promises.binomial_tail(wrong, np.full(answered + 1, answered), 0.1)
        assert found == pytest.approx(stats.binom.cdf(wrong, answered, 0.1), abs=1e-9)


def test_the_fallback_procedure_hands_its_level_on():
    levels = np.array([0.02, 0.02, 0.0, 0.02, 0.0])
    found = promises.fallback(np.array([0.02, 0.04, 0.05, 0.02, 0.02]), levels)
    assert found.tolist() == [True, True, False, True, True]
