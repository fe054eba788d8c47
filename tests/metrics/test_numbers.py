import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_squared_error

from finetune.metrics import number_counts, number_scores, spearman


@given(
    st.integers(0, 10_000), st.integers(2, 50), st.sampled_from([0, 1, 1e6, -1e9]), st.sampled_from([1, 1e-3, 1e3])
)
@pytest.mark.filterwarnings("ignore")  # of numbers that are nearly the same
def test_scores_of_sums_are_scipys(seed, n, offset, scale):
    generator = np.random.default_rng(seed)
    gold = generator.normal(size=n) * scale
    predicted = gold * generator.normal() + generator.normal(size=n) * scale
    gold, predicted = gold + offset, predicted + offset
    counts = number_counts(gold, predicted)
    half = n // 2
    scores = number_scores(counts[:half].sum(0) + counts[half:].sum(0))
    assert scores["mse"] == pytest.approx(mean_squared_error(gold, predicted), rel=1e-9)
    # With respect to the digits that the numbers themselves have.
    digits = 1e-9 + 1e-13 * abs(offset) / scale
    assert scores["pearson"] == pytest.approx(stats.pearsonr(gold, predicted).statistic, abs=digits)
    assert spearman(gold, predicted) == pytest.approx(stats.spearmanr(gold, predicted).statistic)


@pytest.mark.parametrize(
    ("gold", "predicted"), [([1.0, 2.5, 4.0], [0.1, 0.1, 0.1]), ([3.3] * 7, [1.0, 2, 3, 4, 5, 6, 7]), ([2.0], [1.0])]
)
def test_a_side_of_equal_numbers_has_no_correlation(gold, predicted):
    assert number_scores(number_counts(gold, predicted).sum(0))["pearson"] == 0
    assert spearman(gold, predicted) == 0


def test_right_numbers_have_no_error():
    numbers = np.random.default_rng(0).normal(size=1000) * 3 + 1e5
    assert number_scores(number_counts(numbers, numbers).sum(0)) == {"mse": 0.0, "pearson": 1.0}
