"""Corrects the tags of words: in column files, treebanks, tables with a word in each row, and tables of lists."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.checking.cells import with_cells
from finetune.checking.raw_text import read_raw
from finetune.data.conll import Sentence, column_asked, conll_sentences
from finetune.data.messages import shown
from finetune.data.readers import read_columns, row_at
from finetune.data.tags import SCHEMES, TAG, from_iob2, plain_label, runs_to_iob2, to_iob2
from finetune.data.treebanks import treebank_sentences, with_pair
from finetune.data.word_tables import read_word_table

Records = Sequence[tuple[str, dict[str, Any]]]
Change = dict[tuple[int, int], str]  # sentence, word -> the tag, as the file has it


@dataclass(frozen=True)
class _Words:
    """The sentences of a file, with tags as they are in the file."""

    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]
    begins: Sequence[int]  # the line where each sentence begins, or the negative number of its row
    separators: Sequence[str]  # of the columns of each sentence, which no tag may contain; "": there is none
    write: Callable[[Change], bytes]  # the content of the file with other tags


def with_tags_of_patch(path: Path, how: Mapping[str, Any], records: Records) -> bytes:
    """The content of a file with other tags of some words, in the file's own scheme.

    Args:
        how: the file's reading, as `read_tagged` notes it.
        records: the lines of the patch, each with its place in the patch.

    Raises:
        ValueError: naming the line of the patch, for a word or a tag that the file does not have; and for a tag that
            it cannot have.
    """
    found = _READERS[how["form"]](path, how)
    names = how["label_names"]
    sentence_at = {line: number for number, line in enumerate(found.begins)}
    current: dict[int, list[str]] = {}  # sentence -> its tags in the file's scheme, with names for numbers
    changes: Change = {}
    for where, record in records:
        place = row_at(path, record["line"])
        number = sentence_at.get(record["line"])
        if number is None:
            raise ValueError(f"{where}: {place} does not begin a sentence; has the file changed?")
        before = current.get(number) or [_named(tag, names, where) for tag in found.tags[number]]
        after = _changed(before, found.words[number], record["changes"], how["scheme"], where, place)
        current[number] = after
        for word, (old, new) in enumerate(zip(before, after, strict=True)):
            if old != new:
                if found.separators[number] and found.separators[number] in new:
                    raise ValueError(f"{where}: the tag {shown(new)} contains what separates the columns of {path}")
                changes[number, word] = new if names is None else _number(new, names, where)
    return found.write(changes)


def _named(tag: str, names: Sequence[str] | None, where: str) -> str:
    if names is None:
        return tag
    if not tag.isdecimal() or int(tag) >= len(names):
        raise ValueError(f"{where}: its file has the tag {shown(tag)}, which has no name; has the file changed?")
    return names[int(tag)]


def _number(tag: str, names: Sequence[str], where: str) -> str:
    if tag not in names:
        raise ValueError(f"{where}: the tag {shown(tag)} has no number; --label_names had: {', '.join(names)}")
    return str(names.index(tag))


def _changed(
    before: Sequence[str],
    words: Sequence[str],
    changes: Sequence[Mapping[str, Any]],
    scheme: str,
    where: str,
    place: str,
) -> list[str]:
    """The tags of a sentence with other ones, in the scheme of the file. Tags that need not change stay."""
    read = _as_read(before, scheme)
    new = list(read)
    for one in changes:
        word, label = one["word"], one["new_label"]
        if not 0 <= word < len(words) or words[word] != one["token"]:
            raise ValueError(f"{where}: word {word} of {place} is not {shown(one['token'])}")
        if new[word] != one["label"]:
            raise ValueError(f"{where}: word {word} of {place} has not the tag {shown(one['label'])}")
        fits = isinstance(label, str) and label == plain_label(label) and not re.search(r"[\n\r\t]", label)
        if not fits or not label or not (scheme == "plain" or TAG.fullmatch(label)):
            raise ValueError(f"{where}: new_label is {shown(label)}; it must be a tag, as the old one is")
        new[word] = label
    plain_before, plain_after = _as_written(read, scheme), _as_written(new, scheme)
    after = [
        old if same == other else other for old, same, other in zip(before, plain_before, plain_after, strict=True)
    ]
    if _as_read(after, scheme) != new:
        after = plain_after  # what was not written in the scheme gets its form, too
    if _as_read(after, scheme) != new:
        raise ValueError(f"{where}: the new tags of {place} cannot be written in its scheme; change them by hand")
    return after


def _as_read(tags: Sequence[str], scheme: str) -> list[str]:
    if scheme == "plain":
        return list(tags)
    return runs_to_iob2(tags) if scheme == "types" else to_iob2(tags, SCHEMES[scheme].read_as)


def _as_written(tags: Sequence[str], scheme: str) -> list[str]:
    if scheme == "types":
        return [tag if tag == "O" else tag[2:] for tag in tags]
    return list(tags) if scheme in ("plain", "IOB2") else from_iob2(tags, scheme)


def _of_columns(path: Path, how: Mapping[str, Any]) -> _Words:
    raw = read_raw(path, how["encoding"])
    asked = column_asked(how["tags"])
    separator = how["delimiter"]
    every = list(
        conll_sentences(
            enumerate(raw.lines, start=1),
            path,
            column_asked(how["words"]),
            -1 if asked is None else asked,
            separator=separator,
            comments=how["comments"],
            any_tag=True,
        )
    )
    column = -1 if asked is None else asked
    if isinstance(column, str):
        header = every[0].lines[every[0].header or 0]
        column = [cell for _, cell in _cells(header, separator or every[0].separator)].index(column)
    sentences = [sentence for sentence in every if sentence.words]

    def write(changes: Change) -> bytes:
        for (number, word), tag in changes.items():
            at = sentences[number].numbers[word] - 1
            begin, old = _cells(raw.lines[at], separator or sentences[number].separator)[column]
            begin += old.index(plain_label(old))
            line, end = raw.lines[at], begin + len(plain_label(old))
            raw.lines[at] = line[:begin] + tag + line[end:]
        return raw.encoded()

    return _of_sentences(sentences, write, separator)


def _cells(line: str, separator: str) -> list[tuple[int, str]]:
    """The cells of a line, each with the place where it begins."""
    found, at = [], 0
    for cell in line.split(separator):
        if cell or separator != " ":
            found.append((at, cell))
        at += len(cell) + len(separator)
    return found


def _of_sentences(sentences: Sequence[Sentence], write: Callable[[Change], bytes], separator: str | None) -> _Words:
    return _Words(
        [sentence.words for sentence in sentences],
        [sentence.tags for sentence in sentences],
        [sentence.numbers[0] for sentence in sentences],
        [separator or sentence.separator for sentence in sentences],
        write,
    )


def _of_treebank(path: Path, how: Mapping[str, Any]) -> _Words:
    raw = read_raw(path, how["encoding"])
    every = treebank_sentences(enumerate(raw.lines, start=1), path, how["words"], how["tags"] or "-1")
    sentences = [sentence for sentence in every if sentence.words]

    def write(changes: Change) -> bytes:
        for (number, word), tag in changes.items():
            at = sentences[number].numbers[word] - 1
            column, key = sentences[number].tag_place or (0, None)
            cells = raw.lines[at].split("\t")
            cells[column] = (
                tag if key is None else with_pair(cells[column], key, tag, outside=_says_outside(raw.lines, key))
            )
            raw.lines[at] = "\t".join(cells)
        return raw.encoded()

    return _of_sentences(sentences, write, "\t")


def _says_outside(lines: Sequence[str], key: str) -> bool:
    """Whether words outside of entities have the key, with `O`."""
    return any(f"{key}=O" in cell.split("|") for line in lines for cell in line.split("\t"))


def _of_word_table(path: Path, how: Mapping[str, Any]) -> _Words:
    form = {key: how[key] for key in ("column_names", "encoding", "delimiter")}
    found = read_word_table(path, how["words"], how["tags"], how["sentences"], **form)

    def write(changes: Change) -> bytes:
        cells = {(found.lines[number][word], how["tags"]): tag for (number, word), tag in changes.items()}
        return with_cells(path, cells, **form)

    return _Words(found.words, found.tags, [lines[0] for lines in found.lines], [""] * len(found.words), write)


def _of_lists(path: Path, how: Mapping[str, Any]) -> _Words:
    form = {key: how[key] for key in ("column_names", "encoding", "delimiter")}
    columns, lines = read_columns(path, [how["words"], how["tags"]], **form)
    rows = columns[how["tags"]]

    def write(changes: Change) -> bytes:
        cells: dict[tuple[int, str], list[str]] = {}
        for (number, word), tag in changes.items():
            row = cells.setdefault((lines[number], how["tags"]), [str(old) for old in rows[number]])
            row[word] = tag
        return with_cells(path, cells, **form)

    tags = [[plain_label(str(tag)) for tag in row] for row in rows]
    return _Words(columns[how["words"]], tags, lines, [""] * len(rows), write)


_READERS = {"conll": _of_columns, "conllu": _of_treebank, "table": _of_word_table, "lists": _of_lists}
