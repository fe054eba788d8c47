"""FSDP 2 over two processes: the steps of one process, and a resume with the same bytes."""

import json
import shutil
from pathlib import Path

import pytest
from processes import run_script
from safetensors.torch import load_file

from recipes.ner import NerConfig, finetune_ner

SCRIPT = Path(__file__).with_name("sharded.py")
FLAGS = {
    "dataset_name": "samples",
    "max_seq_length": 32,
    "max_train_samples": 30,
    "max_eval_samples": 9,
    "max_steps": 6,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 9,
    "disable_tqdm": True,
}


def sharded(recipe, flags):
    return run_script(SCRIPT, recipe, *(f"--{name}={value}" for name, value in flags.items()), processes=2)


@pytest.fixture(scope="module")
def checkpoint(checkpoints, tmp_path_factory):
    """Without dropout, which differs between processes."""
    folder = tmp_path_factory.mktemp("checkpoint") / "bert"
    shutil.copytree(checkpoints["wordpiece"], folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_sharded_steps_are_those_of_one_process_and_resume_exactly(checkpoint, tmp_path):
    own = {"model_name_or_path": checkpoint}
    alone = finetune_ner(NerConfig(**FLAGS, **own, output_dir=str(tmp_path / "alone"), per_device_train_batch_size=8))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    flags = FLAGS | own | {"per_device_train_batch_size": 4}
    done = sharded("ner", flags | {"output_dir": whole})
    assert done.returncode == 0, done.stderr[-3000:]
    history = [json.loads(line) for line in (whole / "history.jsonl").read_text().splitlines()]
    steps = [[line for line in lines if "loss" in line] for lines in (alone.history, history)]
    assert len(steps[0]) == 6
    for name in ("loss", "grad_norm", "tokens"):
        assert [line[name] for line in steps[1]] == pytest.approx([line[name] for line in steps[0]], rel=1e-3)

    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoint-6")
    done = sharded("ner", flags | {"output_dir": resumed, "resume_from_checkpoint": "true"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed from" in done.stdout
    weights = [(folder / "model.safetensors").read_bytes() for folder in (whole, resumed)]
    assert weights[0] == weights[1]
    assert load_file(whole / "model.safetensors").keys() == load_file(tmp_path / "alone/model.safetensors").keys()


def test_a_tied_head_is_refused_in_one_sentence(checkpoint, tmp_path):
    flags = {"dataset_name": "samples", "model_name_or_path": checkpoint, "output_dir": tmp_path / "run"}
    done = sharded("pretrain", flags | {"max_train_samples": 4, "max_seq_length": 32, "max_steps": 2})
    assert done.returncode != 0
    assert "error: FSDP cannot shard a masked-token head" in done.stderr
    assert not (tmp_path / "run").exists()


def test_deepspeed_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match=r"^DeepSpeed takes .* recipes/configs/accelerate/fsdp.yaml$"):
        finetune_ner(NerConfig(train_file="absent.conll", output_dir=str(tmp_path / "run")))


def test_mixed_precision_keeps_loss_and_sums_of_gradients_in_float32(checkpoint, tmp_path, monkeypatch):
    """A bfloat16 holds 8 bits: a loss that came as one is a multiple of a large power of two."""
    flags = FLAGS | {"model_name_or_path": checkpoint, "eval_strategy": "no", "save_strategy": "no", "max_steps": 3}
    found = []
    for precision in ("no", "bf16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        own = {"output_dir": tmp_path / precision, "per_device_train_batch_size": 4}
        done = sharded("ner", flags | own)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = (json.loads(line) for line in (tmp_path / precision / "history.jsonl").read_text().splitlines())
        found.append([line for line in lines if "loss" in line])
    for name, within in (("loss", 0.01), ("grad_norm", 0.05)):
        assert [line[name] for line in found[1]] == pytest.approx([line[name] for line in found[0]], rel=within)
    # One process has a few rows of each step: the sum of its losses, and that of both, would be coarse.
    assert max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(*found, strict=True)) < 0.002
