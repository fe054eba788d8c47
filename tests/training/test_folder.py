"""A run's folder: it loses only what a run wrote, and one command at a time writes there."""

import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from processes import ROOT

from finetune import training
from finetune.training import folder as own
from finetune.training import loop
from finetune.training.saving import remove_old_checkpoints
from recipes import ner
from recipes.ner import NerConfig, finetune_ner

TINY = {
    "dataset_name": "samples",
    "model_name_or_path": "rnn",
    "max_seq_length": 32,
    "max_train_samples": 12,
    "max_eval_samples": 4,
    "hidden_size": 8,
    "embedding_size": 8,
    "char_features": "none",
    "max_steps": 2,
    "disable_tqdm": True,
}
KILLED = 9


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with two checkpoints and TensorBoard's files."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    every_step = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9, "load_best_model_at_end": False}
    umask = os.umask(0o027)
    try:
        finetune_ner(NerConfig(**TINY, **every_step, report_to="tensorboard", output_dir=str(folder)))
    finally:
        os.umask(umask)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def config_of(folder, **more):
    return NerConfig(**TINY | more, output_dir=str(folder))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def a_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


def a_link(path):
    path.symlink_to("/nowhere")


def test_a_folder_that_no_run_made_keeps_everything(tmp_path):
    for name in ("run.yaml", ".git/HEAD", "src/thesis.txt", "config.json"):
        a_file(tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"^overwrite_output_dir: {tmp_path} has no list of what a run wrote"):
        finetune_ner(config_of(tmp_path, overwrite_output_dir=True))
    with pytest.raises(ValueError, match=f"^{tmp_path}/run.yaml: does not tell of a run"):
        finetune_ner(config_of(tmp_path, resume_from_checkpoint="true"))
    (tmp_path / "run.yaml").write_text("seed: 42\nname: mine\n")
    with pytest.raises(ValueError, match=f"^{tmp_path}/run.yaml: does not tell of a run"):
        finetune_ner(config_of(tmp_path, resume_from_checkpoint="true"))
    assert contents(tmp_path) == before | {Path("run.yaml"): b"seed: 42\nname: mine\n"}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("notes.txt", a_file),
        (".git/HEAD", a_file),
        ("checkpoint-1/notes.txt", a_file),
        ("checkpoint-1-best/config.json", a_file),
        ("checkpoint-7", a_file),
        ("finetune/mine.py", a_file),
        (".notes.writing", a_file),
        ("predictions_mine.conll", a_file),
        ("data", Path.mkdir),
        ("link", a_link),
    ],
)
def test_what_no_run_wrote_is_named_and_everything_stays(run, name, make):
    make(run / name)
    before = contents(run)
    with pytest.raises(ValueError, match=f"^overwrite_output_dir: no run wrote {run / name}, which would be lost"):
        finetune_ner(config_of(run, overwrite_output_dir=True))
    assert contents(run) == before


def dies_at(number, action):
    """The exit status of a copy of this process that dies before its n-th change to the file system."""
    child = os.fork()
    if not child:
        count = itertools.count(1)
        changes = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")

        def watch(event, arguments):
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (event in changes or writes) and next(count) == number:
                os._exit(KILLED)

        sys.addaudithook(watch)
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_overwriting_can_be_repeated_wherever_it_was_killed(whole, tmp_path):
    """Every point of death between the first removal and the new run.yaml."""
    begun = started(tmp_path / "none", overwrite_output_dir=True, seed=7)
    for number in itertools.count(1):
        folder = Path(shutil.copytree(whole, tmp_path / str(number)))
        begun = replace(begun, config=replace(begun.config, output_dir=str(folder)))
        code = dies_at(number, begun.create_folder)
        begun.create_folder()  # accepted, wherever the first one died
        own.unlock(folder)
        assert {path.name for path in folder.iterdir()} == {".lock", ".written", "run.yaml"}
        assert "seed: 7" in (folder / "run.yaml").read_text()
        if code != KILLED:
            assert code == 0
            assert number > 30, "every file is removed for itself"
            return


def started(folder, **more):
    return training.start_run(ner.resolved(config_of(folder, **more)), metrics=["f1"])


def test_a_removal_that_was_killed_leaves_nothing_for_the_resumed_run(run, whole):
    """Of the enumerated points of death, those within the removal of an old checkpoint."""
    every_step = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": False}
    for number in itertools.count(1):
        code = dies_at(number, lambda: remove_old_checkpoints(run, 1, None, 2))
        assert "checkpoint-2" in {path.name for path in training.checkpoints(run)}
        assert all(training.damage(path) is None for path in training.checkpoints(run)), "no half has a whole's name"
        started(run, **every_step, resume_from_checkpoint="true").create_folder()
        own.unlock(run)
        assert not list(run.glob(".checkpoint-*"))
        shutil.copytree(whole / "checkpoint-1", run / "checkpoint-1", dirs_exist_ok=True)
        if code != KILLED:
            assert number > 5
            return


HOLDER = (
    "import sys, time; from pathlib import Path; from finetune.training import folder; "
    "folder.lock(Path(sys.argv[1])); print('locked', flush=True); time.sleep(600)"
)


@pytest.fixture
def holder():
    """A process of another command, which has the lock of a folder."""
    processes = []

    def hold(folder):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, cwd=ROOT)
        processes.append(process)
        assert process.stdout.readline() == b"locked\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_one_command_at_a_time_and_the_lock_dies_with_its_process(run, holder, tmp_path):
    (tmp_path / "new").mkdir()
    for folder, more in ((run, {"resume_from_checkpoint": "true"}), (run, {"overwrite_output_dir": True}),
                         (tmp_path / "new", {})):  # fmt: skip
        other = holder(folder)
        before = contents(folder)
        with pytest.raises(ValueError, match=rf"another command is writing there \(process {other.pid} on "):
            finetune_ner(config_of(folder, **more))
        assert contents(folder) == before
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert finetune_ner(config_of(tmp_path / "new")).results["train_steps"] == 2


def test_a_run_that_came_first_is_not_written_over(whole, tmp_path):
    """Both commands looked before there was a folder."""
    second = started(tmp_path / "run", seed=2)
    shutil.copytree(whole, tmp_path / "run")
    before = contents(whole)
    with pytest.raises(ValueError, match="this folder already holds a run"):
        second.create_folder()
    assert contents(tmp_path / "run") == before


def test_a_process_that_lives_on_gives_the_lock_back(tmp_path, monkeypatch, holder):
    """As a notebook does, after Ctrl-C and after a whole run."""

    def interrupt(*_):
        raise KeyboardInterrupt

    config = config_of(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "accumulate_gradients", interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune_ner(config)
    holder(tmp_path / "run").kill()
    time.sleep(0.2)
    finetune_ner(replace(config, resume_from_checkpoint="true"))
    holder(tmp_path / "run")


def test_processes_end_with_their_launcher(tmp_path):
    """A launcher killed with SIGKILL tells its children nothing."""
    script = tmp_path / "trainer.py"
    script.write_text(
        "import os, sys, time\n"
        "from finetune.training.signals import end_with_launcher\n"
        "end_with_launcher()\n"
        "open(f'{sys.argv[1]}/{os.environ[\"RANK\"]}', 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, tmp_path],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        files = [tmp_path / "0", tmp_path / "1"]
        while not all(file.is_file() and file.read_text() for file in files):
            assert launcher.poll() is None
            time.sleep(0.1)
        trainers = [psutil.Process(int(file.read_text())) for file in files]
    finally:
        launcher.kill()
        launcher.wait()
    assert not psutil.wait_procs(trainers, timeout=60)[1]


def test_who_may_read_a_model_is_the_umasks_choice(whole):
    for path in (whole / "model.safetensors", *whole.glob("checkpoint-*/*.safetensors"), whole / "config.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_tensorboard_is_not_written_through_a_link(run, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.rmtree(run / "finetune")
    (run / "finetune").symlink_to(tmp_path / "mine")
    told = {"report_to": "tensorboard", "save_strategy": "no", "load_best_model_at_end": False}
    finetune_ner(config_of(run, overwrite_output_dir=True, **told))
    finetune_ner(config_of(run, resume_from_checkpoint="true", **told))
    assert list((run / "finetune").rglob("events.out.tfevents.*"))
    (run / "finetune").rename(tmp_path / "elsewhere")
    (run / "finetune").symlink_to(tmp_path / "mine")
    finetune_ner(config_of(run, resume_from_checkpoint="true", **told))
    assert not list((tmp_path / "mine").iterdir())


def test_what_is_renamed_is_on_the_disk_before_and_its_folder_after(tmp_path, monkeypatch):
    """The order of the calls that a power cut tests: files, then their folder, then the rename, then the parent."""
    calls = []

    def named(handle):
        return Path(os.readlink(f"/proc/self/fd/{handle}"))

    def told(name, original, what):
        def call(*arguments, **more):
            calls.append((name, *what(*arguments)))
            return original(*arguments, **more)

        monkeypatch.setattr(os, name, call)

    told("fsync", os.fsync, lambda handle: (named(handle),))
    for name in ("rename", "replace"):
        told(name, getattr(os, name), lambda a, b, **_: (Path(a), Path(b)))
    folder = tmp_path / "run"
    finetune_ner(config_of(folder, max_steps=3, save_strategy="steps", save_steps=1, load_best_model_at_end=False))
    names = set(os.listdir(folder / "checkpoint-3"))
    renames = [(i, call) for i, call in enumerate(calls) if call[0] != "fsync"]
    synced = [call[1] if call[0] == "fsync" else None for call in calls]

    def position(path, after, before):
        return next((i for i in range(after, before) if synced[i] == path), None)

    since = 0
    for step in (1, 2, 3):
        beside, place = folder / f".checkpoint-{step}.writing", folder / f"checkpoint-{step}"
        at = next(i for i, call in renames if call[1:] == (beside, place))
        files = [position(beside / name, since, at) for name in names]
        assert None not in files
        assert position(beside, max(files), at) is not None, "the folder, once its files are whole"
        after = next((i for i, _ in renames if i > at), len(calls))
        assert position(folder, at, after) is not None, "the rename itself"
        since = at
    assert ("rename", folder / "checkpoint-1", folder / ".checkpoint-1.removing") in calls
    for name in ("run.yaml", "all_results.json", "README.md", "predictions_test.conll", "history.jsonl", ".written"):
        at = [i for i, call in renames if call[1:] == (folder / f".{name}.writing", folder / name)]
        assert at
        assert all(synced[i - 1] == folder / f".{name}.writing" for i in at), name
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        beside = folder / ".model.writing" / name
        at = next(i for i, call in renames if call[1:] == (beside, folder / name))
        assert position(beside, 0, at) is not None
        assert position(folder, at, len(calls)) is not None
