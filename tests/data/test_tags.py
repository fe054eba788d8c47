from hypothesis import given
from hypothesis import strategies as st

from finetune.data import detect_scheme, invalid_iob2, to_iob2

LETTERS = {
    "IOB2": {"single": "B", "begin": "B", "inside": "I", "end": "I"},
    "IOBES": {"single": "S", "begin": "B", "inside": "I", "end": "E"},
    "BILOU": {"single": "U", "begin": "B", "inside": "I", "end": "L"},
}


def write(spans, length, scheme):
    """Tags of non-overlapping (begin, end, type) spans in a scheme, worked out word by word."""
    tags = ["O"] * length
    for begin, end, kind in spans:
        for i in range(begin, end):
            if scheme == "IOB1":
                touches = any(e == begin and k == kind for _, e, k in spans)
                letter = "B" if i == begin and touches else "I"
            else:
                part = (
                    "single" if end - begin == 1 else "begin" if i == begin else "end" if i == end - 1 else "inside"
                )
                letter = LETTERS[scheme][part]
            tags[i] = f"{letter}-{kind}"
    return tags


@st.composite
def sentences(draw):
    spans, at = [], 0
    for _ in range(draw(st.integers(0, 4))):
        begin = at + draw(st.integers(0, 2))
        end = begin + draw(st.integers(1, 3))
        spans.append((begin, end, draw(st.sampled_from(["PER", "creative-work"]))))
        at = end
    return spans, at + draw(st.integers(0, 2))


@given(sentences(), st.sampled_from(["IOBES", "BILOU"]))
def test_iobes_becomes_iob2(sentence, scheme):
    spans, length = sentence
    assert to_iob2(write(spans, length, scheme), "IOBES") == write(spans, length, "IOB2")


@given(sentences())
def test_iob1_becomes_iob2(sentence):
    spans, length = sentence
    assert to_iob2(write(spans, length, "IOB1"), "IOB1") == write(spans, length, "IOB2")


@given(st.lists(sentences(), min_size=1, max_size=4))
def test_scheme_is_detected_where_it_matters(batch):
    for scheme, name in (("IOB1", "IOB1"), ("IOB2", "IOB2"), ("IOBES", "IOBES"), ("BILOU", "IOBES")):
        tags = [write(spans, length, scheme) for spans, length in batch]
        wanted = [write(spans, length, "IOB2") for spans, length in batch]
        found = detect_scheme(tags)
        assert [to_iob2(sentence, found) for sentence in tags] == wanted, (name, found)


def test_a_stray_inside_does_not_make_iob1():
    assert detect_scheme([["B-PER", "O"], ["O", "I-LOC"]]) == "IOB2"
    assert to_iob2(["O", "I-LOC"], "IOB2") == ["O", "I-LOC"]


def test_touching_entities_in_iob1():
    assert detect_scheme([["I-PER", "B-PER", "O", "I-LOC"]]) == "IOB1"
    assert to_iob2(["I-PER", "B-PER", "I-LOC"], "IOB1") == ["B-PER", "B-PER", "B-LOC"]


def test_invalid_iob2_is_counted():
    assert invalid_iob2(["I-PER", "I-PER", "B-LOC", "I-PER", "O", "I-LOC"]) == 3
    assert invalid_iob2(["B-PER", "I-PER", "O", "B-PER", "B-PER"]) == 0
