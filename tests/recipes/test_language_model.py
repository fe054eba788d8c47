"""The language model recipe as a user runs it: scores, resume, two processes, comparison."""

import json
import math

import numpy as np
import pytest
import torch
from processes import run_script
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import finetune
from finetune import training
from recipes.compare import CompareConfig, compare
from recipes.language_model import LanguageModelConfig, train_language_model
from recipes.simple_baselines import count_ngrams


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, sample_texts):
    folder = tmp_path_factory.mktemp("documents")
    groups = ["\n".join(sample_texts[i : i + 1 + i % 7]) for i in range(0, 160, 5)]
    for name, some in (("train", groups[:24]), ("test", groups[24:])):
        (folder / f"{name}.txt").write_text("\n\n".join(some) + "\n")
    return folder


def tiny(corpus, output_dir, model="lstm", **settings):
    return {
        "train_file": f"{corpus}/train.txt",
        "test_file": f"{corpus}/test.txt",
        "model_name_or_path": model,
        "output_dir": str(output_dir),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "vocab_size": 320,
        "max_seq_length": 24,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "validation_split_percentage": 20,
        "dropout": 0.2,
        "logging_steps": 1,
        "disable_tqdm": True,
    } | settings


def flags(settings):
    return [f"--{key}={value}" for key, value in settings.items()]


@torch.no_grad()
def slow_nll(folder, documents, longest, context):
    """The nats of each document, token by token, each after the last tokens that an evaluation shows it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found = []
    for sentences in documents:
        ids = [tokenizer.bos_token_id]
        for sentence in sentences:
            ids += tokenizer(sentence, add_special_tokens=False)["input_ids"]
        ids.append(tokenizer.eos_token_id)
        nats = 0.0
        for at in range(1, len(ids)):
            begin = 0
            if (
                context is not None and at >= longest
            ):  # later windows begin `context` tokens before their first target
                begin = at - context - (at - longest) % (longest - context)
            logits = model(input_ids=torch.tensor([ids[begin:at]])).logits[0, -1]
            nats -= float(logits.log_softmax(-1)[ids[at]])
        found.append(nats)
    return found


@pytest.mark.parametrize("model", ["gru", "transformer"])
def test_the_scores_are_those_of_a_loop_over_tokens(model, corpus, tmp_path):
    more = {"eval_context": 5} if model == "transformer" else {}
    result = train_language_model(LanguageModelConfig(**tiny(corpus, tmp_path, model, **more)))
    rows = [json.loads(line) for line in (tmp_path / "predictions_test.jsonl").read_text().splitlines()]
    documents = [part.split("\n") for part in (corpus / "test.txt").read_text().strip().split("\n\n")]
    assert [row["sentences"] for row in rows] == documents
    nats = slow_nll(tmp_path, documents, 24, more.get("eval_context"))
    assert [row["nll"] for row in rows] == pytest.approx(nats, rel=1e-4)
    words = len((corpus / "test.txt").read_text().split())
    characters = sum(len(" ".join(sentences)) for sentences in documents)
    scores = result.results
    assert scores["test_words"] == words
    assert scores["test_perplexity"] == pytest.approx(math.exp(sum(nats) / words), rel=1e-3)
    assert scores["test_bits_per_character"] == pytest.approx(sum(nats) / math.log(2) / characters, rel=1e-4)
    assert scores["test_loss"] == pytest.approx(sum(nats) / scores["test_scored_tokens"], rel=1e-4)
    assert json.loads((tmp_path / "all_results.json").read_text()) == scores
    first, last = result.history[0]["loss"], scores["test_loss"]
    assert last < first
    assert finetune.generate(tmp_path, "The", length=5, seed=1)[0].startswith("The")
    assert "text-generation" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("model", ["lstm", "transformer"])
def test_a_resumed_run_ends_with_the_same_bytes(model, corpus, tmp_path):
    settings = {"max_steps": 9, "save_strategy": "steps", "save_steps": 4, "save_total_limit": 9}
    settings |= {"eval_strategy": "no"}
    whole = tiny(corpus, tmp_path / "whole", model, **settings)
    train_language_model(LanguageModelConfig(**whole))
    (first, *_) = training.checkpoints(tmp_path / "whole")
    assert (first / "carried.safetensors").exists() == (model == "lstm")
    again = whole | {"output_dir": str(tmp_path / "again"), "resume_from_checkpoint": str(first)}
    train_language_model(LanguageModelConfig(**again))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again")]
    assert weights[0] == weights[1]


def test_two_processes_take_the_steps_of_one_and_resume(corpus, tmp_path):
    """Also at the end of an epoch, where a process has fewer lanes, and in two micro-batches."""
    settings = {"dropout": 0.0, "num_train_epochs": 2, "save_total_limit": 99, "save_strategy": "steps"}
    settings |= {"save_steps": 20, "eval_strategy": "no", "gradient_accumulation_steps": 2}
    one = tiny(corpus, tmp_path / "one", per_device_train_batch_size=4, **settings)
    train_language_model(LanguageModelConfig(**one))
    two = one | {"output_dir": tmp_path / "two", "per_device_train_batch_size": 2}
    again = two | {"output_dir": tmp_path / "again", "resume_from_checkpoint": tmp_path / "two/checkpoint-40"}
    for own in (two, again):
        done = run_script("recipes/language_model.py", *flags(own), processes=2)
        assert done.returncode == 0, done.stderr[-2000:]
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")}
    for name, value in weights["one"].items():
        assert torch.allclose(value, weights["two"][name], atol=1e-5), name
    scores = [json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("one", "two")]
    assert scores[0]["test_perplexity"] == pytest.approx(scores[1]["test_perplexity"], rel=1e-4)
    carried = [load_file(tmp_path / name / "checkpoint-40/carried.safetensors")["carried"] for name in ("one", "two")]
    assert torch.allclose(*carried, atol=1e-5)
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in ("two", "again")}) == 1


def test_networks_are_compared_with_ngrams(corpus, tmp_path):
    names = ("lstm", "5-gram")
    configs = {name: LanguageModelConfig(**tiny(corpus, "", name)) for name in names}
    report = compare(CompareConfig(configs, (0,), str(tmp_path)))
    assert not report["failures"]
    scores = {name: report["models"][name]["scores"]["test_log_probability"]["mean"] for name in names}
    (pair,) = report["pairs"]
    assert pair["difference"] == pytest.approx(scores["lstm"] - scores["5-gram"])
    assert pair["low"] <= pair["difference"] <= pair["high"]
    unigram = count_ngrams(LanguageModelConfig(**tiny(corpus, tmp_path / "unigram", "unigram")))
    assert unigram.results["test_log_probability"] < scores["5-gram"]
    files = [tmp_path / name / "seed-0/predictions_test.jsonl" for name in names]
    tokens = [[json.loads(line)["tokens"] for line in file.read_text().splitlines()] for file in files]
    assert tokens[0] == tokens[1]  # the same subwords
    assert np.sum(tokens[0]) == report["models"]["lstm"]["scores"]["test_scored_tokens"]["mean"]
    assert (tmp_path / "report.html").exists()
