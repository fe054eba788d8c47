"""The recipes as functions: data from Python, messages with Python's names, fields that are explained."""

import dataclasses
import inspect

import datasets
import pytest

from finetune import data
from recipes.compare import CompareConfig, compare
from recipes.ner import NerConfig, finetune_ner
from recipes.pretrain import PretrainConfig, pretrain
from recipes.question_answering import QuestionConfig
from recipes.sentiment import SentimentConfig, finetune_sentiment

SHAPE = {"hidden_size": 8, "embedding_size": 8, "char_features": "none"}
TINY = SHAPE | {"model_name_or_path": "rnn", "max_seq_length": 32, "max_steps": 2, "disable_tqdm": True}
SENTENCES = [{"tokens": ["Ada", f"ran{i}"], "ner_tags": ["B-PER", "O"], "id": i} for i in range(20)]
TEXTS = [{"text": f"it was {word} {i}", "label": word} for i in range(20) for word in ("good", "bad")]


def frame(package):
    return pytest.importorskip(package).DataFrame


FORMS = {
    "Dataset": lambda: datasets.Dataset.from_list,
    "pandas": lambda: frame("pandas"),
    "polars": lambda: frame("polars"),
    "list": lambda: list,
    "dict": lambda: lambda rows: {key: [row[key] for row in rows] for key in rows[0]},
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_every_form_are_the_same_data(form, tmp_path):
    as_form = FORMS[form]()
    splits = data.read_tagged(NerConfig(), given={"train": as_form(SENTENCES), "test": as_form(SENTENCES[:3])})
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "validation": 2, "test": 3}
    assert splits["test"]["tokens"][:] == [row["tokens"] for row in SENTENCES[:3]]
    assert splits["test"]["ner_tags"][:] == [row["ner_tags"] for row in SENTENCES[:3]]
    if form == "pandas":  # an index with gaps is no column
        rows = as_form(TEXTS).iloc[::2]
        assert data.read_labelled(SentimentConfig(), given={"train": rows})["train"].num_rows == 18
    answers = {"text": ["Ada"], "answer_start": [0]}
    questions = [{"question": f"Who {i}?", "context": f"Ada {i} ran.", "answers": answers} for i in range(10)]
    found = data.read_questions(QuestionConfig(), given={"train": as_form(questions)})["validation"]
    assert found["answers"][:] == [["Ada"]]


def test_recipes_and_a_comparison_train_on_given_rows(tmp_path):
    given = {"train": TEXTS, "validation": TEXTS[:6], "test": TEXTS[:4]}
    config = SentimentConfig(**TINY, output_dir=str(tmp_path / "run"))
    result = finetune_sentiment(config, data=given)
    assert result.results["test_accuracy"] in (0, 0.25, 0.5, 0.75, 1)
    assert "data from Python" in (result.output_dir / "README.md").read_text()
    models = {name: dataclasses.replace(config, model_name_or_path=name) for name in ("rnn", "svm")}
    report = compare(CompareConfig(models, (42,), str(tmp_path / "compared")), data=given)
    assert report["models"]["rnn"]["scores"]["test_accuracy"]["values"] == [result.results["test_accuracy"]]
    documents = [{"text": ["Ada ran home.", "She sat down there."] * 4}] * 20
    flags = {"config_name": "roberta", "tokenizer_name": "byte-bpe", "vocab_size": 300, "objective": "roberta"}
    corpus = PretrainConfig(**flags, hidden_size=8, num_attention_heads=1, max_seq_length=16, dry_run=True)
    assert pretrain(corpus, data={"train": documents}).results["instances"] > 0


def test_messages_name_what_was_given_from_python(tmp_path):
    out = {"output_dir": str(tmp_path / "run")}
    for config, given, message in (
        (
            {"text_column_name": "words"},
            SENTENCES,
            r"^the data set: no column 'words'; .* the right one with a flag",
        ),
        ({"logging_steps": 0}, SENTENCES, "^logging_steps 0: must be at least 1$"),
        ({"max_steps": "2"}, SENTENCES, "^max_steps='2': must be a whole number$"),
        ({"train_file": "x.conll"}, SENTENCES, "^train_file: data is given from Python, too; leave one of them out$"),
        ({}, "x.conll", r"^data\['train'\] is str; give a datasets.Dataset, a frame of pandas"),
        (
            {},
            [{"tokens": ["a"], "ner_tags": ["O"]}, {"tokens": 3, "ner_tags": ["O"]}],
            r"^data\['train'\]: not read as",
        ),
        (
            {},
            [*SENTENCES, {"tokens": ["Ada\ud83d"], "ner_tags": ["O"]}],
            r"^data\['train'\]: the text 'Ada\\ud83d' has half of a character \(a surrogate\)",
        ),
        ({}, [*SENTENCES, {"tokens": ["Ada"]}], r"^the data set, row 21: column 'ner_tags' is not a list of strings"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune_ner(NerConfig(**TINY | out | config), data={"train": given})
    with pytest.raises(ValueError, match=r"^data\['vaildation'\]: no split of a run; did you mean validation\?$"):
        finetune_ner(NerConfig(**TINY | out), data={"train": SENTENCES, "vaildation": SENTENCES})
    with pytest.raises(ValueError, match=r"^data: no training data; give data\['train'\]$"):
        finetune_ner(NerConfig(**TINY | out), data={"test": SENTENCES})
    with pytest.raises(ValueError, match=r'^data is a list; give its rows as a split: data=\{"train": ...\}$'):
        finetune_ner(NerConfig(**TINY | out), data=SENTENCES)
    assert not (tmp_path / "run").exists()


def test_help_tells_what_each_field_means():
    for config in (NerConfig, SentimentConfig, QuestionConfig, PretrainConfig):
        for field in dataclasses.fields(config):
            assert f"\n    {field.name}: {field.metadata['help'].replace('--', '')}" in inspect.getdoc(config) + "\n"
