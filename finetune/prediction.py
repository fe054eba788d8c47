"""Uses a fine-tuned model: it takes texts, words or questions, and gives labels, entities or answers with scores.

Inputs are processed as in an evaluation: the same windows, the same subword of each word, the same batches. So they
get the same labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune import data, models, reporting, saved_settings, tasks, training
from finetune.arguments import ModelArguments
from finetune.tasks import surety

logger = logging.getLogger(__name__)

_SURROGATE = re.compile("[\ud800-\udfff]")

Sample = str | tuple[str, str] | list[str]


def predict(
    model_dir: str | Path,
    texts: Sequence[Sample],
    *,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    doc_stride: int | None = None,
    runtime: str = "torch",
    top_k: int | None = None,
    min_precision: float | None = None,
) -> list[dict[str, Any]]:
    """The model's answer for each text: `load_predictor(model_dir, ...)(texts)`. See these two for details.

    Examples:
        >>> predict("runs/ner", ["Grace Hopper was born in New York."])[0]["entities"][0]["text"]  # doctest: +SKIP
        'Grace Hopper'
    """
    predictor = load_predictor(
        model_dir,
        batch_size=batch_size,
        max_seq_length=max_seq_length,
        doc_stride=doc_stride,
        runtime=runtime,
        top_k=top_k,
        min_precision=min_precision,
    )
    return predictor(texts)


def load_predictor(
    model_dir: str | Path,
    *,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    doc_stride: int | None = None,
    revision: str = "main",
    task: Any = None,
    runtime: str = "torch",
    top_k: int | None = None,
    min_precision: float | None = None,
    alone: bool = False,
) -> Predictor:
    """Loads a model for prediction. It computes in the precision of its run, as the evaluation did.

    Args:
        model_dir: the folder of a run of `recipes/ner.py`, `recipes/sentiment.py` or `recipes/question_answering.py`;
            or a folder or a Hub id of another model for token classification, sequence classification or question
            answering.
        batch_size: the number of windows or texts in one batch.
        max_seq_length: the largest number of subwords in a window, with the special tokens [as in the run; if there
            was no run, 128, or the number of the model's positions if that is less].
        doc_stride: the number of subwords that two neighbouring windows share [as in the run, else half a window].
        revision: branch, tag or commit of a model on the Hub.
        task: a module with the functions that `finetune/stages.py` lists [the task of the model's head].
        runtime: `onnx` for a folder that `recipes/export.py` made. Then neither torch nor transformers is imported.
        top_k: answers also have the scores of the so many best labels, of each text or word; 0: of all labels.
        min_precision: answers are given only where the model's development split promises this precision
            (`finetune/metrics/promises.py`): entities with a lower score are left out, and a text with a lower score
            gets the label None. `Predictor.promise` says what that costs.
        alone: in one of several processes: it labels its samples by itself. Without it, all processes must be given
            the same samples, and they share the work.

    Raises:
        ValueError: naming the flag of `recipes/predict.py`, for a model that does not load, a wrong value, and a
            precision that is not promised.
    """
    if runtime not in ("torch", "onnx"):
        raise ValueError(f"runtime={runtime!r}: must be 'torch' or 'onnx'")
    numbers = {"batch_size": batch_size, "max_seq_length": max_seq_length, "doc_stride": doc_stride, "top_k": top_k}
    for name, value in numbers.items():
        if not (isinstance(value, int) or (value is None and name != "batch_size")) or isinstance(value, bool):
            raise ValueError(f"{name}={value!r}: must be a whole number")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    if top_k is not None and top_k < 0:
        raise ValueError(f"--top_k {top_k}: must be at least 1, or 0 for all labels")
    also = () if top_k is None else ("logs",)
    if runtime == "onnx":
        predictor = _with_onnx(Path(model_dir), batch_size, max_seq_length, doc_stride, task, also)
    else:
        predictor = _with_torch(model_dir, batch_size, max_seq_length, doc_stride, revision, task, also, alone)
    surety.checked(predictor.settings, str(model_dir))
    data.check_context(predictor.settings, str(model_dir))
    data.check_decoding(predictor.settings, str(model_dir))
    if doc_stride is not None and predictor.task not in (tasks.tagging, tasks.questions):
        raise ValueError(f"--doc_stride {doc_stride}: for words and questions; leave it out")
    if top_k is not None and not predictor.says_labels:
        raise ValueError(f"--top_k {top_k}: only a model that gives labels has a score for each of them")
    if min_precision is not None:
        if not isinstance(min_precision, (int, float)):
            raise ValueError(f"min_precision={min_precision!r}: must be a number")
        min_score, promise = surety.threshold(predictor.settings, min_precision)
        predictor = replace(predictor, min_score=min_score, promise=promise)
    predictor = replace(predictor, top_k=top_k)
    if predictor.chains and predictor.doc_stride == 0:
        raise ValueError("--doc_stride 0: a CRF tags whole words, so windows must overlap")
    paired = predictor.pairs or predictor.task.PIPELINE == "question-answering"
    predictor([("", "") if paired else ""])  # lengths that cannot be meant are refused now
    return predictor


def _with_torch(
    model_dir: str | Path,
    batch_size: int,
    max_seq_length: int | None,
    doc_stride: int | None,
    revision: str,
    task: Any,
    also: tuple[str, ...],
    alone: bool,
) -> Predictor:
    from accelerate import Accelerator
    from torch import accelerator as hardware

    if (Path(model_dir) / "export.json").is_file():
        raise ValueError(f"--model_name_or_path {model_dir}: an exported model; add --runtime onnx")
    settings = saved_settings.of_run(str(model_dir), revision)
    if max_seq_length is None:
        max_seq_length = settings.get("max_seq_length")
    if doc_stride is None:
        doc_stride = settings.get("doc_stride")
    arguments = ModelArguments(
        model_name_or_path=str(model_dir),
        model_revision=revision,
        padding_free=settings.get("padding_free", True),
    )
    head, labels, model, tokenizer = models.load_finetuned(arguments, max_seq_length=max_seq_length)
    if max_seq_length is None:
        max_seq_length = min(128, models.position_limit(model) or 128)
    accelerator = Accelerator(cpu=not hardware.is_available())
    task = task or tasks.of_head(head)
    task_settings = saved_settings.of_model(model.config)
    task_settings |= {name: settings[name] for name in data.CONTEXT_SETTINGS if name in settings}
    model = training.prepare_to_predict(model, accelerator.device)
    run = partial(
        _collected,
        accelerator,
        model,
        tokenizer,
        task=task,
        settings=task_settings | {"also": also},
        batch_size=batch_size,
        alone=alone,
    )
    return Predictor(
        model=model,
        tokenizer=tokenizer,
        task=task,
        labels=labels,
        settings=task_settings,
        pairs=settings["text_pair_column_name"] is not None if "text_pair_column_name" in settings else None,
        batch_size=batch_size,
        max_seq_length=max_seq_length,
        doc_stride=doc_stride,
        run=run,
        chains=hasattr(model, "crf"),
        word_column=saved_settings.word_column_of(settings),
        text_columns=saved_settings.text_columns_of(settings),
        document_column=settings.get("document_column"),
        word_columns=saved_settings.word_columns_of(settings),
        label_separator=settings.get("label_separator"),
    )


def _with_onnx(
    folder: Path,
    batch_size: int,
    max_seq_length: int | None,
    doc_stride: int | None,
    task: Any,
    also: tuple[str, ...],
) -> Predictor:
    from finetune.export import runner

    told = runner.read_description(folder)
    if max_seq_length is not None and told.position_limit is not None and max_seq_length > told.position_limit:
        raise ValueError(
            f"--max_seq_length {max_seq_length}: {folder} has positions for {told.position_limit} tokens; "
            f"give at most {told.position_limit}"
        )
    model = runner.load_model(folder, told)
    return Predictor(
        model=model,
        tokenizer=runner.load_tokenizer(folder, told),
        task=task or tasks.of_head(told.head),
        labels=told.labels,
        settings=told.settings,
        pairs=told.pairs,
        batch_size=batch_size,
        max_seq_length=told.max_seq_length if max_seq_length is None else max_seq_length,
        doc_stride=told.doc_stride if doc_stride is None else doc_stride,
        run=partial(model.collect, batch_size=batch_size, also=also),
        chains=told.crf is not None,
        word_column=told.word_column,
        text_columns=(told.text_columns[0], told.text_columns[1]),
        document_column=told.document_column,
        word_columns=None if told.word_columns is None else data.WordColumns(**told.word_columns),
        label_separator=told.label_separator,
    )


def _collected(
    accelerator: Any,
    model: Any,
    tokenizer: Any,
    rows: Any,
    *,
    task: Any,
    settings: dict[str, Any],
    batch_size: int,
    alone: bool,
) -> dict[str, np.ndarray]:
    """What a task keeps of each row, by torch."""
    from finetune import stages

    nothing: dict[str, float] = {}
    return stages.collect(
        accelerator, model, tokenizer, rows, task, settings, batch_size, lambda inputs: nothing, alone=alone
    ).arrays


def attention(
    model: Any, text: str | Sequence[str], *, target: str | Sequence[str] | None = None, tokenizer: Any = None
) -> reporting.AttentionMaps:
    """The attention of a model to each word: as `finetune.reporting.attention`, but also for a folder or a Hub id.

    Args:
        model: a folder or a Hub id; or a loaded model, which then needs its `tokenizer`.
        text: a text, or its words.
        target: for text to text, the text whose words look at those of `text`. Default: what the model says.

    Raises:
        ValueError: as `finetune.reporting.attention`, and for a checkpoint that does not load.
    """
    if isinstance(model, (str, Path)):
        model, its_own = models.load_as_saved(str(model), for_words=not isinstance(text, str), flag="attention:")
        tokenizer = tokenizer or its_own
    elif tokenizer is None:
        raise ValueError("attention: a loaded model needs its tokenizer, attention(model, text, tokenizer=tokenizer)")
    return reporting.attention(model, text, tokenizer, target=target)


def generate(model: Any, prompt: str = "", *, tokenizer: Any = None, **settings: Any) -> list[str]:
    """Texts that begin with `prompt`.

    A language model (a run of `recipes/language_model.py`, GPT-2, Llama ...) adds one token after the other:
    `finetune.models.continue_text` explains `length`, `temperature`, `top_k`, `top_p`, `count`, `stop` and `seed`.
    A model for masked tokens fills a row of masks: `finetune.models.mask_predict` explains `length`, `rounds`,
    `temperature`, `count` and `seed`.

    Args:
        model: a folder or a Hub id; or a loaded model, whose `tokenizer` is then needed.

    Raises:
        ValueError: also for a model that writes no text, and a setting that this kind of model does not have.

    >>> generate("runs/lstm", "The committee", length=20, top_p=0.9, count=3, stop=["."])  # doctest: +SKIP
    """
    if isinstance(model, (str, Path)):
        model, its_own = models.load_to_generate(str(model))
        tokenizer = tokenizer or its_own
    elif tokenizer is None:
        raise ValueError("generate: a loaded model needs its tokenizer, generate(model, prompt, tokenizer=tokenizer)")
    masked = type(model).__name__.endswith(("ForMaskedLM", "ForPreTraining"))
    function = models.mask_predict if masked else models.continue_text
    known = inspect.signature(function).parameters
    if unknown := [name for name in settings if name not in known]:
        raise ValueError(f"generate: {type(model).__name__} has no setting {', '.join(unknown)}")
    found: list[str] = function(model, tokenizer, prompt, **settings)
    return found


@dataclass(frozen=True)
class Predictor:
    """A model that labels words or texts, or answers questions; `load_predictor` makes it."""

    model: Any
    tokenizer: Any
    task: Any  # a module of `finetune.tasks`
    labels: list[str]
    settings: dict[str, Any]  # settings of the task, from the model's config
    pairs: bool | None  # whether the model was trained on pairs of texts; None: unknown
    batch_size: int
    max_seq_length: int
    doc_stride: int | None
    run: Callable[[Any], dict[str, np.ndarray]]  # rows -> what the task keeps of each
    chains: bool = False  # whether the model has a CRF
    word_column: int | str | None = None  # the run's column of words; None: the default
    text_columns: tuple[str | None, str | None] = (None, None)  # the run's columns of texts and of second texts
    document_column: str | None = None  # the run's column of documents
    word_columns: data.WordColumns | None = None  # the run's columns, if it read a table with a word in each row
    label_separator: str | None = None  # what stood between several labels of a cell in the run's tables
    top_k: int | None = None  # how many labels answers tell with their scores; 0: all
    min_score: float | None = None  # answers with a lower score are not given
    promise: str = ""  # what `min_precision` promises and costs, as a text

    @property
    def labels_words(self) -> bool:
        """Whether each word has a label."""
        return self.task is tasks.tagging

    @property
    def says_labels(self) -> bool:
        """Whether its answers are labels, which have scores."""
        return hasattr(self.task, "promises") and self.settings["problem_type"] != "regression"

    @property
    def sees_documents(self) -> bool:
        """Whether its windows show sentences with their neighbours."""
        return self.labels_words and self.settings.get("context", "none") != "none"

    def __call__(self, samples: Sequence[Sample], documents: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """One answer for each sample, in the same order.

        Args:
            samples: for a model that answers questions, tuples of a question and its passage. For a model that labels
                words, lists of words, or texts, which `finetune.data.split_words` splits. For a model that labels
                texts, texts or tuples of two texts; they are cut at `max_seq_length` as in training.
            documents: for a model that was trained with a `--context`, the document of each sample that is a list of
                words: a number from 1 on, or 0 for a sentence that is alone [0]. Neighbours with the same number are
                one document. The sentences of a text are always one document.

        Returns:
            For texts:

            | key | |
            |---|---|
            | `predicted` | the label; a list of labels if a text may have several; or the number |
            | `score` | its probability; with several labels, the probability of the least certain decision |
            | `scores` | only with several labels: the probability of each |
            | `top_k` | only if asked for: the best labels, each as `{"label": ..., "score": ...}` |

            From a model of text to text:

            | key | |
            |---|---|
            | `predicted` | the text that it says |

            For questions:

            | key | |
            |---|---|
            | `answer` | the characters of the passage; empty if the passage has no answer |
            | `start`, `end` | the place in the passage: `passage[start:end]`; null without an answer |
            | `score` | its probability among the spans of `nbest` and "no answer" |
            | `nbest` | up to 20 spans with the same keys, the most probable first |

            For words:

            | key | |
            |---|---|
            | `tokens` | the words |
            | `predicted` | the label of each word; `O` if the tokenizer makes no subword of it |
            | `scores` | the probability of each label; 0 for these words |
            | `entities` | see below; `finetune.data.tags_of_labels` explains labels without a prefix |
            | `top_k` | only if asked for: of each word, the best labels, each as `{"label": ..., "score": ...}` |

            An entity is what conlleval counts as one: an `I-` that continues nothing starts an entity. Its keys:

            | key | |
            |---|---|
            | `text` | the characters, without invisible ones at the ends; given words are joined by spaces |
            | `label` | the type |
            | `start`, `end` | the place in the text: `text[start:end]`; missing if words were given |
            | `words` | the number of its first word and of the word after its last, counted from 0 |
            | `score` | how probable it is that words and type are right |

            Scores are rounded to 6 decimals. If the model's run had a development split, they are calibrated there
            (`finetune/metrics/calibration.py`); those of several labels are not. Otherwise they are the model's
            probabilities, and the score of an entity is the lowest one of its words. A CRF labels a sentence as a
            whole. So it may give a word another label than the most probable one; the score is then that of the most
            probable one, from its marginals.

            With a `min_precision`, a text whose label is not sure enough has `predicted` None. Entities that are not
            sure enough are left out; their words have the label `O`, and keep their scores.

        Raises:
            ValueError: as `check`. The message has the number of the sample, counted from 0.
        """
        if isinstance(samples, str):
            raise ValueError("the samples are one string; give a list of them")
        if hasattr(samples, "columns"):  # a frame of pandas or polars
            raise ValueError("the samples are a table; give the list of one column, such as list(frame['text'])")
        if isinstance(samples, Mapping):
            raise ValueError("the samples are a dictionary; give a list of them")
        samples = list(samples)  # a generator can be read only once
        for i, sample in enumerate(samples):
            try:
                self.check(sample)
            except ValueError as error:
                raise ValueError(f"sample {i}: {error}") from error
        if documents is not None and len(documents) != len(samples):
            raise ValueError(f"documents: {len(documents)} numbers for {len(samples)} samples")
        known = (documents,) if documents is not None and self.sees_documents else ()
        found: list[dict[str, Any]] = self.task.answer(samples, self, *known)
        return found

    def check(self, sample: Sample) -> None:
        """Raises ValueError with one sentence for a sample that the model cannot label."""
        for text in (sample,) if isinstance(sample, str) else sample if isinstance(sample, (list, tuple)) else ():
            if isinstance(text, str) and _SURROGATE.search(text):
                raise ValueError(f"the text {text!a:.80} has half of a character (a surrogate)")
        if hasattr(self.task, "check"):
            self.task.check(sample, self)

    def collect(self, rows: Any) -> dict[str, np.ndarray]:
        """Runs the model on the rows. Returns what the task keeps for each row."""
        return self.run(rows)
