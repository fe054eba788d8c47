"""Tagging schemes: reads IOB1, IOB2, IOE1, IOE2 and IOBES, and rewrites them to IOB2.

A tag is `O` or `<prefix>-<type>`.

| scheme | first word | inside | last word | single word |
|---|---|---|---|---|
| IOB2 | `B-` | `I-` | `I-` | `B-` |
| IOB1 (Ramshaw and Marcus, 1995) | `I-`, but `B-` after an entity of its type | `I-` | `I-` | as the first word |
| IOE2 (Tjong Kim Sang and Veenstra, 1999) | `I-` | `I-` | `E-` | `E-` |
| IOE1 (the same paper) | `I-` | `I-` | `I-`, but `E-` before an entity of its type | as the last word |
| IOBES (also BIOES, BMES, BILOU) | `B-` | `I-` or `M-` | `E-` or `L-` | `S-` or `U-` |

In every scheme, a word continues the entity of the word before it if three things are true: both have the same type,
its own prefix is `I-`, `M-`, `E-` or `L-`, and the prefix of the word before is `B-`, `I-` or `M-`. Any other tag
except `O` starts an entity. So an entity ends after `E-` and `S-`. conlleval reads IOB and IOE in this way, and
seqeval's default mode also reads IOBES so. That mode does not know the letters `U L M`, and joins neighbours with
them; here `U L M` are read as `S E I`.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Scheme = Literal["IOB1", "IOB2", "IOE", "IOBES"]

TAG = re.compile(r"O|[BIESULM]-[^\t\n\r\0]+")
_OUTSIDE = re.compile(r"O|X|PAD|\[.*\]|<.*>", re.DOTALL)
_UNDERSCORE = re.compile(r"([BIESULM])_(.+)", re.DOTALL)
# Zero-width characters, marks of direction, the soft hyphen and the byte-order mark are invisible in a label.
_UNSEEN = "".join(map(chr, [0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF]))


@functools.lru_cache(maxsize=10_000)
def plain_label(text: str) -> str:
    """Removes white space and invisible characters from a label's ends: `B-PER ` and `B-PER` are the same label."""
    return re.sub(rf"^[\s{_UNSEEN}]+|[\s{_UNSEEN}]+$", "", text)


@dataclass(frozen=True)
class Prefixes:
    """A scheme that `--tagging_scheme` names."""

    read_as: Scheme
    first: str
    inside: str
    last: str
    single: str
    also: str = ""  # a prefix beside those: where two entities of a type touch

    @property
    def prefixes(self) -> str:
        """Its letters."""
        return "".join(dict.fromkeys(self.first + self.inside + self.last + self.single + self.also))


SCHEMES = {
    "IOB1": Prefixes("IOB1", "I", "I", "I", "I", also="B"),
    "IOB2": Prefixes("IOB2", "B", "I", "I", "B"),
    "IOE1": Prefixes("IOE", "I", "I", "I", "I", also="E"),
    "IOE2": Prefixes("IOE", "I", "I", "E", "E"),
    "IOBES": Prefixes("IOBES", "B", "I", "E", "S"),
    "BILOU": Prefixes("IOBES", "B", "I", "L", "U"),
    "BMES": Prefixes("IOBES", "B", "M", "E", "S"),
}


def from_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """Writes the entities of one sentence in another scheme. `tags` are IOB2; an `I-` may start an entity.

    Args:
        scheme: a name in `SCHEMES`.
    """
    result, letters, ended = list(tags), SCHEMES[scheme], "O"  # the type of the entity that ends at the word before
    begin = 0
    while begin < len(tags):
        kind, end = tags[begin][2:], begin + 1
        if tags[begin] == "O":
            ended, begin = "O", end
            continue
        while end < len(tags) and tags[end] == f"I-{kind}":
            end += 1
        if end - begin == 1:
            written = [letters.single]
        else:
            written = [letters.first, *[letters.inside] * (end - begin - 2), letters.last]
        if scheme == "IOB1" and ended == kind:
            written[0] = "B"
        if scheme == "IOE1" and end < len(tags) and tags[end] == f"B-{kind}":
            written[-1] = "E"
        result[begin:end] = [f"{letter}-{kind}" for letter in written]
        ended, begin = kind, end
    return result


def detect_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Finds the scheme of a data set.

    - IOBES: there are prefixes for single or middle words (`S- U- M-`), or both `B-` and prefixes for last words
      (`E- L-`).
    - IOE (1 or 2): there are prefixes for last words, but no `B-`.
    - IOB1: some entity starts with `I-`, and each `B-` is at a place where IOB1 has one.
    - IOB2: else. So an IOB2 data set in which some entities start with `I-` by mistake is not read as IOB1.
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


def written_scheme(sentences: Sequence[Sequence[str]]) -> str:
    """The name in `SCHEMES` of the scheme that sentences are written in; IOB2 if these are no tags of entities."""
    found = {tag for tags in sentences for tag in tags}
    if not all(map(TAG.fullmatch, found)):
        return "IOB2"
    scheme, letters = detect_scheme(sentences), {tag[0] for tag in found}
    if scheme == "IOBES":
        return "BILOU" if letters & set("LU") else "BMES" if "M" in letters else "IOBES"
    if scheme == "IOE":
        return "IOE2" if all(from_iob2(to_iob2(tags, "IOE"), "IOE2") == list(tags) for tags in sentences) else "IOE1"
    return scheme


def to_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Rewrites the tags of one sentence to IOB2, with the same entities.

    IOB2 and IOBES have a prefix for the first word of an entity. If it is missing, the tag breaks its scheme. It then
    becomes an `I-` that starts an entity, so that strict scores do not count this entity. But directly after an
    entity of the same type it becomes `B-`, because IOB2 cannot separate the two in another way.
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
    """Rewrites the tags of one sentence from tags without prefixes to IOB2.

    Neighbouring words with the same tag are an entity. `O` and `_` are outside.
    """
    pairs = zip(["O", *types], types, strict=False)
    return ["O" if this in ("O", "_") else f"{'I' if this == before else 'B'}-{this}" for before, this in pairs]


def tags_of_labels(labels: Sequence[str]) -> list[str]:
    """Turns each label of a model into a tag, so that entities can be read from labels of any kind.

    - A label with a known prefix is a tag: `B-PER`. An underscore counts as a hyphen (`B_PER`) if some type has two
      prefixes (`B_PER` and `I_PER`).
    - `O`, `X`, `PAD` and labels in brackets (`[CLS]`, `<pad>`) are outside.
    - If one of the labels is `O`, any other label is a type, and neighbouring words with it are one entity
      (`O PER LOC`). Without an `O`, each word has a label, as with parts of speech. Then such labels are outside.
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
