"""Exact match and F1 of answers, as SQuAD's evaluation script counts them (Rajpurkar et al., 2016 and 2018).

Before two answers are compared, each is put in lower case and loses its punctuation marks, the English articles `a`,
`an`, `the`, and white space beyond a single space. F1 is that of their words.

In Chinese, Japanese, Thai, Lao, Khmer and Burmese no space stands between words. Where either answer has such a
character, both are compared as MLQA's script does it for Chinese (Lewis et al., 2020): every such character is a
word, every punctuation mark of Unicode is left out, and articles stay.

A question with several answers counts the best of them. One without an answer is right if nothing is answered.
"""

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import regex

ANSWER_COUNTS = ("exact", "f1", "questions", "exact_answerable", "f1_answerable", "answerable")

_ARTICLES = regex.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ANY_PUNCTUATION = regex.compile(r"\p{P}")
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*", regex.VERSION1
)


def normalised_words(text: str, unspaced: bool = False) -> list[str]:
    """The words of an answer that are compared.

    Args:
        unspaced: count characters of scripts without spaces as words.
    """
    text = text.lower().translate(_ASCII_PUNCTUATION)
    if unspaced:  # the letter A is no article here
        return _UNSPACED.sub(lambda found: f" {found[0]} ", _ANY_PUNCTUATION.sub("", text)).split()
    return _ARTICLES.sub(" ", text).split()


def exact_and_f1(answer: str, gold: str) -> tuple[float, float]:
    """Whether two answers are the same, and the F1 of their words; of two without words, both are 1."""
    unspaced = bool(_UNSPACED.search(answer) or _UNSPACED.search(gold))
    said, right = normalised_words(answer, unspaced), normalised_words(gold, unspaced)
    if not said or not right:
        return float(said == right), float(said == right)
    common = sum((Counter(said) & Counter(right)).values())
    return float(said == right), 2 * common / (len(said) + len(right))


def answer_counts(gold: Sequence[Sequence[str]], answers: Sequence[str]) -> np.ndarray:
    """What each question adds to the scores: float64 (N, 6), in the order of `ANSWER_COUNTS`.

    Args:
        gold: the right answers of each question; none: the passage does not hold one.
        answers: one for each; the empty string: no answer.
    """
    counts = np.zeros((len(answers), len(ANSWER_COUNTS)))
    for row, right, said in zip(counts, gold, answers, strict=True):
        # SQuAD's script leaves out answers that normalise to nothing.
        choices = [text for text in right if normalised_words(text)] or [""]
        scores = [exact_and_f1(said, text) for text in choices]
        best = max(exact for exact, _ in scores), max(f1 for _, f1 in scores)
        row[:3] = *best, 1.0
        if right:
            row[3:] = *best, 1.0
    return counts


def answer_scores(sums: np.ndarray) -> dict[str, float]:
    """The scores of summed `answer_counts` (6,): `exact_match`, `f1`, and where some question has no answer also
    `exact_match_answerable`, `f1_answerable` and `accuracy_unanswerable`, each from 0 to 1.
    """
    exact, f1, questions, exact_answerable, f1_answerable, answerable = map(float, sums)
    scores = {"exact_match": exact / max(questions, 1.0), "f1": f1 / max(questions, 1.0)}
    if questions > answerable:
        scores |= {
            "exact_match_answerable": exact_answerable / max(answerable, 1.0),
            "f1_answerable": f1_answerable / max(answerable, 1.0),
            "accuracy_unanswerable": (exact - exact_answerable) / (questions - answerable),
        }
    return scores
