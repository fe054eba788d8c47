"""Labels a file of texts with spans, and writes it back in its own form: brat, doccano, Label Studio, Prodigy, spaCy.

The new spans take the place of those in the file, and their offsets are in the unit of the file. In Label Studio they
are predictions, beside the annotations. Everything else in the records stays.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune import data

_TOGETHER = 256  # texts that are labelled at once, sorted by length


def label_spans(
    predict: Callable[[Sequence[str]], list[dict[str, Any]]],
    source: Path,
    target: Path,
    form: str,
    *,
    unit: data.Unit = "auto",
    model: str = "finetune",
) -> tuple[int, int]:
    """Labels the texts of a file, and writes them in the form of the file.

    Args:
        predict: gives `entities` for each text, as `finetune.prediction.Predictor` explains them.
        source: a file, or a folder of brat.
        target: a file, which may be there already, or a new folder. It appears whole or not at all.
        form: of `finetune.data.SPAN_READERS`.
        unit: what the offsets of the file count. `auto`: code points; but a file whose own spans show that it counts
            something else is refused.
        model: the name of the model, for Label Studio.

    Returns:
        The number of texts and the number of new spans.

    Raises:
        ValueError: naming file and line or record, for a file that cannot be read, or if `target` cannot be written.
    """
    texts = data.read_marked(source, form, unit)
    if form == "brat":
        data.refuse_to_replace(target)
    spans: list[list[data.Span]] = []
    for first in range(0, len(texts), _TOGETHER):
        answers = predict([marked.text for marked in texts[first : first + _TOGETHER]])
        spans += [[_span(entity) for entity in answer["entities"]] for answer in answers]
    try:
        data.write_marked(target, source, form, texts, spans, unit, model)
    except OSError as error:
        raise ValueError(f"--output_file {target}: {error.strerror}") from error
    return len(texts), sum(map(len, spans))


def _span(entity: dict[str, Any]) -> data.Span:
    return data.Span(entity["start"], entity["end"], entity["label"], score=entity["score"])
