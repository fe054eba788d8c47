"""Significance: against SciPy, against slow loops, and by how often equal models are told apart."""

import itertools

import numpy as np
import pytest
from scipy import stats

from finetune.metrics.numbers import number_counts, pearson
from finetune.metrics.significance import (
    _seed_share,
    accuracy_counts,
    compare_models,
    holm,
    over_seeds,
    score,
)


def outcomes(right):
    """bool (S, N) -> counts (S, N, 3)."""
    return np.stack([accuracy_counts(np.ones(right.shape[1]), row) for row in right.astype(int)])


def entities(generator, seeds, sentences, quality):
    """Random but related outputs: gold entities, of which each seed finds some, and false ones."""
    gold = generator.poisson(1.0, sentences)
    tables = []
    for _ in range(seeds):
        correct = generator.binomial(gold, quality)
        tables.append(np.stack([correct, correct + generator.poisson(0.3, sentences), gold], axis=1))
    return np.stack(tables)


def test_the_interval_over_seeds_is_scipys():
    scores = [0.41, 0.43, 0.40, 0.46]
    found = over_seeds(scores)
    expected = stats.t.interval(0.95, 3, loc=np.mean(scores), scale=stats.sem(scores))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.stdev == pytest.approx(np.std(scores, ddof=1))
    for none in ([0.5], [0.2, 0.9], [0.3, 0.3, 0.3]):  # two are too few, and equal ones say nothing of others
        assert np.isnan([over_seeds(none).low, over_seeds(none).high]).all()
    assert over_seeds([0.2, 0.9]).stdev == pytest.approx(np.std([0.2, 0.9], ddof=1))


def test_no_interval_goes_beyond_what_a_score_can_be():
    free, found = over_seeds([0.1, 0.9, 1.0]), over_seeds([0.1, 0.9, 1.0], 0.0, 1.0)
    assert free.low < 0 < 1 < free.high
    assert (found.low, found.high) == (0.0, 1.0)
    assert over_seeds([2.0, 2.5, 4.0]).high > 4  # a loss
    # One seed of a model that learned nothing, another that is nearly perfect: two seeds stretch the draws.
    right = np.random.default_rng(0).random((2, 60)) < [[0.02], [0.98]]
    (found,) = compare_models({"a": outcomes(right), "b": outcomes(~right)}, resamples=500)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_randomisation_is_scipys_permutation_test():
    """One seed, accuracy: scipy.stats.permutation_test over paired samples."""
    generator = np.random.default_rng(0)
    first, second = generator.random((1, 200)) < 0.8, generator.random((1, 200)) < 0.72
    (found,) = compare_models({"a": outcomes(first), "b": outcomes(second)}, resamples=20_000)
    expected = stats.permutation_test(
        (first[0].astype(float), second[0].astype(float)),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=generator,
    )
    assert found.difference == pytest.approx(expected.statistic)
    assert found.p_randomisation == pytest.approx(expected.pvalue, abs=0.015)


def test_randomisation_is_the_exact_test_of_few_sentences():
    """All 2^n ways of swapping, written out."""
    generator = np.random.default_rng(1)
    first, second = entities(generator, 2, 10, 0.9), entities(generator, 2, 10, 0.4)
    second[..., 2] = first[..., 2]

    def f1(counts):
        return 2 * counts[:, 0].sum() / (counts[:, 1].sum() + counts[:, 2].sum())

    def difference(swap):
        found = []
        for a, b in itertools.product(first, second):
            found.append(f1(np.where(swap[:, None], b, a)) - f1(np.where(swap[:, None], a, b)))
        return np.mean(found)

    observed = difference(np.zeros(10, dtype=bool))
    ways = [
        abs(difference(np.array(swap))) >= abs(observed) - 1e-12
        for swap in itertools.product([False, True], repeat=10)
    ]
    (found,) = compare_models({"a": first, "b": second}, resamples=20_000)
    assert found.difference == pytest.approx(observed)
    assert found.p_randomisation == pytest.approx(np.mean(ways), abs=0.015)


def test_the_bootstrap_interval_is_scipys():
    """One seed, F1: scipy.stats.bootstrap over paired sentences."""
    generator = np.random.default_rng(2)
    first, second = entities(generator, 1, 300, 0.8), entities(generator, 1, 300, 0.7)

    def f1(correct, predicted, gold):
        return 2 * correct.sum(-1) / (predicted.sum(-1) + gold.sum(-1))

    columns = [*first[0].T, *second[0].T]
    expected = stats.bootstrap(
        columns,
        lambda *c, axis=-1: f1(*c[:3]) - f1(*c[3:]),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        method="percentile",
        rng=generator,
    ).confidence_interval
    (found,) = compare_models({"a": first, "b": second})
    assert found.low == pytest.approx(expected.low, abs=0.006)
    assert found.high == pytest.approx(expected.high, abs=0.006)


@pytest.mark.parametrize("name", ["pearson", "mse"])
@pytest.mark.parametrize("quality", [0.5, -3.0])  # with the latter, the models' correlations differ by more than 1
def test_the_interval_of_numbers_is_scipys(name, quality):
    generator = np.random.default_rng(5)
    gold = generator.normal(3, 1, 300)
    said = [3 + share * (gold - 3) + generator.normal(0, 1, 300) for share in (1.5, quality)]

    def pearson_r(x, y):
        return stats.pearsonr(x, y, axis=-1).statistic

    def squared_error(x, y):
        return ((x - y) ** 2).mean(-1)

    def mse(sums):
        n, _, _, xx, yy, xy = np.moveaxis(sums, -1, 0)
        return (xx + yy - 2 * xy) / n

    reference, ours, widest = (pearson_r, pearson, 2.0) if name == "pearson" else (squared_error, mse, np.inf)
    expected = stats.bootstrap(
        (gold, *said),
        lambda gold, first, second, axis=-1: reference(gold, first) - reference(gold, second),
        paired=True,
        vectorized=True,
        n_resamples=4_000,
        method="percentile",
        rng=generator,
    ).confidence_interval
    counts = {str(i): number_counts(gold, own)[None] for i, own in enumerate(said)}
    (found,) = compare_models(counts, score=ours, widest=widest)
    assert found.difference == pytest.approx(reference(gold, said[0]) - reference(gold, said[1]))
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.07 * width)
    assert found.high == pytest.approx(expected.high, abs=0.07 * width)
    assert found.low < found.difference < found.high


def test_the_bootstrap_over_seeds_is_the_slow_loop():
    """Sentences drawn once for both models, seeds of each by themselves, stretched as documented."""

    def spread_like(variance, n):
        """n numbers whose mean has this variance."""
        numbers = np.arange(n) - (n - 1) / 2
        return numbers * np.sqrt(variance * n / numbers.var(ddof=1))

    generator = np.random.default_rng(3)
    first, second = entities(generator, 3, 60, 0.6), entities(generator, 2, 60, 0.7)
    first[0] = entities(generator, 1, 60, 0.9)[0]  # a seed that is better than the others
    resampled = [[], []]
    for _ in range(4000):
        at = generator.integers(0, 60, 60)
        for model, table in enumerate((first, second)):
            resampled[model].append([float(score(seed[at].sum(0))) for seed in table])
    means, added, stretches = [], [], []
    for model, table in enumerate((first, second)):
        n, own = len(table), np.array(resampled[model])
        between = np.var([float(score(seed.sum(0))) for seed in table], ddof=1)
        pairs = [
            np.mean((own[:, i] - own[:, i].mean()) * (own[:, j] - own[:, j].mean()))
            for i in range(n)
            for j in range(i)
        ]
        noise = np.mean([own[:, i].var() for i in range(n)]) - np.mean(pairs)
        stretches.append(np.sqrt(n / (n - 1) * max(between - noise, 0) / between))
        chosen = np.array([row[generator.integers(0, n, n)].mean() for row in own])
        means.append(own.mean(1))
        added.append((chosen - own.mean(1)) * stretches[-1])
    assert max(stretches) > 0.5, "no seed differs from the others by more than the test set explains"
    # Welch's degrees of freedom, from SciPy's own test on numbers of these variances.
    samples = [spread_like(one.var(), len(table)) for one, table in zip(added, (first, second), strict=True)]
    wider = stats.t.ppf(0.975, stats.ttest_ind(*samples, equal_var=False).df) / 1.959964
    draws = means[0] - means[1] + wider * (added[0] - added[1])
    (found,) = compare_models({"a": first, "b": second})
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.03)


@pytest.mark.parametrize(
    ("kind", "seeds_differ", "seeds", "N"),
    [
        ("accuracy", 0.0, (3, 3), 250),
        ("entities", 0.0, (3, 3), 250),
        ("accuracy", 0.02, (3, 3), 250),
        ("entities", 0.02, (3, 3), 250),
        # Large test sets, on which seeds differ by more than sentences explain.
        ("accuracy", 0.05, (3, 3), 1500),
        ("accuracy", 0.05, (2, 2), 1500),
        ("accuracy", 0.05, (5, 3), 1500),
    ],
)
def test_equal_models_are_told_apart_about_five_times_in_a_hundred(kind, seeds_differ, seeds, N):
    """Seeds of one model, in two groups. Sentences differ in how hard they are, and seeds in how good."""
    generator = np.random.default_rng(4)
    trials, rejected = 300, np.zeros(2)
    for trial in range(trials):
        tables = []
        hard, gold = generator.beta(2, 1, N), generator.poisson(1.0, N)
        for S in seeds:
            chance = np.clip(hard + generator.normal(0, seeds_differ, (S, 1)), 0, 1)
            if kind == "accuracy":
                tables.append(outcomes(generator.random((S, N)) < chance))
            else:
                correct = generator.binomial(gold, chance)
                predicted = correct + generator.poisson(0.3, (S, N))
                tables.append(np.stack([correct, predicted, np.broadcast_to(gold, (S, N))], axis=2))
        (found,) = compare_models(dict(zip("ab", tables, strict=True)), resamples=400, seed=trial)
        rejected += [found.p_bootstrap < 0.05, found.p_randomisation < 0.05]
    # Three standard errors of 5 % in 300 trials are 3.8 points. Randomisation does not ask about other seeds.
    rates = (rejected / trials)[: 1 if seeds_differ else 2]
    assert (rates <= 0.088).all(), rates
    assert (rates >= 0.005).all(), rates


def test_what_seeds_add_is_what_sentences_do_not():
    """The variance of seeds drawn anew is the unbiased one, less what the resampled sentences have already."""
    generator = np.random.default_rng(0)
    observed = np.array([0.5, 0.6, 0.8])
    alike = observed + generator.normal(0, 0.1, (4000, 1))  # a hard resample is hard for each seed
    assert _seed_share(observed, alike) == pytest.approx(np.sqrt(3 / 2), rel=0.01)
    apart = observed + generator.normal(0, 0.1, (4000, 3))  # each seed has sentences of its own
    left = (observed.var(ddof=1) - 0.1**2) / observed.var(ddof=1)
    assert _seed_share(observed, apart) == pytest.approx(np.sqrt(3 / 2 * left), rel=0.05)
    assert _seed_share(observed, observed + generator.normal(0, 0.3, (4000, 3))) == 0.0


def test_the_order_of_seeds_and_models_does_not_matter():
    """Three seeds, one of them weak, against a model that has but one."""
    generator = np.random.default_rng(8)
    seeds = np.concatenate([entities(generator, 1, 300, q) for q in (0.5, 0.8, 0.8)])
    one = entities(generator, 1, 300, 0.6)
    found = [
        compare_models({"a": seeds[order], "b": one}, resamples=4000)[0]
        for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2])
    ]
    (turned,) = compare_models({"b": one, "a": seeds}, resamples=4000)
    for other in (*found[1:], turned):
        assert other.p_randomisation == pytest.approx(found[0].p_randomisation, abs=0.01)
        assert other.p_bootstrap == pytest.approx(found[0].p_bootstrap, abs=0.03)
    assert turned.difference == pytest.approx(-found[0].difference)


def test_the_interval_and_its_p_agree():
    generator = np.random.default_rng(9)
    outside = 0
    for trial in range(40):
        tables = {"a": entities(generator, 3, 200, 0.72), "b": entities(generator, 1, 200, 0.62)}
        (found,) = compare_models(tables, resamples=2000, seed=trial)
        if not 0.04 < found.p_bootstrap < 0.06:  # the quantile lies between two draws
            assert (found.p_bootstrap < 0.05) == (not found.low <= 0 <= found.high)
        outside += found.p_bootstrap < 0.05
    assert 5 < outside < 40


def test_what_was_seen_counts_as_one_of_the_draws():
    """No draw reaches a difference of 40 sentences, and yet p is not 0 (Phipson and Smyth, 2010)."""
    tables = {"good": outcomes(np.ones((1, 40), bool)), "bad": outcomes(np.zeros((1, 40), bool))}
    (found,) = compare_models(tables, resamples=99)
    assert found.p_randomisation == 1 / 100
    assert found.p_bootstrap == 2 / 100


def test_better_models_are_found():
    generator = np.random.default_rng(5)
    tables = {"good": entities(generator, 3, 400, 0.8), "bad": entities(generator, 3, 400, 0.6)}
    (found,) = compare_models(tables, resamples=2000)
    assert max(found.p_bootstrap, found.p_randomisation) < 0.01
    assert 0 < found.low < found.difference < found.high


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_and_their_correction():
    generator = np.random.default_rng(6)
    tables = {name: entities(generator, 2, 100, q) for name, q in zip("abc", (0.5, 0.6, 0.9), strict=True)}
    found = compare_models(tables, resamples=500)
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    greater = [max(one.p_bootstrap, one.p_randomisation) for one in found]
    assert [one.p_holm for one in found] == holm(greater)
    again = compare_models(tables, resamples=500)
    assert found == again


def test_other_numbers_of_sentences_are_refused():
    generator = np.random.default_rng(7)
    with pytest.raises(ValueError, match="different numbers of sentences: a 10, b 11"):
        compare_models({"a": entities(generator, 1, 10, 0.5), "b": entities(generator, 1, 11, 0.5)})


def test_nothing_predicted_is_a_score_of_zero():
    assert score(np.array([[0, 0, 0], [0, 0, 5], [3, 4, 5]])).tolist() == [0.0, 0.0, pytest.approx(6 / 9)]


def test_models_that_say_the_same_do_not_differ():
    table = entities(np.random.default_rng(10), 2, 50, 0.7)
    (found,) = compare_models({"a": table, "b": table[::-1]}, resamples=500)
    assert (found.difference, found.low, found.high) == (0.0, pytest.approx(0, abs=1), pytest.approx(0, abs=1))
    assert min(found.p_bootstrap, found.p_randomisation, found.p_holm) > 0.5
    (found,) = compare_models({"a": table[:1], "b": table[:1]}, resamples=500)
    assert (found.p_bootstrap, found.p_randomisation) == (1.0, 1.0)


def test_resamples_in_parts_are_those_at_once(monkeypatch):
    generator = np.random.default_rng(11)
    tables = {name: entities(generator, 2, 60, 0.7) for name in "ab"}
    at_once = compare_models(tables, resamples=500)
    monkeypatch.setattr("finetune.metrics.significance._DRAWS", 60 * 90)  # 90 resamples a part
    assert compare_models(tables, resamples=500) == at_once
