"""A search as a user runs it: what is tried, what stops and continues it, what it leaves, what it must not read."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import optuna
import pytest
import yaml
from optuna.trial import TrialState
from processes import ROOT

from finetune import trials
from finetune.comparison import processes
from finetune.trials import claims
from finetune.trials.study import load_study
from recipes import ner
from recipes.compare import RECIPES
from recipes.ner import NerConfig
from recipes.search import SearchConfig, _checked, parse, search
from recipes.sentiment import SentimentConfig

TINY = {
    "dataset_name": "samples",
    "model_name_or_path": "rnn",
    "max_train_samples": 48,
    "max_eval_samples": 20,
    "num_train_epochs": 3,
    "hidden_size": 8,
    "embedding_size": 8,
    "char_features": "none",
    "metric_for_best_model": "loss",
    "disable_tqdm": True,
}
RANGES = {
    "learning_rate": {"low": 1e-4, "high": 5e-2, "log": True},
    "per_device_train_batch_size": [8, 16],
}
TIMES = ("runtime", "per_second", "memory")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Trials run here, without a process for each: it saves seconds. The tests with signals start real commands."""
    monkeypatch.setattr(processes, "train", processes._call)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that was never stopped, without pruning."""
    folder = tmp_path_factory.mktemp("whole") / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "train", processes._call)
        found = search(SearchConfig(NerConfig(**TINY), RANGES, 6, str(folder), prune=False))
    return found


@pytest.fixture
def processes_to_end():
    started = []
    yield started
    for process in started:
        process.kill()


def results_of(folder: Path, number: int) -> dict:
    return json.loads((folder / "trials" / f"{number:03d}" / "all_results.json").read_text())


def rows_of(folder: Path) -> list[dict]:
    """The CSV, without the times."""
    with (folder / "trials.csv").open() as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def test_every_file_says_what_the_runs_measured(whole):
    folder = whole.output_dir
    losses = {row["trial"]: results_of(folder, row["trial"])["eval_loss"] for row in whole.trials}
    assert {row["trial"]: row["loss"] for row in whole.trials} == losses
    best = min(losses, key=losses.get)
    assert whole.score == losses[best]
    assert len(losses) == 6
    table = rows_of(folder)
    assert [float(row["eval_loss"]) for row in table] == [losses[i] for i in range(6)]
    page = (folder / "trials.md").read_text()
    ranked = [int(found) for found in re.findall(r"^\| (\d+) ", page, re.MULTILINE)]
    assert ranked == sorted(losses, key=losses.get)
    assert (folder / "trials.png").stat().st_size > 10_000
    for number in losses:
        run = folder / "trials" / f"{number:03d}"
        flags = yaml.safe_load((run / "run.yaml").read_text())
        assert flags["learning_rate"] == float(table[number]["learning_rate"])
        assert flags["per_device_train_batch_size"] == int(table[number]["per_device_train_batch_size"])
        assert 1e-4 <= flags["learning_rate"] <= 5e-2
        names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
        if number == best:
            assert "model.safetensors" in names
        else:
            assert names == {"run.yaml", "history.jsonl", "all_results.json"}
        assert not any(key.startswith("test") for key in results_of(folder, number))


def test_the_first_trial_has_the_usual_flags(whole):
    assert whole.trials[0]["values"] == {"learning_rate": 2e-3, "per_device_train_batch_size": 16}


def test_the_recipe_takes_the_best_flags_and_gets_the_same_score(whole, tmp_path):
    ner.main(["--config", str(whole.output_dir / "best.yaml"), "--output_dir", str(tmp_path / "best")])
    results = json.loads((tmp_path / "best/all_results.json").read_text())
    assert results["eval_loss"] == whole.score
    assert "test_loss" in results
    assert replace(whole.config, output_dir="") == replace(parse_best(whole.output_dir / "best.yaml"), output_dir="")


def parse_best(file):
    from finetune import cli

    return cli.parse(NerConfig, ["--config", str(file)])


def test_a_search_that_goes_on_tries_what_one_in_one_go_tries(whole, tmp_path):
    config = SearchConfig(NerConfig(**TINY), RANGES, 3, str(tmp_path / "search"), prune=False)
    search(config)
    search(replace(config, trials=6))
    assert rows_of(tmp_path / "search") == rows_of(whole.output_dir)


def test_a_trial_that_was_given_back_is_resumed_and_ends_alike(whole, tmp_path, monkeypatch):
    """The training is ended by an exception after its second epoch, as SIGTERM ends it."""
    config = SearchConfig(NerConfig(**TINY), RANGES, 6, str(tmp_path / "search"), prune=False)
    from finetune.training import loop

    calls, save = [], loop._save

    def interrupted(training):
        save(training)
        calls.append(training.state.step)
        if len(calls) == 5:  # in the second trial
            raise SystemExit(143)

    monkeypatch.setattr(loop, "_save", interrupted)
    with pytest.raises(SystemExit):
        search(config)
    study = load_study(tmp_path / "search", minimize=True)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    search(config)
    assert rows_of(tmp_path / "search") == rows_of(whole.output_dir)
    # The second trial was not begun again, and so no epoch was trained twice.
    assert len(calls) == 6 * 3
    histories = [
        [
            {key: value for key, value in json.loads(line).items() if not any(time in key for time in TIMES)}
            for line in (folder / "trials/001/history.jsonl").read_text().splitlines()
        ]
        for folder in (tmp_path / "search", whole.output_dir)
    ]
    assert histories[0] == histories[1]


def test_a_hopeless_trial_is_ended_early(whole, tmp_path):
    """A seventh trial with a rate at which nothing is learned, after six that count for the median."""
    folder = tmp_path / "search"
    config = SearchConfig(NerConfig(**TINY), RANGES, 6, str(folder))
    search(replace(config, prune=False))
    load_study(folder, minimize=True).enqueue_trial({"learning_rate": 1e-4, "per_device_train_batch_size": 16})
    found = search(replace(config, trials=7))
    last = found.trials[6]
    assert last["state"] == "ended early"
    history = [json.loads(line) for line in (folder / "trials/006/history.jsonl").read_text().splitlines()]
    evaluated = [line for line in history if "eval_loss" in line]
    assert [line["epoch"] for line in evaluated] == [1]
    tenth = sorted(results["eval_loss"] for results in (first_evaluation(folder, number) for number in range(6)))
    assert evaluated[0]["eval_loss"] > (tenth[2] + tenth[3]) / 2
    assert not (folder / "trials/006/all_results.json").exists()
    assert "ended early" in (folder / "trials.md").read_text()
    assert not list((folder / "trials/006").glob("checkpoint-*"))


def first_evaluation(folder, number):
    lines = (folder / "trials" / f"{number:03d}" / "history.jsonl").read_text().splitlines()
    return next(line for line in map(json.loads, lines) if "eval_loss" in line)


def test_a_trial_that_fails_is_told_and_the_search_goes_on(tmp_path, capsys):
    own = {name: value for name, value in TINY.items() if name != "metric_for_best_model"}
    config = SentimentConfig(**own, test_file=str(tmp_path / "nothing.csv"))
    found = search(SearchConfig(config, {"learning_rate": [1e38, 1e-2]}, 20, str(tmp_path / "search")))
    assert sorted((row["state"], row["values"]["learning_rate"]) for row in found.trials) == [
        ("failed", 1e38),
        ("finished", 1e-2),
    ]
    out = capsys.readouterr().out
    assert "there are only 2 combinations of these; each is tried once" in out
    assert re.search(r"trial \d failed: FloatingPointError: the \w+ is not finite", out)
    assert "test data is not read: --test_file" in out
    assert "is not finite" in (tmp_path / "search/trials.md").read_text()
    assert found.config.test_file == str(tmp_path / "nothing.csv")
    number = next(row["trial"] for row in found.trials if row["state"] == "finished")
    assert found.score == results_of(tmp_path / "search", number)["eval_accuracy"]


def test_a_test_split_is_not_read(tmp_path):
    """Its labels are unknown to the training split, which every reader of a test split refuses."""
    rows = {"text": ["good", "bad"] * 12, "label": ["x", "y"] * 12}
    saved = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows),
        validation=datasets.Dataset.from_dict(rows),
        test=datasets.Dataset.from_dict({"text": ["good"], "label": ["z"]}),
    )
    saved.save_to_disk(tmp_path / "data")
    shape = {name: TINY[name] for name in ("model_name_or_path", "hidden_size", "embedding_size", "char_features")}
    config = SentimentConfig(dataset_name=str(tmp_path / "data"), num_train_epochs=1, **shape)
    found = search(SearchConfig(config, {"learning_rate": [1e-2]}, 1, str(tmp_path / "search")))
    assert found.trials[0]["state"] == "finished"
    from recipes.sentiment import finetune_sentiment

    with pytest.raises(ValueError, match="z"):
        finetune_sentiment(replace(config, output_dir=str(tmp_path / "run")))


def test_values_that_were_tried_are_not_trained_again(tmp_path):
    """Two of the three trials with equal values: the score is taken over."""
    folder = tmp_path / "search"
    config = SearchConfig(NerConfig(**TINY), RANGES, 1, str(folder))
    first = search(config).trials[0]
    study = load_study(folder, minimize=True)
    study.enqueue_trial(first["values"])
    found = search(replace(config, trials=2))
    assert found.trials[1]["loss"] == first["loss"]
    assert found.trials[1]["reason"] == "the same values as trial 0"
    assert not (folder / "trials/001").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": {"low": 1e-4, "high": 1e-2}}, "the range of learning_rate was"),
        ({"warmup_steps": 2.0}, "warmup_steps was not given and is 2.0"),
        ({"max_train_samples": 40}, "the data was"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(tmp_path, change, message):
    rows = [{"tokens": ["a", "b"], "ner_tags": ["B-X", "O"]}] * 8
    own = {name: value for name, value in TINY.items() if name not in ("dataset_name", "max_train_samples")}
    config = SearchConfig(NerConfig(**own), RANGES, 1, str(tmp_path / "search"))
    search(config, data={"train": rows, "validation": rows})
    before = (tmp_path / "search/search.journal").read_bytes()
    more = rows if "max_train_samples" not in change else [*rows, *rows]
    changed = replace(config, search={**RANGES, **change}) if "learning_rate" in change else config
    if "warmup_steps" in change:
        changed = replace(config, config=replace(config.config, **change))
    with pytest.raises(ValueError, match=re.escape(message)):
        search(changed, data={"train": more, "validation": rows})
    assert (tmp_path / "search/search.journal").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [({"class_weights": "B-NOTHING=2"}, "B-NOTHING"), ({"model_name_or_path": "nothing/there"}, "nothing/there")],
)
def test_a_wrong_flag_stops_before_anything_is_written(tmp_path, change, message):
    """The first one is known once the labels are read and the model is there, so only a training finds it."""
    flags = TINY | change if "class_weights" in change else {"dataset_name": "samples"} | change
    with pytest.raises(ValueError, match=message):
        search(SearchConfig(NerConfig(**flags), RANGES, 1, str(tmp_path / "search")))
    assert not (tmp_path / "search").exists()


def test_a_trial_whose_process_dies_again_and_again_fails(tmp_path):
    found = trials.open_search(
        *(tmp_path / "search", trials.ranges_of(RANGES), {}, {}),
        seed=0, most=2, minimize=True, check=lambda: None,
    )  # fmt: skip
    first = found.next_trial()
    values = found.state_of(first).params
    for _ in range(3):
        claims.release(found.claim_of(0))  # the file is then as a dead process leaves it
        again = found.next_trial()
        assert again.number == 0
        assert found.state_of(again).params == values
    assert found.leave(again) is False  # given back: this is no death
    assert found.next_trial().number == 0
    claims.release(found.claim_of(0))
    assert found.next_trial().number == 1
    assert found.trials()[0].state == TrialState.FAIL
    assert "died 4 times" in found.trials()[0].user_attrs["reason"]
    assert found.next_trial() is None


def test_a_trial_that_came_further_before_its_process_died_may_go_on(tmp_path):
    """The newest checkpoint says how far it came; checkpoint-10 is newer than checkpoint-9."""
    found = trials.open_search(
        *(tmp_path / "search", trials.ranges_of(RANGES), {}, {}),
        seed=0, most=1, minimize=True, check=lambda: None,
    )  # fmt: skip
    found.next_trial()
    for step in (7, 8, 9, 10, 11):
        (found.folder_of(0) / f"checkpoint-{step}").mkdir(parents=True)
        claims.release(found.claim_of(0))
        assert found.next_trial().number == 0
        assert found.trials()[0].user_attrs["died"] == {"place": [0, step], "times": 1}


def test_a_model_that_becomes_the_best_while_others_are_removed_stays(tmp_path):
    """Another process ends its trial, the best one, after this process has read the journal."""

    class Beside(trials.Search):
        def trials(self):
            read = super().trials()
            if not self.state_of(later).state.is_finished():
                self.study.tell(later, 0.1)
            return read

    own = trials.open_search(
        *(tmp_path / "search", trials.ranges_of(RANGES), {}, {}),
        seed=0, most=3, minimize=True, check=lambda: None,
    )  # fmt: skip
    first, second, later = (own.next_trial() for _ in range(3))
    own.study.tell(first, 0.5)
    own.study.tell(second, 0.3)
    for trial in (first, second, later):
        own.folder_of(trial.number).mkdir(parents=True)
        (own.folder_of(trial.number) / "model.safetensors").write_bytes(b"weights")
    Beside(own.folder, own.study, own.ranges, 0, 3).slim()
    left = sorted(path.parent.name for path in own.folder.glob("trials/*/model.safetensors"))
    assert left == ["001", "002"]
    own.slim()
    assert [path.parent.name for path in own.folder.glob("trials/*/model.safetensors")] == ["002"]


def test_only_the_final_training_uploads_a_model(tmp_path):
    """The trials do not upload: this machine has no account, and they end well. The flags of the best one do."""
    config = SearchConfig(NerConfig(**TINY, max_steps=1, push_to_hub=True), RANGES, 1, str(tmp_path / "search"))
    found = search(config)
    assert found.config.push_to_hub
    assert yaml.safe_load((tmp_path / "search/best.yaml").read_text())["push_to_hub"] is True


def test_a_claim_holds_as_long_as_its_process_lives(tmp_path, processes_to_end):
    file = tmp_path / "claim"
    code = "from finetune.trials import claims; from pathlib import Path; "
    code += f"print(claims.take(Path({str(file)!r})), flush=True); import time; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    processes_to_end.append(process)
    assert process.stdout.readline().strip() == "True"
    assert not claims.take(file)
    process.kill()
    process.wait()
    assert claims.take(file)
    assert not claims.take(file)
    claims.release(file)
    # Of another host, whose locks may not reach this one, the age of the file decides.
    file.write_text("elsewhere")
    assert not claims.take(file)
    os.utime(file, (time.time() - 300,) * 2)
    assert claims.take(file)
    claims.release(file)


def test_scores_are_compared_at_the_same_share_of_the_steps():
    from finetune.trials.trial import report

    def told(evaluations):
        study = optuna.create_study()
        trial = study.ask()
        for share, value in evaluations:
            report(trial, share, value)
        return study.trials[0].intermediate_values

    assert told([(1 / 3, 1.0), (2 / 3, 2.0), (1.0, 3.0)]) == {3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 2, 9: 2, 10: 3}
    assert told([(i / 10, float(i)) for i in range(1, 11)]) == {i: i for i in range(1, 11)}
    assert told([(0.05, 1.0), (0.1, 2.0), (0.15, 3.0), (0.2, float("nan"))]) == {1: 2}


@pytest.mark.parametrize(
    "given",
    [{"low": 1, "high": 8, "step": 3}, {"low": 0.0, "high": 0.35, "step": 0.1}, [8, 16], [None, True, "x"],
     {"low": 2, "high": 4}],
)  # fmt: skip
def test_a_range_gives_its_values_and_no_others(given):
    from finetune.trials.study import propose

    one = trials.ranges_of({"flag": given})["flag"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = {propose(study.ask(), "flag", one) for _ in range(60)}
    wanted = given if isinstance(given, list) else None
    if wanted is None:
        step = given.get("step", 1)
        wanted = [given["low"] + i * step for i in range(int((given["high"] - given["low"]) / step + 1e-9) + 1)]
    assert len(seen) == len(wanted)
    assert all(any(value == pytest.approx(other) for other in wanted) for value in seen)
    assert all(one.holds(value) for value in seen)
    assert not one.holds("nothing of it")


def test_the_usual_ranges_leave_out_what_is_given(monkeypatch):
    argv = ["--task", "ner", "--dataset_name", "samples", "--model_name_or_path", "bilstm"]
    ranges = parse(argv).search
    assert {name: str(one) for name, one in ranges.items()} == {
        "learning_rate": "numbers from 0.0002 to 0.02, by powers of ten",
        "num_train_epochs": "whole numbers from 10 to 40",
        "per_device_train_batch_size": "one of 8, 16, 32",
    }
    assert list(parse([*argv, "--learning_rate", "1e-3"]).search) == [
        "num_train_epochs",
        "per_device_train_batch_size",
    ]
    assert "num_train_epochs" not in parse([*argv, "--max_steps", "10"]).search
    given = parse([*argv, "--num-train-epochs", "5", "--output-dir", "runs/mine"])
    assert (given.output_dir, given.config.num_train_epochs) == ("runs/mine", 5)
    assert "num_train_epochs" not in given.search
    assert list(_checked(SearchConfig(NerConfig(**TINY)), RECIPES["ner"])[1]) == [
        "learning_rate",
        "per_device_train_batch_size",
    ]
    assert "per_device_train_batch_size" not in parse([*argv, "--tokens_per_batch", "512"]).search


def test_half_a_line_at_the_end_of_the_journal_is_left_out(whole, tmp_path):
    folder = shutil.copytree(whole.output_dir, tmp_path / "search")
    journal = folder / "search.journal"
    before = journal.read_bytes()
    journal.write_bytes(before + before.splitlines()[-1][:20])
    assert len(load_study(folder, minimize=True).trials) == 6
    assert journal.read_bytes() == before


def test_repeated_trials_take_no_place_of_the_combinations(tmp_path):
    """Three of four combinations at first, as random trials; then all of them, each once."""
    ranges = {"per_device_train_batch_size": [8, 16], "learning_rate": [1e-3, 1e-2]}
    config = SearchConfig(NerConfig(**TINY | {"max_steps": 1}), ranges, 3, str(tmp_path / "search"))
    search(config)
    found = search(replace(config, trials=20))
    values = [tuple(row["values"].values()) for row in found.trials if not row["reason"]]
    assert len(values) == len(set(values)) == 4


def begun(out: Path) -> list[int]:
    return [int(number) for number in re.findall(r"^=== trial (\d+) ", out.read_text(), re.MULTILINE)]


def wait_for(condition, process, seconds=400):
    for _ in range(seconds * 10):
        if condition():
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError("it did not come to that point")


def test_ctrl_c_is_told_once_and_the_trial_is_given_back(tmp_path, processes_to_end):
    folder = tmp_path / "search"
    command = [
        sys.executable,
        "recipes/search.py",
        "--task=ner",
        *(f"--{name}={value}" for name, value in TINY.items()),
    ]
    command += ["--num_train_epochs=500", "--trials=2", f"--output_dir={folder}"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ, start_new_session=True,
            # A shell that starts tests in the background lets them ignore Ctrl-C; then so would this process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    processes_to_end.append(process)
    wait_for(lambda: (folder / "trials/000/history.jsonl").exists(), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the trial has a process of its own
    assert process.wait(60) == 130
    said = (tmp_path / "out").read_text()
    assert said.count("Ctrl-C: stopped after step") == 1
    assert said.rstrip().endswith("trial 0 is given back; the same command goes on with it")
    assert len(load_study(folder, minimize=True).trials) == 1
    (running,) = load_study(folder, minimize=True).trials
    assert running.state == TrialState.RUNNING


@pytest.mark.slow
def test_stopped_killed_and_continued_by_two_processes(whole, tmp_path, processes_to_end):
    """Real commands: SIGTERM in the second trial, SIGKILL in the third, then two processes share the rest."""
    folder = tmp_path / "search"
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    file = tmp_path / "search.yaml"
    file.write_text(yaml.safe_dump({"task": "ner", "search": RANGES}))
    command = [sys.executable, "recipes/search.py", f"--config={file}", *flags, "--trials=6", "--prune=false"]
    command += [f"--output_dir={folder}"]

    def start(name):
        out = (tmp_path / name).open("w")
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ)
        processes_to_end.append(process)
        return process, tmp_path / name

    process, first = start("first")
    wait_for(lambda: (folder / "trials/001/history.jsonl").exists(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(400) == 143
    assert "trial 1 is given back" in first.read_text() or begun(first) == [0, 1, 2]

    process, second = start("second")
    wait_for(lambda: (folder / "trials/002/history.jsonl").exists(), process)
    process.kill()
    process.wait(60)

    both = [start("third"), start("fourth")]
    assert [process.wait(400) for process, _ in both] == [0, 0]
    third, fourth = (begun(out) for _, out in both)
    assert not set(third) & set(fourth), "a trial was done twice"
    assert {*begun(first), *begun(second), *third, *fourth} == set(range(6))
    assert third
    assert fourth
    rows = rows_of(folder)
    assert [row["state"] for row in rows] == ["finished"] * 6
    # One process alone proposed these, so they are those of the search that was never stopped.
    assert rows[:3] == rows_of(whole.output_dir)[:3]
    for row in rows:
        assert results_of(folder, int(row["trial"]))["eval_loss"] == float(row["eval_loss"])
    models = list(folder.glob("trials/*/model.safetensors"))
    best = min(rows, key=lambda row: float(row["eval_loss"]))
    assert [model.parent.name for model in models] == [f"{int(best['trial']):03d}"]
