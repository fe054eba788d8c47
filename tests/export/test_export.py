"""Exported models beside the models in torch: other lengths than traced, padding in the batch, no torch, int8."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForSequenceClassification

import finetune
from finetune import data, models
from finetune.arguments import ModelArguments
from finetune.data import write_conll
from finetune.models import LinearChainCrf
from recipes.export import ExportConfig, export_model
from recipes.ner import NerConfig, finetune_ner
from recipes.predict import PredictConfig, predict_stream
from recipes.sentiment import SentimentConfig, finetune_sentiment
from recipes.seq2seq import Seq2SeqConfig, train_seq2seq

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from finetune.export import folder as exports
from finetune.export import int8, runner, viterbi

ROOT = Path(__file__).parents[2]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
KINDS = ["word", "text", "several", "number", "pair", "question", "crf", "viterbi", "reader", "two texts"]
LONG = "Ada Lovelace flew to Oslo with Grace Hopper , who had never seen so much snow in one place . "
TEXTS = ["Ada ran .", LONG * 3, "", "\u200e", "Oslo", "Grace Hopper and Alan met in Vienna on a Sunday", "never"]


def build(kind, checkpoints, folder):
    """A model of random weights for a task, as a run saves it."""
    torch.manual_seed(0)
    shape = {"hidden_size": 12, "embedding_size": 10, "char_hidden_size": 6}
    words = [LONG, *TEXTS]
    head, names = "sequence-classification", ["a", "b", "c"]
    settings = {}
    if kind in ("word", "crf", "viterbi"):
        head, names = "token-classification", TAGS
    if kind == "several":
        settings = {"problem_type": "multi_label_classification", "threshold": 0.5}
    if kind == "number":
        names, settings = ["number"], {"problem_type": "regression"}
    if kind in ("question", "reader"):
        head, names = "question-answering", []
    name = {"word": "lstm", "several": "gru", "number": "rnn", "reader": "bilstm", "two texts": "gru"}.get(kind)
    if name is not None:
        pooling = {"several": "attention", "number": "last"}.get(kind, "max")
        arguments = ModelArguments(model_name_or_path=name, **shape)
        task_head = "crf" if kind == "word" else "linear"
        model, tokenizer = models.load(
            head, arguments, names, words=words, max_seq_length=32, pooling=pooling, head=task_head,
            pairs=kind == "two texts",
        )  # fmt: skip
        if kind == "word":
            model.crf.transitions.data.normal_()
    elif kind == "crf":
        arguments = ModelArguments(model_name_or_path=str(checkpoints["byte-bpe"]))
        model, tokenizer = models.load(head, arguments, names, words=words, max_seq_length=32, head="crf")
        model.crf.transitions.data.normal_()
    elif kind == "viterbi":
        arguments = ModelArguments(model_name_or_path=str(checkpoints["wordpiece"]))
        model, tokenizer = models.load(head, arguments, names, words=words, max_seq_length=32)
        settings = {"decoding": "viterbi"}
    else:
        source = str(checkpoints["unigram" if kind == "text" else "wordpiece"])
        settings |= {"long_texts": "window"} if kind == "text" else {}
        auto = AutoModelForQuestionAnswering if kind == "question" else AutoModelForSequenceClassification
        labels = {} if kind == "question" else {"num_labels": 3}
        model = auto.from_config(AutoConfig.from_pretrained(source, **labels))
        tokenizer = models.load_tokenizer(source, for_words=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # far from ties
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0
    model.config.update(settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_answers_as_its_model(kind, checkpoints, tmp_path):
    build(kind, checkpoints, tmp_path / "model")
    cut = {"max_seq_length": 24, "batch_size": 3}
    predictor = finetune.load_predictor(tmp_path / "model", **cut)
    exports.write(exports.float32(str(tmp_path / "model"), "main", predictor), tmp_path / "onnx", "card")
    fast = finetune.load_predictor(tmp_path / "onnx", runtime="onnx", **cut)
    pairs = kind in ("pair", "question", "reader", "two texts")
    samples = [(text, LONG * (1 + i % 3)) if pairs else text for i, text in enumerate(TEXTS)]
    for some in (samples, samples[:1], []):
        for wanted, found in zip(predictor(some), fast(some), strict=True):
            assert list(wanted) == list(found)
            assert kind != "viterbi" or not data.invalid_iob2(wanted["predicted"])
            for key, value in wanted.items():
                if key in ("predicted", "answer", "start", "end", "tokens"):
                    assert found[key] == (pytest.approx(value, abs=1e-4) if kind == "number" else value)
                elif key in ("score", "scores"):
                    assert found[key] == pytest.approx(value, abs=1e-4)
            for one, other in zip(wanted.get("entities", ()), found.get("entities", ()), strict=True):
                assert one | {"score": 0} == other | {"score": 0}


@pytest.fixture(scope="module")
def run(checkpoints, samples, tmp_path_factory):
    """A model that knows its development split by heart, so that there is a score to lose."""
    folder = tmp_path_factory.mktemp("runs") / "ner"
    file = folder.parent / "some.conll"
    some = samples["train"][:30]
    write_conll(file, some["tokens"], some["ner_tags"])
    flags = {"train_file": str(file), "validation_file": str(file), "max_seq_length": 12}
    flags |= {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 20,
        "learning_rate": 3e-3,
        "eval_strategy": "no",
        "save_strategy": "no",
    }
    name = str(checkpoints["wordpiece"])
    finetune_ner(NerConfig(**flags, model_name_or_path=name, output_dir=str(folder), disable_tqdm=True))
    return folder


WITHOUT = """
import json, sys
allowed = {"finetune", "numpy", "tokenizers", "onnxruntime", "regex", "lazy_loader", "wrapt"}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in allowed and not top.startswith("_"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Only())
import finetune
print(json.dumps(finetune.predict(sys.argv[1], json.loads(sys.argv[2]), runtime="onnx")))
"""


def test_an_export_gives_the_files_of_its_run_also_without_torch(run, tmp_path):
    config = ExportConfig(str(run), output_dir=str(tmp_path / "onnx"), precision="float32")
    told = export_model(config)
    assert told["same_answers"] == 1.0
    assert told["difference"] == told["low"] == told["high"] == 0.0
    assert f"| f1 | {told['onnx']:.4f} | {told['torch']:.4f} |" in (tmp_path / "onnx/README.md").read_text()
    said = run / "predictions_eval.conll"
    for runtime, folder in (("torch", run), ("onnx", tmp_path / "onnx")):
        name = str(tmp_path / f"{runtime}.conll")
        flags = {"input_file": str(said), "output_file": name, "runtime": runtime, "per_device_eval_batch_size": 7}
        predict_stream(PredictConfig(str(folder), **flags))
    assert (tmp_path / "torch.conll").read_bytes() == (tmp_path / "onnx.conll").read_bytes()

    texts = [*TEXTS, "“東京” 🇺🇸 is far."]
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "onnx"), json.dumps(texts)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-1000:]
    for wanted, found in zip(finetune.predict(run, texts), json.loads(done.stdout), strict=True):
        assert (wanted["tokens"], wanted["predicted"]) == (found["tokens"], found["predicted"])
        assert wanted["scores"] == pytest.approx(found["scores"], abs=1e-4)

    moved = shutil.copytree(run, tmp_path / "moved")
    flags = (moved / "run.yaml").read_text().replace(str(run.parent / "some.conll"), "some.conll")
    (moved / "run.yaml").write_text(flags)
    with pytest.raises(ValueError, match=r"--train_file some.conll: no such file; .*moved/run.yaml names it as seen"):
        export_model(ExportConfig(str(moved), output_dir=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="exists already; give another folder"):
        export_model(config)
    with pytest.raises(ValueError, match="an exported model; add --runtime onnx"):
        finetune.load_predictor(tmp_path / "onnx")
    with pytest.raises(ValueError, match="holds no exported model"):
        finetune.load_predictor(run, runtime="onnx")
    with pytest.raises(ValueError, match=r"--max_seq_length 65: .* has positions for 64"):
        finetune.load_predictor(tmp_path / "onnx", runtime="onnx", max_seq_length=65)
    described = json.loads((tmp_path / "onnx/export.json").read_text())
    for key, value in (("labels", 3), ("more", 1)):
        (tmp_path / "onnx/export.json").write_text(json.dumps(described | {key: value}))
        with pytest.raises(ValueError, match=r"export.json: no export has written this"):
            finetune.load_predictor(tmp_path / "onnx", runtime="onnx")


def test_numbers_are_exported_also_where_the_data_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text,label\n" + "".join(f"word {i},{i / 4}\n" for i in range(40)))
    flags = {"model_name_or_path": "rnn", "hidden_size": 8, "embedding_size": 8, "max_steps": 2, "disable_tqdm": True}
    files = {"train_file": "a.csv", "validation_file": "a.csv"}
    finetune_sentiment(SentimentConfig(**flags | files, problem_type="regression", output_dir="run"))
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")  # it stays a link
    told = export_model(ExportConfig("run", output_dir="link", precision="float32"))
    assert told["onnx"] == pytest.approx(told["torch"], abs=1e-5)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [
        "README.md",
        "export.json",
        "model.onnx",
        "tokenizer.json",
    ]
    wanted = finetune.predict("run", TEXTS)
    for one, other in zip(wanted, finetune.predict("link", TEXTS, runtime="onnx"), strict=True):
        assert one["predicted"] == pytest.approx(other["predicted"], abs=1e-4)
    Path("a.csv").unlink()
    export_model(ExportConfig("run", output_dir="other", precision="float32"))
    assert "--train_file a.csv: no such file" in capsys.readouterr().out
    with pytest.raises(ValueError, match="export there, or give"):
        export_model(ExportConfig("run", output_dir="int8"))


def test_text_to_text_is_not_exported(tmp_path):
    flags = {"model_name_or_path": "rnn2rnn", "hidden_size": 8, "embedding_size": 8, "vocab_size": 300}
    flags |= {"max_train_samples": 20, "max_eval_samples": 4, "max_steps": 1, "disable_tqdm": True}
    train_seq2seq(Seq2SeqConfig(**flags, dataset_name="samples", output_dir=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="a model for translation; only taggers, classifiers and readers"):
        export_model(ExportConfig(str(tmp_path / "run"), output_dir=str(tmp_path / "onnx")))


def test_int8_is_refused_where_it_loses_too_much(run, tmp_path, monkeypatch, capsys):
    config = ExportConfig(str(run), output_dir=str(tmp_path / "int8"), max_loss=0.2)
    told = export_model(config)
    assert told["precision"].startswith("int8")
    assert told["low"] >= -0.2
    assert told["torch"] > 0.3
    assert (tmp_path / "int8/model.onnx").stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    texts = TEXTS[:2] * 3
    alone, together = (finetune.load_predictor(tmp_path / "int8", runtime="onnx", batch_size=n) for n in (1, 6))
    for one, other in zip(alone(texts), together(texts), strict=True):
        assert one["predicted"] == other["predicted"]
        assert one["scores"] == pytest.approx(other["scores"], abs=2e-3)

    def damaged(weights, axis):
        return np.zeros(weights.shape, np.int8), np.ones_like(weights.max(axis, keepdims=True))

    monkeypatch.setattr(int8, "_whole", damaged)
    monkeypatch.setattr(exports, "_by_sensitivity", lambda exported, rows: int8.products(exported.onnx))
    capsys.readouterr()
    config.output_dir = str(tmp_path / "refused" / "int8")
    with pytest.raises(ValueError, match=r"--max_loss 0.2: no export is proved to lose less f1 on the 30 samples"):
        export_model(config)
    assert not (tmp_path / "refused").exists()
    assert capsys.readouterr().out.count("not proved") == 3


def test_int8_is_near_to_float_and_knows_no_batch():
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weight, table = draw.normal(size=(40, 30)).astype(np.float32), draw.normal(size=(300, 40)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"], name="g")]
    nodes.append(helper.make_node("MatMul", ["x", "weight"], ["y"], name="m"))
    tensors = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(table, "table")]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", "T"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "T", 30])
    graph = helper.make_graph(nodes, "g", [ids], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = runner.open_session(int8.quantized(model.SerializeToString()))
    given = draw.integers(0, 300, (5, 7))
    given[0] = 0
    found, wanted = session.run(None, {"ids": given})[0], table[given] @ weight
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()
    for row in range(5):
        assert np.array_equal(session.run(None, {"ids": given[row : row + 1]})[0][0], found[row])


@pytest.mark.parametrize("seed", range(5))
def test_the_labels_of_a_crf_are_those_of_torch(seed):
    torch.manual_seed(seed)
    crf = LinearChainCrf(TAGS)
    for parameter in crf.parameters():
        parameter.data.normal_()
    lengths = torch.tensor([6, 1, 0, 4, 5])
    emissions, mask = torch.randn(5, 8, 5) * 2, torch.zeros(5, 8, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, torch.randperm(8)[:length]] = True
    told = {name: getattr(crf, name).tolist() for name in ("start", "transitions", "end")}
    labels, logs = viterbi.decode(emissions.numpy(), mask.numpy(), told | {"labels": TAGS, "prefix_tokens": 1})
    for row in torch.nonzero(lengths)[:, 0].tolist():
        at = mask[row].nonzero()[:, 0]
        chain = emissions[row, at][None]
        with torch.no_grad():
            wanted, marginals = crf.decode(chain, torch.ones(1, len(at), dtype=torch.bool), at[:1] > 1)
        assert labels[row, at.numpy()].tolist() == wanted[0].tolist()
        # The best label has the greatest value, whose place it has exchanged.
        assert (logs.argmax(-1)[row, at.numpy()] == labels[row, at.numpy()]).all()
        found = np.sort(np.exp(logs[row, at.numpy()]), axis=-1)
        assert found == pytest.approx(np.sort(marginals[0].exp().numpy(), axis=-1), abs=1e-5)
