"""What a model may be called: no network is asked for what can be no Hub id."""

import dataclasses

import pytest

from finetune import models
from finetune.models import names
from recipes.ner import NerConfig, finetune_ner, resolved
from recipes.sentiment import SentimentConfig


@pytest.mark.parametrize(
    "name",
    [
        "bert-base-uncased",
        "gpt2",
        "roberta-base",
        "distilbert",
        "xlnet-base-cased",
        "t5-small",
        "owner/runs",
        "o/lstm",
    ],
)
def test_hub_ids_go_on(name):
    names.check_place(name, "--model_name_or_path")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/bilstn", "no such folder; did you mean runs/bilstm?"),
        ("runs/bilstn/", "no such folder; did you mean runs/bilstm?"),
        ("./runs/other", "no such folder"),
        ("a/b/c", "no such folder"),
        ("~/runs", "no such folder"),
        ("runs\\bilstm", "no such folder"),
        ("runs/notes.txt", "this is a file; give the folder of a saved model"),
        ("BiLSTM", "no such folder, and no baseline; did you mean bilstm?"),
        ("lstm-crf", "no such folder, and no baseline; did you mean bilstm-crf?"),
        ("dictionary", "only recipes/compare.py trains this one"),
    ],
)
def test_paths_and_misspelt_baselines_do_not(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/bilstm").mkdir(parents=True)
    (tmp_path / "runs/notes.txt").touch()
    for flag in ("--model_name_or_path", "--tokenizer_name"):
        if flag == "--tokenizer_name" and "/" not in name and "\\" not in name:
            continue
        with pytest.raises(ValueError, match=r"^--\w+ ") as refused:
            names.check_place(name, flag)
        assert str(refused.value).partition(": ")[2] == message


def test_every_flag_of_a_baseline_is_refused_for_a_transformer_and_changes_a_baseline(checkpoints, tmp_path):
    own = {
        "cell": "gru",
        "hidden_size": 3,
        "num_hidden_layers": 2,
        "embedding_size": 5,
        "char_features": "bilstm",
        "char_hidden_size": 6,
        "dropout": 0.9,
        "word_dropout": 0.9,
        "min_word_frequency": 2,
        "pooling": "max",
    }
    assert {*own, "embeddings"} == set(names.flags_without_use(SentimentConfig()))

    def shape_of(**settings):
        config = SentimentConfig(**{"model_name_or_path": "bilstm", "hidden_size": 4} | settings)
        words = ["a b c", "a d"]
        model, _ = models.load("sequence-classification", config, ["x", "y"], words=words, max_seq_length=8,
                               pooling=config.pooling)  # fmt: skip
        return model.config.to_dict()

    transformer = str(checkpoints["wordpiece"])
    for flag, value in own.items():
        with pytest.raises(ValueError, match=f"^--{flag}: for recurrent baselines only"):
            names.check_flags(SentimentConfig(model_name_or_path=transformer, **{flag: value}))
        names.check_flags(SentimentConfig(model_name_or_path="bilstm", **{flag: value}))
        assert shape_of() != shape_of(**{flag: value}), flag
    with pytest.raises(ValueError, match=r"^--char_hidden_size: bilstm has no use for this flag; leave it out$"):
        names.check_flags(NerConfig(model_name_or_path="bilstm", char_features="none", char_hidden_size=7))


def test_a_saved_baseline_goes_on_as_it_was(tmp_path):
    settings = {"dataset_name": "samples", "max_train_samples": 8, "max_eval_samples": 4, "max_steps": 1}
    config = NerConfig(**settings, model_name_or_path="rnn", hidden_size=8, output_dir=str(tmp_path / "run"))
    finetune_ner(config)
    again = dataclasses.replace(config, model_name_or_path=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"^--hidden_size: .*run is a saved baseline, which goes on as it was saved"):
        resolved(again)
    resolved(dataclasses.replace(again, hidden_size=200))
