"""The tags of `--decoding viterbi`, against all sequences that IOB2 allows, one after the other."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data

TAGS = ["O", "B-PER", "I-PER", "I-LOC", "B-LOC"]


def allowed(tags):
    """Whether each `I-X` follows `B-X` or `I-X`."""
    pairs = itertools.pairwise(["O", *(TAGS[tag] for tag in tags)])
    return all(not after.startswith("I-") or before in (f"B-{after[2:]}", after) for before, after in pairs)


@settings(deadline=None, max_examples=150)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5), seed=st.integers(0, 99), share=st.floats(0, 0.5))
def test_no_allowed_sequence_is_more_probable(lengths, seed, share):
    draw = np.random.default_rng(seed)
    logits = 2 * draw.normal(size=(sum(lengths), len(TAGS)))
    logs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    fixed = draw.random(len(logs)) < share
    tags = np.where(fixed, 0, logs.argmax(1))
    found = data.fitting_tags(tags, logs, offsets, TAGS, fixed)
    assert found.dtype == tags.dtype
    for begin, end in itertools.pairwise(offsets):
        own, words = tuple(found[begin:end].tolist()), range(begin, end)
        choices = [[0] if fixed[word] else range(len(TAGS)) for word in words]
        best = max(
            filter(allowed, itertools.product(*choices)),
            key=lambda path: sum(float(logs[word, tag]) for word, tag in zip(words, path, strict=True)),
        )
        assert own == best


def test_a_setting_that_no_run_has_written():
    with pytest.raises(ValueError, match="runs/x: decoding must be argmax or viterbi, not 'beam'"):
        data.check_decoding({"decoding": "beam"}, "runs/x")
