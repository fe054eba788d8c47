import itertools

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.data.alignment import Subwords, cut_windows, encode_words, special_tokens

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
VANISHING = ["\u200e", "\ufe0f", "\u00ad", "\x07"]
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Words as people write them, and words that tokenizers do odd things to.
WORDS = st.one_of(
    st.sampled_from(
        [
            "Ada",
            "Lovelace",
            "unbelievable",
            "don't",
            "@user",
            "http://t.co/x1",
            "1,000.5",
            "Ünïcode",
            "東京",
            "😀",
            "straße",
            "...",
        ]
    ),
    st.sampled_from(VANISHING),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12),
)
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, st.sampled_from(LABELS)), min_size=0, max_size=25), min_size=1, max_size=4
)


def dataset_of(sentences):
    return datasets.Dataset.from_dict(
        {
            "tokens": [[w for w, _ in s] for s in sentences],
            "ner_tags": [[t for _, t in s] for s in sentences],
        },
        features=datasets.Features(
            {name: datasets.List(datasets.Value("string")) for name in ("tokens", "ner_tags")}
        ),
    )


def slow_windows(tokens, word_ids, tags, content, overlap, label_all):
    """For one sentence: the windows as lists of (token, label), and for every word its (window, position)."""
    step = content - overlap
    starts = [0] if tokens else []
    while starts and starts[-1] + content < len(tokens):
        starts.append(min(starts[-1] + step, len(tokens) - content))
    owner = {}
    for word in sorted(set(word_ids)):
        begin = word_ids.index(word)
        end = begin + word_ids.count(word)
        best = None
        for k, start in enumerate(starts):
            stop = min(start + content, len(tokens))
            if not start <= begin < stop:
                continue
            left = begin - start if start > 0 else 10**9
            right = stop - end if stop < len(tokens) else 10**9
            if best is None or min(left, right) > best[0]:
                best = (min(left, right), k)
        owner[word] = best[1]
    windows = []
    for k, start in enumerate(starts):
        window = []
        for i in range(start, min(start + content, len(tokens))):
            word = word_ids[i]
            first = i == word_ids.index(word)
            label = -100
            if owner[word] == k and first:
                label = LABELS.index(tags[word])
            elif owner[word] == k and label_all:
                label = LABELS.index(tags[word].replace("B-", "I-"))
            window.append((tokens[i], label))
        windows.append(window)
    return windows


@SLOW
@given(
    sentences=SENTENCES,
    length=st.integers(8, 20),
    share=st.sampled_from([None, 0, 0.3, 0.9]),
    label_all=st.booleans(),
)
def test_windows_equal_a_slow_reference(tokenizer, sentences, length, share, label_all):
    prefix, suffix = special_tokens(tokenizer)
    content = length - len(prefix) - len(suffix)
    overlap = content // 2 if share is None else int(share * content)
    aligned = data.align(
        dataset_of(sentences),
        tokenizer,
        LABELS,
        max_seq_length=length,
        doc_stride=None if share is None else overlap,
        label_all_tokens=label_all,
    )
    expected = []
    for sentence in sentences:
        if not sentence:
            continue
        encoding = tokenizer([w for w, _ in sentence], is_split_into_words=True, add_special_tokens=False)
        expected += slow_windows(
            encoding["input_ids"], encoding.word_ids(), [t for _, t in sentence], content, overlap, label_all
        )
    rows = aligned.rows
    found = [
        list(zip(rows.tokens["input_ids"][a:b].tolist(), rows.tokens["labels"][a:b].tolist(), strict=True))
        for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)
    ]
    pad = lambda window: [(i, -100) for i in prefix] + window + [(i, -100) for i in suffix]  # noqa: E731
    assert found == [pad(window) for window in expected]


@SLOW
@given(sentences=SENTENCES, length=st.integers(8, 20))
def test_every_word_is_predicted_once(tokenizer, sentences, length):
    aligned = data.align(dataset_of(sentences), tokenizer, LABELS, max_seq_length=length)
    words = [word for sentence in sentences for word in sentence]
    # A model that is right wherever it is asked, and says B-PER everywhere else.
    said = np.where(aligned.rows.tokens["labels"] >= 0, aligned.rows.tokens["labels"], 3)
    predictions, scored = aligned.to_words(said)
    assert scored == len(words)
    for prediction, (word, tag) in zip(predictions, words, strict=True):
        empty = not tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        assert LABELS[prediction] == ("O" if empty else tag)


def test_words_that_vanish_are_predicted_outside(tokenizers):
    sentence = [("Ada", "B-PER"), ("\u200e", "I-PER"), ("ran", "O")]
    aligned = data.align(dataset_of([sentence]), tokenizers["wordpiece"], LABELS)
    predictions, scored = aligned.to_words(np.full(len(aligned.rows.tokens["labels"]), 4))
    assert [LABELS[i] for i in predictions] == ["I-PER", "O", "I-PER"]
    assert scored == 3


def test_a_lost_word_stops_the_evaluation(tokenizers):
    aligned = data.align(dataset_of([[("Ada", "O"), ("ran", "O")]]), tokenizers["wordpiece"], LABELS)
    aligned.word_of_token[aligned.word_of_token == 1] = -1
    with pytest.raises(RuntimeError, match="2 words but 1 scored"):
        aligned.to_words(np.zeros(len(aligned.word_of_token), dtype=int))


def test_a_word_of_two_predictions_stops_the_evaluation(tokenizers):
    aligned = data.align(dataset_of([[("Ada", "O"), ("ran", "O")]]), tokenizers["wordpiece"], LABELS)
    aligned.word_of_token[-1] = 0
    with pytest.raises(RuntimeError, match="2 words but 1 scored"):
        aligned.to_words(np.zeros(len(aligned.word_of_token), dtype=int))


def test_short_windows_and_wide_overlaps_are_refused(tokenizers):
    dataset = dataset_of([[("Ada", "O")]])
    with pytest.raises(ValueError, match="--max_seq_length 7"):
        data.align(dataset, tokenizers["wordpiece"], LABELS, max_seq_length=7)
    with pytest.raises(ValueError, match="--doc_stride 6: must be from 0 to 5"):
        data.align(dataset, tokenizers["wordpiece"], LABELS, max_seq_length=8, doc_stride=6)


@pytest.mark.parametrize("length", [128, 32, 16])
def test_every_word_of_wnut17_is_scored(shared, length, tokenizers):
    from finetune.arguments import DEFAULT_MODEL, DataArguments
    from finetune.models import load_tokenizer

    folder = shared / "data/wnut17"
    splits = data.read_tagged(
        DataArguments(train_file=str(folder / "train.conll"), test_file=str(folder / "test.conll"))
    )
    labels = data.entity_labels(splits["train"])
    for tokenizer in (
        load_tokenizer(DEFAULT_MODEL),
        load_tokenizer(str(shared / "checkpoints/xlmr-mini")),
        *tokenizers.values(),
    ):
        aligned = data.align(splits["test"], tokenizer, labels, max_seq_length=length)
        predictions, scored = aligned.to_words(aligned.rows.tokens["labels"])
        assert scored == 23_394
        vanished = aligned.word_counts == 0
        assert (predictions[~vanished] == aligned.gold[~vanished]).all()


def test_report_counts(tokenizers):
    sentence = [("Ada", "I-PER"), ("\ufe0f", "O"), ("ran", "O"), ("東", "O"), ("京東", "B-LOC")]
    dataset = dataset_of([sentence, [("x", "O")] * 12])
    report = data.alignment_report(dataset, tokenizers["wordpiece"], max_seq_length=10)
    assert (report.sentences, report.words) == (2, 17)
    assert report.words_without_subword == 1
    assert report.invalid_tags == 1
    assert report.words_unknown == 2
    assert report.unknown_characters == {"東": 2, "京": 1}
    plain = [
        tokenizers["wordpiece"]([w for w, _ in s], is_split_into_words=True, truncation=True, max_length=10)
        for s in (sentence, [("x", "O")] * 12)
    ]
    shown = sum(len(set(encoding.word_ids()) - {None}) for encoding in plain)
    assert report.words_cut == 17 - 1 - shown
    assert report.sentences_cut == sum(
        len(tokenizers["wordpiece"]([w for w, _ in s], is_split_into_words=True)["input_ids"]) > 10
        for s in (sentence, [("x", "O")] * 12)
    )
    assert "1 words without a subword" in str(report)


def test_several_special_tokens_keep_their_order():
    """As XLNet has two at the end."""
    subwords = Subwords({"input_ids": np.arange(10, 17, dtype=np.int32)}, np.array([0, 2, 5, 7]))
    gold = np.array([1, 2, 3])
    made = cut_windows(subwords, np.array([0, 3]), gold, [1, 2], [8, 9], content=5, overlap=3)
    ids, offsets = made.rows.tokens["input_ids"].tolist(), made.rows.offsets.tolist()
    assert [ids[a:b] for a, b in itertools.pairwise(offsets)] == [
        [1, 2, 10, 11, 12, 13, 14, 8, 9],
        [1, 2, 12, 13, 14, 15, 16, 8, 9],
    ]
    assert made.to_words(made.rows.tokens["labels"])[0].tolist() == [1, 2, 3]


def test_more_distinct_words_than_are_tokenised_at_once(tokenizers):
    words = [str(number) for number in range(50_300)]
    found = encode_words(tokenizers["wordpiece"], pa.array(words))
    for at in (0, 49_999, 50_000, 50_299):
        ids = found.features["input_ids"][found.starts[at] : found.starts[at + 1]].tolist()
        assert ids == tokenizers["wordpiece"](words[at], add_special_tokens=False)["input_ids"]
