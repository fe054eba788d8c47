"""How files were read: in which form, with which columns and encoding. A file is corrected as it was read."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_readings: ContextVar[dict[str, dict[str, Any]] | None] = ContextVar("readings", default=None)


@contextmanager
def keeping_readings() -> Iterator[dict[str, dict[str, Any]]]:
    """While this lasts, the dictionary gets for each file that is read how it is read; all values fit into JSON."""
    kept: dict[str, dict[str, Any]] = {}
    token = _readings.set(kept)
    try:
        yield kept
    finally:
        _readings.reset(token)


def note_reading(source: Any, **how: Any) -> None:
    """Says how a file is read. What was said of it before stays, unless it has another value now."""
    kept = _readings.get()
    if kept is not None and isinstance(source, Path):
        kept.setdefault(str(source), {}).update(how)
