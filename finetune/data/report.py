"""Counts what a tokenizer does to the words of a data set, before a model is trained."""

from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from finetune.data.alignment import Alignment, encode_words, flatten_words, special_tokens
from finetune.data.tags import invalid_iob2


@dataclass(frozen=True)
class AlignmentReport:
    """The counts of `alignment_report`. `str()` gives a text of a few lines."""

    sentences: int
    words: int
    subwords: int
    words_without_subword: int
    words_cut: int  # words that truncation at max_seq_length would drop
    sentences_cut: int
    max_seq_length: int
    words_unknown: int  # words with a subword that is the unknown token
    unknown_characters: dict[str, int]  # characters unknown to the vocabulary, with their occurrences
    invalid_tags: int  # I- tags that do not continue an entity of their type

    @property
    def fertility(self) -> float:
        """Subwords per word."""
        return self.subwords / max(self.words, 1)

    def __str__(self) -> str:
        shown = ", ".join(f"U+{ord(c):04X} x{n}" for c, n in list(self.unknown_characters.items())[:5])
        more = len(self.unknown_characters) - 5
        characters = f" (characters {shown}{f' and {more} more' if more > 0 else ''})" if shown else ""
        remarks = [
            f"  {count:,} {remark}"
            for count, remark in (
                (self.words_cut, f"words past {self.max_seq_length} subwords, kept in overlapping windows"),
                (
                    self.words_without_subword,
                    "words without a subword, which get the tag O or the most frequent tag, and are scored",
                ),
                (self.words_unknown, f"words that the vocabulary does not know, or knows only in part{characters}"),
                (self.invalid_tags, "I- tags that continue no entity, kept as they are"),
            )
            if count
        ]
        counts = f"{self.sentences:,} sentences, {self.words:,} words, {self.subwords:,} subwords"
        return "\n".join([f"{counts} ({self.fertility:.2f} a word)", *remarks])


def alignment_report(
    dataset: datasets.Dataset, tokenizer: Any, max_seq_length: int = 128, alignment: Alignment | None = None
) -> AlignmentReport:
    """Counts what happens to the words of `dataset` (columns `tokens` and, for the tags, `ner_tags`).

    Args:
        tokenizer: a fast tokenizer.
        max_seq_length: the number of subwords, with the special tokens, at which truncation would cut.
        alignment: the result of `align` for this data set. Without it, the words are tokenised here.
    """
    words, sentence_offsets = flatten_words(dataset)
    subwords = encode_words(tokenizer, words) if alignment is None else alignment.subwords
    counts = np.diff(subwords.starts)
    content = max_seq_length - sum(map(len, special_tokens(tokenizer)))
    sentence_starts = subwords.starts[sentence_offsets]
    begin = subwords.starts[:-1] - np.repeat(sentence_starts[:-1], np.diff(sentence_offsets))
    cut = (begin >= content) & (counts > 0)

    ids = subwords.features["input_ids"]
    unknown_tokens = ids == (-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)
    unknown_words = np.unique(np.repeat(np.arange(len(counts)), counts)[unknown_tokens])

    of_entities = "ner_tags" in dataset.column_names and "plain" not in dataset.column_names
    return AlignmentReport(
        sentences=len(sentence_offsets) - 1,
        words=len(words),
        subwords=int(counts.sum()),
        words_without_subword=int((counts == 0).sum()),
        words_cut=int(cut.sum()),
        sentences_cut=int((np.diff(sentence_starts) > content).sum()),
        max_seq_length=max_seq_length,
        words_unknown=len(unknown_words),
        unknown_characters=_unknown_characters(words.take(unknown_words).to_pylist(), tokenizer),
        invalid_tags=sum(map(invalid_iob2, dataset["ner_tags"])) if of_entities else 0,
    )


def _unknown_characters(words: list[str], tokenizer: Any) -> dict[str, int]:
    """The characters of these words that are unknown if they stand alone, the most frequent first.

    The vocabulary of a baseline has whole words, and few single characters. For it, the result is empty.
    """
    if not words or type(tokenizer.backend_tokenizer.model).__name__ == "WordLevel":
        return {}
    times: dict[str, int] = {}
    for word in words:
        for character in word:
            times[character] = times.get(character, 0) + 1
    characters = list(times)
    encoded = tokenizer([[c] for c in characters], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    unknown = [c for c, ids in zip(characters, encoded, strict=True) if tokenizer.unk_token_id in ids]
    return {c: times[c] for c in sorted(unknown, key=lambda c: (-times[c], c))}
