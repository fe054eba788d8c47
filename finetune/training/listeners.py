"""Tells somebody outside the loop how a training goes, such as a search, which may end it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, Mapping[str, float]], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told_evaluations(listener: Listener) -> Iterator[None]:
    """While this lasts, `listener` is called by every training of this process.

    Args:
        listener: is called with the share of the steps that are done, and the scores of an evaluation, such as
            `eval_f1`. The first call has no scores: all checks are done then, and nothing is written yet. An
            exception that it raises ends the training, and comes out of the recipe.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(share: float, scores: Mapping[str, float]) -> None:
    """Calls the listener, if there is one."""
    if (listener := _listener.get()) is not None:
        listener(share, scores)
