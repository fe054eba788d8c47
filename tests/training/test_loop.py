"""The loop: the plain loop it stands for, resume, best checkpoint, early stopping, errors."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import run_script
from safetensors.torch import load_file
from transformers import get_scheduler

from finetune import data, training
from finetune.arguments import ModelArguments
from finetune.models import load
from finetune.training import loop
from finetune.training.best import ranked
from finetune.training.memory import peak_memory_mb
from finetune.training.optimizers import forget_steps
from finetune.training.run import start_run
from recipes import ner
from recipes.ner import NerConfig, finetune_ner


def config(checkpoint, output_dir, **settings):
    base = {
        "dataset_name": "samples",
        "model_name_or_path": str(checkpoint),
        "output_dir": str(output_dir),
        "max_seq_length": 32,
        "max_train_samples": 20,
        "max_eval_samples": 9,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 2,
        "disable_tqdm": True,
        "seed": 5,
    }
    return NerConfig(**base | settings)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def history(folder):
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "runtime" not in key} for line in lines]


def test_the_loop_is_the_plain_loop(checkpoints, tmp_path):
    """Weights equal those of a loop written out with torch alone."""
    settings = config(
        checkpoints["wordpiece"],
        tmp_path / "run",
        weight_decay=0.1,
        warmup_steps=2,
        eval_strategy="no",
        save_strategy="no",
        max_grad_norm=0.5,
        num_train_epochs=2,
    )
    result = finetune_ner(settings)

    splits = data.read_tagged(settings)
    labels = data.entity_labels(splits["train"])
    torch.manual_seed(settings.seed)
    model, tokenizer = load("token-classification", settings, labels, words=[], max_seq_length=32)
    rows = data.align(splits["train"], tokenizer, labels, max_seq_length=32).rows
    plan = data.TrainBatches(rows, tokenizer.pad_token_id, 4, seed=settings.seed)
    decays = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    steps = 2 * plan.steps_in(0)
    schedule = get_scheduler("linear", optimizer, 2, steps)
    torch.manual_seed(settings.seed)
    losses = []
    for epoch in range(2):
        for (row_ids,) in plan.plan(epoch):
            model.train()
            batch = data.collate(rows, tokenizer.pad_token_id, row_ids).inputs
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step(), schedule.step(), optimizer.zero_grad()
            targets = int((batch["labels"] != -100).sum())
            losses.append((loss.item() * targets, targets))
    ours = weights(result.output_dir)
    for name, value in model.state_dict().items():
        assert torch.allclose(ours[name], value, atol=2e-6), name
    assert result.results["train_steps"] == steps
    assert [line["step"] for line in history(result.output_dir)] == [
        *range(2, steps + 1, 2),
        *([steps] if steps % 2 else []),
    ]
    assert history(result.output_dir)[-1]["learning_rate"] == pytest.approx(1e-3 / (steps - 2))
    for line in history(result.output_dir):  # the mean over the targets since the line before
        since = losses[(line["step"] - 1) // 2 * 2 : line["step"]]
        assert line["loss"] == pytest.approx(sum(loss for loss, _ in since) / sum(n for _, n in since), rel=1e-4)


@pytest.mark.parametrize(
    ("workers", "accumulation", "stop", "budget"),
    [(0, 1, 3, None), (0, 4, 2, None), (2, 1, 8, None), (0, 1, "epoch", None), (0, 2, 3, 64)],
)
def test_a_resumed_run_ends_with_the_same_bytes(checkpoints, tmp_path, workers, accumulation, stop, budget):
    strategy = (
        {"eval_strategy": "epoch", "save_strategy": "epoch"}
        if stop == "epoch"
        else {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": stop, "save_steps": stop}
    )
    settings = strategy | {
        "dataloader_num_workers": workers,
        "gradient_accumulation_steps": accumulation,
        "per_device_train_batch_size": 4 // accumulation,
        "tokens_per_batch": budget,
        "save_total_limit": 9,
        "load_best_model_at_end": False,
    }
    whole = finetune_ner(config(checkpoints["wordpiece"], tmp_path / "whole", **settings))
    saved = training.checkpoints(whole.output_dir)
    assert len(saved) >= 2
    # A run that was killed after its first checkpoint: what came later is not there, and a half-written one is.
    killed = tmp_path / "killed"
    shutil.copytree(whole.output_dir, killed)
    for path in training.checkpoints(killed)[1:]:
        path.rename(path.with_name(f".{path.name}.writing"))
    for name in ("model.safetensors", "all_results.json"):
        (killed / name).unlink()
    with (killed / "history.jsonl").open("a") as file:
        file.write('{"step": 99, "ep')
    resumed = finetune_ner(config(checkpoints["wordpiece"], killed, resume_from_checkpoint="true", **settings))
    assert same(weights(whole.output_dir), weights(resumed.output_dir))
    assert history(whole.output_dir) == history(resumed.output_dir)
    assert {path.name for path in killed.glob(".*")} == {".lock", ".written"}, "nothing half-written is left"
    times = ("runtime", "per_second", "memory")
    for key, value in whole.results.items():
        assert any(word in key for word in times) or resumed.results[key] == value, key


def test_two_equal_commands_give_equal_bytes_and_another_seed_does_not(checkpoints, tmp_path):
    runs = [
        finetune_ner(config(checkpoints["byte-bpe"], tmp_path / str(i), seed=seed, num_train_epochs=1))
        for i, seed in enumerate((5, 5, 6))
    ]
    first, second, other = (weights(run.output_dir) for run in runs)
    assert same(first, second)
    assert not same(first, other)


def test_the_best_checkpoint_wins_and_is_kept(checkpoints, tmp_path):
    """Twenty sentences are learned by heart, so the last evaluation is not the best."""
    settings = config(
        checkpoints["wordpiece"],
        tmp_path / "run",
        metric_for_best_model="loss",
        num_train_epochs=20,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        save_total_limit=1,
    )
    result = finetune_ner(settings)
    evaluations = [line for line in result.history if "eval_loss" in line]
    best = min(evaluations, key=lambda line: line["eval_loss"])
    assert best is not evaluations[-1], "this run does not test what it should"
    assert result.results["best_epoch"] == best["epoch"]
    assert result.results["eval_loss"] == pytest.approx(best["eval_loss"], rel=1e-6)
    kept = [path.name for path in training.checkpoints(result.output_dir)]
    assert kept == [f"checkpoint-{best['step']}", f"checkpoint-{evaluations[-1]['step']}"]
    assert same(weights(result.output_dir), weights(result.output_dir / kept[0]))


def test_any_number_is_better_than_nan():
    nan = float("nan")
    better = {
        (0.0, None): 1,
        (nan, None): 1,
        (0.1, nan): 1,
        (nan, nan): 0,
        (nan, 0.1): 0,
        (0.2, 0.1): 1,
        (0.1, 0.1): 0,
    }
    for (value, best), expected in better.items():
        before = [] if best is None else [[best, 1]]
        assert ranked([*before, [value, 2]], "f1")[0][1] == (2 if expected else 1), (value, best)
    assert ranked([[0.2, 1], [0.1, 2]], "loss") == [[0.1, 2], [0.2, 1]]


def test_early_stopping(checkpoints, tmp_path):
    settings = config(
        checkpoints["wordpiece"],
        tmp_path / "run",
        metric_for_best_model="loss",
        num_train_epochs=30,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        early_stopping_patience=2,
    )
    stopped = finetune_ner(settings)
    losses = [line["eval_loss"] for line in stopped.history if "eval_loss" in line]
    assert len(losses) < 30
    assert losses.index(min(losses)) == len(losses) - 3
    settings.resume_from_checkpoint = "true"
    again = finetune_ner(settings)
    assert again.history == stopped.history
    assert same(weights(again.output_dir), weights(stopped.output_dir))


def test_a_loss_that_is_not_finite_stops_the_run(checkpoints, tmp_path):
    settings = config(
        checkpoints["wordpiece"],
        tmp_path / "run",
        learning_rate=1e30,
        warmup_steps=0,
        max_grad_norm=0,
        num_train_epochs=5,
        save_strategy="steps",
        eval_strategy="steps",
        save_steps=1,
        eval_steps=1,
    )
    with pytest.raises(FloatingPointError, match=r"the (loss|gradient) is not finite at step \d+ \(learning rate 9"):
        finetune_ner(settings)
    assert training.checkpoints(tmp_path / "run"), "the checkpoints before it stay"
    assert not (tmp_path / "run/all_results.json").exists()


def test_frozen_parts_do_not_move(checkpoints, tmp_path):
    start = load_file(checkpoints["wordpiece"] / "model.safetensors")
    for i, (settings, moves) in enumerate(
        [
            ({"freeze_encoder": True}, lambda name: name.startswith("classifier")),
            ({"freeze_layers": 1}, lambda name: "layer.1" in name or name.startswith("classifier")),
        ]
    ):
        result = finetune_ner(config(checkpoints["wordpiece"], tmp_path / str(i), num_train_epochs=1, **settings))
        end = weights(result.output_dir)
        for name, value in end.items():
            if name in start:
                assert torch.equal(start[name], value) != moves(name), name


def test_learning_rates_by_depth():
    arguments = ModelArguments(model_name_or_path="bilstm", hidden_size=4)
    labels = ["O", "B-X", "I-X"]
    model, _ = load("token-classification", arguments, labels, words=["a"], max_seq_length=8)
    settings = NerConfig(learning_rate=1.0, head_learning_rate=5.0, weight_decay=0.3)
    optimizer = training.build_optimizer(model, settings)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        head = not name.startswith("encoder.")
        assert rates[id(parameter)] == (5.0 if head else 1.0, 0.3 if parameter.ndim > 1 else 0.0), name


def test_the_optimizer_has_the_flags_numbers():
    model = torch.nn.Linear(2, 2)
    model.base_model_prefix, model.config = "encoder", None
    settings = NerConfig(learning_rate=1.0, adam_beta1=0.7, adam_beta2=0.8, adam_epsilon=1e-3)
    optimizer = training.build_optimizer(model, settings)
    assert {(*group["betas"], group["eps"]) for group in optimizer.param_groups} == {(0.7, 0.8, 1e-3)}
    # A warm-up of 1 is one step; below it, a share of all.
    for warmup, steps in ((1, 1), (0.5, 5), (3, 3), (0.11, 2)):
        schedule = training.build_schedule(
            training.build_optimizer(model, settings), NerConfig(warmup_steps=warmup), 10
        )
        rates = [schedule.get_last_lr()[0]]
        for _ in range(9):
            schedule.optimizer.step(), schedule.step()
            rates.append(schedule.get_last_lr()[0])
        assert rates.index(max(rates)) == steps, warmup


@pytest.mark.parametrize("kind", ["linear", "cosine", "polynomial", "inverse_sqrt", "constant_with_warmup"])
def test_a_restart_has_the_rates_of_a_run_with_its_flags(kind):
    """A schedule over an optimizer that goes back to its first step, and one over a new optimizer."""
    model = torch.nn.Linear(2, 2)
    model.base_model_prefix, model.config = "encoder", None
    rates = []
    for scale, rate in ((0.5, 1e-3), (1.0, 5e-4)):
        settings = NerConfig(learning_rate=rate, warmup_steps=0.1, lr_scheduler_type=kind)
        optimizer = training.build_optimizer(model, settings)
        training.build_schedule(optimizer, settings, 20)  # the one of the first attempt
        schedule = training.build_schedule(forget_steps(optimizer, scale), settings, 20)
        for _ in range(20):
            rates.append(schedule.get_last_lr()[0])
            schedule.optimizer.step(), schedule.step()
    assert rates[:20] == pytest.approx(rates[20:], rel=1e-12)


def test_what_follows_the_layers_belongs_to_the_last(checkpoints):
    """A pooler learns at the last layer's rate, and --freeze_layers does not freeze it with the first."""
    arguments = ModelArguments(model_name_or_path=str(checkpoints["wordpiece"]))
    model, _ = load("sequence-classification", arguments, ["a", "b"], words=[], max_seq_length=8)
    settings = NerConfig(learning_rate=1.0, layerwise_lr_decay=0.5, freeze_layers=1)
    optimizer = training.build_optimizer(model, settings)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.bert.pooler.dense.weight)] == rates[id(model.bert.encoder.layer[1].output.dense.weight)]


def test_steps_are_evaluated_on_schedule_and_after_the_last():
    due = [loop._due("steps", 3, step, epoch_ends=step == 4, stop=step == 7) for step in range(1, 8)]
    assert due == [False, False, True, False, False, True, True]
    assert [loop._due("epoch", 3, 4, epoch_ends, stop) for epoch_ends, stop in ((0, 0), (1, 0), (0, 1))] == [0, 1, 1]
    assert not loop._due("no", 1, 1, epoch_ends=True, stop=True)


def test_layerwise_decay(checkpoints):
    arguments = ModelArguments(model_name_or_path=str(checkpoints["wordpiece"]))
    model, _ = load("token-classification", arguments, ["O", "B-X", "I-X"], words=[], max_seq_length=8)
    optimizer = training.build_optimizer(model, NerConfig(learning_rate=1.0, layerwise_lr_decay=0.5))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"embeddings": 0.125, "layer.0": 0.25, "layer.1": 0.5, "classifier": 1.0}
    for name, parameter in model.named_parameters():
        (rate,) = (rate for part, rate in expected.items() if part in name)
        assert rates[id(parameter)] == rate, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"load_best_model_at_end": True, "save_strategy": "no"},
            "load_best_model_at_end needs a checkpoint",
        ),
        (
            {"eval_strategy": "no", "early_stopping_patience": 2},
            "early_stopping_patience needs evaluations",
        ),
        (
            {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 4, "save_steps": 8},
            r"eval_steps 4: .*, so give a multiple of save_steps \(8\)",
        ),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size 0: must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate -1.0: must be positive"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate nan: must be positive"),
        ({"max_grad_norm": -1.0}, "max_grad_norm -1.0: must not be negative"),
        ({"max_train_samples": 0}, "max_train_samples 0: must be at least 1"),
        ({"resume_from_checkpoint": "nowhere"}, "resume_from_checkpoint nowhere: no checkpoint here"),
        ({"metric_for_best_model": "f2"}, "metric_for_best_model f2: choose from f1, "),
        ({"freeze_layers": 3}, "freeze_layers 3: the model has 2 layers"),
        ({"tokens_per_batch": 0}, "tokens_per_batch 0: must be at least 1"),
        ({"tokens_per_batch": 20}, "tokens_per_batch 20: the longest input has 32 tokens"),
    ],
)
def test_flags_that_cannot_be_meant(checkpoints, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        finetune_ner(config(checkpoints["wordpiece"], tmp_path / "run", num_train_epochs=1, **settings))


def test_fractional_epochs_and_max_steps(checkpoints, tmp_path):
    rows = 20
    for i, (settings, steps) in enumerate(
        [({"num_train_epochs": 0.5}, math.ceil(rows / 4 / 2)), ({"max_steps": 7}, 7)]
    ):
        result = finetune_ner(config(checkpoints["unigram"], tmp_path / str(i), max_seq_length=64, **settings))
        assert abs(result.results["train_steps"] - steps) <= (2 if i == 0 else 0)  # long sentences make more rows


def test_the_folder_is_not_made_before_the_run_is_sound(checkpoints, tmp_path):
    run = start_run(ner.resolved(config(checkpoints["wordpiece"], tmp_path / "run")), metrics=("f1",))
    assert not (tmp_path / "run").exists()
    run.create_folder()
    assert (tmp_path / "run/run.yaml").exists()


def test_a_refused_resume_changes_nothing(checkpoints, tmp_path):
    first = finetune_ner(config(checkpoints["wordpiece"], tmp_path / "run", num_train_epochs=1))
    before = {path: path.read_bytes() for path in first.output_dir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"checkpoint-7: model_name_or_path is lstm and was "):
        finetune_ner(config("lstm", tmp_path / "run", num_train_epochs=1, resume_from_checkpoint="true"))
    with pytest.raises(ValueError, match="already holds a run"):
        finetune_ner(config("lstm", tmp_path / "run", num_train_epochs=1, resume_from_checkpoint="false"))
    assert before == {path: path.read_bytes() for path in first.output_dir.rglob("*") if path.is_file()}


def test_resuming_elsewhere_finds_the_best_checkpoint(checkpoints, tmp_path):
    settings = {"metric_for_best_model": "loss", "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    settings |= {"num_train_epochs": 20, "save_total_limit": 30}
    whole = finetune_ner(config(checkpoints["wordpiece"], tmp_path / "whole", **settings))
    assert whole.results["best_epoch"] < 20, "this run does not test what it should"
    found = training.checkpoints(whole.output_dir)
    best = found[round(whole.results["best_epoch"]) - 1]
    for begun_at in (found[-1], best):
        elsewhere = tmp_path / begun_at.name
        again = finetune_ner(
            config(checkpoints["wordpiece"], elsewhere, resume_from_checkpoint=str(begun_at), **settings)
        )
        assert same(weights(whole.output_dir), weights(again.output_dir))


def test_peak_memory_is_that_of_the_process_alone():
    """A child of a large parent does not count what the parent holds, as getrusage does."""
    code = "import torch; from finetune.training import peak_memory_mb; print(peak_memory_mb(torch.device('cpu')))"
    held = torch.ones(2**28)  # 1024 MB
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 50 < float(done.stdout) < 900
    assert peak_memory_mb(torch.device("cpu")) > held.numel() * 4 / 2**20


def test_layerwise_decay_of_a_baseline_and_under_a_crf(checkpoints):
    """Two layers each: embeddings 1/8, first layer 1/4, second layer 1/2, head 1."""
    for name, head, layers in (("bilstm", "linear", "recurrent"), (str(checkpoints["wordpiece"]), "crf", "layer.")):
        shape = {"hidden_size": 4, "num_hidden_layers": 2} if head == "linear" else {}
        arguments = ModelArguments(model_name_or_path=name, **shape)
        model, _ = load("token-classification", arguments, ["O", "B-X"], words=["a"], max_seq_length=8, head=head)
        optimizer = training.build_optimizer(model, NerConfig(learning_rate=1.0, layerwise_lr_decay=0.5))
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert rates[id(model.get_input_embeddings().weight)] == 0.125
        assert rates[id(model.classifier.weight)] == 1.0
        found = {rates[id(parameter)] for key, parameter in model.named_parameters() if layers in key}
        assert found == {0.25, 0.5}, (name, found)


def test_processes_draw_different_dropout(tmp_path):
    done = run_script(Path(__file__).with_name("two_seeds.py"), tmp_path / "run", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = json.loads(done.stdout.partition("drawn ")[2].splitlines()[0])
    assert first != second


@pytest.mark.parametrize("kind", ["gpt2", "xlnet", "albert"])
def test_frozen_layers_of_other_encoders(kind):
    """By the outputs: with one layer frozen, a step changes the hidden states after the second layer alone."""
    from transformers import AutoConfig, AutoModelForTokenClassification

    shape = {"vocab_size": 9, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "albert":
        shape |= {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    else:
        shape |= {"n_layer": 2, "n_head": 2} | ({"n_embd": 8} if kind == "gpt2" else {"d_model": 8, "d_inner": 8})
    model = AutoModelForTokenClassification.from_config(AutoConfig.for_model(kind, **shape)).eval()
    settings = NerConfig(learning_rate=0.1, freeze_layers=1)
    if kind == "albert":
        for flags in (settings, NerConfig(learning_rate=0.1, layerwise_lr_decay=0.5)):
            with pytest.raises(ValueError, match="albert has 2 layers, and weights for 1: layers share weights"):
                training.build_optimizer(model, flags)
        return
    optimizer = training.build_optimizer(model, settings)
    ids = torch.tensor([[3, 4, 5]])
    before = model(ids, labels=torch.tensor([[0, 1, 0]]), output_hidden_states=True)
    before.loss.backward()
    optimizer.step()
    after = model(ids, output_hidden_states=True).hidden_states
    assert [torch.equal(a, b) for a, b in zip(before.hidden_states, after, strict=True)] == [True, True, False]


def test_the_runtime_counts_the_wait_for_batches_and_no_evaluation(checkpoints, tmp_path, monkeypatch):
    """By a clock of the test's own: it goes on by 100 s for each step's batches, and by 1,000 s for an evaluation."""
    now = 0.0
    epoch, predict = data.TrainBatches.epoch, training.collect

    def slow(*arguments):
        nonlocal now
        for micro_batches in epoch(*arguments):
            now += 100.0
            yield micro_batches

    def evaluated(*arguments, **named):
        nonlocal now
        now += 1000.0
        return predict(*arguments, **named)

    monkeypatch.setattr(loop.time, "perf_counter", lambda: now)
    monkeypatch.setattr(data.TrainBatches, "epoch", slow)
    monkeypatch.setattr(training, "collect", evaluated)
    result = finetune_ner(config(checkpoints["wordpiece"], tmp_path / "run", num_train_epochs=2))
    assert result.results["train_runtime"] == 100.0 * result.results["train_steps"]
