import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from finetune import models, stages
from finetune.arguments import DEFAULT_MODEL, ModelArguments
from finetune.models import EncoderCrfConfig, Seq2SeqModelArguments, load_seq2seq
from recipes.ner import NerConfig

LABELS = ["O", "B-PER", "I-PER"]


def load(folder, labels=LABELS, task="token-classification", length=32, **keywords):
    arguments = ModelArguments(model_name_or_path=str(folder))
    return models.load(task, arguments, labels, words=[], max_seq_length=length, **keywords)


def test_labels_positions_and_float32(checkpoints, kind):
    model, tokenizer = load(checkpoints[kind])
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {label: i for i, label in enumerate(LABELS)}
    assert models.position_limit(model) == 64
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # 64 tokens run, as the limit says.
    ids = torch.full((1, 64), tokenizer.unk_token_id)
    assert model(ids).logits.shape == (1, 64, 3)
    with pytest.raises(ValueError, match=r"--max_seq_length 65: .* has positions for 64 tokens"):
        load(checkpoints[kind], length=65)


def test_the_encoder_is_the_checkpoints(checkpoints, kind):
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(checkpoints[kind], add_pooling_layer=False).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    for head in ("linear", "crf"):
        model = load(checkpoints[kind], head=head)[0].eval()
        found = model.base_model(ids).last_hidden_state
        assert torch.allclose(found, encoder(ids).last_hidden_state, atol=1e-5)


def test_byte_level_tokenizers_are_built_with_a_prefix_space(checkpoints, tmp_path):
    # As roberta-base has it: the first word of a text without a space before it.
    trained = json.loads((checkpoints["byte-bpe"] / "tokenizer.json").read_text())["model"]
    merges = [tuple(pair) for pair in trained["merges"]]
    RobertaTokenizer(vocab=trained["vocab"], merges=merges, add_prefix_space=False).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((checkpoints["byte-bpe"] / "config.json").read_text())
    tokenizer = models.load_tokenizer(str(tmp_path))
    assert tokenizer(["ran"], is_split_into_words=True)["input_ids"] == tokenizer(" ran")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(tokenizer(["ran"], is_split_into_words=True)["input_ids"])[1].startswith(
        "Ġ"
    )
    plain = models.load_tokenizer(str(tmp_path), for_words=False)
    assert not plain.convert_ids_to_tokens(plain("ran")["input_ids"])[1].startswith("Ġ")


def test_a_head_for_the_same_labels_is_kept_and_another_is_not(checkpoints, tmp_path):
    model, tokenizer = load(checkpoints["wordpiece"])
    with torch.no_grad():
        model.classifier.weight.fill_(7.0)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    assert (load(tmp_path)[0].classifier.weight == 7.0).all()
    for other in (["O", "B-LOC", "I-LOC"], ["O", "B-A", "I-A", "B-B", "I-B"]):
        model = load(tmp_path, labels=other)[0]
        assert (model.classifier.weight.abs() < 1).all()
        assert model.config.id2label == dict(enumerate(other))
        assert model.classifier.out_features == len(other)


def test_a_checkpoint_of_another_tasks_head(checkpoints, tmp_path, caplog):
    model, tokenizer = load(checkpoints["wordpiece"], labels=["neg", "mid", "pos"], task="sequence-classification")
    assert isinstance(model, BertForSequenceClassification)
    with torch.no_grad():
        model.classifier.weight.fill_(7.0)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    assert not caplog.messages  # a masked language model has no head to lose
    tagger = load(tmp_path)[0]
    assert "its head is not used (BertForSequenceClassification for neg, mid, pos)" in caplog.text
    assert (tagger.classifier.weight.abs() < 1).all()
    same = tagger.bert.embeddings.word_embeddings.weight
    assert torch.equal(same, model.bert.embeddings.word_embeddings.weight)


def test_crf_on_a_transformer_saves_and_loads(checkpoints, kind, tmp_path):
    model, tokenizer = load(checkpoints[kind], head="crf")
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    again = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    batch = tokenizer([["Ada", "中", "ran"], ["Oslo"]], is_split_into_words=True, padding=True, return_tensors="pt")
    real = batch["attention_mask"].bool()
    assert torch.allclose(again(**batch).logits[real], model.eval()(**batch).logits[real], atol=1e-5)
    starts = again.starts_word[batch["input_ids"][0]]
    words = [i for i, word in enumerate(batch.word_ids(0)) if word is not None and word != (batch.word_ids(0)[i - 1])]
    assert starts.nonzero().flatten().tolist() == words
    continued = load(tmp_path)[0]
    assert torch.equal(continued.classifier.weight, again.classifier.weight)
    with torch.no_grad():
        continued.classifier.bias[2] += 1e3  # I-PER everywhere, which cannot begin a text
    labels = continued.eval()(**batch).logits.argmax(-1)
    assert labels[0, words].tolist() == [1] + [2] * (len(words) - 1)


def test_a_crf_drops_out_what_its_layer_is_given_as_the_encoder_does(checkpoints, tmp_path):
    shutil.copytree(checkpoints["wordpiece"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.3}))
    model, tokenizer = load(tmp_path, head="crf")
    assert model.dropout.p == 0.3
    model.dropout.p = 1.0  # nothing of the encoder is left
    batch = tokenizer(["Ada ran", "Oslo is"], return_tensors="pt", padding=True)
    one, two = model.train()(**batch).logits[:, 1:3]
    assert torch.equal(one, two)
    one, two = model.eval()(**batch).logits[:, 1:3]
    assert not torch.equal(one, two)


def corrupted(folder, to, name, change):
    shutil.copytree(folder, to, dirs_exist_ok=True)
    change(to / name)
    return to


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda p: p.unlink(), "no config.json in this folder"),
        ("model.safetensors", lambda p: p.write_bytes(p.read_bytes()[:1000]), "the weights do not load"),
        ("model.safetensors", lambda p: p.write_bytes(b"\xff" * 1000), "the weights do not load"),
        ("model.safetensors", lambda p: p.unlink(), "the weights do not load"),
        ("tokenizer.json", lambda p: p.write_text("{"), "its tokenizer does not load"),
    ],
)
def test_broken_folders(checkpoints, tmp_path, name, change, message):
    folder = corrupted(checkpoints["wordpiece"], tmp_path / "m", name, change)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_slow_tokenizer_only(checkpoints, tmp_path):
    shutil.copytree(checkpoints["wordpiece"], tmp_path / "m")
    (tmp_path / "m/tokenizer.json").unlink()
    settings = {"tokenizer_class": "CanineTokenizer"}
    (tmp_path / "m/tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"only a slow tokenizer .* is here"):
        load(tmp_path / "m")


def test_an_encoder_of_another_shape_or_architecture(checkpoints, tmp_path):
    shutil.copytree(checkpoints["wordpiece"], tmp_path / "m")
    settings = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(settings | {"intermediate_size": 48}))
    with pytest.raises(ValueError, match="weights of the encoder are not in the checkpoint or have another shape"):
        load(tmp_path / "m")
    (tmp_path / "m/config.json").write_text(json.dumps(settings | {"num_hidden_layers": 5}))
    with pytest.raises(ValueError, match="weights of the encoder"):
        load(tmp_path / "m")


def test_a_tokenizer_that_does_not_belong(checkpoints, sample_texts, tmp_path):
    from random_checkpoint import build

    build("unigram", sample_texts, tmp_path, vocab_size=300, hidden_size=32, layers=1, positions=64)
    arguments = ModelArguments(model_name_or_path=str(tmp_path), tokenizer_name=str(checkpoints["wordpiece"]))
    with pytest.raises(ValueError, match="they do not belong together"):
        models.load("token-classification", arguments, LABELS, words=[], max_seq_length=16)


def test_the_packaged_default_is_the_hubs_file():
    import hashlib
    from pathlib import Path

    from finetune.models.pretrained import resolve

    folder = Path(resolve(DEFAULT_MODEL))
    if not folder.is_dir():
        pytest.skip("the extra `offline` is not installed")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest.startswith("53aa5117")
    assert digest.endswith("28d9db")


def test_an_index_of_the_hub_that_names_a_pickle_is_refused(checkpoints, tmp_path, monkeypatch):
    """The Hub's cache as it is on a disk: a folder of a commit, and a file that says which one `main` is."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    commit = "0" * 40
    snapshot = tmp_path / "models--nobody--model/snapshots" / commit
    shutil.copytree(checkpoints["wordpiece"], snapshot)
    (tmp_path / "models--nobody--model/refs").mkdir()
    (tmp_path / "models--nobody--model/refs/main").write_text(commit)
    load("nobody/model")
    weights = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    torch.save(weights, snapshot / "part.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "part.bin")}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json: names 'part.bin', which is no .safetensors file"):
        load("nobody/model")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_checkpoint_in_half_precision_trains_in_float32(dtype, checkpoints, tokenizers, tmp_path):
    """Also where a new model is made from its config: with a CRF, and as an encoder-decoder."""
    AutoModelForMaskedLM.from_pretrained(checkpoints["wordpiece"], dtype=dtype).save_pretrained(tmp_path)
    tokenizers["wordpiece"].save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert saved.dtype == dtype
    tokenizer = tokenizers["wordpiece"]
    with_crf, _ = load(str(tmp_path), head="crf")
    joined = load_seq2seq(
        Seq2SeqModelArguments("bert2bert", encoder_name_or_path=str(tmp_path)), tokenizer, tokenizer
    )
    for model in (load(str(tmp_path))[0], with_crf, joined):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert torch.equal(model.get_input_embeddings().weight, saved.float())
        model.save_pretrained(tmp_path / "again")
        assert {v.dtype for v in load_file(tmp_path / "again/model.safetensors").values()} <= {
            torch.float32,
            torch.bool,
        }


@pytest.mark.parametrize("task", ["token-classification", "sequence-classification", "question-answering"])
@pytest.mark.parametrize("model_type", ["gpt2", "bart", "roformer", "xlm"])
def test_positions_of_other_models(model_type, task, checkpoints, tmp_path):
    """As many as the model itself runs with; what becomes of longer inputs is said as it is for each task."""
    shape = {
        "gpt2": {"n_positions": 12, "n_embd": 8, "n_layer": 1, "n_head": 2},
        "bart": {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
        | {"encoder_attention_heads": 2, "decoder_attention_heads": 2},
        "roformer": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8},
        "xlm": {"emb_dim": 8, "n_layers": 1, "n_heads": 2},
    }[model_type]
    shutil.copytree(checkpoints["wordpiece"], tmp_path, dirs_exist_ok=True)
    config = AutoConfig.for_model(model_type, vocab_size=500, max_position_embeddings=12, pad_token_id=0, **shape)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    assert models.position_limit(model) == 12
    model(torch.full((1, 12), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 13), 7))
    longer = {
        "token": "sentences go into windows",
        "sequence": "texts are cut",
        "question": "passages go into windows",
    }
    if (model_type, task) != ("bart", "token-classification"):  # there is no such BART
        with pytest.raises(
            ValueError, match=f"--max_seq_length 13: .* at most 12; longer {longer[task.split('-')[0]]}"
        ):
            load(tmp_path, labels=["a", "b"], task=task, length=13)
        assert load(tmp_path, labels=["a", "b"], task=task, length=12)[1].model_max_length == 12


def test_token_types_that_a_model_does_not_have_are_left_out(checkpoints, tmp_path, caplog):
    tokenizer = models.load_tokenizer(str(checkpoints["wordpiece"]))
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0, type_vocab_size=1, **shape)
    RobertaModel(config).save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    model, suited = load(tmp_path, labels=["a", "b"], task="sequence-classification")
    assert "the tokenizer gives token types from 0 to 1" in caplog.text
    pair = suited("Ada ran .", "It rained .", return_tensors="pt")
    assert pair["input_ids"].tolist() == [tokenizer("Ada ran .", "It rained .")["input_ids"]]
    assert model(**pair).logits.shape == (1, 2)
    model.save_pretrained(tmp_path / "run"), suited.save_pretrained(tmp_path / "run")
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "run")("a", "b")
    assert "token_type_ids" in load(checkpoints["wordpiece"], labels=["a", "b"])[1]("a", "b")  # a BERT has two


@pytest.mark.parametrize("layers", [0, -1, 10_000_000, "2", 2.0, True])
def test_numbers_of_layers_that_cannot_be(checkpoints, tmp_path, layers):
    shutil.copytree(checkpoints["wordpiece"], tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": layers}))
    with pytest.raises(ValueError, match=r"num_hidden_layers.*") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_stored_layers_are_not_left_out(checkpoints, kind, tmp_path):
    shutil.copytree(checkpoints[kind], tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 1}))
    for head in ("linear", "crf"):
        with pytest.raises(ValueError, match=r"more layers than its config.json counts \(16 weights"):
            load(tmp_path, head=head)


@pytest.mark.parametrize(
    ("task", "lost", "message"),
    [
        ("token-classification", "classifier.weight", "1 weights of the head"),
        ("token-classification", "bert.encoder.layer.0.output.dense.bias", "1 weights of the encoder"),
        ("token-classification", "bert.embeddings.LayerNorm.weight", "1 weights of the encoder"),
        ("sequence-classification", "bert.pooler.dense.weight", "1 weights of the head"),
        ("sequence-classification", "classifier.bias", "1 weights of the head"),
        ("question-answering", "qa_outputs.weight", "1 weights of the head"),
    ],
)
def test_a_fine_tuned_model_that_lacks_a_weight(checkpoints, tmp_path, task, lost, message):
    model, tokenizer = load(checkpoints["wordpiece"], task=task)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    models.load_finetuned(ModelArguments(str(tmp_path)))
    weights = load_file(tmp_path / "model.safetensors")
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    for read in (
        lambda: models.load_finetuned(ModelArguments(str(tmp_path))),
        lambda: models.load_as_saved(str(tmp_path)),
    ):
        with pytest.raises(ValueError, match=f"{message} are not in the checkpoint.* such as {lost}"):
            read()


def test_a_saved_crf_does_not_tell_where_its_encoder_lay(checkpoints, tmp_path):
    model, _ = load(checkpoints["wordpiece"], head="crf")
    model.save_pretrained(tmp_path)
    assert str(checkpoints["wordpiece"]) not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("flag", ["hidden_size", "embedding_size", "char_hidden_size", "num_hidden_layers"])
def test_a_baseline_that_no_memory_holds(flag):
    arguments = ModelArguments("bilstm", **{flag: 10**9})
    with pytest.raises(ValueError, match=f"--{flag} 1000000000: "):
        models.load("token-classification", arguments, LABELS, words=["a"], max_seq_length=8)


def test_the_usual_rate_goes_with_the_width(tmp_path):
    for width, rate in ((768, 5e-5), (384, 1e-4), (1024, 3.75e-5), (64, 4e-4)):
        folder = tmp_path / str(width)
        BertConfig(hidden_size=width, num_attention_heads=4).save_pretrained(folder)
        assert models.usual_rate(str(folder), "main") == pytest.approx(rate)
        EncoderCrfConfig(encoder={"hidden_size": width}).save_pretrained(folder)
        assert models.usual_rate(str(folder), "main") == pytest.approx(rate)
    assert models.usual_rate(str(tmp_path / "nothing"), "main") == 5e-5


def test_a_checkpoint_warms_up_and_a_baseline_does_not(tmp_path):
    BertConfig(hidden_size=384, num_attention_heads=4).save_pretrained(tmp_path)
    checkpoint = stages.with_defaults(NerConfig(model_name_or_path=str(tmp_path)))
    assert (checkpoint.learning_rate, checkpoint.warmup_steps) == (pytest.approx(1e-4), 0.1)
    lora = stages.with_defaults(NerConfig(model_name_or_path=str(tmp_path), lora_r=8))
    assert (lora.learning_rate, lora.warmup_steps) == (pytest.approx(1e-3), 0.1)
    baseline = stages.with_defaults(NerConfig(model_name_or_path="bilstm"))
    assert (baseline.learning_rate, baseline.warmup_steps) == (2e-3, 0.0)
    own = stages.with_defaults(NerConfig(model_name_or_path=str(tmp_path), learning_rate=3e-5, warmup_steps=0))
    assert (own.learning_rate, own.warmup_steps) == (3e-5, 0)
