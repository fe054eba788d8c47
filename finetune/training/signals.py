"""SIGTERM and Ctrl-C while a model trains: finish the step, save, and leave with the usual code.

Before the first step and after the last one, signals act as usual, since the loop does not ask for them then.

Python runs a signal's handler in the main thread, between two instructions. So the handler here only notes the
signal, and the loop asks for it after each step. With several processes, all get the same answer, even if the signal
reached only one of them. So all leave after the same step.
"""

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import psutil
import torch
from accelerate import Accelerator

from finetune.training.steps import read_numbers

_NOTED = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Signals:
    """The signals that came while the handlers were installed."""

    accelerator: Accelerator
    arrived: int = 0  # the number of the first signal that reached this process, or 0
    handled: bool = False

    def asked(self) -> list[int | torch.Tensor]:
        """How many processes got each signal, as `answer` expects it. All processes must call this together.

        With one process this reads an attribute. With several it is one sum over the processes, which stays on the
        device.
        """
        mine: list[int | torch.Tensor] = [int(self.arrived == noted) for noted in _NOTED]
        if self.is_free:
            return mine
        return list(self.accelerator.reduce(torch.tensor(mine).to(self.accelerator.device), "sum").unbind())

    def answer(self, times: Sequence[float]) -> int:
        """The number of a signal that any process got, or 0. The result is the same on all processes."""
        number = next((int(noted) for noted, count in zip(_NOTED, times, strict=True) if count), 0)
        self.handled = self.handled or number != 0
        return number

    @property
    def is_free(self) -> bool:
        """Whether `agreed` costs nothing: one process asks nobody."""
        return self.accelerator.num_processes == 1

    def agreed(self) -> int:
        """Asks and answers at once. With several processes this waits for the device."""
        return self.answer(read_numbers(self.asked()))


@contextmanager
def noted_signals(accelerator: Accelerator) -> Iterator[Signals]:
    """Notes SIGTERM and the first SIGINT instead of acting on them.

    A second SIGINT raises KeyboardInterrupt. If some code catches that and goes on, a third SIGINT kills the process.

    Nothing changes outside the main thread, where Python allows no handlers, and for a signal that this process was
    told to ignore. At the end the earlier handlers come back, and a signal that nobody asked about is sent again.
    """
    signals = Signals(accelerator)
    owner = os.getpid()

    def note(number: int, frame: Any) -> None:
        if os.getpid() != owner:  # a forked child: it ignores Ctrl-C, since the owner gets it too and handles it
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif number == signal.SIGINT and signals.arrived:
            signal.signal(number, signal.SIG_DFL)  # if some code catches the exception, the next Ctrl-C kills
            raise KeyboardInterrupt
        elif not signals.arrived:
            signals.arrived = number
            if accelerator.is_main_process:  # not print(): the signal may have come in the middle of a print()
                os.write(2, f"\n{name_of(number)}: stops after this step; Ctrl-C leaves at once\n".encode())

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _NOTED}
        before = {number: old for number, old in handlers.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, note)
        yield signals
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    if signals.arrived and not signals.handled:
        os.kill(owner, signals.arrived)


@functools.cache  # one thread for each process
def end_with_launcher() -> None:
    """Ends this process when a launcher above it is gone, for example killed with SIGKILL.

    Otherwise this process would train on and keep the run's folder locked, so that the run could not be resumed.
    """
    launchers = []
    process = psutil.Process().parent()
    while process is not None and _is_launcher(process):
        launchers.append(process)
        process = process.parent()

    def watch() -> None:
        while all(launcher.is_running() and launcher.status() != psutil.STATUS_ZOMBIE for launcher in launchers):
            time.sleep(0.5)
        os.write(2, b"the launcher is gone, so this process ends\n")
        os._exit(1)

    if launchers:
        threading.Thread(target=watch, daemon=True).start()


def _is_launcher(process: psutil.Process) -> bool:
    """Whether a process is `torchrun`, `accelerate launch` or `python -m` of their modules."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    if not words or not os.path.basename(words[0]).startswith("python"):
        return False
    program = next((word for word in words[1:] if not word.startswith("-")), "")
    modules = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch")
    return program in modules or os.path.basename(program) in ("torchrun", "accelerate", "accelerate-launch")


def name_of(number: int) -> str:
    """The signal's name for messages. SIGINT is called Ctrl-C."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def leave(number: int, sentence: str) -> NoReturn:
    """Ends the program after a signal.

    Raises:
        KeyboardInterrupt: for SIGINT; `finetune.cli.run` makes it exit status 130.
        SystemExit: with status 128 + number for another signal.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt(sentence)
    raise SystemExit(128 + number)
