"""Spans to words with tags and back; offsets that count other things; spans that overlap."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.arguments import DataArguments
from finetune.data.character_spans import Mark, MarkedText
from finetune.data.offset_units import in_unit

# Emoji outside the 16 bits of a UTF-16 unit, a family of them, marks after a letter, signs, spaces, invisible ones.
PIECES = [
    "Ada",
    "e\u0301",
    "\U0001f600",
    "👨‍👩‍👧",
    "🇳🇴",
    "'s",
    "-",
    "U.S.",
    " ",
    "\n",
    "\r\n",
    "東京",
    "\u200b",
    "é",
    "3,5",
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join)
KINDS = st.sampled_from(["PER", "a-b", "B-X"])


def marked(text, *spans, said=None):
    marks = [Mark(kind, ((begin, end),), said, i) for i, (begin, end, kind) in enumerate(spans, start=1)]
    return MarkedText(text, marks, "1", Path("x.ann"), 1)


def plain(spans):
    return [(span.begin, span.end, span.kind) for span in spans]


@st.composite
def spans_in(draw, text):
    """Spans that do not overlap, and have no white space at their ends."""
    borders = sorted(draw(st.sets(st.integers(0, len(text)), max_size=10)))
    pairs = zip(borders[::2], borders[1::2], strict=False)
    return [(begin, end, draw(KINDS)) for begin, end in pairs if text[begin:end].strip() == text[begin:end]]


@settings(deadline=None)
@given(choices=st.data())
def test_spans_come_back_from_words_and_tags(choices):
    text = choices.draw(TEXTS)
    spans = choices.draw(spans_in(text))
    found = data.spans_of(marked(text, *spans), "error")
    assert plain(found) == spans
    places, tags, owners = data.words_and_tags(data.split_words(text), found)
    assert plain(data.spans_of_tags(places, tags)) == spans
    # The words still have every character but white space, in order, and each belongs to the span around it.
    assert "".join(text[begin:end] for begin, end in places) == "".join(text.split())
    for (begin, end), tag, owner in zip(places, tags, owners, strict=True):
        around = [i for i, span in enumerate(spans) if span[0] <= begin and end <= span[1]]
        assert around == ([] if owner < 0 else [owner])
        assert (tag == "O") == (owner < 0)


@settings(deadline=None)
@given(choices=st.data())
def test_units_agree_with_utf_16_and_with_what_people_see(choices):
    text = choices.draw(TEXTS)
    begin = choices.draw(st.integers(0, len(text) - 1))
    end = choices.draw(st.integers(begin + 1, len(text)))
    units = [len(part.encode("utf-16-le")) // 2 for part in (text[:begin], text[:end])]
    at = data.positions(text, "utf16")
    assert in_unit(begin, end, at) == tuple(units)
    (span,) = data.spans_of(marked(text, (*units, "X")), unit="utf16") or [None]
    assert span is None or text[span.begin : span.end] == text[begin:end].strip()
    # Each cluster begins where the one before it ends; a span is widened to whole clusters.
    clusters = data.positions(text, "graphemes")
    first, last = in_unit(begin, end, clusters)
    assert clusters[first] <= begin < clusters[first + 1]
    assert clusters[last - 1] < end <= clusters[last]


def test_grapheme_clusters_are_characters_as_people_see_them():
    assert list(data.positions("e\u0301🇳🇴👨‍👩‍👧a", "graphemes")) == [0, 2, 4, 9, 10]


def reference(spans, nested):
    """Rule 5, written out: the best span of those that are left, again and again."""
    left, kept = list(spans), []
    while left:
        sign = 1 if nested == "inner" else -1
        best = min(left, key=lambda span: (sign * (span[1] - span[0]), span[0], spans.index(span)))
        kept.append(best)
        left = [span for span in left if span[1] <= best[0] or best[1] <= span[0]]
    return sorted(kept)


@settings(deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), KINDS), max_size=8, unique=True),
    nested=st.sampled_from(["outer", "inner"]),
)
def test_of_spans_that_overlap_the_rule_keeps_the_same(spans, nested):
    spans = [span for span in spans if span[0] < span[1]]
    told = Counter()
    found = plain(data.spans_of(marked("abcdefghijkl", *spans), nested, told=told))
    assert found == reference(spans, nested)
    assert told.total() == len(spans) - len(found)


@pytest.mark.parametrize(
    ("spans", "said", "unit", "message"),
    [
        ([(0, 8, "PER"), (4, 8, "LOC")], None, "auto", "2: 'Oslo' (LOC, 4 to 8) overlaps 'Ada Oslo' (PER, 0 to 8)"),
        ([(3, 3, "PER")], None, "auto", "x.ann:1: a span from 3 to 3; its end must be greater than its begin"),
        ([(-1, 3, "PER")], None, "auto", "x.ann:1: a span from -1 to 3;"),
        ([(9, 13, "PER")], None, "auto", "a span from 9 to 13, but the text has 11 characters$"),
        ([(0, 3, " \u200b")], None, "auto", "x.ann:1: the type ' \\u200b' is empty"),
        ([(0, 3, "A\tB")], None, "auto", "x.ann:1: the type 'A\\tB' is empty or breaks a line"),
        ([(4, 8, "LOC")], "slo.", "auto", "x.ann:1: at 4 8 the text has 'Oslo', not 'slo.'$"),
        ([(9, 11, "X")], "😀", "auto", "'😀.', not '😀'; the file counts UTF-16 units, so give --span_offsets utf16"),
        ([(9, 10, "X")], "😀", "utf16", "the offset 10 is in the middle of a character, counted in UTF-16 units"),
        ([(10, 12, "X")], None, "auto", "but the text has 11 characters; counted in UTF-16 units it is in the text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(spans, said, unit, message):
    pattern = re.escape(message.removesuffix("$")) + "$" * message.endswith("$")
    with pytest.raises(ValueError, match=pattern):
        data.spans_of(marked("Ada Oslo 😀.", *spans, said=said), "error", unit)


def test_white_space_parts_and_repetitions_are_counted():
    text = "colon and breast\ncancer here"
    marks = [
        Mark("D", ((0, 5), (17, 23)), "colon cancer", 1),  # in two parts, with words between them
        Mark("D", ((24, 28),), "here", 2),
        Mark("D", ((23, 28),), "here", 3),  # the same with a space before it
        Mark("E", ((9, 10),), None, 4),  # white space alone
    ]
    told = Counter()
    found = data.spans_of(MarkedText(text, marks, "1", Path("x.ann"), 1), told=told)
    assert plain(found) == [(0, 23, "D"), (24, 28, "D")]
    assert sorted(what.partition(",")[0] for what in told) == [
        "spans in several parts",
        "spans that are there twice",
        "spans with white space at their ends",
        "spans without a word",
    ]
    told.clear()
    over_a_line = [Mark("D", ((10, 16), (17, 23)), "breast cancer", 1)]
    (span,) = data.spans_of(MarkedText(text, over_a_line, "1", Path("x.ann"), 1), told=told)
    assert (span.begin, span.end, told) == (10, 23, {})


def ncbi(shared, split):
    return shared / "data" / "ncbi_disease" / "brat" / split


@pytest.mark.parametrize(("split", "documents"), [("train", 593), ("devel", 100), ("test", 100)])
def test_no_span_of_a_corpus_is_lost(split, documents, shared, tmp_path):
    """All documents of NCBI: counts by type as in the lines, and the `.ann` files come back."""
    folder = ncbi(shared, split)
    rows = data.read_tagged(DataArguments(train_file=str(folder)))["train"]
    found = Counter(tag[2:] for tags in rows["ner_tags"] for tag in tags if tag[0] == "B")
    lines = [
        line for path in sorted(folder.glob("*.ann")) for line in path.read_text().splitlines() if line[0] == "T"
    ]
    assert found == Counter(re.split(r"[\t ]", line)[1] for line in lines)
    assert len(rows) == len(set(rows["document"])) == documents

    texts = data.SPAN_READERS["brat"](folder)
    spans = []
    for text in texts:
        places, tags, _ = data.words_and_tags(data.split_words(text.text), data.spans_of(text, "error"))
        spans.append(data.spans_of_tags(places, tags))
    data.write_marked(tmp_path / "back", folder, "brat", texts, spans)
    for text in texts:
        kept = [line.split("\t") for line in (folder / f"{text.document}.ann").read_text().splitlines()]
        back = [line.split("\t") for line in (tmp_path / "back" / f"{text.document}.ann").read_text().splitlines()]
        assert sorted(line[1:] for line in back) == sorted(line[1:] for line in kept if line[0][0] == "T")
