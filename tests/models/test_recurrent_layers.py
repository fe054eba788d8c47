"""Recurrent layers without padding: torch's own packed sequences are the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from finetune.models.recurrent import run_recurrent


def packed(module, features, lengths):
    output, _ = module(pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(output, batch_first=True, total_length=features.shape[1])[0]


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20) | st.lists(st.sampled_from([2, 5]), min_size=16),
    layers=st.integers(1, 2),
    more=st.integers(0, 2),
)
def test_outputs_and_gradients_are_those_of_packed_sequences(cell, bidirectional, lengths, layers, more):
    torch.manual_seed(len(lengths))
    module = cell(5, 4, num_layers=layers, bidirectional=bidirectional, batch_first=True)
    features = torch.randn(len(lengths), max(lengths) + more, 5, requires_grad=True)
    lengths = torch.tensor(lengths)
    weight = torch.randn(*features.shape[:2], 4 * (1 + bidirectional))
    found = []
    for run in (packed, run_recurrent):
        output = run(module, features, lengths)
        gradients = torch.autograd.grad((output * weight).sum(), [features, *module.parameters()])
        found.append((output, *gradients))
    for ours, expected in zip(*found, strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("lengths", [[3] * 9, [5, 2, 1, 4]])
def test_dropout_between_layers(lengths):
    """In training only, at its rate, and reproducible by seed."""
    module = nn.LSTM(5, 64, num_layers=2, dropout=0.5, batch_first=True)
    features, lengths = torch.randn(len(lengths), max(lengths), 5), torch.tensor(lengths)
    torch.manual_seed(0)
    first = run_recurrent(module, features, lengths)
    torch.manual_seed(0)
    assert torch.equal(run_recurrent(module, features, lengths), first)
    assert not torch.allclose(run_recurrent(module, features, lengths), first)
    module.eval()
    assert torch.allclose(run_recurrent(module, features, lengths), packed(module, features, lengths), atol=1e-6)


def test_under_bf16_autocast_it_runs_on_any_processor():
    module = nn.LSTM(8, 8, num_layers=2, bidirectional=True, batch_first=True)
    features = torch.randn(9, 6, 8)
    for lengths in (torch.tensor([6, 2, 5, 5, 1, 1, 3, 4, 6]), torch.full((9,), 6)):
        with torch.autocast("cpu", torch.bfloat16):
            found = run_recurrent(module, features.bfloat16(), lengths)
        assert torch.allclose(found.float(), packed(module, features, lengths), atol=3e-2)
