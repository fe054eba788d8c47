"""The gradient contract: the same step for any cut into micro-batches and processes."""

import sys
from pathlib import Path

import pytest
import torch
from processes import run_script

SCRIPT = Path(__file__).with_name("two_processes.py")
HEADS = [
    "tokens",
    "crf",
    "bilstm-crf",
    "sequences",
    "bilstm texts",
    "masked tokens",
    "masked tokens and next sentences",
    "recurrent pairs",
    "transformer pairs",
]


@pytest.fixture(scope="module")
def gradients(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    found = {}
    for processes in (1, 2):
        output = folder / f"{processes}.pt"
        done = run_script(SCRIPT, checkpoints["wordpiece"], output, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        found[processes] = torch.load(output, weights_only=True)
    return found


def reference(checkpoint, head):
    """The gradient written out: each row alone, the summed loss of all divided by all targets."""
    sys.path.insert(0, str(SCRIPT.parent))
    import two_processes

    from finetune import data

    model, rows, pad = two_processes.a_model(checkpoint, head)
    from finetune.tasks import masked

    # Each loss by its own number of targets.
    if head == "crf" or "bilstm" in head or "pairs" in head:
        model.train()
        model.config.word_dropout = 0.0
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    plan = data.TrainBatches(rows, pad, 8, seed=3).plan(0)
    steps = []
    for (row_ids,) in plan:
        model.zero_grad()
        batches = [data.collate(rows, pad, [row], count=masked.targets) for row in row_ids]
        for batch in batches:
            output = model(**batch.inputs)
            sum(
                output[name] * count / sum(other.targets[name] for other in batches)
                for name, count in batch.targets.items()
            ).backward()
        steps.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return steps


@pytest.mark.parametrize("head", HEADS)
def test_every_cut_takes_the_same_step(gradients, checkpoints, head):
    expected = reference(checkpoints["wordpiece"], head)
    assert len(expected) == 3  # 17 rows: 8, 8, and 1, which leaves a second process without any
    cuts = 0
    for by_cut in gradients.values():
        for name in sorted({key.split("/")[1] for key in by_cut}):
            for i, step in enumerate(expected):
                found = by_cut[f"{head}/{name}/{i}"]
                assert (found - step).norm() <= 1e-5 * step.norm(), (name, i)
                sums, whole = by_cut[f"{head}/{name}/{i}/sums"], gradients[1][f"{head}/8 x 1/{i}/sums"]
                losses = 2 if head.endswith("next sentences") else 1
                assert sums[losses:].tolist() == whole[losses:].tolist()  # targets, tokens, rows: exactly
                assert sums[:losses].tolist() == pytest.approx(whole[:losses].tolist(), rel=1e-5)
            cuts += 1
    assert cuts == 9  # two of them where a process runs out of memory, and all begin again


def test_the_mean_of_means_would_fail(checkpoints):
    """What this contract rules out: dividing by the number of micro-batches gives another gradient here."""
    sys.path.insert(0, str(SCRIPT.parent))
    import two_processes

    from finetune import data

    model, rows, pad = two_processes.a_model(checkpoints["wordpiece"], "tokens")
    (row_ids,) = next(data.TrainBatches(rows, pad, 8, seed=3).plan(0))
    expected = reference(checkpoints["wordpiece"], "tokens")[0]
    for i in range(0, 8, 2):
        (model(**data.collate(rows, pad, row_ids[i : i + 2]).inputs).loss / 4).backward()
    naive = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert (naive - expected).norm() > 1e-2 * expected.norm()


def test_the_norm_does_not_hang_on_rows_without_gradient():
    """To the last bit; torch's own norm over the whole table does, for widths that are no multiple of its vectors."""
    from accelerate import Accelerator
    from transformers import BertConfig, BertModel

    from finetune.training import clip_gradients

    accelerator = Accelerator(cpu=True)
    shape = {"hidden_size": 100, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    models = [BertModel(BertConfig(vocab_size=pieces, **shape)) for pieces in (300, 5001)]
    others = 0
    for seed in range(20):
        ours, torchs = [], []
        for model in models:
            generator = torch.Generator().manual_seed(seed)
            words = model.get_input_embeddings().weight
            for parameter in model.parameters():
                if parameter is not words:
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
            words.grad = torch.zeros_like(words)
            rows = torch.linspace(0, len(words) - 1, 300).long()
            words.grad[rows] = torch.randn(300, 100, generator=generator)
            expected = [parameter.grad.clone() for parameter in model.parameters()]
            torchs.append(float(torch.nn.utils.get_total_norm(expected)))
            ours.append(float(clip_gradients(accelerator, model, 0.5)))
            assert ours[-1] == pytest.approx(torchs[-1], rel=1e-6)
            for before, parameter in zip(expected, model.parameters(), strict=True):
                assert torch.allclose(parameter.grad, before * 0.5 / ours[-1], rtol=1e-4)
        assert ours[0] == ours[1]
        others += torchs[0] != torchs[1]
    assert float(clip_gradients(accelerator, model, 1.0)) == pytest.approx(0.5, rel=1e-4)  # below it: as they were
    assert others or torch.backends.cpu.get_cpu_capability() != "AVX2"
