"""LoRA in a model: which layers have it, a step written by hand, merging, and peft's own form of an adapter."""

from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from finetune import models, training
from recipes.ner import NerConfig

LABELS = ["O", "B-X", "I-X"]
SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 1}
BERT = {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"}
BERT |= {"intermediate.dense", "output.dense"}
# What each family's config needs beside the sizes; the linear layers inside one of its layers.
FAMILIES = {
    "bert": ({}, BERT),
    "roberta": ({}, BERT),
    "xlm-roberta": ({}, BERT),
    "electra": ({"embedding_size": 8}, BERT),
    "distilbert": (
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        {*(f"attention.{which}_lin" for which in ("q", "k", "v", "out")), "ffn.lin1", "ffn.lin2"},
    ),
    "modernbert": (
        {"global_attn_every_n_layers": 2, "local_attention": 16},
        {"attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"},
    ),
    "deberta-v2": (
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "share_att_key": True},
        {f"{name}_proj" if "self" in name else name for name in BERT},
    ),
}
HEADS = {
    "token-classification": AutoModelForTokenClassification,
    "sequence-classification": AutoModelForSequenceClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
INPUTS = {"input_ids": torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 1, 1]])}
INPUTS["attention_mask"] = (INPUTS["input_ids"] != 1).long()


def a_checkpoint(family, folder):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES | FAMILIES[family][0])
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return str(folder)


def a_model(folder, task="token-classification", seed=1):
    """The model that a run begins with, but for the parts that belong to a tokenizer."""
    torch.manual_seed(seed)
    labels = {} if task == "question-answering" else {"num_labels": len(LABELS)}
    return HEADS[task].from_pretrained(folder, **labels).eval()


def flags(folder, **own):
    return NerConfig(model_name_or_path=folder, **{"lora_r": 3, "lora_alpha": 12} | own)


def with_lora(model, config):
    """LoRA after some training: B is no longer 0."""
    said = models.add_lora(model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return said


def logits(model):
    with torch.no_grad():
        output = model(**INPUTS)
    return output.logits if hasattr(output, "logits") else torch.stack([output.start_logits, output.end_logits])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_attention_and_feed_forward_has_it_and_the_head_trains(family, tmp_path):
    model = a_model(a_checkpoint(family, tmp_path), "sequence-classification")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = {name for name in before if not name.startswith(f"{model.base_model_prefix}.") or "pooler" in name}
    said = models.add_lora(model, flags(str(tmp_path)))
    layers = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    ends = {name.partition(".0." if ".0." in name else ".1.")[2] for name in layers}
    assert ends == FAMILIES[family][1]
    assert len(layers) == 2 * len(ends)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad and ".lora_" not in name}
    assert trained == whole
    numbers = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert f"{numbers:,} parameters train" in said


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["token-classification", "sequence-classification"])
def test_the_merged_model_answers_alike_and_has_the_weights_of_the_formula(family, task, tmp_path):
    folder = a_checkpoint(family, tmp_path)
    model, plain = a_model(folder, task), a_model(folder, task)
    with_lora(model, flags(folder))
    expected = logits(model)
    assert not torch.allclose(expected, logits(plain), atol=1e-3)
    own = {name: value.double() for name, value in model.state_dict().items()}
    models.merge_lora(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    merged, before = model.state_dict(), plain.state_dict()
    assert merged.keys() == before.keys()
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]
    changed = 0
    for name, value in before.items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.default.weight" in own:
            product = own[f"{layer}.lora_B.default.weight"] @ own[f"{layer}.lora_A.default.weight"]
            torch.testing.assert_close(merged[name].double(), value.double() + 4 * product, rtol=1e-5, atol=1e-6)
            changed += 1
        else:
            assert torch.equal(merged[name], value)
    assert changed == 2 * len(FAMILIES[family][1])


def test_a_step_is_the_one_that_is_written_by_hand(tmp_path):
    """The reference has whole weights W + 4 B A. From their gradients G follow those of A and B: 4 B'G and 4 G A'."""
    folder = a_checkpoint("bert", tmp_path)
    model, plain = a_model(folder), a_model(folder)
    config = flags(folder, learning_rate=1e-3, weight_decay=0.1)
    with_lora(model, config)
    optimizer = training.build_optimizer(model, config)
    A, B = ({} for _ in range(2))
    for name, weight in model.named_parameters():
        layer, _, rest = name.partition(".lora_")
        if rest:
            (A if rest.startswith("A") else B)[layer] = weight.detach().clone()
    with torch.no_grad():
        for layer in A:
            plain.get_submodule(layer).weight += 4 * B[layer] @ A[layer]
    labels = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 1, -100, -100]])
    for side in (model, plain):
        side(**INPUTS, labels=labels).loss.backward()
    gradients = {}
    for layer in A:
        whole = plain.get_submodule(layer).weight.grad
        gradients[f"{layer}.lora_A.default.weight"] = 4 * B[layer].T @ whole
        gradients[f"{layer}.lora_B.default.weight"] = 4 * whole @ A[layer].T
    gradients |= {f"classifier.{name}": w.grad for name, w in plain.classifier.named_parameters()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    for name, value in model.state_dict().items():
        if name not in gradients:
            assert torch.equal(value, before[name]), name
            continue
        g = gradients[name]
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, g, rtol=1e-3, atol=1e-6)
        kept = before[name] * (1 - 1e-3 * (0.1 if g.ndim == 2 else 0.0))
        after = kept - 1e-3 * g / (g.abs() + 1e-8)  # Adam's first step
        sure = g.abs() > 1e-5  # near 0, rounding decides on the sign
        assert sure.float().mean() > 0.9
        torch.testing.assert_close(value[sure], after[sure], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("bert", "token-classification"),
        ("bert", "sequence-classification"),
        ("xlm-roberta", "sequence-classification"),
        ("roberta", "question-answering"),
        ("distilbert", "sequence-classification"),
        ("electra", "sequence-classification"),
        ("modernbert", "token-classification"),
        ("deberta-v2", "sequence-classification"),
    ],
)
def test_peft_puts_the_adapter_onto_the_checkpoint(family, task, tmp_path):
    folder = a_checkpoint(family, tmp_path / "before")
    model = a_model(folder, task)
    with_lora(model, flags(folder))
    write = models.adapter_of(model)
    models.merge_lora(model)
    (tmp_path / "adapter").mkdir()
    write(tmp_path / "adapter")
    other_head = a_model(folder, task, seed=2)
    loaded = PeftModel.from_pretrained(other_head, str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-5)


def test_which_layers_the_flag_names(tmp_path):
    folder = a_checkpoint("electra", tmp_path)

    def adapted(names):
        model = a_model(folder, "sequence-classification")
        models.add_lora(model, flags(folder, lora_target_modules=names))
        return {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_A" in name}

    layers = [f"electra.encoder.layer.{number}." for number in range(2)]
    assert adapted("query, value") == {f"{layer}attention.self.{of}" for layer in layers for of in ("query", "value")}
    # `dense` is also the name of a layer of the head, which trains whole.
    ends = ("attention.output.dense", "intermediate.dense", "output.dense")
    assert adapted("dense") == {f"{layer}{name}" for layer in layers for name in ends}
    assert adapted("all-linear") == {f"{layer}{name}" for layer in layers for name in BERT} | {
        "electra.embeddings_project"
    }


def test_models_that_cannot_have_it():
    config = SimpleNamespace(model_name_or_path="there", save_adapter=False)
    for kind in ("recurrent", "recurrent-seq2seq", "shared-encoder-decoder"):
        model = SimpleNamespace(config=SimpleNamespace(model_type=kind))
        with pytest.raises(ValueError, match=r"^--lora_r: .*; leave this flag out$"):
            models.add_lora(model, config)
