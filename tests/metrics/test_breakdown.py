"""Breakdowns against seqeval, against the counts that the scores come from, and against loops written out."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Entities
from transformers import AutoModelForTokenClassification

from finetune import metrics

LABELS = ["O", "B-LOC", "I-LOC", "B-O", "I-O"]  # a type that is called O, too
tags = st.lists(st.sampled_from(LABELS), max_size=9)
corpora = st.lists(
    st.integers(0, 7).flatmap(lambda n: st.tuples(*[st.lists(st.sampled_from(LABELS), min_size=n, max_size=n)] * 2)),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(tags)
def test_spans_are_seqevals(sentence):
    expected = [(begin, end + 1, kind) for kind, begin, end in get_entities(sentence)]
    assert metrics.entity_spans(sentence) == expected


@settings(deadline=None)
@given(tags)
def test_strict_spans_are_seqevals(sentence):
    found = Entities([sentence], IOB2).entities[0]
    assert metrics.entity_spans(sentence, strict=True) == [(one.start, one.end, one.tag) for one in found]


@settings(deadline=None)
@given(corpora)
def test_groups_add_up_to_the_counts_of_the_score(corpus):
    gold, said = zip(*corpus, strict=True)
    spans = [[metrics.entity_spans(sentence) for sentence in side] for side in (gold, said)]
    index = {label: i for i, label in enumerate(LABELS)}
    flat = [np.array([index[tag] for sentence in side for tag in sentence], dtype=np.int64) for side in (gold, said)]
    counts = metrics.entity_counts(*flat, np.cumsum([0, *map(len, gold)]), LABELS)

    found = metrics.entities_by(*spans, lambda sentence, span: span[2])
    for k, kind in enumerate(counts.types):
        expected = [table[:, k].sum() for table in (counts.correct, counts.predicted, counts.gold)]
        assert found.get(kind, np.zeros(3)).tolist() == expected
    by_sentence = metrics.sentence_counts(*spans)
    expected = np.stack([table.sum(1) for table in (counts.correct, counts.predicted, counts.gold)], axis=1)
    assert (by_sentence == expected).all()


@settings(deadline=None)
@given(corpora)
def test_confusion_is_that_of_a_slow_loop(corpus):
    gold, said = ([metrics.entity_spans(sentence) for sentence in side] for side in zip(*corpus, strict=True))
    types = ["LOC", "O"]
    expected = Counter()
    for right, theirs in zip(gold, said, strict=True):
        for begin, end, kind in right:
            expected[kind, next((k for b, e, k in theirs if (b, e) == (begin, end)), None)] += 1
        for begin, end, kind in theirs:
            if not any((b, e) == (begin, end) for b, e, _ in right):
                expected[None, kind] += 1
    table = metrics.entity_confusion(gold, said, types)
    names = [*types, None]
    assert {(names[i], names[j]): int(n) for (i, j), n in np.ndenumerate(table) if n} == dict(expected)


def test_groups_have_names():
    assert [metrics.length_group(n) for n in (1, 10, 11, 30, 50, 51, 900)] == [
        "1-10", "1-10", "11-20", "21-30", "31-50", "over 50", "over 50",
    ]  # fmt: skip
    assert [metrics.fertility_group(*pair) for pair in ((1, 1), (0, 2), (3, 2), (2, 1), (7, 2))] == [
        "1", "1", "up to 2", "up to 2", "over 3",
    ]  # fmt: skip


def test_flops_are_those_of_the_layers(checkpoints, tmp_path):
    model = AutoModelForTokenClassification.from_pretrained(checkpoints["wordpiece"], num_labels=3)
    model.save_pretrained(tmp_path)
    H, F, layers = model.config.hidden_size, model.config.intermediate_size, model.config.num_hidden_layers
    # Four projections and a feed-forward network in each layer, their biases and norms, the head.
    weights = layers * (4 * (H * H + H) + 2 * H * F + F + H + 4 * H) + 3 * H + 3
    expected = 2 * weights + 4 * layers * H * 20
    assert metrics.flops_per_token(tmp_path, 20.0) == pytest.approx(expected)
