"""A validation split that is taken from the training split, and columns that are found."""

import csv
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.data.held_out import hold_out
from recipes.ner import NerConfig
from recipes.question_answering import QuestionConfig
from recipes.sentiment import SentimentConfig


def split_of(texts, labels, documents=None, **flags):
    splits = {"train": {"text": list(texts), "label": list(labels), "row": list(range(len(texts))), "source": "x"}}
    config = SentimentConfig(**flags)
    hold_out(splits, config, "texts", texts, [(label,) for label in labels], documents)
    return splits


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.sampled_from("xyz")), min_size=2, max_size=60),
    st.integers(1, 50),
    st.randoms(),
)
def test_every_row_once_equal_texts_on_one_side_every_label_left(rows, percentage, generator):
    texts, labels = zip(*rows, strict=True)
    own = [{label for other, label in rows if other == text} for text in texts]
    rest = [{label for other, label in rows if other != text} for text in texts]
    if all(here - there for here, there in zip(own, rest, strict=True)):
        with pytest.raises(ValueError, match="can be held out"):
            split_of(texts, labels, validation_split_percentage=percentage)
        return
    splits = split_of(texts, labels, validation_split_percentage=percentage)
    train, held = splits["train"], splits["validation"]
    assert sorted(train["row"] + held["row"]) == list(range(len(rows)))
    assert not set(train["text"]) & set(held["text"])
    assert set(held["label"]) <= set(train["label"])
    wanted = max(round(len(rows) * percentage / 100), 1)
    assert len(held["row"]) <= max(wanted, len(rows) - len(train["row"]))
    assert len(held["row"]) <= wanted or len(set(held["text"])) == 1
    # The order of the file does not matter.
    shuffled = generator.sample(rows, len(rows))
    again = split_of(*zip(*shuffled, strict=True), validation_split_percentage=percentage)
    assert sorted(again["validation"]["text"]) == sorted(held["text"])


def test_one_validation_split_for_all_seeds_and_none_where_nothing_is_evaluated(tmp_path, caplog):
    words = ["good", "bad", "fine", "poor", "bright", "dull", "quick", "slow", "warm", "cold"]
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "review", "stars"])
        for i in range(200):
            table.writerow([i, " ".join(random.Random(i // 2).sample(words, 5)), i % 4 // 2])
    file = str(tmp_path / "reviews.csv")
    found = []
    for seed in (1, 2):
        config = SentimentConfig(train_file=file, seed=seed)
        splits = data.read_labelled(config)
        found.append(splits["validation"]["text"][:])
        assert len(splits["train"]) == 180
        assert not set(splits["train"]["text"]) & set(found[-1]), "each text stands there twice"
    assert found[0] == found[1]
    assert "reviews.csv: taken as --text_column_name 'review' --label_column_name 'stars', since no" in caplog.text
    assert "reviews.csv: there is no validation data, so 20 of its 200 texts are held out" in caplog.text
    for config in (
        SentimentConfig(train_file=file, eval_strategy="no"),
        SentimentConfig(train_file=file, validation_split_percentage=0),
    ):
        assert {name: len(split) for name, split in data.read_labelled(config).items()} == {"train": 200}
    both = SentimentConfig(train_file=file, validation_file=file)
    assert {name: len(split) for name, split in data.read_labelled(both).items()} == {"train": 200, "validation": 200}


@pytest.mark.parametrize("mark", ["-DOCSTART- -X- O\n\n", "#begin document (n)\n", "# newdoc id = n\n"])
def test_documents_of_a_column_file_stay_whole(tmp_path, mark, caplog):
    text = "".join(
        mark + "".join(f"w{document}_{i} x O\nAda x B-PER\n\n" for i in range(3 + document % 4))
        for document in range(30)
    )
    (tmp_path / "train.conll").write_text(text)
    splits = data.read_tagged(NerConfig(train_file=str(tmp_path / "train.conll")))
    sides = [{words[0].partition("_")[0] for words in splits[name]["tokens"]} for name in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert len(sides[1]) > 1
    assert "whole documents" in caplog.text


def test_questions_about_one_passage_stay_together(tmp_path):
    rows = [
        {
            "question": f"Who {i}?",
            "context": f"Ada {i // 4} ran.",
            "answers": {"text": ["Ada"], "answer_start": [0]},
        }
        for i in range(80)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = data.read_questions(QuestionConfig(train_file=str(tmp_path / "train.jsonl")))
    assert len(splits["validation"]) == 8
    assert not set(splits["train"]["context"]) & set(splits["validation"]["context"])


@pytest.mark.parametrize(
    ("header", "row", "found"),
    [
        ("review,stars", lambda i: f"all of it was {i},{i % 3}", ("all of it was 0", "0")),
        ("text,stars", lambda i: f"{i},{i % 3}", ("0", "0")),  # one name is the usual one
        ("id,review,label", lambda i: f"{i},all of it was {i},{i % 3}", ("all of it was 0", "0")),
        ("review,title,stars", lambda i: f"all of it was {i},what I think {i},{i % 3}", None),  # two texts
        ("review,stars,year", lambda i: f"all of it was {i},{i % 3},{2000 + i % 2}", None),  # two labels
        ("review,name", lambda i: f"all of it was {i},n{i}", None),  # no label: all are different
        ("all of it was 7,1", lambda i: f"all of it was {i},{i % 3}", None),  # no header line
        ("what,1.5", lambda i: f"all of it was {i},1.5{i % 3}", None),
    ],
)
def test_a_column_is_found_only_where_no_other_can_be_meant(tmp_path, header, row, found):
    (tmp_path / "x.csv").write_text("\n".join([header, *map(row, range(30))]))
    config = SentimentConfig(train_file=str(tmp_path / "x.csv"), eval_strategy="no")
    if found is None:
        with pytest.raises(ValueError, match=r"x\.csv:1: no column 'text'; it has: "):
            data.read_labelled(config)
        return
    first = data.read_labelled(config)["train"][0]
    assert (first["text"], first["label"]) == found


def test_columns_of_words_and_tags_are_found(tmp_path):
    row = {"id": 3, "words": ["Ada", "ran"], "entities": ["B-PER", "O"]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    config = NerConfig(train_file=str(tmp_path / "x.jsonl"), eval_strategy="no")
    assert data.read_tagged(config)["train"]["ner_tags"][:] == [["B-PER", "O"]]
    (tmp_path / "x.jsonl").write_text(json.dumps(row | {"lemmas": ["Ada", "run"]}))
    with pytest.raises(ValueError, match=r"no column 'tokens'; it has: 'id', 'words', 'entities', 'lemmas'"):
        data.read_tagged(config)
