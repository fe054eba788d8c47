"""What a teacher says of a text in several windows, against loops that are written out with Python's own numbers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.tasks import taught_texts
from finetune.tasks.classification import NUMBER, ONE, SEVERAL

WINDOWS = [[0, 1], [2], [3, 4, 5]]  # of each text


def mean(values):
    return sum(values) / len(values)


def expected(values, problem):
    if problem == NUMBER:
        return mean(values)
    if problem == ONE:
        return math.log(mean([math.exp(value) for value in values]))
    share = mean([1 / (1 + math.exp(-value)) for value in values])
    return math.log(share / (1 - share))


@pytest.mark.parametrize("problem", [ONE, SEVERAL, NUMBER])
def test_a_text_has_the_mean_of_its_windows(problem):
    L = 1 if problem == NUMBER else 3
    values = np.random.default_rng(0).normal(size=(6, L)).astype(np.float32)
    if problem == ONE:
        values -= np.log(np.exp(values).sum(1, keepdims=True))
    text_of = np.array([text for text, own in enumerate(WINDOWS) for _ in own])
    found = taught_texts.outputs(SimpleNamespace(text_of=text_of), {"outputs": values}, problem)
    assert found.dtype == np.float32
    assert found.tolist() == [
        [pytest.approx(expected([float(values[window, column]) for window in own], problem), rel=1e-5)
         for column in range(L)]
        for own in WINDOWS
    ]  # fmt: skip
