"""What is taken out of the training split: a fold of a cross-validation as the test split, and a validation split
where the data has none.

Which rows these are depends on the rows alone: not on `--seed`, so that runs with different seeds are compared on
the same split, and not on the order of the file.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from finetune.data.folds import fold_of
from finetune.data.messages import source_name
from finetune.data.readers import splits_to_read

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
    """Moves the rows of a fold into a test split, and a share of the others into a validation split. Tells of both.

    There is a fold if the config has a `fold`. No validation split is made if there is one, if the config asks for no
    evaluation, or for a share of 0.

    Args:
        splits: columns by split. A column is a list with an item for each row; other values hold for all rows.
        unit: what a row is called: texts, sentences.
        texts: the text of each training row. Rows with the same text stay on one side.
        labels: what the model may learn from each row. Of each label, something is left to learn from when a
            validation split is made.
        documents: the document of each row, where they are known. The rows of a document stay on one side.
        together: how the line says which rows stay on one side, where no documents are known.

    Raises:
        ValueError: if the share is not a percentage, for a fold that does not exist, or if nothing can be held out.
    """
    percentage = getattr(config, "validation_split_percentage", 0)
    if not 0 <= percentage < 100:
        raise ValueError(f"--validation_split_percentage {percentage}: from 0 to below 100")
    known = documents if documents is not None and len(set(documents)) > 1 else None
    train = splits["train"]
    name = source_name(train["source"])
    if getattr(config, "fold", None) is not None:
        number, folds = fold_asked(config.fold)
        of_row = fold_of(texts, folds, known)
        outside = [row for row, own in enumerate(of_row.tolist()) if own != number - 1]
        inside = set(range(len(texts))) - set(outside)
        logger.warning(
            "%s: fold %d of %d is the test split, %s of its %s %s (%s)",
            *(name, number, folds, f"{len(inside):,}", f"{len(texts):,}", unit),
            "texts that are nearly equal on one side" if known is None else "whole documents",
        )
        _move(splits, "test", inside.__contains__)
        if "test" not in splits_to_read():
            del splits["test"]
        texts, labels = [texts[row] for row in outside], [labels[row] for row in outside]
        known = None if known is None else [known[row] for row in outside]
    if "validation" in splits or not percentage or getattr(config, "eval_strategy", "no") == "no":
        return
    held = _chosen(texts, labels, known, percentage / 100)
    if not held:
        raise ValueError(
            f"{name}: none of its {len(texts):,} {unit} can be held out for validation, since equal ones stay "
            f"together and training needs something {'of each label' if any(labels) else 'too'}; give a "
            "--validation_file, or --eval_strategy no"
        )
    _move(splits, "validation", held.__contains__)
    logger.warning(
        "%s: there is no validation data, so %s of its %s %s are held out (%s, the same for every --seed); "
        "--validation_split_percentage says how many",
        *(name, f"{len(held):,}", f"{len(texts):,}", unit, together if known is None else "whole documents"),
    )


def fold_asked(text: str) -> tuple[int, int]:
    """The number of a fold, from 1 on, and the number of folds, from `2/5`.

    Raises:
        ValueError: for another form, and for a fold that does not exist.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--fold {text}: give the number of a fold and the number of folds, such as 2/5")
    return int(found[1]), int(found[2])


def _move(splits: dict[str, dict[str, Any]], target: str, is_moved: Callable[[int], bool]) -> None:
    """Moves rows of the training split into another split."""
    train = splits["train"]
    for split, wanted in ((target, True), ("train", False)):
        splits[split] = {
            key: [item for row, item in enumerate(column) if is_moved(row) is wanted]
            if isinstance(column, list)
            else column
            for key, column in train.items()
        }


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
