"""Text from language models, against loops written out."""

from types import SimpleNamespace

import pytest
import torch

import finetune
from finetune import models

LENGTH = 12


@pytest.fixture(scope="module", params=["lstm", "transformer"])
def loaded(request, sample_texts):
    tokenizer = models.tokenizer_for_language_model(
        lambda: sample_texts, name="", revision="main", tokenizer_name="byte-bpe", vocab_size=300
    )
    flags = {"model_name_or_path": request.param, "hidden_size": 16, "num_hidden_layers": 1, "embedding_size": None}
    flags |= {"num_attention_heads": 2, "dropout": 0.5, "max_seq_length": 40}
    torch.manual_seed(3)
    model = models.load_language_model(SimpleNamespace(**flags), tokenizer)
    with torch.no_grad():  # random weights of a size that makes predictions differ
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
    return model, tokenizer


def kept(logits, temperature, top_k, top_p):
    """Probabilities (V,) where only the k likeliest tokens count, and of these the fewest that together have p."""
    order = sorted(range(len(logits)), key=lambda i: -float(logits[i]))[: top_k or len(logits)]
    shares = (logits[order] / temperature).softmax(0)
    total, chosen = 0.0, []
    for i, share in zip(order, shares.tolist(), strict=True):
        if total >= top_p:
            break
        chosen.append(i)
        total += share
    result = torch.full_like(logits, -torch.inf)
    result[chosen] = logits[chosen] / temperature
    return result.softmax(0)


@torch.no_grad()
def written_out(loaded, prompt, count, seed, temperature, top_k=0, top_p=1.0):
    """Token after token, the whole text through the model each time."""
    model, tokenizer = loaded
    model.eval()
    torch.manual_seed(seed)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    texts = [[begin, *tokenizer(prompt, add_special_tokens=False)["input_ids"]] for _ in range(count)]
    ended = [False] * count
    for _ in range(LENGTH):
        rows = []
        for ids in texts:
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            logits[[i for i in tokenizer.all_special_ids if i != end]] = -torch.inf
            rows.append(kept(logits, temperature, top_k, top_p) if temperature else logits)
        rows = torch.stack(rows)
        chosen = torch.multinomial(rows, 1)[:, 0] if temperature else rows.argmax(1)
        for row, token in enumerate(chosen.tolist()):
            texts[row].append(end if ended[row] else token)
            ended[row] |= token == end
        if all(ended):
            break
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in texts]


def generate(loaded, prompt, **settings):
    return finetune.generate(loaded[0], prompt, tokenizer=loaded[1], length=LENGTH, **settings)


def test_greedy(loaded):
    assert generate(loaded, "The city", temperature=0, count=2) == written_out(loaded, "The city", 2, 0, 0)


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 20, "top_p": 0.8}])
def test_sampling(loaded, settings):
    loaded[0].train()
    before = torch.get_rng_state()
    texts = generate(loaded, "The city", count=4, seed=7, temperature=0.8, **settings)
    assert loaded[0].training  # as it was
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        assert texts == written_out(loaded, "The city", 4, 7, 0.8, **settings)
    assert len(set(texts)) > 1
    assert texts != generate(loaded, "The city", count=4, seed=8, temperature=0.8, **settings)


def test_a_text_ends_before_a_stop_string_that_comes_after_the_prompt(loaded):
    whole = generate(loaded, "The city", seed=2)[0]
    new = whole.removeprefix("The city")
    some = new[3:5]
    assert generate(loaded, "The city", seed=2, stop=["#not there#", some]) == [
        ("The city" + new[: new.index(some)]).strip()
    ]
    assert generate(loaded, "The city", seed=2, stop="The city") == [whole]
    assert generate(loaded, "", seed=2) != [""]
    # A string that begins in the prompt does not count.
    assert generate(loaded, "The city", seed=2, stop="y" + new[:2]) == [whole]
    assert generate(loaded, "  The city", seed=2)[0].startswith("  The city")


def test_what_cannot_be_generated(loaded):
    for settings, told in (
        ({"top_p": 0.0}, "top_p 0.0: above 0"),
        ({"temperature": -1}, "temperature -1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"stop": [""]}, "no empty string"),
        ({"rounds": 3}, "has no setting rounds"),
    ):
        with pytest.raises(ValueError, match=told):
            generate(loaded, "The city", **settings)
    if loaded[0].config.model_type == "gpt2":
        with pytest.raises(ValueError, match="the model has positions for 40"):
            finetune.generate(loaded[0], "The city", tokenizer=loaded[1], length=40)
    with pytest.raises(ValueError, match="needs its tokenizer"):
        finetune.generate(loaded[0], "The city")
