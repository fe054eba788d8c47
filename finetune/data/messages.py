"""Shortens data for messages, so that a line of 10 MB or 100,000 names still make one sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def shown(value: object, limit: int = 60) -> str:
    """`repr(value)`; if it is long, without its middle."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 4 :]}"


def source_name(source: Any) -> str:
    """Where data comes from: the path of its file; a data set has none."""
    return str(source) if isinstance(source, Path) else "the data set"


def encoding_hint(encoding: str, content: bytes = b"") -> str:
    """What would be right for a text that is not of that encoding.

    Args:
        content: the first bytes of the file, which show whether it is an archive.
    """
    if content.startswith(b"\x1f\x8b"):
        return "this is a file of gzip; unpack it first"
    if content.startswith(b"PK\x03\x04"):
        return "this is a zip archive, as a table of Excel is; save it as text"
    if encoding != "utf-8":
        return "give another --encoding"
    return "convert the file, for example with iconv, or give --encoding (such as cp1252) if the command has it"


def delimiter_hint(header: Sequence[str], delimiter: str | None) -> str:
    """Which `--delimiter` a table needs that seems to have one column because no delimiter was given; or nothing."""
    if delimiter is not None or len(header) != 1:
        return ""
    found = next((name for name, mark in _DELIMITERS.items() if mark in header[0]), None)
    return f" (is {found} between the columns? then give --delimiter {found}, if the command has it)" if found else ""


_DELIMITERS = {"';'": ";", "tab": "\t", "'|'": "|", "','": ","}


def listed(names: Sequence[object], limit: int = 20) -> str:
    """The names with commas between them. If there are many, the first ones and the number of the others."""
    first = ", ".join(shown(name) for name in names[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit:,} more"
