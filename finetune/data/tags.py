"""Tagging schemes: IOB1, IOB2, IOE1, IOE2 and IOBES in, IOB2 inside.

A tag is `O` or `<prefix>-<type>`.

| scheme | first word | inside | last word | single word |
|---|---|---|---|---|
| IOB2 | `B-` | `I-` | `I-` | `B-` |
| IOB1 (Ramshaw and Marcus, 1995) | `I-`, but `B-` after an entity of its type | `I-` | `I-` | as the first word |
| IOE2 (Tjong Kim Sang and Veenstra, 1999) | `I-` | `I-` | `E-` | `E-` |
| IOE1 (the same paper) | `I-` | `I-` | `I-`, but `E-` before an entity of its type | as the last word |
| IOBES (also BIOES, BMES, BILOU) | `B-` | `I-` or `M-` | `E-` or `L-` | `S-` or `U-` |

Whatever the scheme, a word goes on with the entity of the word before it if it has the same type, its own prefix is
`I-`, `M-`, `E-` or `L-`, and the prefix before it is `B-`, `I-` or `M-`; any other tag but `O` starts an entity. So
`E-` and `S-` end one. conlleval reads IOB and IOE like this, and seqeval's default mode IOBES as well. That mode does
not know the letters `U L M` and joins neighbours that have them; here they are read as `S E I`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Scheme = Literal["IOB1", "IOB2", "IOE", "IOBES"]

TAG = re.compile(r"O|[BIESULM]-[^\t\n\r\0]+")
_OUTSIDE = re.compile(r"O|X|PAD|\[.*\]|<.*>", re.DOTALL)
_UNDERSCORE = re.compile(r"([BIESULM])_(.+)", re.DOTALL)


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Tells the scheme of a data set.

    It is IOBES where a prefix for single or middle words occurs (`S- U- M-`), or `B-` beside one for last words
    (`E- L-`); IOE (1 or 2) where there are last words without `B-`. It is IOB1 where `I-` starts entities and no `B-`
    stands where IOB1 would not put one. Stray `I-` starts in an IOB2 data set do not make it IOB1.
    """
    prefixes: set[str] = set()
    starts_with_i = starts_with_b = False
    for tags in sentences:
        previous = "O"
        for tag in tags:
            if tag != "O":
                prefixes.add(tag[0])
                if previous[2:] != tag[2:]:
                    starts_with_b |= tag[0] == "B"
                    starts_with_i |= tag[0] == "I"
            previous = tag
    if prefixes & set("EL"):
        return "IOBES" if prefixes & set("BSUM") else "IOE"
    if prefixes & set("SUM"):
        return "IOBES"
    return "IOB1" if starts_with_i and not starts_with_b else "IOB2"


def to_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Rewrites one sentence's tags to IOB2, with the same entities.

    IOB2 and IOBES have a prefix for first words. Where it is missing, the tag breaks its scheme, and becomes an `I-`
    that starts an entity, so that strict scores do not count it. Right behind an entity of its type it becomes `B-`,
    since IOB2 has no other way to keep the two apart.
    """
    if scheme == "IOB2":
        return list(tags)
    result, previous = [], "O"
    for tag in tags:
        if tag == "O":
            result.append(tag)
        else:
            begins = tag[0] in "BSU"
            same = previous != "O" and previous[2:] == tag[2:]
            continues = same and not begins and previous[0] in "BIM"
            broken = scheme == "IOBES" and not same and not begins
            result.append(("I-" if continues or broken else "B-") + tag[2:])
        previous = tag
    return result


def runs_to_iob2(types: Sequence[str]) -> list[str]:
    """One sentence's tags without prefixes as IOB2: words in a row of one type are an entity, `O` and `_` none."""
    pairs = zip(["O", *types], types, strict=False)
    return ["O" if this in ("O", "_") else f"{'I' if this == before else 'B'}-{this}" for before, this in pairs]


def tags_of_labels(labels: Sequence[str]) -> list[str]:
    """Each label of a model as a tag, so that entities can be read from labels of any kind.

    - A label with a known prefix is a tag: `B-PER`. An underscore stands for the hyphen (`B_PER`) where the labels
      have two prefixes before one type (`B_PER` and `I_PER`).
    - `O`, `X`, `PAD` and labels in brackets (`[CLS]`, `<pad>`) are outside.
    - Any other label is a type of its own if one of the labels is `O`; words in a row that have it are one entity
      (`O PER LOC`). Without an `O` every word has a label, as with parts of speech, and such labels are outside.
    """
    pairs = {found.groups() for found in map(_UNDERSCORE.fullmatch, labels) if found}
    underscores = len({kind for _, kind in pairs}) < len(pairs)
    tags = []
    for label in labels:
        found = _UNDERSCORE.fullmatch(label) if underscores else None
        if found or TAG.fullmatch(label):
            tags.append("-".join(found.groups()) if found else label)
        else:
            tags.append("O" if _OUTSIDE.fullmatch(label) or "O" not in labels else f"I-{label}")
    return tags


def invalid_iob2(tags: Sequence[str]) -> int:
    """Counts the `I-` tags that do not continue an entity of their type."""
    pairs = zip(["O", *tags], tags, strict=False)
    return sum(tag[0] == "I" and previous[2:] != tag[2:] for previous, tag in pairs)
