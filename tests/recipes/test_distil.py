"""Distillation, end to end: what a student learns from, where it is kept, resumed runs, several processes."""

import hashlib
import json
import os
import platform
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from processes import run_script
from safetensors.torch import load_file

import finetune
from finetune import data, distillation, models, stages, tasks, teachers
from finetune.models.distilled_loss import number_loss, one_label_loss, several_labels_loss
from finetune.tasks import taught_texts
from recipes.distil import DistilConfig, distil
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

TINY = {"num_train_epochs": 3, "max_seq_length": 32, "per_device_train_batch_size": 8, "disable_tqdm": True}
SHAPE = {"model_name_or_path": "bilstm", "hidden_size": 16, "embedding_size": 16, "learning_rate": 1e-2}
LIGHT = {"dropout": 0.1, "char_features": "none"}
WORDS = {"joy": ("glad", "merry"), "anger": ("cross",), "fear": ("afraid",)}
OTHERS = ("the", "day", "was", "long", "and", "they", "went", "home")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Where outputs are kept if no flag says so: another place for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
    return folder / "finetune-teachers"


def drawn_texts(seed, number, kind):
    draw = random.Random(seed)
    rows = []
    for _ in range(number):
        names = draw.sample(list(WORDS), 1 if kind == "one" else draw.randint(0, 2))
        words = [draw.choice(WORDS[name]) for name in names] + draw.choices(OTHERS, k=5)
        draw.shuffle(words)
        label = {"one": names[0] if names else "", "several": names, "number": 0.5 + len(names)}[kind]
        rows.append({"text": " ".join(words), "label": label})
    return rows


@pytest.fixture(scope="module")
def texts():
    return {
        kind: {"train": drawn_texts(0, 64, kind), "validation": drawn_texts(1, 30, kind)}
        for kind in ("one", "several", "number")
    }


@pytest.fixture(scope="module")
def classifiers(texts, tmp_path_factory):
    """A teacher for each kind of labels, which has learned its data by heart."""
    folders = {}
    for kind, splits in texts.items():
        folders[kind] = tmp_path_factory.mktemp(kind) / "teacher"
        settings = TINY | SHAPE | LIGHT | {"num_train_epochs": 8, "output_dir": str(folders[kind])}
        finetune_sentiment(SentimentConfig(**settings), splits)
    return folders


@pytest.fixture(scope="module")
def tagger(checkpoints, tmp_path_factory):
    """A tagger whose tokenizer cuts words into pieces of its own, and whose labels have another order."""
    folder = tmp_path_factory.mktemp("words") / "teacher"
    settings = TINY | {"dataset_name": "samples", "max_train_samples": 60, "max_eval_samples": 20, "max_steps": 20}
    settings |= {
        "model_name_or_path": str(checkpoints["wordpiece"]),
        "learning_rate": 2e-3,
        "output_dir": str(folder),
    }
    finetune_ner(NerConfig(**settings))
    told = json.loads((folder / "config.json").read_text())
    names = list(told["id2label"].values())
    names = names[3:] + names[:3]
    told |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def settings_of(teacher, folder, **more):
    return DistilConfig(**(TINY | SHAPE | {"teacher": str(teacher), "output_dir": str(folder)} | more))


def words_of_teacher(teacher, sentences, labels):
    """For each word, the distribution that `finetune.predict` tells; None for a word without a subword."""
    told = finetune.predict(teacher, sentences, top_k=0)
    lists = [own for answer in told for own in answer["top_k"]]
    return [
        [{one["label"]: one["score"] for one in own}[label] for label in labels] if own else None for own in lists
    ]


@pytest.mark.parametrize("student", ["unigram", "byte-bpe", "bilstm"])
def test_each_word_has_the_distribution_of_its_teacher(tagger, checkpoints, samples, tmp_path, student):
    """The teacher splits words otherwise than the student, and has windows of another length."""
    long = [word for words in samples["train"]["tokens"][:12] for word in words]
    sentences = [*samples["train"]["tokens"][20:40], long, ["\u200b", "Oslo", "\u200d", "\u4e00"]]
    rows = [{"tokens": own, "ner_tags": ["O"] * len(own)} for own in sentences]
    # Each label must occur, since the student's labels are those of the training data.
    kinds = sorted({tag[2:] for tags in samples["train"]["ner_tags"] for tag in tags if tag != "O"})
    rows.append({"tokens": kinds, "ner_tags": [f"B-{kind}" for kind in kinds]})
    more = {"model_name_or_path": str(checkpoints[student])} if student in checkpoints else {}
    unlabeled = tmp_path / "more.jsonl"
    unlabeled.write_text('{"tokens": ["Ada", "flew", "to", "Bergen"]}\n{"text": "Oslo\'s mayor, she said."}\n\n')
    config = settings_of(tagger, tmp_path / "run", max_seq_length=24, eval_strategy="no", save_strategy="no", **more)
    if student not in checkpoints:
        config = replace(config, char_features="none")
    else:
        config = replace(config, hidden_size=200, embedding_size=100)  # the defaults
    config = replace(config, unlabeled_file=str(unlabeled), validation_split_percentage=0.0)

    found = teachers.find_teachers(config.teacher)
    task = tasks.tagging
    job = stages.begin(distillation.resolved(config, found), task, {"train": rows})
    lesson = distillation.begin(job, found)
    distillation.ask(lesson)
    model, tokenizer = models.load(
        found[0].head, job.config, job.labels, words=lesson.words(), max_seq_length=24, head="linear"
    )
    stages.encode(job, model, tokenizer, lambda encoded: distillation.with_teachers(lesson, encoded, tokenizer))
    job.run.release()
    assert found[0].labels != job.labels

    sentences = [*(row["tokens"] for row in rows), ["Ada", "flew", "to", "Bergen"]]
    sentences.append(["Oslo", "'s", "mayor", ",", "she", "said", "."])
    expected = words_of_teacher(tagger, sentences, job.labels)
    assert None in expected, "a word of which the teacher's tokenizer makes nothing"
    heat = finetune.load_predictor(tagger).settings["score_temperature"]
    taught = job.encoded["train"].rows
    shown = data.align_words(
        [word for words in sentences for word in words],
        np.cumsum([0, *map(len, sentences)]),
        tokenizer,
        max_seq_length=24,
    )
    column = taught.take(range(len(taught))).tokens["teacher"][:, 0]  # (T, L)
    at = shown.word_of_token
    assert len(column) == len(at)
    assert (column[at < 0] == 0).all(), "only the first subword of a word has a target"
    assert len(taught) > len(sentences), "the long sentence is in several windows"
    for token in np.flatnonzero(at >= 0):
        own = expected[at[token]]
        if own is None:
            assert (column[token] == 0).all()
        else:
            # `predict` tells calibrated scores.
            scores = torch.tensor(column[token]).div(heat).softmax(0).tolist()
            assert scores == pytest.approx(own, abs=2e-6)
    labels = taught.tokens["labels"]
    without = int(taught.offsets[len(taught) - 2])  # the last two rows have no labels
    assert (labels[without:] == -100).all()
    assert (labels[:without] != -100).sum() == sum(len(row["tokens"]) for row in rows) - (
        shown.word_counts == 0
    ).sum()


def agreement(folder, teacher, samples):
    ours, theirs = ([answer["predicted"] for answer in finetune.predict(f, samples)] for f in (folder, teacher))
    return np.mean([a == b for a, b in zip(ours, theirs, strict=True)])


def test_without_the_share_of_the_labels_only_the_teacher_counts(texts, classifiers, tmp_path):
    """The labels of the training texts are drawn by lot."""
    draw = random.Random(0)
    wrong = [row | {"label": draw.choice(list(WORDS))} for row in texts["one"]["train"]]
    splits = texts["one"] | {"train": wrong}
    samples = [row["text"] for row in wrong]
    agreed = {}
    for alpha in (0.0, 1.0):
        config = settings_of(
            classifiers["one"], tmp_path / str(alpha), distil_alpha=alpha, num_train_epochs=8, **LIGHT
        )
        distil(config, splits)
        agreed[alpha] = agreement(config.output_dir, classifiers["one"], samples)
    assert agreed[0.0] > 0.9
    assert agreed[1.0] < 0.7


@pytest.mark.parametrize("kind", ["several", "number"])
def test_text_without_labels_teaches(kind, texts, classifiers, tmp_path, capfd):
    """Four texts with labels are too few. The teacher's outputs for others make up for them."""
    file = tmp_path / "more.txt"
    file.write_text("\n".join(row["text"] for row in drawn_texts(7, 120, kind)) + "\n\n")
    rows = texts[kind]["train"]
    few = [*rows[:4], *(next(row for row in rows if name in row["label"]) for name in WORDS if kind == "several")]
    scores = {}
    for told in (None, str(file)):
        config = settings_of(
            classifiers[kind], tmp_path / f"{told is None}", unlabeled_file=told, num_train_epochs=10
        )
        metric = "f1_micro" if kind == "several" else "pearson"
        scores[told] = distil(config, texts[kind] | {"train": few}).results[f"eval_{metric}"]
    assert scores[str(file)] > 0.7
    assert scores[str(file)] > scores[None] + 0.2
    assert "without labels: 120 texts" in capfd.readouterr().out
    card = (tmp_path / "False" / "README.md").read_text()
    assert "distilled from `teacher`: " in card
    assert "and on 120 texts without labels" in card


@pytest.mark.parametrize("loss", [one_label_loss, several_labels_loss, number_loss])
def test_a_text_without_labels_has_no_part_of_the_labels_in_its_loss(checkpoints, loss):
    problem = {one_label_loss: "single_label_classification", several_labels_loss: "multi_label_classification"}
    L = 1 if loss is number_loss else 3
    cut = SimpleNamespace(max_seq_length=8, long_texts="cut")
    encoded = taught_texts.encode(["a day", "home"], models.load_tokenizer(str(checkpoints["wordpiece"])), cut)
    rows = taught_texts.unlabeled(encoded, problem.get(loss, "regression"), L)
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, L), torch.randn(2, 1, L)
    labels = torch.from_numpy(rows.samples["labels"])
    labels = labels if labels.is_floating_point() else labels.long()  # as batches have them
    arguments = (logits[:, 0] if loss is number_loss else logits, labels, teacher)
    heat = () if loss is number_loss else (2.0,)
    # `alpha`, the share of the labels, changes nothing.
    assert loss(*arguments, *heat, 0.0).item() == pytest.approx(loss(*arguments, *heat, 1.0).item())


def kept(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob("outputs.npy") for path in [path.parent]}


def test_outputs_are_kept_and_recomputed_if_anything_changed(texts, classifiers, tmp_path, capfd, cache):
    def run(name, teacher=classifiers["one"], splits=texts["one"], **more):
        distil(settings_of(teacher, tmp_path / name, max_steps=1, **more), splits)
        return capfd.readouterr().out, (tmp_path / name / "model.safetensors").read_bytes()

    said, weights = run("first")
    assert "64 outputs computed" in said
    first = kept(cache)
    said, again = run("second")
    assert "its 64 outputs are read from" in said
    assert kept(cache) == first
    assert again == weights, "running the teacher draws no random number of the student"

    (file,) = cache.rglob("outputs.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "64 outputs computed" in run("damaged")[0]

    changed = texts["one"] | {"train": [{"text": "glad now", "label": "joy"}, *texts["one"]["train"][1:]]}
    assert "64 outputs computed" in run("texts", splits=changed)[0]
    other = tmp_path / "other"
    shutil.copytree(classifiers["one"], other)
    weights = load_file(other / "model.safetensors")
    models.load_as_saved(str(other))[0].state_dict()
    from safetensors.torch import save_file

    save_file(
        weights | {"classifier.bias": weights["classifier.bias"] + 1}, other / "model.safetensors", {"format": "pt"}
    )
    assert "64 outputs computed" in run("teacher", teacher=other)[0]
    assert len(kept(cache)) == 3
    said, _ = run("folder", teacher_cache=str(tmp_path / "mine"))
    assert f"kept in {tmp_path / 'mine'}" in said
    (finished,) = kept(tmp_path / "mine")
    (tmp_path / "mine" / finished / "about.json").unlink()
    left = tmp_path / "mine" / f".{finished}.{platform.node()}.{os.getpid()}.writing"
    left.mkdir()  # a process with this number was killed here
    (left / "outputs.npy").write_bytes(b"half")
    assert "64 outputs computed" in run("left", teacher_cache=str(tmp_path / "mine"))[0]
    assert not left.exists()
    assert not list(cache.glob(".*")), "nothing half-written is left"


def test_the_mean_of_two_teachers(texts, classifiers, tmp_path):
    """Two equal teachers are one; and the student may be in between two others."""
    one = classifiers["one"]
    twin = tmp_path / "twin"
    shutil.copytree(one, twin)
    results = []
    for name, told in (("a", str(one)), ("b", f"{one},{twin}")):
        distil(settings_of(told, tmp_path / name, max_steps=5), texts["one"])
        results.append(load_file(tmp_path / name / "model.safetensors"))
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-4, atol=1e-6)


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("student", ["bilstm-crf", "unigram"])
def test_a_resumed_run_has_the_same_bytes(tagger, checkpoints, tmp_path, student):
    file = tmp_path / "more.conll"
    file.write_text("Ada\nflew\n\nto\nBergen\n\n")
    more = {"dataset_name": "samples", "max_train_samples": 40, "max_eval_samples": 10, "unlabeled_file": str(file)}
    more |= {"model_name_or_path": student} if student not in checkpoints else {
        "model_name_or_path": str(checkpoints[student]), "hidden_size": 200, "embedding_size": 100
    }  # fmt: skip
    more |= {"max_steps": 6, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    whole = settings_of(tagger, tmp_path / "whole", save_total_limit=9, **more)
    distil(whole)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "killed" / f"checkpoint-{step}")
    (tmp_path / "killed" / "model.safetensors").unlink()
    distil(replace(whole, output_dir=str(tmp_path / "killed"), resume_from_checkpoint="true"))
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    for split in ("eval", "test"):
        name = f"predictions_{split}.conll"
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_equal_one(tagger, tmp_path):
    file = tmp_path / "more.conll"
    file.write_text("Ada\nflew\n\nto\nBergen\n\nOslo\n")
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        flags = vars(
            settings_of(
                *(tagger, folder),
                dataset_name="samples",
                model_name_or_path="bilstm-crf",
                unlabeled_file=str(file),
                max_train_samples=30,
                max_eval_samples=10,
                dropout=0.0,
                word_dropout=0.0,
                max_steps=4,
                per_device_train_batch_size=8 // processes,
                teacher_cache=str(folder / "kept"),
            )
        )
        folder.with_suffix(".cache").mkdir()
        flags["teacher_cache"] = str(folder.with_suffix(".cache"))
        words = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        done = run_script("recipes/distil.py", *words, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("outputs computed") == 2
        found[processes] = folder
    outputs = [sorted(Path(f"{folder}.cache").rglob("outputs.npy")) for folder in found.values()]
    assert len(outputs[0]) == 2
    for one, two in zip(*outputs, strict=True):
        assert one.read_bytes() == two.read_bytes()
    ours, theirs = (load_file(folder / "model.safetensors") for folder in found.values())
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)
    assert (found[1] / "predictions_test.conll").read_bytes() == (found[2] / "predictions_test.conll").read_bytes()
