"""Windows of questions against the tokenizer's own call for pairs, cut by a slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.passages import window_questions
from finetune.models import train_word_tokenizer

WORDS = ("the", "Rhine", "naïve", "北京市", "co-op", "1,024", "\u200e", "e\u0301t\u00e9", "🙂", "(it)", "rivers.")
texts = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
passages = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map("  ".join)


def slow_windows(question, passage, tokenizer, length, overlap):
    """The rows of one question as lists of ids, and the passage tokens that each shows; written out with a loop."""
    pair = tokenizer(question, passage, return_offsets_mapping=True)
    sides = pair.encodings[0].sequence_ids
    asked = [i for i, side in enumerate(sides) if side == 0]
    told = [i for i, side in enumerate(sides) if side == 1]
    ids = pair["input_ids"]
    special = len(ids) - len(asked) - len(told)
    room = length - special
    asked = asked[: room // 2]
    content = room - len(asked)
    overlap = content // 2 if overlap is None else overlap
    sample = tokenizer("x", "x")
    sides = sample.encodings[0].sequence_ids
    second = sides.index(1)
    prefix = sample["input_ids"][: sides.index(0)]
    middle = [token for token, side in zip(sample["input_ids"][:second], sides, strict=False) if side is None]
    middle = middle[len(prefix) :]
    suffix = [token for token, side in zip(sample["input_ids"][second:], sides[second:], strict=True) if side is None]
    begin, rows = 0, []
    while True:
        if begin + content >= len(told):
            begin = max(len(told) - content, 0)
        part = told[begin : begin + content]
        rows.append((prefix + [ids[i] for i in asked] + middle + [ids[i] for i in part] + suffix, begin, len(part)))
        if begin + content >= len(told):
            return rows, [pair["offset_mapping"][i] for i in told]
        begin += content - overlap


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(texts, passages), min_size=1, max_size=4), st.integers(20, 60), st.booleans())
def test_windows_are_those_of_a_slow_loop(tokenizers, asked, length, default):
    for tokenizer in tokenizers.values():
        overlap = None if default else 3
        found = window_questions(
            [question for question, _ in asked],
            [passage for _, passage in asked],
            tokenizer,
            max_seq_length=length,
            doc_stride=overlap,
        )
        row = 0
        for number, (question, passage) in enumerate(asked):
            expected, offsets = slow_windows(question, passage, tokenizer, length, overlap)
            contexts = np.full((len(expected), len(offsets)), -1)
            for window, (ids, begin, shown) in enumerate(expected):
                a, b = found.rows.offsets[row : row + 2]
                assert found.rows.tokens["input_ids"][a:b].tolist() == ids
                assert found.question_of[row] == number
                assert (found.at[row], found.shown[row]) == (begin, shown)
                marked = np.flatnonzero(found.rows.tokens["passage"][a:b]).tolist()
                assert marked == [0, *range(found.lead[row], found.lead[row] + shown)]
                places = np.arange(shown)
                spans = found.to_characters(np.full(shown, row), found.lead[row] + places, found.lead[row] + places)
                assert spans.tolist() == [list(place) for place in offsets[begin : begin + shown]]
                for token in range(begin, begin + shown):
                    left = len(passage) if begin == 0 else token - begin
                    right = len(passage) if begin + shown == len(offsets) else begin + shown - 1 - token
                    contexts[window, token] = min(left, right, 10**6)
                    told = found.context_of(np.array([row]), np.array([token]))[0]
                    assert min(told, len(passage)) == contexts[window, token]
                row += 1
            assert (contexts.max(0) >= 0).all()  # every token of the passage is shown
        assert row == len(found.rows)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_targets_give_back_the_answer(tokenizers, data):
    passage = data.draw(passages)
    words = passage.split("  ")
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 3, len(words) - 1)))
    begin = len("  ".join([*words[:first], ""]))
    end = begin + len("  ".join(words[first : last + 1]))
    for tokenizer in tokenizers.values():
        found = window_questions(
            ["who?", "none?"], [passage, passage], tokenizer, [(begin, end), None], max_seq_length=40
        )
        starts, ends = found.rows.samples["start_positions"], found.rows.samples["end_positions"]
        assert not starts[found.question_of == 1].any()
        answered = np.flatnonzero((starts > 0) & (found.question_of == 0))
        visible = "".join(c for c in passage[begin:end] if c not in " \u200e")
        if len(answered) == 0:
            assert found.answers_lost == 1
            alone = tokenizer(passage, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            tokens = sum(a < end and b > begin for a, b in alone)
            assert not visible or tokens > 40 // 4, "an answer that a window shows was lost"
        for row in answered:
            a, b = found.to_characters(np.array([row]), starts[row : row + 1], ends[row : row + 1])[0]
            assert begin - 2 <= a < b <= end + 2  # a lone "▁" may lie over a space
            assert "".join(c for c in passage[a:b] if c not in " \u200e") == visible


def test_a_passage_of_several_questions_is_cut_alike_and_a_baseline_gets_a_first_token():
    tokenizer = train_word_tokenizer(["Where does the Rhine end ? It ends in the sea ."])
    found = window_questions(
        ["Where does it end?", "Where?"], ["It ends in the sea.", "It ends in the sea."], tokenizer, token_types=True,
        max_seq_length=30,
    )  # fmt: skip
    row = found.rows.take([0])
    assert tokenizer.convert_ids_to_tokens(row.tokens["input_ids"].tolist())[:1] == ["<sep>"]
    assert row.tokens["token_type_ids"].tolist() == [0] * 7 + [1] * 6
    assert row.tokens["passage"].tolist() == [1] + [0] * 6 + [1] * 6
    letters = ["".join(map(chr, ids[ids > 0])) for ids in row.tokens["char_ids"]]
    assert letters[1:6] == ["Where", "does", "it", "end", "?"]
    assert letters[7:] == ["It", "ends", "in", "the", "sea", "."]


def test_windows_that_cannot_be_meant():
    tokenizer = train_word_tokenizer(["a b c"])
    with pytest.raises(ValueError, match=r"--max_seq_length 8: 16 is the least"):
        window_questions(["a"], ["b"], tokenizer, max_seq_length=8)
    with pytest.raises(ValueError, match=r"--doc_stride 40: must be from 0 to 28"):
        window_questions(["a"], ["b c"], tokenizer, max_seq_length=32, doc_stride=40)
