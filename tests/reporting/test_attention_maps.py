"""Attention maps: merged from a raw eager forward by slow loops, whatever the model was loaded with."""

import base64
import itertools
import json
import pickle
import shutil
import sys
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer

from finetune import reporting
from finetune.arguments import ModelArguments
from finetune.models import Seq2SeqModelArguments, load, load_seq2seq
from finetune.models.attention import NAME
from finetune.prediction import attention
from finetune.reporting import AttentionMaps

WORDS = ["Priya", "Raman", "flew", "from", "Toronto", "to", "Lisbon", "unbelievably", "often", "."]
HOSTILE = ('<script>alert("1")</script>', '"><img src=x onerror=alert(1)>', "</style>", "&amp;", "$\\frac{$", "--%>")


def sharpen(model, std=0.2):
    """Weights large enough for attention to be far from uniform."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=std)
    return model


@pytest.fixture(scope="module")
def folder(checkpoints, kind, tmp_path_factory):
    found = tmp_path_factory.mktemp("sharp")
    sharpen(AutoModelForTokenClassification.from_pretrained(checkpoints[kind])).save_pretrained(found)
    AutoTokenizer.from_pretrained(checkpoints[kind]).save_pretrained(found)
    return found


def slow_maps(folder, tokenizer, words):
    """The maps of a plain eager forward; which subwords are a word's is known from tokenising it alone."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    pieces = [tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"] for word in words]
    ids = [tokenizer.cls_token_id, *(i for piece in pieces for i in piece), tokenizer.sep_token_id]
    with torch.no_grad():
        raw = model(torch.tensor([ids]), output_attentions=True).attentions
    of_word, t = [], 0
    for size in [1, *map(len, pieces), 1]:
        of_word.append(range(t, t + size))
        t += size
    assert t == len(ids)
    assert max(map(len, of_word)) > 2
    W = len(of_word)
    expected = np.zeros((len(raw), raw[0].shape[1], W, W))
    for layer in range(expected.shape[0]):
        for head in range(expected.shape[1]):
            for i in range(W):
                for j in range(W):
                    for s in of_word[i]:
                        for t in of_word[j]:
                            expected[layer, head, i, j] += float(raw[layer][0, head, s, t]) / len(of_word[i])
    return expected


def test_words_are_merged_from_a_raw_forward(folder, tokenizer):
    maps = attention(folder, WORDS, tokenizer=tokenizer)
    expected = slow_maps(folder, tokenizer, WORDS)
    assert maps.words == (tokenizer.cls_token, *WORDS, tokenizer.sep_token)
    assert maps.weights.dtype == np.float32
    assert maps.weights.std() > 0.05
    np.testing.assert_allclose(maps.weights, expected, atol=1e-6)
    np.testing.assert_allclose(maps.weights.sum(-1), 1, atol=1e-6)


def test_a_text_is_shown_as_it_was_written(folder, tokenizer, kind):
    text = " ".join(WORDS)
    maps = attention(str(folder), text)
    assert maps.words == (tokenizer.cls_token, *WORDS, tokenizer.sep_token)
    np.testing.assert_allclose(maps.weights, slow_maps(folder, tokenizer, WORDS), atol=1e-6)
    shown = {
        "wordpiece": ["to", "Toronto", "!"],
        "byte-bpe": ["Ġ", "to", "ĉ", "Toronto", "!"],  # white space has tokens of its own
        "unigram": ["to", "Toronto!"],
    }
    assert list(attention(folder, "  to\tToronto!").words[1:-1]) == shown[kind]


def test_a_loaded_model_is_left_as_it_was_found(folder, tokenizer):
    model, _ = load("token-classification", ModelArguments(str(folder)), ["O", "B-X"], words=[], max_seq_length=64)
    model.train()
    model.base_model.embeddings.eval()
    modes = [module.training for module in model.modules()]
    inputs = tokenizer(["to Toronto"], return_tensors="pt")
    torch.manual_seed(1)
    before = model(**inputs).logits
    assert model.config._attn_implementation == NAME
    maps = attention(model, WORDS, tokenizer=tokenizer)
    np.testing.assert_allclose(maps.weights, slow_maps(folder, tokenizer, WORDS), atol=1e-6)
    assert model.config._attn_implementation == NAME
    assert [module.training for module in model.modules()] == modes
    torch.manual_seed(1)
    assert torch.equal(model(**inputs).logits, before)
    with pytest.raises(ValueError, match="the model has 64 positions"):
        attention(model, ["Toronto"] * 64, tokenizer=tokenizer)
    assert [module.training for module in model.modules()] == modes


def test_an_encoder_under_a_crf(folder, tokenizer):
    arguments = ModelArguments(str(folder))
    model, _ = load("token-classification", arguments, ["O", "B-X"], words=[], max_seq_length=64, head="crf")
    maps = attention(model, WORDS, tokenizer=tokenizer)
    np.testing.assert_allclose(maps.weights, slow_maps(folder, tokenizer, WORDS), atol=1e-6)


def recurrent(pooling, task="sequence-classification"):
    arguments = ModelArguments("bilstm", hidden_size=8, embedding_size=8, char_hidden_size=4)
    model, tokenizer = load(task, arguments, ["a", "b"], words=WORDS, max_seq_length=64, pooling=pooling)
    return sharpen(model, std=1.0), tokenizer


def test_weights_of_a_recurrent_classifier_are_its_own(tmp_path):
    model, tokenizer = recurrent("attention")
    model.train()
    text = "Priya (often) flew: unseen Lisbon."
    maps = attention(model, text, tokenizer=tokenizer)
    assert model.training
    model.eval()
    with torch.no_grad():
        expected = model(**tokenizer(text, return_tensors="pt")).attentions[0][0]
    assert maps.words == ("Priya", "(", "often", ")", "flew", ":", "unseen", "Lisbon", ".")
    np.testing.assert_allclose(maps.weights, expected, atol=1e-6)
    assert maps.weights.std() > 0.01
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    words = ["Priya", "(often)", "flew:", "unseen", "Lisbon."]
    merged = attention(tmp_path, words)
    assert merged.words == tuple(words)
    sums = [expected[0], expected[1:4].sum(), expected[4:6].sum(), expected[6], expected[7:].sum()]
    np.testing.assert_allclose(merged.weights, sums, atol=1e-6)

    bars = maps.plot().axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx(list(maps.weights))


@pytest.mark.parametrize(
    ("pooling", "task"), [("mean", "sequence-classification"), ("attention", "token-classification")]
)
def test_a_model_without_attention_is_refused(pooling, task):
    model, tokenizer = recurrent(pooling, task)
    with pytest.raises(ValueError, match=r"Recurrent.* has no attention"):
        attention(model, "Priya flew", tokenizer=tokenizer)


def test_a_folder_of_a_stranger_runs_no_code(folder, tmp_path, monkeypatch):
    """Neither its own, nor what a pickle holds; and nobody is asked whether it should."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", StringIO("y\n" * 9))
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    for change, message in (
        (own, "comes with code of its own, which is not run here"),
        ({"attn_implementation": "nobody/attention"}, "asks for code of the Hub"),
        ({}, "names 'part.bin', which is no .safetensors file"),
    ):
        shutil.rmtree("model", ignore_errors=True)
        shutil.copytree(folder, "model")
        Path("model/config.json").write_text(json.dumps(config | change))
        Path("model/own.py").write_text("open('RUN', 'w')\n")
        if not change:
            names = load_file("model/model.safetensors")
            Path("model/model.safetensors").unlink()
            Path("model/part.bin").write_bytes(pickle.dumps({"weight": Payload()}))
            index = {"metadata": {}, "weight_map": dict.fromkeys(names, "part.bin")}
            Path("model/model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=message):
            attention("model", "Priya flew")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sys.stdin.read() == "y\n" * 9


class Payload:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return open, ("RUN", "w")


def test_other_mistakes(folder, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="needs its tokenizer"):
        attention(AutoModel.from_pretrained(folder), "Priya flew")
    with pytest.raises(ValueError, match="has no words"):
        attention(folder, "")
    with pytest.raises(ValueError, match="no such folder"):
        attention(tmp_path / "nowhere", "Priya flew")
    maps = attention(folder, "Priya flew")
    for layer, head in ((2, 0), (0, 2), (-1, 0), (0, None)):
        with pytest.raises(ValueError, match="layers 0 to 1 and heads 0 to 1"):
            maps.plot(layer, head)


def hostile_maps(layers=2, heads=3):
    W = len(HOSTILE)
    weights = np.random.default_rng(0).dirichlet(np.full(W, 0.3), (layers, heads, W)).astype(np.float32)
    return AttentionMaps(HOSTILE, weights)


def test_plots_show_the_weights_and_take_any_word():
    maps = hostile_maps()
    shown = [ax.images[0].get_array() for ax in maps.plot().axes if ax.images]
    np.testing.assert_array_equal(np.stack(shown), maps.weights.reshape(6, *maps.weights.shape[2:]))
    figure = maps.plot(1, 2)
    figure.savefig(BytesIO())  # where a formula would fail
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), maps.weights[1, 2])
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[2:] == list(HOSTILE[2:])
    assert shown[1].endswith("…")
    AttentionMaps(HOSTILE, maps.weights[0, 0, 0]).plot().savefig(BytesIO())


class Page(HTMLParser):
    """Tags, attributes, and the text of each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.texts = [], {}, [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.append((self.open[-1], data))


def test_html_holds_every_weight_and_escapes_every_word():
    maps = hostile_maps()
    text = maps.html()
    page = Page(text)
    W = len(HOSTILE)
    assert (page.tags.count("script"), page.tags.count("img"), page.tags.count("style")) == (1, 1, 1)
    assert [data for tag, data in page.texts if tag == "th"] == list(HOSTILE)  # rows
    assert [data for tag, data in page.texts if tag == "span"] == list(HOSTILE)  # columns
    assert not any(name.startswith("on") or name in ("id", "href") for name in page.attributes)
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes["src"])
    assert "http" not in text

    cells = [float(data) for tag, data in page.texts if tag == "td"]
    np.testing.assert_allclose(cells, 100 * maps.weights.mean((0, 1)).ravel(), atol=0.51)
    roots = np.frombuffer(base64.b64decode(page.attributes["data-weights"][0]), np.uint8) / 255
    np.testing.assert_allclose(roots.reshape(2, 3, W, W) ** 2, maps.weights, atol=0.004)
    assert page.attributes["data-shape"] == [f"2 3 {W} {W}"]

    from matplotlib.image import imread

    picture = imread(BytesIO(base64.b64decode(page.attributes["src"][0].partition(",")[2])))
    assert picture.shape == (2 * (W + 1) - 1, 3 * (W + 1) - 1, 4)
    assert (picture[W, :, 3] == 0).all()  # the line between two layers
    opacity = picture[W + 1 :, W + 1 : 2 * W + 1, 3]  # of layer 1, head 1
    np.testing.assert_allclose(((opacity - 0.08) / 0.92) ** 2, maps.weights[1, 1], atol=0.01)


def test_html_of_weights_over_words():
    maps = AttentionMaps(HOSTILE, hostile_maps().weights[0, 0, 0])
    page = Page(maps.html())
    assert "script" not in page.tags
    assert [data for tag, data in page.texts if tag == "span"] == list(HOSTILE)
    shares = [float(data) for tag, data in page.texts if tag == "small"]
    np.testing.assert_allclose(shares, 100 * maps.weights, atol=0.51)


NEW = ("lstm2lstm", "lstm2lstm-attention", "transformer")
PAIR = ("to Toronto", "Priya flew to Lisbon")


def an_encoder_decoder(name, kind, checkpoints, tokenizers, **flags):
    arguments = Seq2SeqModelArguments(name, **flags | ({"hidden_size": 16} if name in NEW else {}))
    if name not in NEW:
        arguments.encoder_name_or_path = str(checkpoints[kind])
    return sharpen(load_seq2seq(arguments, tokenizers[kind], tokenizers[kind]), std=0.5)


@pytest.mark.parametrize("name", [*NEW[1:], "bert2bert", "roberta2roberta"])
def test_the_target_looks_at_the_source(name, checkpoints, tokenizers):
    kind = "byte-bpe" if name == "roberta2roberta" else "wordpiece"
    tokenizer = tokenizers[kind]
    model = an_encoder_decoder(name, kind, checkpoints, tokenizers).train()
    sides = SimpleNamespace(source=tokenizer, target=tokenizer)
    source, target = WORDS, PAIR[1].split()
    maps = reporting.attention(model, source, sides, target=target)
    assert all(module.training for module in model.modules())
    pieces = [
        [tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"] for word in words]
        for words in (source, target)
    ]
    model.eval()
    if name not in NEW:
        assert model.encoder.config._attn_implementation == NAME
        model.decoder.set_attn_implementation("eager")
    ids = [tokenizer.cls_token_id, *itertools.chain(*pieces[0]), tokenizer.sep_token_id]
    said = [model.config.decoder_start_token_id, *itertools.chain(*pieces[1])]
    with torch.no_grad():
        raw = model(torch.tensor([ids]), decoder_input_ids=torch.tensor([said]), output_attentions=True)
    columns, rows = (np.cumsum([0, *sizes]) for sizes in ([1, *map(len, pieces[0]), 1], [*map(len, pieces[1]), 1]))
    assert maps.words == (tokenizer.cls_token, *source, tokenizer.sep_token)
    assert maps.said == (*target, tokenizer.convert_ids_to_tokens(model.config.eos_token_id))
    assert maps.weights.shape[2:] == (len(maps.said), len(maps.words))
    for layer, weights in enumerate(raw.cross_attentions):
        spans = (enumerate(itertools.pairwise(ends.tolist())) for ends in (rows, columns))
        for (i, row), (j, column) in itertools.product(*spans):
            block = weights[0, :, slice(*row), slice(*column)].sum(2).mean(1)
            np.testing.assert_allclose(maps.weights[layer, :, i, j], block, atol=1e-6)
    assert maps.weights.std() > 0.02


def test_by_default_the_target_is_what_the_model_says(checkpoints, tokenizers, tmp_path):
    model = an_encoder_decoder("lstm2lstm-attention", "wordpiece", checkpoints, tokenizers)
    tokenizer = tokenizers["wordpiece"]
    model.eval().generation_config.max_new_tokens = 6
    maps = reporting.attention(model, PAIR[0], tokenizer)
    said = model.generate(input_ids=tokenizer(PAIR[0], return_tensors="pt")["input_ids"])
    text = tokenizer.decode(said[0], skip_special_tokens=True)
    np.testing.assert_array_equal(maps.weights, reporting.attention(model, PAIR[0], tokenizer, target=text).weights)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    np.testing.assert_allclose(attention(tmp_path, PAIR[0], target=text).weights, maps.weights, atol=1e-5)
    axes = maps.plot().axes[0]  # a single map is shown with its words
    assert [label.get_text() for label in axes.get_xticklabels()] == list(maps.words)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(maps.said)
    shown = maps.html()
    assert f'data-shape="1 1 {len(maps.said)} {len(maps.words)}"' in shown
    assert shown.count("<tr>") == len(maps.said) + 1
    with pytest.raises(ValueError, match="has no attention"):
        reporting.attention(an_encoder_decoder("lstm2lstm", "wordpiece", checkpoints, tokenizers), PAIR[0], tokenizer)
