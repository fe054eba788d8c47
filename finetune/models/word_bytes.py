"""The bytes of words, for the character features of the baselines. This file imports no torch."""

from collections.abc import Sequence
from typing import Any


def word_bytes(encoding: Any, texts: Sequence[Any], split: bool, size: int) -> list[list[int]]:
    """The UTF-8 bytes of each token: `size` numbers, 0 after the last byte and for tokens that are no word.

    Args:
        encoding: of `tokenizers`.
        texts: what was encoded: a text, or a pair of them; with `split`, lists of words.
    """
    rows = []
    columns = (encoding.offsets, encoding.word_ids, encoding.sequence_ids, encoding.special_tokens_mask)
    for (begin, end), word, side, special in zip(*columns, strict=True):
        if special or side is None:
            rows.append([0] * size)
            continue
        source = texts[side][word] if split else texts[side]
        raw = source[begin:end].encode("utf-8", "surrogatepass")
        if len(raw) > size:
            raw = raw[: size // 2] + raw[-(size // 2) :]
        rows.append(list(raw.ljust(size, b"\0")))
    return rows
