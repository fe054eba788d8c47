"""Corpora for pretraining: documents of sentences, read as a stream.

| form | documents and sentences |
|---|---|
| `.txt` | a blank line ends a document, a line is a sentence; or free text, split by `sentencex` |
| `.jsonl`, `.parquet`, a `save_to_disk` folder, a Hub data set | a row is a document: a text, or its sentences |
| `.tsv`, `.csv` with parallel columns | a row is a document of one sentence in each language |
| `.conll`, `.conllu`, `.tsv`, `.csv`, a folder of brat | the texts of a task, without its labels (`task_texts.py`) |

A corpus may be larger than the memory: nothing here holds more than a few documents of it.
"""

import glob
import hashlib
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import datasets

from finetune.data.flags import check_pretraining_flags, parallel_columns
from finetune.data.json_lines import json_rows
from finetune.data.messages import listed
from finetune.data.readers import (
    commit_of,
    given_splits,
    is_saved,
    load_hub,
    load_saved,
    load_saved_split,
    open_parquet,
    read_columns,
    splits_to_read,
)
from finetune.data.task_texts import labelled_form, texts_of

Sentences = Literal["line", "split"]
_SAMPLES = ("ner", "sentiment")  # those with a text in each row
HELD_OUT = "held out by --validation_split_percentage"


@dataclass(frozen=True)
class Document:
    """Sentences that belong together, and where they begin."""

    source: str  # a file or data set
    line: int  # of the file; in a form without lines, the negative number of the row
    sentences: list[str]


@dataclass(frozen=True)
class Corpus:
    """Documents of one file or data set. They can be read any number of times."""

    name: str  # a file or a data set
    language: str  # the file's name up to its first dot; where two have the same, up to the last
    read: Callable[[], Iterator[Document]]
    identity: str  # differs for different corpora
    parallel: bool = False  # each document is one sentence in each language
    labelled: bool = False  # its file has labels, too, which are not read

    def __iter__(self) -> Iterator[Document]:
        return self.read()

    def sentences(self) -> Iterator[str]:
        """All sentences, for training a tokenizer."""
        return (sentence for document in self for sentence in document.sentences)

    def first(self, count: int | None) -> "Corpus":
        """The first `count` documents; None: all."""
        if count is None:
            return self
        return replace(self, read=lambda: itertools.islice(self.read(), count), identity=f"{self.identity}[:{count}]")

    def held_out(self, percentage: float) -> tuple["Corpus", "Corpus"]:
        """Splits the corpus into the training documents and `percentage` of the documents, which are held out.

        The held-out documents are spread evenly over the corpus. If there are so few documents that none or all of
        them would be held out, the last sentences of documents are held out instead, at least one.

        Raises:
            ValueError: if the corpus has only one sentence.
        """
        share = percentage / 100
        enough = math.ceil(0.5 / min(share, 1 - share)) + 1  # with so many documents, each side has at least one
        few = list(itertools.islice(self.read(), enough))
        sentences = sum(len(_not_blank(document)) for document in few)
        if len(few) < enough and not 0 < math.floor(len(few) * share + 0.5) < len(few) and sentences:
            return self._held_out_sentences(percentage, len(few), sentences)

        def some(held: bool) -> Callable[[], Iterator[Document]]:
            return lambda: (
                document
                for i, document in enumerate(self.read())
                if (math.floor((i + 1) * share + 0.5) > math.floor(i * share + 0.5)) is held
            )

        name = f"{self.name} ({percentage:g} % of its documents, {HELD_OUT})"
        train = replace(self, read=some(False), identity=f"{self.identity}[not {percentage} %]")
        return train, replace(self, name=name, read=some(True), identity=f"{self.identity}[{percentage} %]")

    def _held_out_sentences(self, percentage: float, documents: int, sentences: int) -> tuple["Corpus", "Corpus"]:
        rows = self.parallel  # a row stays whole
        units, what = (documents, "row") if rows else (sentences, "sentence")
        if units < 2:
            raise ValueError(
                f"{self.name}: {units} {what} in all, of which none can be held out: give a --validation_file, or "
                "--validation_split_percentage 0 with --eval_strategy no"
            )
        wanted = min(max(math.floor(units * percentage / 100 + 0.5), 1), units - 1)

        def some(held: bool) -> Iterator[Document]:
            before = 0
            for document in self.read():
                count = 1 if rows else len(_not_blank(document))
                kept = count - ((before + count) * wanted // units - before * wanted // units)
                before += count
                if rows and (kept == 0) is held:
                    yield document
                elif not rows and (part := _not_blank(document)[kept:] if held else _not_blank(document)[:kept]):
                    yield replace(document, sentences=part)

        told = f"{wanted} of its {units} {what}s in {documents} document(s), {HELD_OUT}"
        train = replace(self, read=partial(some, False), identity=f"{self.identity}[not {wanted} of {units}]")
        held = replace(self, read=partial(some, True), identity=f"{self.identity}[{wanted} of {units}]")
        return train, replace(held, name=f"{self.name} ({told})")


def _not_blank(document: Document) -> list[str]:
    return [sentence for sentence in document.sentences if sentence]


def joined(corpora: Sequence[Corpus]) -> Corpus:
    """The corpora, one after the other, as one corpus."""
    if len(corpora) == 1:
        return corpora[0]
    names = ", ".join(corpus.name for corpus in corpora)
    identity = " + ".join(corpus.identity for corpus in corpora)

    def read() -> Iterator[Document]:
        return itertools.chain.from_iterable(corpora)

    parallel, labelled = all(corpus.parallel for corpus in corpora), any(corpus.labelled for corpus in corpora)
    return Corpus(names, "all", read, identity, parallel, labelled)


def read_corpus(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, list[Corpus]]:
    """The corpora of each split, as the flags of `recipes/pretrain.py` name them; nothing of them is read yet.

    A `--train_file` may name several files: comma-separated, or as a pattern like `wiki.*.txt`. They are one corpus.
    Only for `xlm-r`, each file is the corpus of one language. If there is no validation split, a share of the
    training documents is held out.

    Raises:
        ValueError: naming file or flag, for anything that cannot be read.
    """
    check_pretraining_flags(config)
    return corpora_of(config, parallel_columns(config), by_file=config.objective == "xlm-r", given=given)


def corpora_of(
    config: Any,
    parallel: tuple[str, ...] = (),
    *,
    by_file: bool = False,
    given: Mapping[str, Any] | None = None,
) -> dict[str, list[Corpus]]:
    """As `read_corpus`, for any recipe: one corpus of all files of a split, or `by_file` one for each file."""
    splits: dict[str, list[Corpus]] = {}
    if given is not None:
        for split, rows in given_splits(config, given).items():
            splits[split] = [_given(rows, f"data ({split})", config)]
    elif config.dataset_name == "samples" and config.dataset_config_name is not None:
        splits |= _texts_of_samples(config)
    elif config.dataset_name == "samples":
        splits["train"] = [_python_reference()]
    elif config.dataset_name is not None:
        splits |= _data_set(config)
    for split in splits_to_read():
        if names := getattr(config, f"{split}_file"):
            corpora = [_file(path, config, parallel) for path in _files(names, f"--{split}_file")]
            if len({corpus.language for corpus in corpora}) < len(corpora):  # wiki.en.txt, wiki.de.txt
                corpora = [replace(corpus, language=Path(corpus.name).stem) for corpus in corpora]
            splits[split] = corpora
    if "train" not in splits:
        raise ValueError("no training data: give --train_file, or a --dataset_name with a train split")
    if "validation" not in splits and config.validation_split_percentage > 0:
        pairs = [corpus.held_out(config.validation_split_percentage) for corpus in splits["train"]]
        splits["train"], splits["validation"] = [list(part) for part in zip(*pairs, strict=True)]
    for split, corpora in splits.items():
        limit = config.max_train_samples if split == "train" else config.max_eval_samples
        if not by_file:
            corpora = [joined(corpora)]
        splits[split] = [corpus.first(limit) for corpus in corpora]
    return {split: splits[split] for split in splits_to_read() if split in splits}


def _files(names: str, flag: str) -> list[Path]:
    found: list[Path] = []
    for name in filter(None, map(str.strip, names.split(","))):
        paths = [Path(name)] if Path(name).exists() else [Path(path) for path in sorted(glob.glob(name))]
        if not paths:
            raise ValueError(f"{flag} {name}: no such file")
        found += paths
    return found


def _file(path: Path, config: Any, parallel: tuple[str, ...]) -> Corpus:
    column, sentences = config.text_column_name, config.sentences
    form = labelled_form(path)
    saved = load_saved_split(path) if path.is_dir() and form is None else None
    identity = f"{path.resolve()} {_digest(path)} {column} {sentences} {parallel} {config.column_names}"
    language = path.name.split(".")[0]
    if parallel:
        read = partial(_read_parallel, path, parallel, config.column_names)
        return Corpus(str(path), language, read, identity, parallel=True)
    if form is not None:
        read = partial(_read_labelled, path, form, column, sentences, config.column_names)
        return Corpus(str(path), language, read, identity, labelled=True)
    if saved is not None:
        return Corpus(str(path), language, partial(_read_rows, saved, str(path), column, sentences), identity)
    if path.suffix.lower() == ".parquet":
        open_parquet(path)  # is it one?
        return Corpus(str(path), language, partial(_read_parquet, path, column, sentences), identity)
    if path.suffix.lower() in (".jsonl", ".json"):
        return Corpus(str(path), language, partial(_read_jsonl, path, column, sentences), identity)
    return Corpus(str(path), language, partial(_read_text, path, sentences), identity)


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder. Size and time would not be enough to tell contents apart."""
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            whole.update(f"{file.relative_to(path)}\n".encode("utf-8", "surrogateescape"))
            with file.open("rb") as content:
                whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()


def _given(rows: datasets.Dataset, name: str, config: Any) -> Corpus:
    column, sentences = config.text_column_name, config.sentences
    content = hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest()
    return Corpus(
        name, "data", partial(_read_rows, rows, name, column, sentences), f"{name} {content} {column} {sentences}"
    )


def _data_set(config: Any) -> dict[str, list[Corpus]]:
    name, column, sentences = str(config.dataset_name), config.text_column_name, config.sentences
    digest = _digest(Path(name)) if Path(name).is_dir() else None
    if digest is not None:
        loaded = load_saved(name) if is_saved(Path(name)) else load_hub(name, config.dataset_config_name)
        splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    else:
        splits = dict(load_hub(name, config.dataset_config_name, streaming=config.streaming))
    corpora = {}
    for split, rows in splits.items():
        if split in splits_to_read():
            fingerprint = digest or getattr(rows, "_fingerprint", None) or commit_of(name)  # a stream has none
            identity = f"{name} {config.dataset_config_name} {split} {fingerprint} {column} {sentences}"
            read = partial(_read_rows, rows, f"{name} ({split})", column, sentences)
            corpora[split] = [Corpus(f"{name} ({split})", Path(name).name, read, identity)]
    return corpora


def _read_text(path: Path, sentences: Sentences) -> Iterator[Document]:
    lines: list[str] = []
    begin = 1
    for number, line in _lines(path):
        if line.strip():
            if not lines:
                begin = number
            lines.append(line.strip())
        elif lines:
            yield Document(
                str(path), begin, _sentences(" ".join(lines), path.name) if sentences == "split" else lines
            )
            lines = []
    if lines:
        yield Document(str(path), begin, _sentences(" ".join(lines), path.name) if sentences == "split" else lines)


def _read_labelled(
    path: Path, form: str, column: str, sentences: Sentences, column_names: str | None
) -> Iterator[Document]:
    for line, texts in texts_of(path, form, column, column_names):
        parts = (_of_value(text, sentences, f"{path}:{line}", column) for text in texts)
        yield Document(str(path), line, list(itertools.chain.from_iterable(parts)))


def _read_jsonl(path: Path, column: str, sentences: Sentences) -> Iterator[Document]:
    for number, row in json_rows(path, _lines(path)):
        row = _joined_words(row, column)
        if not isinstance(row, dict) or column not in row:
            has = listed(list(row)) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{path}:{number}: no {column!r}; it has: {has}. Name the text with --text_column_name")
        yield Document(str(path), number, _of_value(row[column], sentences, f"{path}:{number}", column))


def _read_parquet(path: Path, column: str, sentences: Sentences) -> Iterator[Document]:
    file = open_parquet(path)
    columns = [column] if column in file.schema_arrow.names else None  # without it, all are named in the message
    rows = (row for batch in file.iter_batches(batch_size=1000, columns=columns) for row in batch.to_pylist())
    return _read_rows(rows, str(path), column, sentences)


def _read_rows(rows: Iterable[Any], name: str, column: str, sentences: Sentences) -> Iterator[Document]:
    for number, found in _numbered(rows, name):
        row = _joined_words(found, column)
        if column not in row:
            raise ValueError(
                f"{name}: no column {column!r}; it has: {listed(list(row))}. Name the text with --text_column_name"
            )
        yield Document(name, -number, _of_value(row[column], sentences, f"{name}, row {number}", column))


def _joined_words(row: Any, column: str) -> Any:
    """A row whose words are `tokens`, as rows of a tagger have them, gets a text of them."""
    words = row.get("tokens") if isinstance(row, dict) and (column not in row or column == "tokens") else None
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return row | {column: " ".join(words)}
    return row


def _numbered(rows: Iterable[Any], name: str) -> Iterator[tuple[int, Any]]:
    left, number = iter(rows), 0
    while True:
        number += 1
        try:
            row = next(left)
        except StopIteration:
            return
        except Exception as error:  # text that is not UTF-8, a broken file, a connection that ends
            reason = str(error).strip().split("\n")[0][:300]
            raise ValueError(f"{name}, row {number} or soon after: not read: {reason}") from error
        yield number, row


def _read_parallel(path: Path, languages: tuple[str, ...], column_names: str | None) -> Iterator[Document]:
    columns, lines = read_columns(path, list(languages), column_names)
    for line, row in zip(lines, zip(*(columns[name] for name in languages), strict=True), strict=True):
        if not all(isinstance(cell, str) for cell in row):
            raise ValueError(f"{path}:{line}: a cell of {', '.join(languages)} is no text")
        yield Document(str(path), line, [cell.strip() for cell in row])


def _of_value(value: Any, sentences: Sentences, where: str, column: str) -> list[str]:
    if isinstance(value, str):
        return _sentences(value, where) if sentences == "split" else [line.strip() for line in value.splitlines()]
    if isinstance(value, list) and all(isinstance(sentence, str) for sentence in value):
        return [sentence.strip() for sentence in value]
    raise ValueError(f"{where}: {column!r} is {type(value).__name__}, neither a text nor a list of sentences")


def _sentences(text: str, name: str = "") -> list[str]:
    """The sentences of a text; a file's name may begin with its language, as `de.txt` does."""
    import sentencex

    language = Path(name).name.split(".")[0]
    language = language if len(language) in (2, 3) else "en"
    return [stripped for sentence in sentencex.segment(language, text) if (stripped := sentence.strip())]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 text, one in memory at a time. LF, CRLF and CR end a line."""
    number = 0
    with path.open("rb") as file:
        for raw in file:
            for part in re.split(rb"\r\n?|\n", raw.removesuffix(b"\n").removesuffix(b"\r")):
                number += 1
                try:
                    line = part.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path}:{number}: not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file, for "
                        "example with iconv"
                    ) from error
                if "\0" in line:
                    raise ValueError(f"{path}:{number}: a NUL character; is this a text file?")
                yield number, line


def _texts_of_samples(config: Any) -> dict[str, list[Corpus]]:
    """The texts of the samples of a task: its training and validation split, not its test split."""
    name = str(config.dataset_config_name)
    folder = Path(__file__).parent / "samples" / name
    names = sorted(own.name for own in folder.parent.iterdir() if own.is_dir() and own.name in _SAMPLES)
    if name not in names:
        raise ValueError(
            f"--dataset_config_name {name}: no samples with texts have this name; there are {', '.join(names)}"
        )
    paths = {path.stem: path for path in folder.iterdir() if path.stem in ("train", "validation")}
    return {split: [_file(path, config, ())] for split, path in paths.items()}


def _python_reference() -> Corpus:
    """The language reference that is part of every Python: 460 KB of English prose, one document for each topic."""
    from pydoc_data import topics

    def read() -> Iterator[Document]:
        for number, text in enumerate(topics.topics.values(), start=1):
            paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
            yield Document(
                "samples", -number, [sentence for paragraph in paragraphs for sentence in _sentences(paragraph)]
            )

    return Corpus("samples", "samples", read, f"pydoc_data.topics {sys.version}")
