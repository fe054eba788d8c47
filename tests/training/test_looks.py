"""How often a step looks into the device's memory, which makes a GPU wait for the program."""

import types

import pytest
import torch
from accelerate.utils import DistributedType
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertForTokenClassification

from finetune import data
from finetune.training import clip_gradients, loop
from recipes.ner import NerConfig, finetune_ner

_ALWAYS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_consecutive", "unique_dim"}


class Looks(TorchDispatchMode):
    """Counts what would wait for a GPU, on a CPU: what reads a number, or makes a tensor as long as a number says."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put_") else ()
        self.count += name in _ALWAYS or any(mask is not None and mask.dtype == torch.bool for mask in masks)
        return function(*args, **kwargs or {})


@pytest.fixture
def looks(monkeypatch):
    """The looks of a run of so many steps."""
    counted = Looks()

    def noting(function):
        def call(*args):
            counted.count += 1
            return function(*args)

        return call

    for name in ("tolist", "numpy", "cpu"):  # a CPU's tensors are read without a call that a mode would see
        monkeypatch.setattr(torch.Tensor, name, noting(getattr(torch.Tensor, name)))

    def passing(function):
        def call(*args, **kwargs):
            before = counted.count
            found = function(*args, **kwargs)
            counted.count = before
            return found

        return call

    for name in ("targets", "tokens"):  # asked of the batch in the computer's memory
        monkeypatch.setattr(data.Batch, name, property(passing(getattr(data.Batch, name).fget)))
    # On a GPU the clipping takes another way: see below.
    monkeypatch.setattr(loop, "clip_gradients", passing(loop.clip_gradients))
    model = BertForTokenClassification  # whose own looks are no matter of the loop
    monkeypatch.setattr(model, "forward", passing(model.forward))

    def run(steps, **settings):
        counted.count = 0
        with counted:
            finetune_ner(NerConfig(max_steps=steps, **settings))
        return counted.count

    return run


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"auto_find_batch_size": True}])
def test_a_step_looks_once(checkpoints, tmp_path, looks, settings):
    common = {
        "dataset_name": "samples",
        "model_name_or_path": str(checkpoints["wordpiece"]),
        "max_seq_length": 32,
        "max_eval_samples": 4,
        "padding_free": False,
        "per_device_train_batch_size": 4,
        "max_grad_norm": 1e-3,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    found = [looks(steps, output_dir=str(tmp_path / str(steps)), **common | settings) for steps in (2, 6)]
    assert (found[1] - found[0]) / 4 == 1


@pytest.mark.parametrize("max_norm", [0.5, float("inf")])
def test_clipping_does_not_wait_for_the_device(max_norm):
    """Tensors of torch's meta device have no numbers, so that nobody can read one."""
    device = torch.device("meta")
    parameters = [torch.nn.Parameter(torch.empty(size, device=device)) for size in ((30, 4), (4,))]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    model = types.SimpleNamespace(parameters=lambda: parameters)
    accelerator = types.SimpleNamespace(
        device=device, distributed_type=DistributedType.NO, unscale_gradients=lambda: None
    )
    norm = clip_gradients(accelerator, model, max_norm)
    assert norm.device == device
    with pytest.raises(RuntimeError, match="meta"):
        float(norm)
