"""Documents cut into rows, against the tokens of each document written out."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data

BEGIN, END = 1000, 1001


class Documents(SimpleNamespace):
    def __len__(self):
        return len(self.documents) - 1


def rows_of(lengths, **settings):
    ends = np.concatenate([[0], np.cumsum(lengths)])
    # Each document is one sentence. No token comes twice.
    documents = Documents(tokens=np.arange(ends[-1]), sentences=ends, documents=np.arange(len(ends)))
    return data.NextWordRows(documents, BEGIN, END, seed=3, **settings)


def written_out(lengths):
    ends = np.cumsum(lengths)
    return [[BEGIN, *range(end - n, end), END] for n, end in zip(lengths, ends, strict=True)]


def targets(rows):
    """Each target with the number of tokens that it sees in its row."""
    found = []
    for i in range(len(rows)):
        row = rows.take([i])
        ids, labels = row.tokens["input_ids"].tolist(), row.tokens["labels"].tolist()
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        assert labels[0] == -100
        found.append([(ids[:at], label) for at, label in enumerate(labels) if label != -100])
    return found


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(2, 12), st.data())
def test_every_token_is_scored_once_after_what_comes_before_it(lengths, longest, draw):
    context = draw.draw(st.one_of(st.none(), st.integers(1, longest - 1)))
    rows = rows_of(lengths, max_seq_length=longest, context=context)
    whole = [(text[:at], text[at]) for text in written_out(lengths) for at in range(1, len(text))]
    for source, seen in ((rows, context or 10**6), (rows.in_epoch(0), 1), (rows.in_epoch(1), 1)):
        found = [pair for row in targets(source) for pair in row]
        assert [token for _, token in found] == [token for _, token in whole]
        for (shown, _), (before, _) in zip(found, whole, strict=True):
            assert shown == before[len(before) - len(shown) :]
            assert len(shown) >= min(seen, len(before))
        if context is not None or source is not rows:
            assert max(source.lengths) <= longest


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(2, 12), st.integers(1, 5), st.integers(0, 2))
def test_a_lane_is_whole_documents_row_after_row(lengths, longest, lanes, epoch):
    rows = rows_of(lengths, max_seq_length=longest, lanes=lanes)
    steps, source = rows.steps(epoch), rows.in_epoch(epoch)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(source)))
    lane_texts = [[] for _ in range(lanes)]
    for step in steps:
        batch = source.take(step)
        assert batch.samples["lane"].tolist() == list(range(len(step)))  # so lane i is at place i in every step
        for lane, (row, goes_on) in enumerate(zip(step, batch.samples["continues"], strict=True)):
            ids = source.take([row]).tokens["input_ids"].tolist()
            if goes_on:  # its first token was the last one of the row before
                assert lane_texts[lane][-1] == ids[0]
                lane_texts[lane] += ids[1:]
            else:
                assert ids[0] == BEGIN
                lane_texts[lane] += ids
    texts = [(BEGIN, *part) for lane in lane_texts for part in split(lane)]
    assert sorted(texts) == sorted(map(tuple, written_out(lengths)))
    orders = {tuple(np.concatenate(rows.steps(e)).tolist()) for e in range(6)}
    # With no more texts than lanes there is nothing to draw: each lane has one.
    assert len(orders) > 1 or len(lengths) <= max(lanes, 3)


def split(lane):
    parts = []
    for token in lane:
        if token == BEGIN:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
