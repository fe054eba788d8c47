"""The samples with errors that a report shows."""

import json
import math
from pathlib import Path

import pytest

from finetune.comparison.runs import Run
from finetune.tasks import entity_errors
from finetune.tasks.samples import by_error


def run(gold, predicted, scores):
    words = [[f"w{i}"] * 3 for i in range(len(gold))]
    return Run(None, Path("none"), {}, [], words, gold, predicted, scores)


def test_errors_made_with_confidence_come_first():
    gold = ["a", "b", "a", "b"]
    network = run(gold, ["b", "b", "b", "a"], [0.6, 0.9, 0.9, 0.5])
    svm = run(gold, ["a", "b", "a", "a"], [math.nan] * 4)
    read = {"network": {0: network, 1: svm}, "svm": {0: svm}}
    found = by_error(read, lambda right, said: int(right != said), by_confidence=True)
    assert [one["sentence"] for one in found] == [3, 2, 0, 1]  # 0.5 and an SVM; 0.9; 0.6; right
    assert found[0]["predicted"] == {"network": "a", "svm": "a"}
    assert found[0]["confidence"] == {"network": 0.5, "svm": None}
    assert found[1]["wrong"] == {"network": 1, "svm": 0}
    by_size = by_error(read, lambda right, said: int(right != said))
    assert [one["sentence"] for one in by_size] == [3, 0, 2, 1]


def test_sentences_with_most_wrong_entities_come_first():
    gold = [["B-X", "I-X", "O"], ["O", "O", "O"], ["B-X", "O", "B-Y"], ["B-X", "O", "O"]]
    said = [["B-X", "O", "O"], ["B-X", "O", "O"], ["O", "B-Y", "B-X"], ["B-X", "O", "O"]]
    right = [[(0, 2, "X")], [], [(0, 1, "X"), (2, 3, "Y")], [(0, 1, "X")]]
    splits = {"train": {"tokens": [], "ner_tags": []}}
    found = entity_errors.compared({"m": {0: run(gold, said, [])}}, splits)["examples"]
    assert [one["sentence"] for one in found] == [2, 0, 1, 3]
    assert [one["wrong"]["m"] for one in found] == [4, 2, 1, 0]
    assert [one["kinds"]["m"] for one in found] == [
        ["invented", "missed", "wrong type"],
        ["wrong limits"],
        ["invented"],
        [],
    ]
    assert found[0]["gold"] == right[2]


@pytest.mark.parametrize("gold", [[["a"], ["a", "b"]], [1.5, -2.0]])
def test_right_samples_have_no_error(gold):
    found = by_error(
        {"m": {0: run(gold, gold, [1.0, 1.0])}}, lambda right, said: right != said, kinds=lambda *_: ["x"]
    )
    assert [(one["sentence"], one["wrong"]["m"], one["kinds"]["m"]) for one in found] == [(0, 0, []), (1, 0, [])]


def test_what_does_not_fit_has_the_fewest_errors():
    gold, said = ["a", "b", "c"], ["a", "x", "c"]
    runs = {"m": {0: run(gold, said, [math.nan] * 3)}}
    all_of_them = by_error(runs, lambda right, said: right != said)
    assert [one["sentence"] for one in all_of_them] == [1, 0, 2]
    size = sum(len(json.dumps(one)) for one in all_of_them)
    assert by_error(runs, lambda right, said: right != said, most=size - 1) == all_of_them[:2]
