"""The mean of the best weights: as written out by hand, the same after a kill, and nothing of it left on the disk."""

import hashlib
import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_script
from safetensors.torch import load_file, save_file
from test_collapse import a_config as a_config_that_collapses
from test_folder import KILLED, dies_at
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification

from finetune import config_files, data, training
from finetune.models import load_tokenizer
from finetune.training import best, loop, restart, saving
from finetune.training.collapse import config_of_attempt
from finetune.training.run import Run
from recipes import ner
from recipes.ner import NerConfig, finetune_ner

LEFT = {"model.safetensors", "manifest.json"}


@pytest.fixture(scope="module")
def config(short_ner):
    """Twelve steps at a high rate, and an evaluation after each second one."""
    return NerConfig(
        **short_ner,
        max_steps=12,
        learning_rate=2e-2,
        lr_scheduler_type="constant",
        eval_steps=2,
        save_steps=2,
        metric_for_best_model="loss",
        average_checkpoints=4,
    )


def results(folder):
    return json.loads((folder / "all_results.json").read_text())


def outcome(folder):
    """Weights, history, results and predictions, times aside."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    times = ("runtime", "per_second", "memory")
    numbers = [
        {k: v for k, v in line.items() if not any(t in k for t in times)} for line in (*lines, results(folder))
    ]
    files = ("model.safetensors", "predictions_eval.conll", "predictions_test.conll")
    left = sorted(path.name for path in folder.glob("checkpoint-*"))
    return numbers, left, [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files]


def loss_of(folder, weights, config):
    """The loss of the validation split, sentence by sentence, with transformers and torch alone."""
    splits = data.read_tagged(config)
    model = AutoModelForTokenClassification.from_pretrained(folder)
    model.load_state_dict(weights)
    tokenizer = load_tokenizer(str(folder))
    rows = data.align(splits["validation"], tokenizer, data.entity_labels(splits["train"]), max_seq_length=32).rows
    summed, count = 0.0, 0
    for first, last in itertools.pairwise(rows.offsets):
        ids, labels = (torch.tensor(rows.tokens[name][first:last]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            logits = model.eval()(input_ids=ids[None]).logits[0]
        summed += cross_entropy(logits, labels.long(), reduction="sum", ignore_index=-100).item()
        count += int((labels != -100).sum())
    return summed / count


def test_it_is_the_best_mean_as_written_out_by_hand(config, tmp_path):
    own = replace(config, output_dir=str(tmp_path / "run"), save_total_limit=9)
    found = finetune_ner(own).results
    lines = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    order = sorted((line["eval_loss"], line["step"]) for line in lines if "eval_loss" in line)[:4]
    files = [load_file(tmp_path / f"run/checkpoint-{step}/model.safetensors") for _, step in order]
    means, losses = [], []
    for number in range(1, 5):
        mean = {name: np.mean([w[name].double().numpy() for w in files[:number]], axis=0) for name in files[0]}
        means.append({name: torch.from_numpy(value).float() for name, value in mean.items()})
        losses.append(loss_of(tmp_path / "run", means[-1], own))
    number = int(np.argmin(losses)) + 1
    assert number > 1, "no mean is better in this run, so it tests nothing"
    assert number < 4, "the last one that is tried is the best, so taking the last one would pass"
    assert found["averaged_checkpoints"] == number
    assert found["eval_loss"] == pytest.approx(losses[number - 1], abs=1e-5)
    saved = load_file(tmp_path / "run/model.safetensors")
    assert saved.keys() == means[0].keys()
    assert all(torch.equal(saved[name], value) for name, value in means[number - 1].items())
    card = (tmp_path / "run/README.md").read_text()
    assert f"- averaging: the weights are the mean of the best {number} evaluated weights\n" in card


def test_of_equal_scores_the_fewer_weights_are_taken(config, whole, tmp_path, capfd):
    """No entity is found in this run, so each F1 is 0."""
    own = replace(config, output_dir=str(tmp_path / "run"), metric_for_best_model="f1", max_steps=4)
    assert finetune_ner(own).results["averaged_checkpoints"] == 1
    said = capfd.readouterr().out
    assert "mean of the best 2 evaluated weights: f1 0.0000" in said
    assert "the model has the best evaluated weights alone; no mean is better" in said


def test_the_disk_holds_what_the_run_needs_and_nothing_of_it_in_the_end(config, whole, tmp_path, monkeypatch):
    seen = []
    original = loop.remove_old_checkpoints

    def observed(folder, keep, best_step, step, averaged):
        original(folder, keep, best_step, step, averaged)
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        order = sorted((line["eval_loss"], line["step"]) for line in lines if "eval_loss" in line)[:4]
        names = {f"checkpoint-{step}", f"checkpoint-{order[0][1]}"}
        names |= {f"checkpoint-{other}-weights" for _, other in order if f"checkpoint-{other}" not in names}
        assert {path.name for path in folder.glob("checkpoint-*")} == names
        for path in folder.glob("*-weights"):
            assert {file.name for file in path.iterdir()} == LEFT
            seen.append(path.name)
        assert not list(folder.glob(".checkpoint-*"))

    monkeypatch.setattr(loop, "remove_old_checkpoints", observed)
    finetune_ner(replace(config, output_dir=str(tmp_path / "run")))
    assert len(set(seen)) >= 2
    assert outcome(tmp_path / "run") == outcome(whole)
    assert len(list(whole.glob("checkpoint-*"))) == 2  # the best one and the newest one, as without averaging
    assert not list(whole.glob("*-weights"))
    # The list of what the run wrote is complete: another run may overwrite it.
    finetune_ner(replace(config, output_dir=str(tmp_path / "run"), overwrite_output_dir=True, max_steps=2))


def test_all_rows_of_the_embedding_are_averaged(config, whole, tmp_path):
    finetune_ner(replace(config, output_dir=str(tmp_path / "run"), compact_vocabulary=False))
    assert outcome(tmp_path / "run")[2] == outcome(whole)[2]


# Where a run dies: before the n-th call of this function.
DEATHS = {
    "an old checkpoint lost its name, and not yet its files": (saving, "_remove_all_but_weights", 6),
    "between the training and the means": (loop, "load_best", 1),
    "before the second mean is evaluated": (best, "value_of", 1),
    "before the model is saved": (Run, "save_model", 1),
    "before the scores are written": (Run, "finish", 1),
}


def dies_in(place, name, number, config):
    """The exit status of a copy of this process that makes the run, and dies before a call of a function."""
    child = os.fork()
    if not child:
        original, count = getattr(place, name), itertools.count(1)

        def last(*arguments, **named):
            if next(count) == number:
                os._exit(KILLED)
            return original(*arguments, **named)

        setattr(place, name, last)
        try:
            finetune_ner(config)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_run_comes_to_the_same_mean(config, whole, tmp_path, death):
    own = replace(config, output_dir=str(tmp_path / "run"))
    assert dies_in(*DEATHS[death], own) == KILLED
    assert not (tmp_path / "run/all_results.json").exists()
    finetune_ner(replace(own, resume_from_checkpoint="true"))
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_finished_run_keeps_its_mean_when_it_is_resumed(config, whole, tmp_path, capfd):
    """Its weights are gone, or some of them if it was killed while it removed them."""
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    finetune_ner(replace(config, output_dir=str(folder), resume_from_checkpoint="true"))
    assert "this run has finished before: the model is the mean of the best" in capfd.readouterr().out
    assert outcome(folder) == outcome(whole)
    elsewhere = replace(
        config, output_dir=str(tmp_path / "other"), resume_from_checkpoint=str(folder / "checkpoint-12")
    )
    finetune_ner(elsewhere)
    assert outcome(tmp_path / "other")[2] == outcome(whole)[2]


def test_weights_that_are_needed_and_gone_are_named(config, whole, tmp_path):
    own = replace(config, output_dir=str(tmp_path / "run"))
    assert dies_in(loop, "load_best", 1, own) == KILLED
    again = replace(own, resume_from_checkpoint="true")
    kept = sorted((tmp_path / "run").glob("*-weights"))
    content = bytearray((kept[0] / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (kept[0] / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=f"average_checkpoints 4 needs the weights .* {kept[0]}: the SHA-256 of"):
        finetune_ner(again)
    shutil.rmtree(kept[0])
    step = kept[0].name.split("-")[1]
    with pytest.raises(ValueError, match=f"weights after step {step} in {tmp_path / 'run'}: they are not there; "):
        finetune_ner(again)
    assert finetune_ner(replace(again, average_checkpoints=1)).results["averaged_checkpoints"] == 1


@pytest.mark.slow
def test_two_processes_average_as_one_does(config, tmp_path):
    """The second run of the script dies on both processes while it averages. It is resumed by the recipe."""
    flags = tmp_path / "flags.yaml"
    flags.write_text(
        config_files.to_yaml(replace(config, per_device_train_batch_size=2, output_dir=str(tmp_path / "unused")))
    )
    done = run_script("tests/training/two_averaged.py", flags, tmp_path, processes=2)
    assert (tmp_path / "whole/all_results.json").exists(), done.stderr[-2000:]
    assert not (tmp_path / "killed/all_results.json").exists()
    command = ("recipes/ner.py", "--config", flags, "--output_dir", tmp_path / "killed")
    done = run_script(*command, "--resume_from_checkpoint", "true", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert results(tmp_path / "whole")["averaged_checkpoints"] > 1
    assert done.stdout.count("the model is the mean of the best") == 1


@pytest.mark.slow
def test_weights_of_a_collapsed_attempt_are_not_used(checkpoints, tmp_path):
    flags = {"average_checkpoints": 3, "save_total_limit": 1, "eval_steps": 30, "save_steps": 30}
    config = a_config_that_collapses(checkpoints["wordpiece"], tmp_path / "run", **flags)
    result = finetune_ner(config)
    assert result.results["restarts"] >= 1, "this run does not collapse, so it tests nothing"
    own = config_of_attempt(config, int(result.results["restarts"]))
    alone = finetune_ner(replace(own, output_dir=str(tmp_path / "alone")))
    assert outcome(alone.output_dir)[1:] == outcome(result.output_dir)[1:]
    assert not list(result.output_dir.glob("*-weights"))


def test_a_death_while_an_attempt_is_removed(config, whole, tmp_path):
    """After each change to the disk: a checkpoint with all the weights that it needs, or none."""
    begun = tmp_path / "begun"
    assert dies_in(loop, "load_best", 1, replace(config, output_dir=str(begun))) == KILLED
    for number in itertools.count(1):
        folder = Path(shutil.copytree(begun, tmp_path / str(number)))
        code = dies_at(number, lambda folder=folder: restart._remove_attempt(folder, 12))
        flags = replace(config, output_dir=str(folder), resume_from_checkpoint="true")
        run = training.start_run(ner.resolved(flags), metrics=["loss"])  # refuses if weights are not there
        assert run.checkpoint is None or run.checkpoint.name == "checkpoint-12"
        if code != KILLED:
            assert run.checkpoint is None
            assert not list(folder.glob("checkpoint-*"))
            assert number > 10
            return


def test_what_is_equal_stays_equal(tmp_path):
    """Means are rounded once; integers come from the first file."""
    drawn = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for i, file in enumerate(files):
        save_file({"same": drawn, "other": drawn * i, "count": torch.tensor([i + 7])}, file)
    mean = best.mean_weights(files)
    assert torch.equal(mean["same"], drawn)
    assert torch.equal(mean["other"], drawn)
    assert mean["count"].tolist() == [7]
    assert mean["count"].dtype == torch.int64
