"""What `finetune.predict` says, beside what the evaluation of the same run said."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import finetune
from finetune import data, metrics
from finetune.tasks.words_of_texts import decode_entities
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

TINY = {
    "dataset_name": "samples",
    "max_seq_length": 12,
    "max_train_samples": 60,
    "max_eval_samples": 40,
    "num_train_epochs": 12,
    "per_device_train_batch_size": 8,
    "eval_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
}
SHAPE = {"hidden_size": 32, "embedding_size": 32, "dropout": 0.1}  # of baselines
MODELS = ["byte-bpe", "crf", "gru", "bilstm-crf"]


def settings_of(name, checkpoints, folder, **extra):
    model = checkpoints.get("wordpiece" if name == "crf" else name)
    # A transformer at the baselines' rate finds no entity at all from every other seed.
    chosen = {"model_name_or_path": str(model or name), "learning_rate": 3e-3 if model else 1e-2}
    return TINY | ({} if model else SHAPE) | chosen | {"output_dir": str(folder)} | extra


@pytest.fixture(scope="module")
def ner_runs(checkpoints, tmp_path_factory):
    folders = {}
    for name in MODELS:
        folders[name] = tmp_path_factory.mktemp("ner") / name
        extra = {"head": "crf"} if name == "crf" else {}
        finetune_ner(NerConfig(**settings_of(name, checkpoints, folders[name], **extra), doc_stride=5))
    return folders


@pytest.mark.parametrize("name", MODELS)
def test_words_get_the_labels_of_the_evaluation(name, ner_runs):
    folder = ner_runs[name]
    evaluated = data.read_conll(folder / "predictions_test.conll", tag_column=2)
    assert sum(tag != "O" for tags in evaluated.tags for tag in tags) >= 10
    tokenizer = finetune.models.load_tokenizer(str(folder))
    lengths = [len(tokenizer(words, is_split_into_words=True)["input_ids"]) for words in evaluated.words]
    assert sum(length > 12 for length in lengths) >= 5  # these go through windows
    answers = finetune.predict(folder, evaluated.words, batch_size=7)
    assert [answer["tokens"] for answer in answers] == evaluated.words
    assert [answer["predicted"] for answer in answers] == evaluated.tags


def test_a_prediction_loads_nothing_that_only_training_needs(checkpoints, tmp_path):
    """`datasets` with pandas would add a seventh to the time that the command needs for one sentence."""
    folder = tmp_path / "model"
    AutoModelForTokenClassification.from_pretrained(checkpoints["wordpiece"]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoints["wordpiece"]).save_pretrained(folder)
    (tmp_path / "a.txt").write_text("Ada flew to Oslo.\n")
    code = (
        "import sys\nfrom recipes import predict\npredict.main(sys.argv[1:])\n"
        "print([name for name in ('datasets', 'pandas', 'pyarrow', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    flags = ("--model_name_or_path", folder, "--input_format", "text", "--input_file", tmp_path / "a.txt")
    command = [sys.executable, "-c", code, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    answer, loaded = done.stdout.splitlines()
    assert json.loads(answer)["tokens"] == ["Ada", "flew", "to", "Oslo", "."]
    assert loaded == "[]"


def test_scores_are_the_probabilities_of_the_labels(ner_runs):
    predictor = finetune.load_predictor(ner_runs["byte-bpe"], max_seq_length=32)
    words = ["Ada", "Lovelace", "flew", "to", "Oslo", "."]
    answer = predictor([["x"] * 9, words, []])[1]
    encoded = predictor.tokenizer([words], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        logits = predictor.model(**encoded).logits[0]
    expected, labels = (logits / predictor.settings["score_temperature"]).softmax(-1).max(-1)
    firsts = [encoded.word_ids(0).index(i) for i in range(len(words))]
    assert answer["scores"] == pytest.approx(expected[firsts].tolist(), abs=1e-5)
    assert answer["predicted"] == [predictor.labels[i] for i in labels[firsts]]


def test_a_word_without_a_subword_is_outside_with_score_0(ner_runs):
    answer = finetune.predict(ner_runs["crf"], [["Ada", "\u200e", "ran"]])[0]
    assert (answer["predicted"][1], answer["scores"][1]) == ("O", 0.0)
    assert answer["scores"][0] > 0


def test_texts_in_words_out(ner_runs):
    """A text gives what its words give; the entities are where the tags are."""
    predictor = finetune.load_predictor(ner_runs["byte-bpe"])

    @settings(max_examples=40, deadline=None)
    @given(st.text(alphabet="Ada Oslo.,'’🇺🇸東\u200e\n-", max_size=90))
    def holds(text):
        answer, empty = predictor([text, ""])
        assert empty == {"tokens": [], "predicted": [], "scores": [], "entities": []}
        assert answer["tokens"] == [text[begin:end] for begin, end in data.split_words(text)]
        given_words = predictor([answer["tokens"]])[0]
        assert answer["predicted"] == given_words["predicted"]
        tags = list(answer["predicted"])
        for entity, same in zip(answer["entities"], given_words["entities"], strict=True):
            begin, end = entity["words"]
            assert text[entity["start"] : entity["end"]] == entity["text"]
            visible = "".join(entity["text"].split())
            assert visible == "".join(answer["tokens"][begin:end]).strip("\u200e")
            lowest = np.array(min(answer["scores"][begin:end]))
            scaled = metrics.scaled(lowest, predictor.settings["entity_scale"])
            assert entity["score"] == pytest.approx(float(scaled), abs=1e-6)
            assert {tag[2:] for tag in tags[begin:end]} == {entity["label"]}
            assert same["text"] == " ".join(answer["tokens"][begin:end]).strip(" \u200e")
            assert (same["words"], same["label"]) == (entity["words"], entity["label"])
            assert "start" not in same
            tags[begin:end] = ["O"] * (end - begin)
        assert set(tags) <= {"O"}
        found.extend(answer["entities"])

    found = []
    holds()
    assert found


def test_an_entity_is_as_sure_as_its_least_sure_word():
    tags, scores = ["B-X", "I-X", "I-X", "O", "S-Y"], [0.9, 0.4, 0.7, 0.2, 0.8]
    assert [one["score"] for one in decode_entities(list("abcde"), tags, scores)] == [0.4, 0.8]


def test_an_entity_has_nothing_invisible_at_its_ends():
    text = "\ufeffof \u202b\u200fAda\u200d-Lou \u2067Byron\u200e \u202c : ."
    places = data.split_words(text)
    words = [text[begin:end] for begin, end in places]
    assert words[3:] == ["\u202c", ":", "."]
    tags = ["S-A", "B-B", "I-B", "E-B", "O", "S-A"]
    first, second, last = decode_entities(words, tags, [1.0] * 6, text, places)
    assert (first["text"], last["text"]) == ("of", ".")
    assert second["text"] == "Ada\u200d-Lou \u2067Byron"
    for entity in (first, second, last):
        assert text[entity["start"] : entity["end"]] == entity["text"]
    assert [one["text"] for one in decode_entities(words, tags, [1.0] * 6)] == ["of", second["text"], "."]
    (hidden,) = decode_entities(["\u200e"], ["B-X"], [1.0], "a \u200e", [(2, 3)])
    assert (hidden["text"], hidden["start"], hidden["end"]) == ("\u200e", 2, 3)


def test_the_run_says_how_inputs_are_cut_and_arguments_override_it(ner_runs, tmp_path):
    folder = ner_runs["byte-bpe"]
    predictor = finetune.load_predictor(folder)
    assert (predictor.max_seq_length, predictor.doc_stride) == (12, 5)
    predictor = finetune.load_predictor(folder, max_seq_length=32, doc_stride=3)
    assert (predictor.max_seq_length, predictor.doc_stride) == (32, 3)
    for file in folder.iterdir():
        if file.is_file() and file.name != "run.yaml":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert finetune.load_predictor(tmp_path).max_seq_length == 64  # all that it has positions for
    (tmp_path / "run.yaml").write_text("max_seq_length: some\n")
    with pytest.raises(ValueError, match=r"run.yaml: max_seq_length has the invalid value 'some'"):
        finetune.load_predictor(tmp_path)


@pytest.mark.parametrize("name", ["byte-bpe", "gru"])
def test_texts_get_the_labels_and_scores_of_the_evaluation(name, checkpoints, tmp_path, caplog):
    finetune_sentiment(SentimentConfig(**settings_of(name, checkpoints, tmp_path / "run")))
    rows = [line.split("\t") for line in (tmp_path / "run/predictions_test.tsv").read_text().splitlines()[1:]]
    assert len({row[2] for row in rows}) > 1
    data.warn_of_cut_texts.cache_clear()
    answers = finetune.predict(tmp_path / "run", [row[0] for row in rows], batch_size=7)
    assert [answer["predicted"] for answer in answers] == [row[2] for row in rows]
    assert [answer["score"] for answer in answers] == pytest.approx([float(row[3]) for row in rows], abs=2e-6)
    assert [record.message for record in caplog.records if "cut there" in record.message] == [
        "texts of more than 12 subwords are cut there, as in training and evaluation"
    ]
    with pytest.raises(ValueError, match="sample 1: this is a pair, and the model was trained on single texts"):
        finetune.predict(tmp_path / "run", ["a", ("a", "b")])
    with pytest.raises(ValueError, match="sample 0: this model labels texts"):
        finetune.predict(tmp_path / "run", [["a", "b"]])
    with pytest.raises(ValueError, match="--doc_stride 4: for words and questions; leave it out"):
        finetune.load_predictor(tmp_path / "run", doc_stride=4)


@pytest.mark.parametrize("name", ["byte-bpe", "lstm"])
def test_a_model_computes_in_the_precision_of_its_run(name, checkpoints, tmp_path, monkeypatch):
    """Labels and scores are those of the evaluation, to the last digit that is written; float32 gives others."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state()
    config = SentimentConfig(**settings_of(name, checkpoints, tmp_path / "run"))
    try:
        finetune_sentiment(config)
    finally:
        AcceleratorState._reset_state()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert (tmp_path / "run/run.yaml").read_text().startswith("# mixed precision bf16, 1 process, on a cpu\n")
    rows = [line.split("\t") for line in (tmp_path / "run/predictions_test.tsv").read_text().splitlines()[1:]]
    said = [(row[2], round(float(row[3]), 6)) for row in rows]
    texts = [row[0] for row in rows]
    batch_size = config.per_device_eval_batch_size
    answers = finetune.predict(tmp_path / "run", texts, batch_size=batch_size)
    assert [(answer["predicted"], answer["score"]) for answer in answers] == said
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    in_float32 = finetune.predict(tmp_path / "run", texts, batch_size=batch_size)
    assert [answer["score"] for answer in in_float32] != [score for _, score in said]
    # A run in float32 that goes on from there leaves no record.
    again = {"model_name_or_path": str(tmp_path / "run"), "output_dir": str(tmp_path / "again"), "max_steps": 1}
    finetune_sentiment(SentimentConfig(**TINY | again))
    assert "mixed_precision" not in json.loads((tmp_path / "again/config.json").read_text())


def test_pairs(checkpoints, tmp_path):
    rows = [{"a": "one two", "b": "three", "y": 1}, {"a": "four " * 9, "b": "five six", "y": 0}] * 8
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    extra = {"text_column_name": "a", "text_pair_column_name": "b", "label_column_name": "y", "dataset_name": None}
    extra |= {"train_file": str(file), "test_file": str(file), "learning_rate": 1e-3, "num_train_epochs": 30}
    finetune_sentiment(SentimentConfig(**settings_of("wordpiece", checkpoints, tmp_path / "run", **extra)))
    evaluated = [line.split("\t") for line in (tmp_path / "run/predictions_test.tsv").read_text().splitlines()[1:]]
    assert {row[3] for row in evaluated} == {"0", "1"}
    answers = finetune.predict(tmp_path / "run", [(row["a"], row["b"]) for row in rows])
    assert [answer["predicted"] for answer in answers] == [row[3] for row in evaluated]
    assert [answer["score"] for answer in answers] == pytest.approx([float(row[4]) for row in evaluated], abs=2e-6)
    with pytest.raises(ValueError, match="sample 0: this is a single text, and the model was trained on pairs"):
        finetune.predict(tmp_path / "run", ["one two"])


def test_single_texts_and_pairs_where_nobody_knows(checkpoints, tmp_path):
    """A model without run.yaml, as those of the Hub."""
    tokenizer = save(AutoModelForSequenceClassification, checkpoints, tmp_path, num_labels=3)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    samples = ["one two", ("one", "two three"), "", ("", "x")]
    answers = finetune.predict(tmp_path, samples)
    for sample, answer in zip(samples, answers, strict=True):
        encoded = tokenizer(*([sample] if isinstance(sample, str) else sample), return_tensors="pt")
        with torch.no_grad():
            score, label = model(**encoded).logits[0].softmax(-1).max(-1)
        assert answer["predicted"] == f"LABEL_{label}"
        assert answer["score"] == pytest.approx(float(score), abs=1e-5)


def save(auto, checkpoints, folder, **change):
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(checkpoints["wordpiece"], **change)
    auto.from_config(config).save_pretrained(folder)
    tokenizer = finetune.models.load_tokenizer(str(checkpoints["wordpiece"]))
    tokenizer.save_pretrained(folder)
    return tokenizer


def relabelled(folder, target, labels):
    for file in folder.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    config["label2id"] = {label: i for i, label in enumerate(labels)}
    (target / "config.json").write_text(json.dumps(config))


def test_labels_of_other_schemes(ner_runs, tmp_path, samples):
    words = samples["test"]["tokens"][:40]
    known = finetune.predict(ner_runs["byte-bpe"], words)
    number = finetune.load_predictor(ner_runs["byte-bpe"]).labels
    assert number[0] == "O"
    assert len(number) == 9

    def entities(other):
        """What the same model says with other labels, beside the labels of each word."""
        relabelled(ner_runs["byte-bpe"], tmp_path, other)
        for before, after in zip(known, finetune.predict(tmp_path, words), strict=True):
            assert after["predicted"] == [other[number.index(tag)] for tag in before["predicted"]]
            yield after["predicted"], [(*one["words"], one["label"]) for one in after["entities"]]

    # IOBES: a single word, a first, a middle, a last one; `O` is not label 0.
    for tags, found in entities(["S-X", "O", "B-X", "I-X", "E-X", "S-Y", "B-Y", "I-Y", "E-Y"]):
        assert found == [(begin, end + 1, kind) for kind, begin, end in get_entities(tags)]

    # Labels without a prefix, and one that is no type: runs of one label, as pipeline("simple") has them.
    total = 0
    for tags, found in entities(["O", "PER", "I_LOC", "B_LOC", "[CLS]", "U-ORG", "ORG", "TIME", "MONEY"]):
        read = {"O": "O", "[CLS]": "O", "I_LOC": "I-LOC", "B_LOC": "B-LOC", "U-ORG": "S-ORG"}
        expected = get_entities([read.get(tag, f"I-{tag}") for tag in tags])
        assert found == [(begin, end + 1, kind) for kind, begin, end in expected]
        total += len(found)
    assert total > 10

    # Parts of speech: labels, no entities.
    relabelled(ner_runs["byte-bpe"], tmp_path, [f"POS{i}" for i in range(9)])
    answer = finetune.predict(tmp_path, words)[0]
    assert answer["predicted"] == [f"POS{number.index(tag)}" for tag in known[0]["predicted"]]
    assert answer["entities"] == []


def test_a_word_without_a_subword_is_outside_wherever_o_stands(checkpoints, tmp_path):
    save(AutoModelForTokenClassification, checkpoints, tmp_path, id2label={0: "B-X", 1: "I-X", 2: "O"})
    assert finetune.predict(tmp_path, [["\u200e"], ["\ufe0f", "\u200e"]])[1]["predicted"] == ["O", "O"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("one text", "the samples are one string"),
        (pd.DataFrame({"text": ["a"]}), r"the samples are a table; give the list of one column, such as list\(frame"),
        ([("a", "b")], "sample 0: this model labels words: give a text or a list of words"),
        (["a", None], "sample 1: this model labels words"),
        ([["a", 1]], "sample 0: this model labels words"),
        ([["a", "b\tc"]], r"sample 0: the word 'b\\tc' is empty or breaks a line"),
        ([["a", ""]], "sample 0: the word '' is empty"),
        (["a", "b\ud83d"], r"sample 1: the text 'b\\ud83d' has half of a character \(a surrogate\)"),
        ({"a": 1}, "the samples are a dictionary; give a list of them"),
    ],
)
def test_samples_that_are_refused(ner_runs, given, message):
    with pytest.raises(ValueError, match=message):
        finetune.predict(ner_runs["gru"], given)


def test_nothing_in_nothing_out(ner_runs):
    assert finetune.predict(ner_runs["gru"], []) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_seq_length": 65}, "--max_seq_length 65: .* has positions for 64 tokens"),
        ({"max_seq_length": 7}, "--max_seq_length 7: must be at least 8"),
        ({"doc_stride": 10}, "--doc_stride 10: must be from 0 to 9"),
        ({"doc_stride": 0}, "--doc_stride 0: a CRF tags whole words"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"batch_size": "8"}, "batch_size='8': must be a whole number"),
        ({"min_precision": "0.9"}, "min_precision='0.9': must be a number"),
    ],
)
def test_arguments_that_are_refused(ner_runs, arguments, message):
    with pytest.raises(ValueError, match=message):
        finetune.load_predictor(ner_runs["crf"], **arguments)


def test_models_that_are_refused(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="bilstm: an untrained baseline; give the folder of a run"):
        finetune.load_predictor("bilstm")
    with pytest.raises(ValueError, match="/nope: no such folder"):
        finetune.load_predictor(tmp_path / "nope")
    save(AutoModelForMaskedLM, checkpoints, tmp_path / "mlm")
    with pytest.raises(ValueError, match="mlm: holds BertForMaskedLM; fine-tune it"):
        finetune.load_predictor(tmp_path / "mlm")
