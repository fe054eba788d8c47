"""Whatever the words, every one is scored once; whatever the rows, masks stay where they may be."""

import itertools

import numpy as np
import pytest
from damage import fuzz
from hypothesis import given
from hypothesis import strategies as st

from finetune import data
from finetune.data.masking import IGNORED, Masking, mask_tokens, row_keys
from finetune.data.tags import detect_scheme, to_iob2
from finetune.models.tokenizers import train_word_tokenizer

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.fixture(scope="module")
def all_tokenizers(tokenizers, sample_texts):
    words = [word for text in sample_texts for word in text.split()]
    return tokenizers | {
        "words": train_word_tokenizer(words),
        "cased words": train_word_tokenizer(words, min_frequency=2, lowercase=False),
    }


ODD = ["\u200e", "\ufe0f", "\u00ad", "\x07", "\0", " ", "\u2028", "\ufffd"]
ODD += ["[SEP]", "<s>", "<mask>", "[UNK]", "##a", "▁", "Ġ"]
WORDS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20),
    st.text("aé東-.", min_size=1, max_size=60),
)
SENTENCES = st.lists(st.lists(st.tuples(WORDS, st.sampled_from(LABELS)), max_size=25), min_size=1, max_size=4)


def dataset_of(sentences):
    import datasets

    kind = datasets.List(datasets.Value("string"))
    columns = {"tokens": [[w for w, _ in s] for s in sentences], "ner_tags": [[t for _, t in s] for s in sentences]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(tokens=kind, ner_tags=kind))


@pytest.mark.parametrize("name", ["wordpiece", "byte-bpe", "unigram", "words", "cased words"])
@fuzz(25)
@given(sentences=SENTENCES, length=st.integers(8, 40), share=st.floats(0, 0.99), every=st.booleans())
def test_every_word_once(all_tokenizers, name, sentences, length, share, every):
    tokenizer = all_tokenizers[name]
    aligned = data.align(
        dataset_of(sentences),
        tokenizer,
        LABELS,
        max_seq_length=length,
        doc_stride=int(share * (length - 2)) if share * (length - 2) < length - 3 else None,
        label_all_tokens=every,
    )
    words = [word for sentence in sentences for word in sentence]
    assert (aligned.rows.lengths <= length).all()
    said = np.where(aligned.word_of_token >= 0, aligned.rows.tokens["labels"], 3)
    predictions, scored = aligned.to_words(said)
    assert scored == aligned.words == len(words)
    shown = aligned.word_counts > 0
    assert (predictions[shown] == aligned.gold[shown]).all()
    assert (predictions[~shown] == 0).all()
    assert len(aligned.rows.tokens["input_ids"]) == aligned.rows.offsets[-1]
    assert aligned.rows.tokens["input_ids"].max(initial=0) < len(tokenizer)
    data.alignment_report(dataset_of(sentences), tokenizer, length)


@pytest.mark.parametrize("name", ["wordpiece", "byte-bpe", "unigram", "words"])
@fuzz(25)
@given(
    texts=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5), length=st.integers(8, 20), paired=st.booleans()
)
def test_any_texts(all_tokenizers, name, texts, length, paired):
    import datasets

    columns = {"text": [a for a, _ in texts], "label": ["x"] * len(texts)}
    if paired:
        columns["text_pair"] = [b for _, b in texts]
    encoded = data.encode_texts(
        datasets.Dataset.from_dict(columns), all_tokenizers[name], ["x"], max_seq_length=length
    )
    assert len(encoded.rows) == len(texts)
    assert (encoded.rows.lengths <= length).all()
    for values in encoded.rows.tokens.values():
        assert len(values) == encoded.rows.offsets[-1]


@fuzz(100)
@given(
    rows=st.lists(st.lists(st.integers(-1, 3), max_size=30), min_size=1, max_size=6),
    unit=st.sampled_from(["token", "whole_word", "span"]),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
    seed=st.integers(0, 2**63),
)
def test_masks(rows, unit, shares, seed):
    words = np.array([word for row in rows for word in row], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    ids = np.arange(100, 100 + len(words))
    ordinary = np.arange(5, 50)
    replaced = shares[1]
    masking = Masking(4, ordinary, unit, shares[0], replaced, (1 - replaced) * shares[2])
    keys = row_keys(seed, 0, np.arange(len(rows)))
    masked, labels = mask_tokens(masking, ids, offsets, words, keys)
    chosen = labels != IGNORED
    assert (labels[chosen] == ids[chosen]).all()
    assert (words[chosen] >= 0).all()
    assert (masked[~chosen] == ids[~chosen]).all()
    assert np.isin(masked[chosen & (masked != ids)], [4, *ordinary]).all()
    for begin, end in itertools.pairwise(offsets):
        assert chosen[begin:end].any() == (words[begin:end] >= 0).any()
        if shares[0] == 1:
            assert (chosen[begin:end] == (words[begin:end] >= 0)).all()
    alone, its_labels = mask_tokens(masking, ids[: offsets[1]], offsets[:2], words[: offsets[1]], keys[:1])
    assert (alone == masked[: offsets[1]]).all()  # whatever else is in the batch
    assert (its_labels == labels[: offsets[1]]).all()


ENTITIES = st.lists(st.tuples(st.sampled_from(["", "PER", "LOC", "a-b"]), st.integers(1, 3)), max_size=8)


def tags_of(entities, scheme):
    tags, previous = [], ""
    for kind, length in entities:
        if not kind:
            tags += ["O"] * length
        elif scheme == "IOBES":
            tags += [f"S-{kind}"] if length == 1 else [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]
        else:
            first = "B" if scheme == "IOB2" or previous == kind else "I"
            tags += [f"{first}-{kind}", *[f"I-{kind}"] * (length - 1)]
        previous = kind
    return tags


@fuzz(100)
@given(sentences=st.lists(ENTITIES, max_size=5))
def test_schemes(sentences):
    expected = [tags_of(sentence, "IOB2") for sentence in sentences]
    for scheme in ("IOB1", "IOB2", "IOBES"):
        given_tags = [tags_of(sentence, scheme) for sentence in sentences]
        assert [to_iob2(tags, scheme) for tags in given_tags] == expected
        found = detect_scheme(given_tags)
        assert [to_iob2(tags, found) for tags in given_tags] == expected


@fuzz(100)
@given(tags=st.lists(st.from_regex(r"O|[BIESULM]-[ab]", fullmatch=True), max_size=12))
def test_any_tags(tags):
    once = to_iob2(tags, detect_scheme([tags]))
    assert len(once) == len(tags)
    assert [tag[2:] for tag in once] == [tag[2:] for tag in tags]
    assert {tag[0] for tag in once} <= set("OBI")
