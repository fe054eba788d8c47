"""A run that collapses is recognised, begun again, resumed and told of; a slow one is left alone."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from processes import ROOT, run_script

from finetune import metrics, models, training
from finetune.models.losses import one_label_loss
from finetune.training.collapse import Signs, config_of_attempt, share_of_rates
from finetune.training.manifest import write_manifest
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

TIMES = ("runtime", "per_second", "memory")


def a_config(checkpoint, folder, **flags):
    """240 steps at a rate that is absurd for this checkpoint."""
    fixed = {
        "dataset_name": "samples",
        "model_name_or_path": str(checkpoint),
        "output_dir": str(folder),
        "max_seq_length": 32,
        "max_train_samples": 150,
        "max_eval_samples": 40,
        "max_steps": 240,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.03,
        "warmup_steps": 0,
        "logging_steps": 60,
        "eval_strategy": "steps",
        "eval_steps": 60,
        "save_strategy": "steps",
        "save_steps": 60,
        "save_total_limit": 9,
        "disable_tqdm": True,
    }
    return NerConfig(**fixed | flags)


def lines(folder):
    found = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if not any(time in key for time in TIMES)} for line in found]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def collapsed(checkpoints, tmp_path_factory):
    config = a_config(checkpoints["wordpiece"], tmp_path_factory.mktemp("collapse") / "run")
    result = finetune_ner(config)
    assert result.results["restarts"] >= 1, "this run does not collapse, so it tests nothing"
    return config, result


def test_the_attempt_that_counts_is_a_run_of_its_own_with_the_flags_that_are_told(collapsed, tmp_path):
    config, result = collapsed
    own = config_of_attempt(config, int(result.results["restarts"]))
    assert own.learning_rate == config.learning_rate / 2 ** result.results["restarts"]
    assert own.seed != config.seed
    assert own.warmup_steps == 0.1
    alone = finetune_ner(replace(own, output_dir=str(tmp_path / "alone")))
    assert alone.results["restarts"] == 0, "the last attempt has learned"
    assert weights(alone.output_dir) == weights(result.output_dir)
    told = [line for line in lines(result.output_dir) if "collapsed" not in line]
    untimed = [{k: v for k, v in line.items() if k != "tokens"} for line in told]  # tokens count over all attempts
    assert untimed == [{k: v for k, v in line.items() if k != "tokens"} for line in lines(alone.output_dir)]


def test_files_tell_of_each_attempt(collapsed):
    config, result = collapsed
    folder, restarts = result.output_dir, int(result.results["restarts"])
    assert json.loads((folder / "all_results.json").read_text())["restarts"] == restarts
    assert [line["step"] for line in lines(folder) if "collapsed" in line] == [
        result.results[f"collapse_{number}_step"] for number in range(1, restarts + 1)
    ]
    card = (folder / "README.md").read_text()
    own = config_of_attempt(config, restarts)
    assert f"- seed: {own.seed}\n" in card
    assert f"- learning_rate: {own.learning_rate}\n" in card
    epoch = f"{result.results['collapse_1_epoch']:g}"
    assert f"- collapsed at epoch {epoch} (seed 42, learning rate 0.03); it was begun again\n" in card
    # Only the last attempt's checkpoints are left.
    steps = [json.loads((path / "state.json").read_text()) for path in training.checkpoints(folder)]
    assert [state["signs"]["restarts"] for state in steps] == [restarts] * 4


def test_a_run_that_is_killed_after_a_restart_ends_with_the_same_bytes(collapsed, tmp_path, capfd):
    config, result = collapsed
    folder = tmp_path / "killed"
    shutil.copytree(result.output_dir, folder)
    for step in (180, 240):
        shutil.rmtree(folder / f"checkpoint-{step}")
    for name in ("model.safetensors", "all_results.json"):
        (folder / name).unlink()
    again = finetune_ner(replace(config, output_dir=str(folder), resume_from_checkpoint="true"))
    assert "after step 120" in capfd.readouterr().out
    assert weights(folder) == weights(result.output_dir)
    assert lines(folder) == lines(result.output_dir)
    keys = [key for key in result.results if not any(time in key for time in TIMES)]
    assert [again.results[key] for key in keys] == [result.results[key] for key in keys]


def test_ignore_tells_and_a_restart_from_an_earlier_checkpoint_comes_to_the_same_end(collapsed, tmp_path, capfd):
    config, result = collapsed
    own = replace(config, output_dir=str(tmp_path / "ignored"), on_collapse="ignore")
    ignored = finetune_ner(own)
    folder = ignored.output_dir
    assert ignored.results["restarts"] == 0
    assert ignored.results["collapse_1_step"] == result.results["collapse_1_step"]
    assert "collapse_2_step" not in ignored.results, "each attempt is told of once"
    assert "it went on" in (folder / "README.md").read_text()
    assert capfd.readouterr().out.count("the run has collapsed") == 1
    for step in (120, 180, 240):
        shutil.rmtree(folder / f"checkpoint-{step}")
    state = folder / "checkpoint-60/state.json"
    told = json.loads(state.read_text())
    told["run"]["flags"]["on_collapse"] = "restart"  # as a run that was killed after step 60 has it
    state.write_text(json.dumps(told, indent=2))
    (state.parent / "manifest.json").unlink()
    write_manifest(state.parent)
    finetune_ner(replace(own, on_collapse="restart", resume_from_checkpoint=str(state.parent)))
    assert weights(folder) == weights(result.output_dir)


def test_stop_ends_before_the_last_step(collapsed, tmp_path):
    config, _ = collapsed
    with pytest.raises(ValueError, match=r"^on_collapse stop: the run has collapsed at epoch .*; give a lower"):
        finetune_ner(replace(config, output_dir=str(tmp_path / "stopped"), on_collapse="stop"))
    assert [path.name for path in training.checkpoints(tmp_path / "stopped")] == ["checkpoint-60"]


def test_two_processes_begin_again_as_one_does_and_resume(collapsed, tmp_path):
    config, result = collapsed
    folder = tmp_path / "two"
    names = ("dataset_name", "model_name_or_path", "max_seq_length", "max_train_samples", "max_eval_samples")
    names += ("max_steps", "learning_rate", "eval_steps", "save_steps", "save_total_limit", "logging_steps")
    flags = {name: getattr(config, name) for name in names}
    flags |= {"per_device_train_batch_size": 2, "eval_strategy": "steps", "save_strategy": "steps", "warmup_steps": 0}
    command = [ROOT / "recipes/ner.py", *(f"--{key}={value}" for key, value in flags.items()), "--disable_tqdm=true"]
    done = run_script(*command, f"--output_dir={folder}", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((folder / "all_results.json").read_text())
    assert found["collapse_1_step"] == result.results["collapse_1_step"]
    before = weights(folder)
    for step in (180, 240):
        shutil.rmtree(folder / f"checkpoint-{step}")
    done = run_script(*command, f"--output_dir={folder}", "--resume_from_checkpoint=true", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights(folder) == before


def test_what_cannot_be_judged_is_left_alone(checkpoints, tmp_path):
    """A head alone learns slowly; a number has no label; a run without evaluations shows nothing."""
    few = {"max_train_samples": 20, "max_eval_samples": 9, "max_steps": 2, "save_strategy": "no", "eval_steps": 1}
    few |= {"load_best_model_at_end": False}
    frozen = a_config(checkpoints["wordpiece"], tmp_path / "frozen", **few | {"freeze_encoder": True})
    blind = a_config(checkpoints["wordpiece"], tmp_path / "blind", **few | {"eval_strategy": "no"})
    for config in (frozen, blind):
        assert "restarts" not in finetune_ner(config).results
    rows = [{"text": f"number {i}", "label": float(i % 7)} for i in range(20)]
    flags = {"model_name_or_path": "bilstm", "output_dir": str(tmp_path / "number"), "problem_type": "regression"}
    flags |= {"max_steps": 2, "hidden_size": 4}
    number = finetune_sentiment(SentimentConfig(**flags), data={"train": rows, "validation": rows})
    assert "restarts" not in number.results


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_no_answer_that_is_the_same_everywhere_loses_less(weights, smoothing, gamma):
    """The reference lets torch search for the best constant logits under the loss that the models have."""
    labels = torch.tensor([0] * 30 + [1] * 6 + [2] * 3)
    tensor = None if weights is None else torch.tensor(weights)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = one_label_loss(logits.expand(len(labels), 3), labels, tensor, smoothing, gamma)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = models.blind_loss(
        torch.cat([labels, torch.tensor([-100, -100])]).numpy(),
        3,
        class_weights=weights,
        label_smoothing=smoothing,
        focal_gamma=gamma,
    )
    assert found == pytest.approx(closure().item(), abs=1e-4)


def test_a_crf_that_sees_no_words_learns_the_chain_of_labels():
    follows = np.array([[0.8, 0.2, 0.0], [0.4, 0.1, 0.5], [0.6, 0.2, 0.2]]).cumsum(1)
    drawn = np.random.default_rng(1).random((40, 30))
    tags = np.zeros((40, 30), dtype=np.int64)
    for at in range(1, 30):
        tags[:, at] = (drawn[:, at, None] > follows[tags[:, at - 1]]).sum(1)
    tags = torch.from_numpy(tags)
    crf = models.LinearChainCrf(["O", "B-X", "I-X"])
    optimizer = torch.optim.LBFGS(crf.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        nll = crf.negative_log_likelihood(torch.zeros(*tags.shape, 3), tags, torch.ones_like(tags, dtype=torch.bool))
        loss = nll.sum() / tags.numel()
        loss.backward()
        return loss

    optimizer.step(closure)
    rows, length = tags.shape
    chain = models.blind_chain_loss(tags.numpy().ravel(), np.arange(rows + 1) * length, 3)
    # A CRF also sees where a row ends, so it may lose a little less.
    assert 0.95 * chain < closure().item() <= chain + 1e-3
    assert chain < models.blind_loss(tags.numpy(), 3)


def test_the_spread_of_answers():
    same = np.zeros(4, dtype=np.int64)
    assert metrics.answer_spread(same, np.full(4, 0.8463, np.float32)) < 1e-6
    assert metrics.answer_spread(same, np.ones(4, np.float32)) == 0
    p = np.array([0.5, 0.9])
    assert metrics.answer_spread(same[:2], p) == pytest.approx(math.log(9) / 2)
    assert metrics.answer_spread(np.array([0, 0, 1]), np.ones(3)) == math.inf


# The share of the rates between two evaluations, and for evaluations in a row: the spread of the answers, the loss of
# the last steps, the loss of the evaluation. The losses of an answer that does not look at its input are 0.77 and
# 0.775. Most numbers are those of runs on the samples.
HEALTHY = {
    "the rate is low, and the loss falls": (0.2, [(0.083, 2.1, 2.01), (0.077, 1.9, 1.80), (0.057, 1.65, 1.64)]),
    "the rate falls to 0": (0.02, [(0.06, 0.9, 0.900), (0.06, 0.89, 0.898)]),
    "far above what a blind answer loses": (0.2, [(0.06, 2.17, 2.162), (0.06, 2.16, 2.158)]),
    "only O at first": (0.2, [(0.025, 0.78, 0.777), (math.inf, 0.7, 0.658), (math.inf, 0.64, 0.625)]),
    "only O, but the loss is lower": (0.2, [(0.4, 0.6, 0.62), (0.5, 0.55, 0.61), (math.inf, 0.5, 0.6)]),
    "only O on other texts than those of training": (0.2, [(0.4, 0.5, 0.9), (0.5, 0.4, 1.0)]),
}
COLLAPSED = {
    "the same number for each word": (0.2, [(0.0003, 0.76, 0.780)]),
    "the loss does not move": (0.2, [(0.02, 0.77, 0.777), (0.02, 0.77, 0.776)]),
    "the loss does not move, nor does it where the rate is 0": (0.0, [(0.02, 0.77, 0.777), (0.02, 0.77, 0.777)]),
    "the loss rises, far above what a blind answer loses": (0.2, [(0.1, 2.0, 2.3), (0.1, 2.1, 2.4)]),
    "it had learned before": (0.2, [(math.inf, 0.5, 0.5), (0.0, 0.9, 0.8)]),
}


@pytest.mark.parametrize("name", [*HEALTHY, *COLLAPSED])
def test_which_evaluations_show_a_collapse(name):
    signs = Signs()
    found = []
    share, evaluations = (HEALTHY | COLLAPSED)[name]
    for number, (spread, recent, loss) in enumerate(evaluations, start=1):
        for _ in range(200):
            signs.note_step({"loss": recent * 50}, {"loss": 50})
        watch = training.Watch(0.77, 0.775, dict, spread)
        asked = []

        def between(first, last, asked=asked):
            asked.append((first, last))
            return share

        found.append(signs.show_collapse(watch, loss, 200 * number, between))
        assert set(asked) <= {(200 * (number - 1), 200 * number)}
    assert any(found) == (name in COLLAPSED)
    assert not any(found[:-1])


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup", "polynomial"])
@pytest.mark.parametrize("warmup", [0, 0.5])
def test_the_share_of_the_rates_is_that_of_the_steps_taken(kind, warmup):
    """The reference takes the steps, and notes the rate of each."""
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.AdamW([weight], lr=3e-4)
    config = NerConfig(lr_scheduler_type=kind, warmup_steps=warmup)
    schedule = training.build_schedule(optimizer, config, 40)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    for first, last in ((0, 40), (0, 13), (13, 27), (33, 40), (39, 40)):
        found = share_of_rates(schedule.lr_lambdas[0], 40, first, last)
        assert found == pytest.approx(sum(rates[first:last]) / sum(rates), rel=1e-9)


def test_a_slow_run_whose_rate_falls_to_0_is_left_alone(checkpoints, tmp_path):
    """Each of its evaluations looks dead, and the last ones differ by less than one percent."""
    flags = {"learning_rate": 5e-5, "eval_steps": 40, "save_strategy": "no", "load_best_model_at_end": False}
    result = finetune_ner(a_config(checkpoints["wordpiece"], tmp_path / "slow", **flags))
    losses = [line["eval_loss"] for line in lines(result.output_dir) if "eval_loss" in line]
    assert 0.99 * losses[-2] < losses[-1] < losses[-2]
    assert result.results["eval_f1"] == 0, "it finds no entity"
    assert "collapse_1_step" not in result.results
