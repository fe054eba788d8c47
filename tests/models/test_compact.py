"""A compact vocabulary: what is saved is, byte for byte, what training the whole embedding gives."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from finetune import models, training
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
    "embedding_size": 16,
    "hidden_size": 16,
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
        settings |= {"model_name_or_path": "bilstm", "embeddings": str(words)}
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
