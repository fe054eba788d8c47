"""Heads for masked tokens on masked positions alone, against the models' own forward."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, BertForPreTraining, pipeline

from finetune.models import load_for_pretraining, load_tokenizer, project_masked_positions


def inputs_of(model, next_sentence=False):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 400, (4, 20), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.2, ids, -100) * mask - 100 * (1 - mask)
    found = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if next_sentence:
        found |= {"next_sentence_label": torch.tensor([0, 1, -100, 1]), "token_type_ids": (ids > 200).long() * 0}
    return found


@pytest.mark.parametrize("next_sentence", [False, True])
def test_loss_and_gradient_are_the_models_own(checkpoints, kind, next_sentence):
    if next_sentence and kind != "wordpiece":
        pytest.skip("only BERT has a head for next sentences")
    tokenizer = load_tokenizer(str(checkpoints[kind]))
    found = {}
    for ours in (False, True):
        torch.manual_seed(0)
        model = load_for_pretraining(
            tokenizer, model_name_or_path=str(checkpoints[kind]), next_sentence=next_sentence, max_seq_length=32
        ).eval()
        inputs = inputs_of(model, next_sentence)
        output = model(**inputs) if ours else type(model).forward(model, **inputs)
        output["loss"].backward()
        found[ours] = output, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    (stock, expected), (masked, gradient) = found[False], found[True]
    assert masked["loss"].item() == pytest.approx(stock.loss.item(), rel=1e-6)
    assert (gradient - expected).norm() < 1e-5 * expected.norm()
    everywhere = stock.prediction_logits if next_sentence else stock.logits
    assert masked["logits"].shape[0] == (inputs["labels"] != -100).sum()
    assert torch.allclose(masked["logits"], everywhere[inputs["labels"] != -100], atol=1e-5)
    if next_sentence:
        assert torch.allclose(masked["nsp_logits"], stock.seq_relationship_logits, atol=1e-6)
        assert masked["loss"].item() == pytest.approx((masked["mlm_loss"] + masked["nsp_loss"]).item())


def test_without_labels_it_is_the_models_own(checkpoints, kind):
    model = AutoModelForMaskedLM.from_pretrained(checkpoints[kind]).eval()
    inputs = inputs_of(model)
    inputs.pop("labels")
    expected = model(**inputs).logits
    assert torch.equal(project_masked_positions(model)(**inputs).logits, expected)


@pytest.mark.parametrize("config_name", ["bert", "roberta", "xlm-roberta"])
def test_from_random_weights(checkpoints, config_name, tmp_path):
    tokenizer = load_tokenizer(str(checkpoints["byte-bpe"]))
    model = load_for_pretraining(
        tokenizer,
        model_name_or_path=None,
        config_name=config_name,
        shape={"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": None, "intermediate_size": None},
        dropout=0.0,
        next_sentence=config_name == "bert",
        max_seq_length=600,
    )
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.intermediate_size) == (2, 1, 256)
    assert config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.0
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model(input_ids=torch.full((1, 600), 7))  # positions for all of them
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = pipeline("fill-mask", model=str(tmp_path))(f"a {tokenizer.mask_token} b")
    assert len(found) == 5
    again, info = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    encoder = AutoModel.from_pretrained(tmp_path)
    ids = torch.arange(5, 25)[None]
    hidden = model.base_model.eval()(input_ids=ids).last_hidden_state
    assert torch.allclose(encoder.eval()(input_ids=ids).last_hidden_state, hidden, atol=1e-6)
    assert torch.allclose(again.base_model.eval()(input_ids=ids).last_hidden_state, hidden, atol=1e-6)


def test_a_new_model_knows_how_often_each_token_occurs(checkpoints):
    tokenizer = load_tokenizer(str(checkpoints["wordpiece"]))
    counts = np.random.default_rng(0).integers(0, 1000, len(tokenizer))
    shape = {"num_hidden_layers": 1, "hidden_size": 64}
    settings = {"config_name": "bert", "shape": shape, "max_seq_length": 32}
    model = load_for_pretraining(tokenizer, model_name_or_path=None, unigram_counts=counts, **settings)
    expected = (counts + 1) / (counts + 1).sum()
    assert np.allclose(model.get_output_embeddings().bias.detach().softmax(0).numpy(), expected, rtol=1e-4)


def test_an_encoder_alone_gets_new_heads_and_keeps_its_weights(checkpoints, tmp_path, caplog):
    """The default checkpoint is such a one: a BertModel with a pooler, without a head."""
    AutoModel.from_pretrained(checkpoints["wordpiece"]).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(checkpoints["wordpiece"]))
    model = load_for_pretraining(
        tokenizer, model_name_or_path=str(tmp_path), next_sentence=True, max_seq_length=32, dropout=0.2
    )
    assert type(model) is BertForPreTraining
    assert "weights of the head are not in the checkpoint, such as cls." in caplog.text
    assert "they start at random" in caplog.text
    caplog.clear()
    load_for_pretraining(tokenizer, model_name_or_path=str(checkpoints["wordpiece"]), max_seq_length=32)
    assert not caplog.messages  # it has its head
    assert model.config.hidden_dropout_prob == 0.2
    expected = AutoModel.from_pretrained(tmp_path).state_dict()
    for name, value in model.bert.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "byte-bpe", "next_sentence": True}, "--objective bert and sop need .* a BERT; this is roberta"),
        ({"shape": {"hidden_size": 64}}, "--hidden_size: the checkpoint has its shape"),
        ({"max_seq_length": 65}, "--max_seq_length 65: .* has positions for 64 tokens"),
        (
            {"config_name": "bert", "shape": {"hidden_size": 100, "num_attention_heads": 3}},
            "--hidden_size 100: not a",
        ),
        ({"config_name": "gpt5"}, "--config_name gpt5: .*or give bert, roberta, xlm-roberta"),
        (
            {"config_name": "electra.json"},
            "--config_name electra.json: pretraining is for bert, roberta, xlm-roberta",
        ),
    ],
)
def test_what_cannot_be_loaded(checkpoints, settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "electra.json").mkdir()
    (tmp_path / "electra.json" / "config.json").write_text('{"model_type": "electra"}')
    folder = str(checkpoints[settings.pop("kind", "wordpiece")])
    arguments = {"model_name_or_path": folder, "max_seq_length": 32} | settings
    with pytest.raises(ValueError, match=message):
        load_for_pretraining(load_tokenizer(folder), **arguments)
