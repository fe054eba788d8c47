"""BERT2BERT and its like against the plain `EncoderDecoderModel` of transformers."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForSeq2SeqLM, EncoderDecoderModel

import finetune  # noqa: F401  # registers the models
from finetune.models import Seq2SeqModelArguments, load_seq2seq, run_without_padding, set_target_loss
from finetune.models.attention import NAME
from finetune.models.target_loss import decoder_inputs

NAMES = {"bert2bert": "wordpiece", "bert2rnd": "wordpiece", "roberta2roberta": "byte-bpe", "xlmr2xlmr": "unigram"}
CASES = [(name, tied) for name in NAMES for tied in (False, True) if (name, tied) != ("bert2rnd", True)]
TEXTS = ["Ada Lovelace wrote to Charles Babbage .", "It rained .", "Why would Oslo , of all places , be dry ?"]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}{'-tied' if case[1] else ''}")
def case(request, checkpoints, tokenizers):
    name, tied = request.param
    torch.manual_seed(0)
    kind = NAMES[name]
    arguments = Seq2SeqModelArguments(name, encoder_name_or_path=str(checkpoints[kind]), tie_encoder_decoder=tied)
    model = load_seq2seq(arguments, tokenizers[kind], tokenizers[kind])
    batch = dict(tokenizers[kind](TEXTS, padding=True, return_tensors="pt"))
    target = tokenizers[kind](TEXTS[::-1], padding=True, return_tensors="pt")
    batch["labels"] = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)[:, 1:].contiguous()
    return model.eval(), batch, checkpoints[kind], tied, name


def padded(model):
    """The same weights in a model that nothing of this package has changed."""
    torch.manual_seed(1)
    plain = EncoderDecoderModel(type(model.config).from_dict(model.config.to_dict())).eval()
    plain.load_state_dict(model.state_dict())
    return plain


def test_it_starts_from_the_checkpoint(case):
    model, _, folder, tied, name = case
    saved = load_file(folder / "model.safetensors")
    prefix = f"{model.decoder.base_model_prefix}."
    encoder = dict(model.encoder.named_parameters())
    for key, weight in model.decoder.named_parameters(remove_duplicate=False):
        if "crossattention" in key:
            assert key not in saved
            continue
        if key not in saved:  # the output layer, which is the embedding
            assert weight is model.decoder.get_input_embeddings().weight or weight.ndim == 1
            continue
        start_alike = weight.std() == 0 or weight.numel() == 1  # norms and biases
        assert torch.equal(weight, saved[key]) == (name != "bert2rnd" or bool(start_alike))
        if key.startswith(prefix):
            assert torch.equal(encoder[key.removeprefix(prefix)], saved[key])
            assert (weight is encoder[key.removeprefix(prefix)]) == tied
    head = "cls.predictions.transform.dense.weight" if "cls.predictions.bias" in saved else "lm_head.dense.weight"
    assert torch.equal(model.decoder.get_parameter(head), saved[head]) == (name != "bert2rnd")


def test_loss_logits_and_gradients_are_those_of_the_padded_model(case):
    model, batch, *_ = case
    plain, labels = padded(model), batch["labels"]
    real, inputs = labels != -100, decoder_inputs(labels, model.config)
    without_labels = {key: value for key, value in batch.items() if key != "labels"} | {"decoder_input_ids": inputs}
    expected = plain(**without_labels).logits[real]
    for found in (model(**batch), model(**without_labels)):
        torch.testing.assert_close(found.logits[real], expected, atol=1e-5, rtol=1e-4)
    loss = cross_entropy(expected, labels[real])
    loss.backward()
    model.zero_grad()
    set_target_loss(model, label_smoothing=0.2)  # in training only
    found = model(**batch)
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    found.loss.backward()
    sums = {}  # in the plain model, nothing is shared between encoder and decoder
    for key, parameter in plain.named_parameters():
        if "pooler" not in key:
            shared = model.get_parameter(key)
            sums[shared] = sums.get(shared, 0) + parameter.grad
    assert len(sums) == len(list(model.parameters())) - 2
    for parameter, gradient in sums.items():
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    smoothed = cross_entropy(expected, labels[real], label_smoothing=0.2)
    trained = model.train()(**batch)
    model.eval()
    assert trained.loss.item() == pytest.approx(smoothed.item(), rel=1e-5)
    assert trained.logits.shape == expected.shape


def test_the_encoder_runs_without_padding_and_the_decoder_sees_no_later_word(case):
    """A packed BERT as a decoder would see the future; so would its attention, if it were put into the decoder."""
    model, batch, *_ = case
    model = deepcopy(model)
    assert (model.encoder.config._attn_implementation, model.decoder.config._attn_implementation) == (NAME, "sdpa")
    lengths = []
    model.encoder.encoder.layer[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[:2]))
    inputs = decoder_inputs(batch["labels"], model.config)
    for put_in in (lambda: None, lambda: run_without_padding(model.decoder), lambda: run_without_padding(model),
                   lambda: model.decoder.set_attn_implementation(NAME)):  # fmt: skip
        put_in()
        for t in (1, 3, inputs.shape[1] - 1):
            other = inputs.clone()
            other[:, t:] = 10 + (other[:, t:] + 7) % 100
            one, two = (
                model(batch["input_ids"], batch["attention_mask"], decoder_input_ids=ids).logits
                for ids in (inputs, other)
            )
            torch.testing.assert_close(one[:, :t], two[:, :t], atol=1e-6, rtol=0)
            assert not torch.allclose(one[:, t:], two[:, t:], atol=1e-3)
    assert set(lengths) == {(1, int(batch["attention_mask"].sum()))}
    assert model.decoder.config._attn_implementation == NAME  # the last way was tried


@torch.no_grad()
def test_generate_in_a_batch_is_a_slow_loop_over_each_row(case):
    model, batch, *_ = case
    ids, mask = batch["input_ids"], batch["attention_mask"]
    pad, end = model.config.pad_token_id, model.config.eos_token_id
    together = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6)
    for row in range(len(ids)):
        source, said = ids[row][mask[row].bool()][None], [model.config.decoder_start_token_id]
        while len(said) < 7 and said[-1] != end:
            logits = model(source, decoder_input_ids=torch.tensor([said])).logits
            said.append(int(logits[0, -1].argmax()))
        assert together[row].tolist() == said + [pad] * (together.shape[1] - len(said))


def test_saved_and_loaded(case, tmp_path, tokenizers):
    model, batch, _, tied, name = case
    model.save_pretrained(tmp_path)
    tokenizer = tokenizers[NAMES[name]]
    arguments = Seq2SeqModelArguments(str(tmp_path))
    own = load_seq2seq(arguments, tokenizer, tokenizer)
    for again in (AutoModelForSeq2SeqLM.from_pretrained(tmp_path), own):
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        inputs["decoder_input_ids"] = decoder_inputs(batch["labels"], model.config)
        torch.testing.assert_close(again.eval()(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-4)
        word = again.decoder.base_model.embeddings.word_embeddings.weight
        assert (word is again.encoder.embeddings.word_embeddings.weight) == tied
        assert len(list(again.parameters())) == len(list(model.parameters()))
    assert own.encoder.config._attn_implementation == NAME


def test_a_checkpoint_without_a_head_will_do(checkpoints, tokenizers, tmp_path):
    AutoModel.from_pretrained(checkpoints["wordpiece"]).save_pretrained(tmp_path)
    tokenizers["wordpiece"].save_pretrained(tmp_path)
    arguments = Seq2SeqModelArguments("bert2bert", encoder_name_or_path=str(tmp_path))
    model = load_seq2seq(arguments, tokenizers["wordpiece"], tokenizers["wordpiece"])
    for key, weight in model.decoder.bert.named_parameters():
        assert "crossattention" in key or torch.equal(weight, model.encoder.get_parameter(key))
    with pytest.raises(ValueError, match=r"--max_target_length 65: .* has positions for 64 tokens; give at most 64"):
        load_seq2seq(arguments, tokenizers["wordpiece"], tokenizers["wordpiece"], max_target_length=65)
    with pytest.raises(ValueError, match="do not belong together"):
        load_seq2seq(arguments, tokenizers["unigram"], tokenizers["unigram"])


def test_the_class_of_transformers_may_be_imported_first():
    """Its module imports the Auto classes in its middle, and these import our models."""
    code = (
        "import finetune\nfrom transformers import EncoderDecoderModel, AutoModelForSeq2SeqLM\n"
        "from finetune.models.shared_weights import SharedEncoderDecoderConfig as Own\n"
        "print(AutoModelForSeq2SeqLM._model_mapping[Own].__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "SharedEncoderDecoderModel", done.stderr[-500:]
