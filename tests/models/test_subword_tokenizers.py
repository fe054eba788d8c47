"""Trained tokenizers: the class that AutoTokenizer gives, special tokens, and text that comes back."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, BertTokenizer, RobertaTokenizer, XLMRobertaTokenizer

from finetune.models import SUBWORDS, subword_tokenizer, train_tokenizer

CLASSES = {"wordpiece": BertTokenizer, "byte-bpe": RobertaTokenizer, "unigram": XLMRobertaTokenizer}
PAIR = {
    "wordpiece": ["[CLS]", "A", "[SEP]", "B", "[SEP]"],
    "byte-bpe": ["<s>", "A", "</s>", "</s>", "B", "</s>"],
    "unigram": ["<s>", "A", "</s>", "</s>", "B", "</s>"],
}


@pytest.fixture(scope="module")
def trained(sample_texts):
    return {
        name: subword_tokenizer(name, train_tokenizer(name, lambda: sample_texts, vocab_size=600))
        for name in SUBWORDS
    }


@pytest.mark.parametrize("name", SUBWORDS)
def test_saved_and_loaded(name, trained, tmp_path, sample_texts):
    tokenizer = trained[name]
    tokenizer.save_pretrained(tmp_path)
    BertConfig().save_pretrained(tmp_path)  # the tokenizer's class is its own, whatever the model
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is CLASSES[name]
    assert len(again) == len(tokenizer) <= 600
    for text in sample_texts[:50]:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.unk_token_id not in again(text)["input_ids"]
    ids = again("one", "two")["input_ids"]
    mask = again("one", "two", return_special_tokens_mask=True)["special_tokens_mask"]
    special = [again.convert_ids_to_tokens(i) for i, s in zip(ids, mask, strict=True) if s]
    assert special == [token for token in PAIR[name] if token not in "AB"]
    assert again.mask_token_id == again.convert_tokens_to_ids(again.mask_token)
    # A mask stands for a word with the space before it, so none is left over.
    one, both, masked = (
        again(text, add_special_tokens=False)["input_ids"] for text in ("a", "a b", f"a {again.mask_token} b")
    )
    assert masked == [*one, again.mask_token_id, *both[len(one) :]]


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_byte_level_bpe_gives_any_text_back(trained, text):
    tokenizer = trained["byte-bpe"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if all(token not in text for token in tokenizer.all_special_tokens):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).removeprefix(" ") == text.removeprefix(" ")


def test_lower_case_can_be_kept(sample_texts):
    cased = subword_tokenizer(
        "wordpiece",
        train_tokenizer("wordpiece", lambda: sample_texts, vocab_size=600, lowercase=False),
        lowercase=False,
    )
    assert cased.tokenize("The") != cased.tokenize("the")


_TRAINED_ELSEWHERE = """
import json, sys
from pathlib import Path
from finetune.models import SUBWORDS, subword_tokenizer, train_tokenizer
texts = json.loads(Path(sys.argv[1]).read_text())
for name in SUBWORDS:
    trained = train_tokenizer(name, lambda: texts, vocab_size=600)
    subword_tokenizer(name, trained).save_pretrained(f"{sys.argv[2]}/{name}")
"""


def test_every_process_trains_the_same_pieces(tmp_path, sample_texts):
    (tmp_path / "texts.json").write_text(json.dumps(sample_texts))
    for run in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": run, "RAYON_NUM_THREADS": run, "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, "-c", _TRAINED_ELSEWHERE, str(tmp_path / "texts.json"), str(tmp_path / run)]
        subprocess.run(command, env=environment, check=True)
    for name in SUBWORDS:
        one, two = ((tmp_path / run / name / "tokenizer.json").read_bytes() for run in ("1", "2"))
        assert one == two, name


@pytest.mark.parametrize("name", SUBWORDS)
def test_every_character_of_the_text_has_a_piece(name):
    # Such as Unicode would write otherwise, and a character that SentencePiece keeps for itself in the same line.
    texts = ["½ ﬁ … ２\u00a0x e\u0301", "a ▅ stands beside rare \u4e2d", "x\ty ▁ z", "</s> <mask> [SEP]"]
    tokenizer = subword_tokenizer(name, train_tokenizer(name, lambda: texts, vocab_size=400))
    for text in (texts[0], texts[1].replace("▅", ""), texts[2]):
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], text


@pytest.mark.parametrize("name", SUBWORDS)
def test_too_small_a_vocabulary(name, sample_texts):
    with pytest.raises(ValueError, match="--vocab_size 30: the single characters"):
        train_tokenizer(name, lambda: sample_texts, vocab_size=30)


def test_no_text():
    with pytest.raises(ValueError, match="--tokenizer_name unigram: no word in the texts"):
        train_tokenizer("unigram", lambda: ["  "], vocab_size=30)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="--tokenizer_name bytes: the kinds that can be trained are wordpiece"):
        train_tokenizer("bytes", list, vocab_size=30)
