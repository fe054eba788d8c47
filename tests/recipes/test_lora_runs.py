"""Runs with --lora_r: what they save, their adapter, their checkpoints, and a resume to the same bytes."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from processes import run_script
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification, pipeline

import finetune
from finetune import config_files, data, training
from recipes.ner import NerConfig, finetune_ner
from recipes.question_answering import QuestionConfig, finetune_questions
from recipes.sentiment import SentimentConfig, finetune_sentiment
from recipes.seq2seq import Seq2SeqConfig, train_seq2seq

RANK = 3
SHORT = {"max_train_samples": 20, "max_eval_samples": 9, "max_seq_length": 32, "disable_tqdm": True}
SHORT |= {"per_device_train_batch_size": 4, "lora_r": RANK, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def config(short_ner):
    """Ten steps with a checkpoint at 3, 6, 9 and 10."""
    return NerConfig(
        max_steps=10,
        eval_steps=3,
        save_steps=3,
        save_total_limit=9,
        save_adapter=True,
        **short_ner | SHORT,
    )


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def changes(before, after, prefix):
    """The rank of what was added to each weight of the encoder, where anything was added."""
    old, new = weights(before), weights(after)
    ranks = {}
    for name in [name for name in old.keys() & new.keys() if name.startswith(prefix)]:
        if not torch.equal(old[name], new[name]):
            ranks[name] = int(torch.linalg.matrix_rank((new[name] - old[name]).double(), rtol=1e-3))
    return ranks


def bytes_of(folder):
    files = ["model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"]
    files += ["predictions_eval.conll", "predictions_test.conll", "checkpoint-10/model.safetensors"]
    files += ["checkpoint-10/optimizer.safetensors"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def test_the_saved_model_is_like_any_other_and_what_changed_has_the_rank(config, whole, tmp_path):
    plain = replace(config, output_dir=str(tmp_path / "plain"), lora_r=None, save_adapter=False, max_steps=1)
    finetune_ner(plain)
    told = {path.name for path in (tmp_path / "plain").iterdir() if not path.name.startswith("checkpoint")}
    assert {path.name for path in whole.iterdir() if not path.name.startswith("checkpoint")} == told | {"adapter"}
    there, here = weights(plain.output_dir), weights(whole)
    assert {name: value.shape for name, value in here.items()} == {name: value.shape for name, value in there.items()}
    found = changes(config.model_name_or_path, whole, "bert.")
    assert len(found) == 2 * 6
    assert set(found.values()) == {RANK}
    results = json.loads((whole / "all_results.json").read_text())
    assert (
        results["total_parameters"]
        == json.loads((tmp_path / "plain/all_results.json").read_text())["total_parameters"]
    )
    H, labels = 32, here["classifier.bias"].numel()
    matrices = 2 * RANK * (4 * 2 * H + 2 * (H + 4 * H))
    assert results["trained_parameters"] == matrices + labels * (H + 1)
    card = (whole / "README.md").read_text()
    assert f"- LoRA rank: {RANK}\n- LoRA alpha: {2 * RANK}\n" in card
    assert f"- of which trained: {results['trained_parameters']:,}\n" in card


def test_it_is_used_without_peft(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # an import of it fails
    written = data.read_conll(whole / "predictions_test.conll", tag_column=2)
    assert [answer["predicted"] for answer in finetune.predict(str(whole), written.words)] == written.tags
    assert pipeline("token-classification", model=str(whole))("Ada flew home.") is not None


def test_peft_loads_the_adapter_onto_the_checkpoint(config, whole):
    saved = AutoModelForTokenClassification.from_pretrained(whole).eval()
    base = AutoModelForTokenClassification.from_pretrained(
        config.model_name_or_path, num_labels=saved.config.num_labels
    )
    adapted = PeftModel.from_pretrained(base, str(whole / "adapter")).eval()
    inputs = {"input_ids": torch.tensor([[2, 17, 30, 41, 3]])}
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs).logits, saved(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_holds_what_trains_and_a_killed_run_ends_with_the_same_bytes(config, whole, tmp_path, capfd):
    held = weights(whole / "checkpoint-3")
    assert {name.partition(".lora_")[1] or name.partition(".")[0] for name in held} == {".lora_", "classifier"}
    killed = tmp_path / "run"
    shutil.copytree(whole, killed)
    for name in ("checkpoint-10", "checkpoint-9", "adapter"):
        shutil.rmtree(killed / name)
    (killed / "model.safetensors").unlink()
    again = replace(config, output_dir=str(killed), resume_from_checkpoint="true")
    finetune_ner(again)
    assert "after step 6" in capfd.readouterr().out
    assert bytes_of(killed) == bytes_of(whole)

    # The same name, and other weights of the encoder in it.
    other = tmp_path / "other"
    shutil.copytree(config.model_name_or_path, other)
    values = weights(other)
    values["bert.embeddings.LayerNorm.bias"][0] += 1e-6
    save_file(values, other / "model.safetensors", metadata={"format": "pt"})
    here = tmp_path / "elsewhere"
    config = replace(config, model_name_or_path=str(here), output_dir=str(tmp_path / "second"))
    shutil.copytree(Path(again.model_name_or_path), here)
    finetune_ner(config)
    shutil.copy(other / "model.safetensors", here)
    with pytest.raises(
        ValueError, match=r"checkpoint-10: it holds only what trains, and the other weights, those of"
    ):
        finetune_ner(replace(config, resume_from_checkpoint="true"))
    with pytest.raises(ValueError, match=r"checkpoint-10: a checkpoint of a run with LoRA holds only what trains"):
        finetune.predict(str(tmp_path / "second/checkpoint-10"), ["Ada flew home."])


def test_it_is_the_same_training_with_less_memory(config, whole, tmp_path):
    for flag in ({"gradient_checkpointing": True}, {"compact_vocabulary": False}):
        folder = tmp_path / next(iter(flag))
        finetune_ner(replace(config, output_dir=str(folder), **flag))
        assert weights(folder).keys() == weights(whole).keys()
        assert all(torch.equal(weights(folder)[name], value) for name, value in weights(whole).items())


def test_a_mean_of_checkpoints_is_that_of_the_matrices(config, tmp_path):
    """The rate is high, and the loss goes up and down. So a mean is better."""
    own = replace(config, output_dir=str(tmp_path / "mean"), average_checkpoints=3, metric_for_best_model="loss")
    own = replace(own, save_total_limit=10, learning_rate=5e-2, eval_steps=1, save_steps=1)
    own = replace(own, lr_scheduler_type="constant", warmup_steps=0)
    result = finetune_ner(own)
    number = result.results["averaged_checkpoints"]
    assert number > 1
    losses = {line["step"]: line["eval_loss"] for line in result.history if "eval_loss" in line}
    best = sorted(losses, key=losses.get)[: int(number)]
    held = [weights(tmp_path / f"mean/checkpoint-{step}") for step in best]
    mean = {name: sum(one[name].double() for one in held) / number for name in held[0]}
    before, after = weights(config.model_name_or_path), weights(tmp_path / "mean")
    for name, value in mean.items():
        if "lora_A" in name:
            layer = name.partition(".lora_")[0]
            expected = before[f"{layer}.weight"] + 2 * mean[name.replace("lora_A", "lora_B")] @ value
            torch.testing.assert_close(after[f"{layer}.weight"].double(), expected, rtol=1e-4, atol=1e-6)
        elif "lora_B" not in name:
            torch.testing.assert_close(after[name].double(), value, rtol=1e-4, atol=1e-6)
    for step in losses.keys() - {best[0], max(losses)}:  # what a run that keeps one checkpoint removes at its end
        shutil.rmtree(tmp_path / f"mean/checkpoint-{step}", ignore_errors=True)
    with pytest.raises(ValueError, match="this run has finished, and its model is merged with LoRA; it is in "):
        finetune_ner(replace(own, resume_from_checkpoint="true"))


def test_rates_of_layers_and_frozen_layers(config, whole, tmp_path):
    """The lower layer gets the tiny rate, so its matrices hardly move; or it gets none."""
    for flag in ({"layerwise_lr_decay": 1e-3}, {"freeze_layers": 1}):
        folder = tmp_path / next(iter(flag))
        finetune_ner(replace(config, output_dir=str(folder), **flag))
        before, after = weights(config.model_name_or_path), weights(folder)
        moved = [0.0, 0.0]
        for name in before.keys() & after.keys():
            for layer in (0, 1):
                if f".layer.{layer}." in name:
                    moved[layer] = max(moved[layer], float((after[name] - before[name]).abs().max()))
        assert moved[0] < 1e-2 * moved[1]
        assert (moved[0] == 0) == ("freeze_layers" in flag)


def test_other_tasks(checkpoints, tmp_path):
    """One label, several labels, a number, answers in passages; a RoBERTa and an XLM-R."""
    texts = [{"text": f"number {i} is {'big' if i % 3 else 'small'}"} for i in range(20)]
    rows = {
        "one": [text | {"label": "a" if i % 3 else "b"} for i, text in enumerate(texts)],
        "several": [text | {"label": ["a", "b"][: i % 3]} for i, text in enumerate(texts)],
        "number": [text | {"label": i / 7} for i, text in enumerate(texts)],
    }
    for name, kind, prefix in (
        ("one", "byte-bpe", "roberta."),
        ("several", "unigram", "roberta."),
        ("number", "wordpiece", "bert."),
    ):
        folder = tmp_path / name
        flags = {"model_name_or_path": str(checkpoints[kind]), "output_dir": str(folder), "max_steps": 3, **SHORT}
        finetune_sentiment(SentimentConfig(**flags), data={"train": rows[name], "validation": rows[name][:8]})
        found = changes(checkpoints[kind], folder, prefix)
        assert len(found) == 12
        assert set(found.values()) == {RANK}
    flags = {"dataset_name": "samples", "model_name_or_path": str(checkpoints["unigram"]), "max_steps": 2}
    flags |= {"output_dir": str(tmp_path / "questions"), "save_adapter": True}
    result = finetune_questions(QuestionConfig(**flags | SHORT))
    assert result.results["test_questions_scored"] == result.results["test_questions"] > 0
    assert set(changes(checkpoints["unigram"], tmp_path / "questions", "roberta.").values()) == {RANK}


def test_an_encoder_decoder_of_a_checkpoint(checkpoints, tmp_path):
    """The attention to the source starts at random, so it trains whole; bert2rnd has a whole decoder that does."""
    flags = {"dataset_name": "samples", "encoder_name_or_path": str(checkpoints["wordpiece"]), "max_steps": 2}
    flags |= SHORT | {"max_target_length": 24}
    for name in ("bert2bert", "bert2rnd"):
        folder = tmp_path / name
        config = Seq2SeqConfig(model_name_or_path=name, output_dir=str(folder), **flags)
        train_seq2seq(config)
        before, after = weights(checkpoints["wordpiece"]), weights(folder)
        for side in ("encoder", "decoder.bert"):
            ranks = {}
            for key, old in before.items():
                new = after.get(key.replace("bert.", f"{side}.", 1))
                if new is not None and key.startswith("bert.") and not torch.equal(old, new):
                    ranks[key] = (
                        int(torch.linalg.matrix_rank((new - old).double(), rtol=1e-3)) if old.ndim == 2 else 0
                    )
            if name == "bert2rnd" and side != "encoder":
                assert len(ranks) > 12
                continue
            assert len(ranks) == 12
            assert set(ranks.values()) == {RANK}
    held = weights(tmp_path / "bert2bert/checkpoint-2")
    assert {"crossattention", "lora"} <= {part for name in held for part in name.replace("lora_", "lora.").split(".")}
    assert not any("word_embeddings" in name for name in held)
    resumed = replace(config, output_dir=str(tmp_path / "bert2bert"), model_name_or_path="bert2bert")
    (tmp_path / "bert2bert/model.safetensors").rename(tmp_path / "before.safetensors")
    train_seq2seq(replace(resumed, resume_from_checkpoint="true"))
    assert (tmp_path / "before.safetensors").read_bytes() == (tmp_path / "bert2bert/model.safetensors").read_bytes()
    # A saved one goes on, with LoRA in the attention to the source, too.
    flags.pop("encoder_name_or_path")
    folder = tmp_path / "again"
    train_seq2seq(Seq2SeqConfig(model_name_or_path=str(tmp_path / "bert2bert"), output_dir=str(folder), **flags))
    crossed = changes(tmp_path / "bert2bert", folder, "decoder.bert.encoder")
    assert sum("crossattention" in name for name in crossed) == 8
    assert set(crossed.values()) == {RANK}
    assert len(finetune.predict(str(folder), ["twenty one", "forty two"])) == 2


@pytest.mark.slow
def test_two_processes_take_the_same_steps_and_resume(config, checkpoints, tmp_path):
    """Without dropout, two processes with half the rows are one; with it, a killed run of two ends the same."""
    still = tmp_path / "still"
    shutil.copytree(checkpoints["wordpiece"], still)
    settings = json.loads((still / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(settings))

    def two(own):
        (tmp_path / "flags.yaml").write_text(config_files.to_yaml(own))
        done = run_script("recipes/ner.py", "--config", tmp_path / "flags.yaml", processes=2)
        assert done.returncode == 0, done.stderr[-3000:]

    one = replace(config, model_name_or_path=str(still), output_dir=str(tmp_path / "one"))
    half = replace(one, output_dir=str(tmp_path / "half"), per_device_train_batch_size=2)
    finetune_ner(one)
    two(half)
    for name, value in weights(one.output_dir).items():
        torch.testing.assert_close(weights(half.output_dir)[name], value, rtol=1e-3, atol=1e-4)
    own = replace(config, output_dir=str(tmp_path / "two"), per_device_train_batch_size=2)
    two(own)
    before = bytes_of(tmp_path / "two")
    for checkpoint in training.checkpoints(tmp_path / "two")[-2:]:
        shutil.rmtree(checkpoint)
    two(replace(own, resume_from_checkpoint="true"))
    assert bytes_of(tmp_path / "two") == before


@pytest.mark.slow
def test_a_run_that_collapses_begins_again_at_the_checkpoint(config, tmp_path):
    """The attempt that counts is a run of its own, with the seed and the rate that its card tells."""
    absurd = replace(config, output_dir=str(tmp_path / "absurd"), learning_rate=30.0, max_steps=240, seed=0)
    absurd = replace(absurd, eval_steps=60, save_steps=60, logging_steps=60)
    result = finetune_ner(absurd)
    assert result.results["restarts"] == 2
    card = (tmp_path / "absurd/README.md").read_text()
    told = dict(
        line[2:].split(": ") for line in card.splitlines() if line.startswith(("- seed: ", "- warmup_steps: "))
    )
    own = replace(absurd, output_dir=str(tmp_path / "own"), on_collapse="ignore", learning_rate=30.0 / 4)
    own = replace(own, seed=int(told["seed"]), warmup_steps=float(told["warmup_steps"]))
    finetune_ner(own)
    assert all(torch.equal(weights(own.output_dir)[n], value) for n, value in weights(absurd.output_dir).items())
