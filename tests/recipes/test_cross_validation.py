"""`compare --folds`: each sample is scored once for each seed, and the scores are those of all samples together."""

import csv
import json
from collections import Counter
from dataclasses import replace

import pytest
from seqeval.metrics import classification_report, f1_score
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as label_f1

from finetune import data
from finetune.comparison import processes
from finetune.reporting.comparison_words import caution
from recipes.compare import CompareConfig, compare, parse
from recipes.language_model import LanguageModelConfig
from recipes.ner import NerConfig
from recipes.sentiment import SentimentConfig

TINY = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "hidden_size": 16,
    "embedding_size": 16,
    "char_features": "none",
    "disable_tqdm": True,
}
TOWNS = ("Oslo", "Bergen", "Turku", "Malmö", "Riga")


@pytest.fixture(scope="module")
def column_file(tmp_path_factory):
    """Twelve documents that share most of their words. Each has a name of its own, the last one a type of its own."""
    path = tmp_path_factory.mktemp("documents") / "train.conll"
    lines = []
    for document in range(12):
        lines.append("-DOCSTART- O\n")
        for i in range(2 + document % 3):
            town = TOWNS[(document + i) % 5]
            lines.append(f"d{document} B-PER\nAda B-PER\nof O\n{town} B-LOC\n{'ran' if i else 'slept'} O\n")
    lines.append("d11 B-PER\nH2O B-RARE\n")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def crossed(tmp_path_factory, column_file):
    """Three folds of two models, in this process; a part of the runs first, as another machine would train it."""
    own = NerConfig(**TINY, train_file=str(column_file), learning_rate=3e-2)
    models = {name: replace(own, model_name_or_path=name) for name in ("rnn", "dictionary")}
    folder = tmp_path_factory.mktemp("crossed")
    config = CompareConfig(models, (0, 1), str(folder), folds=3)
    trained = []

    def train(run, config):
        trained.append(config.output_dir.removeprefix(f"{folder}/"))
        return processes._call(run, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "train", train)
        assert compare(replace(config, part=(2, 2))) == {}
        assert len(trained) == 4
        report = compare(config)
    return config, report, folder, trained


def union(folder, name, seed, folds=3):
    """The samples of all folds: words, right tags, predicted tags."""
    found = ([], [], [])
    for fold in range(1, folds + 1):
        path = folder / name / f"seed-{seed}/fold-{fold}/predictions_test.conll"
        for side, column in zip(found, (0, 1, 2), strict=True):
            read = data.read_conll(path, tag_column=max(column, 1))
            side += read.tags if column else read.words
    return found


def test_each_run_is_trained_once_and_each_sample_is_scored_once(crossed, column_file):
    _, report, folder, trained = crossed
    runs = [(name, seed) for name, seeds in (("rnn", (0, 1)), ("dictionary", (0,))) for seed in seeds]
    assert sorted(trained) == sorted(f"{name}/seed-{s}/fold-{fold}" for name, s in runs for fold in (1, 2, 3))
    whole = data.read_conll(column_file)
    samples = Counter(map(tuple, whole.words))
    assert report["data"]["splits"]["test"]["sentences"] == sum(report["folds"]) == len(whole.words)
    for name, seed in runs:
        words, gold, _ = union(folder, name, seed)
        assert Counter(map(tuple, words)) == samples
        assert Counter(map(str, gold)) == Counter(map(str, whole.tags))
        # A document, whose number is in each first word, is in the test split of one fold, and not in its training.
        folders = [folder / name / f"seed-{seed}/fold-{fold}" for fold in (1, 2, 3)]
        tests = [
            {words[0] for words in data.read_conll(own / "predictions_test.conll", tag_column=1).words}
            for own in folders
        ]
        assert not tests[0] & tests[1] | tests[0] & tests[2] | tests[1] & tests[2]


def test_scores_are_counted_over_all_folds_together(crossed):
    _, report, folder, _ = crossed
    for name, seeds in (("rnn", (0, 1)), ("dictionary", (0,))):
        by_hand, by_type = [], []
        for seed in seeds:
            _, gold, said = union(folder, name, seed)
            by_hand.append(f1_score(gold, said, zero_division=0))
            by_type.append(classification_report(gold, said, zero_division=0, output_dict=True)["LOC"]["f1-score"])
        scores = report["models"][name]["scores"]
        assert scores["test_f1"]["values"] == pytest.approx(by_hand)
        assert scores["test_f1_LOC"]["values"] == pytest.approx(by_type)
    of_folds = [json.loads((folder / f"rnn/seed-0/fold-{fold}/all_results.json").read_text()) for fold in (1, 2, 3)]
    mean = sum(one["test_f1"] for one in of_folds) / 3
    assert (
        abs(mean - report["models"]["rnn"]["scores"]["test_f1"]["values"][0]) > 1e-4
    )  # which would be another score
    words = sum(one["test_words"] for one in of_folds)
    assert words == report["data"]["splits"]["test"]["words"]
    both = (
        report["models"]["rnn"]["scores"]["test_f1"]["mean"]
        - report["models"]["dictionary"]["scores"]["test_f1"]["mean"]
    )
    assert report["pairs"][0]["difference"] == pytest.approx(both)


def test_an_entity_is_seen_if_the_training_part_of_its_own_fold_has_it(crossed, column_file):
    config, report, _, _ = crossed
    seen = Counter()
    for fold in (1, 2, 3):
        splits = data.read_tagged(replace(config.models["rnn"], fold=f"{fold}/3"))
        known = {
            (word, tag) for row in splits["train"] for word, tag in zip(row["tokens"], row["ner_tags"], strict=True)
        }
        for row in splits["test"]:
            for word, tag in zip(row["tokens"], row["ner_tags"], strict=True):
                if tag != "O":  # each entity here is one word
                    seen["seen" if (word, tag) in known else "unseen"] += 1
    assert min(seen["seen"], seen["unseen"]) > 10
    assert report["breakdowns"]["seen in training"]["size"] == dict(sorted(seen.items()))


def test_a_label_of_one_document_is_a_label_of_each_fold(crossed):
    _, report, folder, _ = crossed
    names = [
        json.loads((folder / f"rnn/seed-0/fold-{fold}/config.json").read_text())["id2label"] for fold in (1, 2, 3)
    ]
    assert names[0] == names[1] == names[2]
    assert "B-RARE" in names[0].values()
    assert report["labels"] == ["LOC", "PER", "RARE"]
    assert report["models"]["rnn"]["scores"]["test_f1_RARE"]["values"] == [0.0, 0.0]


def test_a_report_says_that_it_is_a_cross_validation(crossed):
    _, _, folder, _ = crossed
    page, text = ((folder / name).read_text() for name in ("report.html", "comparison.md"))
    for form in (page, text):
        assert "This is a cross-validation with 3 folds" in form
        assert "F1 over 3 folds" in form
    assert "3 folds" in (folder / "rnn/seed-1/fold-2/README.md").read_text()
    assert "folds" not in json.loads((folder / "comparison.json").read_text())["models"]["rnn"]["settings"]


def test_changed_predictions_and_changed_data_of_one_fold_are_found(crossed, column_file, tmp_path):
    config, report, folder, _ = crossed
    one = replace(config, models={"dictionary": config.models["dictionary"]})
    path = folder / "dictionary/seed-0/fold-2/predictions_test.conll"
    kept = path.read_text()
    assert compare(one)["models"]["dictionary"] == report["models"]["dictionary"]
    path.write_text(kept.replace("B-PER\tB-PER", "B-PER\tO", 1).replace("B-PER B-PER", "B-PER O", 1))
    assert path.read_text() != kept
    with pytest.raises(ValueError, match=r"fold-2: all_results\.json has test_f1"):
        compare(one)
    path.write_text(kept)
    changed = tmp_path / "train.conll"
    changed.write_text(column_file.read_text().replace("Ada B-PER", "Ida B-PER", 1))
    other = replace(config.models["dictionary"], train_file=str(changed))
    (folder / "dictionary/seed-0/fold-1/run.yaml").write_text(
        (folder / "dictionary/seed-0/fold-1/run.yaml").read_text().replace(str(column_file), str(changed))
    )
    with pytest.raises(ValueError, match="the data files have changed since this run"):
        compare(replace(one, models={"dictionary": other}))


def test_texts_that_are_nearly_equal_are_in_one_fold_and_a_linear_model_is_scored_by_hand(tmp_path):
    config = SentimentConfig(dataset_name="samples", model_name_or_path="svm")
    report = compare(CompareConfig({"svm": config}, (0,), str(tmp_path), folds=2))
    rows = []
    for fold in (1, 2):
        with (tmp_path / f"svm/seed-0/fold-{fold}/predictions_test.tsv").open(newline="") as file:
            rows += list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    gold, said = ([row[key] for row in rows] for key in ("label", "predicted"))
    train = data.read_labelled(SentimentConfig(dataset_name="samples", eval_strategy="no"))["train"]
    assert sorted(row["text"] for row in rows) == sorted(" ".join(text.split()) for text in train["text"])
    scores = report["models"]["svm"]["scores"]
    assert scores["test_accuracy"]["values"] == [pytest.approx(accuracy_score(gold, said))]
    assert scores["test_f1_macro"]["values"] == [pytest.approx(label_f1(gold, said, average="macro"))]


def test_folds_that_cannot_be_are_refused(column_file, tmp_path):
    own = NerConfig(train_file=str(column_file), model_name_or_path="dictionary")
    for folds, config, message in (
        (1, own, "folds 1: must be at least 2"),
        (13, own, "folds 13: the data has only 12 documents; give fewer folds"),
        (2, replace(own, fold="1/2"), "fold 1/2: folds 2 gives each run its fold; leave one of them out"),
        (2, LanguageModelConfig(), "folds 2: not for this task"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(CompareConfig({"x": config}, (0,), str(tmp_path), folds=folds))
    for text in ("3/2", "0/2", "2", "1/1000000000000"):
        with pytest.raises(ValueError, match=f"--fold {text}: give the number of a fold"):
            data.read_tagged(replace(own, fold=text))
    assert parse(["--task", "ner", "--models", "rnn", "--folds", "4"]).folds == 4


def test_a_search_does_not_see_the_fold(column_file):
    with data.without_test_data():
        splits = data.read_tagged(NerConfig(train_file=str(column_file), fold="2/3"))
    assert list(splits) == ["validation", "train"] or sorted(splits) == ["train", "validation"]
    with_test = data.read_tagged(NerConfig(train_file=str(column_file), fold="2/3"))
    assert splits["train"]["tokens"][:] == with_test["train"]["tokens"][:]


def test_folds_of_one_size_are_told_with_one_number():
    assert "with 2 folds of 8 samples." in caution({"folds": [8, 8]})
    assert "with 2 folds of 7 to 8 samples." in caution({"folds": [8, 7]})
