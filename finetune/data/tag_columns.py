"""The tags of a file as they are -> tags in IOB2, or plain tags.

`columns` are those of a split while it is read: `tokens`, `ner_tags`, `source`, and `line`, the place of each row or
word for messages.
"""

import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune.data.conll import check_tag
from finetune.data.messages import listed, shown
from finetune.data.readers import row_at
from finetune.data.readings import note_reading
from finetune.data.tags import SCHEMES, TAG, detect_scheme, runs_to_iob2, to_iob2, written_scheme

logger = logging.getLogger(__name__)

Tagging = Literal["auto", "plain", "entities"]
_PLAIN = re.compile(r"[^\t\n\r\0]+")


@dataclass(frozen=True)
class Kind:
    """What the tags of a data set are. At most one of the two is true."""

    plain: bool = False
    runs: bool = False  # entities without prefixes: neighbouring words with the same tag are one entity


def kind_of(columns: dict[str, Any], declared: set[str], tagging: Tagging) -> Kind:
    """What the tags of the training split are; a line says so if they are found to be plain.

    Args:
        declared: the tags that the data declares, which the split need not have.
    """
    found = distinct(columns) | declared
    bare = not any(tag != "O" and TAG.fullmatch(tag) for tag in found) and all(map(_PLAIN.fullmatch, found))
    if tagging != "auto":
        return Kind(plain=tagging == "plain", runs=tagging == "entities" and bare)
    plain = bare and bool(found - {"O"})
    if plain:
        _tell_of_plain_tags(columns, found)
    return Kind(plain=plain)


def distinct(columns: dict[str, Any]) -> set[str]:
    """All tags of a split."""
    return set(itertools.chain.from_iterable(columns["ner_tags"]))


def _tell_of_plain_tags(columns: dict[str, Any], found: set[str]) -> None:
    line = columns["line"][0]
    logger.warning(
        "%s: no tag has a prefix such as B-, so all tags are read as plain tags (--tagging plain): %s; with "
        "--tagging entities, neighbouring words with the same tag are one entity",
        row_at(columns["source"], line[0] if isinstance(line, list) else line),
        listed(sorted(found)),
    )


def name_numbers(columns: dict[str, Any], names: Sequence[str]) -> None:
    """Puts names in the place of numbers."""
    known = {str(number): name for number, name in enumerate(names)}
    for tags, line in zip(columns["ner_tags"], columns["line"], strict=True):
        for i, tag in enumerate(tags):
            if tag not in known:
                where = row_at(columns["source"], line[i] if isinstance(line, list) else line)
                raise ValueError(f"{where}: the tag {shown(tag)}; --label_names has names for 0 to {len(names) - 1}")
            tags[i] = known[tag]


def check_tags(columns: dict[str, Any], kind: Kind) -> None:
    """Raises ValueError for the first cell that is not a tag."""
    any_tag = kind.plain or kind.runs
    bad = {tag for tag in distinct(columns) if not (_PLAIN if any_tag else TAG).fullmatch(tag)}
    for words, tags, line in zip(columns["tokens"], columns["ner_tags"], columns["line"], strict=True):
        of_file = isinstance(line, list)
        # If a comment is read as a word, an invalid tag shows it. But with plain tags, every tag is valid.
        if any_tag and of_file and words[0] == "#":
            logger.warning(
                "%s: '#' is read as a word with the tag %s; if this line is a comment, remove it",
                row_at(columns["source"], line[0]),
                shown(tags[0]),
            )
        for i, tag in enumerate(tags if bad else ()):
            if tag in bad:
                where = row_at(columns["source"], line[i] if of_file else line)
                if not any_tag:
                    check_tag(words[i] if of_file else "", tag, where)
                raise ValueError(f"{where}: the tag {shown(tag)} is empty, breaks a line, or has a NUL in it")


def labels_of(declared: set[str], kind: Kind) -> set[str]:
    """The tags that declared names stand for; of entities one for each type, and names such as [PAD] for none."""
    if kind.plain:
        return {name for name in declared if _PLAIN.fullmatch(name)}
    tags = set(runs_to_iob2(sorted(declared))) if kind.runs else {name for name in declared if TAG.fullmatch(name)}
    return {f"B-{tag[2:]}" for tag in tags if tag != "O"}


def to_one_scheme(splits: dict[str, dict[str, Any]], runs: bool, asked: str) -> None:
    """Rewrites the tags of entities to IOB2, from the scheme that is asked for; `auto`: from each split's own."""
    if asked != "auto":
        for columns in splits.values():
            _check_prefixes(columns, asked)
            note_reading(columns["source"], scheme=asked)
            read_as = SCHEMES[asked].read_as
            columns["ner_tags"] = [to_iob2(tags, read_as) for tags in columns["ner_tags"]]
        return
    schemes = {}  # split -> scheme, if the split has an entity
    for split, columns in splits.items():
        sentences: Sequence[list[str]] = columns["ner_tags"]
        note_reading(columns["source"], scheme="types" if runs else written_scheme(sentences))
        if runs:
            columns["ner_tags"] = [runs_to_iob2(tags) for tags in sentences]
            continue
        scheme = detect_scheme(sentences)
        if any(tag != "O" for tags in sentences for tag in tags):
            schemes[split] = scheme
        columns["ner_tags"] = [to_iob2(tags, scheme) for tags in sentences]
    if len(set(schemes.values())) > 1:
        told = ", ".join(f"{split} {scheme}" for split, scheme in schemes.items())
        logger.warning("the splits have different tagging schemes; each split is read in its own scheme: %s", told)
    elif set(schemes.values()) - {"IOB2"}:
        logger.warning(
            "the tags are read as %s, by their prefixes (else give --tagging_scheme)", *set(schemes.values())
        )


def _check_prefixes(columns: dict[str, Any], scheme: str) -> None:
    for tags, line in zip(columns["ner_tags"], columns["line"], strict=True):
        for i, tag in enumerate(tags):
            if tag != "O" and tag[0] not in SCHEMES[scheme].prefixes:
                where = row_at(columns["source"], line[i] if isinstance(line, list) else line)
                raise ValueError(
                    f"{where}: {shown(tag)} is no tag of {scheme}, whose prefixes are {SCHEMES[scheme].prefixes}; "
                    "give another --tagging_scheme"
                )
