"""Texts and pairs: what is cut, against the two texts alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import special_tokens
from finetune.data.texts import encode_strings

WORDS = st.lists(st.sampled_from(["one", "two", "Oslo", "and", "ran", "."]), min_size=1, max_size=12).map(" ".join)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.integers(8, 24))
@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe", "unigram"])
def test_of_a_pair_the_longer_side_is_cut(tokenizers, kind, texts, length):
    tokenizer = tokenizers[kind]
    encoded = encode_strings(*zip(*texts, strict=True), tokenizer, max_seq_length=length)
    special = tokenizer.num_special_tokens_to_add(pair=True)
    cut = 0
    for i, pair in enumerate(texts):
        first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in pair)
        row = encoded.rows.tokens["input_ids"][encoded.rows.offsets[i] : encoded.rows.offsets[i + 1]].tolist()
        a = row.index(tokenizer.sep_token_id) - 1  # kept of the first
        b = len(row) - special - a
        assert row[1 : 1 + a] == first[:a]
        assert row[-1 - b : -1] == second[:b]
        if len(first) + len(second) + special <= length:
            assert (a, b) == (len(first), len(second))
            continue
        cut += 1
        assert len(row) == length
        assert a == len(first) or a >= b - 1, "a side that is cut is no shorter than the other"
        assert b == len(second) or b >= a - 1
    assert encoded.texts_cut == cut


def test_a_text_of_just_the_length_is_not_cut(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    text = "one two and Oslo ran . and so on"
    length = len(tokenizer(text)["input_ids"])
    for limit, cut in ((length - 1, 1), (length, 0)):
        assert encode_strings([text], None, tokenizer, max_seq_length=limit).texts_cut == cut


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(WORDS, max_size=5).map(" ".join), min_size=1, max_size=4), st.integers(8, 24))
@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe", "unigram"])
def test_windows_are_those_of_a_loop(tokenizers, kind, texts, length):
    tokenizer = tokenizers[kind]
    encoded = encode_strings(texts, None, tokenizer, np.arange(len(texts)), max_seq_length=length, windows=True)
    prefix, suffix = special_tokens(tokenizer)
    room = length - len(prefix) - len(suffix)
    expected, of = [], []
    for number, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        begin = 0
        while True:
            expected.append([*prefix, *ids[begin : begin + room], *suffix])
            of.append(number)
            if begin + room >= len(ids):
                break
            begin = min(begin + room - room // 2, len(ids) - room)
    rows = np.split(encoded.rows.tokens["input_ids"], encoded.rows.offsets[1:-1])
    assert [row.tolist() for row in rows] == expected
    assert encoded.text_of.tolist() == encoded.rows.samples["labels"].tolist() == of
