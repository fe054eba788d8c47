"""Questions: the span of a passage that answers each, or none.

Shapes: Q questions, N windows, n spans of each window.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import data, metrics, models
from finetune.data.passages import QuestionWindows
from finetune.files import write_text
from finetune.tasks.samples import Runs, by_error, each, first_run, is_pair

if TYPE_CHECKING:
    from torch import Tensor

N_BEST = 20  # spans of a window, and of a question
_NEVER = -1e9  # the score of a question without a span


METRICS = ("f1", "exact_match", "loss")
SHOWN = ("exact_match", "f1", "questions", "questions_scored")
PIPELINE = "question-answering"
USE = 'finetune.predict(FOLDER, [("Who was born in 1906?", "Grace Hopper was born in New York in 1906.")])'


@dataclass(frozen=True)
class QuestionSplit:
    """The windows of a split, and the passage of each of its questions."""

    windows: QuestionWindows
    passages: Sequence[str]  # Q
    unanswered: int = 0  # questions without an answer

    @property
    def rows(self) -> data.Rows:
        """What a model is given."""
        return self.windows.rows

    def __str__(self) -> str:
        return str(self.windows) + (f"; {self.unanswered:,} have no answer" if self.unanswered else "")


@dataclass(frozen=True)
class Span:
    """A part of a passage that may be the answer."""

    text: str  # the passage's own characters
    start: int
    end: int
    score: float  # the logarithm of how many times as likely as "no answer" it is


def read(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The splits that a config names, as `finetune.data.read_questions` gives them."""
    return data.read_questions(
        config, config.question_column_name, config.context_column_name, config.answer_column_name, given=given
    )


def labels(splits: Mapping[str, Any]) -> list[str]:
    """None: an answer is a part of the passage."""
    return []


def headline(dataset: Any) -> str:
    """The score that models are compared by."""
    return "f1"


def words(train: Any) -> Iterable[str]:
    """What a baseline's vocabulary is made from."""
    return (text for column in ("context", "question") for text in train[column])


def settings(splits: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What a model must know in addition to its weights: how long an answer may be, and when not to give one.

    A validation split overrides the threshold, unless a flag gives it (`tune`).
    """
    threshold = config.null_score_diff_threshold
    if threshold is None and label_numbers(splits["train"])["no answer"]:
        threshold = 0.0
    return {"max_answer_length": config.max_answer_length, "null_score_diff_threshold": threshold}


def encode(dataset: Any, tokenizer: Any, labels: Sequence[str], config: Any) -> QuestionSplit:
    """Questions and passages to windows of subwords, without padding."""
    passages = dataset["context"][:]
    windows = data.window_questions(
        dataset["question"][:],
        passages,
        tokenizer,
        first_answers(dataset),
        max_seq_length=config.max_seq_length,
        doc_stride=config.doc_stride,
        token_types=models.is_baseline(config.model_name_or_path),
    )
    return QuestionSplit(windows, passages, label_numbers(dataset)["no answer"])


def gold(dataset: Any, labels: Sequence[str]) -> list[list[str]]:
    """The answers of each question; none: it has no answer."""
    answers: list[list[str]] = dataset["answers"][:]
    return answers


def first_answers(dataset: Any) -> list[tuple[int, int] | None]:
    """Where the first answer of each question begins and ends; None where it has none. Training learns these."""
    pairs = zip(dataset["answers"][:], dataset["answer_starts"][:], strict=True)
    return [(starts[0], starts[0] + len(texts[0])) if texts else None for texts, starts in pairs]


def targets(inputs: Mapping[str, Tensor]) -> dict[str, float]:
    """A window each."""
    return {"loss": len(inputs["start_positions"])}


def collect(output: Any, batch: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The best spans of each row, found on the device; `batch.inputs` has `passage`."""
    return models.best_spans(
        output.start_logits,
        output.end_logits,
        batch.inputs["passage"],
        n_best=N_BEST,
        max_answer_length=settings["max_answer_length"],
    )


def decode(encoded: QuestionSplit, found: Mapping[str, np.ndarray]) -> list[list[Span]]:
    """The spans of every question from all of its windows, the likeliest first, at most 20.

    A span is taken from the window that shows its first token with the most context.

    Args:
        found: as `collect` gives them, (N, n) each, in the order of the rows.
    """
    windows, passages = encoded.windows, encoded.passages
    starts, ends, scores = (found[key] for key in ("starts", "ends", "scores"))
    of_window = np.broadcast_to(np.arange(len(starts))[:, None], starts.shape)
    kept = np.isfinite(scores) & (_best_window(windows, of_window, starts) == of_window)
    rows, first, last, score = of_window[kept], starts[kept], ends[kept], scores[kept]
    places = windows.to_characters(rows, first, last)
    questions = windows.question_of[rows]
    order = np.lexsort((-score, questions))
    of_question: list[dict[tuple[int, int], Span]] = [{} for _ in range(windows.questions)]
    for i in order.tolist():
        question = int(questions[i])
        spans = of_question[question]
        if len(spans) == N_BEST:
            continue
        start, end = _without_space(passages[question], *map(int, places[i]))
        if start < end and (start, end) not in spans:
            spans[start, end] = Span(passages[question][start:end], start, end, float(score[i]))
    return [list(spans.values()) for spans in of_question]


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


def tune(gold: Sequence[Sequence[str]], said: Sequence[Sequence[Span]]) -> dict[str, Any]:
    """The threshold with the highest sum of F1."""
    return {"null_score_diff_threshold": tuned_threshold(gold, said)}


def counts(
    gold: Sequence[Sequence[str]], said: Sequence[Sequence[Span]], labels: Sequence[str], settings: Mapping[str, Any]
) -> np.ndarray:
    """What each question adds to the scores, (Q, 6)."""
    return metrics.answer_counts(gold, answers(said, settings["null_score_diff_threshold"]))


def score(sums: np.ndarray, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The scores of summed counts."""
    return metrics.answer_scores(sums)


def remarks(gold: Sequence[Sequence[str]], said: Sequence[Sequence[Span]]) -> dict[str, float]:
    """`questions` and `questions_scored`, which must be equal."""
    return {"questions": len(gold), "questions_scored": len(said)}


def write(
    file: Callable[[str], Path],
    name: str,
    dataset: Any,
    said: Sequence[Sequence[Span]],
    labels: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Writes `predictions_<name>.json`, which SQuAD's script reads, `nbest_<name>.jsonl` and `gold_<name>.jsonl`.

    Args:
        file: gives the path of a file of the run by its name.
    """
    ids = dataset["id"][:]
    chosen = dict(zip(ids, answers(said, settings["null_score_diff_threshold"]), strict=True))
    write_text(file(f"predictions_{name}.json"), json.dumps(chosen, ensure_ascii=False))
    lines = []
    for question, found in zip(ids, said, strict=True):
        listed = [
            vars(span) | {"score": round(span.score, 6), "probability": round(share, 6)}
            for span, share in zip(found, probabilities(found), strict=True)
        ]
        lines.append(json.dumps({"id": question, "nbest": listed}, ensure_ascii=False) + "\n")
    write_text(file(f"nbest_{name}.jsonl"), "".join(lines))
    gold = zip(ids, dataset["question"][:], dataset["answers"][:], strict=True)
    told = (json.dumps({"id": i, "question": q, "answers": a}, ensure_ascii=False) + "\n" for i, q, a in gold)
    write_text(file(f"gold_{name}.jsonl"), "".join(told))


def reread(folder: Path, name: str) -> tuple[list[list[str]], list[Any], list[Any], list[float]]:
    """Words of the question, right answers and the answer given, from `predictions_<name>.json` and
    `gold_<name>.jsonl`; no scores.
    """
    said = json.loads((folder / f"predictions_{name}.json").read_text(encoding="utf-8"))
    lines = (folder / f"gold_{name}.jsonl").read_text(encoding="utf-8").split("\n")  # a text may have U+2028
    rows = [json.loads(line) for line in lines if line]
    return [row["question"].split() for row in rows], [row["answers"] for row in rows], list(said.values()), []


def restored(
    found: Sequence[Any], labels: Sequence[str], settings: Mapping[str, Any]
) -> tuple[list[list[str]], list[list[Span]]]:
    """The right answers and the answers given from what `reread` gave, as `counts` takes them."""
    _, gold, said, _ = found
    return gold, [[Span(text, 0, len(text), math.inf)] if text else [] for text in said]


def inputs(dataset: Any) -> tuple[list[list[str]], list[Any]]:
    """Words of each question and its right answers, as `reread` has them."""
    return [question.split() for question in dataset["question"][:]], dataset["answers"][:]


def label_numbers(dataset: Any) -> dict[str, int]:
    """How many questions have an answer, and how many none."""
    answered = sum(1 for texts in dataset["answers"][:] if texts)
    return {"answer": answered, "no answer": len(dataset) - answered}


def compared(read: Runs, splits: Mapping[str, Any]) -> dict[str, Any]:
    """What models have in common and where they differ, from what each of their runs said."""
    some = first_run(read)
    tables = {key: metrics.answer_counts(some.gold, run.predicted) for key, run in each(read)}
    kinds = np.array(["answer" if right else "no answer" for right in some.gold])
    by_kind = {
        name: {
            kind: float(np.mean([tables[name, seed][kinds == kind, 1].mean() for seed in seeds]))
            for kind in sorted(set(kinds.tolist()))
        }
        for name, seeds in read.items()
    }
    return {
        "metric": "f1",
        "score": lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1.0),
        "counts": {name: np.stack([tables[name, seed][:, 1:3] for seed in seeds]) for name, seeds in read.items()},
        "breakdowns": {
            "kind of question": {
                "size": {kind: int((kinds == kind).sum()) for kind in sorted(set(kinds.tolist()))},
                "of": "questions, by F1",
                "scores": by_kind,
            }
        },
        "examples": by_error(read, _error, kinds=_error_kinds),
    }


def _error(right: Any, said: Any) -> float:
    """1 minus the F1 of an answer."""
    return float(1.0 - max(metrics.answer_counts([right], [said])[0, 1], 0.0))


def _error_kinds(right: Any, said: Any) -> list[str]:
    if not said:
        return ["no answer given"]
    if not right:
        return ["answered, but there is no answer"]
    return ["partly right" if _error(right, said) < 1 else "another answer"]


def check(sample: Any, predictor: Any) -> None:
    """Raises ValueError, in one sentence, for what this model does not answer."""
    if not is_pair(sample):
        raise ValueError(
            "this model answers questions: give a question and its passage, as a pair or as a line of JSON, "
            '{"question": "...", "context": "..."}'
        )


def answer(samples: Sequence[Any], predictor: Any) -> list[dict[str, Any]]:
    """An answer for each sample, as `finetune.prediction` explains them."""
    if not samples:
        return []
    passages = [passage for _, passage in samples]
    windows = data.window_questions(
        [question for question, _ in samples],
        passages,
        predictor.tokenizer,
        [None] * len(samples),
        max_seq_length=predictor.max_seq_length,
        doc_stride=predictor.doc_stride,
        token_types=predictor.model.config.model_type == "recurrent",
    )
    spans = decode(QuestionSplit(windows, passages), predictor.collect(windows.rows))
    found = []
    for text, ranked in zip(answers(spans, predictor.settings["null_score_diff_threshold"]), spans, strict=True):
        shares = probabilities(ranked)
        listed = [
            {"text": span.text, "start": span.start, "end": span.end, "score": round(share, 6)}
            for span, share in zip(ranked, shares, strict=True)
        ]
        first = listed[0] if text else {"start": None, "end": None, "score": round(max(1.0 - sum(shares), 0.0), 6)}
        found.append({"answer": text} | {k: first[k] for k in ("start", "end", "score")} | {"nbest": listed})
    return found
