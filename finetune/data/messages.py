"""What messages show of the data: a line of 10 MB or 100,000 names stay one sentence."""

from collections.abc import Sequence


def shown(value: object, limit: int = 60) -> str:
    """`repr(value)`, its middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 4 :]}"


def listed(names: Sequence[object], limit: int = 20) -> str:
    """The names with commas between them; of many, the first ones and how many more there are."""
    first = ", ".join(shown(name) for name in names[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit:,} more"
