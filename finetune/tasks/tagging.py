"""One tag a word: named entities, parts of speech.

Shapes: S sentences, W words of all sentences, T tokens of a batch, L labels, K entity types.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import data, metrics, models
from finetune.tasks import entity_errors, label_errors

if TYPE_CHECKING:
    from torch import Tensor

METRICS = ("f1", "precision", "recall", "f1_strict", "accuracy", "f1_macro", "loss")
SHOWN = ("f1", "precision", "recall", "f1_macro", "words", "words_scored")
PIPELINE = "token-classification"
USE = (
    'tagger = pipeline("token-classification", model=FOLDER, aggregation_strategy="simple")\n'
    'tagger("Grace Hopper was born in New York.")'
)

# White space, zero-width spaces, marks for the direction of writing, and the byte-order mark.
_INVISIBLE = r"[\s\u200b\u2060\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
_WITHIN = re.compile(rf"{_INVISIBLE}(.*?){_INVISIBLE}", re.DOTALL)


@dataclass(frozen=True)
class Gold:
    """The correct tags of a split."""

    tags: np.ndarray  # int64 (W,)
    offsets: np.ndarray  # int64 (S + 1,), in words


@dataclass(frozen=True)
class Windows:
    """The rows of a split, and a report on how the tokenizer split its words."""

    alignment: data.Alignment
    report: data.AlignmentReport

    @property
    def rows(self) -> data.Rows:
        """The inputs of the model."""
        return self.alignment.rows

    def __str__(self) -> str:
        return str(self.report)


@dataclass(frozen=True)
class Said:
    """The tags that a model gave to the words of a split."""

    tags: np.ndarray  # int64 (W,)
    scores: np.ndarray  # float32 (W,): the probability of each; 0 if the tokenizer makes no subword of the word
    words_scored: int


def read(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The splits that a config names, as `finetune.data.read_tagged` gives them."""
    return data.read_tagged(
        config,
        config.text_column_name,
        config.label_column_name,
        tagging=config.tagging,
        file_format=config.file_format,
        comment_lines=config.comment_lines,
        encoding=config.encoding,
        delimiter=config.delimiter,
        nested=config.nested,
        span_offsets=config.span_offsets,
        given=given,
    )


def labels(splits: Mapping[str, Any]) -> list[str]:
    """The labels of the training split. Raises ValueError if another split has other labels.

    Label 0 is for words of which the tokenizer makes no subword, and for words that a dictionary does not know. It is
    `O`, or the most frequent tag if plain tags have no `O`.
    """
    if data.is_plain(splits["train"]):
        numbers = label_numbers(splits["train"])
        found = data.plain_labels(splits["train"])
        first = "O" if "O" in numbers else max(found, key=lambda label: numbers[label])
        found.sort(key=lambda label: label != first)
    else:
        found = data.entity_labels(splits["train"])
    data.check_labels(splits, found, "ner_tags")
    return found


def headline(dataset: Any) -> str:
    """The score that models are compared by."""
    return "accuracy" if data.is_plain(dataset) else "f1"


def settings(splits: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What is saved with the weights: whether the tags are plain."""
    return {"plain_tags": True} if data.is_plain(splits["train"]) else {}


def told(dataset: Any) -> str:
    """The labels of a split and how often each occurs."""
    return data.label_counts(dataset, "ner_tags")


def words(train: Any) -> Iterable[str]:
    """All words of the training split, for the vocabulary of a baseline."""
    return (word for sentence in train["tokens"] for word in sentence)


def encode(dataset: Any, tokenizer: Any, labels: Sequence[str], config: Any) -> Windows:
    """Words to subwords: windows without padding."""
    alignment = data.align(
        dataset,
        tokenizer,
        labels,
        max_seq_length=config.max_seq_length,
        doc_stride=config.doc_stride,
        label_all_tokens=config.label_all_tokens,
    )
    return Windows(alignment, data.alignment_report(dataset, tokenizer, config.max_seq_length, alignment))


def targets(inputs: Mapping[str, Tensor], weights: Sequence[float] | None = None) -> dict[str, float]:
    """The number of labelled tokens in a batch. With weights of labels, the sum of their weights."""
    return {"loss": models.target_weight(inputs["labels"], class_weights=weights)}


def gold(dataset: Any, labels: Sequence[str]) -> Gold:
    """The tags of a split."""
    return Gold(*data.tag_ids(dataset, labels))


def collect(output: Any, batch: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The label of each real token, int64, and its probability."""
    logits = batch.without_padding(output.logits.float())  # (real tokens, L)
    return {"labels": logits.argmax(-1), "scores": logits.softmax(-1).amax(-1)}


def decode(encoded: Windows, found: Mapping[str, np.ndarray]) -> Said:
    """Labels of tokens -> one label for each word, from the window that shows the word with the most context."""
    return _of_words(encoded.alignment, found)


def _of_words(alignment: data.Alignment, found: Mapping[str, np.ndarray], outside: int = 0) -> Said:
    """As `decode`. `outside` is the label of words of which the tokenizer makes no subword."""
    labels, scores = found.get("labels", np.zeros(0, np.int64)), found.get("scores", np.zeros(0, np.float32))
    chosen, scored = alignment.to_words(labels, outside)
    return Said(chosen, alignment.to_words(scores)[0], scored)


def counts(gold: Gold, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> np.ndarray:
    """What each sentence adds to the scores: (S, 3 K + 5) for entities, (S, 3 L + 2) for plain tags."""
    if settings.get("plain_tags"):
        return metrics.tag_counts(gold.tags, said.tags, gold.offsets, len(labels))
    return metrics.entity_table(gold.tags, said.tags, gold.offsets, labels)


def score(sums: np.ndarray, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The scores of summed counts."""
    if settings.get("plain_tags"):
        return metrics.tag_scores(sums, labels)
    return metrics.entity_scores_of(sums, labels)


def remarks(gold: Gold, said: Said) -> dict[str, float]:
    """`words` and `words_scored`, which must be equal."""
    return {"words": len(gold.tags), "words_scored": said.words_scored}


def write(
    file: Callable[[str], Path],
    name: str,
    dataset: Any,
    said: Said,
    labels: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Writes `predictions_<name>.conll`. Its columns are the word, the correct tag and the model's tag."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in dataset["tokens"]])])
    predicted = ([labels[tag] for tag in said.tags[a:b]] for a, b in itertools.pairwise(offsets))
    data.write_conll(file(f"predictions_{name}.conll"), dataset["tokens"], dataset["ner_tags"], predicted)


def reread(folder: Path, name: str) -> tuple[list[list[str]], list[Any], list[Any], list[float]]:
    """Words, correct tags and predicted tags of each sentence, from `predictions_<name>.conll`; no scores."""
    path = folder / f"predictions_{name}.conll"
    right, said = (data.read_conll(path, tag_column=column, written_here=True, any_tag=True) for column in (1, 2))
    return right.words, right.tags, said.tags, []


def inputs(dataset: Any) -> tuple[list[list[str]], list[Any]]:
    """Words and tags of each sentence that has words: `reread` finds only these in a column file."""
    words, tags = ([row for row in dataset[column] if row] for column in ("tokens", "ner_tags"))
    return words, tags


def label_numbers(dataset: Any) -> dict[str, int]:
    """The number of entities of each type, or of words with each plain tag."""
    if data.is_plain(dataset):
        return dict(sorted(Counter(tag for tags in dataset["ner_tags"] for tag in tags).items()))
    found = Counter(span[2] for tags in dataset["ner_tags"] for span in metrics.entity_spans(tags))
    return dict(sorted(found.items()))


def compared(runs: Any, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Compares models by the predictions of their runs: counts for the scores, breakdowns, confusions and errors."""
    if data.is_plain(splits["train"]):
        return label_errors.compared_tags(runs, labels(splits))
    return entity_errors.compared(runs, splits)


def check(sample: Any, predictor: Any) -> None:
    """Raises ValueError with one sentence for a sample that this model cannot label."""
    words = sample if isinstance(sample, list) else []
    if not isinstance(sample, (str, list)) or not all(isinstance(word, str) for word in words):
        raise ValueError("this model labels words: give a text or a list of words")
    for word in words:
        if not word or any(mark in word for mark in "\t\n\r"):
            raise ValueError(f"the word {word!r} is empty or breaks a line")


def answer(samples: Sequence[Any], predictor: Any) -> list[dict[str, Any]]:
    """An answer for each sample. `finetune.prediction` explains the keys."""
    spans = [data.split_words(sample) if isinstance(sample, str) else None for sample in samples]
    sentences = [
        sample if places is None else [sample[begin:end] for begin, end in places]
        for sample, places in zip(samples, spans, strict=True)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(words) for words in sentences], dtype=np.int64)])
    alignment = data.align_words(
        [word for words in sentences for word in words],
        offsets,
        predictor.tokenizer,
        max_seq_length=predictor.max_seq_length,
        doc_stride=predictor.doc_stride,
    )
    outside = predictor.labels.index("O") if "O" in predictor.labels else 0
    said = _of_words(alignment, predictor.collect(alignment.rows), outside)
    scores = said.scores.astype(np.float64).round(6).tolist()
    names, tags = (
        [kinds[i] for i in said.tags] for kinds in (predictor.labels, data.tags_of_labels(predictor.labels))
    )
    return [
        {
            "tokens": words,
            "predicted": names[begin:end],
            "scores": scores[begin:end],
            "entities": decode_entities(words, tags[begin:end], scores[begin:end], sample, places),
        }
        for sample, words, places, begin, end in zip(
            samples, sentences, spans, offsets[:-1], offsets[1:], strict=True
        )
    ]


def decode_entities(
    words: Sequence[str],
    tags: Sequence[str],
    scores: Sequence[float],
    text: Any = None,
    places: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """The entities of one sentence. `Predictor` explains their keys.

    Args:
        tags: a tag for each word, in any scheme.
        scores: a score for each word.
        text, places: the text, and where each word begins and ends in it; no places if words were given.
    """
    found = []
    # Tags of every scheme keep their entities in IOB2. `to_iob2` accepts all prefixes for IOBES.
    for begin, end, kind in metrics.entity_spans(data.to_iob2(tags, "IOBES")):
        entity: dict[str, Any]
        if places is None:
            joined = " ".join(words[begin:end])
            entity = {"text": joined[slice(*_visible(joined))], "label": kind}
        else:
            first = places[begin][0]
            start, stop = (first + at for at in _visible(text[first : places[end - 1][1]]))
            entity = {"text": text[start:stop], "label": kind, "start": start, "end": stop}
        found.append(entity | {"words": [begin, end], "score": min(scores[begin:end])})
    return found


def _visible(text: str) -> tuple[int, int]:
    """Where a text begins and ends without the invisible characters at its ends.

    If all characters are invisible, the text stays as it is.
    """
    found = _WITHIN.fullmatch(text)
    assert found is not None
    return found.span(1) if found[1] else (0, len(text))
