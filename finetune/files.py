"""Files that appear whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# But for the tab and the end of a line: escape sequences begin with these, and a terminal obeys them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Opens a UTF-8 file for writing; it is written beside its place, synced to the disk, and renamed.

    A link in its place is replaced, and never followed, since a folder may come from somebody else.

    Raises:
        OSError: where it cannot be written; what stood in its place stays.
    """
    beside = path.with_name(f".{path.name}.writing")
    remove(beside)  # of a process that was killed
    try:
        with beside.open("x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # of a write, which does not say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the disk has what was written to a file; of a folder: which files it holds."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def match_modes(folder: Path) -> None:
    """Gives a saved model's weights the mode of its config.json, which follows the umask; safetensors makes 0600."""
    mode = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that it holds, and of a link the link alone; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def printable(text: str) -> str:
    """A text for a terminal: what comes from a file must not steer it, so ESC is written `\\x1b`, for example."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def write_text(path: Path, text: str) -> None:
    """Writes a text as a whole file."""
    with whole_file(path) as file:
        file.write(text)
