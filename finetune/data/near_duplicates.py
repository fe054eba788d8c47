"""Finds equal and nearly equal texts among many: 100,000 sentences in seconds, on one core.

Texts are compared without regard to capital letters, to the number of spaces, and to the form of a character (Unicode
NFKC). Two different texts are nearly equal if one of these is true:

- Their sets of character 5-grams have a Jaccard similarity of at least `similarity`: the number of 5-grams in both,
  divided by the number in any of them. MinHash (Broder, 1997) and bands of it (Leskovec et al., Mining of Massive
  Datasets, chapter 3) propose pairs; each pair is then counted exactly. A pair at the threshold itself is proposed
  with a probability of at least 99 % (from a similarity of 0.04 on), a more similar pair with a higher one.
- Both have at least `SHORTEST` words, and one word is replaced, added or removed. This part is exact: each text is
  hashed without one of its words, for each of its words.

`datasketch` does the first part, too. It takes the texts one at a time in Python; here numpy takes all at once. The
tests compare the two.

Shapes: N texts, D different texts, S shingles of all texts, P permutations, W words of all texts.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHINGLE = 5  # characters
SHORTEST = 5  # words of a text that may differ in one word
PERMUTATIONS = 128
FOLLOWING = 64  # texts after a text in its bucket that it is compared with
_SURE = 0.99  # the probability that a pair at the threshold is proposed
_AT_ONCE = 2048  # shingles whose hashes are permuted at the same time, so that they stay in the cache
_ODD = 0x9E3779B97F4A7C15  # 2 ** 64 divided by the golden ratio, made odd


@dataclass(frozen=True)
class NearDuplicates:
    """Which of N texts are equal, and which are nearly equal."""

    group: np.ndarray  # int64 (N,): equal texts have the same number, from 0 to D - 1
    first: np.ndarray  # int64 (pairs,): a number of `group`
    second: np.ndarray  # int64 (pairs,): another one, greater than `first`
    similarity: np.ndarray  # float64 (pairs,): their Jaccard similarity
    one_word: np.ndarray  # bool (pairs,): whether they differ in one word
    crowded: int  # texts in buckets so large that not all pairs in them were compared


def normal_form(text: str) -> str:
    """The text as it is compared: NFKC, without capital letters, with one space between words."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def near_duplicates(texts: Sequence[str], similarity: float = 0.7, seed: int = 0) -> NearDuplicates:
    """Finds the equal and the nearly equal texts among N texts.

    Args:
        similarity: the least Jaccard similarity of two texts that are nearly equal, above 0 and at most 1.
        seed: of the hash functions.

    Raises:
        ValueError: if the similarity is not above 0 and at most 1.
    """
    if not 0 < similarity <= 1:
        raise ValueError(f"--similarity {similarity}: must be above 0 and at most 1")
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(normal_form(text), len(numbers)) for text in texts], dtype=np.int64)
    different = list(numbers)
    if len(different) < 2:
        nothing = np.zeros(0, np.int64)
        return NearDuplicates(group, nothing, nothing, np.zeros(0), np.zeros(0, bool), 0)
    shingles, offsets = _shingles(different)
    similar, crowded = _similar(shingles, offsets, similarity, seed)
    differing, more_crowded = _one_word_apart(different)
    pairs = np.unique(np.concatenate([similar, differing]))
    first, second = np.divmod(pairs, len(different))
    jaccard = _jaccard(shingles, offsets, first, second)
    one_word = np.isin(pairs, differing, assume_unique=True)
    kept = one_word | (jaccard >= similarity)
    return NearDuplicates(
        group, first[kept], second[kept], jaccard[kept], one_word[kept], len(np.union1d(crowded, more_crowded))
    )


def _mixed(values: np.ndarray) -> np.ndarray:
    """Hashes uint64 values to uint64 values: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The different 5-grams of each text, as sorted hashes: uint64 (S,) and offsets (D + 1,).

    A text of less than five characters is one shingle.
    """
    padded = [text.ljust(SHINGLE, "\0") for text in texts]
    lengths = np.array([len(text) for text in padded])
    characters = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    hashes = np.zeros(len(characters) - SHINGLE + 1, dtype=np.uint64)
    for i in range(SHINGLE):  # 21 bits a character: five of them are mixed into 64 bits
        hashes = _mixed(hashes * np.uint64(_ODD) + characters[i : len(characters) - SHINGLE + 1 + i])
    owner = np.repeat(np.arange(len(texts)), lengths)
    within = owner[: len(hashes)] == owner[SHINGLE - 1 :]
    hashes, owner = hashes[within], owner[: len(within)][within]
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    counts = np.bincount(owner[new], minlength=len(texts))
    return hashes[new], np.concatenate([[0], np.cumsum(counts)])


def minhash(shingles: np.ndarray, offsets: np.ndarray, seed: int) -> np.ndarray:
    """The MinHash signature of each text, uint32 (D, P).

    A permutation is `(a x + b) mod 2 ** 64`, of which the upper 32 bits count (Dietzfelbinger, 1996).
    """
    random = np.random.default_rng(seed)
    a = random.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    b = random.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
    signatures = np.empty((len(offsets) - 1, PERMUTATIONS), dtype=np.uint32)
    begin = 0
    while begin < len(signatures):
        end = max(int(np.searchsorted(offsets, offsets[begin] + _AT_ONCE, side="right")) - 1, begin + 1)
        own = shingles[offsets[begin] : offsets[end], None] >> np.uint64(32)
        permuted = ((own * a + b) >> np.uint64(32)).astype(np.uint32)
        signatures[begin:end] = np.minimum.reduceat(permuted, offsets[begin:end] - offsets[begin], axis=0)
        begin = end
    return signatures


def bands_and_rows(similarity: float) -> tuple[int, int]:
    """How a signature is cut: as many rows to a band as leave a pair at the threshold a chance of 99 %."""
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - similarity**rows) ** bands >= _SURE:
            return bands, rows
    return PERMUTATIONS, 1


def _similar(
    shingles: np.ndarray, offsets: np.ndarray, similarity: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that share a band of their signatures, and the texts of crowded buckets."""
    signatures = minhash(shingles, offsets, seed)
    bands, rows = bands_and_rows(similarity)
    texts = np.arange(len(signatures))
    pairs, crowded = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for band in range(bands):
        key = np.zeros(len(signatures), dtype=np.uint64)
        for row in range(band * rows, (band + 1) * rows):
            key = _mixed(key * np.uint64(_ODD) + signatures[:, row])
        found, full = _in_one_bucket(key, texts, len(signatures))
        pairs, crowded = np.union1d(pairs, found), np.union1d(crowded, full)
    return pairs, crowded


def _in_one_bucket(keys: np.ndarray, texts: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different texts with the same key, each as `first * number + second`.

    A text is compared with the `FOLLOWING` texts after it in its bucket. So the pairs of a bucket with k texts are no
    more than 64 k, and all of them if it has at most 65 texts.

    Returns:
        The pairs, sorted; and the texts of buckets in which some pairs are left out.
    """
    order = np.lexsort((texts, keys))
    keys, texts = keys[order], texts[order]
    found = []
    for distance in range(1, FOLLOWING + 1):
        same = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(same):
            break
        one, other = texts[same], texts[same + distance]
        pairs = np.minimum(one, other) * number + np.maximum(one, other)
        found.append(np.unique(pairs[one != other]))
    large = keys[FOLLOWING + 1 :] == keys[: -FOLLOWING - 1]
    crowded = texts[np.isin(keys, keys[FOLLOWING + 1 :][large])] if large.any() else np.zeros(0, np.int64)
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64), crowded


def _one_word_apart(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of texts in which one word is replaced, added or removed, and the texts of crowded buckets.

    A text of words w0 w1 ... is hashed as the sum of h(wi) m ** i. Without word i, the words after it move one place
    to the front, which is a product with the inverse of m. All numbers are modulo 2 ** 64.
    """
    numbers: dict[str, int] = {}
    words = [[numbers.setdefault(word, len(numbers)) for word in text.split()] for text in texts]
    rows = np.flatnonzero(np.array([len(row) for row in words]) >= SHORTEST)
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    lengths = np.array([len(words[row]) for row in rows])
    begins = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.fromiter(itertools.chain.from_iterable(words[row] for row in rows), np.uint64, int(begins[-1]))
    m = np.uint64(_ODD)
    inverse = np.uint64(pow(_ODD, -1, 2**64))
    powers = np.cumprod(np.full(int(lengths.max()), m), dtype=np.uint64) * inverse
    at = np.arange(len(ids)) - np.repeat(begins[:-1], lengths)
    terms = _mixed(ids + np.uint64(1)) * powers[at]
    sums = np.concatenate([[np.uint64(0)], np.cumsum(terms, dtype=np.uint64)])
    whole = sums[begins[1:]] - sums[begins[:-1]]  # (texts,)
    of_word = np.repeat(np.arange(len(rows)), lengths)
    before = sums[:-1] - sums[begins[:-1]][of_word]
    after = whole[of_word] - before - terms
    length = np.repeat(lengths, lengths).astype(np.uint64)
    hole = _mixed(length + np.uint64(2**63))  # no number of a word is so great
    replaced = _mixed(before + after + hole * powers[at])
    removed = _mixed(before + after * inverse)
    found, crowded = _in_one_bucket(replaced, rows[of_word], len(texts))
    # A text without one of its words, and a text that is the same as it stands.
    short = np.concatenate([removed, _mixed(whole)])
    owner = np.concatenate([of_word, np.arange(len(rows))])
    is_whole = np.concatenate([np.zeros(len(removed), bool), np.ones(len(rows), bool)])
    order = np.lexsort((owner, ~is_whole, short))
    short, owner, is_whole = short[order], owner[order], is_whole[order]
    # Different texts have different hashes, so a bucket has at most one whole text, which stands first.
    first = np.flatnonzero(np.concatenate([[True], short[1:] != short[:-1]]))
    of_bucket = np.repeat(first, np.diff(np.append(first, len(short))))
    joined = is_whole[of_bucket] & ~is_whole
    one, other = rows[owner[of_bucket[joined]]], rows[owner[joined]]
    added = np.minimum(one, other) * len(texts) + np.maximum(one, other)
    return np.union1d(found, added), crowded


def _jaccard(shingles: np.ndarray, offsets: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The exact Jaccard similarity of each pair of texts, float64."""
    from scipy.sparse import csr_array

    ids = np.unique(shingles, return_inverse=True)[1]
    sizes = np.diff(offsets)
    table = csr_array((np.ones(len(ids), np.int32), ids, offsets), shape=(len(sizes), int(ids.max()) + 1))
    shared = np.zeros(len(first), dtype=np.int64)
    for begin in range(0, len(first), 20_000):
        some = slice(begin, begin + 20_000)
        shared[some] = table[first[some]].multiply(table[second[some]]).sum(axis=1)
    return shared / (sizes[first] + sizes[second] - shared)
