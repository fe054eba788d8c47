"""A step that does not fit: the same gradient in smaller pieces, and a real process that runs out of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import BertForTokenClassification
from transformers.models.bert.modeling_bert import BertSelfAttention

from finetune import data, training
from finetune.tasks import masked
from recipes.ner import NerConfig, finetune_ner

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("head", ["tokens", "sequences", "bilstm-crf", "masked tokens and next sentences"])
def test_the_step_is_the_same(checkpoints, head):
    import two_processes

    model, rows, pad = two_processes.a_model(checkpoints["wordpiece"], head)
    batches = data.TrainBatches(rows, pad, 8, 2, seed=3, count=masked.targets)
    accelerator = Accelerator(cpu=True)
    micro_batches = next(iter(batches.epoch(0)))

    def gradient(limit):
        model.zero_grad()
        sums, pieces = training.gradients_that_fit(accelerator, two_processes.Small(model, limit), micro_batches, 1)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), sums, pieces

    whole, expected, one = gradient(8)
    cut, sums, pieces = gradient(3)
    assert (one, pieces) == (1, 4)
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=1e-5)
    assert (sums.targets, sums.tokens, sums.rows) == (expected.targets, expected.tokens, expected.rows)
    with pytest.raises(torch.OutOfMemoryError, match="1 rows"):
        gradient(0)


def test_a_step_that_begins_again_draws_the_same_dropout(checkpoints):
    """As if the pieces had been known: what the failed attempts drew does not count."""
    import two_processes

    class Late(two_processes.Small):
        """Out of memory after the layers have drawn their dropout."""

        def forward(self, **inputs):
            output = self.model(**inputs)
            if len(inputs["input_ids"]) > self.rows:
                raise torch.OutOfMemoryError("late")
            return output

    model, rows, pad = two_processes.a_model(checkpoints["wordpiece"], "tokens")
    model.train()
    micro_batches = next(iter(data.TrainBatches(rows, pad, 8, seed=3, count=masked.targets).epoch(0)))
    found = []
    for limit, pieces in ((8, 4), (2, 1)):  # known from the start; found by trying 1, 2, then 4
        model.zero_grad()
        torch.manual_seed(0)
        _, fitting = training.gradients_that_fit(Accelerator(cpu=True), Late(model, limit), micro_batches, pieces)
        assert fitting == 4
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.equal(*found)


def test_pieces_hold_the_rows_without_columns_of_padding(tokenizer, samples):
    labels = data.entity_labels(samples["train"])
    rows = data.align(samples["train"].select(range(11)), tokenizer, labels, max_seq_length=64).rows
    batch = data.collate(rows, tokenizer.pad_token_id, np.arange(len(rows)))
    for pieces in (1, 2, 3, 8, 99):
        parts = batch.split(pieces)
        assert len(parts) == min(pieces, len(rows))
        assert np.concatenate([part.row_ids for part in parts]).tolist() == batch.row_ids.tolist()
        for part in parts:
            again = data.collate(rows, tokenizer.pad_token_id, part.row_ids)
            if pieces > 1:
                assert all(torch.equal(part.inputs[key], again.inputs[key]) for key in again.inputs)


LIMITED = """
import resource, sys, torch
from finetune import cli
from recipes.ner import NerConfig, finetune_ner
torch.set_num_threads(1)
config = NerConfig(
    train_file=sys.argv[1], model_name_or_path="lstm", output_dir=sys.argv[2], eval_strategy="no", save_strategy="no",
    per_device_train_batch_size=64, hidden_size=512, max_seq_length=500, max_steps=2, disable_tqdm=True,
    char_features="none", auto_find_batch_size=sys.argv[3] == "true",
)
from finetune.training import loop
real = loop.gradients_that_fit if config.auto_find_batch_size else loop.accumulate_gradients
def limited(*arguments):  # from here on, so that what is loaded before does not count
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, resource.RLIM_INFINITY))
    try:
        return real(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
setattr(loop, real.__name__, limited)
cli.run(finetune_ner, config)
"""


@pytest.mark.parametrize("place", ["optimizer", "evaluation"])
def test_memory_may_be_out_elsewhere(checkpoints, tmp_path, monkeypatch, place):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    config = NerConfig(
        dataset_name="samples",
        model_name_or_path=str(checkpoints["wordpiece"]),
        output_dir=str(tmp_path / "run"),
        max_seq_length=32,
        max_train_samples=8,
        max_eval_samples=4,
        max_steps=1,
        disable_tqdm=True,
    )
    if place == "optimizer":
        monkeypatch.setattr(torch.optim.AdamW, "step", full)
        message = "out of memory in the optimizer at step 1: AdamW keeps two numbers beside each weight"
    else:
        forward = BertForTokenClassification.forward
        monkeypatch.setattr(
            BertForTokenClassification, "forward", lambda m, *a, **k: (forward if m.training else full)(m, *a, **k)
        )
        message = "out of memory in the evaluation: a smaller --per_device_eval_batch_size needs less"
    with pytest.raises(MemoryError, match=message):
        finetune_ner(config)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, to limit a process's memory")
def test_a_process_without_memory_goes_on(tmp_path):
    sentence = "".join(f"word{i % 7}\t{'B-X' if i % 9 == 0 else 'O'}\n" for i in range(490))
    (tmp_path / "train.conll").write_text("\n".join([sentence] * 64))
    results = {}
    for flag in ("true", "false"):
        command = [sys.executable, "-c", LIMITED, tmp_path / "train.conll", tmp_path / flag, flag]
        results[flag] = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
    assert results["false"].returncode != 0
    assert "error: out of memory at step 1" in results["false"].stderr
    assert results["true"].returncode == 0, results["true"].stderr[-2000:]
    assert "pieces" in results["true"].stdout
    assert json.loads((tmp_path / "true/all_results.json").read_text())["train_steps"] == 2


@pytest.mark.parametrize("settings", [{}, {"padding_free": False}, {"head": "crf", "auto_find_batch_size": True}])
def test_layers_computed_twice_give_the_same_bytes(checkpoints, tmp_path, monkeypatch, settings):
    """Dropout too: each layer draws the second time what it drew the first time."""
    counted = {False: 0, True: 0}
    forward = BertSelfAttention.forward

    def counting(module, *args, **kwargs):
        counted[twice] += module.training
        return forward(module, *args, **kwargs)

    monkeypatch.setattr(BertSelfAttention, "forward", counting)
    written = []
    for twice in (False, True):
        config = NerConfig(
            dataset_name="samples",
            model_name_or_path=str(checkpoints["wordpiece"]),
            output_dir=str(tmp_path / str(twice)),
            max_seq_length=32,
            max_train_samples=12,
            max_eval_samples=4,
            num_train_epochs=1,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            gradient_checkpointing=twice,
            disable_tqdm=True,
            **settings,
        )
        folder = finetune_ner(config).output_dir
        written.append([(folder / name).read_bytes() for name in ("model.safetensors", "config.json")])
    assert counted[True] == 2 * counted[False] > 0
    assert written[0] == written[1]
