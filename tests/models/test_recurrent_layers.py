"""Recurrent layers without padding: torch's own packed sequences are the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from finetune.models import RecurrentConfig, RecurrentForQuestionAnswering, RecurrentForTokenClassification
from finetune.models.recurrent import run_recurrent


def packed(module, features, lengths):
    output, _ = module(pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(output, batch_first=True, total_length=features.shape[1])[0]


def one_by_one(module):
    """A one-layer cell for each layer of a module, with its weights."""
    cells = []
    for layer in range(module.num_layers):
        size = module.input_size if layer == 0 else module.hidden_size * (1 + module.bidirectional)
        cell = type(module)(size, module.hidden_size, bidirectional=module.bidirectional, batch_first=True)
        for name in [name for name, _ in cell.named_parameters()]:
            setattr(cell, name, getattr(module, name.replace("_l0", f"_l{layer}")))
        cells.append(cell)
    return cells


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20) | st.lists(st.sampled_from([2, 5]), min_size=16),
    layers=st.integers(1, 3),
    more=st.integers(0, 2),
)
def test_outputs_and_gradients_are_those_of_packed_sequences(cell, bidirectional, lengths, layers, more):
    torch.manual_seed(len(lengths))
    module = cell(5, 4, num_layers=layers, bidirectional=bidirectional, batch_first=True)
    features = torch.randn(len(lengths), max(lengths) + more, 5, requires_grad=True)
    lengths = torch.tensor(lengths)
    weight = torch.randn(*features.shape[:2], 4 * (1 + bidirectional))
    found = []
    for run, layers_of in ((packed, module), (run_recurrent, one_by_one(module))):
        output = run(layers_of, features, lengths)
        gradients = torch.autograd.grad((output * weight).sum(), [features, *module.parameters()])
        found.append((output, *gradients))
    for ours, expected in zip(*found, strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("lengths", [[3] * 9, [5, 2, 1, 4]])
def test_dropout_between_layers(lengths):
    """Between two layers only, at its rate, and of torch's own generator: it decides all, and it moves on."""
    module = nn.LSTM(5, 64, num_layers=2, batch_first=True)
    cells, between = one_by_one(module), nn.Dropout(0.25)
    features, lengths = torch.randn(len(lengths), max(lengths), 5), torch.tensor(lengths)
    state = torch.get_rng_state()
    first = run_recurrent(cells, features, lengths, between)
    assert not torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(run_recurrent(cells, features, lengths, between), first)
    torch.set_rng_state(state)
    assert torch.equal(run_recurrent(cells, features, lengths, between), first)

    dropped = []
    between.register_forward_hook(lambda _, inputs, output: dropped.append((output[inputs[0] != 0] == 0).float()))
    for _ in range(10):
        run_recurrent(cells, features, lengths, between)
    assert torch.cat(dropped).numel() == 10 * int(lengths.sum()) * 64, "one layer's outputs, without padding"
    assert torch.cat(dropped).mean().item() == pytest.approx(0.25, abs=0.03)
    between.eval()
    expected = packed(module, features, lengths)
    assert torch.allclose(run_recurrent(cells, features, lengths, between), expected, atol=1e-6)


def test_no_cell_of_a_baseline_has_dropout_of_its_own():
    """cuDNN would draw it from a generator of its own, which no checkpoint keeps."""
    shape = {"num_hidden_layers": 3, "hidden_size": 4, "embedding_size": 4, "char_features": "bilstm"}
    for model in (RecurrentForTokenClassification, RecurrentForQuestionAnswering):
        cells = [module for module in model(RecurrentConfig(**shape)).modules() if isinstance(module, nn.RNNBase)]
        assert len(cells) >= 4
        assert {(cell.num_layers, cell.dropout) for cell in cells} == {(1, 0.0)}


def test_under_bf16_autocast_it_runs_on_any_processor():
    module = nn.LSTM(8, 8, num_layers=2, bidirectional=True, batch_first=True)
    features = torch.randn(9, 6, 8)
    for lengths in (torch.tensor([6, 2, 5, 5, 1, 1, 3, 4, 6]), torch.full((9,), 6)):
        with torch.autocast("cpu", torch.bfloat16):
            found = run_recurrent(one_by_one(module), features.bfloat16(), lengths)
        assert torch.allclose(found.float(), packed(module, features, lengths), atol=3e-2)
