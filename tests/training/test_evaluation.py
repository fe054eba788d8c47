"""Evaluation: each row once, losses by targets, the same number in whatever order the processes answer."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers.utils import ModelOutput

from finetune import data, training
from finetune.tasks import masked
from finetune.training import evaluation

sys.path.insert(0, str(Path(__file__).parent))


def batches_of(checkpoints, head, size):
    import two_processes

    model, rows, pad = two_processes.a_model(checkpoints["wordpiece"], head)
    if "masked" in head:
        return model, data.EvalBatches(rows.in_epoch(0), pad, size, count=masked.targets)
    return model, data.EvalBatches(rows, pad, size)


def collected(model, batches, head="tokens"):
    keep = masked.collect if "masked" in head else lambda output, batch: {"scores": output.logits.sum(-1)}
    if head == "tokens":
        keep = lambda output, batch: {"scores": batch.without_padding(output.logits)}  # noqa: E731
    return training.collect(Accelerator(cpu=True), model, batches, keep)


class InPlaceOf:
    """Batches of which one is given in the place of another."""

    def __init__(self, batches, place, other):
        self.batches, self.rows, self.place, self.other = batches, batches.rows, place, other

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[self.other if number == self.place else number]


@pytest.mark.parametrize("head", ["tokens", "sequences", "masked tokens"])
def test_a_row_that_comes_twice_or_never_stops_the_evaluation(checkpoints, head):
    model, batches = batches_of(checkpoints, head, 4)
    collected(model, batches, head)
    with pytest.raises(RuntimeError, match=r"row \d+ was evaluated [02] times; this is a bug"):
        collected(model, InPlaceOf(batches, 1, 2), head)


@pytest.mark.parametrize("head", ["tokens", "sequences"])
def test_the_loss_is_the_mean_over_targets(checkpoints, head):
    """Against every target's own loss, row by row without padding."""
    model, batches = batches_of(checkpoints, head, 4)
    found = collected(model, batches, head)
    losses, by_row = [], []
    for row in range(len(batches.rows)):
        inputs = data.collate(batches.rows, 0, [row]).inputs
        with torch.no_grad():
            logits = model(**{key: value for key, value in inputs.items() if key != "labels"}).logits
        logits, labels = logits.reshape(-1, logits.shape[-1]), inputs["labels"].flatten()
        own = torch.nn.functional.cross_entropy(logits, labels, reduction="none")[labels != -100].tolist()
        losses += own
        by_row.append(sum(own) / len(own))
    assert found.costs["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    if head == "tokens":
        apart = pytest.approx(sum(by_row) / len(by_row), rel=1e-4)
        assert found.costs["loss"] != apart, "rows and targets weigh alike here"


def test_the_order_of_arrival_changes_no_digit(checkpoints, monkeypatch):
    """Losses of which the sum hangs on the order: in another one the last is too small to count."""
    rows = batches_of(checkpoints, "sequences", 5)[1].rows
    batches = data.EvalBatches(rows.take(range(15)), 0, 5)
    losses = itertools.cycle([2.0**60, -(2.0**60), 1.0])

    class Stub(torch.nn.Module):
        def forward(self, input_ids, **_):
            return ModelOutput(logits=torch.zeros(len(input_ids), 3), loss=torch.tensor(next(losses)))

    expected = collected(Stub(), batches, "sequences").costs["loss"]
    assert expected == pytest.approx(1 / 3)
    for order in itertools.permutations(range(3)):
        monkeypatch.setattr(evaluation, "gather_object", lambda parts, order=order: [parts[i] for i in order])
        assert collected(Stub(), batches, "sequences").costs["loss"] == expected


def test_a_batch_without_targets_adds_nothing(checkpoints):
    """Its loss is a mean over nothing, which is no number."""
    model, batches = batches_of(checkpoints, "tokens", 4)
    without = batches[0].row_ids
    for row in without:
        batches.rows.tokens["labels"][batches.rows.offsets[row] : batches.rows.offsets[row + 1]] = -100
    rest = batches.rows.take([row for row in range(len(batches.rows)) if row not in without])
    expected = collected(model, data.EvalBatches(rest, 0, 4)).costs["loss"]
    assert collected(model, batches).costs["loss"] == pytest.approx(expected, rel=1e-5)
