"""Encoders of several families, tiny and random, through the recipes; and the table of docs/models.md."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForMaskedLM

import finetune
from finetune import data, models
from finetune.arguments import DataArguments
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

ROOT = Path(__file__).parents[2]
# The tokenizer that the family's checkpoints have, and what its config needs beside the sizes.
FAMILIES = {
    "bert": ("wordpiece", {}),
    "roberta": ("byte-bpe", {"type_vocab_size": 1}),
    "xlm-roberta": ("unigram", {"type_vocab_size": 1}),
    "distilbert": ("wordpiece", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "electra": ("wordpiece", {"embedding_size": 16}),
    "modernbert": ("byte-bpe", {"global_attn_every_n_layers": 2, "local_attention": 16}),
    "deberta-v2": ("unigram", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}),
}
NOT_ELSEWHERE = list(FAMILIES)[3:]  # the tests of the recipes have BERT, RoBERTa and XLM-R
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
SHORT = {"max_steps": 2, "max_train_samples": 24, "max_eval_samples": 12, "max_seq_length": 32, "learning_rate": 1e-3}


def checkpoint(family, tokenizers, folder):
    """Saves a random model of a family: masked-token weights, as the published checkpoints have."""
    kind, own = FAMILIES[family]
    tokenizer = tokenizers[kind]
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "cls", "sep")}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **SIZES | ids | own)
    torch.manual_seed(0)
    folder.mkdir()
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained_encoder(before, after):
    """Whether the weights of the layers differ, of those that both files have."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    layers = [name for name in old.keys() & new.keys() if re.search(r"layers?\.1\.", name) and old[name].ndim == 2]
    assert len(layers) >= 4
    return all(not torch.equal(old[name], new[name]) for name in layers)


@pytest.mark.parametrize("family", NOT_ELSEWHERE)
def test_words_of_any_family(family, tokenizers, tmp_path):
    before, tmp_path = checkpoint(family, tokenizers, tmp_path / "before"), tmp_path / "run"
    result = finetune_ner(
        NerConfig(dataset_name="samples", model_name_or_path=str(before), output_dir=str(tmp_path), **SHORT)
    )
    assert result.results["test_words_scored"] == result.results["test_words"] > 100
    assert trained_encoder(before, tmp_path)
    written = data.read_conll(tmp_path / "predictions_test.conll", tag_column=2)
    answers = finetune.predict(str(tmp_path), written.words)
    assert [answer["predicted"] for answer in answers] == written.tags
    alone = [finetune.predict(str(tmp_path), [words])[0]["scores"] for words in written.words]  # without padding rows
    for answer, scores in zip(answers, alone, strict=True):
        assert answer["scores"] == pytest.approx(scores, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", NOT_ELSEWHERE)
def test_texts_of_any_family(family, tokenizers, tmp_path):
    before, tmp_path = checkpoint(family, tokenizers, tmp_path / "before"), tmp_path / "run"
    result = finetune_sentiment(
        SentimentConfig(dataset_name="samples", model_name_or_path=str(before), output_dir=str(tmp_path), **SHORT)
    )
    assert trained_encoder(before, tmp_path)
    texts = data.read_labelled(DataArguments(dataset_name="samples"))["test"]["text"][:12]
    rows = [line.split("\t") for line in (tmp_path / "predictions_test.tsv").read_text().splitlines()]
    written = [row[rows[0].index("predicted")] for row in rows[1:]]
    assert [answer["predicted"] for answer in finetune.predict(str(tmp_path), texts)] == written
    assert 0 <= result.results["test_accuracy"] <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_the_documentation_says_what_each_family_has(family, tokenizers, tmp_path):
    """docs/models.md: without padding, compact vocabulary."""
    config = NerConfig(model_name_or_path=str(checkpoint(family, tokenizers, tmp_path / "before")))
    model, tokenizer = models.load("sequence-classification", config, ["bad", "good"], words=[], max_seq_length=32)
    packs = bool(model.base_model.encoder._forward_pre_hooks) if hasattr(model.base_model, "encoder") else False
    rows, whole = models.compact_vocabulary(model, tokenizer, [np.arange(9)])
    said = {}
    for line in (ROOT / "docs/models.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[1].startswith("`"):
            said[cells[1].strip("`")] = (cells[3], cells[4])
    assert set(said) == set(FAMILIES)
    assert said[model.config.model_type] == ("yes" if packs else "no", "yes" if rows < whole else "no")
