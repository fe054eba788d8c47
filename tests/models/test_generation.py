"""Mask and fill, against the rounds written out for one text."""

import copy

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import finetune


@pytest.fixture(scope="module", params=["wordpiece", "byte-bpe", "unigram"])
def loaded(request, checkpoints):
    folder = checkpoints[request.param]
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():  # random weights of a size that makes predictions differ
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model, AutoTokenizer.from_pretrained(folder)


def plain_mask_predict(model, tokenizer, text, rounds):
    """Mask-predict as Ghazvininejad et al. (2019) describe it, a position at a time, the most probable token each."""
    model.eval()
    ids = tokenizer(text)["input_ids"]
    gaps = [i for i, token in enumerate(ids) if token == tokenizer.mask_token_id]
    probability = {}
    masked = list(gaps)
    for t in range(1, rounds + 1):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)
        filled = list(ids)
        for i in masked:
            row = scores[i].clone()
            row[tokenizer.all_special_ids] = 0
            row = row / row.sum()
            filled[i] = int(row.argmax())
            probability[i] = float(row.max())
        ids = filled
        n = len(gaps) - len(gaps) * t // rounds
        masked = sorted(gaps, key=lambda i: probability[i])[:n]
        for i in masked:
            ids[i] = tokenizer.mask_token_id
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("rounds", [1, 2, 5, 20])
def test_gaps_are_filled_round_by_round(loaded, rounds):
    model, tokenizer = loaded
    mask = tokenizer.mask_token
    text = f"the {mask} of {mask}{mask} and {mask}{mask}{mask} was there"
    assert finetune.fill_in(model, tokenizer, text, rounds=rounds) == plain_mask_predict(
        model, tokenizer, text, rounds
    )


def test_generated_texts(loaded):
    model, tokenizer = loaded
    model.train()
    settings = {"length": 9, "rounds": 3, "count": 4}
    texts = finetune.generate(model, "the city", tokenizer=tokenizer, seed=1, **settings)
    assert model.training  # as it was
    assert len(texts) == 4
    assert len(set(texts)) > 1
    assert all(text.startswith("the city") for text in texts)
    assert texts == finetune.generate(model, "the city", tokenizer=tokenizer, seed=1, **settings)
    assert texts != finetune.generate(model, "the city", tokenizer=tokenizer, seed=2, **settings)
    cold = finetune.generate(model, "the city", tokenizer=tokenizer, temperature=0.0, **settings)
    assert len(set(cold)) == 1
    assert cold[0] == plain_mask_predict(model.eval(), tokenizer, "the city " + tokenizer.mask_token * 9, 3)
    hot = finetune.generate(model, "the city", tokenizer=tokenizer, temperature=1e-4, seed=5, **settings)
    assert hot == cold  # so cold that there is no choice


def test_rows_beyond_the_vocabulary_are_never_chosen(loaded):
    """An embedding that was padded to a round number."""
    model, tokenizer = loaded
    padded = copy.deepcopy(model)
    padded.resize_token_embeddings(len(tokenizer) + 8, mean_resizing=False)
    with torch.no_grad():
        padded.get_output_embeddings().bias[len(tokenizer) :] = 1e3
    text = f"the {tokenizer.mask_token} of {tokenizer.mask_token}"
    assert finetune.fill_in(padded, tokenizer, text) == finetune.fill_in(model, tokenizer, text)


def test_what_cannot_be_generated(loaded):
    model, tokenizer = loaded
    with pytest.raises(ValueError, match="no gap in 'plain'"):
        finetune.fill_in(model, tokenizer, "plain")
    with pytest.raises(ValueError, match="rounds 0"):
        finetune.generate(model, tokenizer=tokenizer, rounds=0)
    with pytest.raises(ValueError, match="the model has positions for 64"):
        finetune.generate(model, tokenizer=tokenizer, length=100)
