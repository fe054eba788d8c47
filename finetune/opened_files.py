"""Where inputs come from and answers go: a file, a folder, or the standard input and output."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from finetune.files import printable, remove, whole_file


@contextlib.contextmanager
def opened_input(name: str) -> Iterator[BinaryIO]:
    """A file, or the standard input."""
    try:
        # Not sys.stdin: a thread that waits for a line holds its lock, and the interpreter needs that lock to end.
        file = open(0 if name == "-" else name, "rb", closefd=name != "-")  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"--input_file {name}: {error.strerror}") from error
    yield file
    file.close()  # after an error it stays open, because a thread may still read it


@contextlib.contextmanager
def opened_output(name: str, folder: bool = False) -> Iterator[Any]:
    """The standard output, or a file or a folder that appears whole or not at all.

    Args:
        folder: whether the form is one of several files. Then `write` takes their names and contents.
    """
    if folder:
        with opened_folder(name) as several:
            yield several
        return
    if name == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        if sys.stdout.isatty():  # a terminal obeys control characters, so they are escaped; files get every character
            terminal: Any = SimpleNamespace(
                write=lambda text: sys.stdout.write(printable(text)), flush=sys.stdout.flush
            )
            yield terminal
            return
        yield sys.stdout
        return
    path = Path(os.path.realpath(name))  # if it is a link: the file that it points to
    if not name or path.is_dir():
        raise ValueError(f"--output_file {name}: {'give a file' if not name else 'this is a folder; give a file'}")
    if not path.parent.is_dir():
        raise ValueError(f"--output_file {name}: the folder {path.parent} does not exist")
    if path.exists() and not path.is_file():  # a pipe or a device is written to directly
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    with contextlib.ExitStack() as stack:
        try:
            whole = stack.enter_context(whole_file(path))
        except OSError as error:
            raise ValueError(f"--output_file {name}: {error.strerror}") from error
        yield whole


@contextlib.contextmanager
def opened_folder(name: str) -> Iterator[Any]:
    """A new folder. `write({"a.txt": "...", ...})` makes files in it. It gets its name when all are written."""
    path = Path(name)
    if name in ("", "-") or path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise ValueError(f"--output_file {name}: this form has several files; give a new or an empty folder")
    beside = path.with_name(f".{path.name}.writing")
    try:
        remove(beside)  # a process that was killed may have left one
        beside.mkdir()
    except OSError as error:
        raise ValueError(f"--output_file {name}: {error.strerror}") from error

    def write(files: dict[str, str]) -> None:
        for own, text in files.items():
            if Path(own).name != own or (beside / own).exists():
                raise ValueError(f"--output_file {name}: {own!r} is no name of a new file in it")
            (beside / own).write_text(text, encoding="utf-8", newline="\n")

    try:
        yield SimpleNamespace(write=write, flush=lambda: None)
        beside.replace(path)
    finally:
        remove(beside)
