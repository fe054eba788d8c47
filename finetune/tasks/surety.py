"""How sure a model is of its answers: what tasks with calibrated scores share.

A model's config keeps three settings for it:

| name | what it is |
|---|---|
| `score_temperature` | divides the logits before the softmax |
| `entity_scale` | factor and shift for the scores of entities (`finetune.metrics.scaled`) |
| `promises` | `{"what", "delta", "precision", "recall", "at": {"0.95": [threshold, precision, recall]}}`: on the development split, the precision and recall of all answers, and of those above each threshold |
"""  # noqa: E501  # a table

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune import metrics

NOTHING: dict[str, Any] = {"score_temperature": None, "entity_scale": None, "promises": None}


def scored(logits: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The best label of each row of logits, and its probability at the temperature of the model.

    Args:
        logits: a float tensor (..., L).
        settings: `also` may name `shares`, the probabilities of all labels at the temperature, `logs`, their
            logarithms without a temperature, and `raw_scores`, the probability without a temperature.
    """
    shares = (logits / (settings.get("score_temperature") or 1.0)).softmax(-1)
    found = {"labels": logits.argmax(-1), "scores": shares.amax(-1)}
    also = settings.get("also", ())
    if "shares" in also:
        found["shares"] = shares
    if "logs" in also:
        found["logs"] = logits.log_softmax(-1)
    if "raw_scores" in also:
        found["raw_scores"] = logits.softmax(-1).amax(-1)
    return found


def promised(
    scores: np.ndarray, right: np.ndarray, total: int, what: str, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """The setting `promises`, from the answers on a development split.

    Args:
        scores, right, groups: as `finetune.metrics.promises` takes them.
        total: the number of answers that could have been right.
        what: the kind of answers, in the plural.
    """
    found = metrics.promised_thresholds(scores, right, total, groups=groups)
    at = {f"{own.precision:g}": [own.threshold, round(own.found, 4), round(own.recall, 4)] for own in found}
    precision, recall = (float(right.sum()) / max(n, 1) for n in (len(right), total))
    told = {"what": what, "delta": metrics.DELTA, "precision": round(precision, 4), "recall": round(recall, 4)}
    return {"promises": told | {"at": at}}


def threshold(settings: Mapping[str, Any], precision: float) -> tuple[float, str]:
    """The score from which on answers have a precision, and what that costs, in a sentence.

    Raises:
        ValueError: for a precision that is not between 0 and 1, for a model without promises, and where the
            development split does not promise that much.
    """
    if not 0 < precision < 1:
        raise ValueError(f"--min_precision {precision:g}: must be between 0 and 1")
    made = settings.get("promises")
    if not made:
        raise ValueError(
            f"--min_precision {precision:g}: this model promises no precision; only models of entities, and of texts "
            "with one label, do, if their run had a development split"
        )
    enough = sorted((float(own), values) for own, values in made["at"].items() if float(own) >= precision)
    if not enough:
        most = max(map(float, made["at"]), default=None)
        less = "; it promises none at all" if most is None else f"; the most that it promises is {most:g}"
        raise ValueError(
            f"--min_precision {precision:g}: no threshold of the scores is proved to give this precision on the "
            f"development split{less}"
        )
    known, (score, found, recall) = enough[0]
    what = made["what"]
    return score, (
        f"--min_precision {precision:g}: only {what} with a score of at least {score:.6f} are given. On the "
        f"development split these had a precision of {found:.3f} and a recall of {recall:.3f}; all {what} together "
        f"had {made['precision']:.3f} and {made['recall']:.3f}. The promise of {known:g} is broken with a "
        f"probability of at most {made['delta']:g}."
    )


def notes(settings: Mapping[str, Any]) -> list[str]:
    """For the model card: what the scores say, and what the development split promises."""
    lines = []
    if settings.get("score_temperature"):
        lines.append(
            "The scores of `finetune.predict` are calibrated on the development split, with a temperature of "
            f"{settings['score_temperature']:.3f}; those of `pipeline()` are not. `ece` is the expected calibration "
            "error, `ece_before` the one without the calibration."
        )
    made = settings.get("promises")
    if not made:
        return lines
    shown = [(own, made["at"][own]) for own in ("0.9", "0.95", "0.99") if own in made["at"]]
    if not shown:
        return [*lines, "No threshold of the scores is proved to give a precision of 0.9 on the development split."]
    costs = "; ".join(f"{own} from a score of {score} on (recall {recall:.3f})" for own, (score, _, recall) in shown)
    lines.append(
        f"`--min_precision` gives only the {made['what']} with a high score. The development split promises a "
        f"precision of {costs}; without a threshold, recall is {made['recall']:.3f}. Each promise is broken with a "
        f"probability of at most {made['delta']:g}, for texts like those of the development split."
    )
    return lines


def best_labels(logs: np.ndarray | None, scores: np.ndarray, predictor: Any) -> list[list[dict[str, Any]]]:
    """The `top_k` best labels of each text or word with their scores, the best first.

    Args:
        logs: (N, L) log-probabilities without a temperature.
        scores: (N,), the probability of the best label; a word with 0 has no subword, and gets no labels.

    Raises:
        ValueError: if the model did not give them, which is an export of an older version.
    """
    if not (np.asarray(scores) > 0).any():
        return [[] for _ in scores]
    if logs is None:
        raise ValueError("--top_k: this export gives the best label alone; make it again with recipes/export.py")
    labels: Sequence[str] = predictor.labels
    count = min(predictor.top_k or len(labels), len(labels))
    shares = metrics.tempered(logs, predictor.settings.get("score_temperature") or 1.0)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :count]
    best = np.take_along_axis(shares, order, axis=1).round(6).tolist()
    return [
        [{"label": labels[i], "score": own} for i, own in zip(row, values, strict=True)] if score > 0 else []
        for row, values, score in zip(order.tolist(), best, scores, strict=True)
    ]


def checked(settings: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for settings of a config that no run has written."""
    temperature, scale = settings.get("score_temperature"), settings.get("entity_scale")
    if temperature is not None and not (_is_number(temperature) and temperature > 0):
        raise ValueError(f"{where}: score_temperature must be a number above 0")
    if scale is not None and not (isinstance(scale, list) and len(scale) == 2 and all(map(_is_number, scale))):
        raise ValueError(f"{where}: entity_scale must be two numbers")
    made = settings.get("promises")
    if made is None:
        return
    numbers = isinstance(made, dict) and all(_is_number(made.get(key)) for key in ("delta", "precision", "recall"))
    at = made.get("at") if numbers else None
    whole = isinstance(at, dict) and all(
        _is_decimal(key) and isinstance(own, list) and len(own) == 3 and all(map(_is_number, own))
        for key, own in at.items()
    )
    if not whole or not isinstance(made.get("what"), str):
        raise ValueError(f"{where}: no run has written these promises")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _is_decimal(text: Any) -> bool:
    return isinstance(text, str) and text.replace(".", "", 1).isdecimal()
