"""Using a fine-tuned model: texts or words in, labels, scores and entities out.

Words and texts take the way that they take in an evaluation (the same windows, the same subword of a word, the same
batches), so that they get the same labels.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune import cli, data, models, reporting, stages, tasks, training
from finetune.arguments import ModelArguments

logger = logging.getLogger(__name__)

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
    task: Any = None,
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
        task: a module with the names of `finetune.tasks` [the one that the model's head is for].

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
    head, labels, model, tokenizer = models.load_finetuned(arguments, max_seq_length=max_seq_length)
    if hasattr(model, "crf") and doc_stride == 0:
        raise ValueError("--doc_stride 0: a CRF works on words, so windows must overlap")
    if max_seq_length is None:
        max_seq_length = min(128, models.position_limit(model) or 128)
    accelerator = Accelerator(cpu=not hardware.is_available())
    predictor = Predictor(
        model=training.prepare_to_predict(model, accelerator.device),
        tokenizer=tokenizer,
        task=task or tasks.of_head(head),
        labels=labels,
        settings=_settings_of_model(model.config),
        pairs=settings["text_pair_column_name"] is not None if "text_pair_column_name" in settings else None,
        batch_size=batch_size,
        max_seq_length=max_seq_length,
        doc_stride=doc_stride,
        accelerator=accelerator,
        # Column 0 is the default, and as such may be the second in another file (`finetune/data/conll.py`).
        word_column=data.column_number(settings.get("text_column_name")) or None,
    )
    paired = predictor.pairs or head == "question-answering"
    predictor([("", "") if paired else ""])  # lengths that cannot be meant are refused now
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
    """A model that labels words or texts, or answers questions; `load_predictor` makes it."""

    model: Any
    tokenizer: Any
    task: Any  # a module of `finetune.tasks`
    labels: list[str]
    settings: dict[str, Any]  # of the task, as the model's config has them
    pairs: bool | None  # whether it learned from pairs of texts; None: unknown
    batch_size: int
    max_seq_length: int
    doc_stride: int | None
    accelerator: Any
    word_column: int | None = None  # of column files, as the run read them; None: the first, of CoNLL-U the second

    @property
    def labels_words(self) -> bool:
        """Whether each word has a label."""
        return self.task is tasks.tagging

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
            | `predicted` | the label; a list of labels where a text may have several; or the number |
            | `score` | its probability; of several labels, that of the answer on the least certain one |
            | `scores` | of several labels, the probability of each |

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
        found: list[dict[str, Any]] = self.task.answer(samples, self)
        return found

    def check(self, sample: Sample) -> None:
        """Raises ValueError, in one sentence, for what this model does not label."""
        stages.asked(self.task, "check", sample, self)

    def collect(self, rows: Any) -> dict[str, np.ndarray]:
        """What the task keeps of each row."""
        nothing: dict[str, float] = {}
        return stages.collect(
            self.accelerator,
            self.model,
            self.tokenizer,
            rows,
            self.task,
            self.settings,
            self.batch_size,
            targets=lambda inputs: nothing,
        ).arrays


_SETTINGS: dict[str, Any] = {
    "problem_type": "single_label_classification",
    "threshold": 0.5,
    "long_texts": "cut",
    "max_answer_length": 30,
    "null_score_diff_threshold": None,
}


def _settings_of_model(config: Any) -> dict[str, Any]:
    """The settings of a task that a model's config holds, or what stands for them in a model from elsewhere."""
    found = {name: getattr(config, name, None) for name in _SETTINGS}
    return {name: _SETTINGS[name] if value is None else value for name, value in found.items()}


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
