"""CoNLL column files: one word on each line, an empty line between sentences.

These rules say what a line is, in training and in prediction. No rule depends on whether a cell looks like a tag.

1. Lines of white space end a sentence. So do lines that begin with `-DOCSTART-`, `#begin document`, `#end document`.
2. The first row is the first other line that does not begin with `#`. If there is none, it is the first line with a
   `#` that neither a space nor a tab follows. The first row decides the separator (a tab if the row has one, else one
   or more spaces) and the number of columns. Every row has this number of columns.
3. Before the first word of a sentence, a line may be a comment if it is `#` alone, or if a space or a tab follows the
   `#`. It is one if it does not have the columns of a row. In files of three or more columns with spaces between
   them, it is always a comment, because there `# id = 7` looks like a row of four columns. So `#NFL B-ORG`, `# O` in
   a file of two columns, and `#<TAB>NN<TAB>O` in a file of three columns are words.
4. A file of ten columns with tabs whose first row begins with `1`, `1-2` or `0.1` is CoNLL-U. Its words are in the
   second column. Any line with a `#` before a sentence is a comment. Rows with a range (`1-2`) or a decimal (`8.1`)
   in the first column are not words. The same holds in other files whose first column counts the words, if the count
   is right.
5. All other lines are rows, and each row is a word.

What a caller says comes before these rules: a separator other than tabs and spaces; which lines are comments
(`COMMENTS`); and the name of a column. If a column has a name, the first row is a header line with the names.
"""

import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.data.messages import encoding_hint, listed, shown
from finetune.data.tags import TAG, plain_label
from finetune.files import whole_file

logger = logging.getLogger(__name__)

COLUMN_ENDINGS = (".conll", ".conll03", ".conllu", ".bio", ".iob", ".iob2", ".iobes")
CONLL_ENDINGS = (*COLUMN_ENDINGS, ".txt")  # where words are expected; elsewhere a .txt file is a text
Comments = Literal["auto", "before_sentences", "none"]
COMMENTS: dict[Comments, str] = {
    "auto": "rules 1 to 4 decide",
    "before_sentences": "each line before the first word of a sentence that begins with `#`",
    "none": "no line",
}
_DOCUMENT = ("-DOCSTART-", "#begin document", "#end document")
_BEGINS_DOCUMENT = ("-DOCSTART-", "#begin document", "# newdoc")
_NO_WORD = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})|\.[0-9]{1,9})")  # the number of a range, or of an empty node
_COUNTS = re.compile(r"[01]|1-[0-9]+|0\.1")  # the first cell of a column that counts the words
_NAME_IT = "give the column of the words, counted from 0: --text_column_name in training, --word_column in predict"


@dataclass
class Sentences:
    """Words and tags of each sentence. Word i of sentence s is on line `lines[s][i]` of the file."""

    words: list[list[str]]
    tags: list[list[str]]
    lines: list[list[int]]
    # The number of each sentence's document, from 1 on. A line such as `-DOCSTART-` begins one; 0: before the first.
    documents: list[int] = field(default_factory=list)


@dataclass
class Sentence:
    """A sentence, and all lines of the file from the end of the previous sentence to its own end.

    Lines after the last sentence of a file make one more, without words.
    """

    begin: int  # the number of its first line, from 1 on
    separator: str
    lines: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    rows: dict[int, bool] = field(default_factory=dict)  # places of the rows in `lines`, and whether each is a word
    header: int | None = None  # the place of the header line, which is in the first sentence of a file
    tag_place: tuple[int, str | None] | None = None  # of a treebank: the column of the tags, and their key in it

    @property
    def numbers(self) -> list[int]:
        """The line of each word."""
        return [self.begin + place for place, is_word in self.rows.items() if is_word]

    @property
    def last_cells(self) -> list[str]:
        """The last column of each word; nothing if there is only one column."""
        rows = [
            self.lines[place].rstrip().rsplit(self.separator, 1) for place, is_word in self.rows.items() if is_word
        ]
        return [row[-1] for row in rows if len(row) > 1]

    def with_column(self, cells: Iterable[str]) -> str:
        """All lines. Each row gets one more column: the next cell if it is a word, else `_`."""
        lines, following = list(self.lines), iter(cells)
        if self.header is not None:
            lines[self.header] += f"{self.separator}predicted"
        for place, is_word in self.rows.items():
            lines[place] += self.separator + (next(following) if is_word else "_")
        return "".join(line + "\n" for line in lines)


def read_conll(
    path: str | os.PathLike[str],
    word_column: int | str | None = None,
    tag_column: int | str | None = -1,
    *,
    separator: str | None = None,
    comments: Comments = "auto",
    encoding: str = "utf-8",
    written_here: bool = False,
    any_tag: bool = False,
) -> Sentences:
    """Reads a column file by the rules above. The tags stay as they are.

    Args:
        word_column: its number, or its name in the header line. Default: the first; in CoNLL-U, the second.
        tag_column: the same; None if there are no tags to read, as `conll_sentences` takes it.
        separator: what stands between two columns. Default: rule 2; a space stands for one or more of them.
        comments: which lines are comments, one of `COMMENTS`.
        written_here: `write_conll` has written the file. So every line is a word, even `-DOCSTART-`, `# O` or U+FEFF.
        any_tag: tags need not be `O` or `<prefix>-<type>`.

    Raises:
        ValueError: naming file and line, for a line with a missing column or an empty word, a tag that
            is neither `O` nor `<prefix>-<type>`, a first column that counts the words where no column is named, a
            name that is not in the header line, bytes that are not of the encoding, and a file without a word.
    """
    result = Sentences([], [], [])
    document = 0
    numbered = enumerate(read_lines(path, byte_order_mark=written_here, encoding=encoding), start=1)
    for sentence in conll_sentences(
        numbered,
        path,
        word_column,
        tag_column,
        separator=separator,
        comments=comments,
        only_words=written_here,
        any_tag=any_tag,
    ):
        before, begun = begun_documents(sentence)
        if sentence.words:
            result.words.append(sentence.words)
            result.tags.append(sentence.tags)
            result.lines.append(sentence.numbers)
            result.documents.append(document + before)
        document += begun
    if not result.words:
        raise ValueError(f"{path}: no sentence in this file")
    return result


def begun_documents(sentence: Sentence) -> tuple[int, int]:
    """How many documents begin before the first word of a sentence, and in all of its lines."""
    begins = [
        place
        for place, line in enumerate(sentence.lines)
        if line.startswith(_BEGINS_DOCUMENT) and place not in sentence.rows
    ]
    return sum(place < min(sentence.rows, default=0) for place in begins), len(begins)


def conll_sentences(
    lines: Iterable[tuple[int, str]],
    path: str | os.PathLike[str],
    word_column: int | str | None = None,
    tag_column: int | str | None = -1,
    *,
    separator: str | None = None,
    comments: Comments = "auto",
    only_words: bool = False,
    any_tag: bool = False,
) -> Iterator[Sentence]:
    """Yields each sentence as soon as it has ended. All lines together are the input lines.

    Args:
        lines: numbered, without their ends.
        path: the name of the file in messages.
        word_column, separator, comments: as `read_conll` takes them.
        tag_column: None if there are no tags to read. Then one column is enough, and all tags are `O`.
        only_words: no line is a comment or the beginning of a document.
        any_tag: as `read_conll` takes it.

    Raises:
        ValueError: as `read_conll`.
    """
    lines = iter(lines)
    rule: Comments = "none" if only_words else comments
    ahead, first = _until_first_row(lines, only_words, rule)
    if first is None:
        if ahead:
            yield Sentence(ahead[0][0], "\t", [line for _, line in ahead])
        return
    named = isinstance(word_column, str) or isinstance(tag_column, str)
    word_at, tag_at = _column_numbers(*first, path, separator, word_column, tag_column)
    form = _form(*first, path, word_at, tag_at, only_words, separator)
    asked = word_column is None and form.counts_from is not None and not form.conllu
    told = False
    sentence = Sentence(ahead[0][0], "\t" if form.columns == 1 else form.separator)
    for number, line in itertools.chain(ahead, lines):
        place = len(sentence.lines)
        sentence.lines.append(line)
        if named and number == first[0]:
            sentence.header = place
            continue
        if _ends_sentence(line, only_words, rule):
            if sentence.rows:
                yield sentence
                sentence = Sentence(number + 1, sentence.separator)
            continue
        cells = _cells(line, form.separator)
        if line.startswith("#") and rule == "before_sentences" and not sentence.rows:
            continue
        if line.startswith("#") and rule == "auto" and not sentence.rows:
            comment = _is_comment(line, cells, form)
            # With spaces, `# id 7` and `# NN O` look alike. A wrong word would be found by its tag.
            alike = line[1:2] == " " and form.separator == " " and len(cells) == form.columns > 1
            if alike and not told and (comment or tag_column is None):
                told = True
                _tell_how_read(f"{path}:{number}", line, "a comment" if comment else "a word")
            if comment:
                continue
        if len(cells) != form.columns:
            raise ValueError(
                f"{path}:{number}: {len(cells)} column(s), but line {first[0]} has {form.columns}; "
                f"each line of a word has {_holds(tag_at)}"
            )
        sentence.rows[place] = not _is_no_word(cells[0], len(sentence.words), form)
        if not sentence.rows[place]:
            continue
        word, tag = cells[form.word_column], "O" if form.tag_column is None else cells[form.tag_column]
        tag = tag if only_words else plain_label(tag)
        _check_row(word, f"{path}:{number}", first[0], form.separator)
        if not any_tag:
            check_tag(word, tag, f"{path}:{number}")
        sentence.words.append(word)
        sentence.tags.append(tag)
        if asked:
            counted = _counted(sentence.words, form.counts_from or 0)
            asked = counted is not None
            if counted == 2:
                raise ValueError(f"{path}:{number}: the first column counts the words; {_NAME_IT}")
    if sentence.lines:
        yield sentence


def _tell_how_read(where: str, line: str, what: str) -> None:
    logger.warning(
        "%s: %s is read as %s, like all such lines before sentences; if this is wrong, put tabs between the columns",
        *(where, shown(line), what),
    )


def _counted(words: Sequence[str], first: int) -> int | None:
    """How many numbers the words count from `first` on; None if they do not count."""
    numbers = [word for word in words if not _NO_WORD.fullmatch(word)]
    return len(numbers) if numbers == [str(first + i) for i in range(len(numbers))] else None


@dataclass(frozen=True)
class _Form:
    separator: str
    columns: int
    word_column: int
    tag_column: int | None
    counts_from: int | None  # if the first column may count the words: the number of a sentence's first word
    conllu: bool


def _form(
    number: int,
    line: str,
    path: str | os.PathLike[str],
    word_column: int | None,
    tag_column: int | None,
    only_words: bool,
    separator: str | None = None,
) -> _Form:
    """Reads the form of a file from its first row."""
    separator = separator or ("\t" if "\t" in line else " ")
    cells = _cells(line, separator)
    columns = len(cells)
    counts = not only_words and _COUNTS.fullmatch(cells[0]) and columns > (1 if tag_column is None else 2)
    conllu = bool(counts) and separator == "\t" and columns == 10 and cells[0] != "0"
    at = int(conllu) if word_column is None else word_column
    needed = max(1 if tag_column is None else 2, at + 1, -at)
    if tag_column is not None:
        needed = max(needed, tag_column + 1, -tag_column)
    if columns < needed:
        raise ValueError(
            f"{path}:{number}: {columns} column(s), but {needed} are needed; each line of a word has "
            f"{_holds(tag_column)}"
        )
    if tag_column is not None and (at - tag_column) % columns == 0:
        raise ValueError(
            f"{path}:{number}: column {at % columns} cannot have both the words and the tags; give another column "
            "with --text_column_name or --label_column_name"
        )
    counts_from = int(cells[0] != "0") if counts else None
    return _Form(separator, columns, at % columns, tag_column, counts_from, conllu)


def _column_numbers(
    number: int,
    line: str,
    path: str | os.PathLike[str],
    separator: str | None,
    word_column: int | str | None,
    tag_column: int | str | None,
) -> tuple[int | None, int | None]:
    """The numbers of the columns. A name is looked for in the header line, which is this line."""
    header = _cells(line, separator or ("\t" if "\t" in line else " "))
    found: list[int | None] = []
    for asked, flag in ((word_column, "--text_column_name"), (tag_column, "--label_column_name")):
        if isinstance(asked, str) and header.count(asked) != 1:
            what = "two columns are" if asked in header else "no column is"
            raise ValueError(
                f"{path}:{number}: {what} named {shown(asked)} in this header line, which has: {listed(header)}; "
                f"give another name with {flag}, or the number of a column, counted from 0"
            )
        found.append(header.index(asked) if isinstance(asked, str) else asked)
    return found[0], found[1]


def _holds(tag_column: int | None) -> str:
    return f"the word{'' if tag_column is None else ', its tag'}, and the same number of columns as the others"


def columns_of_first_row(lines: Iterable[tuple[int, str]], separator: str | None, comments: Comments) -> int:
    """How many columns the first row has; 0 if there is no row. The arguments are as for `conll_sentences`."""
    first = _until_first_row(iter(lines), False, comments)[1]
    if first is None:
        return 0
    return len(_cells(first[1], separator or ("\t" if "\t" in first[1] else " ")))


def _until_first_row(
    lines: Iterator[tuple[int, str]], only_words: bool, rule: Comments
) -> tuple[list[tuple[int, str]], tuple[int, str] | None]:
    """The lines up to the first row, and that row; all lines and None if there is no row."""
    ahead = []
    for numbered in lines:
        ahead.append(numbered)
        no_comment = rule == "none" or not numbered[1].startswith("#")
        if not _ends_sentence(numbered[1], only_words, rule) and no_comment:
            return ahead, numbered
    if rule == "before_sentences":
        return ahead, None
    rows = (numbered for numbered in ahead if not _ends_sentence(numbered[1], only_words, rule))
    return ahead, next((numbered for numbered in rows if numbered[1][1:2] not in ("", " ", "\t")), None)


def _ends_sentence(line: str, only_words: bool, rule: Comments) -> bool:
    marks = _DOCUMENT if rule != "none" else _DOCUMENT[:1]  # the others begin with `#`
    return not line.strip(" \t") or (line.startswith(marks) and not only_words)


def _cells(line: str, separator: str) -> list[str]:
    return [cell for cell in line.split(" ") if cell] if separator == " " else line.split(separator)


def _check_row(word: str, where: str, first: int, separator: str) -> None:
    if not word:
        raise ValueError(f"{where}: the word is empty")
    if "\t" in word and separator != " ":
        raise ValueError(f"{where}: a tab in the word {shown(word)}, so it cannot be written into a column file")
    if "\t" in word:
        raise ValueError(
            f"{where}: a tab in the word {shown(word)}, but line {first} has spaces between its columns; use "
            "the same separator in all lines"
        )


def check_tag(word: str, tag: str, where: str) -> None:
    """Refuses a tag that is no tag of an entity. `where` is the place of the word."""
    if not TAG.fullmatch(tag):
        hint = "; a line with as many columns as a row is no comment" if word.startswith("#") else ""
        raise ValueError(f"{where}: {shown(tag)} is no tag; tags are O, B-TYPE, I-TYPE (or IOBES){hint}")


def _is_comment(line: str, cells: list[str], form: _Form) -> bool:
    """Whether a line is a comment. The line begins with `#`, and comes before the first word of a sentence."""
    if form.conllu:
        return True
    spaced = form.separator == " " and form.columns > 2
    return line[1:2] in ("", " ", "\t") and (spaced or len(cells) != form.columns)


def _is_no_word(cell: str, words: int, form: _Form) -> bool:
    """Whether the first cell of a row is a range or an empty node. `words` words of the sentence come before it."""
    if form.counts_from is None or form.word_column == 0:
        return False
    found = _NO_WORD.fullmatch(cell)
    if found is None or form.conllu:
        return found is not None
    begin, following = int(found[1]), form.counts_from + words
    return begin == following < int(found[2]) if found[2] else begin == following - 1


def column_number(name: str | None) -> int | None:
    """The column that a flag such as `--text_column_name` means, if its value is a number; else None."""
    return int(name) if name is not None and re.fullmatch(r"-?[0-9]{1,9}", name) else None


def column_asked(name: str | None) -> int | str | None:
    """The column that such a flag means: its number, or its name in the header line; None for a default."""
    number = column_number(name)
    return name if number is None else number


def write_conll(
    path: str | os.PathLike[str], words: Iterable[Sequence[str]], *tag_columns: Iterable[Sequence[str]]
) -> None:
    """Writes sentences as tab-separated columns: the word, then one column for each of `tag_columns`."""
    with whole_file(Path(path)) as file:
        for sentence in zip(words, *tag_columns, strict=True):
            file.writelines("\t".join(cells) + "\n" for cells in zip(*sentence, strict=True))
            file.write("\n")


def read_lines(path: str | os.PathLike[str], *, byte_order_mark: bool = False, encoding: str = "utf-8") -> list[str]:
    """The lines of a text without their ends (LF, CRLF or CR), a byte-order mark removed or kept.

    Unlike `str.splitlines`, it does not break lines at U+0085, U+2028 and the like, which occur in words.

    Args:
        encoding: as `check_encoding` has checked it.

    Raises:
        ValueError: naming file and line, for bytes that are not of the encoding and for NUL characters.
        OSError: if the file cannot be read.
    """
    raw = Path(path).read_bytes()
    utf8 = encoding == "utf-8"
    try:
        text = raw.decode("utf-8-sig" if utf8 and not byte_order_mark else encoding)
    except UnicodeError as error:
        if not isinstance(error, UnicodeDecodeError):  # such as UTF-16 without a byte-order mark
            raise ValueError(f"{path}: not {encoding}: {error}; {encoding_hint(encoding)}") from error
        read = error.object  # without the byte-order mark; the error counts from after it
        line = _line_ends(read[: error.start].decode(encoding, "replace")) + 1
        hint = encoding_hint(encoding, raw[:4])
        name = "UTF-8" if utf8 else encoding
        raise ValueError(f"{path}:{line}: not {name} (byte 0x{read[error.start]:02x}); {hint}") from error
    if not utf8 and not byte_order_mark:
        text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = _line_ends(text[: text.index("\0")]) + 1
        raise ValueError(f"{path}:{line}: a NUL character; is this a text file?")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
