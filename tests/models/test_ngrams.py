"""Kneser-Ney: numbers worked out by hand, and the definition written out with dictionaries."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.models import KneserNey

DOCUMENTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=8)


def after(model, context):
    """The probability of every token after `context`, which begins a document."""
    return [np.exp(model.log_probabilities([np.array([*context, w])])[-1]) for w in range(model.vocabulary)]


def test_bigrams_by_hand():
    model = KneserNey([np.array(text) for text in ([0, 1], [0, 2], [0, 1], [1, 2])], 2, 3)
    # Bigrams: ^0 three times, 01 twice, ^1, 02, 12 once: discounts 0.6, 0.2, and 0.6 for three times.
    # Tokens before 0, 1, 2: one, two, two: discount 0.2, so P(0) = 0.8 / 5 + 0.12 / 3, P(1) = P(2) = 1.8 / 5 + 0.04.
    assert after(model, [2]) == pytest.approx([0.2, 0.4, 0.4])  # nothing follows 2
    freed = (0.2 + 0.6) / 3
    assert after(model, [0]) == pytest.approx([freed * 0.2, 1.8 / 3 + freed * 0.4, 0.4 / 3 + freed * 0.4])


def slow(documents, order, vocabulary):
    """P(token | history) by Chen and Goodman's recursion. `^` begins a document."""
    raw = [Counter() for _ in range(order)]
    for text in documents:
        padded = ["^"] * (order - 1) + list(text)
        for at in range(order - 1, len(padded)):
            for n in range(order):
                raw[n][tuple(padded[at - n : at + 1])] += 1
    counts = [Counter(longer[1:] for longer in raw[n + 1]) if n + 1 < order else raw[n] for n in range(order)]
    tables = []
    for table in counts:
        n = Counter(table.values())
        share = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.5
        off = {c: c - (c + 1) * share * n[c + 1] / n[c] if n[c] else share for c in (1, 2, 3)}
        off = {c: value if 0 < value < c else share for c, value in off.items()}
        contexts = defaultdict(dict)
        for gram, count in table.items():
            contexts[gram[:-1]][gram[-1]] = count
        tables.append((off, contexts))

    def probability(history, token):
        lower = probability(history[1:], token) if history else 1 / vocabulary
        off, contexts = tables[len(history)]
        seen = contexts.get(tuple(history))
        if seen is None:
            return lower
        whole = sum(seen.values())
        own = seen.get(token, 0)
        freed = sum(off[min(count, 3)] for count in seen.values()) / whole
        return (own - off[min(own, 3)] if own else 0.0) / whole + freed * lower

    return lambda history, token: probability((["^"] * (order - 1) + list(history))[len(history) :], token)


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.lists(st.integers(0, 4), max_size=7), st.integers(1, 4))
def test_ngrams_are_those_of_the_definition_and_sum_to_one(documents, context, order):
    model, reference = KneserNey([np.array(text) for text in documents], order, 5), slow(documents, order, 5)
    found = after(model, context)
    assert found == pytest.approx([reference(context, token) for token in range(5)])
    assert sum(found) == pytest.approx(1.0)
