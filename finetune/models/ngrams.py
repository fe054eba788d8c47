"""An n-gram language model, to compare networks with: interpolated modified Kneser-Ney smoothing.

Chen and Goodman (1998), "An Empirical Study of Smoothing Techniques for Language Modeling", sections 4.1.6 and 7.1.

Shapes: T tokens of all documents, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length."""

    contexts: np.ndarray  # int64, sorted: keys of the contexts, `shorter context * (V + 1) + the token before it`
    ngrams: np.ndarray  # int64, sorted: keys of the n-grams, `context * (V + 1) + token`
    discounted: np.ndarray  # float64, of each n-gram: its count without the discount, as a share of its context's
    rest: np.ndarray  # float64, of each context: the share that the discounts have freed


class KneserNey:
    """Probabilities of tokens after the `order - 1` tokens before them.

    A document begins with a mark that only contexts have. The shortest n-grams are interpolated with a uniform
    distribution over the vocabulary, so every token has a probability.

    Args:
        documents: the tokens of each document, ids below `vocabulary`.
        order: the length of the longest n-grams; 1 for unigrams.
    """

    def __init__(self, documents: Sequence[np.ndarray], order: int, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.orders: list[_Order] = []
        history, token = self._histories(documents, order - 1)  # (order - 1, T), (T,)
        base = vocabulary + 1
        context = np.zeros(len(token), np.int64)
        found = []  # for each length: the contexts' keys, the n-grams' keys, where each first is, its raw counts
        for length in range(order):
            contexts = np.zeros(1, np.int64)
            if length:
                contexts, context = np.unique(context * base + history[length - 1], return_inverse=True)
            ngrams, first, ngram, raw = np.unique(
                context * base + token, return_index=True, return_inverse=True, return_counts=True
            )
            found.append((contexts, ngrams, first, ngram, raw))
        for length, (contexts, ngrams, _, ngram, raw) in enumerate(found):
            counts = raw
            if length + 1 < order:  # how many different tokens stand before it
                counts = np.bincount(ngram[found[length + 1][2]], minlength=len(ngrams))
            self.orders.append(_smoothed(contexts, ngrams, counts, base))

    def log_probabilities(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """Of each token of each document, end to end, float64 (T,)."""
        history, token = self._histories(documents, len(self.orders) - 1)
        base = self.vocabulary + 1
        context = np.zeros(len(token), np.int64)
        probability = np.full(len(token), 1.0 / self.vocabulary)
        for length, order in enumerate(self.orders):
            if length:
                context = _find(order.contexts, np.where(context < 0, -1, context * base + history[length - 1]))
            known = context >= 0
            ngram = _find(order.ngrams, np.where(known, context * base + token, -1))
            seen = np.where(ngram >= 0, order.discounted[ngram], 0.0)
            probability = np.where(known, seen + order.rest[context] * probability, probability)
        return np.log(probability)

    def _histories(self, documents: Sequence[np.ndarray], longest: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens before each token, the nearest first, and the tokens. Before a document are its marks."""
        mark = np.full(longest, self.vocabulary, dtype=np.int64)
        padded = np.concatenate([part for document in documents for part in (mark, document)]).astype(np.int64)
        real = np.ones(len(padded), dtype=bool)
        ends = np.cumsum([longest + len(document) for document in documents])
        for document, end in zip(documents, ends.tolist(), strict=True):
            real[end - len(document) - longest : end - len(document)] = False
        at = np.flatnonzero(real)
        return np.stack([padded[at - back] for back in range(1, longest + 1)] or [at[:0]]), padded[at]


def _smoothed(contexts: np.ndarray, ngrams: np.ndarray, counts: np.ndarray, base: int) -> _Order:
    """Discounts the counts of n-grams that occur once, twice, and more often."""
    times = np.bincount(np.minimum(counts, 5), minlength=5)[:5].astype(np.float64)
    share = times[1] / (times[1] + 2 * times[2]) if times[1] else 0.5
    discounts = np.zeros(4)
    for n in (1, 2, 3):
        wanted = n - (n + 1) * share * times[n + 1] / times[n] if times[n] else share
        discounts[n] = wanted if 0 < wanted < n else share  # a small corpus may give a number out of range
    off = discounts[np.minimum(counts, 3)]
    context = ngrams // base
    whole = np.bincount(context, weights=counts, minlength=len(contexts))
    freed = np.bincount(context, weights=off, minlength=len(contexts))
    return _Order(contexts, ngrams, (counts - off) / whole[context], freed / whole)


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted key among the sorted keys, or -1."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)
