import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
)

from finetune.metrics import (
    Classification,
    class_counts,
    class_scores,
    classification_scores,
    multi_label_counts,
    multi_label_scores,
    tag_counts,
    tag_scores,
    tuned_threshold,
)


def test_scores_by_hand():
    # class 0: 3 gold, 2 found, 1 wrongly claimed; class 1: 1 gold, not found; class 2 is only predicted
    scores = classification_scores([0, 0, 0, 1], [0, 0, 2, 0])
    assert scores["accuracy"] == 0.5
    assert scores["recall_macro"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["f1_macro"] == pytest.approx((2 * 2 / (3 + 3) + 0) / 2)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
@pytest.mark.filterwarnings("ignore")
def test_macro_means_are_over_the_labels_of_gold(pairs):
    gold, predicted = zip(*pairs, strict=True)
    scores = classification_scores(gold, predicted)
    assert scores["recall_macro"] == pytest.approx(balanced_accuracy_score(gold, predicted))
    found = []
    for label in set(gold):
        right = pairs.count((label, label))
        found.append(2 * right / (gold.count(label) + predicted.count(label)))
    assert scores["f1_macro"] == pytest.approx(sum(found) / len(found))
    # scikit-learn's default divides the same sum by more, where a label was only predicted.
    theirs = f1_score(gold, predicted, average="macro", zero_division=0)
    assert scores["f1_macro"] * len(found) == pytest.approx(theirs * len({*gold, *predicted}))


def test_the_metric_works_through_evaluate():
    assert Classification().compute(predictions=[0, 1, 1], references=[0, 1, 0]) == pytest.approx(
        classification_scores([0, 1, 0], [0, 1, 1])
    )


LABELS = ["a", "b", "c", "d", "e"]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_scores_of_summed_counts_are_those_of_the_labels(pairs):
    gold, predicted = zip(*pairs, strict=True)
    counts = class_counts(gold, predicted, 5)
    scores = class_scores(counts.sum(0), LABELS)
    expected = classification_scores(gold, predicted)
    assert {key: scores[key] for key in expected} == expected  # to the last bit
    assert scores["f1_micro"] == pytest.approx(f1_score(gold, predicted, average="micro"))
    hot = (np.eye(5, dtype=bool)[list(side)] for side in (gold, predicted))
    assert (multi_label_counts(*hot) == counts).all()


def tables(L=5):
    return st.lists(st.lists(st.booleans(), min_size=2 * L, max_size=2 * L), min_size=1, max_size=12).map(
        lambda rows: np.split(np.array(rows), 2, axis=1)
    )


@given(tables())
@pytest.mark.filterwarnings("ignore")
def test_several_labels_are_scored_as_by_scikit_learn(sides):
    gold, predicted = sides
    scores = multi_label_scores(multi_label_counts(gold, predicted).sum(0), LABELS)
    assert scores.pop("accuracy") == pytest.approx(accuracy_score(gold, predicted))
    assert scores.pop("f1_micro") == pytest.approx(f1_score(gold, predicted, average="micro", zero_division=0))
    present = np.flatnonzero(gold.any(0))
    macro = f1_score(gold, predicted, average="macro", labels=present, zero_division=0) if len(present) else 0.0
    assert scores.pop("f1_macro") == pytest.approx(macro)
    theirs = precision_recall_fscore_support(gold, predicted, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        for label, value in zip(LABELS, values, strict=True):
            assert scores.pop(f"{name}_{label}") == pytest.approx(value)
    assert not scores


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=5), min_size=1, max_size=8))
@pytest.mark.filterwarnings("ignore")
def test_tags_are_counted_by_sentence(sentences):
    words = [word for sentence in sentences for word in sentence]
    gold, predicted = np.array(words, dtype=np.int64).reshape(-1, 2).T
    offsets = np.cumsum([0, *map(len, sentences)])
    counts = tag_counts(gold, predicted, offsets, 5)
    for row, sentence in zip(counts.tolist(), sentences, strict=True):
        for k in range(5):
            assert row[k] == sentence.count((k, k))
            assert row[5 + k] == sum(said == k for _, said in sentence)
            assert row[10 + k] == sum(right == k for right, _ in sentence)
        assert row[15:] == [sum(right == said for right, said in sentence), len(sentence)]
    scores = tag_scores(counts.sum(0), LABELS)
    assert "f1_micro" not in scores
    if words:
        expected = classification_scores(gold, predicted)
        assert (scores["accuracy"], scores["f1_macro"]) == (expected["accuracy"], expected["f1_macro"])
        by_tag = f1_score(gold, predicted, labels=range(5), average=None, zero_division=0)
        assert [scores[f"f1_{tag}"] for tag in LABELS] == pytest.approx(by_tag.tolist())


def test_no_label_hides_a_score():
    gold = np.array([[True, False, True, True], [False, True, True, False]])
    labels = ["micro", "macro", "micro_", "x"]
    scores = multi_label_scores(multi_label_counts(gold, gold).sum(0), labels)
    assert [key for key in scores if key.startswith("support")] == [
        "support_micro_", "support_macro_", "support_micro__", "support_x",
    ]  # fmt: skip
    assert len(scores) == 3 + 4 * 4
    assert scores["f1_micro"] == 1.0


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.9, 1.0]) | st.floats(0, 1)),
        min_size=1,
        max_size=12,
    )
)
def test_no_other_threshold_is_better(cells):
    gold, probabilities = np.array([[is_so for is_so, _ in cells]]), np.array([[p for _, p in cells]])

    def score(threshold):
        said = [p >= threshold for _, p in cells]
        right = sum(is_so and yes for (is_so, _), yes in zip(cells, said, strict=True))
        return 2 * right / (sum(said) + gold.sum()) if sum(said) + gold.sum() else 0.0

    found = tuned_threshold(gold, probabilities)
    every = sorted({0.0, 0.5, 1.0, *probabilities[0].tolist()})
    every += [(low + high) / 2 for low, high in itertools.pairwise(every)]
    assert score(found) == max(map(score, every))
    if score(0.5) == score(found):
        assert found == 0.5


def test_of_equal_thresholds_the_one_nearest_a_half():
    gold = np.array([[True, False, True, False]])
    # One of 1 and 2 of 3 predicted labels are right: F1 is 2/3 and 4/5; between 0.2 and 0.3, the middle.
    assert tuned_threshold(gold, np.array([[0.9, 0.4, 0.3, 0.2]])) == pytest.approx(0.25)
    # One of 1 and 2 of 4 are right: F1 is 2/3 both times.
    assert tuned_threshold(np.array([[True, False, False, True]]), np.array([[0.9, 0.8, 0.7, 0.6]])) == 0.5
    assert tuned_threshold(np.array([[False, False]]), np.array([[0.9, 0.1]])) == 0.5
    low = 0.75
    high = np.nextafter(low, 1)
    assert low < tuned_threshold(np.array([[True, False]]), np.array([[high, low]])) <= high
