"""The samples with errors that a report shows."""

import math
from pathlib import Path

import pytest

from finetune.comparison.runs import Run
from finetune.tasks import entity_errors
from finetune.tasks.samples import worst


def run(gold, predicted, scores):
    words = [[f"w{i}"] * 3 for i in range(len(gold))]
    return Run(None, Path("none"), {}, [], words, gold, predicted, scores)


def test_errors_made_with_confidence_come_first():
    gold = ["a", "b", "a", "b"]
    network = run(gold, ["b", "b", "b", "a"], [0.6, 0.9, 0.9, 0.5])
    svm = run(gold, ["a", "b", "a", "a"], [math.nan] * 4)
    read = {"network": {0: network, 1: svm}, "svm": {0: svm}}
    found = worst(read, lambda right, said: int(right != said), by_confidence=True)
    assert [one["sentence"] for one in found] == [3, 2, 0]  # 0.5 and an SVM; 0.9; 0.6
    assert found[0]["predicted"] == {"network": "a", "svm": "a"}
    assert found[0]["confidence"] == {"network": 0.5, "svm": None}
    assert found[1]["wrong"] == {"network": 1, "svm": 0}
    by_size = worst(read, lambda right, said: int(right != said))
    assert [one["sentence"] for one in by_size] == [3, 0, 2]


def test_sentences_with_most_wrong_entities_come_first():
    gold = [["B-X", "I-X", "O"], ["O", "O", "O"], ["B-X", "O", "B-Y"], ["B-X", "O", "O"]]
    said = [["B-X", "O", "O"], ["B-X", "O", "O"], ["O", "B-Y", "B-X"], ["B-X", "O", "O"]]
    right = [[(0, 2, "X")], [], [(0, 1, "X"), (2, 3, "Y")], [(0, 1, "X")]]
    splits = {"train": {"tokens": [], "ner_tags": []}}
    found = entity_errors.compared({"m": {0: run(gold, said, [])}}, splits)["examples"]
    assert [one["sentence"] for one in found] == [2, 0, 1]
    assert [one["wrong"]["m"] for one in found] == [4, 2, 1]
    assert found[0]["gold"] == right[2]


@pytest.mark.parametrize("gold", [[["a"], ["a", "b"]], [1.5, -2.0]])
def test_right_samples_are_not_shown(gold):
    assert worst({"m": {0: run(gold, gold, [1.0, 1.0])}}, lambda right, said: right != said) == []
