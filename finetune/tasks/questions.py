"""Questions: the span of a passage that answers each, or none.

Shapes: Q questions, N windows, n spans of each window.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune import metrics, models
from finetune.data.passages import QuestionWindows
from finetune.files import write_text

N_BEST = 20  # spans of a window, and of a question
_NEVER = -1e9  # the score of a question without a span


@dataclass(frozen=True)
class Span:
    """A part of a passage that may be the answer."""

    text: str  # the passage's own characters
    start: int
    end: int
    score: float  # the logarithm of how many times as likely as "no answer" it is


def first_answers(dataset: Any) -> list[tuple[int, int] | None]:
    """Where the first answer of each question begins and ends; None where it has none. Training learns these."""
    pairs = zip(dataset["answers"][:], dataset["answer_starts"][:], strict=True)
    return [(starts[0], starts[0] + len(texts[0])) if texts else None for texts, starts in pairs]


def collect(output: Any, batch: Any, *, max_answer_length: int) -> dict[str, torch.Tensor]:
    """The best spans of each row, found on the device; `batch.inputs` has `passage`."""
    return models.best_spans(
        output.start_logits,
        output.end_logits,
        batch.inputs["passage"],
        n_best=N_BEST,
        max_answer_length=max_answer_length,
    )


def decode(windows: QuestionWindows, passages: Sequence[str], collected: dict[str, np.ndarray]) -> list[list[Span]]:
    """The spans of every question from all of its windows, the likeliest first, at most 20.

    A span is taken from the window that shows its first token with the most context.

    Args:
        passages: the passage of each question (Q).
        collected: as `collect` gives them, (N, n) each, in the order of the rows.
    """
    starts, ends, scores = (collected[key] for key in ("starts", "ends", "scores"))
    of_window = np.broadcast_to(np.arange(len(starts))[:, None], starts.shape)
    kept = np.isfinite(scores) & (_best_window(windows, of_window, starts) == of_window)
    rows, first, last, score = of_window[kept], starts[kept], ends[kept], scores[kept]
    places = windows.to_characters(rows, first, last)
    questions = windows.question_of[rows]
    order = np.lexsort((-score, questions))
    found: list[dict[tuple[int, int], Span]] = [{} for _ in range(windows.questions)]
    for i in order.tolist():
        question = int(questions[i])
        spans = found[question]
        if len(spans) == N_BEST:
            continue
        start, end = _without_space(passages[question], *map(int, places[i]))
        if start < end and (start, end) not in spans:
            spans[start, end] = Span(passages[question][start:end], start, end, float(score[i]))
    return [list(spans.values()) for spans in found]


def _best_window(windows: QuestionWindows, of_window: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For each token (N, n), given by a row and its position in it, the row that shows it with the most context."""
    tokens = starts - windows.lead[of_window] + windows.at[of_window]  # counted within the passage
    first = np.searchsorted(windows.question_of, windows.question_of)[of_window]  # the question's first row
    count = np.bincount(windows.question_of, minlength=windows.questions)[windows.question_of][of_window]
    best, most = of_window.copy(), np.full(of_window.shape, -1)
    for k in range(int(count.max(initial=0))):
        row = np.minimum(first + k, first + count - 1)
        shown = (windows.at[row] <= tokens) & (tokens < windows.at[row] + windows.shown[row])
        context = np.where(shown, windows.context_of(row, tokens), -1)
        better = context > most
        best[better], most[better] = row[better], context[better]
    return best


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def answers(spans: Sequence[Sequence[Span]], threshold: float | None) -> list[str]:
    """One answer for each question: its likeliest span, or the empty string where no span's score is above
    `threshold`.

    Args:
        threshold: None: every question has an answer.
    """
    return [found[0].text if found and (threshold is None or found[0].score > threshold) else "" for found in spans]


def probabilities(spans: Sequence[Span]) -> list[float]:
    """The probability of each span of a question, among these and no answer."""
    scores = np.array([0.0, *(span.score for span in spans)])
    weights = np.exp(scores - scores.max())
    found: list[float] = (weights / weights.sum())[1:].tolist()
    return found


def tuned_threshold(gold: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]]) -> float | None:
    """The threshold with the highest sum of F1 over these questions; None if all of them have an answer.

    Of thresholds that are as good, the lowest.
    """
    if all(gold):
        return None
    best = np.array([found[0].score if found else _NEVER for found in spans])
    said = metrics.answer_counts(gold, answers(spans, None))[:, 1]
    silent = metrics.answer_counts(gold, [""] * len(spans))[:, 1]
    values, group = np.unique(best, return_inverse=True)
    gains = np.bincount(group, weights=silent - said)  # of leaving the questions of each score without an answer
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    thresholds = np.concatenate([[values[0] - 1.0], values])
    return float(thresholds[int(totals.argmax())])


def counts(gold: Sequence[Sequence[str]], said: Sequence[str]) -> np.ndarray:
    """What each question adds to the scores, (Q, 6)."""
    return metrics.answer_counts(gold, said)


def score(sums: np.ndarray) -> dict[str, float]:
    """The scores of summed counts."""
    return metrics.answer_scores(sums)


def write(
    file: Callable[[str], Path], name: str, ids: Sequence[str], said: Sequence[str], spans: Sequence[Sequence[Span]]
) -> None:
    """Writes `predictions_<name>.json`, which SQuAD's script reads, and `nbest_<name>.jsonl`.

    Args:
        file: gives the path of a file of the run by its name.
    """
    write_text(file(f"predictions_{name}.json"), json.dumps(dict(zip(ids, said, strict=True)), ensure_ascii=False))
    lines = []
    for question, found in zip(ids, spans, strict=True):
        listed = [
            vars(span) | {"score": round(span.score, 6), "probability": round(share, 6)}
            for span, share in zip(found, probabilities(found), strict=True)
        ]
        lines.append(json.dumps({"id": question, "nbest": listed}, ensure_ascii=False) + "\n")
    write_text(file(f"nbest_{name}.jsonl"), "".join(lines))
