"""A test split without labels is predicted and not scored, whatever form it comes in."""

import csv
import json

import datasets
import pytest

import finetune
from finetune import data
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment
from recipes.simple_baselines import tag_by_dictionary, train_svm

TINY = {"num_train_epochs": 3, "hidden_size": 8, "embedding_size": 8, "char_features": "none", "disable_tqdm": True}
WORDS = [["Ada", "saw", "Riga"], ["Bergen"]]


def lines(*rows, **more):
    return "".join(json.dumps(row | more) + "\n" for row in rows)


TEXTS = [{"text": "Ada saw Riga"}, {"text": "Bergen"}]
TAGGED = lines({"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["Oslo"], "ner_tags": ["B-LOC"]})
SPANS = lines({"text": "Ada ran", "label": [[0, 3, "PER"]]}, {"text": "Oslo", "label": [[0, 4, "LOC"]]})
COLUMNS = "Ada B-PER\nran O\n\nOslo B-LOC\n"
TABLE = "sentence,word,tag\n1,Ada,B-PER\n,ran,O\n2,Oslo,B-LOC\n"


def treebank(*sentences):
    """CoNLL-U with words and their upos."""
    blank = "\t_" * 6
    rows = [
        "".join(f"{i}\t{word}\t_\t{tag}{blank}\n" for i, (word, tag) in enumerate(words, start=1))
        for words in sentences
    ]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("a.conll", COLUMNS), ("b.conll", "Ada\nsaw\nRiga\n\nBergen\n")),
        (("a.conll", COLUMNS), ("b.conll", "Ada _\nsaw _\nRiga _\n\nBergen _\n")),
        (("a.conll", COLUMNS), ("b.conll", "-DOCSTART-\n\n# id 1\nAda\nsaw\nRiga\n\nBergen\n")),
        (("a.jsonl", TAGGED), ("b.jsonl", lines(*({"tokens": words} for words in WORDS)))),
        (("a.jsonl", TAGGED), ("b.jsonl", lines(*({"tokens": words} for words in WORDS), ner_tags=None))),
        (("a.csv", TABLE), ("b.csv", "sentence,word,tag\n1,Ada,\n,saw,\n,Riga,\n2,Bergen,\n")),
        (("a.conllu", treebank([("Ada", "PROPN"), ("ran", "VERB")], [("Oslo", "PROPN")])),
         ("b.conllu", treebank(*([(word, "_") for word in words] for words in WORDS)))),
        (("a.jsonl", SPANS), ("b.jsonl", lines(*TEXTS))),
    ],
)  # fmt: skip
def test_words_without_tags_are_kept_if_wanted_in_each_form(train, test, tmp_path, caplog):
    for name, text in (train, test):
        (tmp_path / name).write_text(text)
    flags = {"label_column_name": "upos"} if train[0].endswith("conllu") else {}
    config = NerConfig(train_file=str(tmp_path / train[0]), test_file=str(tmp_path / test[0]), **flags)
    config.eval_strategy = "no"
    from finetune.tasks import tagging

    with data.keeping_unlabelled() as kept:
        splits = tagging.read(config)
    assert list(splits) == ["train"]
    assert kept["test"]["tokens"][:] == WORDS
    assert "ner_tags" not in kept["test"].column_names
    assert "the test split has no labels, so it is not scored" in caplog.text
    assert list(tagging.read(config)) == ["train"]
    assert "the test split has no labels; it is left out" in caplog.text


def test_texts_of_brat_without_annotations(tmp_path):
    files = {"train/a.txt": "Ada ran", "train/a.ann": "T1\tPER 0 3\tAda\n", "test/b.txt": "Ada saw Riga"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    config = NerConfig(train_file=str(tmp_path / "train"), test_file=str(tmp_path / "test"), eval_strategy="no")
    with data.keeping_unlabelled() as kept:
        assert list(data.read_tagged(config, keep_documents=True)) == ["train"]
    assert kept["test"]["tokens"][:] == [["Ada", "saw", "Riga"]]
    assert kept["test"]["document"][:] == ["b"]


def test_another_delimiter_is_no_file_of_words_alone(tmp_path):
    (tmp_path / "a.conll").write_text(COLUMNS)
    for text in ("Ada;B-PER\nran;O\n", "ran,O\nAda,B-PER\n"):
        (tmp_path / "b.conll").write_text(text)
        config = NerConfig(train_file=str(tmp_path / "a.conll"), test_file=str(tmp_path / "b.conll"))
        with pytest.raises(ValueError, match=r"b.conll:1: 1 column\(s\), but 2 are needed"):
            data.read_tagged(config)


@pytest.mark.parametrize("name", ["wordpiece", "bilstm", "bilstm-crf"])
def test_tags_are_those_of_finetune_predict(name, checkpoints, tmp_path, capsys):
    """The last word of the test split is in no other split, so a vocabulary of the others would lack it."""
    flags = TINY | {"model_name_or_path": name}
    if name in checkpoints:
        flags = {
            "model_name_or_path": str(checkpoints[name]),
            "max_seq_length": 32,
            "num_train_epochs": 2,
            "disable_tqdm": True,
        }
    (tmp_path / "train.conll").write_text((COLUMNS + "\n") * 8)
    (tmp_path / "test.conll").write_text("Ada\nran\nOslo\n\nBergen\n")
    files = {f"{split}_file": str(tmp_path / f"{split}.conll") for split in ("train", "test")}
    files["validation_file"] = files["train_file"]
    found = finetune_ner(NerConfig(**files, **flags, output_dir=str(tmp_path / "out")))
    assert not [key for key in found.results if key.startswith("test_")]
    assert found.results["unlabelled_test_rows"] == 2
    assert "the test split has no labels; its 2 rows were predicted and not scored" in capsys.readouterr().out
    assert "its 2 rows were predicted and not scored" in (tmp_path / "out/README.md").read_text()
    words, gold, said, _ = _conll(tmp_path / "out/predictions_test.conll")
    assert words == [["Ada", "ran", "Oslo"], ["Bergen"]]
    assert gold == [["_"] * 3, ["_"]]
    assert said == [answer["predicted"] for answer in finetune.predict(str(tmp_path / "out"), words)]


def _conll(path):
    from finetune.tasks import tagging

    return tagging.reread(path.parent, path.stem.removeprefix("predictions_"))


def test_baselines_without_a_network_predict_it_too(tmp_path, capsys):
    (tmp_path / "train.conll").write_text((COLUMNS + "\n") * 8)
    (tmp_path / "test.conll").write_text("Ada\nran\nOslo\n\nBergen\n")
    files = {f"{split}_file": str(tmp_path / f"{split}.conll") for split in ("train", "test")}
    found = tag_by_dictionary(
        NerConfig(**files, model_name_or_path="dictionary", output_dir=str(tmp_path / "words"), eval_strategy="no")
    )
    assert found.results["unlabelled_test_rows"] == 2
    words, gold, said, _ = _conll(tmp_path / "words/predictions_test.conll")
    assert (words, said) == ([["Ada", "ran", "Oslo"], ["Bergen"]], [["B-PER", "O", "B-LOC"], ["O"]])
    assert gold == [["_"] * 3, ["_"]]

    rows = [
        {"text": f"{word} {i}", "label": label} for i in range(8) for word, label in (("good", "a"), ("bad", "b"))
    ]
    (tmp_path / "train.jsonl").write_text(lines(*rows))
    (tmp_path / "test.jsonl").write_text(lines({"text": "bad thing"}, {"text": "good thing"}))
    files = {f"{split}_file": str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    train_svm(SentimentConfig(**files, model_name_or_path="svm", output_dir=str(tmp_path / "texts")))
    with (tmp_path / "texts/predictions_test.tsv").open(newline="") as file:
        told = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(row["label"], row["predicted"]) for row in told] == [("", "b"), ("", "a")]
    assert capsys.readouterr().out.count("its 2 rows were predicted and not scored") == 2


@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_labels_are_those_of_finetune_predict(kind, tmp_path):
    texts = ["good one", "bad one", "fine one", "poor one"] * 6
    labels = {"one": ["a", "b"] * 12, "several": [["a"], ["b", "c"]] * 12, "number": [1.5, -2.25] * 12}[kind]
    rows = [
        {"text": f"{text} {i}", "label": label} for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    (tmp_path / "train.jsonl").write_text(lines(*rows))
    (tmp_path / "test.jsonl").write_text(lines({"text": "good thing"}, {"text": "bad thing here"}))
    files = {"train_file": str(tmp_path / "train.jsonl"), "test_file": str(tmp_path / "test.jsonl")}
    out = str(tmp_path / "out")
    found = finetune_sentiment(SentimentConfig(**files, **TINY, model_name_or_path="lstm", output_dir=out))
    assert not [key for key in found.results if key.startswith("test_")]
    with (tmp_path / "out/predictions_test.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(row["text"], row["label"]) for row in rows] == [("good thing", ""), ("bad thing here", "")]
    answers = [answer["predicted"] for answer in finetune.predict(out, [row["text"] for row in rows])]
    said = [json.loads(row["predicted"]) if kind != "one" else row["predicted"] for row in rows]
    assert said == (pytest.approx(answers, abs=1e-5) if kind == "number" else answers)


def test_a_row_without_a_label_among_others_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"text": "good", "label": "x"}, {"text": "bad", "label": "y"}))
    (tmp_path / "b.jsonl").write_text(lines({"text": "good"}, {"text": "bad", "label": "y"}))
    config = SentimentConfig(train_file=str(tmp_path / "a.jsonl"), test_file=str(tmp_path / "b.jsonl"))
    with pytest.raises(ValueError, match=r"b\.jsonl:1: no column 'label'"):
        data.read_labelled(config)
    (tmp_path / "a.jsonl").write_text(TAGGED)
    (tmp_path / "b.jsonl").write_text(lines({"tokens": ["Ada"]}) + TAGGED)
    config = NerConfig(train_file=str(tmp_path / "a.jsonl"), test_file=str(tmp_path / "b.jsonl"))
    with pytest.raises(ValueError, match=r"b\.jsonl:1: no column 'ner_tags'"):
        data.read_tagged(config)


def test_empty_cells_are_no_labels_but_a_text_may_have_none_of_several(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\ngood,x\nbad,y\nfine,x\n")
    (tmp_path / "b.csv").write_text("text,label\ngood,\nbad,\n")
    config = SentimentConfig(
        train_file=str(tmp_path / "a.csv"), test_file=str(tmp_path / "b.csv"), eval_strategy="no"
    )
    assert list(data.read_labelled(config)) == ["train"]
    splits = data.read_labelled(config, label_separator="|")
    assert splits["test"]["label"][:] == [[], []]


def test_rows_from_python(tmp_path):
    train = [{"tokens": ["Ada"], "ner_tags": ["B-PER"]}, {"tokens": ["Oslo"], "ner_tags": ["B-LOC"]}]
    given = {"train": train, "test": datasets.Dataset.from_dict({"tokens": WORDS})}
    with data.keeping_unlabelled() as kept:
        data.read_tagged(NerConfig(eval_strategy="no"), given=given)
    assert kept["test"]["tokens"][:] == WORDS
