"""What the offsets of a file count: code points, UTF-16 units, or grapheme clusters.

Python counts code points. JavaScript, Java and C# count UTF-16 units: there an emoji is two. So annotations that were
made in a browser may stand too far to the right, after each emoji by one. doccano has a setting to count grapheme
clusters, which are characters as people see them: a letter with its marks, a flag, a family of emoji.
"""

import bisect
from collections.abc import Sequence
from typing import Literal

import regex

Unit = Literal["auto", "code_points", "utf16", "graphemes"]
UNITS: dict[Unit, str] = {
    "code_points": "code points",
    "auto": "code points",
    "utf16": "UTF-16 units",
    "graphemes": "grapheme clusters",
}
_CLUSTER = regex.compile(r"\X")


def positions(text: str, unit: Unit) -> Sequence[int]:
    """The code point of each offset of a text, from 0 to its end.

    An offset in the middle of a code point has the number of the offset before it.
    """
    if unit == "utf16" and not (text.isascii() or max(text) < "\U00010000"):
        offsets = [i for i, character in enumerate(text) for _ in range(2 if character > "\uffff" else 1)]
        return [*offsets, len(text)]
    if unit == "graphemes" and not (text.isascii() and "\r\n" not in text):
        return [*(found.start() for found in _CLUSTER.finditer(text)), len(text)]
    return range(len(text) + 1)


def in_unit(begin: int, end: int, at: Sequence[int]) -> tuple[int, int]:
    """The offsets of `text[begin:end]` in the unit of a file.

    If the span begins or ends in the middle of a grapheme cluster, the whole cluster is taken.

    Args:
        at: what `positions` gives for the text.
    """
    first = bisect.bisect_left(at, begin)
    return first - (at[first] > begin), bisect.bisect_left(at, end)
