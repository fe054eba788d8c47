"""No padding: the same logits and gradients as the padded forward, whatever else is in the batch."""

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from finetune.arguments import ModelArguments
from finetune.models import dropout, load, project_masked_positions, run_without_padding
from finetune.models.attention import NAME, _by_length, _padded, packed_attention, packing_of, varlen_attention

AUTO = {
    "tokens": AutoModelForTokenClassification,
    "sequences": AutoModelForSequenceClassification,
    "masked": AutoModelForMaskedLM,
}
LENGTHS = [40, 3, 17, 16, 33, 1]


def model_of(folder, head):
    torch.manual_seed(0)
    model = AUTO[head].from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough for attention to matter
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return model.eval()


def batch_of(pad, pair=False, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 400, mask.shape, generator=generator) * mask + pad * (1 - mask)
    found = {"input_ids": ids, "attention_mask": mask}
    if pair:
        found["token_type_ids"] = (torch.arange(max(lengths)) > 2).long() * mask
    return found


def real(logits, mask):
    return logits[mask.bool()] if logits.ndim == 3 else logits


@pytest.mark.parametrize("head", list(AUTO))
@pytest.mark.parametrize("pair", [False, True])
def test_logits_and_gradients_are_those_of_the_padded_forward(checkpoints, kind, head, pair):
    if pair and kind != "wordpiece":
        pytest.skip("only BERT tells the two texts of a pair apart")
    model = model_of(checkpoints[kind], head)
    inputs = batch_of(model.config.pad_token_id, pair)
    labels = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"] % 2, -100)
    inputs["labels"] = labels[:, 0] if head == "sequences" else labels
    found = []
    for _ in range(2):
        output = model(**inputs)
        model.zero_grad()
        output.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((real(output.logits, inputs["attention_mask"]).detach(), output.loss.item(), gradient))
        run_without_padding(model)
    (padded, loss, expected), (packed, our_loss, gradient) = found
    assert model.config._attn_implementation == NAME
    assert torch.allclose(padded, packed, atol=1e-5)
    assert not torch.equal(padded, packed) or kind == "never"  # it is another way of computing them
    assert our_loss == pytest.approx(loss, abs=1e-6)
    assert (gradient - expected).norm() < 1e-5 * expected.norm()


def test_changing_one_sequence_leaves_the_others_to_the_bit(checkpoints, kind):
    model = run_without_padding(model_of(checkpoints[kind], "tokens"))
    inputs = batch_of(model.config.pad_token_id)
    with torch.no_grad():
        before = model(**inputs).logits
        inputs["input_ids"][2, :17] = 7
        after = model(**inputs).logits
    for i, length in enumerate(LENGTHS):
        assert torch.equal(before[i, :length], after[i, :length]) == (i != 2)


MASKS = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=9)


@settings(deadline=None, max_examples=50)
@given(MASKS)
def test_packing_holds_every_token_once_in_its_sequence(rows):
    mask = torch.tensor(rows)
    packing = packing_of(mask)
    places = torch.arange(mask.numel()).view(mask.shape)
    packed = packing.pack(places).tolist()
    sequences = [places[i][mask[i]].tolist() for i in range(len(rows))]
    begin = 0
    for b, t in packing.same_length:
        for _ in range(b):
            sequences.remove(packed[begin : begin + t])
            begin += t
    assert begin == len(packed)
    assert not any(sequences)
    assert torch.equal(packing.unpack(packing.pack(places)), places * mask)


@settings(deadline=None, max_examples=30)
@given(MASKS.filter(lambda rows: all(map(any, rows))))
def test_a_gpus_attention_on_padded_sequences_is_that_of_groups(rows):
    """The form that a GPU runs for float32 and for dropout; here on the CPU."""
    packing = packing_of(torch.tensor(rows))
    q, k, v = (torch.randn(len(packing.at), 2, 4, requires_grad=True) for _ in range(3))
    found = []
    for attention in (_by_length, _padded):
        context = attention(q, k, v, packing, 0.5, 0.0)
        found.append((context, *torch.autograd.grad(context.square().sum(), (q, k, v))))
    for ours, other in zip(*found, strict=True):
        assert torch.allclose(ours, other, atol=1e-5)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "average": lambda model: AveragedModel(model).module,
}


@pytest.mark.parametrize("way", list(COPIES))
@pytest.mark.parametrize(
    "prepared", [run_without_padding, lambda m: project_masked_positions(run_without_padding(m))]
)
def test_a_copy_runs_its_own_encoder(checkpoints, kind, way, prepared):
    """After other weights were loaded into it; the reference is a stock model with these weights."""
    model = prepared(model_of(checkpoints[kind], "masked"))
    inputs = batch_of(model.config.pad_token_id)
    with torch.no_grad():
        before = model(**inputs).logits
        copied = COPIES[way](model).eval()
        for parameter in copied.parameters():
            parameter.mul_(1.3)
        stock = AUTO["masked"].from_pretrained(checkpoints[kind]).eval()
        stock.load_state_dict(copied.state_dict())
        expected, found = stock(**inputs).logits, copied(**inputs).logits
        assert torch.equal(model(**inputs).logits, before)
    assert not torch.allclose(
        real(before, inputs["attention_mask"]), real(expected, inputs["attention_mask"]), atol=1
    )
    assert torch.allclose(real(found, inputs["attention_mask"]), real(expected, inputs["attention_mask"]), atol=1e-4)
    packed = copied(input_ids=inputs["input_ids"][:1], attention_mask=inputs["attention_mask"][:1]).logits
    assert torch.allclose(packed[0], found[0], atol=1e-4)
    assert copied.config._attn_implementation == NAME


def test_a_copy_draws_the_same_dropout(checkpoints):
    model = run_without_padding(model_of(checkpoints["wordpiece"], "tokens")).train()
    inputs, found = batch_of(0), []
    for each in (model, *(way(model) for way in COPIES.values())):
        torch.manual_seed(0)
        found.append(each.train()(**inputs).logits)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("when", ["in its config", "later"])
def test_a_decoder_does_not_see_what_follows(checkpoints, kind, when):
    expected = model_of(checkpoints[kind], "tokens")
    model = model_of(checkpoints[kind], "tokens")
    for each in (expected, model):
        if each is model and when == "later":
            run_without_padding(model)
        each.config.is_decoder = True
        for module in each.modules():
            if hasattr(module, "is_decoder"):
                module.is_decoder = True
    if when == "in its config":
        assert run_without_padding(model).config._attn_implementation != NAME
    inputs = batch_of(model.config.pad_token_id)
    with torch.no_grad():
        stock, found = expected(**inputs).logits, model(**inputs).logits
        assert torch.allclose(real(stock, inputs["attention_mask"]), real(found, inputs["attention_mask"]), atol=1e-5)
        inputs["input_ids"][0, -1] = 7
        assert torch.allclose(model(**inputs).logits[0, :-1], found[0, :-1], atol=1e-5)


def test_what_cannot_be_packed_is_padded(checkpoints, kind):
    """Hidden states of all layers, masks of attention pairs, linear layers in chunks: as stock models have them."""
    stock = model_of(checkpoints[kind], "tokens")
    model = run_without_padding(model_of(checkpoints[kind], "tokens"))
    inputs = batch_of(stock.config.pad_token_id)
    mask = inputs["attention_mask"]
    with torch.no_grad():
        expected, found = (each(**inputs, output_hidden_states=True) for each in (stock, model))
        assert len(found.hidden_states) == len(expected.hidden_states) == 3
        for theirs, ours in zip(expected.hidden_states, found.hidden_states, strict=True):
            assert torch.allclose(real(theirs, mask), real(ours, mask), atol=1e-5)
        stock.config.output_hidden_states = model.config.output_hidden_states = True
        theirs, ours = (each(**inputs).hidden_states[1] for each in (stock, model))
        assert torch.allclose(real(theirs, mask), real(ours, mask), atol=1e-5)
        stock.config.output_hidden_states = model.config.output_hidden_states = False
        pairs = torch.ones(40, 40).tril().bool() & mask[:, None, None, :].bool()
        theirs, ours = (each(input_ids=inputs["input_ids"], attention_mask=pairs).logits for each in (stock, model))
        assert torch.allclose(real(theirs, mask), real(ours, mask), atol=1e-5)
    stock.config.chunk_size_feed_forward = 8
    assert run_without_padding(stock).config._attn_implementation != NAME


def test_variable_length_attention_is_tried_before_it_is_used(monkeypatch):
    """A device, a torch or a head size without it: `None`, and the padded attention runs."""
    import torch.nn.attention.varlen as varlen

    arguments = (torch.device("cpu"), torch.bfloat16, 32, False)
    assert varlen_attention.__wrapped__(*arguments) is None  # its kernels are for a GPU
    assert varlen_attention.__wrapped__(torch.device("cpu"), torch.float32, 32, False) is None

    def older(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):  # as torch 2.10 has it
        return q

    def newer(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None):
        if q.shape[-1] % 8:
            raise RuntimeError("head_size should be a multiple of 8")
        return q + k + v

    monkeypatch.setattr(varlen, "varlen_attn", older)
    assert varlen_attention.__wrapped__(*arguments) is None
    monkeypatch.setattr(varlen, "varlen_attn", newer)
    assert varlen_attention.__wrapped__(*arguments) is not None
    assert varlen_attention.__wrapped__(torch.device("cpu"), torch.bfloat16, 12, False) is None
    assert varlen_attention.__wrapped__(torch.device("cpu"), torch.bfloat16, 32, True) is None  # no dropout there


def test_padding_on_either_side(checkpoints):
    model = model_of(checkpoints["wordpiece"], "tokens")
    inputs = batch_of(0)
    flipped = {key: value.flip(1) for key, value in inputs.items()}
    with torch.no_grad():
        expected = model(**flipped).logits[flipped["attention_mask"].bool()]
        found = run_without_padding(model)(**flipped).logits[flipped["attention_mask"].bool()]
        assert torch.allclose(expected, found, atol=1e-5)
        whole = inputs["input_ids"][:1, :40]
        assert torch.allclose(model(input_ids=whole).logits, model(**inputs).logits[:1], atol=1e-5)  # no mask at all


def test_longer_than_the_plain_operations_go(checkpoints, monkeypatch):
    model = model_of(checkpoints["wordpiece"], "tokens")
    inputs = batch_of(0)
    with torch.no_grad():
        expected = model(**inputs).logits
        monkeypatch.setattr("finetune.models.attention._PLAIN_BELOW", 4)
        found = run_without_padding(model)(**inputs).logits
    assert torch.allclose(real(expected, inputs["attention_mask"]), real(found, inputs["attention_mask"]), atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "crf"])
def test_recipes_models_run_so_and_save_as_stock_ones(checkpoints, kind, head, tmp_path):
    labels = ["O", "B-A", "I-A"]

    def loaded(padding_free):
        torch.manual_seed(0)
        arguments = ModelArguments(model_name_or_path=str(checkpoints[kind]), padding_free=padding_free)
        return load("token-classification", arguments, labels, words=[], max_seq_length=64, head=head)[0].eval()

    ours, plain = loaded(True), loaded(False)
    encoder = ours.encoder if head == "crf" else ours
    assert (encoder.config._attn_implementation, plain.config._attn_implementation) != (NAME, NAME)
    assert encoder.config._attn_implementation == NAME
    inputs = batch_of(plain.config.pad_token_id)
    mask = inputs["attention_mask"]
    with torch.no_grad():
        assert torch.allclose(real(ours(**inputs).logits, mask), real(plain(**inputs).logits, mask), atol=1e-5)
    ours.save_pretrained(tmp_path)
    assert NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [1e-4, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_rate_and_the_mean(dtype, rate):
    torch.manual_seed(0)
    x = torch.ones(1000, 401, dtype=dtype, requires_grad=True)  # not a multiple of four elements
    y = dropout(x, rate)
    n = x.numel()
    dropped = (y == 0).float().mean().item()
    assert abs(dropped - rate) < 3 * (rate * (1 - rate) / n) ** 0.5 + 1 / 2**16
    # By the rate in 65,536ths that is drawn, so that the mean stays.
    assert y.max().item() == pytest.approx(
        2**16 / (2**16 - round(rate * 2**16)), rel=1e-2 if dtype is torch.bfloat16 else 1e-7
    )
    # Neighbours, which come from the same random number, fall independently.
    kept = (y != 0).float().flatten()
    for shift in (1, 2, 3, 4, 401):
        assert abs(torch.corrcoef(torch.stack([kept[:-shift], kept[shift:]]))[0, 1]) < 4 / n**0.5
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(dropout(x, rate), y)
    assert not torch.equal(dropout(x, rate), y)


@pytest.mark.parametrize("plain_below", [512, 1])
def test_dropout_of_attention_weights(monkeypatch, plain_below):
    """By the plain operations and by the fused one: with the unit matrix as values, the context is the weights."""
    monkeypatch.setattr("finetune.models.attention._PLAIN_BELOW", plain_below)
    torch.manual_seed(0)
    A, t, rate = 60, 24, 0.3
    packing = packing_of(torch.ones(1, t, dtype=torch.bool))
    q, k = torch.randn(2, 1, A, t, t)
    v = torch.eye(t).expand(1, A, t, t)
    whole, dropped = (packed_attention(None, q, k, v, None, dropout=p, packing=packing)[0][0] for p in (0.0, rate))
    assert torch.allclose(whole, (q @ k.transpose(2, 3) * t**-0.5).softmax(-1)[0].transpose(0, 1), atol=1e-5)
    kept = dropped != 0
    assert abs(kept.float().mean().item() - (1 - rate)) < 4 * (rate * (1 - rate) / whole.numel()) ** 0.5
    assert torch.allclose(dropped[kept], whole[kept] / (1 - rate), rtol=1e-3)


def test_dropout_at_its_ends():
    x = torch.randn(10)
    assert torch.equal(dropout(x, 0.0), x)
    assert torch.equal(dropout(x, 1.0), torch.zeros(10))


def test_dropout_modules_of_a_prepared_model(checkpoints):
    model = run_without_padding(model_of(checkpoints["wordpiece"], "tokens"))
    modules = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert modules
    x = torch.ones(50, 50)
    for module in modules:
        module.p = 0.5
        assert torch.equal(module.eval()(x), x)
        assert 0.4 < (module.train()(x) == 0).float().mean() < 0.6
        torch.manual_seed(0)
        found = module(x)
        torch.manual_seed(0)
        assert torch.equal(found, dropout(x, 0.5))  # the fast one


def test_bf16_gradients_are_within_one_percent(checkpoints):
    """Of the float32 gradient, in the direction and the length of the whole of it."""
    gradients = []
    for bf16 in (False, True):
        model = run_without_padding(AUTO["tokens"].from_pretrained(checkpoints["wordpiece"])).eval()
        torch.manual_seed(0)
        model.classifier.reset_parameters()
        inputs = batch_of(0)
        inputs["labels"] = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"] % 2, -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**inputs).loss
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("head", list(AUTO))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(checkpoints, kind, head, dtype):
    """Logits and gradients without padding, against the padded forward under the same autocast."""
    model = model_of(checkpoints[kind], head).cuda()
    inputs = {key: value.cuda() for key, value in batch_of(model.config.pad_token_id).items()}
    labels = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"] % 2, -100)
    inputs["labels"] = labels[:, 0] if head == "sequences" else labels
    found = []
    for _ in range(2):
        model.zero_grad()
        with torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
            output = model(**inputs)
        output.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((real(output.logits, inputs["attention_mask"]).detach().float(), gradient))
        run_without_padding(model)
    (padded, expected), (packed, gradient) = found
    tight = dtype is torch.float32
    assert torch.allclose(padded, packed, atol=1e-4 if tight else 0.1 * padded.abs().max().item())
    assert (gradient - expected).norm() < (1e-4 if tight else 5e-2) * expected.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dropout_rate", [0.0, 0.1])
def test_a_gpus_attention_functions(dropout_rate):
    """In bfloat16: variable-length attention where there is one. With dropout, the mean over many draws."""
    mask = (torch.arange(40) < torch.tensor(LENGTHS)[:, None]).cuda()
    packing = packing_of(mask)
    q, k, v = (torch.randn(1, 4, int(mask.sum()), 32, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    plain = [state[0].transpose(0, 1).float() for state in (q, k, v)]
    expected = _padded(*plain, packing, 32**-0.5, 0.0)
    draws = [packed_attention(None, q, k, v, None, dropout=dropout_rate, packing=packing)[0][0] for _ in range(500)]
    mean = torch.stack(draws).float().mean(0)
    assert (mean - expected).abs().max() < (0.1 if dropout_rate else 0.03)
