"""BLEU, chrF and ROUGE of texts, from what each text adds to a sum.

Corpus BLEU (Papineni et al., 2002) and chrF (Popović, 2015) are functions of counts that are summed over the texts
(Koehn, 2004). They are equal to `corpus_bleu` and `corpus_chrf` of sacrebleu (Post, 2018) with its defaults. ROUGE
(Lin, 2004) is the mean of each text's F1, as its authors report it. All scores are fractions between 0 and 1; papers
multiply BLEU and chrF by 100.

Shapes: N texts, ... any shape of sums.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

BLEU_COUNTS = 10  # length of the text, of the reference; right n-grams of 1 to 4 words; all n-grams of 1 to 4 words
CHRF_COUNTS = 18  # n-grams of the text, of the reference, of both, for 1 to 6 characters
ROUGE = ("rouge1", "rouge2", "rougeL")
_ORDERS, _BETA = 6, 2.0  # of chrF


def bleu_counts(gold: Sequence[str], said: Sequence[str], tokenize: str = "13a") -> np.ndarray:
    """What each text adds to BLEU, int64 (N, 10).

    Args:
        gold, said: N references, and N texts.
        tokenize: how sacrebleu splits words: `13a`, `intl`, `zh`, `char` or `none`.
    """
    metric = _sacrebleu(tokenize)
    found = [metric.sentence_score(text, [right]) for right, text in zip(gold, said, strict=True)]
    rows = [(own.sys_len, own.ref_len, *own.counts, *own.totals) for own in found]
    return np.array(rows, dtype=np.int64).reshape(-1, BLEU_COUNTS)


@cache
def _sacrebleu(tokenize: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenize, effective_order=True)  # for a single text; the counts are the same without it


def bleu(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU of summed counts: (..., 10) -> (...)."""
    sums = np.asarray(sums, dtype=np.float64)
    length, reference, right, all_of = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.where(length < reference, np.exp(1.0 - reference / length), 1.0)
        # sacrebleu's smoothing: the first order without a right n-gram counts half of one, the next a quarter.
        halved = 0.5 ** np.cumsum(right == 0, axis=-1)
        precision = np.where(right > 0, right, halved) / all_of
        score = penalty * np.exp(np.log(precision).mean(-1))
    return np.where((right > 0).any(-1) & (all_of > 0).all(-1), score, 0.0)


def chrf_counts(gold: Sequence[str], said: Sequence[str]) -> np.ndarray:
    """What each text adds to chrF, int64 (N, 18)."""
    rows = [_chrf_counts(right, text) for right, text in zip(gold, said, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(-1, CHRF_COUNTS)


def _chrf_counts(right: str, text: str) -> list[int]:
    right, text = ("".join(side.split()) for side in (right, text))
    row = []
    for n in range(1, _ORDERS + 1):
        theirs, own = (Counter(side[i : i + n] for i in range(len(side) - n + 1)) for side in (right, text))
        # Without an n-gram in the reference, those of the text do not count as wrong.
        row += [own.total() if theirs else 0, theirs.total(), (own & theirs).total()]
    return row


def chrf(sums: np.ndarray) -> np.ndarray:
    """Corpus chrF of summed counts: (..., 18) -> (...)."""
    parts = np.asarray(sums, dtype=np.float64).reshape(*np.shape(sums)[:-1], _ORDERS, 3)
    own, theirs, both = parts[..., 0], parts[..., 1], parts[..., 2]
    counted = (own > 0) & (theirs > 0)
    orders = np.maximum(counted.sum(-1), 1)
    precision = np.divide(both, own, out=np.zeros_like(both), where=counted).sum(-1) / orders
    recall = np.divide(both, theirs, out=np.zeros_like(both), where=counted).sum(-1) / orders
    whole = _BETA**2 * precision + recall
    return np.divide((1 + _BETA**2) * precision * recall, whole, out=np.zeros_like(whole), where=whole > 0)


def rouge_counts(gold: Sequence[str], said: Sequence[str]) -> np.ndarray:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L of each text, with Porter's stemmer, and a 1: float64 (N, 4)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    found = [scorer.score(right, text) for right, text in zip(gold, said, strict=True)]
    rows = [(*(own[name].fmeasure for name in ROUGE), 1.0) for own in found]
    return np.array(rows, dtype=np.float64).reshape(-1, len(ROUGE) + 1)


def bleu_signature(tokenize: str = "13a") -> str:
    """sacrebleu's signature of `bleu`, which papers put beside the score."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize=tokenize)
    metric.corpus_score(["a"], [["a"]])  # it counts the references here
    return str(metric.get_signature())
