"""Checkpoints: damage is recognised and named, another run's are refused, and a full disk leaves the last one."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from processes import run_script
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, LongformerConfig

from finetune import cli, config_files, models, training
from finetune.arguments import ModelArguments
from finetune.training.manifest import NEEDED, damage, write_manifest
from finetune.training.saving import load_checkpoint, remove_old_checkpoints, save_checkpoint, weights_of
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(short_ner):
    """Ten steps with a checkpoint at 3, 6, 9 and 10, the best of which is not the last."""
    return NerConfig(
        **short_ner,
        max_steps=10,
        learning_rate=1e-3,
        logging_steps=2,
        eval_steps=3,
        save_steps=3,
        save_total_limit=9,
    )


def test_a_run_that_finds_nothing_to_resume_says_so(tmp_path):
    assert training.find_checkpoint(tmp_path, "true") == (None, [f"no checkpoint in {tmp_path}: from the start"])
    assert training.find_checkpoint(tmp_path, None) == (None, [])


@pytest.fixture
def killed(whole, config, tmp_path):
    """A copy of the run as a kill leaves it after step 9, and the config that goes on with it."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint-10")
    (folder / "model.safetensors").unlink()
    return replace(config, output_dir=str(folder), resume_from_checkpoint="true")


def outcome(folder):
    """Weights, predictions, history and results, times aside, and where the training ended."""
    told = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    told.append(json.loads((folder / "all_results.json").read_text()))
    times = ("runtime", "per_second", "memory")
    numbers = [{k: v for k, v in line.items() if not any(word in k for word in times)} for line in told]
    files = ("model.safetensors", "predictions_eval.conll", "predictions_test.conll")
    last = training.checkpoints(folder)[-1]
    paths = [*(folder / name for name in files), *sorted(last.glob("*.safetensors"))]
    return numbers, last.name, [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def link(path):
    elsewhere = path.with_name(".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    flip: "the SHA-256 of {} is not the one in manifest.json",
    truncate: "{} has ",
    Path.unlink: "{} is missing",
    link: "{} is no file",
    pipe: "{} is no file",
}


def test_the_manifest_names_every_file(whole):
    folders = training.checkpoints(whole)
    assert [folder.name for folder in folders] == ["checkpoint-3", "checkpoint-6", "checkpoint-9", "checkpoint-10"]
    for folder in folders:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        assert files == {
            path.name: {"size": len(path.read_bytes()), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in folder.iterdir()
            if path.name != "manifest.json"
        }
        assert set(NEEDED) < set(files)
        assert damage(folder) is None


@pytest.mark.parametrize("harm", DAMAGE)
def test_damage_is_recognised_and_named(whole, tmp_path, harm):
    names = [path.name for path in (whole / "checkpoint-3").iterdir() if path.name != "manifest.json"]
    for name in names:
        folder = tmp_path / name
        shutil.copytree(whole / "checkpoint-3", folder)
        harm(folder / name)
        assert DAMAGE[harm].format(name) in str(damage(folder))


@pytest.mark.parametrize("name", ["../state.json", "/etc/hostname", "a/b", "..", ".", "", ".hidden", "a\\b", "a\0b"])
def test_a_manifest_names_files_of_its_own_folder(whole, tmp_path, name):
    folder = tmp_path / "checkpoint-3"
    shutil.copytree(whole / "checkpoint-3", folder)
    shutil.copy(folder / "state.json", tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["state.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "is not the plain name of a file beside it" in str(damage(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a list of files"),
        ("[]", "is not a list of files"),
        ('{"files": {"state.json": {"size": "1", "sha256": "0"}}}', "is not a list of files"),
        ('{"files": {"state.json": 3}}', "is not a list of files"),
        ('{"files": {}}', "does not name model.safetensors"),
        ("[" * 100_000, "is not a list of files"),
        ('{"files": {"' + "x" * 2**20 + '": {}}}', "is larger than any"),
    ],
)
def test_a_manifest_of_another_form(whole, tmp_path, text, message):
    folder = tmp_path / "checkpoint-3"
    shutil.copytree(whole / "checkpoint-3", folder)
    (folder / "manifest.json").write_text(text)
    assert message in str(damage(folder))


def test_the_one_before_a_damaged_one_is_taken(killed, whole, capfd):
    folder = Path(killed.output_dir)
    flip(folder / "checkpoint-9/optimizer.safetensors")
    (folder / "checkpoint-6/manifest.json").unlink()
    finetune_ner(replace(killed, save_total_limit=1))
    said = capfd.readouterr().out
    assert f"{folder}/checkpoint-9 is passed over: the SHA-256 of optimizer.safetensors" in said
    assert f"{folder}/checkpoint-6 is passed over: it has no manifest.json" in said
    assert f"resumed from {folder}/checkpoint-3 after step 3" in said
    assert outcome(folder) == outcome(whole)
    assert all(damage(path) is None for path in training.checkpoints(folder)), "damaged ones are replaced or removed"


def test_without_a_whole_one_the_run_begins_again(killed, whole, capfd):
    folder = Path(killed.output_dir)
    for path in training.checkpoints(folder):
        flip(path / "state.json")
    finetune_ner(killed)
    assert "no whole checkpoint is left: from the start" in capfd.readouterr().out
    assert outcome(folder) == outcome(whole)


def test_a_damaged_folder_that_was_asked_for_is_refused(killed):
    folder = Path(killed.output_dir)
    flip(folder / "checkpoint-9/model.safetensors")
    truncate(folder / "checkpoint-6/random.safetensors")
    before = sorted(folder.rglob("*"))
    for asked, message in (
        ("checkpoint-9", f"the SHA-256 of model.safetensors .*; the newest whole one is {folder}/checkpoint-3$"),
        ("checkpoint-6", rf"random.safetensors has [\d,]+ bytes and not .* is {folder}/checkpoint-3$"),
    ):
        with pytest.raises(ValueError, match=f"^resume_from_checkpoint {folder}/{asked}: {message}"):
            finetune_ner(replace(killed, resume_from_checkpoint=str(folder / asked)))
    flip(folder / "checkpoint-3/model.safetensors")
    with pytest.raises(ValueError, match="there is no whole one beside it"):
        finetune_ner(replace(killed, resume_from_checkpoint=str(folder / "checkpoint-9")))
    assert sorted(folder.rglob("*")) == before


def test_a_damaged_best_checkpoint_is_found_at_the_start(killed):
    folder = Path(killed.output_dir)
    state = json.loads((folder / "checkpoint-9/state.json").read_text())
    assert state["best_step"] < 9, "this run does not test what it should"
    flip(folder / f"checkpoint-{state['best_step']}/model.safetensors")
    with pytest.raises(ValueError, match=f"the best checkpoint so far, .*-{state['best_step']}, is damaged: the SHA"):
        finetune_ner(killed)
    shutil.rmtree(folder / f"checkpoint-{state['best_step']}")
    with pytest.raises(ValueError, match=f"checkpoint-{state['best_step']}, is not in "):
        finetune_ner(killed)


def test_the_best_and_the_newest_whole_one_are_never_removed(tmp_path):
    for step in (2, 4, 6, 8, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    # After a resume from 6: what was just written, at 8, stays, though a damaged one of step 20 is there.
    remove_old_checkpoints(tmp_path, keep=1, best_step=2, step=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-20", "checkpoint-8"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "learning_rate is 0.5 and was 0.001"),
        ({"seed": 6}, "seed is 6 and was 5"),
        ({"max_steps": 12}, "max_steps is 12 and was 10; a run of another length has another schedule"),
        ({"num_train_epochs": 7.0}, "num_train_epochs is 7.0 and was 3"),
        ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type is cosine and was linear"),
        ({"model_name_or_path": "lstm"}, "model_name_or_path is lstm and was "),
        ({"train_file": "other.conll", "dataset_name": None}, "dataset_name is not given and was samples"),
        ({"max_train_samples": None}, "max_train_samples is not given and was 20"),
        ({"label_all_tokens": True}, "label_all_tokens is true and was false"),
        ({"eval_steps": 6, "seed": 2}, "seed is 2 and was 5, eval_steps is 6 and was 3"),
        ({"per_device_train_batch_size": 8}, "a step is per_device_train_batch_size 8 x .* and was .* 4 x "),
        ({"tokens_per_batch": 64, "train_sampling_strategy": "random"}, "a step is tokens_per_batch 64 x "),
    ],
)
def test_a_flag_that_makes_another_run_is_refused(killed, change, message):
    folder = Path(killed.output_dir)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ValueError, match=f"^resume_from_checkpoint {folder}/checkpoint-9: {message}"):
        finetune_ner(replace(killed, **change))
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_every_number_of_the_optimizer_counts(killed):
    """Each changes the weights of the next step, as torch's AdamW on one parameter shows."""

    def two_steps(adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.01, learning_rate=1e-3):
        weight = torch.nn.Parameter(torch.tensor([0.5]))
        optimizer = torch.optim.AdamW([weight], learning_rate, (adam_beta1, adam_beta2), adam_epsilon, weight_decay)
        for factor in (1.0, 3.0):
            (weight * factor).sum().backward()
            optimizer.step()
        return weight.item()

    for name, value in {
        "adam_beta1": 0.8,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-2,
        "weight_decay": 0.5,
        "learning_rate": 0.1,
    }.items():
        assert two_steps(**{name: value}) != two_steps()
        with pytest.raises(ValueError, match=f"{name} is {value} and was "):
            finetune_ner(replace(killed, **{name: value}))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_other_labels_of_the_same_texts_are_refused(tmp_path, split):
    texts = ["good", "bad", "fine", "poor"] * 4
    for name in ("train", "validation", "test"):
        rows = [json.dumps({"text": text, "label": i % 2}) for i, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    files = {f"{name}_file": str(tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")}
    config = SentimentConfig(**files, model_name_or_path="rnn", hidden_size=8, embedding_size=8, max_steps=2)
    config = replace(config, char_features="none", output_dir=str(tmp_path / "run"), disable_tqdm=True)
    finetune_sentiment(config)
    rows[0], rows[1] = rows[0].replace(": 0", ": 1"), rows[1].replace(": 1", ": 0")  # of one length and count
    (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="checkpoint-2: the data, or what the tokenizer makes of it, has changed"):
        finetune_sentiment(replace(config, resume_from_checkpoint="true"))


def test_another_precision_is_refused(killed):
    """A run in bfloat16 does not go on in float32, whose steps are others."""
    newest = training.checkpoints(Path(killed.output_dir))[-1]
    state = json.loads((newest / "state.json").read_text())
    state["run"]["mixed_precision"] = "bf16"
    (newest / "state.json").write_text(json.dumps(state))
    (newest / "manifest.json").unlink()
    write_manifest(newest)
    with pytest.raises(ValueError, match="mixed precision is no and was bf16: give --mixed_precision bf16 to accel"):
        finetune_ner(replace(killed, resume_from_checkpoint=str(newest)))


def test_a_flag_that_came_later_counts_as_its_default(killed, whole):
    """The checkpoint of a version that did not have it yet."""
    state = Path(killed.output_dir) / "checkpoint-9" / "state.json"
    told = json.loads(state.read_text())
    for name in ("layerwise_lr_decay", "label_all_tokens"):
        del told["run"]["flags"][name]
    state.write_text(json.dumps(told, indent=2))
    write_manifest(state.parent)
    with pytest.raises(ValueError, match=r"layerwise_lr_decay is 0.9 and was 1.0"):
        finetune_ner(replace(killed, layerwise_lr_decay=0.9))
    finetune_ner(killed)
    assert outcome(Path(killed.output_dir))[2][:1] == outcome(whole)[2][:1]


def test_flags_that_do_not_matter_may_change(killed, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(killed.model_name_or_path).parent)
    change = {"save_total_limit": 1, "save_steps": 1, "disable_tqdm": False, "output_dir": str(tmp_path / "other")}
    change |= {"model_name_or_path": Path(killed.model_name_or_path).name}  # the same folder by another path
    change |= {"resume_from_checkpoint": f"{killed.output_dir}/checkpoint-6", "dataloader_num_workers": 1}
    finetune_ner(replace(killed, **change))
    assert outcome(tmp_path / "other") == outcome(whole)


def test_flags_that_change_digits_alone_are_told(killed, capfd):
    finetune_ner(replace(killed, padding_free=False, logging_steps=3))
    said = capfd.readouterr().out
    assert "--logging_steps, --padding_free: not as before, so the files of this run may differ" in said


def test_the_same_step_cut_another_way_goes_on(killed, whole, capfd):
    finetune_ner(replace(killed, per_device_train_batch_size=1, gradient_accumulation_steps=4))
    said = capfd.readouterr().out
    assert "a step is --per_device_train_batch_size 1 x --gradient_accumulation_steps 4 x 1 process and was" in said
    tokens = [[line.get("tokens") for line in outcome(f)[0]] for f in (whole, Path(killed.output_dir))]
    assert tokens[0] == tokens[1]


def test_other_data_under_the_same_name_is_refused(killed, tmp_path):
    lines = ["Ada\tB-PER\nflew\tO\nhome\tO\n\n"] * 16
    (tmp_path / "train.conll").write_text("".join(lines))
    change = {"dataset_name": None, "train_file": str(tmp_path / "train.conll"), "max_steps": -1, "save_steps": 2}
    change |= {"validation_file": str(tmp_path / "train.conll"), "output_dir": str(tmp_path / "new")}
    change |= {"load_best_model_at_end": False, "num_train_epochs": 1, "max_train_samples": None}
    config = replace(killed, **change)
    finetune_ner(config)
    (tmp_path / "train.conll").write_text("".join(lines * 2))
    with pytest.raises(ValueError, match="its run had 4 steps and the same flags give 8 now, so the data"):
        finetune_ner(config)
    # As many rows as before; one word of one of them has another tag.
    (tmp_path / "train.conll").write_text("".join(lines[:-1]) + lines[-1].replace("home\tO", "home\tB-PER"))
    with pytest.raises(ValueError, match="checkpoint-4: the data, or what the tokenizer makes of it, has"):
        finetune_ner(config)


@pytest.mark.parametrize("word", ["home", "Ada"])  # as many rows of the embedding as before, or fewer
def test_other_data_of_another_split_is_refused(killed, tmp_path, word):
    """Which rows of the embedding train hangs on every split, as does which evaluation was the best."""
    for split, text in {
        "train": "Ada\tB-PER\nflew\tO\n\n",
        "validation": "Oslo\tO\n\n",
        "test": "Ada\tO\n\n",
    }.items():
        (tmp_path / f"{split}.conll").write_text(text * 8)
    files = {f"{split}_file": str(tmp_path / f"{split}.conll") for split in ("train", "validation", "test")}
    config = replace(killed, dataset_name=None, **files, max_steps=4, output_dir=str(tmp_path / "new"))
    finetune_ner(config)
    before = {path: path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    (tmp_path / "validation.conll").write_text(f"{word}\tO\n\n" * 8)
    with pytest.raises(ValueError, match="checkpoint-4: the data, or what the tokenizer makes of it, has"):
        finetune_ner(config)
    assert {path: path.read_bytes() for path in before} == before


def test_state_of_other_embedding_rows_is_refused(checkpoints, tmp_path):
    """What the digest of the rows keeps from happening in a run."""
    tokenizer = models.load_tokenizer(str(checkpoints["wordpiece"]))

    def a_model(ids):
        model = AutoModelForTokenClassification.from_pretrained(checkpoints["wordpiece"])
        models.compact_vocabulary(model, tokenizer, [np.array(ids)])
        return model, torch.optim.AdamW(model.parameters())

    accelerator = Accelerator(cpu=True)
    model, optimizer = a_model([7, 8])
    model(input_ids=torch.tensor([[7, 8]]), labels=torch.tensor([[0, 1]])).loss.backward()
    optimizer.step()
    save_checkpoint(tmp_path / "checkpoint-1", accelerator, model, tokenizer, optimizer, {}, [])
    load_checkpoint(tmp_path / "checkpoint-1", accelerator, *a_model([7, 8]))
    with pytest.raises(ValueError, match=r"word_embeddings.weight is \(7, 32\), and the weight is \(8, 32\) in the"):
        load_checkpoint(tmp_path / "checkpoint-1", accelerator, *a_model([7, 8, 9]))


def test_parameters_without_a_gradient(checkpoints, tmp_path):
    """Longformer has some, of attention that no token of a tagger asks for; AdamW has no state for them."""
    folder = tmp_path / "longformer"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = LongformerConfig(**shape, attention_window=8, vocab_size=500, max_position_embeddings=66, pad_token_id=1)
    AutoModelForTokenClassification.from_config(config).save_pretrained(folder)
    models.load_tokenizer(str(checkpoints["byte-bpe"])).save_pretrained(folder)
    run = NerConfig(
        dataset_name="samples",
        model_name_or_path=str(folder),
        output_dir=str(tmp_path / "whole"),
        max_seq_length=32,
        max_train_samples=12,
        max_eval_samples=4,
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=9,
        eval_strategy="no",
        disable_tqdm=True,
    )
    finetune_ner(run)
    shutil.copytree(tmp_path / "whole", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-4"))
    finetune_ner(replace(run, output_dir=str(tmp_path / "run"), resume_from_checkpoint="true"))
    for name in ("model.safetensors", "checkpoint-4/optimizer.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_folder_of_links_is_written_to_and_not_through(killed, whole, tmp_path):
    """A folder that somebody gave us: nothing outside it is changed, or moved into it."""
    mine = tmp_path / "mine"
    mine.mkdir()
    folder = Path(killed.output_dir)
    names = ("predictions_eval.conll", "README.md", ".run.yaml.writing", "run.yaml", "history.jsonl", "config.json")
    for name in names:
        (mine / name).write_text("mine")
        if name == "run.yaml":
            continue  # it tells of the run
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(mine / name)
    for name in (".model.writing", ".checkpoint-10.writing", ".checkpoint-7.removing", "checkpoint-10"):
        (folder / name).symlink_to(mine)
    finetune_ner(killed)
    assert {path.name: path.read_text() for path in mine.iterdir()} == dict.fromkeys(names, "mine")
    assert outcome(folder) == outcome(whole)


def test_linked_checkpoints_are_told(killed, whole, tmp_path, capfd):
    folder = Path(killed.output_dir)
    for name in ("checkpoint-3", "checkpoint-6", "checkpoint-9"):
        shutil.move(folder / name, tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    finetune_ner(killed)
    said = capfd.readouterr().out
    assert f"{folder / 'checkpoint-9'} is passed over: it is a link; name the folder itself" in said
    assert "no whole checkpoint is left: from the start" in said
    assert outcome(folder) == outcome(whole)
    assert (tmp_path / "checkpoint-9/state.json").exists()


def test_another_run_is_not_written_over(killed, whole, tmp_path):
    """Where none of its own checkpoints is gone on from."""
    other = tmp_path / "other"
    finetune_ner(replace(killed, output_dir=str(other), resume_from_checkpoint=None, seed=7, max_steps=3))
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    for flag in (str(whole / "checkpoint-9"), "true"):
        with pytest.raises(ValueError, match=f"output_dir {other}: holds another run .*seed was 7 there") as refused:
            finetune_ner(replace(killed, output_dir=str(other), resume_from_checkpoint=flag))
        assert "max_steps was 3 there" in str(refused.value)
        for checkpoint in training.checkpoints(other):
            shutil.rmtree(checkpoint)  # as with --save_strategy no
        before = {path: content for path, content in before.items() if path.exists()}
    assert {path: path.read_bytes() for path in before} == before
    # The same run, resumed there before and killed again, may go on.
    again = replace(killed, output_dir=str(tmp_path / "again"), resume_from_checkpoint=str(whole / "checkpoint-6"))
    finetune_ner(again)
    finetune_ner(again)
    assert outcome(tmp_path / "again") == outcome(whole)


def test_a_checkpoint_too_many_is_removed(killed):
    """A kill came between the last save and the removal of the one before."""
    finetune_ner(killed)
    assert len(training.checkpoints(Path(killed.output_dir))) == 4
    finetune_ner(replace(killed, save_total_limit=1))
    kept = {path.name for path in training.checkpoints(Path(killed.output_dir))}
    assert "checkpoint-10" in kept
    assert len(kept) == 2  # that, and the best one


def test_true_may_be_a_bool(killed, whole):
    finetune_ner(replace(killed, resume_from_checkpoint=True))
    assert outcome(Path(killed.output_dir)) == outcome(whole)


@pytest.mark.parametrize("linked", [False, True])
def test_an_overwritten_run_is_gone(config, killed, tmp_path, linked):
    folder = Path(killed.output_dir)
    if linked:
        folder = tmp_path / "link"
        folder.symlink_to(killed.output_dir)
    fresh = replace(config, output_dir=str(folder), overwrite_output_dir=True, max_steps=3)

    finetune_ner(fresh)
    assert [path.name for path in training.checkpoints(folder)] == ["checkpoint-3"]


def test_a_refused_command_leaves_the_run_that_it_would_overwrite(config, killed):
    before = {path: path.read_bytes() for path in Path(killed.output_dir).rglob("*") if path.is_file()}
    for change in ({"tokens_per_batch": 8}, {"dataloader_num_workers": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(change))} "):
            finetune_ner(replace(config, output_dir=killed.output_dir, overwrite_output_dir=True, **change))
    assert {path: path.read_bytes() for path in before} == before


def test_another_number_of_processes(killed):
    """One process before, two now: refused with the same flags, since a step would be twice as large."""
    for batch, code in ((4, 1), (2, 0)):
        settings = {"per_device_train_batch_size": batch}
        done = on_two_processes(replace(killed, **settings))
        assert done.returncode == code, done.stderr[-3000:]
        words = f"a step is --per_device_train_batch_size {batch} x --gradient_accumulation_steps 1 x 2 processes and"
        assert (done.stderr if code else done.stdout).count(words) == 1, "one process tells it"
    assert "it holds the same rows, so the training goes on" in done.stdout


def on_two_processes(config):
    file = Path(config.output_dir) / "flags.yaml"
    file.write_text(config_files.to_yaml(config))
    return run_script("recipes/ner.py", "--config", file, processes=2)


@pytest.fixture
def small_disk(tmp_path, whole):
    """A file system with room for a checkpoint and a half."""
    place = tmp_path / "disk"
    place.mkdir()
    size = sum(path.stat().st_size for path in (whole / "checkpoint-3").iterdir())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(1.5 * size)}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs a small file system, and mounting one is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(config, whole, small_disk):
    run = replace(config, output_dir=str(small_disk / "run"))
    with pytest.raises(OSError, match="no room on the disk") as stopped:
        finetune_ner(run)
    assert stopped.value.errno == errno.ENOSPC
    folder = Path(run.output_dir)
    assert [path.name for path in training.checkpoints(folder)] == ["checkpoint-3"]
    assert damage(folder / "checkpoint-3") is None
    assert {path.name for path in folder.glob(".*")} == {".lock", ".written"}, "nothing half-written is left"
    size = sum(path.stat().st_size for path in (folder / "checkpoint-3").iterdir()) / 2**20
    free = shutil.disk_usage(folder).free / 2**20

    # Once more from the command line: one sentence, with both sizes.
    again = replace(run, resume_from_checkpoint="true")
    with pytest.raises(SystemExit) as ended:
        cli.run(finetune_ner, again)
    sentence = str(ended.value.code)
    assert sentence.startswith(f"error: {folder}/checkpoint-6: no room on the disk: a checkpoint takes ")
    needed, there = (float(word) for word in sentence.split() if word.replace(".", "").isdigit())
    assert needed == pytest.approx(size, rel=0.2)
    assert there == pytest.approx(free, abs=0.1)
    assert "checkpoint-3 is whole" in sentence

    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    finetune_ner(again)
    assert outcome(folder) == outcome(whole)


def test_a_disk_without_room_for_the_model(config, small_disk):
    """The last thing that a run writes: it is whole or not there."""
    run = replace(config, output_dir=str(small_disk / "run"), load_best_model_at_end=False, save_strategy="no")
    usage = shutil.disk_usage(small_disk)
    (small_disk / "filler").write_bytes(bytes(usage.free - 100_000))
    with pytest.raises(OSError, match="no room for the trained model") as stopped:
        finetune_ner(run)
    assert stopped.value.errno == errno.ENOSPC
    assert {path.name for path in Path(run.output_dir).iterdir()} == {
        ".lock",
        ".written",
        "run.yaml",
        "history.jsonl",
    }


@pytest.fixture
def compiled(monkeypatch):
    """As `accelerate launch --dynamo_backend` asks for it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    yield monkeypatch
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_compiled_model_is_saved_without_its_wrapper(compiled, tmp_path):
    settings = {"dataset_name": "samples", "model_name_or_path": "rnn", "char_features": "none", "hidden_size": 8}
    config = NerConfig(
        **settings, output_dir=str(tmp_path / "run"), max_eval_samples=2, max_steps=2,
        per_device_train_batch_size=2, save_strategy="steps", save_steps=1, eval_strategy="no", disable_tqdm=True,
        load_best_model_at_end=False,
    )  # fmt: skip
    finetune_ner(config)
    found = load_file(tmp_path / "run/model.safetensors")
    again = models.load_finetuned(ModelArguments(model_name_or_path=str(tmp_path / "run")))[2].state_dict()
    assert again.keys() == found.keys()
    assert all(torch.equal(again[name], weight) for name, weight in found.items())
    (tmp_path / "run/model.safetensors").unlink()
    shutil.rmtree(tmp_path / "run/checkpoint-2")
    finetune_ner(replace(config, resume_from_checkpoint="true"))
    resumed = load_file(tmp_path / "run/model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in found.items())


def test_compiled_layers_do_not_show_in_the_names(compiled, checkpoints):
    compiled.setenv("ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION", "true")
    model = AutoModelForTokenClassification.from_pretrained(checkpoints["wordpiece"])
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(model)
    assert any("_orig_mod" in name for name in prepared.state_dict())
    found = weights_of(accelerator, prepared)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_scale_of_float16_goes_on_where_it_was(checkpoints, tmp_path):
    tokenizer = models.load_tokenizer(str(checkpoints["wordpiece"]))
    model = AutoModelForTokenClassification.from_pretrained(checkpoints["wordpiece"])
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.tensor([[7, 8]]), labels=torch.tensor([[0, 1]])).loss.backward()
    optimizer.step()
    accelerator = Accelerator(cpu=True)
    before = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    before.scale(torch.ones(()))  # which makes the tensor of the scale
    before.load_state_dict(before.state_dict() | {"_growth_tracker": 2})
    accelerator.scaler = before
    save_checkpoint(tmp_path / "checkpoint-1", accelerator, model, tokenizer, optimizer, {}, [])
    accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=3)
    load_checkpoint(tmp_path / "checkpoint-1", accelerator, model, optimizer)
    assert accelerator.scaler.state_dict() == before.state_dict()
    assert (accelerator.scaler.get_scale(), accelerator.scaler.state_dict()["_growth_tracker"]) == (1024.0, 2)
