"""The model card: the settings of a run, and a snippet that runs."""

import json
import re
from dataclasses import replace

import pytest
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune import reporting
from finetune.tasks import classification
from recipes.sentiment import SentimentConfig


def test_the_length_of_the_training_is_what_was_asked_for():
    config = SentimentConfig(num_train_epochs=3, max_steps=20)
    told = reporting.told_settings(config)
    assert told["max_steps"] == 20
    assert "num_train_epochs" not in told
    told = reporting.told_settings(replace(config, max_steps=-1))
    assert told["num_train_epochs"] == 3
    assert "max_steps" not in told


@pytest.mark.parametrize("name", ["run", 'a "quoted" run'])
def test_the_snippet_runs_beside_the_folder(name, checkpoints, tmp_path, monkeypatch):
    folder = tmp_path / name
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
    )
    text = (folder / "README.md").read_text()
    assert str(tmp_path) not in text
    assert "\n- steps trained: 1,200\n- best epoch: 2.5\n" in text
    assert "means over the labels that occur in the split" in text
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names)
    labels = json.loads((folder / "config.json").read_text()).get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    assert names["classifier"]("I would see it again.")[0]["label"] in labels.values()
