"""SIGTERM and Ctrl-C: the step is done, a checkpoint is written, and the resumed run ends with the same bytes.

The signals are real. They are sent from within a step, so that it is known which one they meet.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from accelerate import Accelerator
from processes import run_script

from finetune import cli, training
from finetune.training import loop
from finetune.training.manifest import damage
from finetune.training.signals import noted_signals
from recipes.ner import NerConfig, finetune_ner


def a_config(checkpoint, output_dir):
    return NerConfig(
        dataset_name="samples",
        model_name_or_path=str(checkpoint),
        output_dir=str(output_dir),
        max_seq_length=32,
        max_train_samples=20,
        max_eval_samples=9,
        max_steps=10,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        disable_tqdm=True,
    )


@pytest.fixture(autouse=True)
def interruptible():
    """A shell starts its background jobs with Ctrl-C ignored, which a run keeps to."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole(checkpoints, tmp_path_factory):
    return finetune_ner(a_config(checkpoints["wordpiece"], tmp_path_factory.mktemp("runs") / "whole")).output_dir


@pytest.fixture
def config(checkpoints, tmp_path):
    return a_config(checkpoints["wordpiece"], tmp_path / "run")


@pytest.fixture
def in_step(monkeypatch):
    """Does something in the middle of a step."""

    def arrange(number, action):
        count = 0
        original = loop.accumulate_gradients

        def step(*arguments):
            nonlocal count
            count += 1
            if count == number:
                action()
            return original(*arguments)

        monkeypatch.setattr(loop, "accumulate_gradients", step)

    return arrange


def outcome(folder):
    told = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    told.append(json.loads((folder / "all_results.json").read_text()))
    times = ("runtime", "per_second", "memory")
    numbers = [{k: v for k, v in line.items() if not any(word in k for word in times)} for line in told]
    last = training.checkpoints(folder)[-1]  # the best weights, which are the model, may be of an earlier step
    paths = [folder / "model.safetensors", folder / "predictions_test.conll", *sorted(last.glob("*.safetensors"))]
    return numbers, last.name, [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("step", [3, 4, 10])  # between two evaluations, at one, at the very last
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_end_and_saves(config, whole, in_step, capfd, number, step):
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    in_step(step, lambda: send(number))
    with pytest.raises((KeyboardInterrupt, SystemExit)) as left:
        finetune_ner(config)
    if number == signal.SIGINT:
        assert left.type is KeyboardInterrupt
        assert str(left.value).startswith(f"Ctrl-C: stopped after step {step}: checkpoint-{step} is written")
    else:
        assert left.value.code == 143
    assert f"stopped after step {step}" in capfd.readouterr().out
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    newest = training.checkpoints(Path(config.output_dir))[-1]
    assert newest.name == f"checkpoint-{step}"
    assert damage(newest) is None
    assert not (Path(config.output_dir) / "all_results.json").exists()
    assert outcome(finetune_ner(replace(config, resume_from_checkpoint="true")).output_dir) == outcome(whole)


def test_on_the_command_line_ctrl_c_is_130(config, in_step):
    in_step(2, lambda: send(signal.SIGINT))
    with pytest.raises(SystemExit) as left:
        cli.run(finetune_ner, config)
    assert left.value.code == 130


def test_the_second_ctrl_c_leaves_at_once(config, in_step):
    in_step(3, lambda: send(signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        finetune_ner(config)
    assert not training.checkpoints(Path(config.output_dir))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["batches.TrainBatches.digest", "batches.TrainBatches.locate"])
def test_before_the_first_step_a_signal_acts_at_once(config, monkeypatch, number, place):
    """Where nobody asks for it, it must not be noted alone: what is done there may take long, or not end."""

    class Arrived(BaseException):
        pass

    def arrived(*_):
        raise Arrived

    def forever(*_):
        send(number)
        while not time.sleep(0.01):
            pass

    before = signal.signal(number, arrived)
    signal.alarm(60)
    try:
        monkeypatch.setattr(f"finetune.data.{place}", forever)
        with pytest.raises(Arrived):
            finetune_ner(config)
    finally:
        signal.alarm(0)
        signal.signal(number, before)
    assert not Path(config.output_dir).exists()


def test_the_third_ctrl_c_ends_what_swallows_the_second(tmp_path):
    script = (
        "import os, signal\n"
        "from accelerate import Accelerator\n"
        "from finetune.training.signals import noted_signals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with noted_signals(Accelerator(cpu=True)):\n"
        "    for _ in range(3):\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        except BaseException:\n"
        "            pass\n"
        "    print('alive', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")


def test_with_save_strategy_no_it_says_that_nothing_is_kept(config, in_step, capfd):
    in_step(3, lambda: send(signal.SIGTERM))
    with pytest.raises(SystemExit):
        finetune_ner(replace(config, save_strategy="no", load_best_model_at_end=False))
    assert "stopped after step 3: --save_strategy no, so nothing of it is kept" in capfd.readouterr().out
    assert not training.checkpoints(Path(config.output_dir))


def test_a_signal_to_the_whole_group_leaves_the_workers_alive(config, whole, in_step):
    """A launcher or a scheduler sends it to those that build batches, too, without which the step has no data."""
    before = psutil.Process().children()  # Python keeps a helper of its own once a test has spawned a process
    workers = []

    def to_all():
        workers.extend(child for child in psutil.Process().children() if child not in before)
        assert workers, "this run does not test what it should"
        # By another process: what comes from their own one, torch lets the workers take as an order to end.
        pids = [str(process.pid) for process in (*workers, psutil.Process())]
        subprocess.run(["kill", "-TERM", *pids], check=True)
        time.sleep(0.2)

    in_step(3, to_all)
    with pytest.raises(SystemExit) as left:
        finetune_ner(replace(config, dataloader_num_workers=1))
    assert left.value.code == 143
    assert training.checkpoints(Path(config.output_dir))[-1].name == "checkpoint-3"
    assert not [worker for worker in workers if worker.is_running()], "the workers have ended"
    assert outcome(finetune_ner(replace(config, resume_from_checkpoint="true")).output_dir) == outcome(whole)


def test_a_thread_that_is_not_the_main_one_trains_too(config, whole):
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    found = []
    thread = threading.Thread(target=lambda: found.append(finetune_ner(config)))
    thread.start()
    thread.join()
    assert outcome(found[0].output_dir) == outcome(whole)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_signal_after_the_last_question_is_not_lost():
    def ask_and_go_on():
        with noted_signals(Accelerator(cpu=True)) as signals:
            assert signals.agreed() == 0
            send(signal.SIGINT)
            return "the handler only notes it"

    with pytest.raises(KeyboardInterrupt):
        ask_and_go_on()


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as nohup does
    try:
        with noted_signals(Accelerator(cpu=True)) as signals:
            send(signal.SIGTERM)
            assert signals.agreed() == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_of_two_processes_gets_the_signal(checkpoints, tmp_path):
    """Both leave after the same step with one checkpoint, and two resumed processes end with the same bytes."""
    script = Path(__file__).with_name("two_interrupted.py")
    done = run_script(script, checkpoints["wordpiece"], tmp_path, processes=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [143, ["checkpoint-3"]]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
