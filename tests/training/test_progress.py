"""A bar on a terminal, and lines where there is none."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from finetune.training import progress as module
from recipes.ner import NerConfig, finetune_ner

RUN = {"dataset_name": "samples", "model_name_or_path": "rnn", "hidden_size": 8, "char_features": "none"}
RUN |= {"max_train_samples": 40, "max_eval_samples": 4, "per_device_train_batch_size": 4, "num_train_epochs": 2}


@pytest.mark.parametrize("every", [60.0, 0.0])
def test_without_a_terminal_a_line_now_and_then(every, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "EVERY", every)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())  # as in a program that starts notebooks
    result = finetune_ner(NerConfig(**RUN, output_dir=str(tmp_path / "run"), logging_steps=1))
    steps = int(result.results["train_steps"])
    assert steps >= 20
    said = capfd.readouterr()
    assert said.err == ""
    assert "\r" not in said.out
    lines = re.findall(r"^train: step (\d+) of (\d+)(?:  loss (\S+))?  about \d+ s left$", said.out, re.MULTILINE)
    assert [int(line[0]) for line in lines] == ([] if every else list(range(1, steps)))
    losses = {line["step"]: line["loss"] for line in result.history if "loss" in line}
    for step, total, loss in lines[1:]:
        assert int(total) == steps
        assert float(loss) == pytest.approx(losses[int(step) - 1], abs=1e-4)  # of the last line of the history


def test_on_a_terminal_a_bar_that_writes_over_itself(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = module.progress_bar(pytest.fail, 3, 0, disable=False)
    bar.update()
    bar.close()
    assert "\r" in terminal.getvalue()
    assert "\n" not in terminal.getvalue().strip("\n")


def test_a_notebook_has_a_bar(monkeypatch, capfd):
    shell = SimpleNamespace(kernel=object())  # as ipykernel's shell has it; a terminal's has none
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    bar = module.progress_bar(pytest.fail, 3, 0, disable=False)
    bar.update()
    bar.close()
    assert "train:" in capfd.readouterr().err
