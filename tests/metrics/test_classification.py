import pytest

from finetune.metrics import Classification, classification_scores


def test_scores_by_hand():
    # class 0: 3 gold, 2 found, 1 wrongly claimed; class 1: 1 gold, not found; class 2 is only predicted
    scores = classification_scores([0, 0, 0, 1], [0, 0, 2, 0])
    assert scores["accuracy"] == 0.5
    assert scores["recall_macro"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["f1_macro"] == pytest.approx((2 * 2 / (3 + 3) + 0) / 2)


def test_the_metric_works_through_evaluate():
    assert Classification().compute(predictions=[0, 1, 1], references=[0, 1, 0]) == pytest.approx(
        classification_scores([0, 1, 0], [0, 1, 1])
    )
