"""The entities of a sentence's tags. This file imports nothing, since predictions without torch need it."""

from collections.abc import Sequence

Span = tuple[int, int, str]  # of an entity: its first word, the one after its last, its type


def entity_spans(tags: Sequence[str], *, strict: bool = False) -> list[Span]:
    """The entities of one sentence's IOB1 or IOB2 tags, as conlleval finds them, in order.

    Args:
        strict: only those that start with `B-`.
    """
    spans: list[Span] = []
    begin, kind, proper = 0, None, False
    for word, tag in enumerate([*tags, "O"]):
        prefix, _, this = tag.partition("-")
        if kind is not None and not (prefix == "I" and this == kind):
            if proper or not strict:
                spans.append((begin, word, kind))
            kind = None
        if kind is None and tag != "O":
            begin, kind, proper = word, this, prefix == "B"
    return spans
