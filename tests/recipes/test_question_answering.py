"""Questions end to end: each answered once, scores by a count of their own, the same wherever they run."""

import hashlib
import json
import random
import re

import pytest
from processes import ROOT, run_script

import finetune
from finetune import data
from finetune.arguments import DataArguments
from finetune.comparison.runs import read_run
from finetune.metrics import answer_counts
from finetune.tasks import questions
from recipes.compare import CompareConfig, compare
from recipes.question_answering import QuestionConfig, finetune_questions

TINY = {
    "max_seq_length": 48,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "disable_tqdm": True,
}
SHAPE = {"hidden_size": 16, "embedding_size": 16}  # of the baselines
NAMES = ("Ada", "Grace", "Alan", "Emmy", "Kurt", "Sofia", "Paul", "Marie")
TOWNS = ("Oslo", "Lisbon", "Toronto", "Turin", "Vienna", "Porto", "Malmö", "北京")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Passages longer than an input, some questions without an answer; as SQuAD's JSON and as JSON lines."""
    folder = tmp_path_factory.mktemp("questions")
    draw = random.Random(0)
    for split, size in (("train", 8), ("dev", 4), ("test", 4)):
        paragraphs, lines = [], []
        for number in range(size):
            who, where = draw.sample(NAMES, 4), draw.sample(TOWNS, 4)
            facts = [
                f"{name}  was born in {town}, a town by the water." for name, town in zip(who, where, strict=True)
            ]
            context = " ".join(facts)
            asked = []
            for name, town in zip(who, where, strict=True):
                answer = {"text": town, "answer_start": context.index(f"born in {town}") + len("born in ")}
                # Some programs take U+2028 for the end of a line.
                asked.append({"question": f"Where was {name}\u2028born?", "answers": [answer]})
            asked.append({"question": "Where was nobody born?", "answers": [], "is_impossible": True})
            for i, question in enumerate(asked):
                question["id"] = f"{split}-{number}-{i}"
                answers = {key: [a[key] for a in question["answers"]] for key in ("text", "answer_start")}
                lines.append({"context": context} | question | {"answers": answers})
            paragraphs.append({"context": context, "qas": asked})
        whole = {"version": "v2.0", "data": [{"title": split, "paragraphs": paragraphs}]}
        (folder / f"{split}.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def config(files, output_dir, model, ending="json", **more):
    named = {f"{key}_file": str(files / f"{name}.{ending}") for key, name in SPLITS.items()}
    shape = SHAPE if model == "bilstm" else {}
    return QuestionConfig(**TINY | shape | named | more, output_dir=str(output_dir), model_name_or_path=model)


SPLITS = {"train": "train", "validation": "dev", "test": "test"}


@pytest.mark.parametrize("name", ["wordpiece", "unigram", "bilstm"])
def test_every_question_is_answered_once_and_predict_says_the_same(name, checkpoints, files, tmp_path, monkeypatch):
    model = str(checkpoints[name]) if name in checkpoints else name
    result = finetune_questions(config(files, tmp_path / "run", model))
    asked = [json.loads(line) for line in (files / "test.jsonl").read_text().splitlines()]
    assert result.results["test_questions"] == result.results["test_questions_scored"] == len(asked) == 20

    said = json.loads((tmp_path / "run/predictions_test.json").read_text())
    assert list(said) == [row["id"] for row in asked]
    counts = answer_counts([row["answers"]["text"] for row in asked], list(said.values())).sum(0)
    assert result.results["test_exact_match"] == pytest.approx(counts[0] / 20)
    assert result.results["test_f1"] == pytest.approx(counts[1] / 20)

    answers = finetune.predict(tmp_path / "run", [(row["question"], row["context"]) for row in asked])
    assert [answer["answer"] for answer in answers] == list(said.values())
    for row, answer in zip(asked, answers, strict=True):
        for span in answer["nbest"]:
            assert row["context"][span["start"] : span["end"]] == span["text"]
        assert 0.0 <= answer["score"] <= 1.0

    card = (tmp_path / "run/README.md").read_text()
    assert f"| test_f1 | {result.results['test_f1']:.4f} |" in card
    assert "questions_scored" not in card  # no score
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace(
        "finetune.predict(", "said = finetune.predict("
    )
    names = {}
    exec(snippet, names)
    assert names["said"][0]["answer"] in "Grace Hopper was born in New York in 1906."

    # The same questions as JSON lines make the same model.
    finetune_questions(config(files, tmp_path / "lines", model, ending="jsonl"))
    assert digest(tmp_path / "lines") == digest(tmp_path / "run")


def test_a_resumed_run_and_two_processes(checkpoints, files, tmp_path):
    steps = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 4, "save_steps": 2, "max_steps": 8}
    more = steps | {"save_total_limit": 9}
    whole = finetune_questions(config(files, tmp_path / "whole", "bilstm", **more))
    there = config(files, tmp_path / "resumed", "bilstm", **more)
    there.resume_from_checkpoint = str(tmp_path / "whole/checkpoint-4")
    finetune_questions(there)
    assert digest(tmp_path / "resumed") == digest(tmp_path / "whole")

    model = str(checkpoints["wordpiece"])
    one = finetune_questions(config(files, tmp_path / "one", model, max_steps=1, **{"eval_strategy": "no"}))
    flags = [f"--{key}={value}" for key, value in TINY.items()]
    flags += [f"--{key}_file={files / name}.json" for key, name in SPLITS.items()]
    flags += [f"--model_name_or_path={model}", "--max_steps=1", "--eval_strategy=no"]
    flags[flags.index("--per_device_train_batch_size=4")] = "--per_device_train_batch_size=2"
    done = run_script(ROOT / "recipes/question_answering.py", *flags, f"--output_dir={tmp_path / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads((tmp_path / "two/all_results.json").read_text())
    assert two["test_questions_scored"] == 20
    assert two["test_loss"] == pytest.approx(one.results["test_loss"], abs=0.05)  # other dropout
    assert whole.results["eval_questions"] == 20


def test_models_are_compared(files, tmp_path):
    models = {"bilstm": config(files, tmp_path, "bilstm"), "gru": config(files, tmp_path, "gru", hidden_size=16)}
    report = compare(CompareConfig(models, (0, 1), str(tmp_path / "compared")))
    assert report["metric"] == "f1"
    run = json.loads((tmp_path / "compared/bilstm/seed-1/all_results.json").read_text())
    assert report["models"]["bilstm"]["scores"]["test_f1"]["values"][1] == run["test_f1"]
    assert set(report["breakdowns"]["kind of question"]["size"]) == {"answer", "no answer"}
    assert report["data"]["splits"]["test"]["labels"] == {"answer": 16, "no answer": 4}
    assert "Where was nobody born?" in (tmp_path / "compared/report.html").read_text()


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer_start": 3}, r"train.json: question train-0-0: '.*' does not stand at character 3 of the passage"),
        ({"text": "Atlantis"}, "which does not have it at all"),
        (
            {"answer_start": "3"},
            "an answer is a text with the number of its first character; its answer_start is '3'",
        ),
        ({"text": ""}, "its text is ''"),
    ],
)
def test_answers_that_stand_elsewhere_are_refused(files, tmp_path, change, message):
    whole = json.loads((files / "train.json").read_text())
    whole["data"][0]["paragraphs"][0]["qas"][0]["answers"][0].update(change)
    (tmp_path / "train.json").write_text(json.dumps(whole))
    own = config(files, tmp_path / "run", "bilstm")
    own.train_file = str(tmp_path / "train.json")
    with pytest.raises(ValueError, match=message):
        finetune_questions(own)
    assert not (tmp_path / "run").exists()


def test_a_test_split_without_answers_is_left_out(files, tmp_path, caplog):
    lines = [json.loads(line) | {"answers": None} for line in (files / "test.jsonl").read_text().splitlines()]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = config(files, tmp_path / "run", "bilstm", eval_strategy="no", max_steps=1)
    own.validation_file, own.test_file = None, str(tmp_path / "test.jsonl")
    result = finetune_questions(own)
    assert "the test split has no answers; it is left out" in caplog.text
    assert "test_f1" not in result.results
    # Nothing tunes the threshold, and some training questions have no answer.
    assert json.loads((tmp_path / "run/config.json").read_text())["null_score_diff_threshold"] == 0.0


def test_the_samples_are_read_and_no_passage_is_in_two_splits():
    splits = data.read_questions(DataArguments(dataset_name="samples"))
    assert {name: questions.label_numbers(split) for name, split in splits.items()} == {
        "train": {"answer": 141, "no answer": 24},
        "validation": {"answer": 32, "no answer": 6},
        "test": {"answer": 41, "no answer": 9},
    }
    passages = [set(split["context"]) for split in splits.values()]
    assert len(set.union(*passages)) == sum(map(len, passages)) == 52


def test_a_threshold_that_a_flag_gives_is_not_tuned(files, tmp_path):
    own = config(files, tmp_path / "run", "bilstm", null_score_diff_threshold=1e6)
    finetune_questions(own)
    assert set(json.loads((tmp_path / "run/predictions_test.json").read_text()).values()) == {""}
    assert json.loads((tmp_path / "run/config.json").read_text())["null_score_diff_threshold"] == 1e6

    (tmp_path / "run/gold_test.jsonl").unlink()  # a run of an older version has none
    with pytest.raises(ValueError, match=r"no gold_test\.jsonl: a run of another task, or of an older version"):
        read_run(own, "test", questions)
