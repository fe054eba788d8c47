"""Exact match and F1 of answers against the definitions written out in another way, and against known values."""

import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics.answers import answer_counts, answer_scores, exact_and_f1

words = st.sampled_from(
    ["the", "The", "a", "an", "another", "Rhine", "rhine", "U.S.", "1,024", "co-op", "(it)", "–", "?"]
)
answers = st.lists(words, max_size=5).map(" ".join)


def slow_scores(answer, gold):
    """Letter by letter, and the common words by striking them out one after the other."""

    def bare(text):
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", kept)) if word]

    said, right = bare(answer), bare(gold)
    left, common = list(right), 0
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    if not said or not right:
        return float(said == right), float(said == right)
    if not common:
        return 0.0, 0.0
    precision, recall = common / len(said), common / len(right)
    return float("".join(f"{word} " for word in said) == "".join(f"{word} " for word in right)), (
        2 * precision * recall / (precision + recall)
    )


@given(answers, answers)
def test_both_are_those_of_a_slow_loop(answer, gold):
    assert exact_and_f1(answer, gold) == pytest.approx(slow_scores(answer, gold))


def test_known_values():
    assert exact_and_f1("the Rhine", "Rhine.") == (1.0, 1.0)
    assert exact_and_f1("another", "other") == (0.0, 0.0)  # the article inside a word stays
    assert exact_and_f1("in the Rhine valley", "Rhine")[1] == pytest.approx(0.5)
    assert exact_and_f1("b c", "c b") == (0.0, 1.0)
    assert exact_and_f1("维生素A", "维生素") == (0.0, pytest.approx(6 / 7))  # the letter A is no article there
    # Scripts without spaces: a character is a word; MLQA's script leaves out the full stop.
    assert exact_and_f1("北京市。", "北京市") == (1.0, 1.0)
    assert exact_and_f1("北京", "北京市")[1] == pytest.approx(0.8)
    assert exact_and_f1("1998年", "1998")[1] == pytest.approx(2 / 3)


def test_the_best_of_several_answers_and_none():
    gold = [["Rhine", "the river Rhine"], [], [], ["a", "sea"]]
    counts = answer_counts(gold, ["river Rhine", "", "sea", "the sea"])
    assert counts.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert answer_scores(counts.sum(0)) == {
        "exact_match": 0.75,
        "f1": 0.75,
        "exact_match_answerable": 1.0,
        "f1_answerable": 1.0,
        "accuracy_unanswerable": 0.5,
    }
    only = answer_counts([["Rhine"]], ["the Rhine valley"])
    assert answer_scores(only.sum(0)) == {"exact_match": 0.0, "f1": pytest.approx(2 / 3)}
    assert np.isfinite(list(answer_scores(np.zeros(6)).values())).all()
