"""Parameters without a gradient, over two processes: the steps of one process."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from processes import ROOT, run_script
from safetensors.torch import load_file

from finetune import training
from recipes.pretrain import PretrainConfig, pretrain

FLAGS = {
    "dataset_name": "samples",
    "objective": "roberta",
    "max_seq_length": 32,
    "max_train_samples": 12,
    "max_steps": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "eval_strategy": "no",
    "save_strategy": "steps",
    "save_steps": 4,
    "disable_tqdm": True,
}


@pytest.mark.parametrize("cut", ["", "auto_find_batch_size"])
def test_two_processes_take_the_steps_of_one(checkpoints, tmp_path, cut):
    """A masked-token head that is not tied has two biases, of which one is never used."""
    checkpoint = tmp_path / "bert"
    shutil.copytree(checkpoints["wordpiece"], checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"tie_word_embeddings": False, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (checkpoint / "config.json").write_text(json.dumps(config))
    flags = FLAGS | {"model_name_or_path": str(checkpoint)} | ({cut: True} if cut else {})
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(PretrainConfig(**flags, output_dir=str(one), per_device_train_batch_size=8))
    flags |= {"output_dir": two, "per_device_train_batch_size": 4}
    done = run_script(
        Path(ROOT) / "recipes/pretrain.py", *(f"--{name}={value}" for name, value in flags.items()), processes=2
    )
    assert done.returncode == 0, done.stderr[-3000:]
    moments = [load_file(training.checkpoints(run)[-1] / "optimizer.safetensors") for run in (one, two)]
    weights = [load_file(run / "model.safetensors") for run in (one, two)]
    trained = {name.rpartition("/")[0] for name in moments[0]}
    assert trained < weights[0].keys(), "this run does not test what it should"
    assert moments[0].keys() == moments[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4, msg=name)
