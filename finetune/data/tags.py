"""Tagging schemes: IOB1, IOB2 and IOBES in, IOB2 inside.

A tag is `O` or `<prefix>-<type>`. IOB2 starts every entity with `B-`; IOB1 (Ramshaw and Marcus, 1995)
only where two entities of one type touch; IOBES, also known as BIOES, BMES and BILOU, marks single-word
entities (`S-`, `U-`) and last words (`E-`, `L-`) too.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Scheme = Literal["IOB1", "IOB2", "IOBES"]

TAG = re.compile(r"O|[BIESULM]-[^\t\n\r\0]+")
_ONLY_IN_IOBES = frozenset("SEULM")
_IOBES_TO_IOB2 = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I", "B": "B", "I": "I"}


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Tells the scheme of a data set.

    It is IOBES where an IOBES prefix occurs, and IOB1 where `I-` starts entities and no `B-` stands
    where IOB1 would not put one. Stray `I-` starts in an IOB2 data set do not make it IOB1.
    """
    starts_with_i = starts_with_b = False
    for tags in sentences:
        previous = "O"
        for tag in tags:
            if tag == "O":
                previous = tag
                continue
            if tag[0] in _ONLY_IN_IOBES:
                return "IOBES"
            continues = previous[2:] == tag[2:]
            if tag[0] == "B":
                starts_with_b |= not continues
            else:
                starts_with_i |= not continues
            previous = tag
    return "IOB1" if starts_with_i and not starts_with_b else "IOB2"


def to_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Rewrites one sentence's tags to IOB2. Tags that break their own scheme are kept, not repaired."""
    if scheme == "IOB2":
        return list(tags)
    if scheme == "IOBES":
        return [tag if tag == "O" else _IOBES_TO_IOB2[tag[0]] + tag[1:] for tag in tags]
    previous, result = "O", []
    for tag in tags:
        starts = tag[0] == "I" and previous[2:] != tag[2:]
        result.append("B" + tag[1:] if starts else tag)
        previous = tag
    return result


def invalid_iob2(tags: Sequence[str]) -> int:
    """Counts the `I-` tags that do not continue an entity of their type."""
    pairs = zip(["O", *tags], tags, strict=False)
    return sum(tag[0] == "I" and previous[2:] != tag[2:] for previous, tag in pairs)
