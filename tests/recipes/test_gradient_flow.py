"""Gradients by distance: finite differences, a closed form, and what the recipe writes."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from recipes.gradient_flow import (
    BASELINE,
    LEARNING_RATES,
    GradientFlowConfig,
    adding_problem,
    build,
    gradient_flow,
    gradient_norms,
    probe_inputs,
)

TINY = {"length": 7, "steps": 25, "hidden_size": 4, "seeds": "0,3"}


@pytest.mark.parametrize("name", list(LEARNING_RATES))
def test_norms_are_those_of_finite_differences(name, tmp_path):
    torch.manual_seed(0)
    module, last_state = build(name, GradientFlowConfig(**TINY))
    module.double()
    inputs = adding_problem(3, 7, torch.Generator().manual_seed(1))[0].double()
    expected = torch.zeros(7, dtype=torch.float64)
    with torch.no_grad():
        for b in range(3):
            for k in range(7):
                square = 0.0
                for e in range(2):
                    step = torch.zeros_like(inputs)
                    step[b, 6 - k, e] = 1e-6
                    moved = (last_state(inputs + step) - last_state(inputs - step))[b] / 2e-6
                    square += moved.square().sum()
                expected[k] += square**0.5 / 3
    found = gradient_norms(last_state, inputs)
    assert found.min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_norms_of_a_linear_network_are_those_of_powers_of_its_matrix():
    """h_t = W h_(t-1) + U x_t, so the Jacobian at distance k is W^k U."""
    torch.manual_seed(0)
    layers = nn.RNN(2, 5, nonlinearity="relu", batch_first=True, bias=False)
    with torch.no_grad():
        for weight in layers.parameters():
            weight.uniform_(0.05, 0.3)  # positive like the inputs: nothing is cut off
    found = gradient_norms(lambda x: layers(x)[0][:, -1], torch.rand(4, 30, 2) + 0.1)
    W, U = layers.weight_hh_l0.double(), layers.weight_ih_l0.double()
    expected = [torch.linalg.matrix_norm(torch.linalg.matrix_power(W, k) @ U).item() for k in range(30)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_the_adding_problem_and_its_baseline():
    inputs, targets = adding_problem(20_000, 9, torch.Generator().manual_seed(0))
    for row, target in zip(inputs[:50].tolist(), targets[:50].tolist(), strict=True):
        marked = [(i, number) for i, (number, mark) in enumerate(row) if mark == 1]
        assert len(marked) == 2
        assert marked[0][0] < 4 <= marked[1][0]
        assert target == pytest.approx(sum(number for _, number in marked))
    assert inputs[..., 1].mean(0)[:4].tolist() == pytest.approx([1 / 4] * 4, abs=0.02)
    assert inputs[..., 1].mean(0)[4:].tolist() == pytest.approx([1 / 5] * 5, abs=0.02)
    assert (targets - 1).square().mean().item() == pytest.approx(BASELINE, rel=0.03)


@pytest.mark.parametrize("length", [2, 8, 9])
def test_probes_mark_each_position_once(length):
    probes = probe_inputs(length, torch.Generator().manual_seed(0))
    assert (probes[..., 1].sum(1) == 2).all()
    often = probes[..., 1].sum(0)
    assert often.sum() == 2 * len(probes)
    assert (often == 1).sum() >= length - length % 2
    assert (often[length // 2 :] == 1).all()


def test_a_run_writes_everything_and_repeats_itself(tmp_path):
    result = gradient_flow(GradientFlowConfig(**TINY, output_dir=str(tmp_path / "a" / "run")))
    folder = tmp_path / "a" / "run"
    names = {"gradient_flow.json", "gradient_flow.md", "gradient_flow.png", "gradient_flow.svg"}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    assert json.loads((folder / "gradient_flow.json").read_text()) == result
    assert (folder / "gradient_flow.png").read_bytes()[:4] == b"\x89PNG"

    same = GradientFlowConfig(**TINY, output_dir=str(folder))
    with pytest.raises(ValueError, match="already holds a run"):
        gradient_flow(same)
    again = gradient_flow(replace(same, overwrite_output_dir=True))
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    for name, found in result["models"].items():
        assert [len(norms) for norms in found["before"] + found["after"]] == [7] * 4
        assert found["before"] != found["after"]
        assert found["before"][0] != found["before"][1]  # another seed
        for key in ("before", "after", "loss", "steps"):
            assert found[key] == again["models"][name][key]

    lines = (folder / "gradient_flow.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| 5 |")]
    low, high = sorted(norms[5] / norms[0] for norms in result["models"]["gru"]["after"])
    assert rows[1][4] == f"{(low + high) / 2:.1e} ({low:.1e} to {high:.1e})"


def test_an_empty_folder_may_be_the_one_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gradient_flow(GradientFlowConfig(**TINY, output_dir="."))
    assert len(list(tmp_path.iterdir())) == 4


def test_training_learns_the_task(tmp_path):
    config = GradientFlowConfig(length=4, steps=1500, hidden_size=16, seeds="0", output_dir=str(tmp_path / "run"))
    models = gradient_flow(config)["models"]
    for name in ("lstm", "gru", "transformer"):
        assert models[name]["loss"][0] < BASELINE / 10, name
        assert models[name]["steps"][0] < 1500  # it stops when it has learned


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 1}, "--length 1"),
        ({"steps": 0}, "--steps 0"),
        ({"hidden_size": 6}, "--hidden_size 6"),
        ({"learning_rate": 0.0}, "--learning_rate 0"),
        ({"seeds": "0,x"}, "--seeds 0,x"),
        ({"output_dir": "full", "overwrite_output_dir": True}, "--output_dir full: this folder has other files"),
        ({"output_dir": "full/notes.txt"}, "--output_dir full/notes.txt: this is a file"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=message):
        gradient_flow(GradientFlowConfig(**{"output_dir": "new/run"} | settings))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
