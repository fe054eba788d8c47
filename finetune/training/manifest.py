"""`manifest.json`: size and SHA-256 of each file of a checkpoint. They show damage before anything is loaded.

    {"files": {"model.safetensors": {"size": 533796, "sha256": "5f70bf18..."}, ...}}

A manifest also comes from a disk and may be wrong. It may name plain files of its own folder and nothing else.
"""

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
NEEDED = (
    "model.safetensors",
    "optimizer.safetensors",
    "optimizer.json",
    "random.safetensors",
    "state.json",
    "history.jsonl",
)
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # neither a path, nor hidden, nor `..`
_MOST_BYTES = 2**20  # of a manifest


def write_manifest(folder: Path) -> None:
    """Writes `manifest.json` over the files that `folder` holds."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    files = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in paths}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=2) + "\n")


def damage(folder: Path, only: str | None = None) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if every file is as it was written.

    Files that the manifest does not name are not checked. Links are not followed.

    Args:
        only: the one file to check.
    """
    try:
        if not _is_file(folder / MANIFEST):
            return f"it has no {MANIFEST}, so nothing says whether it is whole"
        files = _files(folder / MANIFEST)
        for name, expected in files.items():
            if only not in (None, name):
                continue
            path = folder / name
            if not _is_file(path):
                return f"{name} is missing" if not path.is_symlink() and not path.exists() else f"{name} is no file"
            if path.stat().st_size != expected["size"]:
                return f"{name} has {path.stat().st_size:,} bytes and not {expected['size']:,}"
            if _sha256(path) != expected["sha256"]:
                return f"the SHA-256 of {name} is not the one in {MANIFEST}"
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    return None


def _files(path: Path) -> dict[str, dict[str, Any]]:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{MANIFEST} is larger than any that is written here")
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        named = [(name, entry["size"], entry["sha256"]) for name, entry in files.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} is not a list of files with their sizes and SHA-256") from error
    for name, size, digest in named:
        if not _PLAIN.fullmatch(name):
            raise ValueError(f"{MANIFEST} names {name[:100]!r}, which is not the plain name of a file beside it")
        if type(size) is not int or type(digest) is not str:
            raise ValueError(f"{MANIFEST} is not a list of files with their sizes and SHA-256")
    if absent := [name for name in NEEDED if name not in files]:
        raise ValueError(f"{MANIFEST} does not name {absent[0]}")
    return files


def _is_file(path: Path) -> bool:
    """Whether this is a regular file: not a link, and not a pipe or a device, which could block when opened."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
