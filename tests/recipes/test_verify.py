"""`recipes/verify.py`: what a run says follows from its files; a change in one of them is found, and named."""

import json
import math
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from finetune import verification
from recipes import distil, language_model, ner, pretrain, question_answering, sentiment, seq2seq, verify
from recipes.verify import VerifyConfig

TINY = {"num_train_epochs": 1, "max_seq_length": 32, "disable_tqdm": True, "save_total_limit": 1}
SAMPLES = {"dataset_name": "samples", "max_train_samples": 40, "max_eval_samples": 12}
SHAPE = {"model_name_or_path": "bilstm", "hidden_size": 8, "embedding_size": 8, "learning_rate": 0.02}
MEASURED = re.compile(r"train_.*|peak_memory_mb|restarts|collapse.*|best_epoch|(eval|test)_runtime")
NAMES = ("glad", "cross", "afraid", "the", "day", "was")
SIZES = {"train": 60, "validation": 20, "test": 20}


def write(folder, kind):
    """Three splits in which the first three words are what is to be found."""
    draw, flags = random.Random(0), {}
    for split, size in SIZES.items():
        texts = [draw.choices(NAMES, k=6) for _ in range(size)]
        if kind in ("entities", "plain"):
            tags = {"glad": "B-PER", "cross": "B-LOC"} if kind == "entities" else {name: name[:2] for name in NAMES}
            lines = ("".join(f"{word}\t{tags.get(word, 'O')}\n" for word in text) + "\n" for text in texts)
            flags[f"{split}_file"] = str(folder / f"{split}.conll")
        else:
            of = {
                "one": lambda text: "yes" if "glad" in text else "no",
                "several": lambda text: [name for name in NAMES[:3] if name in text],
                "number": lambda text: 0.5 + text.count("glad") / 3,
            }
            lines = (json.dumps({"text": " ".join(text * 8), "label": of[kind](text)}) + "\n" for text in texts)
            flags[f"{split}_file"] = str(folder / f"{split}.jsonl")
        Path(flags[f"{split}_file"]).write_text("".join(lines))
    return flags


def trained(kind, folder, checkpoints, **more):
    """A small run of this kind, in `folder / "run"`."""
    own = TINY | {"output_dir": str(folder / "run")} | more
    if kind in ("entities", "plain"):
        loss = {"class_weights": "balanced"} if kind == "plain" else {"model_name_or_path": "bilstm-crf"}
        return ner.finetune_ner(ner.NerConfig(**own | SHAPE | write(folder, kind) | loss))
    if kind == "one":
        bert = {"model_name_or_path": str(checkpoints["wordpiece"]), "long_texts": "window", "focal_gamma": 2.0}
        return sentiment.finetune_sentiment(sentiment.SentimentConfig(**own | bert | write(folder, kind)))
    if kind in ("several", "number"):
        return sentiment.finetune_sentiment(sentiment.SentimentConfig(**own | SHAPE | write(folder, kind)))
    own |= SAMPLES
    if kind == "questions":
        flags = own | SHAPE | {"max_seq_length": 48}
        return question_answering.finetune_questions(question_answering.QuestionConfig(**flags))
    if kind == "texts":
        flags = {"model_name_or_path": "lstm2lstm-attention", "hidden_size": 8, "label_smoothing_factor": 0.1} | {
            "max_target_length": 12
        }
        return seq2seq.train_seq2seq(seq2seq.Seq2SeqConfig(**own | flags, num_beams=2, rouge=True, vocab_size=400))
    if kind == "words":
        flags = {
            "model_name_or_path": "transformer",
            "hidden_size": 8,
            "vocab_size": 400,
            "eval_context": 8,
            "max_steps": 3,
        }
        return language_model.train_language_model(language_model.LanguageModelConfig(**own | flags))
    flags = {"model_name_or_path": str(checkpoints["wordpiece"]), "max_steps": 2}
    return pretrain.pretrain(pretrain.PretrainConfig(**own | flags))


KINDS = ("entities", "plain", "one", "several", "number", "questions", "texts", "words", "masked")


@pytest.fixture(scope="module")
def runs(checkpoints, tmp_path_factory):
    """kind -> the folder of its files, with the run in `run`; each is trained when it is first asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            trained(kind, made[kind], checkpoints)
        return made[kind]

    return get


@pytest.fixture
def copy(runs, tmp_path):
    """A function that gives a copy of a run, to be changed."""

    def of(kind):
        return shutil.copytree(runs(kind) / "run", tmp_path / "copy")

    return of


def verified(folder, **flags):
    return verify.verify(VerifyConfig(model_name_or_path=str(folder), **flags))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_follows_and_every_score_is_recomputed(kind, runs, capsys):
    report = verified(runs(kind) / "run")
    told = capsys.readouterr().out
    assert report.follows, told
    assert f"all {len(report.said) - len(report.left)} recomputed scores are as the run says" in told
    assert [key for key in report.left if not MEASURED.fullmatch(key)] == []
    scores = {key for key in report.said if key.startswith(("eval_", "test_"))}
    if kind == "masked":
        assert "no predictions" in told
    else:
        assert len(report.from_predictions.keys() & scores) >= 4
        assert f"gives the answers of predictions_eval again ({len(read_lines(runs(kind), kind)):,} samples)" in told


def read_lines(folder, kind):
    """The samples of the development split, counted in the predictions of the run."""
    file = next((folder / "run").glob("predictions_eval.*"))
    text = file.read_text()
    if file.suffix == ".json":
        return json.loads(text)
    return text.strip().split("\n\n" if file.suffix == ".conll" else "\n")[file.suffix == ".tsv" :]


def change(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [("entities", "glad\tB-PER\t", "glad\tB-PER\tB-LOC\nglad\tB-PER\t"), ("several", '"glad"', '"cross"')],
)
def test_changed_gold_or_data_is_found(kind, old, new, copy):
    folder = copy(kind)
    change(next(folder.glob("predictions_test.*")), old, new)
    report = verified(folder)
    assert [line for line in report.problems if line.startswith("predictions_test has other ")], report.problems
    assert not any(key.startswith("test_") for key in report.from_model), "the model is not run on other data"
    assert any(key.startswith("eval_") for key in report.from_model)


def change_first_prediction(path):
    """Gives the first sample the right answer of another one."""
    cells = [line.split("\t") for line in path.read_text().split("\n")]
    table = path.suffix == ".tsv"
    right, said = 1, cells[0].index("predicted") if table else 2
    first = cells[table]
    first[said] = next(row[right] for row in cells[table:] if row[right] != first[said])
    path.write_text("\n".join("\t".join(row) for row in cells))


@pytest.mark.parametrize("kind", ["plain", "one", "number", "texts"])
def test_a_changed_prediction_is_found(kind, copy, capsys):
    folder = copy(kind)
    change_first_prediction(next(folder.glob("predictions_test.*")))
    report = verified(folder)
    found = [line for line in report.problems if "the model gives other answers than predictions_test" in line]
    assert len(found) == 1, report.problems
    assert re.search(r"for 1 of \d+ samples, such as for sample 0: ", found[0])
    assert not [line for line in report.problems if "predictions_eval" in line]
    assert verified(folder, max_difference=0.9).problems == []


def test_a_prediction_that_changes_a_score_is_found_without_the_data(copy, runs):
    folder = copy("plain")
    change(folder / "predictions_test.conll", "the\tth\tth", "the\tth\tgl")
    change(folder / "run.yaml", str(runs("plain") / "test.conll"), "gone.conll")
    report = verified(folder)
    assert "test_accuracy" in report.wrong
    assert report.from_model == {}
    assert any("gone.conll" in note for note in report.notes)
    moved = verified(folder, test_file=str(runs("plain") / "test.conll"))
    assert "test_accuracy" in moved.wrong
    assert moved.from_model["test_accuracy"] == moved.said["test_accuracy"] != moved.from_predictions["test_accuracy"]


@pytest.mark.parametrize("kind", ["entities", "masked"])
def test_a_changed_score_is_found_in_the_results_and_in_the_card(kind, copy, capsys):
    folder = copy(kind)
    key = {"entities": "eval_recall", "masked": "eval_mlm_accuracy"}[kind]
    results = json.loads((folder / "all_results.json").read_text())
    changed = results | {key: results[key] + 0.0002, "eval_loss": results["eval_loss"] - 0.1, "eval_fluency": 1.0}
    del changed["eval_tokens" if kind == "entities" else "eval_masked"]
    (folder / "all_results.json").write_text(json.dumps(changed))
    with pytest.raises(SystemExit) as ended:
        verify.main(["--model_name_or_path", str(folder)])
    assert ended.value.code == 1
    found = capsys.readouterr().out.partition("this does not follow:\n")[2].splitlines()
    names = [re.match(r"- (?:README.md says )?([a-z_]+)", line)[1] for line in found]
    extra = ["eval_tokens"] if kind == "entities" else ["eval_masked"]
    assert sorted(names) == sorted([key, "eval_loss", *extra, key, "eval_fluency"]), found
    (folder / "all_results.json").write_text(json.dumps(results))
    change(folder / "README.md", f"| {key} | {results[key]:.4f} |", f"| {key} | 0.9999 |")
    assert verified(folder).problems == [
        f"README.md says {key} 0.9999, and all_results.json gives {results[key]:.4f}"
    ]


def test_the_metadata_and_the_sentences_of_the_card_are_compared(copy):
    folder = copy("one")
    score = json.loads((folder / "all_results.json").read_text())["test_accuracy"]
    change(folder / "README.md", f"value: {score}", f"value: {score + 0.01}")
    change(folder / "README.md", "with a temperature of", "with a temperature of about")
    first, second = verified(folder).problems
    assert re.match(rf"the metadata of README.md says (eval|test)_accuracy {score + 0.01}", first)
    assert second.startswith("README.md does not say what follows from the settings of the model")


@pytest.mark.parametrize("kind", ["one", "words", "masked"])
def test_other_weights_are_found(kind, copy):
    folder = copy(kind)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v * 1.3 for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    report = verified(folder)
    assert "eval_loss" in report.wrong
    assert not report.follows
    assert report.from_predictions.keys() & set(report.wrong) <= report.from_model.keys()
    if kind == "words":
        assert any("other answers than predictions_eval" in line for line in report.problems)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("several", "threshold", 0.01),
        ("one", "score_temperature", 9.0),
        ("questions", "null_score_diff_threshold", -99.0),
    ],
)
def test_a_changed_setting_of_the_model_is_found(kind, key, value, copy):
    folder = copy(kind)
    config = json.loads((folder / "config.json").read_text())
    assert not math.isclose(config[key], value, abs_tol=0.05)
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    report = verified(folder)
    assert [line for line in report.problems if line.startswith(f"config.json has {key} {value}")], report.problems
    if kind == "several":  # the model is evaluated with the settings that it has, and not with those it should have
        assert {"eval_f1_micro", "test_f1_micro"} <= set(report.wrong) & report.from_model.keys()
    if kind == "one":  # the answers are the same, and less sure
        assert any("otherwise sure of its answers" in line for line in report.problems)


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("all_results.json", "eval_accuracy", "0.3", "eval_accuracy is '0.3'; it must be a number"),
        ("all_results.json", "test_accuracy", True, "test_accuracy is True; it must be a number"),
        ("config.json", "score_temperature", [1.0], "score_temperature is [1.0]; it must be a number"),
        ("config.json", "promises", [], "promises is []; it must be an object"),
    ],
)
def test_an_edited_value_of_another_type_is_told_with_its_file(name, key, value, told, copy):
    folder = copy("one")
    there = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(there | {key: value}))
    with pytest.raises(SystemExit) as ended:
        verify.main(["--model_name_or_path", str(folder)])
    assert ended.value.code == f"error: {folder / name}: {told}"


def test_rows_from_python_are_verified_if_they_are_given(tmp_path):
    rows = [{"text": " ".join(NAMES[i % 5 :]), "label": ("yes", "no")[i % 2]} for i in range(30)]
    data = {"train": rows, "test": rows[:9]}
    config = sentiment.SentimentConfig(**TINY | SHAPE, output_dir=str(tmp_path / "run"), eval_strategy="no")
    sentiment.finetune_sentiment(config, data)
    own = VerifyConfig(model_name_or_path=str(tmp_path / "run"))
    assert any("rows from Python" in note for note in verify.verify(own).notes)
    report = verify.verify(own, data)
    assert report.follows
    assert "test_loss" in report.from_model
    other = {"train": rows, "test": [*rows[:8], rows[8] | {"text": "glad"}]}
    assert verify.verify(own, other).problems == [
        'predictions_test has other inputs than the data: sample 8 has ["the", "day", "was"], and the data ["glad"]'
    ]


@pytest.mark.parametrize("kind", ["plain", "several"])
def test_a_student_is_verified(kind, runs, tmp_path):
    own = TINY | SHAPE | {"max_steps": 2, "teacher": str(runs(kind) / "run"), "output_dir": str(tmp_path / "run")}
    suffix = "conll" if kind == "plain" else "jsonl"
    files = {f"{split}_file": str(runs(kind) / f"{split}.{suffix}") for split in SIZES}
    distil.distil(distil.DistilConfig(**own | files))
    report = verified(tmp_path / "run")
    assert report.follows
    assert "test_loss" in report.from_model


def test_each_kind_of_finding_means_that_a_run_does_not_follow():
    report = verification.Report(Path("run"), {"eval_f1": 1.0}, {}, [], from_model={"eval_f1": 1.0})
    assert report.follows
    assert not replace(report, from_predictions={"eval_f1": 0.9}).follows
    assert not replace(report, from_model={"eval_f1": 1.0, "eval_recall": 1.0}).follows, "a score that is not told"
    assert not replace(report, problems=["README.md says another thing"]).follows


def test_numbers_are_compared_by_their_kind():
    assert verification.close(3, 3, 0.5)
    assert not verification.close(3, 4, 0.5), "counts are exact"
    assert verification.close({"a": [1.0, None]}, {"a": [1.001, None]}, 0.01)
    assert not verification.close({"a": [1.0, None]}, {"a": [1.1, None]}, 0.01)
    assert not verification.close({"a": 1.0}, {"a": 1.0, "b": 1.0}, 0.01)
    assert verification.close(math.nan, math.nan, 0.01)
    assert not verification.close("a", "b", 0.5)
    assert not verification.close(None, 0.0, 0.5)
