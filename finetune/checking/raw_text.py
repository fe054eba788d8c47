"""The text of a file as it is: its byte-order mark, the end of each line, its encoding. What is not changed stays."""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from finetune.data.conll import read_lines

_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n)|([^\r\n]+)")
_MARK = "\ufeff"
_WITH_MARK = {  # codecs that write a mark of their own, and which one reads a file that begins with these bytes
    "utf-16": ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
    "utf-32": ((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
}


@dataclass
class RawText:
    """The lines of a file, with the numbers that `read_lines` gives them, less one."""

    path: Path
    lines: list[str]  # without their ends
    ends: list[str]  # "\n", "\r\n", "\r"; the last may be ""
    mark: str
    codec: str

    @property
    def text(self) -> str:
        """The text without its byte-order mark."""
        return "".join(line + end for line, end in zip(self.lines, self.ends, strict=True))

    def insert(self, at: int, line: str) -> None:
        """Puts a line before the line with this number. If the file does not end with a line end, it stays so."""
        end = next((end for end in self.ends if end), "\n")
        if at == len(self.lines) and self.ends and not self.ends[-1]:
            self.ends[-1], end = end, ""
        self.lines.insert(at, line)
        self.ends.insert(at, end)

    def encoded(self, text: str | None = None) -> bytes:
        """The bytes of the file, or of another text in its place.

        Raises:
            ValueError: for a label with a character that the encoding does not have.
        """
        try:
            return (self.mark + (self.text if text is None else text)).encode(self.codec)
        except UnicodeEncodeError as error:
            found = error.object[error.start : error.end]
            raise ValueError(f"{self.path}: {found!r} of a new label cannot be written in {self.codec}") from error


def read_raw(path: Path, encoding: str = "utf-8") -> RawText:
    """Reads a file so that it can be written again byte for byte.

    Args:
        encoding: as `check_encoding` gives it.

    Raises:
        ValueError: as `read_lines`, and if other bytes would be written.
    """
    read_lines(path, encoding=encoding)  # it refuses what is no text
    raw = path.read_bytes()
    codec = next((one for mark, one in _WITH_MARK.get(encoding, ()) if raw.startswith(mark)), encoding)
    text = raw.decode(codec)
    if text.encode(codec) != raw:
        raise ValueError(f"{path}: in {encoding}, one text has several forms in bytes; convert the file to UTF-8")
    mark = _MARK if text.startswith(_MARK) else ""
    found = [(line or rest, end) for line, end, rest in _LINE.findall(text[len(mark) :])]
    return RawText(path, [line for line, _ in found], [end for _, end in found], mark, codec)
