"""What a run changes in its process, it puts back."""

import os

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers.utils import logging as transformers_logging

from finetune import training
from finetune.training import loop
from recipes import ner
from recipes.ner import NerConfig, finetune_ner

TINY = {
    "dataset_name": "samples",
    "model_name_or_path": "rnn",
    "max_train_samples": 8,
    "max_eval_samples": 4,
    "hidden_size": 8,
    "embedding_size": 8,
    "char_features": "none",
    "max_steps": 1,
    "disable_tqdm": True,
}


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        transformers_logging.is_progress_bar_enabled(),
    )


@pytest.fixture
def bars():
    """A process in which nothing was changed."""
    before = transformers_logging._tqdm_active
    transformers_logging._tqdm_active = True
    yield
    transformers_logging._tqdm_active = before


def test_a_later_run_finds_what_the_first_one_found(tmp_path, monkeypatch, bars):
    before = settings()
    assert before[0] is False
    inside = []

    def look(*_):
        inside.append(settings())
        raise KeyboardInterrupt

    finetune_ner(NerConfig(**TINY, full_determinism=True, output_dir=str(tmp_path / "a")))
    assert settings() == before
    with monkeypatch.context() as patch:
        patch.setattr(loop, "accumulate_gradients", look)
        with pytest.raises(KeyboardInterrupt):
            finetune_ner(NerConfig(**TINY, full_determinism=True, output_dir=str(tmp_path / "b")))
    assert settings() == before
    assert inside == [(True, os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"), False)]
    with pytest.raises(ValueError, match="no such file"):  # ends before there is a training
        finetune_ner(NerConfig(train_file="no.conll", full_determinism=True, output_dir=str(tmp_path / "c")))
    run = training.start_run(ner.resolved(NerConfig(**TINY, output_dir=str(tmp_path / "d"))), metrics=["f1"])
    assert not torch.are_deterministic_algorithms_enabled()
    run.release()
    assert settings() == before


def test_float16_on_a_cpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    AcceleratorState._reset_state()
    try:
        if not torch.accelerator.is_available():
            with pytest.raises(ValueError, match="--mixed_precision fp16: on a CPU this would train in float32"):
                finetune_ner(NerConfig(**TINY, output_dir=str(tmp_path / "run")))
            assert not (tmp_path / "run").exists()
    finally:
        AcceleratorState._reset_state()
