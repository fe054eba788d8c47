"""Text to text from end to end: each pair answered once, sacrebleu's scores, the same wherever it runs."""

import csv
import json
import math

import numpy as np
import pytest
import sacrebleu
import torch
from processes import ROOT, run_script
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM

import finetune
from finetune import data, models, training
from recipes.compare import CompareConfig, compare
from recipes.predict import PredictConfig, predict_stream
from recipes.seq2seq import Seq2SeqConfig, train_seq2seq

TINY = {
    "dataset_name": "samples",
    "max_train_samples": 96,
    "max_eval_samples": 14,
    "max_target_length": 40,
    "vocab_size": 300,
    "hidden_size": 16,
    "num_train_epochs": 1,
    "tokens_per_batch": 300,
    "per_device_eval_batch_size": 4,
    "disable_tqdm": True,
}
KINDS = {
    "gru2gru-attention": {"embedding_size": 8, "joint_vocabulary": False, "num_beams": 3, "length_penalty": 0.6},
    "rnn2rnn": {"embedding_size": 8, "tokenizer_name": "unigram", "teacher_forcing": 0.5, "num_train_epochs": 2},
    "transformer": {"num_attention_heads": 2, "num_hidden_layers": 1, "label_smoothing_factor": 0.1, "rouge": True},
}


WARM_STARTED = {"bert2bert": "wordpiece", "roberta2roberta": "byte-bpe"}


def config(output_dir, name, **more):
    return Seq2SeqConfig(**TINY | KINDS.get(name, {}) | more, model_name_or_path=name, output_dir=str(output_dir))


def predictions(folder, split="test"):
    with (folder / f"predictions_{split}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("name", [*KINDS, *WARM_STARTED])
def test_scores_are_sacrebleus_and_predict_says_the_same(name, checkpoints, tmp_path):
    own = config(tmp_path / "run", name)
    if name in WARM_STARTED:
        own.hidden_size, own.vocab_size = 256, 8000  # the defaults, as if they were not given
        own.encoder_name_or_path = str(checkpoints[WARM_STARTED[name]])
        own.max_seq_length = 60
    results = train_seq2seq(own).results
    rows = predictions(tmp_path / "run")
    gold = data.read_parallel(own)["test"]
    assert [(row["text"], row["target"]) for row in rows] == list(zip(gold["text"], gold["target"], strict=True))
    said = [row["predicted"] for row in rows]
    assert results["test_bleu"] * 100 == pytest.approx(sacrebleu.corpus_bleu(said, [gold["target"][:]]).score)
    assert results["test_chrf"] * 100 == pytest.approx(sacrebleu.corpus_chrf(said, [gold["target"][:]]).score)
    assert results["test_chrf"] > 0
    assert ("test_rougeL" in results) == own.rouge
    assert results["test_perplexity"] == pytest.approx(math.exp(results["test_loss"]))
    card = (tmp_path / "run/README.md").read_text()
    assert f"`nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}`" in card

    answers = finetune.predict(tmp_path / "run", gold["text"][:], batch_size=4)
    assert [" ".join(answer["predicted"].split()) for answer in answers] == said

    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in gold["text"]))
    asked = PredictConfig(str(tmp_path / "run"), input_file=str(tmp_path / "in.txt"), per_device_eval_batch_size=4)
    asked.input_format, asked.output_format, asked.output_file = "text", "text", str(tmp_path / "out.txt")
    assert predict_stream(asked) == len(said)
    assert (tmp_path / "out.txt").read_text().splitlines() == said

    # The loss, written out: each pair alone, without a batch. It is not smoothed.
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run").eval()
    sides = models.load_tokenizers(str(tmp_path / "run"))
    assert (sides.source is sides.target) == own.joint_vocabulary
    losses, count = 0.0, 0
    start, end = models.start_and_end(sides.target)
    for text, target in zip(gold["text"], gold["target"], strict=True):
        ids = [*sides.target(target, add_special_tokens=False)["input_ids"], end][:40]
        before = torch.tensor([[start, *ids[:-1]]])
        with torch.no_grad():
            logits = model(**sides.source(text, return_tensors="pt"), decoder_input_ids=before).logits[0]
        losses += float(cross_entropy(logits, torch.tensor(ids), reduction="sum"))
        count += len(ids)
    assert results["test_loss"] == pytest.approx(losses / count, rel=1e-4)


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    steps = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 4, "save_steps": 2}
    for name in ("rnn2rnn", "transformer"):
        whole, again = tmp_path / name / "whole", tmp_path / name / "again"
        train_seq2seq(config(whole, name, **steps, save_total_limit=9))
        resumed = str(training.checkpoints(whole)[-4])
        train_seq2seq(config(again, name, **steps, save_total_limit=9, resume_from_checkpoint=resumed))
        for file in ("model.safetensors", "predictions_test.tsv", "tokenizer.json", "generation_config.json"):
            assert (whole / file).read_bytes() == (again / file).read_bytes(), (name, file)


def test_one_two_and_three_processes_say_the_same(tmp_path):
    name = "gru2gru-attention"
    train_seq2seq(config(tmp_path / "model", name))
    # With this learning rate the weights stay, and only the evaluation counts.
    kept = {key: value for key, value in (TINY | KINDS[name]).items() if hasattr(Seq2SeqConfig, key)}
    for key in ("hidden_size", "vocab_size", "embedding_size", "joint_vocabulary"):
        kept.pop(key)
    kept |= {"model_name_or_path": str(tmp_path / "model"), "learning_rate": 1e-30, "max_steps": 1}
    train_seq2seq(Seq2SeqConfig(**kept, output_dir=str(tmp_path / "1")))
    flags = [f"--{key}={value}" for key, value in kept.items()]
    for processes in (2, 3):
        folder = tmp_path / str(processes)
        done = run_script(ROOT / "recipes/seq2seq.py", *flags, f"--output_dir={folder}", processes=processes)
        assert done.returncode == 0, done.stderr[-2000:]
        one, here = (json.loads((tmp_path / n / "all_results.json").read_text()) for n in ("1", folder.name))
        for split in ("eval", "test"):
            assert predictions(folder, split) == predictions(tmp_path / "1", split)
            for score in ("bleu", "chrf", "loss", "perplexity"):
                assert here[f"{split}_{score}"] == one[f"{split}_{score}"]
    assert predictions(tmp_path / "1") == predictions(tmp_path / "model")


def test_a_saved_model_is_trained_further_with_other_decoding(tmp_path):
    """Its length penalty goes with its beams: transformers does not save the one without the other."""
    train_seq2seq(config(tmp_path / "beams", "gru2gru-attention", max_steps=1))
    kept = {key: TINY[key] for key in TINY if key not in ("vocab_size", "hidden_size")} | {"max_steps": 1}
    own = Seq2SeqConfig(**kept, model_name_or_path=str(tmp_path / "beams"), output_dir=str(tmp_path / "greedy"))
    train_seq2seq(own)
    decoding = json.loads((tmp_path / "greedy/generation_config.json").read_text())
    assert decoding["num_beams"] == 1
    assert decoding.get("length_penalty") in (None, 1.0)

    train_seq2seq(config(tmp_path / "transformer", "transformer", max_steps=1))
    own.model_name_or_path, own.output_dir, own.teacher_forcing = str(tmp_path / "transformer"), "unused", 0.5
    with pytest.raises(ValueError, match=r"teacher_forcing: .* has no use for this flag"):
        train_seq2seq(own)
    own.teacher_forcing, own.vocab_size = 1.0, 20
    with pytest.raises(ValueError, match=r"vocab_size: .* has no use for this flag"):
        train_seq2seq(own)


def test_models_are_compared(tmp_path):
    chosen = {name: config(tmp_path, name) for name in ("rnn2rnn", "gru2gru-attention")}
    report = compare(CompareConfig(chosen, (1,), str(tmp_path / "compared")))
    assert report["metric"] == "bleu"
    rows = predictions(tmp_path / "compared/rnn2rnn/seed-1")
    targets = [row["target"] for row in rows]
    score = sacrebleu.corpus_bleu([row["predicted"] for row in rows], [targets]).score / 100
    assert report["models"]["rnn2rnn"]["scores"]["test_bleu"]["values"] == pytest.approx([score])
    groups = report["breakdowns"]["source length"]
    assert sum(groups["size"].values()) == len(rows)
    assert set(groups["scores"]) == set(chosen)
    assert report["models"]["rnn2rnn"]["settings"]["hidden_size"] == 16
    (pair,) = report["pairs"]
    assert pair["low"] <= pair["difference"] <= pair["high"]
    page = (tmp_path / "compared/report.html").read_text()
    assert "By source length" in page
    assert targets[0] in page
    # Only one of the two has attention. Its map is that of its own answer.
    assert "rnn2rnn" in report["attention"]["missing"]
    (maps,) = report["attention"]["maps"].values()
    answers = predictions(tmp_path / "compared/gru2gru-attention/seed-1")
    for one in maps:
        answer = answers[one["sentence"]]
        assert "".join(one["said"][:-1]) == "".join(answer["predicted"].split())
        assert "".join(answer["text"].split()) in "".join(one["words"])  # without the special tokens around it
        weights = np.array(one["weights"])
        assert weights.shape[2:] == (len(one["said"]), len(one["words"]))
        assert weights.sum(-1) == pytest.approx(np.ones(weights.shape[:3]), abs=0.01)
    assert page.count('class="finetune-attention"') == len(maps) > 0
    assert "rnn2rnn has no map: this " in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_beams": 0}, "num_beams 0: must be at least 1"),
        ({"label_smoothing_factor": 1.0}, "label_smoothing_factor 1.0"),
        ({"max_target_length": 1}, "max_target_length 1: 2 is the least"),
        ({"train_target_file": "a.de"}, "train_target_file a.de: it needs train_file"),
        ({"vocab_size": 20}, "vocab_size 20: the single characters of this text"),
        ({"freeze_encoder": True}, "freeze_encoder"),
        ({"head_learning_rate": 1e-3}, "head_learning_rate"),
        ({"on_collapse": "stop"}, "on_collapse stop: for labels of words and of texts"),
        ({"metric_for_best_model": "rouge1", "rouge": False}, "metric_for_best_model rouge1: it needs rouge true"),
        ({"length_penalty": math.nan, "num_beams": 2}, "length_penalty nan: must be a number"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: .* has no layers to compute twice"),
        (
            {"validation_file": "nosuch.tsv"},
            "dataset_name samples: it has all three splits; leave out the other data",
        ),
    ],
)
def test_flags_that_make_no_sense(tmp_path, flags, message):
    with pytest.raises(ValueError, match=message):
        train_seq2seq(config(tmp_path / "run", "transformer", **flags))
    assert not (tmp_path / "run").exists()
