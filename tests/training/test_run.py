"""What a run changes in its process, it puts back."""

import os

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers.utils import logging as transformers_logging

from finetune import cli, training
from finetune.training import loop
from finetune.training.precision import use_tf32
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
    assert inside == [(True, os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":16:8"), False)]
    with pytest.raises(ValueError, match="no such file"):  # ends before there is a training
        finetune_ner(NerConfig(train_file="no.conll", full_determinism=True, output_dir=str(tmp_path / "c")))
    run = training.start_run(ner.resolved(NerConfig(**TINY, output_dir=str(tmp_path / "d"))), metrics=["f1"])
    assert not torch.are_deterministic_algorithms_enabled()
    run.release()
    assert settings() == before


def test_a_result_comes_back_from_its_folder(tmp_path):
    result = finetune_ner(NerConfig(**TINY, output_dir=str(tmp_path / "run")))
    assert len(result.history) == 2
    assert training.RunResult.read(str(tmp_path / "run")) == result
    (tmp_path / "run/all_results.json").unlink()
    with pytest.raises(ValueError, match=r"run: no finished run; a run's folder has all_results\.json$"):
        training.RunResult.read(tmp_path / "run")


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


@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_training_data_alone_ends_with_a_line(tmp_path, capsys, strategy):
    (tmp_path / "train.conll").write_text("Ada\tB-PER\nran\tO\n\n" * 9)
    settings = TINY | {"dataset_name": None, "train_file": str(tmp_path / "train.conll"), "max_steps": 3}
    config = NerConfig(**settings, output_dir=str(tmp_path / "run"), eval_strategy=strategy, save_strategy=strategy)
    if strategy == "epoch":
        with pytest.raises(ValueError, match=r"train.conll: none of its 9 sentences can be held out"):
            finetune_ner(config)
        config.validation_split_percentage = 0
        with pytest.raises(ValueError, match="without both give eval_strategy no"):
            finetune_ner(config)
        return
    result = finetune_ner(config)
    *_, last, place = capsys.readouterr().out.splitlines()
    assert place == f"{tmp_path / 'run'} holds the model; to use it: finetune.predict('{tmp_path / 'run'}', [...])"
    assert last.startswith(f"train: 3 steps  loss {result.history[-1]['loss']:.4f} over the last ones  ")
    assert last.endswith("no score: there is no --validation_file and no --test_file")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", "x", "learning_rate='x': must be a number or None"),
        ("seed", 1.5, "seed=1.5: must be a whole number"),
        ("seed", True, "seed=True: must be a whole number"),
        ("padding_free", "false", "padding_free='false': must be True or False"),
        ("head", "cfr", "head='cfr': must be one of 'linear', 'crf'"),
        ("model_name_or_path", ["lstm"], r"model_name_or_path=\['lstm'\]: must be a string"),
        (
            "train_sampling_strategy",
            1,
            "train_sampling_strategy=1: must be one of 'random', 'group_by_length' or None",
        ),
    ],
)
def test_values_from_python_have_the_types_of_the_flags(tmp_path, name, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        finetune_ner(NerConfig(**TINY | {name: value}, output_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_what_stands_for_a_plain_value_is_one_in_run_yaml(tmp_path):
    given = {"output_dir": tmp_path / "run", "learning_rate": np.float32(0.5), "seed": np.int64(7), "max_steps": 1}
    given |= {"resume_from_checkpoint": True, "num_train_epochs": 2}
    result = finetune_ner(NerConfig(**TINY | given))
    written = cli.parse(NerConfig, ["--config", str(result.output_dir / "run.yaml")])
    assert (written.output_dir, written.learning_rate, written.seed) == (str(tmp_path / "run"), 0.5, 7)


def test_tf32_is_said_for_products_and_cudnn_and_put_back():
    def said():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = said()
    for use, expected in ((True, ("high", True)), (False, ("highest", False))):
        put_back = use_tf32(use)
        assert said() == expected
        put_back()
        assert said() == before
