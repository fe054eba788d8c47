"""The losses of a student, against loops that are written out with Python's own numbers."""

import itertools
import math

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from finetune.models import LinearChainCrf, blind_distilled_loss, distilled_targets, set_distilled_loss
from finetune.models.distilled_loss import chain_loss, number_loss, one_label_loss, several_labels_loss

T, ALPHA = 1.7, 0.3
ONE, SEVERAL, NUMBER = "single_label_classification", "multi_label_classification", "regression"


def softmax(values):
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    return [power / sum(powers) for power in powers]


def mean_of_teachers(teachers):
    tempered = [softmax([value / T for value in teacher]) for teacher in teachers]
    return [sum(column) / len(tempered) for column in zip(*tempered, strict=True)]


def divergence(q, p):
    return T * T * sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))


def mixed(hard, soft):
    """The loss of a target; None stands for a part that it does not have."""
    if hard is None or soft is None:
        return soft if hard is None else hard
    return ALPHA * hard + (1 - ALPHA) * soft


def log_probabilities(*shape):
    return torch.randn(*shape).mul(2).log_softmax(-1)


def test_one_label():
    torch.manual_seed(0)
    logits, teacher = torch.randn(7, 4), log_probabilities(7, 2, 4)
    labels = torch.tensor([0, -100, 3, 2, -100, 1, -100])
    teacher[3] = 0  # no output
    teacher[5, 1] = 0  # of one teacher alone
    teacher[6] = 0  # neither a label nor an output: no target
    losses = []
    for z, label, own in zip(logits.tolist(), labels.tolist(), teacher.tolist(), strict=True):
        hard = None if label == -100 else -math.log(softmax(z)[label])
        taught = all(any(side) for side in own)
        soft = divergence(mean_of_teachers(own), softmax([value / T for value in z])) if taught else None
        if hard is not None or soft is not None:
            losses.append(mixed(hard, soft))
    assert len(losses) == 6 == distilled_targets(labels, teacher, ONE)
    assert float(one_label_loss(logits, labels, teacher, T, ALPHA)) == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_several_labels():
    torch.manual_seed(1)
    logits, teacher = torch.randn(3, 4), torch.randn(3, 2, 4)
    labels = torch.tensor([[0.0, 1, 1, 0], [-100] * 4, [1, 0, 0, 0]])

    def odds(value):
        return 1 / (1 + math.exp(-value))

    losses = []
    for row, column in itertools.product(range(3), range(4)):
        z, label = float(logits[row, column]), float(labels[row, column])
        q = sum(odds(float(own) / T) for own in teacher[row, :, column]) / 2
        soft = divergence([q, 1 - q], [odds(z / T), 1 - odds(z / T)])
        hard = None if label == -100 else -math.log(odds(z) if label else 1 - odds(z))
        losses.append(mixed(hard, soft))
    assert distilled_targets(labels, teacher, SEVERAL) == 12
    assert float(several_labels_loss(logits, labels, teacher, T, ALPHA)) == pytest.approx(sum(losses) / 12, rel=1e-5)


def test_a_number():
    numbers, labels = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, math.nan])
    loss = number_loss(numbers, labels, torch.tensor([[[0.0], [1.0]], [[4.0], [5.0]]]), ALPHA)
    assert loss.item() == pytest.approx((ALPHA * 4 + (1 - ALPHA) * 0.25 + 6.25) / 2)
    loss.backward()
    assert numbers.grad.isfinite().all(), "NaN stands for no number, and must not reach the gradient"


def test_a_chain():
    """Every path is scored: the losses of a CRF, by definition."""
    torch.manual_seed(2)
    L, lengths = 3, (4, 3, 0)
    crf = LinearChainCrf(["O", "B-X", "I-X"])
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    emissions = torch.randn(3, 6, L, requires_grad=True)
    labels, teacher = torch.full((3, 6), -100), torch.zeros(3, 6, 1, L)
    places = [[1, 2, 4, 5], [0, 2, 3], []]  # of the words among the tokens
    labels[0, places[0]] = torch.tensor([1, 2, 0, 1])  # the second row has no labels
    for row, own in enumerate(places):
        teacher[row, own] = log_probabilities(len(own), 1, L)
    teacher[0, 4] = 0  # the teacher says nothing of this word

    total = 0.0
    for row, own in enumerate(places):
        paths = list(itertools.product(range(L), repeat=lengths[row])) if own else []
        scores = []
        for path in paths:
            score = crf.start[path[0]] + crf.end[path[-1]]
            score = score + sum(emissions[row, at, label] for at, label in zip(own, path, strict=True))
            scores.append(score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path)))
        if not own:
            continue
        shares = torch.stack(scores).softmax(0)
        soft = 0.0
        for i, at in enumerate(own):
            p = [sum(share for share, path in zip(shares, paths, strict=True) if path[i] == k) for k in range(L)]
            tempered = torch.stack(p).pow(1 / T)
            if (teacher[row, at] != 0).any():
                q = torch.tensor(mean_of_teachers(teacher[row, at].tolist()))
                soft = soft + T * T * (q * (q.log() - (tempered / tempered.sum()).log())).sum()
        hard = -shares[paths.index(tuple(labels[row, own].tolist()))].log() if row == 0 else None
        total = total + mixed(hard, soft)
    expected = total / 7
    found = chain_loss(crf, emissions, labels, teacher, T, ALPHA)
    assert distilled_targets(labels, teacher, ONE) == 7
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    for ours, reference in zip(
        torch.autograd.grad(found, [emissions, *crf.parameters()]),
        torch.autograd.grad(expected, [emissions, *crf.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("problem", [ONE, SEVERAL, NUMBER])
def test_a_batch_without_a_teacher_has_the_usual_loss(problem):
    torch.manual_seed(3)
    outputs = 1 if problem == NUMBER else 3
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=outputs)
    model = set_distilled_loss(BertForSequenceClassification(config), problem_type=problem, temperature=T, alpha=0.0)
    model.eval()
    ids = torch.randint(30, (2, 5))
    labels = {
        ONE: torch.tensor([0, 2]),
        SEVERAL: torch.tensor([[0.0, 1, 1], [1, 0, 0]]),
        NUMBER: torch.tensor([1.5, 2]),
    }
    usual = {
        ONE: torch.nn.functional.cross_entropy,
        SEVERAL: torch.nn.functional.binary_cross_entropy_with_logits,
        NUMBER: lambda logits, own: torch.nn.functional.mse_loss(logits[:, 0], own),
    }
    output = model(input_ids=ids, labels=labels[problem])
    torch.testing.assert_close(output.loss, usual[problem](output.logits, labels[problem]))
    same = output.logits[:, None].detach()
    same = same.log_softmax(-1) if problem == ONE else same
    assert model(input_ids=ids, labels=labels[problem], teacher=same).loss.item() == pytest.approx(0, abs=1e-6), (
        "a student that says what its teacher says has nothing to learn"
    )


def test_the_best_answer_that_does_not_look():
    torch.manual_seed(4)
    labels, teacher = torch.randint(4, (50,)), log_probabilities(50, 2, 4)
    labels[::3] = -100
    teacher[::5] = 0
    answer = torch.zeros(4, requires_grad=True)
    search = torch.optim.LBFGS([answer], max_iter=200)

    def closure():
        search.zero_grad()
        loss = one_label_loss(answer.expand(50, 4), labels, teacher, T, ALPHA)
        loss.backward()
        return loss

    search.step(closure)
    parts = [part.numpy() for part in teacher.split(17)]
    found = blind_distilled_loss(labels.numpy(), parts, temperature=T, alpha=ALPHA)
    assert found == pytest.approx(closure().item(), rel=1e-5)
