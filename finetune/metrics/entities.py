"""Precision, recall and F1 of entities, as conlleval counts them and in strict IOB2.

For conlleval (the script of the CoNLL-2000 shared task), `B-X I-X ...` and `I-X I-X ...` are entities: an `I-X` that
continues nothing starts one. In strict IOB2, only entities that start with `B-` count. An entity is correct if its
first word, its last word and its type are correct.

Shapes: S sentences, W words of all sentences, K entity types.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np

_IOB2 = re.compile(r"O|[BI]-.+", re.DOTALL)


@dataclass(frozen=True)
class EntityCounts:
    """Numbers of entities by sentence and type, int64 (S, K) each. Scores are computed from their sums."""

    types: list[str]
    correct: np.ndarray
    predicted: np.ndarray
    gold: np.ndarray


def entity_counts(
    gold: np.ndarray,
    predicted: np.ndarray,
    sentence_offsets: np.ndarray,
    labels: Sequence[str],
    *,
    strict: bool = False,
) -> EntityCounts:
    """Counts the gold entities, the predicted entities, and the correctly predicted entities.

    Args:
        gold, predicted: int64 (W,), indices into `labels`.
        sentence_offsets: int64 (S + 1,). Sentence s has the words [offsets[s]:offsets[s + 1]].
        labels: IOB2 tags.
        strict: count only entities that start with `B-`.
    """
    types = _types(labels)
    S, K = len(sentence_offsets) - 1, len(types)
    sentence = np.repeat(np.arange(S), np.diff(sentence_offsets))
    first_word = np.zeros(len(gold) + 1, dtype=bool)
    first_word[sentence_offsets] = True

    def spans(tags: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each word: whether an entity starts with it, the type of the entity, and the word after its end."""
        inside_by_label = np.array([label.startswith("I-") for label in labels])
        type_by_label = np.array([-1 if label == "O" else types.index(label[2:]) for label in labels])
        inside, kind = inside_by_label[tags], type_by_label[tags]
        before = np.concatenate([[-1], kind[:-1]])
        continues = inside & (before == kind) & ~first_word[:-1]
        starts = (kind >= 0) & ~continues
        # An entity that starts at word w ends before the first word after w that does not continue it.
        breaks = np.flatnonzero(np.concatenate([~continues, [True]]))
        end = breaks[np.searchsorted(breaks, np.arange(len(tags)), side="right")] if len(tags) else kind
        return (starts & ~inside) if strict else starts, kind, end

    gold_starts, gold_kind, gold_end = spans(gold)
    predicted_starts, predicted_kind, predicted_end = spans(predicted)
    right = gold_starts & predicted_starts & (gold_kind == predicted_kind) & (gold_end == predicted_end)

    def table(at: np.ndarray, kind: np.ndarray) -> np.ndarray:
        return np.bincount(sentence[at] * K + kind[at], minlength=S * K).reshape(S, K)

    return EntityCounts(
        types, table(right, gold_kind), table(predicted_starts, predicted_kind), table(gold_starts, gold_kind)
    )


def entity_scores(
    gold: np.ndarray, predicted: np.ndarray, sentence_offsets: np.ndarray, labels: Sequence[str]
) -> dict[str, float]:
    """The scores `f1`, `precision`, `recall` (of conlleval, over all entities), `f1_strict`, `accuracy`, `f1_<TYPE>`.

    `accuracy` is that of the words. A score is 0 if its divisor is 0. The score of a type named `strict` is
    `f1_strict_`, because `f1_strict` is the score of all types.

    Args: as `entity_counts`.
    """
    return entity_scores_of(entity_table(gold, predicted, sentence_offsets, labels).sum(0), labels)


def entity_table(
    gold: np.ndarray, predicted: np.ndarray, sentence_offsets: np.ndarray, labels: Sequence[str]
) -> np.ndarray:
    """What each sentence adds to the scores, int64 (S, 3 K + 5).

    The columns are: K for correct, K for predicted and K for gold entities; the same three over all types in strict
    IOB2; the words with the correct tag; all words.

    Args: as `entity_counts`.
    """
    loose, strict = (entity_counts(gold, predicted, sentence_offsets, labels, strict=own) for own in (False, True))
    lengths = np.diff(sentence_offsets)
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    right = np.bincount(sentence[gold == predicted], minlength=len(lengths))
    of_strict = [table.sum(1) for table in (strict.correct, strict.predicted, strict.gold)]
    return np.column_stack([loose.correct, loose.predicted, loose.gold, *of_strict, right, lengths])


def entity_scores_of(sums: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """The scores of a summed `entity_table`. `entity_scores` explains them."""
    types = _types(labels)
    K = len(types)
    correct, predicted, gold = (sums[i * K : (i + 1) * K] for i in range(3))
    precision, recall, f1 = _scores(correct.sum(), predicted.sum(), gold.sum())
    right, words = sums[-2:]
    scores = {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "f1_strict": _scores(*sums[3 * K : 3 * K + 3])[2],
        "accuracy": float(right / words) if words else 0.0,
    }
    for k, kind in enumerate(types):
        key = f"f1_{kind}"
        while key in scores:
            key += "_"
        scores[key] = _scores(correct[k], predicted[k], gold[k])[2]
    return scores


def _types(labels: Sequence[str]) -> list[str]:
    return sorted({label[2:] for label in labels if label != "O"})


class EntityF1(evaluate.Metric):
    """`entity_scores` as an `evaluate.Metric` that needs no network.

    >>> EntityF1().compute(predictions=[["B-PER", "O"]], references=[["B-PER", "B-LOC"]])["recall"]
    0.5
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of entities, as conlleval counts them and in strict IOB2.",
            citation="Tjong Kim Sang and Buchholz (2000), Introduction to the CoNLL-2000 shared task: chunking.",
            inputs_description="predictions, references: the IOB2 tags of each sentence.",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]], **_: Any) -> dict[str, float]:
        for number, (predicted, gold) in enumerate(zip(predictions, references, strict=True)):
            if len(predicted) != len(gold):
                raise ValueError(
                    f"sentence {number}: there are {len(predicted)} predicted tags for {len(gold)} words"
                )
            for tag in (*gold, *predicted):
                if not _IOB2.fullmatch(tag):
                    raise ValueError(
                        f"sentence {number}: {tag!r} is not an IOB2 tag (O, B-TYPE or I-TYPE); finetune.data.to_iob2 "
                        "rewrites other schemes"
                    )
        kinds = {tag[2:] for sentence in (*predictions, *references) for tag in sentence if tag != "O"}
        labels = ["O", *(f"{prefix}-{kind}" for kind in sorted(kinds) for prefix in "BI")]
        index = {label: i for i, label in enumerate(labels)}
        offsets = np.concatenate([[0], np.cumsum([len(sentence) for sentence in references], dtype=np.int64)])
        gold_ids, predicted_ids = (
            np.array([index[tag] for sentence in side for tag in sentence], dtype=np.int64)
            for side in (references, predictions)
        )
        return entity_scores(gold_ids, predicted_ids, offsets, labels)


def _scores(correct: int, predicted: int, gold: int) -> tuple[float, float, float]:
    precision = float(correct / predicted) if predicted else 0.0
    recall = float(correct / gold) if gold else 0.0
    return precision, recall, float(2 * correct / (predicted + gold)) if predicted + gold else 0.0
