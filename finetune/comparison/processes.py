"""The processes of a comparison: each run in one of its own, one after the other or several at a time."""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing import connection
from typing import Any

from finetune.comparison.runs import RunName
from finetune.files import printable


def train(recipe: Callable[[Any], Any], config: Any) -> str | None:
    """Runs the recipe in a new process, so that its peak memory is the run's own.

    Under `accelerate launch` with several processes, it runs in these. Its peak memory then includes earlier runs.

    Returns:
        None, or the reason why the run failed.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return _call(recipe, config)
    process, receiver, _ = _start(recipe, config)
    try:
        return _reason(process, receiver)
    except BaseException:  # such as Ctrl-C: the run finishes its step and saves, before anything else ends
        process.terminate()
        process.join()
        raise


def train_side_by_side(
    todo: Mapping[RunName, tuple[Callable[[Any], Any], Any]],
    jobs: int,
    tell: Callable[[RunName], None],
    ended: Callable[[RunName, str | None], None],
) -> None:
    """Runs so many recipes at a time. Each line of their output begins with the name of its run.

    An error or Ctrl-C here ends the processes: each finishes its step and saves, so that it can be continued.

    Args:
        tell: is called when a run starts.
        ended: is called when a run has ended, with the reason if it failed.
    """
    waiting = list(todo)
    running: dict[Any, tuple[RunName, int, Any, Any, threading.Thread]] = {}  # by what its result arrives at
    free = list(range(jobs))  # a run takes a place, and with it a GPU
    own_threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    threads = {} if "OMP_NUM_THREADS" in os.environ else own_threads
    print(f"{jobs} runs at a time, each with {(os.environ | threads)['OMP_NUM_THREADS']} thread(s)", flush=True)
    try:
        while waiting or running:
            while waiting and free:
                key, place = waiting.pop(0), free.pop(0)
                tell(key)
                running_at = _start(*todo[key], {**threads, **_gpu_of(place)}, f"[{key}] ")
                running[running_at[1]] = (key, place, *running_at)
            for receiver in connection.wait(list(running)):
                key, place, process, _, printer = running.pop(receiver)
                reason = _reason(process, receiver)
                printer.join(10)  # a worker of the run may hold its output for longer
                free.append(place)
                print(f"\n=== {key}: {'ended' if reason is None else 'failed'}", flush=True)
                ended(key, reason)
    finally:
        for _, _, process, _, _ in running.values():
            process.terminate()  # SIGTERM: a run that already stops because of Ctrl-C takes no notice of it
        for _, _, process, _, _ in running.values():
            process.join()


def _gpu_of(place: int) -> dict[str, str]:
    """The variable of the environment that gives a run its own GPU, if there are several; the next round shares."""
    import torch

    if not torch.cuda.is_available():
        return {}
    numbers = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    gpus = numbers.split(",")
    return {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]}


def _start(
    recipe: Callable[[Any], Any], config: Any, environment: Mapping[str, str] | None = None, prefix: str | None = None
) -> tuple[Any, Any, Any]:
    """Starts a run in a new process.

    Args:
        environment: variables for this process alone.
        prefix: what each line of its output begins with. None: it writes to the terminal itself.

    Returns:
        The process, where it sends the reason if it fails or else None, and the thread that prints its output.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    lines, output = spawn.Pipe(duplex=False) if prefix is not None else (None, None)
    process = spawn.Process(target=_tell, args=(sender, recipe, config, output))
    before = {name: os.environ.get(name) for name in environment or {}}
    try:
        os.environ |= environment or {}  # before the process starts, because OpenMP reads it when torch is loaded
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    sender.close()
    printer = None
    if output is not None:
        output.close()
        printer = threading.Thread(target=_print_lines, args=(lines, prefix), daemon=True)
        printer.start()
    return process, receiver, printer


def _reason(process: Any, receiver: Any) -> str | None:
    """Waits for the end of a run. Returns why it failed, or None."""
    try:
        reason: str | None = receiver.recv()
    except EOFError:
        process.join()
        reason = f"its process ended with exit code {process.exitcode}"
    process.join()
    return reason


def _print_lines(lines: Any, prefix: str) -> None:
    with open(lines.fileno(), encoding="utf-8", errors="replace", closefd=False) as file:
        for line in file:
            if line.strip():
                print(prefix + printable(line.rstrip()), flush=True)
    lines.close()


def _tell(sender: Any, recipe: Callable[[Any], Any], config: Any, output: Any = None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if output is not None:
        for number in (1, 2):  # also what libraries write there
            os.dup2(output.fileno(), number)
        output.close()
        sys.stdout = sys.stderr = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    try:
        sender.send(_call(recipe, config))
    except KeyboardInterrupt:  # the training has said where it stopped; multiprocessing would print a traceback
        raise SystemExit(130) from None


def _end_with_parent() -> None:
    """Ends this process when the comparison is killed, so that a new comparison can continue its run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(recipe: Callable[[Any], Any], config: Any) -> str | None:
    try:
        recipe(config)
    except Exception as error:  # after any error, the other runs should still run
        # All processes raise the same ValueError. After any other error, the other processes might wait for this one.
        if os.environ.get("WORLD_SIZE", "1") != "1" and not isinstance(error, ValueError):
            raise
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None
