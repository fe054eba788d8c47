"""Turns lines of text into records to label. A record is ready as soon as its lines have arrived.

| form | a record is | content |
|---|---|---|
| `text` | a line, also an empty one | a text |
| `words` | a line, also an empty one | words, with spaces or tabs between them |
| `jsonl` | a line that is not blank | an object: `text`; `text` and `text_pair`; `question` and `context`; `tokens` |
| `conll` | lines up to an empty one (`conll.py`) | words, in the first column or another |
| `csv`, `tsv` | a row; the first one has the names of the columns | a text, in the column that is meant |
| `table` | rows up to one of another sentence (`word_rows.py`) | words, in the column that is meant |
| `conllu` | lines up to an empty one (`treebanks.py`) | the words of a treebank |

A form with columns first gives a record with `head`. It asks for nothing, and its keys are the names of the columns.
"""

import io
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from finetune.data.conll import begun_documents, conll_sentences
from finetune.data.json_lines import json_rows
from finetune.data.messages import encoding_hint, listed, shown
from finetune.data.records import Record
from finetune.data.tables import TextColumns, table_records
from finetune.data.treebanks import begins_document, treebank_sentences
from finetune.data.word_rows import WordColumns, word_table_records

FORMS = ("text", "words", "jsonl", "conll", "conllu", "csv", "tsv", "table")

T = TypeVar("T")


def read_records(
    file: BinaryIO,
    name: str,
    form: str,
    word_column: int | str | None = None,
    columns: TextColumns | None = None,
    tag_column: str = "NER",
    delimiter: str | None = None,
    document_key: str | None = None,
    encoding: str = "utf-8",
    word_columns: WordColumns | None = None,
    tell: bool = True,
) -> Iterator[Record]:
    """Yields the records of a stream, each as soon as it has arrived.

    Args:
        file: text in `encoding`.
        name: the name of the file in messages.
        form: one of `FORMS`.
        word_column: for `conll`, the column of the words, its number or its name in the header line [the first; the
            second of CoNLL-U].
        tag_column: for `conllu`, the place that `with_tags` writes labels to.
        delimiter: what stands between two columns [for `conll` a tab if the first row has one, else spaces; for `csv`
            a comma; for `tsv` a tab].
        columns: for `csv` and `tsv`, the columns of the texts; for `jsonl`, their keys, beside the usual ones.
        document_key: for `jsonl`, the key that says which document a sentence belongs to.
        encoding: as `check_encoding` has checked it.
        word_columns, tell: for `table`, as `word_table_records` takes them.

    Raises:
        ValueError: naming `name` and the line, for a line that is no record. The records before it come first.
    """
    lines = _numbered_lines(file, name, encoding)
    document = 0
    if form == "conll":
        for sentence in conll_sentences(lines, name, word_column, tag_column=None, separator=delimiter):
            number = next(iter(sentence.numbers), sentence.begin)
            before, begun = begun_documents(sentence)
            yield Record(number, sentence.words, sentence=sentence, document=document + before)
            document += begun
    elif form == "conllu":
        for sentence in treebank_sentences(lines, name, tags=tag_column):
            document += begins_document(sentence)
            number = next(iter(sentence.numbers), sentence.begin)
            yield Record(number, sentence.words, sentence=sentence, document=document)
    elif form in ("csv", "tsv"):
        look = file.seekable()
        yield from table_records(lines, name, form, columns or TextColumns(), delimiter, may_look_ahead=look)
    elif form == "table":
        yield from word_table_records(lines, name, word_columns or WordColumns(), delimiter, tell=tell)
    elif form == "jsonl":
        above: Any = None
        for number, row in json_rows(Path(name), _of_objects(lines, name)):
            sample = _sample(row, f"{name}:{number}", columns or TextColumns())
            own = row.get(document_key) if document_key is not None else None
            document += own not in (None, "", above)
            above = own
            yield Record(number, sample, row, document=0 if own in (None, "") else document)
    else:
        for number, line in lines:
            words = [word for word in re.split(r"[ \t]+", line) if word]
            yield Record(number, words) if form == "words" else Record(number, line, {"text": line})


def sample_of(row: Any) -> str | tuple[str, str] | list[str] | None:
    """What a row of JSON gives to label: a text, two texts, or words; None if the row is none of these."""
    if isinstance(row, dict):
        question, passage = row.get("question"), row.get("context")
        if isinstance(question, str) and isinstance(passage, str) and "text" not in row:
            return question, passage
        text, pair, tokens = (row.get(key) for key in ("text", "text_pair", "tokens"))
        if tokens is None and isinstance(text, str) and (pair is None or isinstance(pair, str)):
            return text if pair is None else (text, pair)
        if text is None and pair is None and isinstance(tokens, list):
            return tokens
    return None


def _sample(row: Any, where: str, columns: TextColumns) -> str | tuple[str, str] | list[str]:
    if isinstance(row, dict):
        for asked in (columns.text, columns.pair):
            if asked is not None and asked not in row:
                raise ValueError(f"{where}: no key {shown(asked)}; it has: {listed(list(row))}")
        row = _with_usual_keys(row, columns)
    if (sample := sample_of(row)) is not None:
        return sample
    raise ValueError(
        f'{where}: a line must be {{"text": "..."}}, {{"text": "...", "text_pair": "..."}}, '
        '{"tokens": ["...", ...]} or {"question": "...", "context": "..."}'
    )


def _with_usual_keys(row: dict[str, Any], columns: TextColumns) -> dict[str, Any]:
    """The row with the keys of `sample_of`, if what is to be labelled has another key there."""
    text, pair = (
        next((key for key in ([asked] if asked is not None else likely) if key in row), None)
        for asked, likely in ((columns.text, columns.likely), (columns.pair, columns.likely_pair))
    )
    if text is None or {text, pair} <= {"text", "text_pair", "question", "context", "tokens", None}:
        return row
    words = isinstance(row[text], list)
    return {"tokens": row[text]} if words else {"text": row[text], "text_pair": None if pair is None else row[pair]}


def _of_objects(lines: Iterable[tuple[int, str]], name: str) -> Iterator[tuple[int, str]]:
    """The lines, if they do not begin a list."""
    begun = False
    for number, line in lines:
        if not begun and line.lstrip().startswith("["):
            raise ValueError(
                f"{name}:{number}: this file is one list, but here each line must be an object; a file of doccano, "
                "Label Studio or Prodigy needs --input_format doccano, label_studio or spacy"
            )
        begun = begun or bool(line.strip())
        yield number, line


def _numbered_lines(file: BinaryIO, name: str, encoding: str) -> Iterator[tuple[int, str]]:
    """Yields the lines as `read_lines` has them, with numbers from 1 on, each as soon as it has arrived."""
    number = 0
    if "\n".encode(encoding) != b"\n":  # UTF-16 and the like, which have no lines of bytes
        try:
            file, encoding = io.BytesIO(file.read().decode(encoding).encode()), "utf-8"
        except UnicodeError as error:
            raise ValueError(f"{name}: not {encoding} ({error}); {encoding_hint(encoding)}") from error
    for raw in file:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            told = "UTF-8" if encoding == "utf-8" else encoding
            what = f"{told} (byte 0x{error.object[error.start]:02x})"
            hint = encoding_hint(encoding, b"" if number else raw[:4])
            raise ValueError(f"{name}:{number + 1}: not {what}; {hint}") from error
        text = text if number else text.removeprefix("\ufeff")
        if not text:  # a byte-order mark alone
            continue
        for line in text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n"):
            number += 1
            if "\0" in line:
                raise ValueError(f"{name}:{number}: a NUL character; is this a text?")
            yield number, line


def in_chunks(
    items: Iterable[T], size: int, patience: float | None = None, group: Callable[[T], int] | None = None
) -> Iterator[list[T]]:
    """Yields lists of `size` items; shorter ones at the end, before an error, and if the next item comes too late.

    The items are made in another thread.

    Args:
        patience: how many seconds to wait for the next item; None: without a limit.
        group: the number of the group of an item, 0 for none. Neighbours of a group stay in one list, which may then
            have more than `size` items, and waits for the end of its last group.

    Raises:
        Exception: the error that `items` raises. The items before it come first.
    """
    end = object()
    waiting: queue.Queue[Any] = queue.Queue(maxsize=2 * size)
    failure: list[Exception] = []

    def fill() -> None:
        try:
            for item in items:
                waiting.put(item)
        except Exception as error:
            failure.append(error)
        waiting.put(end)

    threading.Thread(target=fill, daemon=True).start()
    chunk: list[T] = []
    ready = 0  # how many items of the chunk may be given: those of its last group only if the group has ended
    last = 0
    while True:
        try:
            item = waiting.get(timeout=patience if ready else None)
        except queue.Empty:
            item = None
        if item is not None and item is not end:
            own = group(item) if group is not None else 0
            if not own or own != last:
                ready = len(chunk)
            chunk.append(item)
            ready, last = ready if own else len(chunk), own
        if item is end:
            ready = len(chunk)
        if ready and (item is None or item is end or len(chunk) >= size):
            yield chunk[:ready]
            chunk, ready = chunk[ready:], 0
        if item is end:
            break
    if failure:
        raise failure[0]
