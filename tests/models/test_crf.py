import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.models import LinearChainCrf
from finetune.models.crf import crf_outputs

LABELS = ["O", "B-X", "I-X", "B-Y", "I-Y"]


def a_crf(seed):
    torch.manual_seed(seed)
    crf = LinearChainCrf(LABELS)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


def path_score(crf, emissions, path):
    score = crf.start[path[0]] + crf.end[path[-1]] + sum(emissions[w, tag] for w, tag in enumerate(path))
    return score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))


def allowed(path, continues):
    for before, after in zip([None, *path], path, strict=False):
        if LABELS[after].startswith("I-"):
            if before is None and not continues:
                return False
            if before is not None and LABELS[before][1:] != LABELS[after][1:]:
                return False
    return True


@pytest.mark.parametrize("blocks", [False, True])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.booleans())
def test_all_paths_written_out(monkeypatch, blocks, seed, lengths, continues):
    monkeypatch.setattr("finetune.models.crf.in_blocks", lambda emissions: blocks)
    crf = a_crf(seed)
    W = max(lengths)
    emissions = torch.randn(len(lengths), W, len(LABELS)) * 2
    mask = torch.arange(W) < torch.tensor(lengths)[:, None]
    tags = torch.randint(0, len(LABELS), (len(lengths), W))
    losses = crf.negative_log_likelihood(emissions, tags, mask)
    decoded, log_probabilities = crf.decode(emissions, mask, torch.full((len(lengths),), continues))
    for b, length in enumerate(lengths):
        paths = list(itertools.product(range(len(LABELS)), repeat=length))
        scores = torch.stack([path_score(crf, emissions[b], path) for path in paths])
        log_z = scores.logsumexp(0)
        gold = paths.index(tuple(tags[b, :length].tolist()))
        assert losses[b].item() == pytest.approx((log_z - scores[gold]).item(), abs=1e-4)
        legal = [i for i, path in enumerate(paths) if allowed(path, continues)]
        best = paths[legal[int(scores[legal].argmax())]]
        assert tuple(decoded[b, :length].tolist()) == best
        assert (decoded[b, length:] == 0).all()
        for w in range(length):
            for tag in range(len(LABELS)):
                through = torch.stack([s for s, path in zip(scores, paths, strict=True) if path[w] == tag]).logsumexp(
                    0
                )
                assert log_probabilities[b, w, tag].item() == pytest.approx((through - log_z).item(), abs=1e-4)


def test_special_tokens_continuations_and_padding_take_no_part():
    crf = a_crf(1)
    emissions = torch.randn(2, 7, len(LABELS))
    labels = torch.tensor([[-100, 1, -100, 2, 0, -100, -100], [-100, 3, -100, -100, -100, -100, -100]])
    anything = torch.ones_like(labels, dtype=torch.bool)
    loss, logits = crf_outputs(crf, emissions, labels, anything, 1, training=False)
    alone = [
        crf.negative_log_likelihood(
            emissions[0][[1, 3, 4]][None], torch.tensor([[1, 2, 0]]), torch.ones(1, 3).bool()
        ),
        crf.negative_log_likelihood(emissions[1][[1]][None], torch.tensor([[3]]), torch.ones(1, 1).bool()),
    ]
    assert loss.item() == pytest.approx((sum(alone) / 4).item(), rel=1e-5)
    changed = emissions.clone()
    changed[labels == -100] += 5.0
    again, logits_again = crf_outputs(crf, changed, labels, anything, 1, training=False)
    assert torch.equal(again, loss)
    assert torch.equal(logits_again[labels != -100], logits[labels != -100])


def test_the_argmax_of_the_logits_is_the_decoded_sequence():
    crf = a_crf(3)
    emissions = torch.randn(40, 6, len(LABELS)) * 3
    labels = torch.zeros(40, 6, dtype=torch.long)
    _, logits = crf_outputs(crf, emissions, labels, labels == 0, 0, training=False)
    decoded, log_probabilities = crf.decode(emissions, labels == 0, torch.zeros(40, dtype=torch.bool))
    assert (log_probabilities.argmax(-1) != decoded).any(), "this draw does not test the trade of places"
    assert torch.equal(logits.argmax(-1), decoded)
    assert torch.allclose(logits.logsumexp(-1), torch.zeros(40, 6), atol=1e-4)  # still a distribution
    assert all(allowed(path, continues=False) for path in decoded.tolist())


def test_a_window_that_continues_a_sentence_may_start_inside():
    crf = a_crf(4)
    with torch.no_grad():
        crf.start.zero_(), crf.end.zero_(), crf.transitions.zero_()
    emissions = torch.zeros(1, 4, len(LABELS))
    emissions[0, :, 2] = 5.0  # I-X everywhere
    whole = torch.tensor([[-100, 0, 0, 0]])
    rest = torch.tensor([[-100, -100, 0, 0]])
    predict = lambda labels: crf_outputs(crf, emissions, labels, labels == 0, 1, training=False)[1].argmax(-1)  # noqa: E731
    assert LABELS[predict(whole)[0, 1]] == "B-X"
    assert LABELS[predict(rest)[0, 2]] == "I-X"


def test_rows_without_a_word():
    crf = a_crf(5)
    emissions = torch.randn(2, 3, len(LABELS), requires_grad=True)
    nothing = torch.full((2, 3), -100)
    loss, logits = crf_outputs(crf, emissions, nothing, nothing == 0, 1, training=False)
    assert loss.item() == 0.0
    assert torch.equal(logits, emissions)
    some = torch.tensor([[-100, -100, -100], [-100, 1, -100]])
    loss, _ = crf_outputs(crf, emissions, some, some == 0, 1, training=False)
    assert torch.isfinite(loss)


def both_ways(monkeypatch, run):
    """What `run` gives with the plain loop, which CPUs use, and in blocks, as other devices do."""
    found = []
    for blocks in (False, True):
        monkeypatch.setattr("finetune.models.crf.in_blocks", lambda emissions, blocks=blocks: blocks)
        found.append(run())
    return found


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_blocks_and_the_loop_agree_at_every_length(monkeypatch, scale):
    torch.manual_seed(0)
    for W in range(1, 41):
        crf = a_crf(W).double()
        emissions = (torch.randn(4, W, len(LABELS), dtype=torch.float64) * scale).requires_grad_()
        mask = torch.arange(W) < torch.cat([torch.tensor([W, 1]), torch.randint(1, W + 1, (2,))])[:, None]
        tags = torch.randint(0, len(LABELS), (4, W))
        continues = torch.rand(4) < 0.5
        weights = torch.rand(4, dtype=torch.float64)

        def run(crf=crf, emissions=emissions, mask=mask, tags=tags, continues=continues, weights=weights):
            losses = crf.negative_log_likelihood(emissions, tags, mask)
            gradients = torch.autograd.grad((losses * weights).sum(), [emissions, *crf.parameters()])
            with torch.no_grad():
                decoded, log_probabilities = crf.decode(emissions, mask, continues)
            return decoded, losses, log_probabilities[mask], *gradients

        (decoded, *loop), (decoded_in_blocks, *blocks) = both_ways(monkeypatch, run)
        assert torch.equal(decoded, decoded_in_blocks)
        for expected, found in zip(loop, blocks, strict=True):
            assert torch.allclose(found, expected, atol=1e-9), W


class Calls(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_blocks_take_a_fifth_of_the_calls(monkeypatch):
    """Of the operations on tensors that a GPU would be asked for, a kernel or more each: 128 words."""
    crf = a_crf(0)
    emissions = torch.randn(2, 128, len(LABELS), requires_grad=True)
    tags, mask = torch.zeros(2, 128, dtype=torch.long), torch.ones(2, 128, dtype=torch.bool)

    def run():
        with Calls() as training:
            crf.negative_log_likelihood(emissions, tags, mask).sum().backward()
        with torch.no_grad(), Calls() as decoding:
            crf.decode(emissions, mask, mask[:, 0])
        return training.count, decoding.count

    for loop, blocks in zip(*both_ways(monkeypatch, run), strict=True):
        assert blocks * 5 < loop, (blocks, loop)
