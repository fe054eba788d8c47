"""Only a step waits for the other processes for a short time, and not the first one, which may compile."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from finetune import training
from finetune.training import loop, waits
from recipes.ner import NerConfig, finetune_ner


def test_evaluations_checkpoints_and_the_first_step_may_take_long(checkpoints, tmp_path, monkeypatch):
    short, seen = False, []

    @contextmanager
    def short_waits():
        nonlocal short
        short = True
        yield
        short = False

    def noting(name, function):
        def call(*args, **named):
            seen.append((name, short))
            return function(*args, **named)

        return call

    monkeypatch.setattr(loop, "short_waits", short_waits)
    for module, name in ((loop, "accumulate_gradients"), (loop, "save_checkpoint"), (training, "collect")):
        monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    finetune_ner(
        NerConfig(
            dataset_name="samples",
            model_name_or_path=str(checkpoints["wordpiece"]),
            output_dir=str(tmp_path / "run"),
            max_seq_length=32,
            max_eval_samples=4,
            max_steps=3,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=2,
            disable_tqdm=True,
        )
    )
    assert [is_short for name, is_short in seen if name == "accumulate_gradients"] == [False, True, True]
    others = [is_short for name, is_short in seen if name != "accumulate_gradients"]
    assert len(others) >= 4
    assert not any(others)


@pytest.mark.parametrize(("backend", "changes"), [("gloo", False), ("cpu:gloo,cuda:nccl", True)])
def test_nccl_alone_is_told(monkeypatch, backend, changes):
    told = []
    monkeypatch.setattr(
        waits,
        "distributed",
        SimpleNamespace(
            is_initialized=lambda: True,
            get_backend=lambda: backend,
            distributed_c10d=SimpleNamespace(_set_pg_timeout=told.append),
        ),
    )
    with waits.short_waits():
        assert told == [waits.SHORT_WAIT] * changes
    assert told == [waits.SHORT_WAIT, waits.LONG_WAIT] * changes
