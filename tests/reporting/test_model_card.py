"""The model card: the settings of a run, and a snippet that runs."""

import json
import re
from datetime import UTC, datetime

import pytest
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune import reporting
from finetune.tasks import classification
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

TINY = {"model_name_or_path": "gru", "hidden_size": 8, "dataset_name": "samples", "max_train_samples": 24}
TINY |= {"max_eval_samples": 6, "per_device_train_batch_size": 6, "disable_tqdm": True}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"num_train_epochs": 2}, "trained for 8 steps, 2 epochs\n"),
        ({"max_steps": 6}, "trained for 6 steps, 1.5 epochs\n"),
        (
            {"num_train_epochs": 7, "early_stopping_patience": 1, "learning_rate": 1e-12},
            "trained for 8 steps, 2 epochs, of 7 epochs that were asked for\n- best epoch: 1\n",
        ),
        (
            {"max_steps": 40, "early_stopping_patience": 1, "learning_rate": 1e-12},
            "trained for 8 steps, 2 epochs, of 40 steps that were asked for\n- best epoch: 1\n",
        ),
    ],
)
def test_the_card_tells_what_was_run(flags, told, tmp_path):
    config = SentimentConfig(**TINY | flags, output_dir=str(tmp_path / "run"), data_license="cc0-1.0", focal_gamma=1)
    result = finetune_sentiment(config)
    text = (tmp_path / "run" / "README.md").read_text()
    assert f"\n- {told}" in text
    assert result.results["train_epochs"] == result.history[-1]["epoch"]
    assert "The licence of the data: cc0-1.0." in text
    assert "\n- focal_gamma: 1.0\n" in text
    assert "label_smoothing_factor" not in text, "it was not on"
    assert f"\n- date: {datetime.now(UTC).date()}\n" in text
    assert re.search(r"\n- on (cpu \(\d+ threads?\)|\w[^\n]*), 1 process, float32; [^\n]* of memory; ", text)


def test_the_card_has_both_errors_of_the_words_scores(tmp_path):
    rows = [{"tokens": ["Ada", "ran", str(i)], "ner_tags": ["B-PER", "O", "O"]} for i in range(30)]
    config = NerConfig(**TINY | {"dataset_name": None}, max_steps=1, output_dir=str(tmp_path / "run"))
    result = finetune_ner(config, {"train": rows, "validation": rows})
    told = reporting.scores_of_card((tmp_path / "run" / "README.md").read_text())
    assert {"eval_ece_words", "eval_ece_words_before"} <= told.keys()
    assert "eval_words" in result.results
    assert "eval_words" not in told, "it is a number of words and no score"


def test_scores_are_read_back_whatever_their_labels_are(tmp_path):
    rows = [{"text": f"{i} sun", "label": ["very red", "a|b"][: 1 + i % 2]} for i in range(40)]
    config = SentimentConfig(**TINY | {"dataset_name": None}, max_steps=1, output_dir=str(tmp_path / "run"))
    result = finetune_sentiment(config, {"train": rows, "validation": rows})
    told = reporting.scores_of_card((tmp_path / "run" / "README.md").read_text())
    assert told == reporting.told_scores(result.results)
    assert "eval_f1_very red" in told


@pytest.mark.parametrize(("name", "place"), [("run", None), ('a "quoted" run', None), ("run", "ada/run")])
def test_the_snippet_runs_beside_the_folder_or_where_the_model_was_uploaded(
    name, place, checkpoints, tmp_path, monkeypatch
):
    folder = tmp_path / (place or name)
    AutoModelForSequenceClassification.from_pretrained(checkpoints["wordpiece"]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoints["wordpiece"]).save_pretrained(folder)
    reporting.write_model_card(
        folder,
        task="text-classification",
        metric="accuracy",
        use=classification.use(Dataset.from_dict({"text": ["a"], "label": ["x"]})),
        base_model="bert",
        model_type="bert",
        data="samples",
        split_sizes={"train": 3},
        results={
            "train_steps": 1200,
            "best_epoch": 2.5,
            "total_parameters": 1,
            "test_accuracy": 0.5,
            "test_f1_macro": 0.5,
        },
        settings={},
        place=place,
    )
    text = (folder / "README.md").read_text()
    assert str(tmp_path) not in text
    assert "The licence of the data" not in text
    assert "means over the labels that occur in the split" in text
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    labels = json.loads((folder / "config.json").read_text()).get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    assert names["classifier"]("I would see it again.")[0]["label"] in labels.values()
