"""Builds a BERT, RoBERTa or XLM-R with random weights, and a tokenizer that is trained on the words of a data set.

    python benchmarks/random_checkpoint.py --kind byte-bpe --data data/wnut17/train.conll --output_dir runs/roberta
    python benchmarks/random_checkpoint.py --like sentence-transformers/all-MiniLM-L6-v2 --output_dir runs/random

The result is an ordinary checkpoint folder: `recipes/ner.py --model_name_or_path runs/roberta`. With `--like` it has
the shape and the tokenizer of another checkpoint, and random weights; so one sees what pretraining gave that one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from finetune.models import subword_tokenizer, train_tokenizer
from finetune.models.pretrained import resolve

KINDS: dict[str, tuple[Any, Any]] = {
    "wordpiece": (BertConfig, BertForMaskedLM),
    "byte-bpe": (RobertaConfig, RobertaForMaskedLM),
    "unigram": (XLMRobertaConfig, XLMRobertaForMaskedLM),
}


def build(
    kind: str, texts: Sequence[str], folder: Path, *, vocab_size: int, hidden_size: int, layers: int, positions: int
) -> None:
    """Trains the tokenizer on `texts` and saves it with a random model for inputs of up to `positions` tokens."""
    config_class, model_class = KINDS[kind]
    tokenizer = subword_tokenizer(kind, train_tokenizer(kind, lambda: texts, vocab_size=vocab_size))
    bert = kind == "wordpiece"
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden_size // 64, 2),
        intermediate_size=4 * hidden_size,
        # RoBERTa and XLM-R count positions from the padding id + 1.
        max_position_embeddings=positions + (0 if bert else tokenizer.pad_token_id + 1),
        type_vocab_size=2 if bert else 1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_like(checkpoint: str, folder: Path) -> None:
    """Saves the shape and the tokenizer of a checkpoint, with random weights."""
    path = resolve(checkpoint)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(path)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)


def main() -> None:
    from finetune.data import read_conll

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--like", metavar="CHECKPOINT")
    parser.add_argument("--data", type=Path, help="a column file")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.like:
        build_like(arguments.like, arguments.output_dir)
        print(f"{arguments.output_dir}: the shape of {arguments.like}, with random weights")
        return
    if not (arguments.kind and arguments.data):
        parser.error("give --kind and --data, or --like")
    texts = [" ".join(words) for words in read_conll(arguments.data).words]
    build(
        arguments.kind,
        texts,
        arguments.output_dir,
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        layers=arguments.layers,
        positions=512,
    )
    print(f"{arguments.output_dir}: a random {arguments.kind} model")


if __name__ == "__main__":
    main()
