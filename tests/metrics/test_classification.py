import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from finetune.metrics import Classification, classification_scores


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
