"""CoNLL column files: a word a line, an empty line between sentences."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.messages import shown
from finetune.data.tags import TAG
from finetune.files import whole_file

CONLL_ENDINGS = (".conll", ".conll03", ".conllu", ".bio", ".iob", ".iob2", ".iobes", ".txt")


@dataclass
class Sentences:
    """Words and tags by sentence; word i of sentence s stands on line `lines[s] + i` of the file."""

    words: list[list[str]]
    tags: list[list[str]]
    lines: list[int]


def read_conll(
    path: str | os.PathLike[str], word_column: int = 0, tag_column: int = -1, *, written_here: bool = False
) -> Sentences:
    """Reads a column file as it is.

    Columns are separated by tabs where the first word line has one, else by runs of spaces; every word
    line has as many as the first. Lines of white space separate sentences, `-DOCSTART-` lines are
    skipped. A line that starts with `#` is a comment where it stands before a sentence's first word and
    does not read as a word line itself: `# sent_id = 3` is a comment, `# O` and `#NFL<TAB>B-ORG` are
    words.

    Args:
        written_here: by `write_conll`, so that every line is a word, be it `-DOCSTART-`, `# O` or U+FEFF.

    Raises:
        ValueError: naming file and line, for a line with a missing column or an empty word, a tag that
            is neither `O` nor `<prefix>-<type>`, bytes that are not UTF-8, and a file without a word.
    """
    result = Sentences([], [], [])
    numbered = enumerate(read_lines(path, byte_order_mark=written_here), start=1)
    for words, tags, line in conll_sentences(numbered, path, word_column, tag_column, only_words=written_here):
        result.words.append(words)
        result.tags.append(tags)
        result.lines.append(line)
    if not result.words:
        raise ValueError(f"{path}: no sentence in this file")
    return result


def conll_sentences(
    lines: Iterable[tuple[int, str]],
    path: str | os.PathLike[str],
    word_column: int = 0,
    tag_column: int | None = -1,
    *,
    only_words: bool = False,
) -> Iterator[tuple[list[str], list[str], int]]:
    """Words, tags and the number of the first line of each sentence, as soon as it has ended.

    Args:
        lines: numbered, without their ends.
        path: what messages call the file.
        tag_column: None where there are no tags to read: one column is enough then, and tags are `O`. The words are
            those that are read with the tags of the last column, where it has tags.
        only_words: no line is a comment or the beginning of a document.

    Raises:
        ValueError: as `read_conll`.
    """
    words: list[str] = []
    tags: list[str] = []
    columns: int | None = None
    separator: str | None = None
    first_line = sentence_line = 0
    needed = max(1 if tag_column is None else 2, word_column + 1, -word_column)
    if tag_column is not None:
        needed = max(needed, tag_column + 1, -tag_column)

    for number, line in lines:
        if not line.strip(" \t") or (line.startswith("-DOCSTART-") and not only_words):
            if words:
                yield words, tags, sentence_line
                words, tags = [], []
            continue
        if separator is None and (only_words or not line.startswith("# ")):
            separator = "\t" if "\t" in line else " "
        cells = line.split("\t") if separator == "\t" else [cell for cell in line.split(" ") if cell]
        is_word = columns in (None, len(cells)) and len(cells) >= needed
        if tag_column is not None:
            is_word = is_word and bool(TAG.fullmatch(cells[tag_column]))
        else:
            is_word = is_word and (len(cells) == 1 or line[1] == "\t" or bool(TAG.fullmatch(cells[-1])))
        if (
            line.startswith("#")
            and not only_words
            and not words
            and not is_word
            and (len(line) == 1 or line[1] in " \t")
        ):
            continue
        if columns is None:
            columns, first_line = len(cells), number
        if len(cells) != columns or columns < needed:
            of = f"line {first_line} has {columns}" if len(cells) != columns else f"{needed} are needed"
            holds = "the word" if tag_column is None else "the word, its tag"
            raise ValueError(
                f"{path}:{number}: {len(cells)} column(s) where {of}; "
                f"a word line holds {holds}, and the same number of columns throughout"
            )
        word, tag = cells[word_column], "O" if tag_column is None else cells[tag_column]
        if not word:
            raise ValueError(f"{path}:{number}: the word is empty")
        if "\t" in word:
            raise ValueError(
                f"{path}:{number}: a tab in the word {shown(word)}, while line {first_line} has spaces between its "
                "columns; give the file one separator throughout"
            )
        if not TAG.fullmatch(tag):
            raise ValueError(f"{path}:{number}: {shown(tag)} is no tag; tags are O, B-TYPE, I-TYPE (or IOBES)")
        if not words:
            sentence_line = number
        words.append(word)
        tags.append(tag)
    if words:
        yield words, tags, sentence_line


def column_number(name: str | None, default: int) -> int:
    """Which column of a column file a flag means, such as `--text_column_name`: its number, or `default`."""
    return int(name) if name is not None and name.lstrip("-").isdecimal() else default


def write_conll(
    path: str | os.PathLike[str], words: Iterable[Sequence[str]], *tag_columns: Iterable[Sequence[str]]
) -> None:
    """Writes sentences as tab-separated columns: the word, then one column for each of `tag_columns`."""
    with whole_file(Path(path)) as file:
        for sentence in zip(words, *tag_columns, strict=True):
            file.writelines("\t".join(cells) + "\n" for cells in zip(*sentence, strict=True))
            file.write("\n")


def read_lines(path: str | os.PathLike[str], *, byte_order_mark: bool = False) -> list[str]:
    """The lines of a UTF-8 text without their ends (LF, CRLF or CR), a byte-order mark removed or kept.

    Unlike `str.splitlines`, it does not break lines at U+0085, U+2028 and the like, which occur in words.

    Raises:
        ValueError: naming file and line, for bytes that are not UTF-8 and for NUL characters.
        OSError: if the file cannot be read.
    """
    raw = Path(path).read_bytes()
    try:
        text = raw.decode("utf-8" if byte_order_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_ends(raw[: error.start].decode("utf-8")) + 1
        raise ValueError(
            f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); convert the file, for example with iconv"
        ) from error
    if "\0" in text:
        line = _line_ends(text[: text.index("\0")]) + 1
        raise ValueError(f"{path}:{line}: a NUL character; is this a text file?")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
