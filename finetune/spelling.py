"""Which known word a misspelt one may stand for."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], before: str = "") -> str:
    """`; did you mean --seed?` for a word that is similar to a known word, else the empty string.

    Args:
        before: the text before the known word, such as `--`.
    """
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7)
    return f"; did you mean {before}{names[found[0]]}?" if found else ""
