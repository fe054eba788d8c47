"""The best sequence of tags that IOB2 allows (Viterbi, 1967).

IOB2 forbids an `I-X` that does not follow `B-X` or `I-X`. A head that tags each word alone says such tags now and
then, and conlleval counts them as entities of their own.

Shapes: B sentences, W words of the longest, S sentences and N words of a split, L labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IMPOSSIBLE = np.float32(-1e4)


def fitting_tags(
    tags: np.ndarray, logs: np.ndarray, offsets: np.ndarray, labels: Sequence[str], fixed: np.ndarray
) -> np.ndarray:
    """The most probable tags of each sentence among the sequences that IOB2 allows.

    Args:
        tags: int64 (N,), the most probable tag of each word.
        logs: float32 (N, L), the log-probability of each label.
        offsets: int64 (S + 1,), where the sentences begin, in words.
        fixed: bool (N,), words that keep their tag.

    Returns:
        int64 (N,). A sentence whose tags fit together keeps them, since no other sequence is more probable.
    """
    starts, follows = forbidden(labels)
    start, transitions = np.where(starts, IMPOSSIBLE, 0)[None], np.where(follows, IMPOSSIBLE, 0)
    end = np.zeros(len(labels))
    before = np.concatenate([[0], tags[:-1]])
    wrong = follows[before, tags]
    first = offsets[:-1][offsets[:-1] < offsets[1:]]
    wrong[first] = starts[tags[first]]
    found = tags.copy()
    for sentence in np.unique(np.searchsorted(offsets, np.flatnonzero(wrong), side="right") - 1):
        own = slice(offsets[sentence], offsets[sentence + 1])
        scores = logs[own].copy()
        others = np.arange(len(labels)) != tags[own, None]
        scores[fixed[own, None] & others] = IMPOSSIBLE
        real = np.ones((1, len(scores)), bool)
        found[own] = best_path(scores[None], real, start, transitions, end)[0]
    return found


def check_decoding(settings: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for a setting of a model that no run has written."""
    if (found := settings.get("decoding", "argmax")) not in ("argmax", "viterbi"):
        raise ValueError(f"{where}: decoding must be argmax or viterbi, not {found!r:.50}")


def decoding_notes(settings: Mapping[str, Any]) -> list[str]:
    """For the model card: how tags are chosen."""
    if settings.get("decoding") != "viterbi":
        return []
    return [
        "`--decoding viterbi`: a sentence gets the most probable tags that fit together, so no `I-` tag continues "
        "nothing. `finetune.predict` does the same; `pipeline()` does not, so its labels may differ."
    ]


def forbidden(labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The labels at which no sentence starts, bool (L,), and those that may not follow another one, bool (L, L)."""
    inside = np.array([label.startswith("I-") for label in labels])
    another = np.array([[before[1:] != after[1:] for after in labels] for before in labels])
    return inside, inside & another


def best_path(
    scores: np.ndarray, real: np.ndarray, start: np.ndarray, transitions: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """The sequence with the greatest sum of scores, int64 (B, W). Past the end of a sentence it has no meaning.

    Args:
        scores: (B, W, L).
        real: bool (B, W), true for the words of each sentence.
        start: (B, L), of the first label. transitions: (L, L), from one label to the next. end: (L,), of the last.
    """
    score = start + scores[:, 0]
    pointers = []
    for w in range(1, scores.shape[1]):
        moves = score[:, :, None] + transitions  # (B, L before, L)
        going = real[:, w, None]
        # Past the end of a sentence, the pointer stays where it is.
        pointers.append(np.where(going, moves.argmax(1), np.arange(scores.shape[2])))
        score = np.where(going, moves.max(1) + scores[:, w], score)
    path = [(score + end).argmax(1)]
    for pointer in reversed(pointers):
        path.append(np.take_along_axis(pointer, path[-1][:, None], axis=1)[:, 0])
    return np.stack(path[::-1], axis=1)
