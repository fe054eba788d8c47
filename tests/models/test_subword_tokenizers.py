"""Trained tokenizers: the class that AutoTokenizer gives, special tokens, and text that comes back."""

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
    return {name: subword_tokenizer(name, train_tokenizer(name, sample_texts, vocab_size=600)) for name in SUBWORDS}


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
        "wordpiece", train_tokenizer("wordpiece", sample_texts, vocab_size=600, lowercase=False), lowercase=False
    )
    assert cased.tokenize("The") != cased.tokenize("the")


@pytest.mark.parametrize("name", ["wordpiece", "byte-bpe"])
def test_too_small_a_vocabulary(name, sample_texts):
    with pytest.raises(ValueError, match="--vocab_size 30: the single characters"):
        train_tokenizer(name, sample_texts, vocab_size=30)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="--tokenizer_name bytes: the kinds that can be trained are wordpiece"):
        train_tokenizer("bytes", [], vocab_size=30)
