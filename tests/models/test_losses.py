"""Losses against loops over the targets, torch's own, and every cut of a step."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForSequenceClassification

from finetune.arguments import ModelArguments
from finetune.models import load, run_without_padding, set_loss, target_weight
from finetune.models.losses import one_label_loss, several_labels_loss
from finetune.training import accumulate_gradients

ARGUMENTS = {"hidden_size": 8, "embedding_size": 8, "char_hidden_size": 4, "dropout": 0.0, "word_dropout": 0.0}
WEIGHTS = [0.5, 3.0, 0.125, 1.25]
LABELS = ["a", "b", "c", "d"]
SINGLE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"


def a_model(checkpoints, name, task="sequence-classification", labels=LABELS):
    torch.manual_seed(0)
    where = str(checkpoints[name]) if name in checkpoints else name
    arguments = ModelArguments(model_name_or_path=where, **ARGUMENTS)
    model, _ = load(task, arguments, labels, words=["a b c d e f g a b c d e f g"], max_seq_length=32)
    return model.eval()


def a_batch(model, lengths, labels):
    torch.manual_seed(1)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    inputs = {"input_ids": torch.randint(3, 7, real.shape) * real, "attention_mask": real.long(), "labels": labels}
    if model.config.model_type == "recurrent":
        inputs["char_ids"] = torch.randint(1, 200, (*real.shape, 3)) * real[..., None]
    return inputs


def slow_one(logits, labels, weights, smoothing, gamma):
    """The sum over the targets of weighted losses, and the sum of weights, in plain Python."""
    summed = weight = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label == -100:
            continue
        whole = math.fsum(map(math.exp, row))
        for c, value in enumerate(row):
            p = math.exp(value) / whole
            share = (1 - smoothing) * (c == label) + smoothing / len(row)
            summed -= share * weights[c] * (1 - p) ** gamma * math.log(p)
        weight += weights[label]
    return summed, weight


def slow_several(logits, labels, weights, smoothing, gamma):
    summed = weight = 0.0
    for row, told in zip(logits.tolist(), labels.tolist(), strict=True):
        for c, (value, y) in enumerate(zip(row, told, strict=True)):
            if y == -100:
                continue
            yes = 1 / (1 + math.exp(-value))
            share = (1 - smoothing) * y + smoothing / 2
            summed -= share * weights[c] * (1 - yes) ** gamma * math.log(yes)
            summed -= (1 - share) * yes**gamma * math.log(1 - yes)
            weight += weights[c] if y == 1 else 1.0
    return summed, weight


settings_of_a_loss = st.tuples(
    st.none() | st.lists(st.floats(0.1, 5), min_size=3, max_size=3), st.floats(0, 0.9), st.sampled_from([0, 0.5, 2.0])
)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1000), settings_of_a_loss)
def test_losses_are_those_of_a_loop(seed, setting):
    weights, smoothing, gamma = setting
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 3, generator=generator) * 4
    tensor, listed = (None, [1.0] * 3) if weights is None else (torch.tensor(weights), weights)
    one = torch.randint(0, 3, (6,), generator=generator)
    several = torch.randint(0, 2, (6, 3), generator=generator).float()
    one[2], several[3, 1] = -100, -100
    for loss, slow, labels, kind in (
        (one_label_loss, slow_one, one, SINGLE),
        (several_labels_loss, slow_several, several, SEVERAL),
    ):
        summed, weight = slow(logits.double(), labels, listed, smoothing, gamma)
        assert float(loss(logits, labels, tensor, smoothing, gamma)) == pytest.approx(summed / weight, rel=2e-5)
        for form in (labels, labels.numpy()):
            counted = target_weight(form, kind, weights)
            assert counted == pytest.approx(weight)
            assert isinstance(counted, float if weights else int)
    # torch's own, where it has them.
    kept = torch.ones(6, 3, dtype=bool)
    kept[3, 1] = False
    theirs = binary_cross_entropy_with_logits(logits, several.clamp(min=0), pos_weight=tensor, reduction="none")
    ours = several_labels_loss(logits, several, tensor, 0.0, 0.0) * target_weight(several, SEVERAL, weights)
    assert float(ours) == pytest.approx(float(theirs[kept].sum()), rel=1e-5)
    theirs = cross_entropy(logits, one, tensor, label_smoothing=smoothing)
    assert float(one_label_loss(logits, one, tensor, smoothing, 1e-9)) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.01, 0.5, 2.0])
def test_a_certain_answer_has_a_gradient(gamma):
    for loss, labels in ((one_label_loss, torch.tensor([0])), (several_labels_loss, torch.tensor([[1.0, 0.0, 0.0]]))):
        logits = torch.tensor([[300.0, -300.0, -300.0]], requires_grad=True)
        value = loss(logits, labels, None, 0.0, gamma)
        value.backward()
        assert value == 0
        assert logits.grad.abs().max() < 1e-6


CASES = [
    ("wordpiece", "sequence-classification", SINGLE, {"class_weights": WEIGHTS, "label_smoothing": 0.1}),
    ("bilstm", "sequence-classification", SINGLE, {"class_weights": WEIGHTS, "focal_gamma": 2.0}),
    ("byte-bpe", "sequence-classification", SEVERAL, {"class_weights": WEIGHTS, "focal_gamma": 0.5}),
    ("bilstm", "sequence-classification", SEVERAL, {}),
    ("unigram", "token-classification", SINGLE, {"class_weights": WEIGHTS, "label_smoothing": 0.2}),
    ("gru", "token-classification", SINGLE, {"class_weights": WEIGHTS}),
    ("wordpiece", "sequence-classification", NUMBER, {}),
    ("bilstm", "sequence-classification", NUMBER, {}),
]


def labels_for(task, problem, lengths):
    generator = torch.Generator().manual_seed(5)
    B = len(lengths)
    if problem == NUMBER:
        return torch.randn(B, generator=generator) * 50 - 100
    if problem == SEVERAL:
        return torch.randint(0, 2, (B, 4), generator=generator).float()
    if task == "sequence-classification":
        return torch.randint(0, 4, (B,), generator=generator)
    labels = torch.randint(0, 4, (B, max(lengths)), generator=generator)
    labels[torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]] = -100
    labels[0] = -100  # a row without a target
    return labels


def micro(inputs, rows, problem, weights):
    width = int(inputs["attention_mask"][rows].sum(1).max())
    whole = inputs["input_ids"].shape[1]
    own = {key: x[rows, :width] if x.ndim > 1 and x.shape[1] == whole else x[rows] for key, x in inputs.items()}
    targets = {"loss": target_weight(own["labels"], problem, weights)}
    batch = SimpleNamespace(inputs=own, row_ids=rows, targets=targets, tokens=int(own["attention_mask"].sum()))
    batch.to = lambda device: batch
    return batch


@pytest.mark.parametrize(("name", "task", "problem", "asked"), CASES)
def test_every_cut_takes_the_same_step(checkpoints, name, task, problem, asked):
    model = a_model(checkpoints, name, task, ["x"] if problem == NUMBER else LABELS)
    run_without_padding(model)
    set_loss(model, problem_type=problem, **asked)
    lengths = (9, 3, 12, 5, 7, 4, 11, 6)
    inputs = a_batch(model, lengths, labels_for(task, problem, lengths))
    # The gradient written out: rows alone, the loss from the logits of the class's own forward.
    summed = weight = 0.0
    for row in range(8):
        own = micro(inputs, [row], problem, None).inputs
        labels = own.pop("labels")
        logits = type(model).forward(model, **own).logits
        weights = torch.tensor(asked["class_weights"]) if "class_weights" in asked else torch.ones(4)
        smoothing, gamma = asked.get("label_smoothing", 0.0), asked.get("focal_gamma", 0.0)
        if problem == NUMBER:
            summed, weight = summed + ((logits - labels) ** 2).sum(), weight + 1
        elif problem == SEVERAL:
            p = logits.sigmoid()
            losses = -labels * weights * (1 - p) ** gamma * p.log() - (1 - labels) * p**gamma * (1 - p).log()
            summed, weight = summed + losses.sum(), weight + (labels * weights + 1 - labels).sum()
        else:
            labels, logits = labels.flatten(), logits.reshape(-1, 4)
            logits, labels = logits[labels != -100], labels[labels != -100]
            p = logits.softmax(-1)
            shares = (1 - smoothing) * torch.eye(4)[labels] + smoothing / 4
            summed = summed - (shares * weights * (1 - p) ** gamma * p.log()).sum()
            weight = weight + weights[labels].sum()
    (summed / weight).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    accelerator = Accelerator(cpu=True)
    for size, rows in ((8, range(8)), (2, range(8)), (1, range(8)), (3, [6, 2, 0, 7, 1, 4, 3, 5])):
        model.zero_grad()
        parts = [list(rows)[i : i + size] for i in range(0, 8, size)]
        batches = [micro(inputs, part, problem, asked.get("class_weights")) for part in parts]
        sums = accumulate_gradients(accelerator, model, batches)
        found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        assert (found - expected).norm() <= 1e-5 * expected.norm(), size
        assert sums.targets["loss"] == pytest.approx(float(weight))
        assert sums.losses["loss"] == pytest.approx(summed.item(), rel=1e-5)


def test_where_nothing_is_asked_for_nothing_is_replaced(checkpoints):
    for name in ("wordpiece", "bilstm"):
        model = a_model(checkpoints, name)
        before = model.config.to_dict()
        set_loss(model)
        assert "forward" not in vars(model)
        assert model.config.to_dict() == before
        set_loss(model, class_weights=WEIGHTS)
        assert model.config.class_weights == WEIGHTS
        set_loss(model)
        assert "forward" not in vars(model)
        assert "class_weights" not in model.config.to_dict()


def test_a_copy_runs_by_itself_and_a_saved_model_knows_its_kind(checkpoints, tmp_path):
    model = a_model(checkpoints, "wordpiece")
    set_loss(model, problem_type=SEVERAL, class_weights=WEIGHTS)
    inputs = a_batch(model, (4, 6), torch.tensor([[1.0, 0, 1, 1], [1, 0, 1, 1]]))
    before = model(**inputs)
    copies = (copy.deepcopy(model), torch.optim.swa_utils.AveragedModel(model))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for other in copies:
        assert torch.equal(other(**inputs).loss, before.loss)
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert saved.config.problem_type == SEVERAL
    assert saved.config.class_weights == WEIGHTS
    assert torch.allclose(saved(**inputs).logits, before.logits, atol=1e-5)
    del inputs["labels"]
    assert list(copies[0](**inputs)) == ["logits"]


@pytest.mark.parametrize(
    ("name", "task", "labels", "asked", "message"),
    [
        ("bilstm-crf", "token-classification", LABELS, {"class_weights": WEIGHTS}, "a CRF learns whole sequences"),
        ("bilstm-crf", "token-classification", LABELS, {"label_smoothing": 0.1}, "a CRF learns whole sequences"),
        ("bilstm", "sequence-classification", ["x"], {"problem_type": NUMBER, "focal_gamma": 1}, "a number has no"),
        ("bilstm", "sequence-classification", LABELS, {"problem_type": NUMBER}, "one output, but this model has 4"),
        ("bilstm", "sequence-classification", LABELS, {"class_weights": [1.0]}, "1 class weights, but .* 4 labels"),
        ("bilstm", "sequence-classification", LABELS, {"class_weights": [1, 1, 1, np.nan]}, "numbers greater than 0"),
        ("bilstm", "sequence-classification", LABELS, {"class_weights": [1, 0, 1, 1]}, "numbers greater than 0"),
        ("bilstm", "sequence-classification", LABELS, {"label_smoothing": 1.0}, "at least 0 and below 1"),
        ("bilstm", "sequence-classification", LABELS, {"focal_gamma": -1.0}, "0 or greater"),
    ],
)
def test_what_makes_no_sense_is_refused(checkpoints, name, task, labels, asked, message):
    with pytest.raises(ValueError, match=message):
        set_loss(a_model(checkpoints, name, task, labels), **asked)


def test_a_crf_without_wishes_stays(checkpoints):
    assert "forward" not in vars(set_loss(a_model(checkpoints, "bilstm-crf", "token-classification")))
