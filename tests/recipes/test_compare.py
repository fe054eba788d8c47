"""A comparison as a user runs it: what is trained, what is not trained again, and what the report says."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import product

import datasets
import numpy as np
import psutil
import pytest
import yaml
from seqeval.metrics import f1_score

from finetune import data, metrics, models
from finetune.comparison import processes, tables
from finetune.tasks import classification, tagging
from recipes import compare as recipe
from recipes.compare import CompareConfig, compare, parse
from recipes.ner import NerConfig
from recipes.sentiment import SentimentConfig
from recipes.seq2seq import Seq2SeqConfig

TINY = {
    "dataset_name": "samples",
    "max_train_samples": 120,
    "max_eval_samples": 60,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "hidden_size": 16,
    "embedding_size": 16,
    "char_features": "none",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory, checkpoints):
    folder = tmp_path_factory.mktemp("compare")
    own = NerConfig(**TINY)
    models = {
        "bert": replace(own, model_name_or_path=str(checkpoints["wordpiece"]), learning_rate=3e-3, max_seq_length=24),
        "bilstm": replace(own, model_name_or_path="bilstm", learning_rate=3e-2),
        "dictionary": replace(own, model_name_or_path="dictionary"),
        "broken": replace(own, model_name_or_path=str(folder / "nothing")),
    }
    config = CompareConfig(models, seeds=(0, 1), output_dir=str(folder / "out"))
    return config, compare(config), folder / "out"


def test_each_model_takes_the_flags_that_it_has_a_use_for(compared):
    """Models share flags; a run leaves out the flags that its model does not use."""
    _, _, folder = compared
    for name, expected in (
        ("bert", (200, 100, "cnn")),
        ("bilstm", (16, 16, "none")),
        ("dictionary", (16, 16, "none")),
    ):
        written = yaml.safe_load((folder / name / "seed-0/run.yaml").read_text())
        assert (written["hidden_size"], written["embedding_size"], written["char_features"]) == expected


def test_scores_are_those_of_the_runs(compared):
    _, report, folder = compared
    assert list(report["models"]) == ["bert", "bilstm", "dictionary"]
    assert [one["seed"] for one in report["failures"]] == [0, 1]
    assert "no such folder" in report["failures"][0]["reason"]
    for name, seeds in (("bert", (0, 1)), ("bilstm", (0, 1)), ("dictionary", (0,))):
        f1 = []
        for seed in seeds:
            path = folder / name / f"seed-{seed}" / "predictions_test.conll"
            gold, said = (data.read_conll(path, tag_column=column).tags for column in (1, 2))
            f1.append(f1_score(gold, said, zero_division=0))
        score = report["models"][name]["scores"]["test_f1"]
        assert score["values"] == pytest.approx(f1)
        assert score["mean"] == pytest.approx(np.mean(f1))
        assert report["scorers"][name]["conlleval"] == pytest.approx(np.mean(f1))
    results = json.loads((folder / "bert/seed-0/all_results.json").read_text())
    assert results["test_tokens"] / 60 > 24  # of a sentence, while no window has more than 24
    attention = 4 * 2 * 24 * 32  # layers, tokens, hidden size
    flops = report["models"]["bert"]["cost"]["flops_per_token"]
    assert flops - metrics.flops_per_token(folder / "bert/seed-0", 0.0) == pytest.approx(attention)
    kept = json.loads((folder / "comparison.json").read_text())
    own = kept["models"]["bilstm"]["scores"]["test_f1"]
    assert own["values"] == report["models"]["bilstm"]["scores"]["test_f1"]["values"]
    assert (own["low"], own["high"]) == (None, None)  # two seeds give no interval
    assert kept["pairs"] == report["pairs"]
    assert len(kept["pairs"]) == 3


def test_groups_hold_all_gold_entities(compared):
    _, report, folder = compared
    sentences = data.read_conll(folder / "bilstm/seed-0/predictions_test.conll", tag_column=1)
    entities = sum(tag.startswith("B-") for tags in sentences.tags for tag in tags)
    assert set(report["breakdowns"]) == {"label", "sentence length", "seen in training", "subwords per word"}
    for found in report["breakdowns"].values():
        assert sum(found["size"].values()) == entities
    for table in report["confusion"].values():
        assert np.array(table)[:-1].sum() == pytest.approx(entities)


def test_truncation_scores_what_a_loop_keeps(compared, tokenizers):
    _, report, folder = compared
    gold, said = (
        data.read_conll(folder / "bert/seed-0/predictions_test.conll", tag_column=column) for column in (1, 2)
    )
    kept, short = 0, ([], [])
    for words, *both in zip(gold.words, gold.tags, said.tags, strict=True):
        ids = tokenizers["wordpiece"](words, is_split_into_words=True, truncation=True, max_length=24).word_ids()
        n = len({word for word in ids if word is not None})
        kept += n
        for side, tags in zip(short, both, strict=True):
            side.append(tags[:n])
    assert report["words_kept_by_truncation"] == kept < sum(map(len, gold.words))
    only = compare_one_seed(report, folder)
    assert only == pytest.approx(f1_score(*short, zero_division=0))


def compare_one_seed(report, folder):
    """F1 with truncation of the BERT's first seed alone."""
    from finetune.comparison import comparison_of

    own = NerConfig(**TINY, max_seq_length=24, output_dir=str(folder / "bert/seed-0"))
    return comparison_of({("bert", 0): own}, data.read_tagged(own), "test", tagging)["scorers"]["bert"][
        "truncated at 22 subwords"
    ]


def test_every_form_says_the_same(compared):
    _, report, folder = compared
    page, text = ((folder / name).read_text() for name in ("report.html", "comparison.md"))
    for name, model in report["models"].items():
        score = f"{model['scores']['test_f1']['mean']:.4f}"
        assert score in page
        assert re.search(rf"^\| {name} +\| +{score}", text, re.MULTILINE)
    assert "http" not in re.sub(r"http://www\.w3\.org/", "", page)  # no network
    for plot in re.findall(r"plots/(\w+)\.png", text):
        assert (folder / "plots" / f"{plot}.png").stat().st_size > 2000
    card = (folder / "bilstm/seed-1/README.md").read_text()
    assert card.count("## Compared") == 1
    assert f"- bert: {report['models']['bert']['scores']['test_f1']['mean']:.4f}" in card
    assert str(folder) not in card


def test_parts_train_each_run_once_and_the_whole_writes_the_report(tmp_path, monkeypatch):
    trained = []

    def train(run, config):
        trained.append(config.output_dir)
        return processes._call(run, config)  # here, without a process of its own

    monkeypatch.setattr(processes, "train", train)
    own = NerConfig(**TINY | {"num_train_epochs": 1})
    models = {name: replace(own, model_name_or_path=name) for name in ("rnn", "dictionary")}
    config = CompareConfig(models, seeds=(0, 1), output_dir=str(tmp_path / "out"))
    for part in ((2, 2), (1, 2)):
        assert compare(replace(config, part=part)) == {}
    assert not (tmp_path / "out/report.html").exists()
    assert len(trained) == len(set(trained)) == 3
    assert list(compare(config)["models"]) == ["rnn", "dictionary"]
    assert len(trained) == 3
    with pytest.raises(ValueError, match="give a number from 1 to 2"):
        compare(replace(config, part=(3, 2)))
    with pytest.raises(ValueError, match="there are only 3 runs"):
        compare(replace(config, part=(4, 4)))


def test_a_finished_run_is_not_run_again(compared, monkeypatch):
    config, report, folder = compared
    trained = []
    monkeypatch.setattr(processes, "train", lambda function, own: trained.append(own.output_dir))
    models = {name: own for name, own in config.models.items() if name != "broken"}
    again = compare(replace(config, models=models))
    assert trained == []
    assert again["models"] == report["models"]
    assert (folder / "bilstm/seed-1/README.md").read_text().count("## Compared") == 1

    (folder / "bilstm/seed-1/all_results.json").rename(folder / "kept.json")  # as if it had been killed
    monkeypatch.setattr(processes, "train", lambda function, own: trained.append(own.resume_from_checkpoint) or "no")
    compare(replace(config, models=models))
    assert trained == ["true"]
    (folder / "kept.json").rename(folder / "bilstm/seed-1/all_results.json")

    other = {"bilstm": replace(models["bilstm"], learning_rate=1e-2)}
    monkeypatch.undo()
    with pytest.raises(ValueError, match="already holds a run"):
        compare(replace(config, models=other, seeds=(0,)))


def test_sentiment_with_a_linear_baseline(tmp_path):
    own = SentimentConfig(**TINY | {"max_train_samples": None, "max_eval_samples": None})
    models = {"svm": replace(own, model_name_or_path="svm"), "lstm": replace(own, model_name_or_path="lstm")}
    report = compare(CompareConfig(models, seeds=(0,), output_dir=str(tmp_path)))
    score = report["models"]["svm"]["scores"]["test_accuracy"]["values"][0]
    assert score > 0.4  # of three classes that are about as frequent
    rows = [line.split("\t") for line in (tmp_path / "svm/seed-0/predictions_test.tsv").read_text().splitlines()[1:]]
    assert score == pytest.approx(np.mean([gold == said for _, gold, said, _ in rows]))
    table = np.array(report["confusion"]["svm"])
    for (i, gold), (j, said) in product(enumerate(report["labels"]), repeat=2):
        assert table[i, j] == sum(row[1:3] == [gold, said] for row in rows)
    assert report["breakdowns"]["text length"]["of"] == "texts, by accuracy"


def test_labels_and_texts_of_any_kind(tmp_path):
    """Price classes, white space around a label, and a text longer than a CSV field is by default."""
    rows = [("cheap and good", "$"), ("dear but better ", " $$ "), ("a|b", "very  dear|"), ("x" * 140_000, "$")] * 3
    text = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(text)
    own = SentimentConfig(
        model_name_or_path="svm",
        train_file=str(tmp_path / "train.jsonl"),
        test_file=str(tmp_path / "test.jsonl"),
        eval_strategy="no",
    )
    report = compare(CompareConfig({"svm": own}, (0,), str(tmp_path / "out")))
    assert report["labels"] == ["$", "$$", "very dear|"]
    assert np.array(report["confusion"]["svm"]).sum() == 12
    lines = (tmp_path / "out/comparison.md").read_text().splitlines()
    (head,) = [line for line in lines if "very dear" in line and "(3)" in line]
    assert r"very dear\| (3)" in head


@pytest.mark.parametrize("split", ["validation", "test"])
def test_scores_of_the_validation_split_come_with_a_caution(split, tmp_path):
    text = "".join(json.dumps({"text": f"{label} film", "label": label}) + "\n" for label in ("good", "bad") * 6)
    (tmp_path / "a.jsonl").write_text(text)
    files = dict.fromkeys(("train_file", f"{split}_file"), str(tmp_path / "a.jsonl"))
    own = SentimentConfig(model_name_or_path="svm", eval_strategy="no" if split == "test" else "epoch", **files)
    compare(CompareConfig({"svm": own}, (0,), str(tmp_path / "out")))
    for name in ("comparison.md", "report.html"):
        told = "models are compared on the validation split" in (tmp_path / "out" / name).read_text()
        assert told == (split == "validation")


def test_runs_of_other_data_are_not_taken(tmp_path):
    """The files were changed after the run, which is therefore not the run of these flags any more."""
    path = tmp_path / "data.conll"
    path.write_text("Ada\tB-PER\ndrank\tO\nH₂O\tB-H₂O\n\nOslo\tB-LOC\n")
    own = NerConfig(model_name_or_path="dictionary", train_file=str(path), test_file=str(path), eval_strategy="no")
    config = CompareConfig({"dictionary": own}, (0,), str(tmp_path / "out"))
    assert compare(config)["models"]["dictionary"]["scores"]["test_f1"]["values"] == [1.0]
    path.write_text(path.read_text().replace("Oslo\tB-LOC", "Oslo\tO"))
    with pytest.raises(ValueError, match="seed-0: the data files have changed since this run"):
        compare(config)
    (tmp_path / "out/dictionary/seed-0/data.sha256").unlink()  # as of a run that recipes/ner.py made
    with pytest.raises(ValueError, match="seed-0: the data for evaluation has changed since this run"):
        compare(config)


def test_runs_of_other_training_data_are_not_taken(tmp_path):
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text("text\tlabel\ngood\t1\nbad\t0\n")
    test.write_text("text\tlabel\ngood\t1\nbad\t0\n")
    own = SentimentConfig(model_name_or_path="svm", train_file=str(train), test_file=str(test), eval_strategy="no")
    config = CompareConfig({"svm": own}, (0,), str(tmp_path / "out"))
    compare(config)
    compare(config)
    train.write_text(train.read_text().replace("bad\t0", "bad\t1") + "poor\t0\n")
    with pytest.raises(ValueError, match="seed-0: the data files have changed since this run; remove its folder"):
        compare(config)
    compare(replace(config, models={"svm": replace(own, overwrite_output_dir=True)}))
    compare(config)


def test_one_seed_is_said_to_be_one(compared):
    from finetune.reporting.comparison import write_comparison

    _, report, folder = compared
    write_comparison(folder / "both", report)  # two seeds, and a dictionary, which needs none
    assert "trained with one seed" in (folder / "both/report.html").read_text()
    assert "†</span>" not in (folder / "both/report.html").read_text()
    once = json.loads(json.dumps(report))
    once["models"]["bert"]["seeds"] = [0]
    write_comparison(folder / "once", once)
    assert (folder / "once/report.html").read_text().count("†</span>") == 4  # row and column, two other models
    said = (folder / "once/comparison.md").read_text()
    assert said.count("bert has one seed: nothing is known about other seeds") == 2


def test_a_model_has_its_own_flags_and_the_command_line_has_the_last_word(tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text(
        "task: ner\nseeds: 3,4\ndataset_name: samples\nlearning_rate: 1e-3\n"
        "models:\n  lstm:\n  mine: {model_name_or_path: gru, learning_rate: 2e-3, hidden_size: 8}\n"
    )
    config = parse(["--config", str(file), "--hidden_size", "16", "--output_dir", "x"])
    assert config.seeds == (3, 4)
    assert config.output_dir == "x"
    found = {
        name: (own.model_name_or_path, own.learning_rate, own.hidden_size) for name, own in config.models.items()
    }
    assert found == {"lstm": ("lstm", 1e-3, 16), "mine": ("gru", 2e-3, 16)}
    assert list(parse(["--config", str(file), "--models", "mine,bilstm"]).models) == ["mine", "bilstm"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: ner\nmodels: [lstm]\n", "2: models takes a mapping of names to flags"),
        ("task: ner\nmodels:\n  lstm: {hiden_size: 3}\n", "3: unknown flag 'hiden_size'"),
        ("models: lstm\n", "--task: give one of ner, sentiment, question_answering"),
        ("task: ner\nseeds: one\nmodels: lstm\n", "--seeds one: give whole numbers"),
        ("task: ner\nseeds: 0,1,\nmodels: lstm\n", "--seeds 0,1,: give whole numbers"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, capsys, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse(["--config", str(tmp_path / "c.yaml")])
    assert message in capsys.readouterr().err


def test_one_model_for_all_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["--task", "ner", "--models", "bilstm,dictionary", "--model_name_or_path=gru"])
    assert "--model_name_or_path: a comparison has several models; name them with --models" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one model and one seed"):
        compare(CompareConfig({}))
    with pytest.raises(ValueError, match="last parts of these names must differ"):
        compare(CompareConfig({"a/x": NerConfig(), "b/x": NerConfig()}, output_dir=str(tmp_path)))
    for name in ("plots", "..", "a/report.html"):
        with pytest.raises(ValueError, match="the report has a file or folder named"):
            compare(CompareConfig({name: NerConfig()}, output_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=r"^train_file nowhere.conll: no such file"):
        compare(CompareConfig({"x": NerConfig(train_file="nowhere.conll")}, (0,), str(tmp_path)))
    own = NerConfig(dataset_name="samples", model_name_or_path=str(tmp_path / "nothing"))
    with pytest.raises(
        ValueError, match=r"^max_train_samples is None for one model and 9 for another; compare on one"
    ):
        compare(CompareConfig({"x": own, "y": replace(own, max_train_samples=9)}, (0,), str(tmp_path)))
    translations = Seq2SeqConfig(dataset_name="samples")
    with pytest.raises(ValueError, match=r"^bleu_tokenize is 13a for one model and zh for another; compare by one"):
        compare(
            CompareConfig({"x": translations, "y": replace(translations, bleu_tokenize="zh")}, (0,), str(tmp_path))
        )
    with pytest.raises(
        ValueError, match=r"every run failed; the first one said: ValueError: .*nothing: no such folder"
    ):
        compare(CompareConfig({"x": own}, (0,), str(tmp_path)))
    (tmp_path / "train.conll").write_text("Ada\tB-PER\n")
    own = NerConfig(train_file=str(tmp_path / "train.conll"), eval_strategy="no", model_name_or_path="dictionary")
    with pytest.raises(
        ValueError, match="a comparison needs test data or validation data; give test_file or validation_file"
    ):
        compare(CompareConfig({"dictionary": own}, (0,), str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.conll"]


def test_what_befalls_one_process_ends_all(monkeypatch):
    def recipe_that_fails(error):
        raise error

    assert processes._call(recipe_that_fails, OSError(28, "No space left")) == "OSError: [Errno 28] No space left"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes._call(recipe_that_fails, ValueError("--seed x")) == "ValueError: --seed x"
    with pytest.raises(OSError, match="No space left"):  # or the other process would wait for this one
        processes._call(recipe_that_fails, OSError(28, "No space left"))


def test_where_rows_stand_does_not_matter_and_empty_sentences_are_rows(tmp_path):
    rows = [{"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]}, {"tokens": [], "ner_tags": []}]
    rows += [{"tokens": ["Oslo"], "ner_tags": ["B-LOC"]}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = NerConfig(model_name_or_path="dictionary", train_file=str(path), test_file=str(path), eval_strategy="no")
    config = CompareConfig({"dictionary": own}, (0,), str(tmp_path / "out"))
    assert compare(config)["data"]["splits"]["test"]["sentences"] == 3
    path.write_text("\n\n" + path.read_text())
    report = compare(config)
    assert set(report["scorers"]["dictionary"]) == {"conlleval", "strict IOB2"}  # no network, so nothing is truncated
    assert "truncat" not in (tmp_path / "out/report.html").read_text()
    assert "Words scored: 3 of 3." in (tmp_path / "out/comparison.md").read_text()


def test_truncation_of_baselines_alone(tmp_path):
    own = NerConfig(**TINY | {"max_seq_length": 16, "max_steps": 3, "weight_decay": 0.5}, model_name_or_path="bilstm")
    report = compare(CompareConfig({"bilstm": own}, (0,), str(tmp_path)))
    gold = data.read_conll(tmp_path / "bilstm/seed-0/predictions_test.conll", tag_column=1)
    tokenizer = models.load_tokenizer(str(tmp_path / "bilstm/seed-0"))
    cut = (tokenizer(words, is_split_into_words=True, truncation=True, max_length=16) for words in gold.words)
    assert report["words_kept_by_truncation"] == sum(len(set(encoded.word_ids()) - {None}) for encoded in cut)
    assert report["words_kept_by_truncation"] < sum(map(len, gold.words))
    assert "truncated at 16 subwords" in report["scorers"]["bilstm"]
    assert "subwords per word" not in report["breakdowns"]
    told = report["models"]["bilstm"]["settings"]
    assert (told["max_steps"], told["weight_decay"]) == (3, 0.5)
    assert "adam_beta1" not in told


def test_words_of_pairs_are_counted():
    pairs = datasets.Dataset.from_dict({"text": ["a b", "c"], "text_pair": ["d", "e f g"], "label": ["x", "x"]})
    assert tables._describe(pairs, classification) == {"sentences": 2, "words": 7, "labels": {"x": 2}}


def test_jobs_give_the_same_runs_as_one_after_the_other(tmp_path, capsys):
    own = NerConfig(**TINY | {"max_steps": 3})
    models = {
        "bilstm": replace(own, model_name_or_path="bilstm"),
        "broken": replace(own, model_name_or_path=str(tmp_path / "nothing")),
    }
    one, two = (compare(CompareConfig(models, (0, 1), str(tmp_path / str(jobs)), jobs=jobs)) for jobs in (1, 2))
    out = capsys.readouterr().out
    assert "2 runs at a time, each with 1 thread" in out
    for name, seed in product(("bilstm",), (0, 1)):
        folders = [tmp_path / str(jobs) / name / f"seed-{seed}" for jobs in (1, 2)]
        files = [sorted(str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()) for own in folders]
        assert files[0] == files[1]
        for file in ("model.safetensors", "predictions_test.conll", "predictions_eval.conll", "data.sha256"):
            assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
        assert f"\n[{name}, seed {seed}] " in out
    assert one["failures"] == two["failures"]
    assert len(two["failures"]) == 2
    for report in (one, two):
        for model in report["models"].values():
            del model["cost"]
            model["scores"] = {key: value for key, value in model["scores"].items() if "runtime" not in key}
    assert json.dumps(one["models"]) == json.dumps(two["models"])  # two seeds: the interval is NaN
    assert (two["jobs"], "jobs" in one) == (2, False)
    assert "Up to 2 runs trained" in (tmp_path / "2/report.html").read_text()
    assert "Up to 2 runs trained" not in (tmp_path / "1/report.html").read_text()


def test_ctrl_c_stops_all_jobs_and_keeps_what_they_learned(tmp_path):
    flags = {**TINY, "task": "ner", "models": "bilstm", "seeds": "0,1,2", "jobs": 2, "num_train_epochs": 1000}
    flags |= {"logging_steps": 1, "output_dir": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "recipes/compare.py", *(f"--{name}={value}" for name, value in flags.items())],
        cwd=recipe.__file__.rpartition("/recipes/")[0],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        # A shell that starts tests in the background lets them ignore Ctrl-C; then so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"PYTHONPATH": "."},
    )  # fmt: skip
    training, said = set(), ""
    while len(training) < 2:
        line = process.stdout.readline()
        said += line
        assert line, said
        training |= set(re.findall(r"^\[bilstm, seed (\d)\] epoch 1 ", line))
    assert training == {"0", "1"}
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)  # to this process alone
    said += process.communicate(timeout=100)[0]
    assert process.returncode == 130, said
    _, alive = psutil.wait_procs(children, timeout=30)  # Python's own helper process ends a moment later
    assert not alive
    for seed in (0, 1):
        assert list((tmp_path / f"bilstm/seed-{seed}").glob("checkpoint-*"))
        assert not (tmp_path / f"bilstm/seed-{seed}/all_results.json").exists()
    assert not (tmp_path / "bilstm/seed-2").exists()


def test_wrong_jobs_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="jobs 0: give a number of runs that train at a time, at least 1"):
        compare(CompareConfig({"x": NerConfig()}, jobs=0))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="jobs 2: `accelerate launch` with several processes trains one run after"):
        compare(CompareConfig({"x": NerConfig()}, jobs=2))
