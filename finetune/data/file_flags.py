"""Checks the flags that say how files are written: encoding, what stands between columns, names of numbers."""

import codecs
from pathlib import Path

from finetune.data.conll import read_lines
from finetune.data.tags import plain_label


def check_encoding(name: str) -> str:
    """The name of an encoding of text as Python has it, such as `cp1252`.

    Raises:
        ValueError: for a name that is none.
    """
    try:
        known = codecs.lookup(name)
        b" ".decode(name, "replace")  # refuses codecs that are not of text, such as base64
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"--encoding {name}: Python knows no such encoding of text; give one such as utf-8, utf-16, latin-1, "
            "cp1252, shift_jis or gb18030"
        ) from error
    return "utf-8" if known.name in ("utf-8", "utf-8-sig") else known.name


_DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " "}


def check_delimiter(text: str | None) -> str | None:
    """The character that `--delimiter` names.

    Raises:
        ValueError: if it is not one character that can separate two cells.
    """
    found = _DELIMITERS.get(text or "", text)
    if found is not None and (len(found) != 1 or found in '\n\r\0"#' or found.isalnum()):
        raise ValueError(f"--delimiter {text!r}: one character is needed, such as ';' or ',', or tab or space")
    return found


def names_in(text: str) -> list[str]:
    """The names of the numbers 0, 1, 2 ...: those in a file with a name on each line, or names with commas between.

    Raises:
        ValueError: for an empty name, and for a name that comes twice.
    """
    is_file = Path(text).is_file()
    names = [plain_label(name) for name in (read_lines(text) if is_file else text.split(","))]
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            what = "is empty" if not name else f"is {name!r}, which has another number"
            raise ValueError(f"--label_names {text}: the name of {number} {what}")
    return names
