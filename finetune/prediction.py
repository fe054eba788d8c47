"""Using a fine-tuned model: texts or words in, labels, scores and entities out.

Words and texts take the way that they take in an evaluation (the same windows, the same subword of a word, the same
batches), so that they get the same labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import functools
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetune import cli, data, metrics, models, reporting, training
from finetune.arguments import ModelArguments

logger = logging.getLogger(__name__)

# White space, spaces of no width, marks of the direction of writing, the byte-order mark.
_INVISIBLE = r"[\s\u200b\u2060\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
_WITHIN = re.compile(rf"{_INVISIBLE}(.*?){_INVISIBLE}", re.DOTALL)

_LARGEST_STATE = 2**20  # bytes of a checkpoint's state.json

Sample = str | tuple[str, str] | list[str]


def predict(
    model_dir: str | Path,
    texts: Sequence[Sample],
    *,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    doc_stride: int | None = None,
) -> list[dict[str, Any]]:
    """What a model says of each text: `load_predictor(model_dir, ...)(texts)`, where both are explained.

    >>> predict("runs/ner", ["Grace Hopper was born in New York."])[0]["entities"][0]["text"]  # doctest: +SKIP
    'Grace Hopper'
    """
    predictor = load_predictor(model_dir, batch_size=batch_size, max_seq_length=max_seq_length, doc_stride=doc_stride)
    return predictor(texts)


def load_predictor(
    model_dir: str | Path,
    *,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    doc_stride: int | None = None,
    revision: str = "main",
) -> Predictor:
    """Loads a model to label words or texts with. It computes in the precision of its run, as the evaluation did.

    Args:
        model_dir: the folder of a run of `recipes/ner.py`, `recipes/sentiment.py` or `recipes/question_answering.py`,
            or any other model for token or sequence classification or question answering: a folder or a Hub id.
        batch_size: windows, or texts, in one batch.
        max_seq_length: subwords in a window, special tokens included [the run's; without one 128, or what the model
            has positions for].
        doc_stride: subwords that neighbouring windows share [the run's; without one, half a window].
        revision: branch, tag or commit of a Hub model.

    Raises:
        ValueError: naming the flag of `recipes/predict.py`, for what does not load, or cannot be meant.
    """
    from accelerate import Accelerator
    from torch import accelerator as hardware

    for name, value in (("batch_size", batch_size), ("max_seq_length", max_seq_length), ("doc_stride", doc_stride)):
        if not (isinstance(value, int) or (value is None and name != "batch_size")) or isinstance(value, bool):
            raise ValueError(f"{name}={value!r}: must be a whole number")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    settings = _settings_of_run(Path(model_dir))
    if max_seq_length is None:
        max_seq_length = settings.get("max_seq_length")
    if doc_stride is None:
        doc_stride = settings.get("doc_stride")
    arguments = ModelArguments(
        model_name_or_path=str(model_dir),
        model_revision=revision,
        padding_free=settings.get("padding_free", True),
    )
    task, labels, model, tokenizer = models.load_finetuned(arguments, max_seq_length=max_seq_length)
    if hasattr(model, "crf") and doc_stride == 0:
        raise ValueError("--doc_stride 0: a CRF works on words, so windows must overlap")
    if max_seq_length is None:
        max_seq_length = min(128, models.position_limit(model) or 128)
    accelerator = Accelerator(cpu=not hardware.is_available())
    predictor = Predictor(
        model=training.prepare_to_predict(model, accelerator.device),
        tokenizer=tokenizer,
        labels=labels,
        labels_words=task == "token-classification",
        answers=task == "question-answering",
        pairs=settings["text_pair_column_name"] is not None if "text_pair_column_name" in settings else None,
        batch_size=batch_size,
        max_seq_length=max_seq_length,
        doc_stride=doc_stride,
        accelerator=accelerator,
        # Column 0 is the default, and as such may be the second in another file (`finetune/data/conll.py`).
        word_column=data.column_number(settings.get("text_column_name")) or None,
        max_answer_length=settings.get("max_answer_length", 30),
    )
    predictor(
        [("", "") if predictor.pairs or predictor.answers else ""]
    )  # lengths that cannot be meant are refused now
    return predictor


def attention(model: Any, text: str | Sequence[str], *, tokenizer: Any = None) -> reporting.AttentionMaps:
    """What a model looks at: `finetune.reporting.attention`, which explains it, of a folder or a Hub id, too.

    Args:
        model: a folder or a Hub id; or a loaded model, whose `tokenizer` is then needed.
        text: a text, or its words.

    Raises:
        ValueError: also for a checkpoint that does not load.
    """
    if isinstance(model, (str, Path)):
        model, its_own = models.load_as_saved(str(model), for_words=not isinstance(text, str), flag="attention:")
        tokenizer = tokenizer or its_own
    elif tokenizer is None:
        raise ValueError("attention: a loaded model needs its tokenizer, attention(model, text, tokenizer=tokenizer)")
    return reporting.attention(model, text, tokenizer)


@dataclass(frozen=True)
class Predictor:
    """A model that labels words or texts; `load_predictor` makes it."""

    model: Any
    tokenizer: Any
    labels: list[str]
    labels_words: bool  # else texts
    pairs: bool | None  # whether it learned from pairs of texts; None: unknown
    batch_size: int
    max_seq_length: int
    doc_stride: int | None
    accelerator: Any
    answers: bool = False  # questions, from the passage that comes with each
    max_answer_length: int = 30  # subwords
    word_column: int | None = None  # of column files, as the run read them; None: the first, of CoNLL-U the second

    def __call__(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """One answer a sample, in their order.

        Args:
            samples: a model that answers questions takes tuples of a question and its passage; one that labels
                words takes texts, which `finetune.data.split_words` splits, or lists of words; one that labels
                texts takes texts, which are cut at `max_seq_length` as in training, or tuples of two texts.

        Returns:
            For texts:

            | key | |
            |---|---|
            | `predicted` | the label |
            | `score` | its probability |

            For questions:

            | key | |
            |---|---|
            | `answer` | the characters of the passage; empty: it does not hold an answer |
            | `start`, `end` | where it is in the passage: `passage[start:end]`; null without an answer |
            | `score` | its probability among the spans of `nbest` and no answer |
            | `nbest` | up to 20 spans, the likeliest first, with the same keys |

            For words:

            | key | |
            |---|---|
            | `tokens` | the words |
            | `predicted` | the label of each; `O` where the tokenizer makes nothing of a word |
            | `scores` | the probability of each label; 0 for these words |
            | `entities` | see below; `finetune.data.tags_of_labels` says what labels without a prefix are |

            and for each entity, which is what conlleval takes for one (a stray `I-` starts one):

            | key | |
            |---|---|
            | `text` | the characters, but no invisible ones at its ends; given words have a space between them |
            | `label` | the type |
            | `start`, `end` | where it is in the text: `text[start:end]`; not of given words |
            | `words` | its first word, and the one after its last, counted from 0 |
            | `score` | the lowest of its words' scores |

            Scores are rounded to 6 decimals. A CRF labels a sentence as a whole; where that gives a word another
            label than its likeliest one, the score is the likeliest one's.

        Raises:
            ValueError: as `check`, with the number of the sample, counted from 0.
        """
        if isinstance(samples, str):
            raise ValueError("the samples are one string; give a list of them")
        for i, sample in enumerate(samples):
            try:
                self.check(sample)
            except ValueError as error:
                raise ValueError(f"sample {i}: {error}") from error
        if self.answers:
            return self._answer(samples)
        return self._label_words(samples) if self.labels_words else self._label_texts(samples)

    def check(self, sample: Sample) -> None:
        """Raises ValueError, in one sentence, for what this model does not label."""
        if self.labels_words:
            words = sample if isinstance(sample, list) else []
            if not isinstance(sample, (str, list)) or not all(isinstance(word, str) for word in words):
                raise ValueError("this model labels words: give a text or a list of words")
            for word in words:
                if not word or any(mark in word for mark in "\t\n\r"):
                    raise ValueError(f"the word {word!r} is empty or breaks a line")
            return
        pair = isinstance(sample, tuple) and len(sample) == 2 and all(isinstance(text, str) for text in sample)
        if self.answers:
            if not pair:
                raise ValueError("this model answers questions: give a question and its passage as a pair")
            return
        if not pair and not isinstance(sample, str):
            raise ValueError("this model labels texts: give a text, or two as a pair")
        if self.pairs is not None and self.pairs != pair:
            given, learned = ("a pair", "single texts") if pair else ("a single text", "pairs of texts")
            raise ValueError(f"this is {given}, and the model was trained on {learned}")

    def _label_words(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        spans = [data.split_words(sample) if isinstance(sample, str) else None for sample in samples]
        sentences = [
            sample if places is None else [sample[begin:end] for begin, end in places]
            for sample, places in zip(samples, spans, strict=True)
        ]
        offsets = np.concatenate([[0], np.cumsum([len(words) for words in sentences], dtype=np.int64)])
        alignment = data.align_words(
            pa.array([word for words in sentences for word in words], type=pa.string()),
            offsets,
            self.tokenizer,
            max_seq_length=self.max_seq_length,
            doc_stride=self.doc_stride,
        )
        predictions = self._run(alignment.rows)
        outside = self.labels.index("O") if "O" in self.labels else 0
        chosen = alignment.to_words(predictions.labels, outside)[0]
        scores = _rounded(alignment.to_words(predictions.scores)[0])
        labels, tags = ([names[i] for i in chosen] for names in (self.labels, data.tags_of_labels(self.labels)))
        return [
            {
                "tokens": words,
                "predicted": labels[begin:end],
                "scores": scores[begin:end],
                "entities": decode_entities(words, tags[begin:end], scores[begin:end], sample, places),
            }
            for sample, words, places, begin, end in zip(
                samples, sentences, spans, offsets[:-1], offsets[1:], strict=True
            )
        ]

    def _label_texts(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = [{} for _ in samples]
        for paired in (False, True):
            ids = [i for i, sample in enumerate(samples) if isinstance(sample, tuple) is paired]
            if not ids:
                continue
            texts = [samples[i][0] if paired else samples[i] for i in ids]
            pairs = [samples[i][1] for i in ids] if paired else None
            encoded = data.encode_strings(texts, pairs, self.tokenizer, max_seq_length=self.max_seq_length)
            if encoded.texts_cut:
                _warn_of_cut_texts(self.max_seq_length)
            predictions = self._run(encoded.rows)
            for i, label, score in zip(ids, predictions.labels, _rounded(predictions.scores), strict=True):
                answers[i] = {"predicted": self.labels[label], "score": score}
        return answers

    def _answer(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        from finetune.tasks import questions

        if not samples:
            return []
        passages = [passage for _, passage in samples]
        windows = data.window_questions(
            [question for question, _ in samples],
            passages,
            self.tokenizer,
            [None] * len(samples),
            max_seq_length=self.max_seq_length,
            doc_stride=self.doc_stride,
            token_types=self.model.config.model_type == "recurrent",
        )
        batches = data.eval_batches(windows.rows, self.tokenizer, self.batch_size)
        best = functools.partial(questions.collect, max_answer_length=self.max_answer_length)
        found = training.collect(self.accelerator, self.model, batches, best)
        spans = questions.decode(windows, passages, found.arrays)
        said = questions.answers(spans, getattr(self.model.config, "null_score_diff_threshold", None))
        answers = []
        for text, ranked in zip(said, spans, strict=True):
            shares = [round(share, 6) for share in questions.probabilities(ranked)]
            listed = [
                {"text": span.text, "start": span.start, "end": span.end, "score": share}
                for span, share in zip(ranked, shares, strict=True)
            ]
            first = listed[0] if text else {"start": None, "end": None, "score": round(1.0 - sum(shares), 6)}
            answers.append({"answer": text} | {k: first[k] for k in ("start", "end", "score")} | {"nbest": listed})
        return answers

    def _run(self, rows: Any) -> Any:
        batches = data.eval_batches(rows, self.tokenizer, self.batch_size)
        return training.predict(self.accelerator, self.model, batches)


def decode_entities(
    words: Sequence[str],
    tags: Sequence[str],
    scores: Sequence[float],
    text: Any = None,
    places: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """The entities of one sentence, as `Predictor` explains them.

    Args:
        tags: of each word, in any scheme.
        scores: of each word.
        text, places: the text of the words, and where each begins and ends in it; no places where words were given.
    """
    found = []
    # In IOB2 every scheme has the same entities. IOBES is the one that takes every prefix.
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
    """Where a text begins and ends without what is invisible at its ends; a text of nothing else stays as it is."""
    found = _WITHIN.fullmatch(text)
    assert found is not None
    return found.span(1) if found[1] else (0, len(text))


def _settings_of_run(folder: Path) -> dict[str, Any]:
    """What a run's `run.yaml`, or the state of its checkpoint, says of how its inputs were cut; else nothing."""
    file = next((folder / name for name in ("run.yaml", "state.json") if (folder / name).is_file()), None)
    if file is None:
        return {}
    written = cli.read_settings(file) if file.name == "run.yaml" else _flags_of_checkpoint(file)
    kinds: dict[str, Any] = {
        "max_seq_length": int,
        "doc_stride": int | None,
        "padding_free": bool,
        "text_column_name": str,
        "text_pair_column_name": str | None,
        "max_answer_length": int,
    }
    settings = {key: written[key] for key in kinds if key in written}
    for key, value in settings.items():
        if not isinstance(value, kinds[key]):
            raise ValueError(f"{file}: {key} is {value!r:.100}, which no run has written")
    return settings


def _flags_of_checkpoint(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _LARGEST_STATE:
        raise ValueError(f"{file}: larger than any that a run writes")
    try:
        flags = json.loads(file.read_text(encoding="utf-8"))["run"]["flags"]
    except (LookupError, TypeError):  # of something else
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON: {' '.join(str(error).split())[:300]}") from error
    return flags if isinstance(flags, dict) else {}


def _rounded(scores: np.ndarray) -> list[float]:
    rounded: list[float] = scores.astype(np.float64).round(6).tolist()
    return rounded


@functools.cache
def _warn_of_cut_texts(max_seq_length: int) -> None:
    logger.warning("texts of more than %d subwords are cut there, as in training and evaluation", max_seq_length)
