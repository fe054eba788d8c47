"""One tag a word: named entities, parts of speech.

Shapes: S sentences, W words of all sentences, T tokens of a batch, L labels, K entity types.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import data, metrics, models
from finetune.tasks import entity_errors, label_errors, surety
from finetune.tasks.words_of_texts import decode_entities, divided, leave_out

if TYPE_CHECKING:
    from torch import Tensor

METRICS = ("f1", "precision", "recall", "f1_strict", "accuracy", "f1_macro", "loss")
PLAIN_METRICS = ("accuracy", "f1_macro", "loss")  # of tags without B- and I-
SHOWN = ("f1", "precision", "recall", "f1_macro", "words", "words_scored")
PIPELINE = "token-classification"
USE = (
    'tagger = pipeline("token-classification", model=FOLDER, aggregation_strategy="first")\n'
    'tagger("Grace Hopper was born in New York.")'
)


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
    fitted: Sequence[str] | None = None  # the labels, for `--decoding viterbi`

    @property
    def rows(self) -> data.Rows:
        """The inputs of the model."""
        return self.alignment.rows

    def __str__(self) -> str:
        return "\n".join(filter(None, [str(self.report), self.alignment.context]))


@dataclass(frozen=True)
class Said:
    """The tags that a model gave to the words of a split."""

    tags: np.ndarray  # int64 (W,)
    scores: np.ndarray  # float32 (W,): the probability of each; 0 if the tokenizer makes no subword of the word
    words_scored: int
    # On request, see `collect`:
    logs: np.ndarray | None = None  # float32 (W, L): the log-probability of each label, without a temperature
    raw_scores: np.ndarray | None = None  # as `scores`, without a temperature


def read(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The splits that a config names, as `finetune.data.read_tagged` gives them."""
    asked = _context(config)
    size, in_context = asked["context_size"], asked["context"] != "none"
    if size is not None and (asked["context"] != "document" or size < 1):
        raise ValueError(f"--context_size {size}: a number of subwords from 1 on, and only with --context document")
    splits = data.read_tagged(
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
        sentence_column=config.sentence_column,
        label_names=config.label_names,
        tagging_scheme=config.tagging_scheme,
        document_column=config.document_column,
        split_sentences=config.split_sentences or in_context,
        keep_documents=in_context,
        given=given,
    )
    if config.unknown_labels == "error":
        return splits
    return data.without_unknown_tags(splits, _labels_of(splits["train"]), config.unknown_labels)


def _context(config: Any) -> dict[str, Any]:
    """What a window shows of neighbours. A recipe may do without these flags."""
    return {name: getattr(config, name, default) for name, default in data.CONTEXT_SETTINGS.items()}


def labels(splits: Mapping[str, Any]) -> list[str]:
    """The labels of the training split. Raises ValueError if another split has other labels.

    Label 0 is for words of which the tokenizer makes no subword, and for words that a dictionary does not know. It is
    `O`, or the most frequent tag if plain tags have no `O`.
    """
    found = _labels_of(splits["train"])
    data.check_labels(splits, found, "ner_tags")
    return found


def _labels_of(train: Any) -> list[str]:
    if not data.is_plain(train):
        found: list[str] = data.entity_labels(train)
        return found
    numbers = label_numbers(train)
    found = data.plain_labels(train)
    first = "O" if "O" in found else max(found, key=lambda label: numbers.get(label, 0))
    found.sort(key=lambda label: label != first)
    return found


def headline(dataset: Any) -> str:
    """The score that models are compared by."""
    return "accuracy" if data.is_plain(dataset) else "f1"


def settings(splits: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What is saved with the weights: whether the tags are plain, how they are decoded, and the context of a window.

    How sure the model is comes at the run's end.
    """
    plain, metric = data.is_plain(splits["train"]), config.metric_for_best_model
    if plain and metric not in (None, *PLAIN_METRICS):
        raise ValueError(
            f"--metric_for_best_model {metric}: no score of plain tags; choose from {', '.join(PLAIN_METRICS)}"
        )
    if plain and _fits_tags(config):
        raise ValueError("--decoding viterbi: plain tags have no B- and I-; leave this flag out")
    decoding = {"decoding": "viterbi" if _fits_tags(config) else "argmax"}
    return surety.NOTHING | ({"plain_tags": True} if plain else {}) | decoding | _context(config)


def _fits_tags(config: Any) -> bool:
    """Whether the flags ask for tags that fit together. A recipe may do without the flag."""
    return getattr(config, "decoding", "argmax") == "viterbi"


def notes(settings: Mapping[str, Any]) -> list[str]:
    """For the model card: the context, what the scores say, and what the development split promises."""
    return data.context_notes(settings) + data.decoding_notes(settings) + surety.notes(settings)


def told(dataset: Any) -> str:
    """The labels of a split and how often each occurs."""
    return data.label_counts(dataset, "ner_tags")


def check_flags(model: Any, config: Any) -> None:
    """Raises ValueError for flags that mean nothing to a model with a CRF."""
    if not hasattr(model, "crf"):
        return
    if config.label_all_tokens or config.doc_stride == 0:
        raise ValueError(
            "--label_all_tokens, --doc_stride 0: a CRF tags whole words, so only first subwords have labels, and "
            "windows must overlap"
        )
    if (context := _context(config)["context"]) != "none":
        raise ValueError(
            f"--context {context}: a CRF reads each sentence alone; leave the flag out, or take a model without a CRF"
        )
    if _fits_tags(config):
        other = "give --head linear" if config.head == "crf" else "take a model without a CRF, such as bilstm"
        raise ValueError(f"--decoding viterbi: a CRF always decodes so; leave the flag out, or {other}")


def words(train: Any) -> Iterable[str]:
    """All words of the training split, for the vocabulary of a baseline."""
    return (word for sentence in train["tokens"] for word in sentence)


def encode(dataset: Any, tokenizer: Any, labels: Sequence[str], config: Any) -> Windows:
    """Words to subwords: windows without padding."""
    asked = _context(config)
    alignment = data.align(
        dataset,
        tokenizer,
        labels,
        max_seq_length=config.max_seq_length,
        doc_stride=config.doc_stride,
        label_all_tokens=config.label_all_tokens,
        context=asked["context"],
        context_size=asked["context_size"],
    )
    report = data.alignment_report(dataset, tokenizer, config.max_seq_length, alignment)
    return Windows(alignment, report, labels if _fits_tags(config) else None)


def targets(inputs: Mapping[str, Tensor], weights: Sequence[float] | None = None) -> dict[str, float]:
    """The number of labelled tokens in a batch. With weights of labels, the sum of their weights."""
    return {"loss": models.target_weight(inputs["labels"], class_weights=weights)}


def gold(dataset: Any, labels: Sequence[str]) -> Gold:
    """The tags of a split."""
    return Gold(*data.tag_ids(dataset, labels))


def collect(output: Any, batch: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The label of each real token, int64, and its probability; `surety.scored` has what `also` may name."""
    if settings.get("decoding") == "viterbi":
        settings = {**settings, "also": {"logs", "shares", *settings.get("also", ())}}
    return surety.scored(batch.without_padding(output.logits.float()), settings)


def decode(encoded: Windows, found: Mapping[str, np.ndarray]) -> Said:
    """Labels of tokens -> one label for each word, from the window that shows the word with the most context."""
    return _of_words(encoded.alignment, found, encoded.fitted)


def _of_words(
    alignment: data.Alignment, found: Mapping[str, np.ndarray], fitted: Sequence[str] | None, outside: int = 0
) -> Said:
    """As `decode`.

    Args:
        fitted: the labels, if the tags of a sentence must fit together.
        outside: the label of words of which the tokenizer makes no subword.
    """
    labels, scores = found.get("labels", np.zeros(0, np.int64)), found.get("scores", np.zeros(0, np.float32))
    chosen, scored = alignment.to_words(labels, outside)
    certain = alignment.to_words(scores)[0]
    also = {key: alignment.to_words(found[key])[0] for key in ("logs", "raw_scores") if key in found}
    if fitted is not None and "shares" in found:
        bare = alignment.word_counts == 0
        fitting = data.fitting_tags(chosen, also["logs"], alignment.sentence_offsets, fitted, bare)
        # A word's score is the probability of the tag that it got, which is then not its most probable one.
        changed = np.flatnonzero(fitting != chosen)
        certain[changed] = alignment.to_words(found["shares"])[0][changed, fitting[changed]]
        if "raw_scores" in also:
            also["raw_scores"][changed] = np.exp(also["logs"][changed, fitting[changed]])
        chosen = fitting
    return Said(chosen, certain, scored, **also)


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


def calibrate(gold: Gold, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the scores honest, from the development split: the temperature, and the scale of entities.

    Args:
        said: with `logs`, if the split has a word.
    """
    if said.logs is None:
        return {}
    seen = said.scores > 0  # the words that have a subword
    temperature = metrics.fitted_temperature(said.logs[seen], gold.tags[seen])
    if settings.get("plain_tags"):
        return {"score_temperature": temperature}
    shares = np.take_along_axis(metrics.tempered(said.logs, temperature), said.tags[:, None], axis=1)
    scores = np.where(seen, shares[:, 0], 0.0)
    lowest, right, _ = _entity_scores(gold, said, scores, labels)
    return {"score_temperature": temperature, "entity_scale": list(metrics.fitted_scale(lowest, right))}


def calibration(gold: Gold, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The expected calibration error of the scores that predictions have, and the one before they were calibrated.

    `ece` and `ece_before` are those of the entities, `ece_words` and `ece_words_before` those of the words. Of plain
    tags, the first two are those of the words.

    Args:
        said: with `raw_scores`, if the split has a word.
    """
    if said.raw_scores is None:
        return {}
    seen, right = said.scores > 0, said.tags == gold.tags
    words = [
        metrics.calibration_error(metrics.calibration_sums(own[seen], right[seen]))
        for own in (said.scores, said.raw_scores)
    ]
    if settings.get("plain_tags"):
        return dict(zip(("ece", "ece_before"), words, strict=True))
    found = dict(zip(("ece_words", "ece_words_before"), words, strict=True))
    for name, scores, scale in (
        ("ece", said.scores, settings.get("entity_scale")),
        ("ece_before", said.raw_scores, None),
    ):
        lowest, whole, _ = _entity_scores(gold, said, scores, labels)
        lowest = lowest if scale is None else metrics.scaled(lowest, scale)
        found[name] = metrics.calibration_error(metrics.calibration_sums(lowest, whole))
    return found


def promises(gold: Gold, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What precision of its entities the development split promises, and above which scores."""
    if settings.get("plain_tags"):
        return {}
    lowest, right, sentences = _entity_scores(gold, said, said.scores, labels)
    scores = _told_scores(lowest, settings)
    total = sum(len(metrics.entity_spans(tags)) for tags in _sentences(gold.tags, gold.offsets, labels))
    return surety.promised(scores, right, total, "entities", sentences)


def _told_scores(lowest: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """The scores of entities as predictions have them, from the lowest score of the words of each."""
    lowest, scale = np.asarray(lowest, np.float64).round(6), settings.get("entity_scale")
    return lowest if scale is None else metrics.scaled(lowest, scale).round(6)


def _entity_scores(
    gold: Gold, said: Said, scores: np.ndarray, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each entity that the model found: the lowest score of its words, whether it is right, and its sentence."""
    found, right, sentence = [], [], []
    sides = (_sentences(tags, gold.offsets, labels) for tags in (gold.tags, said.tags))
    for number, (start, (wanted, given)) in enumerate(zip(gold.offsets[:-1], zip(*sides, strict=True), strict=True)):
        spans = metrics.entity_spans(given)
        known = set(metrics.entity_spans(wanted)) if spans else set()
        for span in spans:
            found.append(scores[start + span[0] : start + span[1]].min())
            right.append(span in known)
            sentence.append(number)
    return np.array(found, np.float64), np.array(right, bool), np.array(sentence, np.int64)


def _sentences(tags: np.ndarray, offsets: np.ndarray, labels: Sequence[str]) -> Iterable[list[str]]:
    """The tags of each sentence, in words."""
    names = np.array(labels, dtype=object)[tags] if len(tags) else tags
    return (list(names[begin:end]) for begin, end in itertools.pairwise(offsets))


def spread(said: Said, settings: Mapping[str, Any]) -> float:
    """How much the certainty differs between words, if all have the same tag (`finetune.metrics.answer_spread`)."""
    seen = said.scores > 0  # the words that have a subword
    return metrics.answer_spread(said.tags[seen], said.scores[seen])


def write(
    file: Callable[[str], Path],
    name: str,
    dataset: Any,
    said: Said,
    labels: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Writes `predictions_<name>.conll`. Its columns are the word, the correct tag (`_` if it is not known) and the
    model's tag.
    """
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in dataset["tokens"]])])
    predicted = ([labels[tag] for tag in said.tags[a:b]] for a, b in itertools.pairwise(offsets))
    known = "ner_tags" in dataset.column_names
    right = dataset["ner_tags"] if known else (["_"] * len(words) for words in dataset["tokens"])
    data.write_conll(file(f"predictions_{name}.conll"), dataset["tokens"], right, predicted)


def reread(folder: Path, name: str) -> tuple[list[list[str]], list[Any], list[Any], list[float]]:
    """Words, correct tags and predicted tags of each sentence, from `predictions_<name>.conll`; no scores."""
    path = folder / f"predictions_{name}.conll"
    right, said = (data.read_conll(path, tag_column=column, written_here=True, any_tag=True) for column in (1, 2))
    return right.words, right.tags, said.tags, []


def restored(found: Sequence[Any], labels: Sequence[str], settings: Mapping[str, Any]) -> tuple[Gold, Said]:
    """The correct and the predicted tags from what `reread` gave, as `counts` takes them.

    Raises:
        ValueError: for a tag that is no label.
    """
    _, gold, said, _ = found
    index = {label: i for i, label in enumerate(labels)}
    sides = []
    for number, rows in ((2, gold), (3, said)):
        if unknown := next((tag for tags in rows for tag in tags if tag not in index), None):
            raise ValueError(f"column {number} has the tag {unknown!r:.100}, which is no label of the model")
        sides.append(np.array([index[tag] for tags in rows for tag in tags], dtype=np.int64))
    offsets = np.cumsum([0, *map(len, gold)], dtype=np.int64)
    return Gold(sides[0], offsets), Said(sides[1], np.ones(len(sides[1]), np.float32), len(sides[1]))


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


def answer(samples: Sequence[Any], predictor: Any, documents: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """An answer for each sample. `finetune.prediction` explains the keys, and `documents`."""
    asked = divided(samples, predictor.settings, documents)
    alignment = data.align_words(
        [word for words in asked.words for word in words],
        asked.sentences,
        predictor.tokenizer,
        max_seq_length=predictor.max_seq_length,
        doc_stride=predictor.doc_stride,
        documents=asked.documents,
        context=predictor.settings.get("context", "none"),
        context_size=predictor.settings.get("context_size"),
    )
    outside = predictor.labels.index("O") if "O" in predictor.labels else 0
    fitted = predictor.labels if predictor.settings.get("decoding") == "viterbi" else None
    said = _of_words(alignment, predictor.collect(alignment.rows), fitted, outside)
    scores = said.scores.astype(np.float64).round(6).tolist()
    names, tags = (
        [kinds[i] for i in said.tags] for kinds in (predictor.labels, data.tags_of_labels(predictor.labels))
    )
    scale = predictor.settings.get("entity_scale")
    best = None if predictor.top_k is None else surety.best_labels(said.logs, said.scores, predictor)
    answers = []
    for sample, words, places, borders in zip(samples, asked.words, asked.places, asked.borders(), strict=True):
        first, last = borders[0], borders[-1]
        entities = []
        for begin, end in itertools.pairwise(borders):  # an entity is in one sentence
            at = slice(begin - first, end - first)
            cut = None if places is None else places[at]
            for entity in decode_entities(words[at], tags[begin:end], scores[begin:end], sample, cut, scale):
                entities.append(entity | {"words": [begin - first + word for word in entity["words"]]})
        found = {"tokens": words, "predicted": names[first:last], "scores": scores[first:last], "entities": entities}
        answers.append(found if best is None else found | {"top_k": best[first:last]})
    if predictor.min_score is not None:
        for own in answers:
            leave_out(own, predictor.min_score, predictor.labels[outside])
    return answers
