"""The samples of a report in the short form that its page leafs through."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

_KINDS = 60  # names of errors in the list of a filter; a report may have thousands of confusions


def samples_as_json(report: Mapping[str, Any]) -> str:
    """JSON that may stand inside a `<script>`: `models`, `tagged`, `every_word`, `kinds` and `rows`.

    A row is: the number of the sample, counted from 1; its words, or its text; what is right; and for each model what
    it says (0: what is right), its confidence (or null), 1 if it is wrong, and the numbers of its `kinds` of error.
    `kinds` are names of errors with their number of samples, the most frequent ones first. `every_word`: every word
    has a tag, so the page shows only the wrong tags of each model.
    """
    names, tagged = list(report["models"]), report["task"] == "token-classification"
    counted = Counter(
        kind
        for sample in report["examples"]
        for kind in {kind for kinds in sample.get("kinds", {}).values() for kind in kinds}
    )
    shown = sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:_KINDS]
    place = {kind: at for at, (kind, _) in enumerate(shown)}
    rows = [
        [
            sample["sentence"] + 1,
            sample["words"] if tagged else " ".join(sample["words"]),
            sample["gold"],
            [0 if sample["predicted"][name] == sample["gold"] else sample["predicted"][name] for name in names],
            [_short(sample["confidence"][name]) for name in names],
            [int(bool(sample["wrong"][name])) for name in names],
            [[place[kind] for kind in sample.get("kinds", {}).get(name, []) if kind in place] for name in names],
        ]
        for sample in report["examples"]
    ]
    whole = {
        "models": names,
        "tagged": tagged,
        "every_word": bool(report.get("every_word")),
        "kinds": shown,
        "rows": rows,
    }
    # A browser ends a script at the next `</script`, also inside a text of JSON.
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _short(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 3)
