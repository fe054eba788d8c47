"""Answers from windows: against a loop over all windows written out, and thresholds against trying each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import window_questions
from finetune.metrics import answer_counts
from finetune.models import train_word_tokenizer
from finetune.tasks import questions as task

PASSAGES = ["The Rhine ends in the sea near Rotterdam after many long miles of flat green land .", "It ends ."]


@pytest.fixture(scope="module")
def windows():
    tokenizer = train_word_tokenizer(PASSAGES)
    return window_questions(
        ["Where ?", "What ends there in the end ?", "Why ?"], [PASSAGES[0], PASSAGES[0], PASSAGES[1]], tokenizer,
        max_seq_length=16,
    )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_question_is_answered_once_from_all_windows(windows, seed):
    generator = np.random.default_rng(seed)
    assert len(windows.rows) > 6
    starts, ends, scores = [], [], []
    for row in range(len(windows.rows)):
        begin = windows.lead[row] + generator.integers(0, windows.shown[row], size=4)
        last = windows.lead[row] + windows.shown[row] - 1
        starts.append(begin)
        ends.append(np.minimum(begin + generator.integers(0, 3, size=4), last))
        scores.append(np.where(generator.random(4) < 0.2, -np.inf, generator.normal(size=4)))
    collected = {"starts": np.array(starts), "ends": np.array(ends), "scores": np.array(scores, dtype=np.float32)}
    passages = [PASSAGES[0], PASSAGES[0], PASSAGES[1]]
    found = task.decode(task.QuestionSplit(windows, passages), collected)

    for question in range(3):
        rows = np.flatnonzero(windows.question_of == question).tolist()
        words = passages[question].split()
        best = {}
        for row in rows:
            for a, b, score in zip(*(collected[key][row] for key in ("starts", "ends", "scores")), strict=True):
                word = int(a - windows.lead[row] + windows.at[row])
                last = int(b - windows.lead[row] + windows.at[row])

                contexts = {}
                for other in rows:
                    first, end = windows.at[other], windows.at[other] + windows.shown[other]
                    left = 10**6 if first == 0 else word - first
                    right = 10**6 if end == len(words) else end - 1 - word
                    contexts[other] = min(left, right) if first <= word < end else -1
                shows_best = max(rows, key=contexts.__getitem__)  # the first of equals
                if shows_best == row and np.isfinite(score):
                    text = " ".join(words[word : last + 1])
                    best[word, last] = max(best.get((word, last), (-np.inf, text)), (float(score), text))
        expected = sorted(best.values(), reverse=True)
        assert [(span.score, span.text) for span in found[question]] == expected
        for span in found[question]:
            assert passages[question][span.start : span.end] == span.text


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_is_better_than_the_tuned_one(rows):
    gold = [["right"] if answerable else [] for _, answerable, _ in rows]
    spans = [[task.Span("right" if good else "wrong", 0, 5, float(score))] for score, _, good in rows]
    threshold = task.tuned_threshold(gold, spans)

    def total(value):
        return answer_counts(gold, task.answers(spans, value))[:, 1].sum()

    if all(gold):
        assert threshold is None
    else:
        assert total(threshold) == max(total(value) for value in (*range(-5, 6), threshold))


def test_probabilities_are_those_of_the_scores():
    spans = [task.Span("a", 0, 1, 1.0), task.Span("b", 1, 2, -2.0)]
    weights = np.exp([0.0, 1.0, -2.0])
    assert task.probabilities(spans) == pytest.approx((weights / weights.sum())[1:].tolist())
