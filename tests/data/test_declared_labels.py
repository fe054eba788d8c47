"""Labels that the data declares are labels of the model, also those that training lacks; folders as on the Hub."""

import json

import datasets
import pyarrow.parquet as pq
import pytest

from finetune import data
from finetune.tasks import classification, tagging
from recipes.ner import NerConfig
from recipes.sentiment import SentimentConfig

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
README = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': bad
          '1': so so
          '2': good
---
Three labels, of which training has two.
"""


def tagged(names, rows):
    kinds = {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
    }
    columns = {"tokens": [["word"] * len(row) for row in rows], "ner_tags": rows}
    return datasets.Dataset.from_dict(columns, datasets.Features(kinds))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub/data").mkdir(parents=True)
    return tmp_path / "hub"


@pytest.mark.parametrize("dev", ["dev", "valid", "validation"])
def test_a_folder_laid_out_as_on_the_hub(folder, dev):
    (folder / "README.md").write_text(README)
    (folder / "data/train.csv").write_text("text,label\nfine,2\npoor,0\n")
    (folder / f"data/{dev}.csv").write_text("text,label\nmiddling,1\n")
    (folder / "data/test.csv").write_text("text,label\nnice,2\n")
    splits = data.read_labelled(SentimentConfig(dataset_name=str(folder)))
    assert {name: split["label"][:] for name, split in splits.items()} == {
        "train": ["good", "bad"],
        "validation": ["so so"],
        "test": ["good"],
    }
    assert classification.labels(splits) == ["bad", "good", "so so"]
    (folder / "data/train.csv").write_text("text,label\nfine,2\npoor,0\nworse,0\n")  # not what a cache has
    again = data.read_labelled(SentimentConfig(dataset_name=str(folder)))
    assert again["train"]["text"][:] == ["fine", "poor", "worse"]


def test_json_lines_of_words_in_such_a_folder(folder):
    for name, tags in (("train", ["B-PER", "O"]), ("dev", ["O", "B-PER"])):
        (folder / f"data/{name}.jsonl").write_text(json.dumps({"tokens": ["a", "b"], "ner_tags": tags}) + "\n")
    splits = data.read_tagged(NerConfig(dataset_name=str(folder)))
    assert splits["validation"]["ner_tags"][:] == [["O", "B-PER"]]


def test_a_saved_folder_is_still_one_and_an_empty_folder_none(folder, tmp_path):
    datasets.DatasetDict(train=tagged(TAGS, [[0, 1]])).save_to_disk(tmp_path / "saved")
    assert list(data.read_tagged(NerConfig(dataset_name=str(tmp_path / "saved"), eval_strategy="no"))) == ["train"]
    with pytest.raises(ValueError, match="this is not a folder that save_to_disk wrote"):
        data.read_tagged(NerConfig(dataset_name=str(folder)))


@pytest.mark.parametrize("how", ["data set", "parquet", "saved", "label_names"])
def test_a_type_that_training_lacks_is_a_label_if_it_is_declared(how, tmp_path):
    train, test = tagged(TAGS, [[0, 1], [1, 2]]), tagged(TAGS, [[3, 4]])
    given, flags = None, {}
    if how == "data set":
        given = {"train": train, "test": test}
    elif how == "parquet":
        for name, split in (("train", train), ("test", test)):
            split.to_parquet(tmp_path / f"{name}.parquet")
        flags = {f"{name}_file": str(tmp_path / f"{name}.parquet") for name in ("train", "test")}
    elif how == "saved":
        datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "saved")
        flags = {"dataset_name": str(tmp_path / "saved")}
    else:
        for name, split in (("train", train), ("test", test)):
            pq.write_table(split.with_format("arrow")[:].replace_schema_metadata(), tmp_path / f"{name}.parquet")
        flags = {f"{name}_file": str(tmp_path / f"{name}.parquet") for name in ("train", "test")}
        flags["label_names"] = ",".join(TAGS)
    splits = tagging.read(NerConfig(**flags, eval_strategy="no", max_train_samples=1), given)
    assert splits["test"]["ner_tags"][:] == [["B-LOC", "I-LOC"]]
    assert tagging.labels(splits) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_without_a_declaration_such_a_type_is_refused(tmp_path):
    given = {"train": [{"tokens": ["a"], "ner_tags": ["B-PER"]}], "test": [{"tokens": ["a"], "ner_tags": ["B-LOC"]}]}
    splits = tagging.read(NerConfig(eval_strategy="no"), given)
    with pytest.raises(ValueError, match="the label 'B-LOC' does not occur in the training data"):
        tagging.labels(splits)


@pytest.mark.parametrize(
    ("names", "rows", "flags", "labels"),
    [
        (["PER", "LOC", "O"], [[0, 2]], {"tagging": "entities"}, ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]),
        (["NOUN", "VERB", "X"], [[0, 1, 1]], {}, ["VERB", "NOUN", "X"]),  # the most frequent tag comes first
        (["O", "S-PER", "B-LOC", "E-LOC"], [[1, 0]], {}, ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]),
        (["[PAD]", "O", "B-PER", "I-PER"], [[2, 1]], {}, ["O", "B-PER", "I-PER"]),
        (["O", "B-PER", "I-PER"], [[0, 0]], {}, ["O", "B-PER", "I-PER"]),  # training has no entity
    ],
)
def test_declared_names_of_every_kind(names, rows, flags, labels):
    splits = tagging.read(NerConfig(eval_strategy="no", **flags), {"train": tagged(names, rows)})
    assert tagging.labels(splits) == labels


def test_declared_labels_of_texts_with_several_labels():
    kinds = {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["z", "y", "x"]))}
    train = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [[0], []]}, datasets.Features(kinds))
    splits = data.read_labelled(SentimentConfig(eval_strategy="no"), given={"train": train})
    assert classification.labels(splits) == ["x", "y", "z"]
    assert data.declared(splits["train"]) == ["x", "y", "z"]
