"""Files that appear whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# Control characters except the tab and the end of a line. A terminal obeys escape sequences, which begin with one.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Opens a UTF-8 file for writing. It gets a temporary name, is synced to the disk, and is then renamed.

    If `path` is a link, the link is replaced, not the file that it points to: a folder may come from a stranger.

    Raises:
        OSError: if it cannot be written. A file that was there before stays as it was.
    """
    beside = path.with_name(f".{path.name}.writing")
    remove(beside)  # a process that was killed may have left one
    try:
        with beside.open("x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # the error of a write does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the disk has the content of a file; for a folder, its list of files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def match_modes(folder: Path) -> None:
    """Gives the weights of a saved model the file mode of its config.json, which follows the umask.

    safetensors writes them with the mode 0600.
    """
    mode = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with its content. Does nothing if there is none.

    If `path` is a link, the file or folder that it points to stays.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def printable(text: str) -> str:
    """A text for a terminal, with control characters as escapes. ESC becomes `\\x1b`: text of a file is then safe."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def write_text(path: Path, text: str) -> None:
    """Writes a text to a file, whole or not at all."""
    with whole_file(path) as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes to a file, whole or not at all."""
    with whole_file(path) as file:
        file.buffer.write(content)
