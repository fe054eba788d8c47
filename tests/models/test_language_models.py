"""Language models: carried states, no look ahead, and their losses, against passes written out."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from finetune import models

KINDS = ("rnn", "lstm", "gru", "transformer")
FLAGS = {"model_revision": "main", "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": None}
FLAGS |= {"embedding_size": None, "dropout": 0.0, "max_seq_length": 32}


@pytest.fixture(scope="module")
def tokenizer(sample_texts):
    settings = {"name": "", "revision": "main", "tokenizer_name": "byte-bpe", "vocab_size": 300}
    return models.tokenizer_for_language_model(lambda: sample_texts, **settings)


def new(kind, tokenizer, **flags):
    torch.manual_seed(1)
    counts = np.arange(len(tokenizer))
    settings = SimpleNamespace(**FLAGS | {"model_name_or_path": kind} | flags)
    return models.load_language_model(settings, tokenizer, unigram_counts=counts)


def ids_of(rows, length, vocabulary=300):
    return torch.randint(5, vocabulary, (rows, length), generator=torch.Generator().manual_seed(4))


def targets_of(ids):
    return ids.clone().index_fill(1, torch.tensor([0]), -100)


@pytest.mark.parametrize("kind", KINDS)
def test_no_position_sees_a_later_one(kind, tokenizer):
    model, ids = new(kind, tokenizer).eval(), ids_of(3, 9)
    said = model(input_ids=ids).logits
    for at in range(9):
        other = ids.clone()
        other[:, at:] = ids_of(3, 9 - at) // 2 + 3
        changed = model(input_ids=other).logits
        assert torch.allclose(changed[:, :at], said[:, :at], atol=1e-6)
        assert not torch.allclose(changed[:, at], said[:, at], atol=1e-3)


def test_a_model_that_sees_later_tokens_is_refused(tokenizer):
    from transformers import BertConfig, BertLMHeadModel

    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertLMHeadModel(BertConfig(vocab_size=300, is_decoder=False, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    with pytest.raises(ValueError, match="its positions see later tokens"):
        models.check_causal(model, "bert")

    from transformers import GPT2Config, GPT2LMHeadModel

    short = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=4, n_embd=8, n_layer=1, n_head=1))
    models.check_causal(short, "gpt2")  # it has fewer positions than this test of it usually has tokens


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("embedding_size", [None, 7])
def test_rows_that_carry_their_state_say_what_the_whole_text_says(kind, embedding_size, tokenizer):
    model, ids = new(kind, tokenizer, embedding_size=embedding_size).train(), ids_of(3, 25)
    whole = model(input_ids=ids[:, :-1]).logits
    model.carry_state(4)
    lanes, found = torch.tensor([3, 0, 2]), []  # in any order; lane 1 has no row
    for begin in range(0, 24, 6):
        row = ids[:, begin : begin + 7]
        inputs = {"labels": targets_of(row), "lane": lanes, "continues": torch.full((3,), int(begin > 0))}
        found.append(model(input_ids=row, **inputs).logits.view(3, 6, -1))
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-5)
    assert not model.carried[1].any()
    # A new document begins from nothing, whatever its lane carries.
    inputs = {"labels": targets_of(ids[:, :7]), "lane": lanes, "continues": torch.zeros(3).long()}
    again = model(input_ids=ids[:, :7], **inputs)
    assert torch.allclose(again.logits.view(3, 6, -1), whole[:, :6], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_gradient_is_that_of_the_row_alone(kind, tokenizer):
    """Nothing flows back into the row before. In a single row it is the gradient of the whole text."""
    model, ids = new(kind, tokenizer), ids_of(2, 13)
    plain = copy.deepcopy(model)
    model.train().carry_state(2)
    first, second = ids[:, :7], ids[:, 6:]
    state = None
    for row, goes_on in ((first, 0), (second, 1)):
        model.zero_grad()
        plain.zero_grad()
        inputs = {"lane": torch.arange(2), "continues": torch.full((2,), goes_on)}
        model(input_ids=row, labels=targets_of(row), **inputs).loss.backward()
        said = plain(input_ids=row[:, :-1], state=state)
        cross_entropy(said.logits.flatten(0, 1), row[:, 1:].flatten()).backward()
        state = said.state.detach()
        for (name, own), other in zip(model.named_parameters(), plain.parameters(), strict=True):
            assert torch.allclose(own.grad, other.grad, atol=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_a_loop_over_tokens(kind, tokenizer):
    """Padded rows, with tokens in front that are only seen; on the way that trains, and on the one that evaluates."""
    model, ids = new(kind, tokenizer), ids_of(3, 10)
    lengths, seen = (10, 4, 7), (1, 1, 3)
    labels, mask, sums = ids.clone(), torch.ones_like(ids), []
    for row, (length, before) in enumerate(zip(lengths, seen, strict=True)):
        labels[row, :before] = labels[row, length:] = -100
        ids[row, length:], mask[row, length:] = 1, 0
        losses = []
        for at in range(before, length):
            with torch.no_grad():
                logits = model.eval()(input_ids=ids[row : row + 1, :at]).logits[0, -1]
            losses.append(-float(logits.log_softmax(-1)[ids[row, at]]))
        sums.append(sum(losses))
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    said = model.eval()(**inputs)
    assert said.nll.tolist() == pytest.approx(sums, rel=1e-5)
    mean = sum(sums) / (sum(lengths) - sum(seen))
    assert said.loss.item() == pytest.approx(mean, rel=1e-5)
    assert model.train()(**inputs).loss.item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind, tokenizer, tmp_path):
    model = new(kind, tokenizer).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, again = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, PreTrainedTokenizerFast)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    ids = again("Grace Hopper was here.", return_tensors="pt")["input_ids"]
    assert ids[0, 0] == again.bos_token_id
    assert again.eos_token_id not in ids
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.allclose(loaded(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)
    assert again.decode(ids[0], skip_special_tokens=True).strip() == "Grace Hopper was here."


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_beam_search_finds_what_an_exhaustive_search_finds(kind, tokenizer):
    model = new(kind, tokenizer).eval()
    prompt, V, best = torch.tensor([[0, 9]]), 300, None
    with torch.no_grad():
        first = model(input_ids=prompt).logits[0, -1].log_softmax(-1)
        rows = torch.cat([prompt.expand(V, 2), torch.arange(V)[:, None]], 1)
        both = first[:, None] + model(input_ids=rows).logits[:, -1].log_softmax(-1)
    best = divmod(int(both.argmax()), V)
    beams = {"num_beams": V, "max_new_tokens": 2, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    assert tuple(model.generate(prompt, **beams)[0, 2:].tolist()) == best
