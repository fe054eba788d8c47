"""Which process runs a trial, and whether that process still lives.

A claim is a file with the name of a host. Its process holds a lock of the operating system on it, and changes its
time every ten seconds. The process is dead if nobody holds the lock and either the host is this one, or the file is
older than two minutes. The second condition is for shared folders whose locks do not reach other hosts. Its age is
the difference of two times of the file server, so the clocks of the hosts do not matter.
"""

import fcntl
import os
import platform
import tempfile
import threading
from pathlib import Path

_EVERY, _OLD = 10.0, 120.0  # seconds
_held: dict[Path, int] = {}  # file -> open handle; closing any other handle of the file would end the lock
_stop = threading.Event()


def take(file: Path) -> bool:
    """Claims a trial for this process, until `release` or the end of the process.

    Returns:
        False if a process that may be alive has it.
    """
    file = file.absolute()
    if file in _held:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        locked = _lock(handle)
        if locked is False or not _is_abandoned(handle, file.parent, sure_here=locked is True):
            return False
        os.truncate(handle, 0)
        os.write(handle, platform.node().encode())
        _held[file] = handle
    finally:
        if file not in _held:
            os.close(handle)
    if len(_held) == 1:
        _stop.clear()
        threading.Thread(target=_keep_fresh, daemon=True).start()
    return True


def release(file: Path) -> None:
    """Gives a trial back. Does nothing if this process does not have it."""
    file = file.absolute()
    if (handle := _held.pop(file, None)) is not None:
        os.truncate(handle, 0)  # the file stays: another process may have opened it already
        os.close(handle)
    if not _held:
        _stop.set()


def _lock(handle: int) -> bool | None:
    """Locks an open file. Returns False if another process has the lock, and None if this file system keeps none."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _is_abandoned(handle: int, folder: Path, sure_here: bool) -> bool:
    """Whether the process that wrote the file is gone.

    Args:
        sure_here: whether the lock says so, if that process was on this host.
    """
    host = os.pread(handle, 300, 0).decode(errors="replace")
    if not host or (sure_here and host == platform.node()):  # empty: given back, or never taken
        return True
    with tempfile.NamedTemporaryFile(dir=folder) as now:
        return os.fstat(now.fileno()).st_mtime - os.fstat(handle).st_mtime > _OLD


def _keep_fresh() -> None:
    while not _stop.wait(_EVERY):
        for file in list(_held):
            try:
                os.utime(file)
            except OSError:  # the folder was removed
                continue
