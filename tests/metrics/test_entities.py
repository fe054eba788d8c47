import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report as report
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from finetune.metrics import EntityF1, entity_counts, entity_scores, entity_spans

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
TAGS = st.sampled_from(LABELS)
PAIRS = st.lists(st.lists(st.tuples(TAGS, TAGS), max_size=8), min_size=1, max_size=6)


def arrays(pairs):
    offsets = np.concatenate([[0], np.cumsum([len(sentence) for sentence in pairs])]).astype(int)
    gold, predicted = (
        np.array([LABELS.index(pair[side]) for sentence in pairs for pair in sentence], dtype=int) for side in (0, 1)
    )
    return gold, predicted, offsets


def slow_entities(tags, strict):
    """Spans as conlleval walks them: word by word, closing and opening chunks."""
    spans, begin = set(), None
    for i, tag in enumerate([*tags, "O"]):
        previous = tags[i - 1] if i else "O"
        if begin is not None and not (tag.startswith("I-") and tag[2:] == previous[2:]):
            spans.add((begin, i, previous[2:]))
            begin = None
        opens = tag.startswith("B-") or (tag.startswith("I-") and previous[2:] != tag[2:] and not strict)
        if opens:
            begin = i
    return spans


@given(PAIRS, st.booleans())
def test_counts_equal_a_slow_reference(pairs, strict):
    counts = entity_counts(*arrays(pairs), LABELS, strict=strict)
    for s, sentence in enumerate(pairs):
        gold, predicted = (slow_entities([pair[side] for pair in sentence], strict) for side in (0, 1))
        for k, kind in enumerate(counts.types):
            of_kind = lambda spans: {span for span in spans if span[2] == kind}  # noqa: B023, E731
            assert counts.gold[s, k] == len(of_kind(gold))
            assert counts.predicted[s, k] == len(of_kind(predicted))
            assert counts.correct[s, k] == len(of_kind(gold) & of_kind(predicted))


@given(st.lists(TAGS, max_size=12))
def test_spans_equal_a_slow_reference(tags):
    assert entity_spans(tags) == sorted(slow_entities(tags, strict=False))


@given(PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_scores_equal_seqeval_in_both_modes(pairs):
    gold, predicted = ([[pair[side] for pair in sentence] for sentence in pairs] for side in (0, 1))
    scores = entity_scores(*arrays(pairs), LABELS)
    if not any(tag != "O" for side in (gold, predicted) for sentence in side for tag in sentence):
        assert scores["f1"] == scores["f1_strict"] == 0.0  # where seqeval has nothing to report
        return
    assert scores["precision"] == pytest.approx(precision_score(gold, predicted, zero_division=0))
    assert scores["recall"] == pytest.approx(recall_score(gold, predicted, zero_division=0))
    assert scores["f1"] == pytest.approx(f1_score(gold, predicted, zero_division=0))
    by_type = report(gold, predicted, output_dict=True, zero_division=0)
    for kind in ("LOC", "PER"):
        assert scores[f"f1_{kind}"] == pytest.approx(by_type[kind]["f1-score"] if kind in by_type else 0.0)
    starts = any(tag.startswith("B-") for side in (gold, predicted) for sentence in side for tag in sentence)
    if starts:
        strict = f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0)
        assert scores["f1_strict"] == pytest.approx(strict)
    else:
        assert scores["f1_strict"] == 0.0


def test_counts_by_hand():
    # gold: PER 0-2, LOC 3-4 | PER 0-1       predicted: PER 0-2, LOC 3-5 | PER 0-1 (started with I-), LOC 1-2
    gold = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-PER", "O"]
    predicted = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "I-PER", "B-LOC"]
    ids = [np.array([LABELS.index(tag) for tag in side]) for side in (gold, predicted)]
    scores = entity_scores(*ids, np.array([0, 5, 7]), LABELS)
    assert scores["precision"] == 2 / 4
    assert scores["recall"] == 2 / 3
    assert scores["f1"] == pytest.approx(4 / 7)
    assert scores["f1_PER"] == 1.0
    assert scores["f1_LOC"] == 0.0
    assert scores["f1_strict"] == pytest.approx(2 * 1 / (3 + 3))
    assert scores["accuracy"] == 4 / 7


def test_entities_end_with_their_sentence():
    ids = np.array([LABELS.index(tag) for tag in ["B-PER", "I-PER"]])
    assert entity_counts(ids, ids, np.array([0, 2]), LABELS).gold.sum() == 1
    assert entity_counts(ids, ids, np.array([0, 1, 2]), LABELS).gold.sum() == 2


def test_the_metric_works_through_evaluate():
    metric = EntityF1()
    metric.add_batch(predictions=[["B-PER", "I-PER", "O"]], references=[["B-PER", "I-PER", "O"]])
    metric.add_batch(predictions=[["O", "B-LOC"]], references=[["B-LOC", "O"]])
    scores = metric.compute()
    assert scores["f1"] == scores["f1_strict"] == 0.5
    assert scores["f1_PER"] == 1.0
    with pytest.raises(ValueError, match="sentence 0: there are 1 predicted tags for 2 words"):
        EntityF1().compute(predictions=[["O"]], references=[["O", "O"]])


@pytest.mark.parametrize("tag", ["NOUN", "S-PER", "B-", "b-PER", ""])
def test_a_tag_of_another_kind_is_refused_by_name(tag):
    """In both places, and not as a type that the other side does not have."""
    for sides in (([["O"], [tag]], [["O"], ["O"]]), ([["O"], ["O"]], [["O"], [tag]])):
        with pytest.raises(ValueError, match=f"sentence 1: '{tag}' is not an IOB2 tag .O, B-TYPE or I-TYPE.; "):
            EntityF1().compute(predictions=sides[0], references=sides[1])


def test_a_type_called_strict_leaves_f1_strict_as_it_is():
    tags = [["B-strict", "I-PER", "B-strict_", "O"]]
    said = [["B-strict", "I-PER", "O", "B-PER"]]
    scores = EntityF1().compute(predictions=said, references=tags)
    strict = f1_score(tags, said, mode="strict", scheme=IOB2)
    assert scores["f1_strict"] == pytest.approx(strict)
    assert strict != scores["f1_strict_"] == 1.0  # of the type `strict`
    assert scores["f1_strict__"] == 0.0  # of the type `strict_`
    assert len([key for key in scores if key.startswith("f1_")]) == 1 + 3
