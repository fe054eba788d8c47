"""Evaluation: each row once, losses by targets, the same number in whatever order the processes answer."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from finetune import data, training
from finetune.training import evaluation

sys.path.insert(0, str(Path(__file__).parent))


def batches_of(checkpoints, head, size):
    import two_processes

    model, rows, pad = two_processes.a_model(checkpoints["wordpiece"], head)
    return model, data.EvalBatches(rows.in_epoch(0) if "masked" in head else rows, pad, size)


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
    score = training.count_masked if "masked" in head else training.predict
    score(Accelerator(cpu=True), model, batches)
    with pytest.raises(RuntimeError, match=r"row \d+ was evaluated [02] times; this is a bug"):
        score(Accelerator(cpu=True), model, InPlaceOf(batches, 1, 2))


@pytest.mark.parametrize("head", ["tokens", "sequences"])
def test_the_loss_is_the_mean_over_targets(checkpoints, head):
    """Against every target's own loss, row by row without padding."""
    model, batches = batches_of(checkpoints, head, 4)
    found = training.predict(Accelerator(cpu=True), model, batches)
    losses, by_row = [], []
    for row in range(len(batches.rows)):
        inputs = data.collate(batches.rows, 0, [row]).inputs
        with torch.no_grad():
            logits = model(**{key: value for key, value in inputs.items() if key != "labels"}).logits
        logits, labels = logits.reshape(-1, logits.shape[-1]), inputs["labels"].flatten()
        own = torch.nn.functional.cross_entropy(logits, labels, reduction="none")[labels != -100].tolist()
        losses += own
        by_row.append(sum(own) / len(own))
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert training.collect(Accelerator(cpu=True), model, batches, lambda output, batch: {}).loss == found.loss
    if head == "tokens":
        assert found.loss != pytest.approx(sum(by_row) / len(by_row), rel=1e-4), "rows and targets weigh alike here"


SCORES = {
    "predict": ("sequences", training.predict),
    "collect": ("sequences", lambda *given: training.collect(*given, lambda output, batch: {})),
    "count_masked": ("masked tokens", training.count_masked),
}


@pytest.mark.parametrize("name", SCORES)
def test_the_order_of_arrival_changes_no_digit(checkpoints, monkeypatch, name):
    """Losses of which the sum hangs on the order: in another one the last is too small to count."""
    head, score = SCORES[name]
    rows = batches_of(checkpoints, head, 5)[1].rows
    batches = data.EvalBatches(rows.take(range(15)), 0, 5)
    losses = itertools.cycle([2.0**60, -(2.0**60), 1.0])

    class Output(dict):
        __getattr__ = dict.__getitem__

    class Stub(torch.nn.Module):
        def forward(self, input_ids, labels, **_):
            targets = int((labels != -100).sum())
            loss = torch.tensor(next(losses) / targets)
            return Output(logits=torch.zeros(targets, 3), loss=loss, mlm_loss=loss)

    def found():
        result = score(Accelerator(cpu=True), Stub(), batches)
        return result.losses if name == "count_masked" else result.loss

    expected = found()
    for order in itertools.permutations(range(3)):
        monkeypatch.setattr(evaluation, "gather_object", lambda parts, order=order: [parts[i] for i in order])
        assert found() == expected


@pytest.mark.parametrize("score", ["predict", "collect"])
def test_a_batch_without_targets_adds_nothing(checkpoints, score):
    """Its loss is a mean over nothing, which is no number."""
    model, batches = batches_of(checkpoints, "tokens", 4)
    without = batches[0].row_ids
    for row in without:
        batches.rows.tokens["labels"][batches.rows.offsets[row] : batches.rows.offsets[row + 1]] = -100
    rest = batches.rows.take([row for row in range(len(batches.rows)) if row not in without])
    score = SCORES[score][1]
    expected = score(Accelerator(cpu=True), model, data.EvalBatches(rest, 0, 4)).loss
    assert score(Accelerator(cpu=True), model, batches).loss == pytest.approx(expected, rel=1e-5)
