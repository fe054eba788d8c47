"""Tokenizers that are trained here: the baselines' words, and the subwords of BERT, RoBERTa and XLM-R.

Shapes: T tokens, C bytes kept of a word.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BatchEncoding,
    BertTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from finetune.models.word_bytes import word_bytes

PAD, UNK, SEP = "<pad>", "<unk>", "<sep>"

# Punctuation at the start or the end of a word is split off, as in `"Well," (she said).`. Punctuation inside a word
# (U.S, don't, http://x) or alone (..., :-) ) is not split.
_TRAILING = r"""(?<=[\p{L}\p{N}])[.,;:!?…)\]}"”’»]+$"""
_LEADING = r"""^[(\[{"“‘«¿¡]+(?=[\p{L}\p{N}])"""


class WordTokenizer(PreTrainedTokenizerFast):
    """A tokenizer of whole words. In addition to `input_ids` it gives the UTF-8 bytes of each word.

    The output has one more key, `char_ids`, for character features: uint8 (T, C), zero after the last byte and for
    tokens that are no word. A word of more than C bytes keeps its first and its last C / 2 bytes. (Bytes serve as
    characters, as in ELMo, Peters et al. 2018, so no character is unknown.)
    """

    model_input_names = ["input_ids", "attention_mask", "char_ids"]  # noqa: RUF012
    word_bytes: int = 24

    def _encode_plus(  # type: ignore[override]  # passes on what it does not need to know
        self, text: Any, text_pair: Any = None, **kwargs: Any
    ) -> BatchEncoding:
        tensor_type = kwargs.pop("return_tensors", None)
        split = kwargs.get("is_split_into_words", False)
        batched = isinstance(text[0] if split and text else text, (list, tuple))
        output = super()._encode_plus(text, text_pair, **kwargs)
        texts = list(text) if batched else [text]
        pairs = (list(text_pair) if batched else [text_pair]) if text_pair is not None else [None] * len(texts)
        encodings = output.encodings or []
        sample_of = output.get("overflow_to_sample_mapping", range(len(encodings)))
        char_ids = [
            word_bytes(encoding, (texts[i], pairs[i]), split, self.word_bytes)
            for i, encoding in zip(sample_of, encodings, strict=True)
        ]
        listed = batched or "overflow_to_sample_mapping" in output
        data = dict(output) | {"char_ids": char_ids if listed else char_ids[0]}
        if tensor_type is not None and not listed:
            data = {key: [value] for key, value in data.items()}
        return BatchEncoding(data, encodings, tensor_type=tensor_type)


def train_word_tokenizer(words: Iterable[str], *, min_frequency: int = 1, lowercase: bool = True) -> WordTokenizer:
    """A vocabulary of the words that occur at least `min_frequency` times.

    Args:
        words: the words, or whole texts, of the training split.
        lowercase: look words up in lower case; `char_ids` keep the case.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(_LEADING), "isolated"),
            pre_tokenizers.Split(Regex(_TRAILING), "isolated"),
        ]
    )
    special = [PAD, UNK, SEP]
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31, min_frequency=min_frequency, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    vocabulary = tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    tokenizer.model = models.WordLevel({word: i for i, word in enumerate(ordered)}, unk_token=UNK)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=f"$A {SEP} $B", special_tokens=[(SEP, ordered.index(SEP))]
    )
    return WordTokenizer(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNK, sep_token=SEP)


def tell_texts_apart(tokenizer: WordTokenizer) -> None:
    """Gives the words of a pair token types, 0 for the first text and 1 for the second, and nothing between them."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B:1", special_tokens=[]
    )
    names = [*tokenizer.model_input_names, "token_type_ids"]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the latter is saved


def add_words(tokenizer: WordTokenizer, words: Iterable[str]) -> None:
    """Appends words that have pretrained vectors to the words that a tokenizer was trained on."""
    known = dict.fromkeys(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))) | dict.fromkeys(words)
    model = models.WordLevel({word: i for i, word in enumerate(known)}, unk_token=UNK)
    tokenizer.backend_tokenizer.model = model


# It includes the space before it, as the word does that it replaces.
_MASK: Any = AddedToken("<mask>", lstrip=True, special=True)

# SentencePiece ignores a text that contains this character.
_UNKNOWN_TO_SENTENCEPIECE = "▅"

SUBWORDS = ("wordpiece", "byte-bpe", "unigram")


def train_tokenizer(
    kind: str, texts: Callable[[], Iterable[str]], *, vocab_size: int, lowercase: bool = True
) -> Tokenizer:
    """Trains the pieces of a tokenizer. `subword_tokenizer` makes a tokenizer of BERT, RoBERTa or XLM-R of them.

    The same texts in the same order give the same pieces under the same ids, in every process.

    Args:
        kind: `wordpiece` (BERT), `byte-bpe` (RoBERTa) or `unigram` (XLM-R).
        texts: returns the texts, for example one sentence each; it is called once for each reading.
        vocab_size: number of pieces, special tokens included. A small corpus gives fewer.
        lowercase: for `wordpiece`: lower case without accents, as in bert-base-uncased.

    Raises:
        ValueError: if there is no text, or `vocab_size` has no room for the single characters.
    """
    settings: dict[str, Any] = {"vocab_size": vocab_size, "show_progress": False}
    backend: Tokenizer
    trainer: Any
    if kind == "wordpiece":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        # The trainer numbers the characters within words in the order of a hash table, and their numbers decide
        # which of two equally frequent merges comes first. So a first training, without merges, finds the
        # characters, and the second gets them in the order of the alphabet.
        backend = _untrained_wordpiece(lowercase)
        trainer = trainers.WordPieceTrainer(special_tokens=special, **settings | {"vocab_size": 0})
        backend.train_from_iterator(texts(), trainer)
        characters = sorted(set(backend.get_vocab()) - set(special), key=lambda piece: (len(piece), piece))
        backend = _untrained_wordpiece(lowercase)
        trainer = trainers.WordPieceTrainer(special_tokens=special + characters, **settings)
    elif kind == "byte-bpe":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, **settings)
    elif kind == "unigram":
        return _train_unigram(texts(), vocab_size)
    else:
        raise ValueError(f"--tokenizer_name {kind}: the kinds that can be trained are {', '.join(SUBWORDS)}")
    backend.train_from_iterator(texts(), trainer)
    _check_size(backend.get_vocab_size(), vocab_size)
    return backend


def _untrained_wordpiece(lowercase: bool) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _train_unigram(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """XLM-R's kind of pieces, trained by SentencePiece: the trainer of `tokenizers` depends on hash tables.

    Text is taken as it is, since `subword_tokenizer` normalises none.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.replace(_UNKNOWN_TO_SENTENCEPIECE, " ").replace("\0", " ").split())
    if not counts:
        raise ValueError("--tokenizer_name unigram: no word in the texts to train it on")
    characters = {"▁"}.union(*counts)
    _check_size(len(characters) + 5, vocab_size)  # five special tokens
    with tempfile.TemporaryDirectory() as folder:
        words, trained = Path(folder, "words.tsv"), Path(folder, "trained")
        words.write_text("".join(f"{word}\t{count}\n" for word, count in counts.items()), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(words),
            input_format="tsv",
            model_prefix=str(trained),
            model_type="unigram",
            vocab_size=vocab_size - 1,  # <mask> comes last
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            split_by_unicode_script=False,
            max_sentence_length=2**30,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=1,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=f"{trained}.model")
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(len(model))]
    backend = Tokenizer(models.Unigram(pieces, unk_id=model.unk_id()))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return backend


def _check_size(needed: int, vocab_size: int) -> None:
    if needed > vocab_size:
        raise ValueError(
            f"--vocab_size {vocab_size}: the single characters of this text and the special tokens alone are "
            f"{needed:,} pieces"
        )


def subword_tokenizer(kind: str, backend: Tokenizer, *, lowercase: bool = True) -> Any:
    """BERT's, RoBERTa's or XLM-R's tokenizer with these pieces, as `AutoTokenizer` gives it back after saving."""
    model = json.loads(backend.to_str())["model"]
    if kind == "wordpiece":
        return BertTokenizer(vocab=backend.get_vocab(), do_lower_case=lowercase)
    if kind == "byte-bpe":
        merges: Any = [tuple(pair) for pair in model["merges"]]
        return RobertaTokenizer(vocab=model["vocab"], merges=merges, add_prefix_space=True, mask_token=_MASK)
    return XLMRobertaTokenizer(vocab=[*(tuple(piece) for piece in model["vocab"]), ("<mask>", 0.0)], mask_token=_MASK)
