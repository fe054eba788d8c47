r"""Folders of brat: for each document `ID.txt`, and `ID.ann` with a line for each annotation.

    T1<TAB>Disease 43 76<TAB>adenomatous polyposis coli tumour

A line that begins with `T` is a span: its type, the offsets of its begin and end in the text, and its characters. It
may have several parts, as in `T2<TAB>Disease 0 5;16 23<TAB>colon cancers`. Other lines link spans or say more about
them (`R E A M N * #`). They are counted, but not read. https://brat.nlplab.org/standoff.html

Offsets count code points, and each line end of the text as it is in the file.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune.data.character_spans import Mark, MarkedText, Span
from finetune.data.conll import read_lines
from finetune.data.messages import shown
from finetune.data.offset_units import Unit, in_unit, positions
from finetune.files import remove

SPAN_LINE = re.compile(
    r"(T[^\t ]*)\t([^\t ]+) ([0-9]{1,12} [0-9]{1,12}(?:;[0-9]{1,12} [0-9]{1,12})*)\t([^\t]*)(?:\t.*)?"
)
_OTHER = re.compile(r"[REAMN*#]")


def read_brat(folder: Path) -> list[MarkedText]:
    """The documents of a folder and of the folders in it, sorted by their names.

    A text without an `.ann` file is not annotated.

    Raises:
        ValueError: naming file and line, for a line that is no annotation; for an `.ann` file without its text.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: brat has a folder of .txt and .ann files; give the folder")
    names = sorted(
        {path.with_suffix("") for path in folder.rglob("*") if path.suffix in (".txt", ".ann") and path.is_file()}
    )
    if not names:
        raise ValueError(f"{folder}: no .txt file in this folder")
    return [read_document(name, name.relative_to(folder).as_posix()) for name in names]


def read_document(name: Path, document: str) -> MarkedText:
    """A document: `name` with `.txt` and `.ann`. Raises ValueError as `read_brat`."""
    # Not `with_suffix`: the name of a document may have dots in it.
    text_file, mark_file = (name.with_name(name.name + ending) for ending in (".txt", ".ann"))
    if not text_file.is_file():
        raise ValueError(f"{mark_file}: its text {text_file.name} is missing")
    read_lines(text_file)  # it refuses what is no text
    text = text_file.read_bytes().decode("utf-8")  # as it is: a byte-order mark and both characters of CR LF count
    annotated = mark_file.is_file()
    marks, others = [], Counter[str]()
    for number, line in enumerate(read_lines(mark_file) if annotated else (), start=1):
        if found := SPAN_LINE.fullmatch(line):
            parts = [tuple(map(int, part.split())) for part in found[3].split(";")]
            marks.append(Mark(found[2], tuple((begin, end) for begin, end in parts), found[4], number))
        elif _OTHER.match(line):
            others[line[0]] += 1
        elif line.strip():
            raise ValueError(
                f"{mark_file}:{number}: {shown(line)} is no annotation; a span is T1<TAB>Type 0 5<TAB>characters"
            )
    source = mark_file if annotated else text_file
    return MarkedText(text, marks, document, source, 1, annotated, others=others)


def brat_lines(text: str, spans: Iterable[Span], at: Sequence[int]) -> str:
    """The content of an `.ann` file. As in brat, a span that goes over the end of a line has a part for each line.

    Args:
        at: the positions of the unit of the offsets (`offset_units.py`).
    """
    lines = []
    for number, span in enumerate(spans, start=1):
        pieces = re.finditer(r"[^\r\n]*[^\s][^\r\n]*", text[span.begin : span.end])
        parts = [(span.begin + piece.start(), span.begin + piece.end()) for piece in pieces]
        offsets = ";".join("{} {}".format(*in_unit(begin, end, at)) for begin, end in parts)
        said = " ".join(text[begin:end] for begin, end in parts).replace("\t", " ")
        lines.append(f"T{number}\t{span.kind.replace(' ', '_')} {offsets}\t{said}\n")
    return "".join(lines)


def write_brat(
    target: Path, texts: Sequence[MarkedText], spans: Iterable[Sequence[Span]], folder: Path, unit: Unit
) -> None:
    """Writes a folder that brat opens: the texts and the settings of `folder`, and new `.ann` files.

    Raises:
        ValueError: if there is something at `target`. Nothing is half written.
    """
    refuse_to_replace(target)
    beside = target.with_name(f".{target.name}.writing")
    remove(beside)
    try:
        beside.mkdir(parents=True)
        for settings in folder.glob("*.conf"):
            shutil.copyfile(settings, beside / settings.name)
        for marked, found in zip(texts, spans, strict=True):
            name = beside / marked.document
            name.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / f"{marked.document}.txt", f"{name}.txt")
            lines = brat_lines(marked.text, found, positions(marked.text, unit))
            Path(f"{name}.ann").write_text(lines, encoding="utf-8", newline="\n")
        os.replace(beside, target)
    finally:
        remove(beside)


def refuse_to_replace(target: Path) -> None:
    """Raises ValueError if a folder cannot be written here, since something else is there."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"--output_file {target}: this is there already; brat needs a new folder")
