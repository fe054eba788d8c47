"""Corrects labels in files: a patch says which; the corrected files are new ones.

A patch is a file of JSON lines, one for each sample:

| key | |
|---|---|
| `accept` | `true` applies the line; a person sets it |
| `file`, `line` | where the sample is; a negative line is the number of a row, counted from 1 |
| `sentence` | if sentences of longer texts are samples: the number of the sentence in its text, from 1 on |
| `text` | the sample, for the reader |
| `changes` | each with `label` and `new_label`; of tagged words also `word` (counted from 0) and `token` |
| `read` | how the file was read (`finetune.data.readings`); null: it was no file |

Tags of entities are in IOB2 in a patch, and in the file's own scheme or as spans in the file. A file is read again as
it was read before, and all that is not changed is written byte for byte.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.checking.patched_brat import with_brat_spans
from finetune.checking.patched_labels import with_labels
from finetune.checking.patched_records import with_spans_of_records
from finetune.checking.patched_tags import with_tags_of_patch
from finetune.data.conll import COMMENTS, read_lines
from finetune.data.file_flags import check_delimiter, check_encoding
from finetune.data.tags import SCHEMES
from finetune.files import remove, write_bytes, write_text

Records = list[tuple[str, dict[str, Any]]]  # lines of a patch, each with its place

# What says how a file was read, and the types of its values.
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("form", "kind", "encoding", "comments", "folder", "nested", "span_offsets", "scheme"), str),
    **dict.fromkeys(("words", "tags", "sentences", "delimiter", "column_names", "separator"), str | None),
    "labels": list,
    "label_names": list | None,
    "split_sentences": bool,
}
_TABLE = {"encoding", "delimiter", "column_names"}
_OF_WORDS = _TABLE | {"words", "tags", "comments", "sentences", "label_names", "scheme"}
_OF_SPANS = {"folder", "nested", "span_offsets", "split_sentences"}
# A form -> what corrects its files, and what has to be known of how they were read.
_FORMS: dict[str, tuple[Callable[[Path, Mapping[str, Any], Records], bytes], set[str]]] = {
    "texts": (with_labels, _TABLE | {"labels", "kind", "separator"}),
    "conll": (with_tags_of_patch, _OF_WORDS),
    "conllu": (with_tags_of_patch, _OF_WORDS),
    "table": (with_tags_of_patch, _OF_WORDS),
    "lists": (with_tags_of_patch, _OF_WORDS),
    "brat": (with_brat_spans, _OF_SPANS),
    "doccano": (with_spans_of_records, _OF_SPANS),
    "label_studio": (with_spans_of_records, _OF_SPANS),
    "spacy": (with_spans_of_records, _OF_SPANS),
}
_BRAT_ENDINGS = (".txt", ".ann", ".conf")


def apply_patch(patch: Path, folder: Path) -> dict[str, int]:
    """Writes each file that accepted lines of a patch correct to a folder, under its own name. Nothing else changes.

    A folder of brat is written whole, with the files that were right.

    Returns:
        The number of changed labels by the file or folder that was written.

    Raises:
        ValueError: naming the line of the patch, if it is broken, if the file does not have the label that the patch
            says, or if the file would be written over. Then no file is written.
    """
    by_file: dict[str, Records] = {}
    for number, line in enumerate(_lines(patch), start=1):
        if line.strip():
            where = f"{patch}:{number}"
            record = _record(line, where)
            if record["accept"]:
                by_file.setdefault(record["file"], []).append((where, record))
    if not by_file:
        raise ValueError(f'{patch}: no line of it is accepted; set "accept": true in those that are right')
    corrected: dict[
        Path, bytes | dict[Path, bytes]
    ] = {}  # the content of a file, or of the changed files of a folder
    sources: dict[Path, Path] = {}
    changes: dict[Path, int] = {}
    for name, records in by_file.items():
        where, first = records[0]
        source = file = Path(name)
        _check_file(file, first["read"], where)
        if first["read"]["form"] == "brat":
            source = Path(first["read"]["folder"])
            if source not in file.parents:
                raise ValueError(f"{where}: {file} is not in the folder {source}")
        content = _FORMS[first["read"]["form"]][0](file, first["read"], records)
        target = folder / (source.name or source.resolve().name)
        if target.exists():
            raise ValueError(f"{target}: exists already; give another --output_dir")
        if sources.setdefault(target, source) != source:
            raise ValueError(f"{where}: {sources[target]} and {source} have one name; apply them from two patches")
        if source == file:
            corrected[target] = content
        else:
            files = corrected.setdefault(target, {})
            assert isinstance(files, dict)
            files[file.relative_to(source)] = content
        changes[target] = changes.get(target, 0) + sum(len(record["changes"]) for _, record in records)
    folder.mkdir(parents=True, exist_ok=True)
    for target, new in corrected.items():
        if isinstance(new, bytes):
            write_bytes(target, new)
        else:
            _write_folder(target, sources[target], new)
    return {str(target): number for target, number in changes.items()}


def keep_accepted(path: Path) -> None:
    """Raises ValueError if somebody has accepted changes of the patch at `path`, so that it is not replaced."""
    if path.is_file() and any(re.search(r'"accept"\s*:\s*true', line) for line in read_lines(path)):
        raise ValueError(f"{path}: has changes that are accepted; apply it, or give another --output_dir")


def write_patch(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Writes a patch."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _lines(patch: Path) -> list[str]:
    if not patch.is_file():
        raise ValueError(f"--apply {patch}: no such file")
    return read_lines(patch)


def _record(line: str, where: str) -> dict[str, Any]:
    keys = "accept, file, line, read (as the check wrote it) and changes, each change with label and new_label"
    try:
        record = json.loads(line)
        good = isinstance(record["accept"], bool) and isinstance(record["file"], str)
        good = good and isinstance(record["line"], int) and isinstance(record.get("sentence", 1), int)
        good = good and isinstance(record["changes"], list) and bool(record["changes"])
        good = good and all({"label", "new_label"} <= one.keys() for one in record["changes"])
        how = record["read"]
        if good and how is not None:
            of_words = how["form"] != "texts"
            good = _FORMS[how["form"]][1] <= how.keys() and _as_written(how)
            good = good and (of_words or len(record["changes"]) == 1)  # a text has its labels in one change
            good = good and all(
                isinstance(one.get("word"), int) and isinstance(one.get("token"), str)
                if of_words
                else "word" not in one
                for one in record["changes"]
            )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: not a line of a patch, which has {keys}") from error
    if not good:
        raise ValueError(f"{where}: not a line of a patch, which has {keys}")
    found: dict[str, Any] = record
    return found


def _as_written(how: Mapping[str, Any]) -> bool:
    """Whether the values of `read` are such as a check writes."""
    if any(not isinstance(value, _KINDS[key]) for key, value in how.items()):
        return False
    if "encoding" in how:
        check_encoding(how["encoding"])
        check_delimiter(how["delimiter"])
    known = how.get("scheme", "plain") in {"plain", "types", *SCHEMES} and how.get("comments", "auto") in COMMENTS
    return known and how.get("labels") != []


def _check_file(file: Path, how: Mapping[str, Any] | None, where: str) -> None:
    if how is None:
        raise ValueError(f"{where}: {file}: only a file can be corrected; save this data as one, and check that")
    if not file.exists():
        raise ValueError(f"{where}: {file}: no such file")
    if file.is_dir():
        raise ValueError(
            f"{where}: {file}: a folder of save_to_disk cannot be corrected; write it with to_parquet, and check that"
        )


def _write_folder(target: Path, source: Path, changed: Mapping[Path, bytes]) -> None:
    """Writes a folder of brat, whole or not at all."""
    beside = target.with_name(f".{target.name}.writing")
    remove(beside)
    try:
        for path in sorted(path for path in source.rglob("*") if path.suffix in _BRAT_ENDINGS and path.is_file()):
            name = path.relative_to(source)
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            if name in changed:
                (beside / name).write_bytes(changed[name])
            else:
                shutil.copyfile(path, beside / name)
        os.replace(beside, target)
    finally:
        remove(beside)
