"""Shortens data for messages, so that a line of 10 MB or 100,000 names still make one sentence."""

from collections.abc import Sequence


def shown(value: object, limit: int = 60) -> str:
    """`repr(value)`; if it is long, without its middle."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 4 :]}"


def listed(names: Sequence[object], limit: int = 20) -> str:
    """The names with commas between them. If there are many, the first ones and the number of the others."""
    first = ", ".join(shown(name) for name in names[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit:,} more"
