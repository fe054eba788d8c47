"""Temperatures and calibration errors, against slow references and scores of known honesty."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import metrics
from finetune.metrics.calibration import BINS

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None)
@given(ANSWERS)
def test_the_calibration_error_is_the_slow_one(answers):
    bins = {}
    for score, right in answers:
        bins.setdefault(max(math.ceil(score * BINS), 1), []).append((score, right))
    gaps = (len(own) * abs(np.mean([s for s, _ in own]) - np.mean([r for _, r in own])) for own in bins.values())
    scores, right = (np.array(side) for side in zip(*answers, strict=True))
    sums = metrics.calibration_sums(scores, right)
    assert metrics.calibration_error(sums) == pytest.approx(sum(gaps) / len(answers), abs=1e-9)
    # A split's error is a function of sums, so the sums of its parts may be added.
    parts = sum(metrics.calibration_sums(scores[i::2], right[i::2]) for i in range(2))
    assert parts == pytest.approx(sums)


def drawn(N, temperature, seed=0):
    """Logits, and labels that are as probable as the logits say at this temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (N, 5))
    shares = np.exp(logits / temperature)
    return logits, (rng.random((N, 1)) > np.cumsum(shares / shares.sum(1, keepdims=True), axis=1)).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_makes_the_scores_honest(temperature):
    logits, gold = drawn(20_000, temperature)
    found = metrics.fitted_temperature(logits, gold)
    assert found == pytest.approx(temperature, rel=0.05)
    shares = metrics.tempered(logits, found)
    assert (shares.argmax(1) == logits.argmax(1)).all()
    right = shares.argmax(1) == gold
    errors = [
        metrics.calibration_error(metrics.calibration_sums(own.max(1), right))
        for own in (shares, metrics.tempered(logits, 1.0))
    ]
    assert errors[0] < 0.015
    if temperature != 1.0:
        assert errors[1] > 5 * errors[0]


def test_few_samples_and_none_leave_the_scores_as_they_are():
    assert metrics.fitted_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0
    assert metrics.fitted_scale(np.zeros(0), np.zeros(0, bool)) == (1.0, 0.0)
    # All right: without the prior, the scores would all become 1.
    logits, _ = drawn(5, 1.0)
    assert 0.2 < metrics.fitted_temperature(logits, logits.argmax(1)) < 1.0
    # A label that the model holds for impossible is right.
    hopeless = np.array([[0.0, -np.inf], [0.0, -1.0]])
    assert np.isfinite(metrics.fitted_temperature(hopeless, np.array([1, 0])))


def test_the_scale_of_entities_is_found_and_keeps_their_order():
    rng = np.random.default_rng(0)
    scores = rng.beta(4, 1, 20_000)
    wanted = metrics.scaled(scores, (0.6, -0.8))
    right = rng.random(20_000) < wanted
    scale = metrics.fitted_scale(scores, right)
    assert scale == pytest.approx((0.6, -0.8), abs=0.06)
    found = metrics.scaled(scores, scale)
    assert (np.argsort(found, kind="stable") == np.argsort(scores, kind="stable")).all()
    assert metrics.calibration_error(metrics.calibration_sums(found, right)) < 0.015
    # Against the order: the factor stays positive.
    assert metrics.fitted_scale(scores, rng.random(20_000) > scores)[0] > 0
