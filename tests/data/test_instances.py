"""Instances against a slow, plain builder that makes the same random choices."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.instances import (
    NEXT,
    NOT_NEXT,
    UNASKED,
    collect,
    full_sentences,
    ordered_pairs,
    parallel_pairs,
    segment_pairs,
    sentence_pairs,
    truncate_pair,
)

# Documents as lists of sentences' lengths.
corpora = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=2, max_size=8)


class Documents:
    """The arrays of `finetune.data.Documents`; every token is a number of its own."""

    def __init__(self, lengths):
        self.sentences = np.concatenate([[0], np.cumsum([size for document in lengths for size in document])])
        self.documents = np.concatenate([[0], np.cumsum([len(document) for document in lengths])])
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def as_lists(self):
        """Each document as a list of sentences, each a list of token numbers."""
        token, result = 0, []
        for document in self.lengths:
            result.append([])
            for size in document:
                result[-1].append(list(range(token, token + size)))
                token += size
        return result

    def document_of(self):
        return np.repeat(np.arange(len(self)), [sum(document) for document in self.lengths])


def plain_bert_instances(all_documents, max_num_tokens, seed, version, short_seq_prob=0.1):
    """Next-sentence instances as Devlin et al. describe them, written out sentence by sentence and token by token."""
    instances = []
    for document_index, document in enumerate(all_documents):
        rng = random.Random(f"{seed} {version} {document_index}")
        target = max_num_tokens
        if rng.random() < short_seq_prob:
            target = rng.randint(2, max_num_tokens)
        chunk, length, i = [], 0, 0
        while i < len(document):
            chunk.append(document[i])
            length += len(document[i])
            if i == len(document) - 1 or length >= target:
                a_end = 1
                if len(chunk) >= 2:
                    a_end = rng.randint(1, len(chunk) - 1)
                a = [token for sentence in chunk[:a_end] for token in sentence]
                if len(chunk) == 1 or rng.random() < 0.5:
                    others = [k for k in range(len(all_documents)) if k != document_index]
                    other = all_documents[others[rng.randrange(len(others))]]
                    b, label = [], NOT_NEXT
                    for sentence in other[rng.randrange(len(other)) :]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - a_end  # what was not used is put back
                else:
                    b, label = [token for sentence in chunk[a_end:] for token in sentence], NEXT
                while len(a) + len(b) > max_num_tokens:
                    longer = a if len(a) > len(b) else b
                    del longer[0 if rng.random() < 0.5 else -1]
                instances.append((tuple(a), tuple(b), label))
                chunk, length = [], 0
            i += 1
    return instances


def as_tokens(spans):
    return [tuple(range(begin, end)) for begin, end in zip(spans[::2], spans[1::2], strict=True)]


@settings(deadline=None, max_examples=150)
@given(corpora, st.integers(5, 64), st.integers(0, 5), st.sampled_from([0.0, 0.1, 1.0]))
def test_segment_pairs_are_those_of_the_plain_builder(lengths, max_tokens, seed, short):
    documents = Documents(lengths)
    made = segment_pairs(documents, max_tokens, seed=seed, version=1, short_seq_prob=short)
    expected = plain_bert_instances(documents.as_lists(), max_tokens, seed, 1, short)
    assert Counter((*as_tokens(spans), label) for spans, label in made) == Counter(expected)


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(5, 64), st.integers(0, 5))
def test_labels_of_pairs_are_true(lengths, max_tokens, seed):
    documents = Documents(lengths)
    of = documents.document_of()
    for build in (segment_pairs, sentence_pairs):
        for (a, a_end, b, b_end), label in build(documents, max_tokens, seed=seed, version=0):
            assert a_end > a
            assert b_end > b
            assert a_end - a + b_end - b <= max_tokens
            if label == NOT_NEXT:
                assert of[a] != of[b]
            else:
                assert of[a] == of[b]
                assert a_end <= b  # in the order of the text, without overlap


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(0, 5))
def test_every_sentence_is_used(lengths, seed):
    """With room enough that nothing is cut, every sentence is in some instance, whole."""
    documents = Documents(lengths)
    for build in (segment_pairs, sentence_pairs, ordered_pairs):
        used = set()
        for spans, _ in build(documents, 10_000, seed=seed, version=0):
            used.update(token for span in as_tokens(spans) for token in span)
        assert used == set(range(documents.sentences[-1]))


def test_half_of_the_pairs_follow():
    documents = Documents([[10] * 40] * 200)
    made = list(segment_pairs(documents, 50, seed=1, version=0, short_seq_prob=0.0))
    labels = [label for _, label in made]
    # A chunk of one sentence, which some documents end with, cannot be followed: a few per cent more are random.
    assert 0.5 - 3 * 0.5 / np.sqrt(len(labels)) < np.mean(labels) < 0.56
    of = documents.document_of()
    assert len({of[spans[2]] for spans, label in made if label == NOT_NEXT}) > 190  # drawn from all documents


@settings(deadline=None, max_examples=100)
@given(corpora, st.integers(5, 64), st.booleans())
def test_packing_loses_and_doubles_no_token(lengths, max_tokens, cross):
    documents = Documents(lengths)
    of, ends = documents.document_of(), set(documents.sentences.tolist())
    seen, sizes = [], []
    for spans, label in full_sentences(documents, max_tokens, cross=cross):
        assert label == UNASKED
        parts = as_tokens(spans)
        assert all(len({of[token] for token in part}) == 1 for part in parts)
        assert sum(map(len, parts)) + len(parts) - 1 <= max_tokens
        assert cross or len(parts) == 1
        # It ends where a sentence ends, unless one sentence fills it alone.
        stop = spans[-1]
        assert stop in ends or (len(parts) == 1 and len(parts[0]) == max_tokens)
        seen += [token for part in parts for token in part]
        sizes.append((spans, sum(map(len, parts)) + len(parts) - 1))
    assert seen == list(range(documents.sentences[-1]))
    # Greedy: the first sentence of the next input would not have fitted (or, uncrossed, is another document's).
    for (spans, size), (following, _) in itertools.pairwise(sizes):
        begin = following[0]
        nearest = min(end for end in ends if end > begin)
        another = of[begin] != of[spans[-1] - 1]
        if begin in ends and not (another and not cross):
            assert size + another + nearest - begin > max_tokens


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(5, 64), st.integers(0, 5))
def test_ordered_pairs_are_neighbours(lengths, max_tokens, seed):
    documents = Documents(lengths)
    of, ends = documents.document_of(), set(documents.sentences.tolist())
    for spans, label in ordered_pairs(documents, max_tokens, seed=seed, version=0):
        if label == UNASKED:
            assert len(spans) == 2
            assert sum(begin in ends for begin in range(spans[0], spans[1])) <= 1  # one sentence
            continue
        a, a_end, b, b_end = spans
        assert a_end - a + b_end - b <= max_tokens
        assert of[a] == of[b]
        assert (label == NEXT) == (a < b)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 50), st.integers(0, 9))
def test_truncation_is_that_of_one_token_at_a_time(a, b, max_tokens, seed):
    rng = random.Random(seed)
    first, second = list(range(a)), list(range(100, 100 + b))
    while len(first) + len(second) > max_tokens:
        longer = first if len(first) > len(second) else second
        del longer[0 if rng.random() < 0.5 else -1]
    spans = truncate_pair(0, a, 100, 100 + b, max_tokens, random.Random(seed))
    assert as_tokens(spans) == [tuple(first), tuple(second)]


def test_parallel_pairs():
    documents = Documents([[3, 4, 5], [6, 7, 8], [9, 1, 2]])  # three rows, three languages
    made = [spans for spans, _ in parallel_pairs(documents, 1000, seed=0, version=0)]
    assert len(made) == 9
    lists = documents.as_lists()
    for row, i in zip((0, 1, 2), (0, 3, 6), strict=True):
        pairs = {frozenset(as_tokens(spans)) for spans in made[i : i + 3]}
        assert pairs == {frozenset(map(tuple, pair)) for pair in ((lists[row][0], lists[row][1]),
                         (lists[row][0], lists[row][2]), (lists[row][1], lists[row][2]))}  # fmt: skip
    # Shifted: the same first sentences, the second ones of the next row in the same language.
    shifted = [spans for spans, _ in parallel_pairs(documents, 1000, seed=0, version=0, shift=1)]
    of = documents.document_of()
    for true, other in zip(made, shifted, strict=True):
        assert true[:2] == other[:2]
        assert of[other[2]] == (of[true[2]] + 1) % 3
        language = np.searchsorted(documents.sentences, true[2], side="right") % 3
        assert np.searchsorted(documents.sentences, other[2], side="right") % 3 == language


def test_an_empty_translation_makes_no_pair():
    documents = Documents([[3, 0, 5], [6, 7, 8], [2, 2, 2]])
    made = list(parallel_pairs(documents, 100, seed=0, version=0))
    assert len(made) == 1 + 3 + 3
    # With a shift, an empty cell is passed over; the first sides stay the same, pair for pair.
    shifted = list(parallel_pairs(documents, 100, seed=0, version=0, shift=1))
    assert [spans[:2] for spans, _ in shifted] == [spans[:2] for spans, _ in made]
    of = documents.document_of()
    for (true, _), (other, _) in zip(made, shifted, strict=True):
        assert of[other[2]] != of[true[2]]
        assert other[3] > other[2]


def test_both_orders_and_both_answers_occur():
    documents = Documents([[6, 6, 6, 6, 6, 6, 6, 6]] * 300)
    for build, expected in ((ordered_pairs, 0.5), (sentence_pairs, None)):
        settings = {} if build is sentence_pairs else {"short_seq_prob": 0.0}
        made = list(build(documents, 42, seed=3, version=0, **settings))
        labels = np.array([label for _, label in made])
        asked = labels[labels != UNASKED]
        if expected is not None:
            assert abs((asked == NOT_NEXT).mean() - expected) < 3 * 0.5 / np.sqrt(len(asked))
            # The first segment is of any number of sentences.
            assert {spans[1] - spans[0] for spans, label in made if label == NEXT} >= {6, 12, 18, 24}
        else:  # drawn by a fair coin, but for each document's last sentence, which nothing follows
            last = {end - 6 for end in documents.sentences[documents.documents[1:]].tolist()}
            coins = [label for spans, label in made if spans[0] not in last]
            assert abs(np.mean(np.array(coins) == NOT_NEXT) - 0.5) < 3 * 0.5 / np.sqrt(len(coins))
    table = Documents([[5, 6]] * 400)
    first = [spans[1] - spans[0] == 5 for spans, _ in parallel_pairs(table, 100, seed=3, version=0)]
    assert abs(np.mean(first) - 0.5) < 3 * 0.5 / np.sqrt(len(first))


@pytest.mark.parametrize("few", [True, False])
def test_collected_in_memory_and_on_the_disk(monkeypatch, few):
    if not few:
        monkeypatch.setattr("finetune.data.instances._IN_MEMORY", 7)
    documents = Documents([[5, 6, 7, 8]] * 20)
    made = list(segment_pairs(documents, 20, seed=0, version=0))
    found = collect(iter(made))
    assert isinstance(found.spans, np.memmap) or few
    assert [
        (tuple(found.spans[found.offsets[i] : found.offsets[i + 1]].ravel().tolist()), int(found.labels[i]))
        for i in range(len(found))
    ] == made


def test_each_version_and_seed_draws_anew():
    documents, table = Documents([[6] * 9] * 9), Documents([[5, 6, 7]] * 30)
    for build in (segment_pairs, sentence_pairs, ordered_pairs, parallel_pairs):
        of = table if build is parallel_pairs else documents
        made = [list(build(of, 30, seed=seed, version=version)) for seed, version in ((0, 0), (0, 1), (1, 0), (1, 1))]
        assert all(first != second for first, second in itertools.combinations(made, 2)), build.__name__


def test_no_instance_is_longer_than_it_may_be():
    """A sentence that stands alone, and the second side of a translation that is none, are cut like others."""
    made = [*ordered_pairs(Documents([[50], [9, 90, 8]]), 20, seed=0, version=0)]
    for shift in (0, 1):
        made += parallel_pairs(Documents([[9, 9], [40, 60], [60, 40]]), 20, seed=0, version=0, shift=shift)
    sizes = [sum(spans[1::2]) - sum(spans[::2]) for spans, _ in made]
    assert max(sizes) == 20
