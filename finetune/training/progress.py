"""Shows how far the training has come: a bar on a terminal, else a line once in a while."""

import sys
import time
from collections.abc import Callable
from typing import Any

from accelerate.utils import tqdm

EVERY = 60.0  # seconds from one line to the next


def progress_bar(print_line: Callable[[str], None], total: int, done: int, *, disable: bool) -> Any:
    """An object with the methods `update()`, `set_postfix()` and `close()` of a tqdm bar.

    A bar overwrites its own line. In a file or a pipe it would become one line for every step.

    Args:
        print_line: prints a line on the main process.
        total, done: the number of steps of the whole run, and of those that are done already.
    """
    if disable or _in_notebook() or sys.stderr.isatty():
        return tqdm(total=total, initial=done, desc="train", disable=disable, leave=False)
    return _Lines(print_line, total, done)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. A program that starts kernels has loaded ipykernel, too."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class _Lines:
    def __init__(self, print_line: Callable[[str], None], total: int, done: int) -> None:
        self.print_line, self.total, self.done = print_line, total, done
        self.begun_at, self.began = done, time.monotonic()
        self.last = self.began
        self.values: dict[str, Any] = {}

    def update(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.last >= EVERY and self.done < self.total:
            self.last = now
            left = (now - self.began) / (self.done - self.begun_at) * (self.total - self.done)
            told = "".join(f"  {name} {value}" for name, value in self.values.items())
            self.print_line(f"train: step {self.done:,} of {self.total:,}{told}  about {_spoken(left)} left")

    def set_postfix(self, *, refresh: bool = True, **values: Any) -> None:
        self.values = values

    def close(self) -> None:
        pass


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
