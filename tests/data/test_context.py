"""Windows that show sentences with their neighbours, against loops that are written out."""

import itertools

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.arguments import DataArguments
from finetune.data.alignment import special_tokens
from finetune.data.context import document_numbers, joined, neighbours, sentence_lengths

LABELS = ["O", "B-PER", "I-PER"]
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.sampled_from(["Ada", "unbelievable", "ran", "東京", "1,000.5", "\u200e", "@user", ".", "Lovelace"])
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "a", "a", "a", "b", None]),
        st.lists(st.tuples(WORDS, st.sampled_from(LABELS)), max_size=9),
    ),
    min_size=1,
    max_size=9,
)


def dataset_of(rows):
    strings = datasets.List(datasets.Value("string"))
    return datasets.Dataset.from_dict(
        {
            "tokens": [[word for word, _ in sentence] for _, sentence in rows],
            "ner_tags": [[tag for _, tag in sentence] for _, sentence in rows],
            "document": [name for name, _ in rows],
        },
        features=datasets.Features({"tokens": strings, "ner_tags": strings, "document": datasets.Value("string")}),
    )


def subwords_of(tokenizer, sentence):
    """A list of ids for each word."""
    return [
        tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"] for word, _ in sentence
    ]


def documents_of(rows):
    """Lists of row numbers: neighbours with the same name, and each row without a name alone."""
    found = []
    for i, (name, _) in enumerate(rows):
        if name is not None and found and rows[found[-1][-1]][0] == name:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def rows_of(aligned, prefix, suffix):
    """The content of each row as (token, label) pairs. The special tokens are checked."""
    found = []
    for a, b in itertools.pairwise(aligned.rows.offsets):
        ids = aligned.rows.tokens["input_ids"][a:b].tolist()
        labels = aligned.rows.tokens["labels"][a:b].tolist()
        end = len(ids) - len(suffix)
        assert (ids[: len(prefix)], ids[end:]) == (prefix, suffix)
        assert set(labels[: len(prefix)] + labels[end:]) <= {-100}
        found.append(list(zip(ids[len(prefix) : end], labels[len(prefix) : end], strict=True)))
    return found


def labelled(tokenizer, sentence):
    """(token, label) pairs: the first subword of a word has its label."""
    return [
        (token, LABELS.index(tag) if i == 0 else -100)
        for (_, tag), ids in zip(sentence, subwords_of(tokenizer, sentence), strict=True)
        for i, token in enumerate(ids)
    ]


def words_that_fit(words, room):
    """How many subwords whole words have that fit into the room, taken from the front."""
    taken = 0
    for word in words:
        if taken + len(word) > room:
            break
        taken += len(word)
    return taken


def slow_document_row(tokenizer, rows, document, i, content, size):
    """The row of sentence i, which fits into a window."""
    before = [word for j in document if j < i for word in subwords_of(tokenizer, rows[j][1])]
    after = [word for j in document if j > i for word in subwords_of(tokenizer, rows[j][1])]
    own = labelled(tokenizer, rows[i][1])
    sizes = [min(sum(map(len, side)), 10**9 if size is None else size) for side in (before, after)]
    room = content - len(own)
    right = min(sizes[1], room - min(sizes[0], room // 2))
    left = min(sizes[0], room - right)
    left = words_that_fit(before[::-1], left)
    right = words_that_fit(after, right)
    flat = [token for word in before for token in word]
    shown = flat[len(flat) - left :]
    following = [token for word in after for token in word][:right]
    return [(token, -100) for token in shown] + own + [(token, -100) for token in following]


@SLOW
@given(rows=ROWS, length=st.integers(8, 24), size=st.sampled_from([None, 1, 3, 8]))
def test_a_row_for_each_sentence_with_its_neighbours(tokenizer, rows, length, size):
    prefix, suffix = special_tokens(tokenizer)
    content = length - len(prefix) - len(suffix)
    dataset = dataset_of(rows)
    aligned = data.align(dataset, tokenizer, LABELS, max_seq_length=length, context="document", context_size=size)
    alone = rows_of(data.align(dataset, tokenizer, LABELS, max_seq_length=length), prefix, suffix)
    expected, used = [], 0
    for document in documents_of(rows):
        for i in document:
            own = labelled(tokenizer, rows[i][1])
            if len(own) <= content:
                if own:
                    expected.append(slow_document_row(tokenizer, rows, document, i, content, size))
                used += bool(own)
                continue
            step = content - content // 2
            number = 1 + -(-(len(own) - content) // step)
            expected += alone[used : used + number]  # a long sentence has the windows that it has without context
            used += number
    assert rows_of(aligned, prefix, suffix) == expected


@SLOW
@given(rows=ROWS, length=st.integers(8, 24))
def test_sentences_side_by_side(tokenizer, rows, length):
    prefix, suffix = special_tokens(tokenizer)
    content = length - len(prefix) - len(suffix)
    aligned = data.align(dataset_of(rows), tokenizer, LABELS, max_seq_length=length, context="side_by_side")
    expected = []
    for document in documents_of(rows):
        groups = [[]]
        for i in document:
            own = labelled(tokenizer, rows[i][1])
            if groups[-1] and len(groups[-1]) + len(own) > content:
                groups.append([])
            groups[-1] += own
        expected += [group for group in groups if group]
    found = rows_of(aligned, prefix, suffix)
    if all(len(group) <= content for group in expected):
        assert found == expected
    labels = [label for row in found for _, label in row if label >= 0]
    assert labels == [label for group in expected for _, label in group if label >= 0]  # also of long sentences


@SLOW
@given(rows=ROWS, length=st.integers(8, 24), context=st.sampled_from(["document", "side_by_side"]))
def test_every_word_is_predicted_once(tokenizer, rows, length, context):
    aligned = data.align(dataset_of(rows), tokenizer, LABELS, max_seq_length=length, context=context)
    words = [word for _, sentence in rows for word in sentence]
    # A model that is right where it is asked, and says B-PER everywhere else.
    said = np.where(aligned.rows.tokens["labels"] >= 0, aligned.rows.tokens["labels"], 1)
    predictions, scored = aligned.to_words(said)
    assert scored == len(words)
    assert len(aligned.sentence_offsets) == len(rows) + 1
    for prediction, (word, tag) in zip(predictions, words, strict=True):
        empty = not tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        assert LABELS[prediction] == ("O" if empty else tag)


def test_the_cost_is_told(tokenizers):
    rows = [("a", [("Ada", "O")] * 4), ("a", [("ran", "O")] * 4), (None, [("ran", "O")] * 4)]
    tokenizer = tokenizers["wordpiece"]
    ada, ran = (len(tokenizer([word], is_split_into_words=True)["input_ids"]) - 2 for word in ("Ada", "ran"))
    aligned = data.align(dataset_of(rows), tokenizer, LABELS, max_seq_length=64, context="document")
    alone = 4 * ada + 8 * ran + 6
    assert (
        f"2 sentences in 1 documents; 3 rows with {(alone + 4 * ada + 4 * ran) / alone:.2f} times" in aligned.context
    )
    assert "1 sentences belong to no document" in aligned.context


def test_both_sides_share_the_room():
    """Nine sentences of two words of one subword each, in windows of 12: two, with five more on each side."""
    starts, offsets, documents = np.arange(19), np.arange(0, 19, 2), np.ones(9, np.int64)
    before, after = neighbours(starts, offsets, documents, content=12)
    assert before.tolist() == [0, 2, 4, 5, 5, 5, 6, 8, 10]
    assert after.tolist() == [10, 8, 6, 5, 5, 5, 4, 2, 0]
    assert [side.max() for side in neighbours(starts, offsets, documents, content=12, size=3)] == [3, 3]


def test_sentences_that_fill_a_window_exactly_share_it():
    starts, documents = np.arange(11), np.array([1, 1, 1, 0, 0])
    assert joined(starts, np.arange(0, 11, 2), documents, content=4).tolist() == [0, 4, 6, 8, 10]


def test_documents_are_runs_of_a_name():
    assert document_numbers(["a", "a", None, "a", "b", "b", None, None]).tolist() == [1, 1, 0, 2, 3, 3, 0, 0]


@pytest.mark.parametrize("form", ["conll", "conllu", "table", "jsonl"])
def test_documents_of_each_form(tmp_path, form):
    """Two documents of two sentences and one; and a sentence before the first document where a form can have it."""
    documents = [1, 1, 2]
    path = tmp_path / f"train.{'csv' if form == 'table' else form}"
    sentences = [["Ada", "ran"], ["She", "won"], ["Bob", "sat"]]
    if form == "conll":
        mark = "-DOCSTART- O\n\n"
        path.write_text("Lone O\nword O\n\n" + mark + _columns(sentences[:2]) + mark + _columns(sentences[2:]))
    elif form == "conllu":
        path.write_text("".join(map(_treebank, sentences, ["# newdoc\n", "", "# newdoc id = x\n"])))
    elif form == "table":
        cells = [(d, s, w) for d, (s, own) in zip(documents, enumerate(sentences), strict=True) for w in own]
        path.write_text("doc,nr,word,tag\n" + "".join(f"{d},{s},{w},B-X\n" for d, s, w in cells))
    else:
        rows = [f'{{"tokens": ["{a}", "{b}"], "ner_tags": ["O", "B-X"], "doc": ' for a, b in sentences]
        path.write_text("".join(row + name + "}\n" for row, name in zip(rows, ['"x"', '"x"', "7"], strict=True)))
    flags = {"table": {"sentence_column": "doc,nr", "words": "word", "tags": "tag"}, "conllu": {"tags": "upos"}}
    flags["jsonl"] = {"document_column": "doc"}
    config = DataArguments(train_file=str(path), validation_split_percentage=0)
    found = data.read_tagged(config, keep_documents=True, **flags.get(form, {}))["train"]["document"]
    assert found == ([None] if form == "conll" else []) + [str(number) for number in documents]


def _columns(sentences):
    return "".join("".join(f"{word} B-X\n" for word in sentence) + "\n" for sentence in sentences)


def _treebank(sentence, mark):
    rows = (f"{i}\t{word}\t_\tNOUN" + "\t_" * 6 + "\n" for i, word in enumerate(sentence, start=1))
    return mark + "".join(rows) + "\n"


TEXT = "The C. elegans gene (Fig. 3) was seen by Dr. Smith. It is rare! Is it? 第一。第二。\n\nA new part\nof a text"


def test_sentences_of_a_text():
    words = data.split_words(TEXT)
    lengths = sentence_lengths(TEXT, words)
    borders = [0, *itertools.accumulate(lengths)]
    found = [TEXT[words[a][0] : words[b - 1][1]] for a, b in itertools.pairwise(borders)]
    assert found == [
        "The C. elegans gene (Fig. 3) was seen by Dr. Smith.",
        "It is rare!",
        "Is it?",
        "第一。",
        "第二。",
        "A new part\nof a text",
    ]


@SLOW
@given(
    text=st.text(
        st.one_of(st.sampled_from(list("aB .!?\n\r。😀\u0301\u200e'\"1")), st.characters(exclude_categories=("Cs",))),
        max_size=60,
    ),
    parts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=3),
)
def test_no_sentence_ends_inside_a_span(text, parts):
    words = data.split_words(text)
    lengths = sentence_lengths(text, words, parts)
    assert sum(lengths) == len(words)
    assert all(lengths)
    borders = itertools.accumulate(lengths[:-1])
    for border in borders:
        end, begin = words[border - 1][1], words[border][0]
        assert not any(first < end and begin < last for first, last in parts)


def test_sentences_of_brat(tmp_path):
    (tmp_path / "a.txt").write_text("Ada met Dr. Who? Inc. in Rome. She left. The end!", encoding="utf-8")
    (tmp_path / "a.ann").write_text("T1\tPER 0 3\tAda\nT2\tORG 8 21\tDr. Who? Inc.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("One. Two.", encoding="utf-8")
    (tmp_path / "b.ann").write_text("", encoding="utf-8")
    config = DataArguments(train_file=str(tmp_path), validation_split_percentage=0)
    rows = data.read_tagged(config, split_sentences=True)["train"]
    assert [" ".join(words) for words in rows["tokens"]] == [
        "Ada met Dr . Who ? Inc . in Rome .",
        "She left .",
        "The end !",
        "One .",
        "Two .",
    ]
    assert rows["document"] == ["a", "a", "a", "b", "b"]
    assert rows["ner_tags"][0] == ["B-PER", "O", "B-ORG"] + ["I-ORG"] * 5 + ["O"] * 3
    assert rows["line"][0][:4] == [1, 1, 2, 2]
    whole = data.read_tagged(config)["train"]
    for column in ("tokens", "ner_tags"):
        texts = [list(itertools.chain(*part)) for part in (rows[column][:3], rows[column][3:])]
        assert texts == whole[column][:]
