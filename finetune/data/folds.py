"""Divides samples into folds, for cross-validation and for labels by a model that has not seen them.

Which fold a sample is in depends on the samples alone: not on `--seed`, and not on their order.
"""

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np

from finetune.data.near_duplicates import NearDuplicates, near_duplicates, normal_form


def fold_of(
    texts: Sequence[str],
    number: int,
    documents: Sequence[Hashable] | None = None,
    found: NearDuplicates | None = None,
) -> np.ndarray:
    """The fold of each sample, int64 (N,), from 0 to `number - 1`; the folds have about as many samples each.

    The sentences of a document are in one fold. Without documents, texts that are equal or nearly equal are in one
    fold. So no fold has a copy of what another one has.

    Args:
        texts: the text of each sample.
        documents: the document of each sample. One document for all samples counts as none.
        found: the result of `near_duplicates(texts)`, if it is there already.

    Raises:
        ValueError: if the number is below 2, or if there are fewer groups of samples than folds.
    """
    if number < 2:
        raise ValueError(f"--folds {number}: must be at least 2")
    if documents is not None and len(set(documents)) > 1:
        numbers: dict[Hashable, int] = {}
        group = np.array([numbers.setdefault(document, len(numbers)) for document in documents], dtype=np.int64)
        what = "documents"
    else:
        group = joined(near_duplicates(texts) if found is None else found)
        what = "groups of texts that are not nearly equal"
    members: dict[int, list[int]] = {}
    for row, own in enumerate(group.tolist()):
        members.setdefault(own, []).append(row)
    if len(members) < number:
        raise ValueError(f"--folds {number}: the data has only {len(members)} {what}; give fewer folds")
    folds = np.zeros(len(texts), dtype=np.int64)
    sizes = [0] * number
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), _hash(texts, rows))):
        smallest = sizes.index(min(sizes))
        folds[rows] = smallest
        sizes[smallest] += len(rows)
    return folds


def joined(found: NearDuplicates) -> np.ndarray:
    """The group of each text, int64 (N,): texts that are joined by a chain of equal or nearly equal ones."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = int(found.group.max(initial=-1)) + 1
    pairs = coo_array((np.ones(len(found.first)), (found.first, found.second)), shape=(number, number))
    of_group = connected_components(pairs, directed=False)[1]
    groups: np.ndarray = of_group[found.group].astype(np.int64)
    return groups


def _hash(texts: Sequence[str], rows: Sequence[int]) -> bytes:
    return hashlib.sha256("\n".join(sorted(normal_form(texts[row]) for row in rows)).encode()).digest()
