"""Checks the flags that say how text files are written: their encoding, and what stands between two columns."""

import codecs


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
