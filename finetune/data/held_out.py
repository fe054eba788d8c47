"""A validation split that is taken from the training split, where the data has none.

Which rows are held out depends on the rows alone: not on `--seed`, so that runs with different seeds are compared on
the same split, and not on the order of the file.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def hold_out(
    splits: dict[str, dict[str, Any]],
    config: Any,
    unit: str,
    texts: Sequence[str],
    labels: Sequence[Iterable[Hashable]],
    documents: Sequence[int] | None = None,
    *,
    together: str = "equal ones on one side",
) -> None:
    """Moves a share of the training split into a validation split, and says so in one line.

    Nothing happens if there is a validation split, if the config asks for no evaluation, or for a share of 0.

    Args:
        splits: columns by split. A column is a list with an item for each row; other values hold for all rows.
        unit: what a row is called: texts, sentences.
        texts: the text of each training row. Rows with the same text stay on one side.
        labels: what the model may learn from each row. Something of each label is always left to learn from.
        documents: the document of each row, where they are known. The rows of a document stay on one side.
        together: how the line says which rows stay on one side, where no documents are known.

    Raises:
        ValueError: if the share is not a percentage, or if nothing can be held out.
    """
    percentage = getattr(config, "validation_split_percentage", 0)
    if not 0 <= percentage < 100:
        raise ValueError(f"--validation_split_percentage {percentage}: from 0 to below 100")
    if "validation" in splits or not percentage or getattr(config, "eval_strategy", "no") == "no":
        return
    train = splits["train"]
    known = documents is not None and len(set(documents)) > 1
    held = _chosen(texts, labels, documents if known else None, percentage / 100)
    name = train["source"] if isinstance(train["source"], Path) else "the data set"
    if not held:
        raise ValueError(
            f"{name}: none of its {len(texts):,} {unit} can be held out for validation, since equal ones stay "
            "together and training needs something of each label; give a --validation_file, or --eval_strategy no"
        )
    for split, wanted in (("validation", True), ("train", False)):
        splits[split] = {
            key: [item for row, item in enumerate(column) if (row in held) is wanted]
            if isinstance(column, list)
            else column
            for key, column in train.items()
        }
    whole = "whole documents" if known else together
    logger.warning(
        "%s: there is no validation data, so %s of its %s %s are held out (%s, the same for every --seed); "
        "--validation_split_percentage says how many",
        *(name, f"{len(held):,}", f"{len(texts):,}", unit, whole),
    )


def _chosen(
    texts: Sequence[str], labels: Sequence[Iterable[Hashable]], documents: Sequence[int] | None, share: float
) -> set[int]:
    """The rows to hold out: groups in the order of their hashes, if they fit. If none fits, the smallest one."""
    groups: dict[Hashable, list[int]] = {}
    for row, text in enumerate(texts):
        same = " ".join(text.split()).casefold()
        groups.setdefault(same if documents is None else documents[row], []).append(row)
    wanted = max(round(len(texts) * share), 1)
    left = Counter(label for row in labels for label in set(row))
    held: set[int] = set()

    def take(rows: Sequence[int]) -> None:
        own = Counter(label for row in rows for label in set(labels[row]))
        if len(rows) < len(texts) and all(number < left[label] for label, number in own.items()):
            held.update(rows)
            left.subtract(own)

    in_order = sorted(groups.values(), key=lambda rows: _hash(texts[row] for row in rows))
    for rows in in_order:
        if len(held) + len(rows) <= wanted:
            take(rows)
    for rows in sorted(in_order, key=len):
        if not held:
            take(rows)
    return held


def _hash(texts: Iterable[str]) -> bytes:
    """SHA-256 of the texts of a group, whatever their order in the file is."""
    return hashlib.sha256("\n".join(sorted(texts)).encode()).digest()
