"""Counts the entities of a prediction in groups, to show where a model is right and where it is wrong.

`entity_spans` finds the entities.

Shapes: S sentences, K entity types.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from finetune.metrics.chunks import Span

LENGTHS = ((1, 10), (11, 20), (21, 30), (31, 50))


def entities_by(
    gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], group: Callable[[int, Span], Hashable]
) -> dict[Hashable, np.ndarray]:
    """The numbers of correct, predicted and gold entities, int64 (3,), of each group.

    Args:
        gold, predicted: the entities of S sentences.
        group: (number of the sentence, entity) -> group.
    """
    counts: dict[Hashable, np.ndarray] = {}
    for sentence, (right, said) in enumerate(zip(gold, predicted, strict=True)):
        for column, spans in enumerate((set(right) & set(said), said, right)):
            for span in spans:
                counts.setdefault(group(sentence, span), np.zeros(3, np.int64))[column] += 1
    return counts


def sentence_counts(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]) -> np.ndarray:
    """The numbers of correct, predicted and gold entities of each sentence, int64 (S, 3)."""
    return np.array(
        [(len(set(right) & set(said)), len(said), len(right)) for right, said in zip(gold, predicted, strict=True)],
        dtype=np.int64,
    ).reshape(-1, 3)


def entity_confusion(
    gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], types: Sequence[str]
) -> np.ndarray:
    """The number of entities with each gold type and each predicted type for the same words, int64 (K + 1, K + 1).

    The last column counts gold entities for which no predicted entity has exactly the same words. The last row counts
    predicted entities for which no gold entity has them.
    """
    none = len(types)
    index = {kind: k for k, kind in enumerate(types)}
    table = np.zeros((none + 1, none + 1), np.int64)
    for right, said in zip(gold, predicted, strict=True):
        theirs = {span[:2]: index[span[2]] for span in said}
        for *words, kind in right:
            table[index[kind], theirs.pop((words[0], words[1]), none)] += 1
        for kind_said in theirs.values():
            table[none, kind_said] += 1
    return table


def length_group(length: int) -> str:
    """The group of a sentence with this number of words: `1-10`, `11-20` ..."""
    return next((f"{low}-{high}" for low, high in LENGTHS if length <= high), f"over {LENGTHS[-1][1]}")


def fertility_group(subwords: int, words: int) -> str:
    """The group of an entity, by its number of subwords for each word."""
    ratio = subwords / max(words, 1)
    return "1" if ratio <= 1 else "up to 2" if ratio <= 2 else "up to 3" if ratio <= 3 else "over 3"
