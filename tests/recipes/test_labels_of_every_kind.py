"""Several labels a text, a number, plain tags: end to end, on one process and two, compared, predicted, resumed."""

import csv
import json
import random
import re

import numpy as np
import pytest
import torch
from processes import ROOT, run_script
from safetensors.torch import load_file
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_union
from sklearn.svm import LinearSVC
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_scheduler

import finetune
from finetune import training
from finetune.comparison import comparison_of
from finetune.comparison.finished import state_of
from finetune.tasks import classification
from recipes import predict
from recipes.compare import RECIPES, CompareConfig, compare, run_of
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment
from recipes.simple_baselines import train_svm

TINY = {"num_train_epochs": 3, "max_seq_length": 32, "save_total_limit": 9, "disable_tqdm": True}
SHAPE = {"model_name_or_path": "bilstm", "hidden_size": 16, "embedding_size": 16, "learning_rate": 1e-2}
WORDS = {"joy": "glad", "anger": "cross", "fear": "afraid"}
TAGS = {"ran": "VERB", "saw": "VERB", "the": "DET", "dog": "NOUN", "Ada": "PROPN", "old": "ADJ"}
TEXT = "the winter had been long , but nobody in the valley spoke of leaving it"
SIZES = {"train": 48, "validation": 24, "test": 24}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    draw = random.Random(0)
    for split, size in SIZES.items():
        texts = [[draw.choice((*WORDS.values(), "the", "day", "was")) for _ in range(6)] for _ in range(size)]
        several = [
            {"text": " ".join(text), "label": [k for k, word in WORDS.items() if word in text]} for text in texts
        ]
        numbers = [{"text": " ".join(text), "label": 0.5 + text.count("glad")} for text in texts]
        for name, rows in (("several", several), ("number", numbers)):
            (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sentences = [[draw.choice(list(TAGS)) for _ in range(5)] for _ in range(size)]
        lines = ("".join(f"{word}\t{TAGS[word]}\n" for word in sentence) + "\n" for sentence in sentences)
        (folder / f"tags-{split}.conll").write_text("".join(lines))
    return folder


def flags(files, name, **more):
    ending = "conll" if name == "tags" else "jsonl"
    own = TINY | {f"{split}_file": str(files / f"{name}-{split}.{ending}") for split in SIZES}
    baseline = more.get("model_name_or_path", "bilstm").startswith("bilstm")
    return own | (SHAPE if baseline else {"learning_rate": 1e-3}) | more


def rows_of(folder, name="test"):
    with (folder / f"predictions_{name}.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def card_of(folder, monkeypatch):
    """Runs the snippet of a model card as a user would. Returns its names, and the value of its last line."""
    monkeypatch.chdir(folder.parent)
    lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1].strip().splitlines()
    names = {}
    exec("\n".join(lines[:-1]), names)
    return names, eval(lines[-1], names)


@pytest.mark.parametrize("name", ["bilstm", "wordpiece"])
def test_several_labels(name, files, checkpoints, tmp_path, monkeypatch):
    model = str(checkpoints.get(name, name))
    more = {"class_weights": "balanced", "label_smoothing_factor": 0.1} if name == "bilstm" else {"focal_gamma": 2.0}
    own = flags(files, "several", model_name_or_path=model, **more)
    result = finetune_sentiment(SentimentConfig(**own, output_dir=str(tmp_path / "run")))
    rows = rows_of(tmp_path / "run")
    right, said = (
        np.array([[label in json.loads(row[key]) for label in WORDS] for row in rows])
        for key in ("label", "predicted")
    )
    for key, average in (("f1_micro", "micro"), ("f1_macro", "macro")):
        assert result.results[f"test_{key}"] == pytest.approx(f1_score(right, said, average=average, zero_division=0))
    assert result.results["test_accuracy"] == pytest.approx(accuracy_score(right, said))
    if name == "bilstm":
        assert result.results["test_f1_micro"] > 0.9  # it learned which word is which label

    predictor = finetune.load_predictor(tmp_path / "run")
    threshold = json.loads((tmp_path / "run/config.json").read_text())["threshold"]
    assert predictor.settings["threshold"] == threshold
    for row, answer in zip(rows, predictor([row["text"] for row in rows]), strict=True):
        assert answer["predicted"] == json.loads(row["predicted"])
        for label, score in answer["scores"].items():  # rounded to six digits
            assert score > threshold - 1e-6 if label in answer["predicted"] else score < threshold + 1e-6

    names, shown = card_of(tmp_path / "run", monkeypatch)
    text = "I would see it again."
    (answer,) = predictor([text])
    assert sorted(shown) == sorted(answer["predicted"])
    for own, found in (
        (answer, names["scores"]),
        (predictor([rows[0]["text"]])[0], names["classifier"](rows[0]["text"], top_k=None)),
    ):
        assert {one["label"]: one["score"] for one in found} == pytest.approx(own["scores"], abs=1e-5)


def test_several_labels_of_a_cell_come_back_in_their_form(tmp_path):
    rows = ["glad day,joy", "glad cross,anger|joy", "cross the,anger"] * 8
    (tmp_path / "x.csv").write_text("\n".join(["text,label", *rows, ""]))
    own = TINY | SHAPE | {"num_train_epochs": 20, "eval_strategy": "no", "label_separator": "|"}
    finetune_sentiment(SentimentConfig(**own, train_file=str(tmp_path / "x.csv"), output_dir=str(tmp_path / "run")))
    flags = ["--model_name_or_path", str(tmp_path / "run"), "--input_file", str(tmp_path / "x.csv")]
    predict.main([*flags, "--output_file", str(tmp_path / "out.csv")])
    with (tmp_path / "out.csv").open(newline="") as file:
        said = [(row["label"], row["predicted"]) for row in csv.DictReader(file)]
    assert {"|".join(sorted(label.split("|"))) for _, label in said} == {"joy", "anger", "anger|joy"}
    assert all(label == "|".join(sorted(found.split("|"))) for label, found in said)


@pytest.mark.parametrize("name", ["bilstm", "byte-bpe"])
def test_long_texts_in_windows(name, checkpoints, tmp_path):
    """The word that tells the label stands where a cut text would not show it."""
    draw = random.Random(1)
    for split, size in SIZES.items():
        rows = [[draw.choice(("glad", "cross")), *["the day was"] * 6][:: draw.choice((1, -1))] for _ in range(size)]
        lines = ({"text": " ".join(row), "label": str("glad" in row)} for row in rows)
        (tmp_path / f"long-{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = flags(tmp_path, "long", model_name_or_path=str(checkpoints.get(name, name)), max_seq_length=12)
    own |= {"long_texts": "window", "num_train_epochs": 20} | ({"dropout": 0.0} if name == "bilstm" else {})
    result = finetune_sentiment(SentimentConfig(**own, output_dir=str(tmp_path / "run")))
    rows = rows_of(tmp_path / "run")
    assert len(rows) == SIZES["test"]
    if name == "bilstm":
        assert result.results["test_accuracy"] > 0.9
    answers = finetune.predict(tmp_path / "run", [row["text"] for row in rows])
    assert [(answer["predicted"], f"{answer['score']:.6f}") for answer in answers] == [
        (row["predicted"], row["score"]) for row in rows
    ]


def test_a_number(files, tmp_path, monkeypatch):
    result = finetune_sentiment(SentimentConfig(**flags(files, "number"), output_dir=str(tmp_path / "run")))
    rows = rows_of(tmp_path / "run")
    right, said = (np.array([float(row[key]) for row in rows]) for key in ("label", "predicted"))
    assert result.results["test_pearson"] == pytest.approx(stats.pearsonr(right, said).statistic)
    assert result.results["test_spearman"] == pytest.approx(stats.spearmanr(right, said).statistic)
    assert result.results["test_mse"] == pytest.approx(mean_squared_error(right, said))
    assert result.results["test_pearson"] > 0.5
    assert result.results["best_epoch"] > 0
    answers = finetune.predict(tmp_path / "run", [row["text"] for row in rows])
    assert [answer["predicted"] for answer in answers] == pytest.approx(said.tolist(), abs=1e-6)
    names, _ = card_of(tmp_path / "run", monkeypatch)
    found = names["classifier"]([row["text"] for row in rows])
    assert [one["score"] for one in found] == pytest.approx(said.tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["bilstm", "wordpiece"])
def test_a_number_of_pairs(name, checkpoints, tmp_path, monkeypatch):
    """How many words two texts have in common; `pipeline()` says what the evaluation said."""
    draw = random.Random(3)
    for split, size in SIZES.items():
        pairs = [[draw.sample(["kite", "lamp", "moss", "oak"], 2) for _ in "ab"] for _ in range(size)]
        rows = [{"text": " ".join(a), "text_pair": " ".join(b), "label": len({*a} & {*b}) / 2} for a, b in pairs]
        (tmp_path / f"pairs-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = flags(tmp_path, "pairs", model_name_or_path=str(checkpoints.get(name, name)))
    finetune_sentiment(SentimentConfig(**own, text_pair_column_name="text_pair", output_dir=str(tmp_path / "run")))
    rows = rows_of(tmp_path / "run")
    names, shown = card_of(tmp_path / "run", monkeypatch)
    found = names["classifier"]([{"text": row["text"], "text_pair": row["text_pair"]} for row in rows])
    assert [one["score"] for one in found] == pytest.approx([float(row["predicted"]) for row in rows], abs=1e-5)
    (answer,) = finetune.predict(tmp_path / "run", [("I would see it again.", "Once was enough.")])
    assert shown["score"] == pytest.approx(answer["predicted"], abs=1e-5)


@pytest.mark.parametrize("name", ["bilstm", "wordpiece", "byte-bpe"])
def test_a_new_head_for_a_number_starts_at_the_mean(name, checkpoints, tmp_path):
    rows = {split: [{"text": "glad day", "label": 1000.5 + i} for i in range(8)] for split in SIZES}
    for split, own in rows.items():
        (tmp_path / f"far-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    model = str(checkpoints.get(name, name))
    own = flags(tmp_path, "far", model_name_or_path=model, max_steps=1) | {"learning_rate": 1e-9}
    finetune_sentiment(SentimentConfig(**own, output_dir=str(tmp_path / "run")))
    assert all(abs(float(row["predicted"]) - 1004) < 3 for row in rows_of(tmp_path / "run"))
    # A head that is there stays as it is, whatever the mean of the new data is.
    lines = ({"text": "glad day", "label": 1.5 + i} for i in range(8))
    (tmp_path / "far-train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = {flag: value for flag, value in own.items() if flag not in SHAPE} | {"learning_rate": 1e-9}
    own["model_name_or_path"] = str(tmp_path / "run")
    finetune_sentiment(SentimentConfig(**own, output_dir=str(tmp_path / "more")))
    assert all(abs(float(row["predicted"]) - 1004) < 3 for row in rows_of(tmp_path / "more"))


@pytest.mark.parametrize("name", ["bilstm", "wordpiece"])
def test_a_new_head_of_several_labels_starts_at_their_shares(name, files, checkpoints, tmp_path):
    own = flags(files, "several", model_name_or_path=str(checkpoints.get(name, name)), max_steps=1)
    result = finetune_sentiment(SentimentConfig(**own | {"learning_rate": 1e-9}, output_dir=str(tmp_path / "run")))
    train = [json.loads(line)["label"] for line in (files / "several-train.jsonl").read_text().splitlines()]
    share = {label: (sum(label in own for own in train) + 1) / (len(train) + 2) for label in WORDS}
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    bias = [part.bias for part in found.modules() if isinstance(part, torch.nn.Linear)][-1]
    assert bias.sigmoid().tolist() == pytest.approx([share[label] for label in sorted(WORDS)], abs=1e-6)
    # The first loss is about that of saying the shares; without the bias it is log 2.
    entropy = np.mean([-p * np.log(p) - (1 - p) * np.log(1 - p) for p in share.values()])
    assert abs(result.results["eval_loss"] - entropy) < 0.05
    # Weights that make a label as heavy as its absence start it at one half.
    config = SentimentConfig(**own | {"class_weights": "balanced"}, output_dir=str(tmp_path / "balanced"))
    assert classification.start(classification.read(config)["train"], "balanced") == pytest.approx([0] * 3, abs=0.1)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
def test_steps_are_those_of_plain_torch(kind, checkpoints, tmp_path):
    """Pairs of texts, against a padded model of `transformers` with its own loss, in a loop written out."""
    draw = random.Random(4)
    texts = [[" ".join(draw.choices(TEXT.split(), k=draw.randint(1, 9))) for _ in "ab"] for _ in range(20)]
    names = ["number"] if kind == "regression" else ["x", "y", "z"]
    labels = [draw.choice(names) for _ in texts]
    if kind == "multi_label_classification":
        labels = [draw.sample(names, draw.randint(0, 3)) for _ in texts]
    elif kind == "regression":
        labels = [draw.uniform(1, 5) for _ in texts]
    index = {name: i for i, name in enumerate(names)}
    sizes = {"id2label": dict(enumerate(names)), "label2id": index}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "problem_type": kind}
    plain = AutoModelForSequenceClassification.from_pretrained(checkpoints["wordpiece"], **sizes, **off)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["wordpiece"])
    for part in (plain, tokenizer):
        part.save_pretrained(tmp_path / "begin")
    rows = [{"text": a, "text_pair": b, "label": y} for (a, b), y in zip(texts, labels, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = TINY | {"model_name_or_path": str(tmp_path / "begin"), "text_pair_column_name": "text_pair"}
    own |= {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.1, "eval_strategy": "no"}
    own |= {"train_file": str(tmp_path / "a.jsonl"), "max_grad_norm": 0.5, "num_train_epochs": 2, "seed": 7}
    own |= {"logging_steps": 1}
    result = finetune_sentiment(SentimentConfig(**own, output_dir=str(tmp_path / "run")))

    decayed = [p for p in plain.parameters() if p.ndim > 1]
    others = [p for p in plain.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = get_scheduler("linear", optimizer, 1, 6)  # warm-up over a tenth, rounded up
    targets = {
        "regression": lambda y: torch.tensor(y, dtype=torch.float32),
        "multi_label_classification": lambda y: torch.tensor([[float(name in own) for name in names] for own in y]),
        "single_label_classification": lambda y: torch.tensor([index[name] for name in y]),
    }[kind]
    plain.train()
    losses = []
    for epoch in range(2):
        order = np.random.default_rng((7, epoch)).permutation(20)
        for ids in (order[:8], order[8:16], order[16:]):
            batch = tokenizer([texts[i][0] for i in ids], [texts[i][1] for i in ids], padding=True, truncation=True,
                              max_length=32, return_tensors="pt")  # fmt: skip
            losses.append(plain(**batch, labels=targets([labels[i] for i in ids])).loss)
            losses[-1].backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert [line["loss"] for line in result.history] == pytest.approx([float(loss) for loss in losses], rel=1e-4)
    trained = load_file(tmp_path / "run/model.safetensors")
    begun = load_file(tmp_path / "begin/model.safetensors")
    for name, weight in plain.state_dict().items():
        assert torch.allclose(trained[name], weight, atol=2e-5), name
    assert (trained["classifier.weight"] - begun["classifier.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["bilstm", "bilstm-crf", "unigram"])
def test_plain_tags(name, files, checkpoints, tmp_path):
    model = str(checkpoints[name]) if name in checkpoints else name
    own = flags(files, "tags", model_name_or_path=model)
    result = finetune_ner(NerConfig(**own, output_dir=str(tmp_path / "run")))
    lines = [line.split("\t") for line in (tmp_path / "run/predictions_test.conll").read_text().splitlines() if line]
    right, said = ([line[at] for line in lines] for at in (1, 2))
    assert result.results["test_accuracy"] == pytest.approx(accuracy_score(right, said))
    expected = f1_score(right, said, average="macro", labels=sorted(set(right)), zero_division=0)
    assert result.results["test_f1_macro"] == pytest.approx(expected)
    assert result.results["test_words"] == result.results["test_words_scored"] == len(lines) == 24 * 5
    assert "test_f1" not in result.results
    if name == "bilstm":
        assert result.results["test_accuracy"] > 0.9
    answers = finetune.predict(tmp_path / "run", [["the", "old", "dog", "ran"], ["Ada"]])
    assert [len(answer["predicted"]) for answer in answers] == [4, 1]
    assert answers[0]["entities"] == []


@pytest.mark.parametrize("kind", ["several", "number", "tags"])
def test_resumed_on_two_processes_and_compared(kind, files, tmp_path):
    train, config, script = (
        (finetune_ner, NerConfig, "ner") if kind == "tags" else (finetune_sentiment, SentimentConfig, "sentiment")
    )
    # Without dropout, so that the processes draw nothing.
    own = flags(files, kind) | {"dropout": 0.0, "word_dropout": 0.0, "per_device_train_batch_size": 16}
    if kind == "several":
        own |= {"class_weights": "joy=3", "focal_gamma": 1.0}
    one = train(config(**own, output_dir=str(tmp_path / "one")))
    half = {"resume_from_checkpoint": str(training.checkpoints(tmp_path / "one")[0])}
    train(config(**own | half, output_dir=str(tmp_path / "resumed")))
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "resumed")}) == 1

    given = [f"--{key}={value}" for key, value in (own | {"per_device_train_batch_size": 8}).items()]
    done = run_script(ROOT / f"recipes/{script}.py", *given, f"--output_dir={tmp_path / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads((tmp_path / "two/all_results.json").read_text())
    assert two["test_loss"] == pytest.approx(one.results["test_loss"], rel=1e-3)

    other = "dictionary" if kind == "tags" else "svm"
    configs = {name: config(**own | {"model_name_or_path": name}) for name in ("bilstm", other)}
    report = compare(CompareConfig(configs, (42,), str(tmp_path / "compared")))
    metric = {"several": "f1_micro", "number": "pearson", "tags": "accuracy"}[kind]
    assert report["metric"] == metric
    assert report["models"]["bilstm"]["scores"][f"test_{metric}"]["values"] == [one.results[f"test_{metric}"]]
    assert len(report["pairs"]) == 1
    assert (tmp_path / "compared/report.html").exists()


def test_the_loss_of_the_history_is_over_the_weights(files, tmp_path):
    """Weights far below 1: neither they nor their sum are whole numbers."""
    more = {"max_steps": 1, "logging_steps": 1, "eval_strategy": "no", "save_strategy": "no", "dropout": 0.0}
    more |= {"class_weights": "joy=0.001,anger=0.002", "learning_rate": 1e-9, "per_device_train_batch_size": 48}
    own = flags(files, "several", **more) | {"validation_file": str(files / "several-train.jsonl")}
    # Each text has one of these labels: all targets have a weight.
    rows = [
        {"text": word, "label": label} for label, word in (("joy", "glad"), ("anger", "cross")) for _ in range(24)
    ]
    for split in SIZES:
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        own[f"{split}_file"] = str(tmp_path / f"{split}.jsonl")
    result = finetune_sentiment(SentimentConfig(**own, output_dir=str(tmp_path / "run")))
    assert result.history[0]["loss"] == pytest.approx(result.results["eval_loss"], rel=0.1)  # dropout


@pytest.mark.parametrize("given", [["all"], ["a"], ["a", "all"]])
def test_svms_for_one_label_in_all_and_for_one_that_every_text_has(given, tmp_path):
    draw = random.Random(0)
    for split in SIZES:
        texts = [" ".join(draw.choices(["cat", "dog", "sun"], k=4)) for _ in range(30)]
        rows = [{"text": t, "label": [k for k in given if k == "all" or "cat" in t]} for t in texts]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {f"{split}_file": str(tmp_path / f"{split}.jsonl") for split in SIZES}
    result = train_svm(SentimentConfig(**own, model_name_or_path="svm", output_dir=str(tmp_path / "run")))
    assert result.results["test_f1_micro"] > 0.9
    assert {row["score"] for row in rows_of(tmp_path / "run")} == {""}  # it knows no probability


def test_the_threshold_of_the_svms_is_the_best_on_the_validation_split(tmp_path):
    """Against scikit-learn and every threshold in turn. Each label is rare, so few distances are above 0."""
    draw = random.Random(5)
    for split in SIZES:
        rows = []
        for _ in range(60):
            words = draw.choices(TEXT.split(), k=6)
            named = [k for k, word in (("a", "winter"), ("b", "valley")) if word in words]
            rows.append({"text": " ".join(words), "label": named if draw.random() < 0.6 else []})
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {f"{split}_file": str(tmp_path / f"{split}.jsonl") for split in SIZES}
    config = SentimentConfig(**own, model_name_or_path="svm", output_dir=str(tmp_path / "run"))
    results = train_svm(config).results
    splits = classification.read(config)
    features = make_union(
        TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    rows = features.fit_transform(splits["train"]["text"])
    gold = {split: np.array([[k in own for k in "ab"] for own in splits[split]["label"]]) for split in splits}
    svm = OneVsRestClassifier(LinearSVC(C=results["C"], random_state=0)).fit(rows, gold["train"].astype(float))
    distances = {split: svm.decision_function(features.transform(splits[split]["text"])) for split in splits}
    best = {t: f1_score(gold["validation"], distances["validation"] >= t, average="micro")
            for t in distances["validation"].ravel()}  # fmt: skip
    assert results["eval_f1_micro"] == pytest.approx(max(best.values()))
    assert results["eval_f1_micro"] > f1_score(gold["validation"], distances["validation"] >= 0, average="micro")
    said = np.array([[k in json.loads(row["predicted"]) for k in "ab"] for row in rows_of(tmp_path / "run")])
    assert results["test_f1_micro"] == pytest.approx(f1_score(gold["test"], said, average="micro"))


def test_labels_that_look_like_lists(tmp_path):
    """One label a text, which is written as JSON writes a list, is one label."""
    for split, size in SIZES.items():
        rows = [f'{text}\t["{text}", "x"]\n' for text in ("glad", "cross") for _ in range(size)]
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + "".join(rows))
    own = {f"{split}_file": str(tmp_path / f"{split}.tsv") for split in SIZES} | {"model_name_or_path": "svm"}
    config = SentimentConfig(**own, output_dir=str(tmp_path / "run"))
    train_svm(config)
    report = comparison_of({("svm", 0): config}, classification.read(config), "test", classification)
    assert report["labels"] == ['["cross", "x"]', '["glad", "x"]']
    assert report["models"]["svm"]["scores"]["test_accuracy"]["values"] == [1.0]


def test_a_threshold_of_the_model_before_is_not_kept(files, tmp_path):
    """Without a validation split, 0.5 is what the evaluation and predict go by."""
    first = flags(files, "several", num_train_epochs=1)
    finetune_sentiment(SentimentConfig(**first, output_dir=str(tmp_path / "first")))
    path = tmp_path / "first/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 0.01}))
    more = {"model_name_or_path": str(tmp_path / "first"), "max_steps": 1, "eval_strategy": "no"}
    own = TINY | {f"{split}_file": str(files / f"several-{split}.jsonl") for split in ("train", "test")} | more
    finetune_sentiment(SentimentConfig(**own, output_dir=str(tmp_path / "second")))
    rows = rows_of(tmp_path / "second")
    said = finetune.predict(tmp_path / "second", [row["text"] for row in rows])
    assert [one["predicted"] for one in said] == [json.loads(row["predicted"]) for row in rows]


def test_a_run_that_chose_by_another_score_is_not_gone_on_from(files, tmp_path):
    own = flags(files, "tags", save_strategy="epoch", metric_for_best_model="loss")
    finetune_ner(NerConfig(**own, output_dir=str(tmp_path / "run")))
    there = str(tmp_path / "run/checkpoint-6")
    changed = own | {"metric_for_best_model": None, "resume_from_checkpoint": there}
    with pytest.raises(ValueError, match="metric_for_best_model is accuracy and was loss"):
        finetune_ner(NerConfig(**changed, output_dir=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()
    for asked, state in ((None, "new"), ("loss", "finished, on training data that is not checked")):
        config = NerConfig(**own | {"metric_for_best_model": asked}, output_dir=str(tmp_path / "run"))
        assert state_of(run_of(RECIPES["ner"], config)[1], "", "accuracy") == state
