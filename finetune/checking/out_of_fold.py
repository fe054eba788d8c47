"""What a linear model says of samples that it has not seen. It is much faster than a network.

Texts: the words, the pairs of words, and the letters within words, weighted by TF-IDF. Words: the word, its two
neighbours on each side, and of the word and its nearest neighbours also beginnings, ends and shapes.

Shapes: N texts, S sentences, W words of all sentences, L labels, F features.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_FEATURES = 2**18
_OF_WORD = 2**16  # features of each place around a word
_PLACES = (-2, -1, 0, 1, 2)


def of_texts(texts: Sequence[str], targets: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The out-of-fold probability of each label, float64 (N, L); of numbers, the predicted number (N,).

    Args:
        targets: int64 (N,), a label for each text; bool (N, L), for several labels; float64 (N,), numbers.
        fold: int64 (N,).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_union

    rows = make_union(
        TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=_FEATURES),
    ).fit_transform(texts)

    def learn(which: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The probability of label 1 for all rows, from a model that learns `wanted` of some rows."""
        if len(set(wanted[which].tolist())) < 2:
            return np.full(len(wanted), float(wanted[which][0]) if which.any() else 0.0)
        model = LogisticRegression(solver="liblinear", C=4.0).fit(rows[which], wanted[which])
        return np.asarray(model.predict_proba(rows)[:, 1])

    numbers = targets.dtype.kind == "f"
    labels = targets.shape[1] if targets.ndim == 2 else 1 if numbers else int(targets.max()) + 1
    found = np.zeros((len(texts), labels))
    for number in np.unique(fold):
        seen, unseen = fold != number, fold == number
        if numbers:
            found[unseen, 0] = Ridge(alpha=1.0).fit(rows[seen], targets[seen]).predict(rows[unseen])
            continue
        if targets.ndim == 1 and labels == 2:
            found[unseen, 1] = learn(seen, targets)[unseen]
            found[unseen, 0] = 1 - found[unseen, 1]
            continue
        for label in range(labels):
            wanted = targets[:, label] if targets.ndim == 2 else targets == label
            found[unseen, label] = learn(seen, wanted.astype(np.int64))[unseen]
    if numbers:
        return found[:, 0]
    if targets.ndim == 1:
        found = np.maximum(found, 1e-9)
        found /= found.sum(1, keepdims=True)
    return found


def of_words(words: Sequence[Sequence[str]], targets: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The out-of-fold probability of each label of each word, float64 (W, L).

    Args:
        targets: int64 (W,), the label of each word.
        fold: int64 (S,), the fold of each sentence.
    """
    from sklearn.linear_model import SGDClassifier

    rows = word_features(words)
    of_word = np.repeat(fold, [len(sentence) for sentence in words])
    labels = int(targets.max()) + 1
    found = np.full((len(targets), labels), 1e-6)
    for number in np.unique(fold):
        seen, unseen = of_word != number, of_word == number
        if not unseen.any():
            continue
        known = np.unique(targets[seen])
        if len(known) < 2:
            found[np.ix_(unseen, known)] = 1.0
            continue
        model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=6, tol=None, random_state=0, average=True)
        model.fit(rows[seen], targets[seen])
        said = model.predict_proba(rows[unseen])
        said = np.column_stack([1 - said[:, 1], said[:, 1]]) if said.shape[1] == 2 else said
        found[np.ix_(unseen, known)] = np.maximum(said, 1e-6)
    return found / found.sum(1, keepdims=True)


def word_features(words: Sequence[Sequence[str]]) -> Any:
    """Features of each word and of the words around it, a sparse matrix (W, F)."""
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction import FeatureHasher

    numbers: dict[str, int] = {"": 0}
    ids = np.array(
        [numbers.setdefault(word, len(numbers)) for sentence in words for word in sentence], dtype=np.int64
    )
    sentence = np.repeat(np.arange(len(words)), [len(row) for row in words])
    hasher = FeatureHasher(_OF_WORD, input_type="string", alternate_sign=False)
    whole = csr_array(hasher.transform(list(map(_of_word, numbers))))
    bare = csr_array(hasher.transform([[f"w={word.lower()}"] for word in numbers]))
    parts = []
    for place in _PLACES:
        at = np.arange(len(ids)) + place
        inside = (at >= 0) & (at < len(ids))
        inside[inside] &= sentence[at[inside]] == sentence[inside]
        around = np.where(inside, ids[np.clip(at, 0, max(len(ids) - 1, 0))], 0)
        parts.append((whole if abs(place) < 2 else bare)[around])
    pairs = [f"{a.lower()} {b.lower()}" for row in words for a, b in itertools.pairwise(["", *row])]
    parts.append(csr_array(hasher.transform([[pair] for pair in pairs])))
    return hstack(parts, format="csr")


def _of_word(word: str) -> list[str]:
    if not word:
        return ["outside"]
    low = word.lower()
    shape = re.sub(r"[^\W\d_]", lambda found: "X" if found[0].isupper() else "x", re.sub(r"\d", "0", word))
    short = re.sub(r"(.)\1+", r"\1", shape)
    ends = [f"s{n}={low[-n:]}" for n in (1, 2, 3, 4) if len(low) > n]
    begins = [f"p{n}={low[:n]}" for n in (1, 2, 3, 4) if len(low) > n]
    return [f"w={low}", f"W={word}", f"shape={shape[:12]}", f"short={short[:8]}", *ends, *begins]
