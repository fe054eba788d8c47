"""Public data sets by their names, from their publishers, as the configs expect them under data/.

finetune fetch wnut17
finetune fetch sst2 sick --data_dir /somewhere/data
finetune fetch --list true

Every file is checked against its SHA-256 before it appears. What is there already, with the right bytes, stays; a
download that was cut goes on where it stopped.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import gzip
import hashlib
import http.client
import io
import json
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune import cli
from finetune.arguments import flag
from finetune.files import printable, write_text
from finetune.spelling import did_you_mean
from recipes.public_data import DATA_SETS, Wanted, split_articles

LARGEST = 200_000_000  # bytes of a download, and of a file that it holds
SECONDS = 60  # until a server that says nothing is given up


@dataclass
class FetchConfig:
    """All flags of this recipe."""

    data_sets: str = flag(
        "", "Comma-separated names of data sets, or all. They may also stand first, without a flag."
    )
    data_dir: str = flag("data", "The folder under which the configs look for data.")
    mirror: str = flag(
        "", "Fetch from MIRROR/HOST/PATH instead of https://HOST/PATH. https, or http on this machine alone."
    )
    list: bool = flag(False, "Only list the data sets, with their licences.")


def fetch(config: FetchConfig) -> list[Path]:
    """Fetches data sets. Returns the files and folders that are there now.

    Raises:
        ValueError: for an unknown name, a server that does not answer, and a file with other bytes than expected.
    """
    # 1. Check the flags.
    names = [name.strip() for name in config.data_sets.split(",") if name.strip()]
    names = list(DATA_SETS) if names == ["all"] else names
    for name in names:
        if name not in DATA_SETS:
            hint = did_you_mean(name, DATA_SETS) or f"; choose from {', '.join(DATA_SETS)}"
            raise ValueError(f"--data_sets: unknown data set {name!r}{hint}")
    if config.list:
        for name, data_set in DATA_SETS.items():
            print(f"{name:13s}{data_set.licence:45s}{data_set.home}")
        return []
    if not names:
        raise ValueError(f"--data_sets is missing: give all, or some of {', '.join(DATA_SETS)}")
    check_address(config.mirror or "https://x", "--mirror")
    folder = Path(config.data_dir)

    # 2. Fetch what is not there.
    there = []
    for name in names:
        print(f"{name}: {DATA_SETS[name].home}, licence: {DATA_SETS[name].licence}")
        fetched: set[str] = set()  # an archive with several files is fetched once
        there += [get(wanted, folder, config.mirror, fetched) for wanted in DATA_SETS[name].files]
        for leftover in {partial(wanted, folder) for wanted in DATA_SETS[name].files}:
            leftover.unlink(missing_ok=True)

        # 3. Make the splits that the publisher does not have.
        if name == "xquad":
            there += split_questions(folder)
    return there


def get(wanted: Wanted, folder: Path, mirror: str, fetched: set[str]) -> Path:
    """A file or folder of a data set: what is there stays, if it has the right bytes; otherwise it is fetched.

    Args:
        fetched: addresses whose download is complete; this one is added.

    Raises:
        ValueError: if it cannot be fetched, or has other bytes than expected. Then nothing new is there.
    """
    path = folder / wanted.path
    if path.exists():
        found = folder_digest(read_folder(path)) if wanted.folder else digest(path.read_bytes())
        if found != wanted.sha256:
            raise ValueError(f"{path}: it is there, but with other bytes than the published one; move it away first")
        print(f"  {path}: there already")
        return path
    part = partial(wanted, folder)
    part.parent.mkdir(parents=True, exist_ok=True)
    for again in (True, False):
        begun = part.exists()
        if wanted.url not in fetched:
            download(address(wanted.url, mirror), part)
            fetched.add(wanted.url)
        try:
            files = unpacked(wanted, part)
        except (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            files, said = {}, f"cannot be unpacked ({type(error).__name__}: {error})"
        else:
            found = folder_digest(files) if wanted.folder else digest(files[""])
            said = f"has the SHA-256 {found}, but {wanted.sha256} was expected; the publisher has changed it"
            if found == wanted.sha256:
                break
        part.unlink()
        fetched.discard(wanted.url)
        if not (
            begun and again
        ):  # a download that was continued may have changed in between: once more, from the start
            raise ValueError(f"{wanted.url}: {wanted.member or 'the file'} {said}")
    write(path, files)
    print(f"  {path}: fetched, SHA-256 {wanted.sha256[:12]}…")
    return path


def write(path: Path, files: dict[str, bytes]) -> None:
    """Writes a file (its name is empty), or a folder of files, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if "" in files:
        write_text(path, files[""].decode("utf-8"))
        return
    beside = path.with_name(f".{path.name}.writing")
    beside.mkdir(exist_ok=True)
    for name, content in files.items():
        write_text(beside / name, content.decode("utf-8"))
    beside.replace(path)


def unpacked(wanted: Wanted, part: Path) -> dict[str, bytes]:
    """The files of a download by their names; the name of a single file is empty.

    Nothing is written by a name that stands in an archive: a member is looked for by the name that we know.
    """
    content = part.read_bytes()
    if not wanted.member:
        if wanted.url.endswith(".gz"):
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(LARGEST + 1)
        return {"": limited(content, wanted)}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pattern = f"{wanted.member}/*" if wanted.folder else wanted.member
        found = [info for info in archive.infolist() if fnmatchcase(info.filename, pattern) and not info.is_dir()]
        found = [info for info in found if info.filename.count("/") == pattern.count("/")]
        if not found or sum(info.file_size for info in found) > LARGEST:
            raise KeyError(f"{len(found)} files match {pattern}, or they are too large")
        files = {Path(info.filename).name if wanted.folder else "": archive.read(info) for info in found}
        return {name: limited(content, wanted) for name, content in files.items()}


def limited(content: bytes, wanted: Wanted) -> bytes:
    """The content of a file. Raises ValueError if it is too large, or not UTF-8."""
    if len(content) > LARGEST:
        raise ValueError(f"{wanted.url}: more than {LARGEST:,} bytes")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{wanted.url}: not UTF-8 ({error})") from error
    return content


class _OnlySafe(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to an address that could have been given."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, part: Path) -> None:
    """Downloads to a file. If it has a beginning, only the rest is asked for."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "finetune-recipes"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.build_opener(_OnlySafe).open(request, timeout=SECONDS) as answer:
            mode, size = ("ab", have) if answer.status == 206 else ("wb", 0)
            with part.open(mode) as file:
                while block := answer.read(1 << 16):
                    size += len(block)
                    if size > LARGEST:
                        raise ValueError(f"{url}: more than {LARGEST:,} bytes")
                    file.write(block)
            expected = answer.headers.get("Content-Length")
            if expected and part.stat().st_size != int(expected) + (have if mode == "ab" else 0):
                raise http.client.IncompleteRead(b"")
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the beginning is already the whole
            return
        raise ValueError(f"{url}: the server says {error.code} {printable(str(error.reason))}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"{url}: {printable(str(error)) or type(error).__name__}; run it again to go on") from error


def check_address(url: str, where: str) -> None:
    """Raises ValueError for an address that is neither https nor http on this machine."""
    parts = urlsplit(url)
    here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise ValueError(f"{where}: {printable(url)} is not https")


def address(url: str, mirror: str) -> str:
    """Where a file is fetched from."""
    return f"{mirror.rstrip('/')}/{url.removeprefix('https://')}" if mirror else url


def partial(wanted: Wanted, folder: Path) -> Path:
    """The file of a download that is not finished. Files of one archive share it."""
    return folder / f".{digest(wanted.url.encode())[:16]}.part"


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def read_folder(path: Path) -> dict[str, bytes]:
    """The files of a folder by their names."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def folder_digest(files: dict[str, bytes]) -> str:
    """SHA-256 of the lines that `sha256sum *` prints in the folder, sorted by name."""
    return digest("".join(f"{digest(files[name])}  {name}\n" for name in sorted(files)).encode())


def split_questions(folder: Path) -> list[Path]:
    """Splits XQuAD by article into data/xquad_split, the same articles in every language."""
    there = []
    for path in sorted((folder / "xquad").glob("xquad.*.json")):
        language = path.name.split(".")[1]
        for side, articles in split_articles(json.loads(path.read_text(encoding="utf-8"))["data"]).items():
            to = folder / f"xquad_split/{language}.{side}.json"
            if not to.exists():
                to.parent.mkdir(parents=True, exist_ok=True)
                write_text(to, json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False))
            there.append(to)
    print(f"  {folder / 'xquad_split'}: {len(there)} files")
    return there


def parse(argv: Sequence[str] | None = None) -> FetchConfig:
    """The config from the command line; names that stand first are data sets."""
    words = list(sys.argv[1:] if argv is None else argv)
    names = []
    while words and not words[0].startswith("-"):
        names.append(words.pop(0))
    return cli.parse(FetchConfig, [*([f"--data_sets={','.join(names)}"] if names else []), *words])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    cli.run(fetch, parse(argv))


if __name__ == "__main__":
    main()
