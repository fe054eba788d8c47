"""A compact vocabulary: what is saved is, byte for byte, what training the whole embedding gives."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from finetune import models, training
from finetune.models.compact import CompactEmbedding
from recipes.ner import NerConfig, finetune_ner
from recipes.sentiment import SentimentConfig, finetune_sentiment

SETTINGS = {
    "dataset_name": "samples",
    "max_seq_length": 32,
    "max_train_samples": 24,
    "max_eval_samples": 9,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-3,
    "weight_decay": 0.1,
    "warmup_steps": 3,
    "max_grad_norm": 0.05,  # below every norm that these runs have
    "disable_tqdm": True,
}


def files_of(folder):
    names = ["model.safetensors", *(f"{path.name}/model.safetensors" for path in training.checkpoints(folder))]
    assert len(names) > 1
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("task", ["ner", "sentiment", "crf", "bilstm"])
def test_every_file_of_a_run_is_that_of_the_whole_embedding(task, checkpoints, kind, tmp_path):
    """With weight decay, a warm-up, a linear schedule and clipping; the best epoch loaded at the end, or a resume."""
    if task == "bilstm" and kind != "wordpiece":
        pytest.skip("the baseline has a tokenizer of its own")
    recipe, config = (finetune_sentiment, SentimentConfig) if task == "sentiment" else (finetune_ner, NerConfig)
    settings = SETTINGS | {"model_name_or_path": str(checkpoints[kind]), "metric_for_best_model": "loss"}
    if task == "crf":
        settings |= {"head": "crf", "save_total_limit": 9}
    if task == "bilstm":
        # Words of other texts, as --embeddings brings them: rows that the data does not use.
        words = tmp_path / "vectors.txt"
        words.write_text("".join(f"w{i} {' '.join(['0.5', str(i)] * 8)}\n" for i in range(999)))
        settings |= {"model_name_or_path": "bilstm", "embeddings": str(words), "hidden_size": 16}
    found, history = {}, {}
    for compact in (False, True):
        folder = tmp_path / str(compact)
        result = recipe(config(**settings, output_dir=str(folder), compact_vocabulary=compact))
        found[compact] = files_of(folder)
        history[compact] = [{k: v for k, v in line.items() if "runtime" not in k} for line in result.history]
    assert min(line["grad_norm"] for line in history[True] if "grad_norm" in line) > SETTINGS["max_grad_norm"]
    assert history[True] == history[False]
    assert found[True] == found[False]
    if task == "crf":  # the optimizer state is smaller; a run resumed from it ends with the same bytes
        first = training.checkpoints(tmp_path / "True")[0]
        again = settings | {"output_dir": str(tmp_path / "again"), "resume_from_checkpoint": str(first)}
        result = recipe(config(**again))
        weights = (tmp_path / "again/model.safetensors").read_bytes()
        assert weights == found[False]["model.safetensors"]
        assert result.results["total_parameters"] == sum(
            value.numel()
            for name, value in load_file(tmp_path / "False/model.safetensors").items()
            if name != "starts_word"
        )


def test_rows_that_never_occur_decay_and_no_more(checkpoints):
    """Their closed form: the product of 1 - rate x decay over the schedule."""
    model = AutoModelForTokenClassification.from_pretrained(checkpoints["unigram"])
    tokenizer = models.load_tokenizer(str(checkpoints["unigram"]))
    start = model.get_input_embeddings().weight.detach().clone()
    used = np.array([5, 9, 17, 9])
    trained, pieces = models.compact_vocabulary(model, tokenizer, [used])
    assert (trained, pieces) == (3 + len(tokenizer.all_special_ids), len(start))
    assert model.get_input_embeddings().weight.shape == (trained, start.shape[1])
    settings = NerConfig(learning_rate=0.1, weight_decay=0.2)
    optimizer = training.build_optimizer(model, settings)
    schedule = training.build_schedule(optimizer, settings, 5)
    expected = start.double()
    for _ in range(5):
        expected *= 1 - schedule.get_last_lr()[0] * 0.2
        model(input_ids=torch.tensor([[5, 9, 17]]), labels=torch.tensor([[0, 1, 0]])).loss.backward()
        optimizer.step(), schedule.step(), optimizer.zero_grad()
    saved = model.state_dict()["roberta.embeddings.word_embeddings.weight"]
    unused = [i for i in range(len(start)) if i not in {5, 9, 17, *tokenizer.all_special_ids}]
    assert torch.allclose(saved[unused].double(), expected[unused], rtol=1e-6, atol=0)
    assert not torch.allclose(saved[[5, 9, 17]].double(), expected[[5, 9, 17]], rtol=1e-2, atol=0)


def test_an_id_that_was_not_announced_is_refused(checkpoints):
    model = AutoModelForTokenClassification.from_pretrained(checkpoints["wordpiece"])
    tokenizer = models.load_tokenizer(str(checkpoints["wordpiece"]))
    models.compact_vocabulary(model, tokenizer, [np.array([9])])
    model(input_ids=torch.tensor([[9]]))
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[10]]))


def test_a_head_that_predicts_words_keeps_the_whole(checkpoints, kind):
    model = AutoModelForMaskedLM.from_pretrained(checkpoints[kind])
    tokenizer = models.load_tokenizer(str(checkpoints[kind]))
    whole = model.get_input_embeddings()
    assert models.compact_vocabulary(model, tokenizer, [np.array([9])]) == (len(whole.weight), len(whole.weight))
    assert model.get_input_embeddings() is whole


def test_a_frozen_embedding_stays(checkpoints, tmp_path):
    start = load_file(checkpoints["wordpiece"] / "model.safetensors")
    settings = SETTINGS | {"model_name_or_path": str(checkpoints["wordpiece"]), "freeze_layers": 1}
    finetune_ner(NerConfig(**settings, output_dir=str(tmp_path / "run")))
    end = load_file(tmp_path / "run/model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(start[name], end[name])


def test_a_step_that_float16_skips_decays_nothing_and_keeps_the_rate(checkpoints, tmp_path, monkeypatch):
    """Infinite gradients at steps 2 and 3, on a CPU: a fused optimizer is called for the steps that it skips, too."""
    begin = training.start_run
    scalers = []

    def begin_scaled(*args, **kwargs):
        run = begin(*args, **kwargs)
        accelerator = run.accelerator
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=10**6)
        monkeypatch.setattr(accelerator, "scaler", scaler)
        optimizers = accelerator._optimizers
        calls = itertools.count(1)

        def unscale():
            if next(calls) in (2, 3):
                optimizers[-1].param_groups[-1]["params"][-1].grad[0] = float("inf")
            scaler.unscale_(optimizers[-1].optimizer)

        monkeypatch.setattr(accelerator, "unscale_gradients", unscale)
        scalers.append(scaler)
        return run

    monkeypatch.setattr(training, "start_run", begin_scaled)
    files, histories = [], []
    for compact in (False, True):
        settings = SETTINGS | {"model_name_or_path": str(checkpoints["unigram"]), "logging_steps": 1}
        folder = tmp_path / str(compact)
        result = finetune_ner(NerConfig(**settings, output_dir=str(folder), compact_vocabulary=compact))
        files.append(files_of(folder))
        histories.append([line for line in result.history if "grad_norm" in line])
    skipped = [not np.isfinite(line["grad_norm"]) for line in histories[1]]
    assert [i for i, skip in enumerate(skipped, start=1) if skip] == [2, 3]
    assert scalers[1].get_scale() == 2.0**18
    assert files[0] == files[1]
    steps = result.results["train_steps"]
    taken = np.cumsum([0, *(not skip for skip in skipped[:-1])])
    expected = [3e-3 * (n / 3 if n < 3 else (steps - n) / (steps - 3)) for n in taken]
    assert [line["learning_rate"] for line in histories[1]] == pytest.approx(expected)


def test_no_more_than_a_few_factors_wait_for_the_next_checkpoint():
    """And the table is that of multiplying at each step, in float32."""
    torch.manual_seed(0)
    whole = torch.nn.Embedding(50, 8)
    compact = CompactEmbedding(whole, torch.tensor([3, 4]))
    expected = whole.weight.detach().clone()
    for step in range(100):
        factor = 1 - 1e-3 * step
        expected *= factor
        compact.decay_unused(factor)
        assert len(compact._factors) < 40
    expected[[3, 4]] = compact.weight.detach()
    assert torch.equal(compact.state_dict()["weight"], expected)
