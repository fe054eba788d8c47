"""Schemes against seqeval: every sequence of up to four words, well-formed or not."""

from itertools import product

import pytest
import seqeval.scheme
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from finetune.arguments import DataArguments
from finetune.data import (
    detect_scheme,
    from_iob2,
    invalid_iob2,
    read_tagged,
    tags_of_labels,
    to_iob2,
    write_conll,
    written_scheme,
)
from finetune.metrics import entity_spans

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
            elif scheme == "IOE1":
                touches = any(b == end and k == kind for b, _, k in spans)
                letter = "E" if i == end - 1 and touches else "I"
            elif scheme == "IOE2":
                letter = "E" if i == end - 1 else "I"
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


def sequences(letters, kinds=("PER", "LOC"), longest=4):
    """Every sequence of tags with these prefixes, well-formed or not."""
    tags = ["O", *(f"{letter}-{kind}" for letter in letters for kind in kinds)]
    return [list(found) for n in range(1, longest + 1) for found in product(tags, repeat=n)]


def seqevals(tags):
    """What seqeval's default mode finds. It does not know the letters of BILOU and BMES, so these are renamed."""
    renamed = [tag if tag == "O" else {"U": "S", "L": "E", "M": "I"}.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    return [(begin, end + 1, kind) for kind, begin, end in get_entities(renamed)]


@pytest.mark.parametrize(
    ("letters", "scheme"),
    [("BI", "IOB2"), ("I", "IOB1"), ("IE", "IOE"), ("BIES", "IOBES"), ("BILU", "IOBES"), ("BMES", "IOBES")],
)
def test_every_sequence_has_seqevals_entities(letters, scheme, tmp_path):
    """As it is read from a file."""
    given_tags = sequences(letters)
    words = [["w"] * len(tags) for tags in given_tags]
    write_conll(tmp_path / "x.conll", words, given_tags)
    assert detect_scheme(given_tags) == scheme
    read = read_tagged(DataArguments(train_file=str(tmp_path / "x.conll")))["train"]["ner_tags"]
    assert len(read) == len(given_tags)
    for tags, found in zip(given_tags, read, strict=True):
        assert {tag[:2] for tag in found} <= {"O", "B-", "I-"}
        assert entity_spans(found) == seqevals(tags), (tags, found)


@pytest.mark.parametrize("scheme", ["IOB1", "IOE", "IOBES"])
def test_prefixes_of_all_schemes_may_be_mixed(scheme):
    for tags in sequences("BIESULM", kinds=["X"]):
        assert entity_spans(to_iob2(tags, scheme)) == seqevals(tags), tags


def test_a_tag_that_breaks_iobes_is_kept_where_iob2_can_say_it():
    given_tags = [["O", "E-X", "O"], ["B-X", "E-X", "I-X", "E-X"], ["S-X", "I-Y"], ["O", "I-X", "B-X"]]
    assert [to_iob2(tags, "IOBES") for tags in given_tags] == [
        ["O", "I-X", "O"], ["B-X", "I-X", "B-X", "I-X"], ["B-X", "I-Y"], ["O", "I-X", "B-X"],
    ]  # fmt: skip


def all_spans(length, begin=0):
    """Every set of entities in so many words."""
    if begin >= length:
        return [[]]
    found = list(all_spans(length, begin + 1))
    for end in range(begin + 1, length + 1):
        found += [[(begin, end, kind), *rest] for kind in ("PER", "LOC") for rest in all_spans(length, end)]
    return found


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU"])
def test_every_well_formed_sentence_is_read_as_it_was_written(scheme):
    for length in range(1, 5):
        for spans in all_spans(length):
            tags = write(spans, length, scheme)
            found = detect_scheme([tags])
            assert to_iob2(tags, found) == write(spans, length, "IOB2"), (tags, found)
            if scheme != "IOE1":  # whose reader in seqeval is unfinished, as its source says
                theirs = seqeval.scheme.Entities([tags], getattr(seqeval.scheme, scheme)).entities[0]
                assert [(one.start, one.end, one.tag) for one in theirs] == spans


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU"])
def test_iob2_is_written_in_every_scheme(scheme):
    for length in range(1, 5):
        for spans in all_spans(length):
            assert from_iob2(write(spans, length, "IOB2"), scheme) == write(spans, length, scheme)
    # An `I-` that continues nothing starts an entity, as conlleval counts it.
    for tags in sequences("BI"):
        back = from_iob2(tags, scheme)
        read_as = {"IOE1": "IOE", "IOE2": "IOE", "BILOU": "IOBES"}.get(scheme, scheme)
        assert entity_spans(to_iob2(back, read_as)) == entity_spans(tags), (tags, back)


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU", "BMES"])
def test_the_scheme_of_a_file_is_known(scheme):
    """By a file with every kind of sentence."""
    sentences = [from_iob2(write(spans, 4, "IOB2"), scheme) for spans in all_spans(4)]
    assert written_scheme(sentences) == scheme
    assert written_scheme([*sentences, ["NOUN", "B-PER"]]) == "IOB2", "no tags of entities"
    assert written_scheme([[], ["O"]]) == "IOB2"


def test_the_scheme_that_is_asked_for_is_used(tmp_path):
    """Found by its prefixes, this is IOB1."""
    write_conll(tmp_path / "x.conll", [["a", "b", "c"]], [["I-X", "B-X", "O"]])
    arguments = DataArguments(train_file=str(tmp_path / "x.conll"), validation_split_percentage=0)
    assert read_tagged(arguments)["train"]["ner_tags"][0] == ["B-X", "B-X", "O"]
    assert read_tagged(arguments, tagging_scheme="IOB2")["train"]["ner_tags"][0] == ["I-X", "B-X", "O"]
    with pytest.raises(ValueError, match=r"x.conll:2: 'B-X' is no tag of IOE2, whose prefixes are IE"):
        read_tagged(arguments, tagging_scheme="IOE2")


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
    for scheme in ("IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU"):
        tags = [write(spans, length, scheme) for spans, length in batch]
        wanted = [write(spans, length, "IOB2") for spans, length in batch]
        found = detect_scheme(tags)
        assert [to_iob2(sentence, found) for sentence in tags] == wanted, (scheme, found)


def test_a_stray_inside_does_not_make_iob1():
    assert detect_scheme([["B-PER", "O"], ["O", "I-LOC"]]) == "IOB2"
    assert to_iob2(["O", "I-LOC"], "IOB2") == ["O", "I-LOC"]


def test_touching_entities_in_iob1():
    assert detect_scheme([["I-PER", "B-PER", "O", "I-LOC"]]) == "IOB1"
    assert to_iob2(["I-PER", "B-PER", "I-LOC"], "IOB1") == ["B-PER", "B-PER", "B-LOC"]


def test_invalid_iob2_is_counted():
    assert invalid_iob2(["I-PER", "I-PER", "B-LOC", "I-PER", "O", "I-LOC"]) == 3
    assert invalid_iob2(["B-PER", "I-PER", "O", "B-PER", "B-PER"]) == 0


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("O B-PER I-PER [CLS] [SEP] <pad> X PAD", "O B-PER I-PER O O O O O"),
        ("O PER LOC", "O I-PER I-LOC"),
        ("O B-PER I-PER MISC", "O B-PER I-PER I-MISC"),
        ("O B_PER I_PER B_creative_work", "O B-PER I-PER B-creative_work"),
        ("O PER E_MAIL", "O I-PER I-E_MAIL"),  # the underscore of a name
        ("NOUN VERB X", "O O O"),
        ("B-NP I-NP", "B-NP I-NP"),
        ("S-X B-X I-X E-X O", "S-X B-X I-X E-X O"),
        ("O B- b-per", "O I-B- I-b-per"),
    ],
)
def test_labels_of_any_kind_are_read_as_tags(labels, expected):
    assert tags_of_labels(labels.split()) == expected.split()
