"""Scores of language models, against sums written out."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from finetune.metrics import language_modelling_scores, pseudo_perplexity, unigram_entropy


def test_scores_are_sums_over_sums():
    scores = language_modelling_scores(
        {"mlm_loss": 30.0, "nsp_loss": 4.0}, {"mlm_loss": 10, "nsp_loss": 8}, {"mlm_loss": 3, "nsp_loss": 6}
    )
    assert scores == {
        "mlm_loss": 3.0,
        "mlm_perplexity": math.exp(3.0),
        "mlm_accuracy": 0.3,
        "nsp_loss": 0.5,
        "nsp_accuracy": 0.75,
    }
    assert set(language_modelling_scores({"loss": 1.0}, {"loss": 2}, {"loss": 1})) == {
        "mlm_loss",
        "mlm_perplexity",
        "mlm_accuracy",
    }
    assert "sop_accuracy" in language_modelling_scores({"nsp_loss": 1.0}, {"nsp_loss": 2}, {"nsp_loss": 1}, "sop")


def test_a_mean_over_no_target_is_no_number():
    scores = language_modelling_scores(
        {"mlm_loss": 0.0, "nsp_loss": 4.0}, {"mlm_loss": 0, "nsp_loss": 8}, {"mlm_loss": 0, "nsp_loss": 6}
    )
    assert scores["nsp_accuracy"] == 0.75
    assert all(math.isnan(scores[f"mlm_{name}"]) for name in ("loss", "perplexity", "accuracy"))


def test_unigram_entropy():
    assert unigram_entropy(np.array([5, 5, 0, 5, 5])) == pytest.approx(math.log(4))
    assert unigram_entropy(np.array([3, 1])) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_pseudo_perplexity_masks_each_subword_alone(checkpoints, kind, sample_texts):
    model = AutoModelForMaskedLM.from_pretrained(checkpoints[kind])
    tokenizer = AutoTokenizer.from_pretrained(checkpoints[kind])
    model.train()
    texts = [sample_texts[0][:60], "one"]
    found = pseudo_perplexity(model, tokenizer, texts, batch_size=4)
    assert model.training
    model.eval()
    for text, value in zip(texts, found, strict=True):
        ids = tokenizer(text)["input_ids"]
        special = tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]
        losses = []
        for i, token in enumerate(ids):
            if not special[i]:
                shown = torch.tensor([[*ids[:i], tokenizer.mask_token_id, *ids[i + 1 :]]])
                with torch.no_grad():
                    losses.append(-model(input_ids=shown).logits[0, i].log_softmax(-1)[token].item())
        assert value == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    with pytest.raises(ValueError, match="this text has no subword"):
        pseudo_perplexity(model, tokenizer, [""])
    with pytest.raises(ValueError, match="the texts are one string; give a list of them"):
        pseudo_perplexity(model, tokenizer, "one")
    unit = len(tokenizer("a a")["input_ids"]) - len(tokenizer("a")["input_ids"])
    fits = " ".join(["a"] * ((64 - len(tokenizer("a")["input_ids"])) // unit + 1))
    assert len(pseudo_perplexity(model, tokenizer, [fits], batch_size=64)) == 1
    with pytest.raises(ValueError, match=r"6[5-9] subwords with the special tokens, but the model has 64 positions"):
        pseudo_perplexity(model, tokenizer, [fits + " a"])
