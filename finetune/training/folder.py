"""A run's folder: which files in it a run wrote, and which process may write there now.

| file | holds |
|---|---|
| `.written` | the names of what the run wrote, one per line; `--overwrite_output_dir` removes nothing else |
| `.lock` | the process that writes there; the file is locked as long as that process lives |

A name is a path relative to the folder. `checkpoint-*` stands for every checkpoint, and for what is left of one.
"""

import errno
import fcntl
import logging
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from finetune.files import remove, write_text

logger = logging.getLogger(__name__)

TRACKED_AS = "finetune"  # the project's name for trackers, and TensorBoard's folder

_LIST, _LOCK = ".written", ".lock"
# What every run writes there, even if such a file exists already. recipes/compare.py writes `data.sha256`.
_ALWAYS = ("run.yaml", "history.jsonl", "all_results.json", "README.md", "data.sha256")
_UNFINISHED = re.compile(r"\.(.+)\.(writing|removing)")
_CHECKPOINT = re.compile(r"checkpoint-\d+(?:-weights)?(?=/|$)")
_locks: dict[tuple[int, Path], int] = {}  # (process id, file) -> open handle; a forked process has no lock


def note_written(folder: Path, names: Iterable[str] = ()) -> None:
    """Adds names to the list of what a run wrote. Called before the files are written."""
    listed = _listed(folder) or set()
    more = {_CHECKPOINT.sub("checkpoint-*", name) for name in (*_ALWAYS, *names)}
    if not more <= listed:
        write_text(folder / _LIST, "".join(f"{name}\n" for name in sorted(listed | more)))


def is_listed(folder: Path) -> bool:
    """Whether the folder has a list of what a run wrote there."""
    return _listed(folder) is not None


def holds_nothing(folder: Path) -> bool:
    """Whether the folder is empty, or holds only what a run leaves that was killed at its very beginning."""
    begun = {_LIST, _LOCK, f".{_LIST}.writing", ".run.yaml.writing"}
    return not folder.is_dir() or all(path.name in begun for path in folder.iterdir())


def not_written(folder: Path) -> Path | None:
    """A file, a link or an empty folder in `folder` that the list does not name; None if there is none."""
    listed = _listed(folder) or set()
    for path in sorted(folder.rglob("*")):
        full = path.is_dir() and not path.is_symlink() and any(path.iterdir())  # then its files are looked at
        if not full and not _is_own(path, path.relative_to(folder).as_posix(), listed):
            return path
    return None


def empty(folder: Path) -> None:
    """Removes what the list names. The list's own file goes last, so that a killed command can be repeated.

    Raises:
        ValueError: if the folder holds anything else; then nothing is removed.
    """
    if (foreign := not_written(folder)) is not None:
        raise ValueError(f"{foreign}: no run wrote this")
    last = ("run.yaml", _LIST)  # without its run.yaml, the folder counts as empty
    names = [path.name for path in sorted(folder.iterdir()) if path.name not in (*last, _LOCK)]
    for name in (*names, *last):
        remove_at_once(folder / name)


def remove_unfinished(folder: Path) -> None:
    """Removes what a run was writing or removing when it was killed."""
    listed = _listed(folder) or set()
    for path in folder.glob(".*") if folder.is_dir() else ():
        if _is_unfinished(path.name, listed):
            remove(path)


def remove_at_once(path: Path) -> None:
    """Removes a file or a folder. A folder is renamed first, so that no half of it remains under its name."""
    if path.is_symlink() or not path.is_dir():
        remove(path)
        return
    hidden = path.with_name(f".{path.name}.removing")
    remove(hidden)
    path.rename(hidden)
    remove(hidden)


def lock(folder: Path) -> None:
    """Keeps the folder for this process until `unlock`, or until the process ends in any way.

    It is a lock of the operating system on a file, for one process; its children do not inherit it. On NFS it holds
    across hosts if the server keeps locks. If a file system keeps no locks, a warning says so.

    Raises:
        ValueError: if another process has the lock.
    """
    path = folder.resolve() / _LOCK
    key = os.getpid(), path
    if key in _locks:
        return
    if path.is_symlink() or (path.exists() and not path.is_file()):
        remove(path)  # never through a link
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        if _locked(handle, folder):
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        _locks[key] = handle  # stays open: closing any handle of the file would end the lock
    finally:
        if key not in _locks:
            os.close(handle)


def check_unlocked(folder: Path) -> None:
    """Raises ValueError if another process has the lock. Changes nothing."""
    path = folder.resolve() / _LOCK
    if (os.getpid(), path) not in _locks and path.is_file() and not path.is_symlink():
        handle = os.open(path, os.O_RDWR)
        try:
            _locked(handle, folder)
        finally:
            os.close(handle)


def unlock(folder: Path) -> None:
    """Lets other processes write there. Does nothing if this process has no lock."""
    handle = _locks.pop((os.getpid(), folder.resolve() / _LOCK), None)
    if handle is not None:
        os.truncate(handle, 0)
        os.close(handle)


def _locked(handle: int, folder: Path) -> bool:
    """Locks an open file. Returns False if the file system keeps no locks."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            told = re.fullmatch(r"process \d+ on [\w.-]+", os.read(handle, 200).decode(errors="replace"))
            raise ValueError(
                f"--output_dir {folder}: another command is writing there{f' ({told.group()})' if told else ''}; "
                "wait for its end, or give another folder"
            ) from error
        logger.warning(
            "%s: this file system keeps no locks (%s); see to it that no other command writes there",
            *(folder, error.strerror),
        )
        return False
    return True


def _listed(folder: Path) -> set[str] | None:
    path = folder / _LIST
    if path.is_symlink() or not path.is_file():
        return None
    return set(path.read_text(encoding="utf-8", errors="replace").splitlines())


def _is_own(path: Path, name: str, listed: set[str]) -> bool:
    first, _, rest = name.partition("/")
    if first == TRACKED_AS and first in listed:  # its file names hold times and process ids
        last = rest.rpartition("/")[2]
        return not rest or last == "hparams.yml" or last.startswith("events.out.tfevents.")
    general = _CHECKPOINT.sub("checkpoint-*", name)
    return (
        name in (_LIST, _LOCK)
        or general in listed
        or (general == "checkpoint-*" and path.is_dir())
        or _is_unfinished(first, listed)
    )


def _is_unfinished(name: str, listed: set[str]) -> bool:
    found = _UNFINISHED.fullmatch(name)
    if found is None:
        return False
    known = {"checkpoint-*", "model", _LIST, *(path.partition("/")[0] for path in listed)}
    return _CHECKPOINT.sub("checkpoint-*", found.group(1)) in known
