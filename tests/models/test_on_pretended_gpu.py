"""The branches for CUDA, without a GPU: every head, in three precisions, with the numbers of the CPU."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pretended_gpu import compile_guard

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, to tell torch of a device")
SCRIPT = Path(__file__).with_name("on_pretended_gpu.py")

# How often a forward pass looks into the device's memory at most: in training, in evaluation. Fewer is better.
LOOKS = {
    "tokens": (1, 1),  # attention.packing_of
    "texts": (1, 1),
    "questions": (1, 1),
    "masked": (2, 2),  # and the places of the masked tokens
    "crf": (5, 8),  # crf.crf_outputs
    "tokens, padded": (1, 1),  # transformers, whether there is any padding
    "texts, padded": (1, 1),
    "questions, padded": (1, 1),
    "masked, padded": (2, 2),
    "crf, padded": (5, 8),
    "bilstm": (5, 5),  # recurrent.run_recurrent, the words' characters, whether there is a word
    "bilstm-crf": (9, 12),
    "bilstm texts": (6, 6),
    "reader": (8, 8),
}

# And how often it sends numbers there: the lengths of a packed sequence, in evaluation what IOB2 forbids; in the
# first of all passes, the trial of attention without padding.
COPIES = {
    "tokens": (1, 1),
    "crf": (0, 2),
    "crf, padded": (0, 2),
    "bilstm": (1, 1),
    "bilstm-crf": (1, 3),
    "bilstm texts": (1, 1),
    "reader": (2, 2),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    guard = compile_guard(tmp_path_factory.mktemp("guard"))
    done = subprocess.run([sys.executable, str(SCRIPT), str(guard)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_it_sees_what_a_gpu_would_punish(found):
    itself = found["itself"]
    assert (itself["values"], itself["device"]) == ([1.0, 2.0, 3.0, 4.0], "cuda:0")
    assert "expected all tensors to be on the same device" in itself["mixed"]
    for name in ("item", "nonzero", "mask", "branch", "read"):
        assert itself[name] == [1, 0], name
    assert (itself["filled"], itself["sent"]) == ([0, 0], [0, 1])


@pytest.mark.parametrize("name", LOOKS)
def test_every_head_gives_what_it_gives_on_the_cpu(found, name):
    told = dict(found[name])
    assert "error" not in told, told["error"]
    on_cpu = told.pop("on_cpu")
    assert len(told) == 6
    for case, said in told.items():
        training, precision = case.split(", ")
        assert said["dtype"] == "torch.float32"  # the loss, in every precision
        assert said["loss"] == pytest.approx(on_cpu, rel=1e-6 if precision == "no" else 5e-3), case
        evaluation = training == "evaluation"
        assert sum(said["looks"].values()) <= LOOKS[name][evaluation], (case, said["looks"])
        assert sum(said["copies"].values()) <= COPIES.get(name, (0, 0))[evaluation], (case, said["copies"])
