"""CoNLL-U and CoNLL-U Plus files: the words of a treebank, with a tag from any column, or a key of MISC or FEATS.

The rules are those of universaldependencies.org/format.html and .../ext-format.html:

1. Lines of white space end a sentence. Lines that begin with `#` before the first row of a sentence are comments.
2. `# newdoc` begins a document. `# global.columns = ID FORM ...` names the columns; else they are the ten of CoNLL-U.
3. Rows with a range (`1-2`) or a decimal (`8.1`) as their ID are not words. The IDs of words count from 1.

The package `conllu` reads IDs, and the pairs of FEATS and MISC.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from conllu.exceptions import ParseException
from conllu.parser import DEFAULT_FIELDS, parse_dict_value, parse_id_value

from finetune.data.conll import Sentence, Sentences, column_number, read_lines
from finetune.data.messages import listed, shown
from finetune.data.tags import TAG, plain_label

_GLOBAL = re.compile(r"#\s*global\.columns\s*=\s*(.*)")
_NEW_DOCUMENT = re.compile(r"#\s*newdoc\b")
_PAIRS = ("feats", "misc")  # columns with pairs such as `NER=B-PER`
_OUTSIDE, _BLANK = "O", "_"
_HOW = "give a column (upos), a key of MISC (NER), or a key of FEATS (feats.Case) with --tag_column"


def read_treebank(
    path: str | os.PathLike[str], words: str | None = None, tags: str | None = None, *, encoding: str = "utf-8"
) -> Sentences:
    """Reads a CoNLL-U file.

    Args:
        words: the column of the words: its name, or its number from 0 on [FORM].
        tags: the column of the tags, as `tag_place` takes it [the last column, if it has only tags of entities]. A
            word without the key has the tag `O`.

    Raises:
        ValueError: naming file and line, for anything that is not CoNLL-U, and for a tag that is nowhere.
    """
    result = Sentences([], [], [])
    keys: set[str] = set()
    document, key = 0, None
    numbered = enumerate(read_lines(path, encoding=encoding), start=1)
    for sentence in treebank_sentences(numbered, path, words, tags or "-1", keys):
        document += begins_document(sentence)
        if sentence.words:
            result.words.append(sentence.words)
            result.tags.append(sentence.tags)
            result.lines.append(sentence.numbers)
            result.documents.append(document)
            key = (sentence.tag_place or (0, None))[1]
    if not result.words:
        raise ValueError(f"{path}: no sentence in this file")
    if key is not None and key not in keys:
        raise ValueError(
            f"{path}: no word has {shown(key)}; keys that words have: {listed(sorted(keys)) or 'none'}; {_HOW}"
        )
    if tags is None:
        _check_last_column(result, path)
    return result


def begins_document(sentence: Sentence) -> bool:
    """Whether a document begins with this sentence."""
    return any(_NEW_DOCUMENT.match(line) for line in sentence.lines)


def _check_last_column(found: Sentences, path: str | os.PathLike[str]) -> None:
    for tags, lines in zip(found.tags, found.lines, strict=True):
        for tag, line in zip(tags, lines, strict=True):
            if not TAG.fullmatch(tag):
                raise ValueError(f"{path}:{line}: the last column has {shown(tag)}, which is no tag; {_HOW}")


def treebank_sentences(
    lines: Iterable[tuple[int, str]],
    path: str | os.PathLike[str],
    words: str | None = None,
    tags: str | None = None,
    keys: set[str] | None = None,
) -> Iterator[Sentence]:
    """Yields each sentence as soon as it has ended. All lines together are the input lines.

    Args:
        lines: numbered, without their ends.
        tags: None: the tags are `O`, and nothing is looked for.
        keys: gets the keys that words have in the column of the tags.

    Raises:
        ValueError: as `read_treebank`.
    """
    columns: Sequence[str] = DEFAULT_FIELDS
    sentence: Sentence | None = None
    begun = False  # whether a row was seen, which fixes the columns
    for number, line in lines:
        sentence = sentence or Sentence(number, "\t")
        place = len(sentence.lines)
        sentence.lines.append(line)
        if not line.strip():
            if sentence.rows:
                yield sentence
                sentence = None
            continue
        if line.startswith("#") and not sentence.rows:
            if (names := _GLOBAL.match(line)) and not begun:
                columns = names[1].lower().split()
            continue
        where = f"{path}:{number}"
        if not begun:
            word_at = _column(words or "form", columns, where, "--word_column")
            tag_at = tag_place(tags, columns, where) if tags is not None else None
            begun = True
        sentence.tag_place = tag_at
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise ValueError(
                f"{where}: {len(cells)} column(s) with tabs between them, but there must be {len(columns)}: "
                f"{' '.join(columns).upper()}"
            )
        sentence.rows[place] = "id" not in columns or _is_word(cells[columns.index("id")], sentence, where)
        if sentence.rows[place]:
            if not cells[word_at]:
                raise ValueError(f"{where}: the word is empty")
            sentence.words.append(cells[word_at])
            sentence.tags.append(_OUTSIDE if tag_at is None else plain_label(_tag(cells, tag_at, keys)))
    if sentence is not None:
        yield sentence


def tag_place(name: str, columns: Sequence[str], where: str) -> tuple[int, str | None]:
    """The number of the column that has the tags, and the key if the column holds pairs.

    Args:
        name: the name of a column, in any case; its number; `feats.KEY`, `misc.KEY`, or a KEY of MISC.

    Raises:
        ValueError: if there is no such column.
    """
    holder, dot, key = name.partition(".")
    if dot and holder.lower() in _PAIRS and holder.lower() in columns:
        return columns.index(holder.lower()), key
    if column_number(name) is None and name.lower() not in columns and "misc" in columns:
        return columns.index("misc"), name
    return _column(name, columns, where, "--tag_column"), None


def _column(name: str, columns: Sequence[str], where: str, flag: str) -> int:
    number = column_number(name)
    if number is not None and -len(columns) <= number < len(columns):
        return number % len(columns)
    if name.lower() not in columns:
        raise ValueError(f"{where}: {flag} {name}: no such column; there are {' '.join(columns).upper()}")
    return columns.index(name.lower())


def _is_word(cell: str, sentence: Sentence, where: str) -> bool:
    """Whether the row with this ID is a word."""
    try:
        found = parse_id_value(cell)
    except (ParseException, ValueError):  # Python reads no number of thousands of digits
        found = None
    if found is None:
        raise ValueError(f"{where}: {shown(cell)} is no ID; IDs are 1, 1-2 or 8.1")
    following = len(sentence.words) + 1
    if isinstance(found, int) and found != following:
        raise ValueError(
            f"{where}: the ID is {shown(cell)}, but the next word of the sentence is {following}; an empty line ends "
            "a sentence"
        )
    return isinstance(found, int)


def _tag(cells: Sequence[str], place: tuple[int, str | None], keys: set[str] | None) -> str:
    column, key = place
    if key is None:
        return cells[column]
    pairs = parse_dict_value(cells[column]) or {}
    if keys is not None:
        keys.update(pairs)
    return pairs.get(key) or _OUTSIDE


def with_tags(sentence: Sentence, tags: Iterable[str]) -> str:
    """All lines of a sentence, with these tags in the place of its own. Ranges and empty nodes stay as they are.

    A tag `O` is not written under a key that the word does not have.

    Raises:
        ValueError: for a tag that a cell cannot hold.
    """
    assert sentence.tag_place is not None or not sentence.words
    lines, following = list(sentence.lines), iter(tags)
    for place, is_word in sentence.rows.items():
        if is_word and sentence.tag_place is not None:
            column, key = sentence.tag_place
            cells, tag = lines[place].split("\t"), next(following)
            if "\t" in tag or (key is not None and re.search(r"[|=]", tag)):
                raise ValueError(f"the label {shown(tag)} cannot be written into a cell of CoNLL-U")
            cells[column] = tag if key is None else with_pair(cells[column], key, tag)
            lines[place] = "\t".join(cells)
    return "".join(line + "\n" for line in lines)


def with_pair(cell: str, key: str, tag: str, *, outside: bool = True) -> str:
    """A cell of MISC or FEATS with a tag under a key. A tag `O` is not written if the cell does not have the key.

    Args:
        outside: whether a tag `O` may be written at all. If not, the pair is removed.
    """
    pairs = [] if cell in ("", _BLANK) else cell.split("|")
    at = next((i for i, pair in enumerate(pairs) if pair.partition("=")[0] == key), None)
    if at is not None and tag == _OUTSIDE and not outside:
        del pairs[at]
    elif at is not None:
        pairs[at] = f"{key}={tag}"
    elif tag != _OUTSIDE:
        pairs.append(f"{key}={tag}")
    return "|".join(pairs) or _BLANK


def is_treebank(path: Path) -> bool:
    """Whether the ending of a file says that it is CoNLL-U."""
    return path.suffix.lower() in (".conllu", ".conllup")
