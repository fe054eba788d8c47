"""Tiny tokenizers and checkpoints of the three kinds, and the real data where it is present."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# Tests run side by side, one on each core; more threads than cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Also for the processes that tests start: nobody's cache is filled.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp()

import pytest

from finetune import data
from finetune.arguments import DataArguments

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from random_checkpoint import KINDS, build  # noqa: E402

atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def samples():
    return data.read_tagged(DataArguments(dataset_name="samples"))


@pytest.fixture(scope="session")
def sample_texts(samples):
    return [" ".join(words) for words in samples["train"]["tokens"]]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, sample_texts):
    """Folders of a tiny BERT, RoBERTa and XLM-R with trained tokenizers, by tokenizer kind."""
    folders = {}
    for kind in KINDS:
        folders[kind] = tmp_path_factory.mktemp(kind)
        build(kind, sample_texts, folders[kind], vocab_size=500, hidden_size=32, layers=2, positions=64)
    return folders


@pytest.fixture(scope="module")
def short_ner(checkpoints, tmp_path_factory):
    """Flags of a NER run with a tiny BERT on 20 sentences, which saves what it evaluates."""
    return {
        "dataset_name": "samples",
        "model_name_or_path": str(checkpoints["wordpiece"]),
        "output_dir": str(tmp_path_factory.mktemp("runs") / "whole"),
        "max_seq_length": 32,
        "max_train_samples": 20,
        "max_eval_samples": 9,
        "per_device_train_batch_size": 4,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "disable_tqdm": True,
        "seed": 5,
    }


@pytest.fixture(scope="module")
def whole(config):
    """The folder of a finished NER run. A module has its own `config`."""
    from recipes.ner import finetune_ner

    finetune_ner(config)
    return Path(config.output_dir)


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def tokenizers(checkpoints):
    from finetune.models import load_tokenizer

    return {kind: load_tokenizer(str(folder)) for kind, folder in checkpoints.items()}


@pytest.fixture(scope="session")
def tokenizer(tokenizers, kind):
    return tokenizers[kind]


@pytest.fixture(scope="session")
def xlmr_mini(shared):
    return shared / "checkpoints" / "xlmr-mini"
