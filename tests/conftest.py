"""Tiny tokenizers and checkpoints of the three kinds, and the real data where it is present."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaTokenizer,
)

from finetune import data
from finetune.arguments import DataArguments

torch.set_num_threads(2)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
KINDS = ("wordpiece", "byte-bpe", "unigram")


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


def _wordpiece(texts):
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    return BertTokenizer(vocab=backend.get_vocab())


def _byte_bpe(texts):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    import json

    model = json.loads(backend.to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


def _unigram(texts):
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(texts, trainer)
    import json

    pieces = [tuple(piece) for piece in json.loads(backend.to_str())["model"]["vocab"]]
    return XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)])


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, sample_texts):
    """Folders of a tiny BERT, RoBERTa and XLM-R with trained tokenizers, by tokenizer kind."""
    makers = {
        "wordpiece": (_wordpiece, BertConfig, BertForMaskedLM, 64),
        "byte-bpe": (_byte_bpe, RobertaConfig, RobertaForMaskedLM, 66),
        "unigram": (_unigram, XLMRobertaConfig, XLMRobertaForMaskedLM, 66),
    }
    folders = {}
    for kind, (make, config_class, model_class, positions) in makers.items():
        tokenizer = make(sample_texts)
        torch.manual_seed(0)
        config = config_class(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=positions,
            type_vocab_size=2 if kind == "wordpiece" else 1,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        folder = tmp_path_factory.mktemp(kind)
        model_class(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[kind] = folder
    return folders


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
