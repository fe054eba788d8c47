"""Tokenises corpora, and keeps the tokens as arrays on the disk.

The arrays are mapped from files, so a corpus may be larger than the memory. The files are in the folder
`finetune-documents` of the cache of `datasets` (`HF_DATASETS_CACHE`). It may be removed at any time: missing or
damaged files are made again.

Shapes: D documents, S sentences, T tokens.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tokenizers import Tokenizer

from finetune.data.documents import Corpus, Document
from finetune.data.words import word_starts

_ARRAYS = {
    "tokens": np.int32,
    "starts_word": np.bool_,
    "sentences": np.int64,
    "documents": np.int64,
    "lines": np.int64,
    "sources": np.int32,
}
_AT_ONCE = 4096  # number of sentences that are tokenised together
_VERSION = 3  # version of the arrays on the disk


@dataclass(frozen=True)
class Documents:
    """Tokenised documents, one after the other, in arrays that are mapped from files.

    | array | dtype, shape | meaning |
    |---|---|---|
    | `tokens` | int32 (T,) | ids, without special tokens |
    | `starts_word` | bool (T,) | whether the token begins a word |
    | `sentences` | int64 (S + 1,) | sentence i is `tokens[sentences[i]:sentences[i + 1]]` |
    | `documents` | int64 (D + 1,) | document i is the sentences from `documents[i]` to `documents[i + 1]` |
    | `lines` | int64 (D,) | the line of its file where document i begins |
    | `sources` | int32 (D,) | the number of its file in `source_names` |
    """

    folder: Path
    name: str
    language: str
    source_names: list[str]
    notes: dict[str, int]  # numbers of empty documents and sentences (left out), and of unknown and special tokens

    def __str__(self) -> str:
        unknown = self.notes["unknown"] / len(self.tokens)
        return f"{len(self):,} documents of {self.name}, {unknown:.2%} of their subwords unknown"

    def __len__(self) -> int:
        return len(self.documents) - 1

    @cached_property
    def tokens(self) -> np.ndarray:
        return self._map("tokens")

    @cached_property
    def starts_word(self) -> np.ndarray:
        return self._map("starts_word")

    @cached_property
    def sentences(self) -> np.ndarray:
        return self._map("sentences")

    @cached_property
    def documents(self) -> np.ndarray:
        return self._map("documents")

    @cached_property
    def lines(self) -> np.ndarray:
        return self._map("lines")

    @cached_property
    def sources(self) -> np.ndarray:
        return self._map("sources")

    def _map(self, name: str) -> np.ndarray:
        file = self.folder / name
        if not file.stat().st_size:
            return np.zeros(0, _ARRAYS[name])
        # As a plain array, because its single elements are read faster than those of a memmap.
        return np.asarray(np.memmap(file, dtype=_ARRAYS[name], mode="r"))

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the files again, so the arrays are not sent to it.
        return {key: value for key, value in self.__dict__.items() if key not in _ARRAYS}

    def place(self, document: int) -> str:
        """The place where a document begins, for messages."""
        line, name = int(self.lines[document]), self.source_names[self.sources[document]]
        return f"{name}:{line}" if line > 0 else f"{name}, row {-line}"


def unigram_counts(documents: Iterable[Documents], vocab_size: int) -> np.ndarray:
    """The number of occurrences of each id, int64 (vocab_size,)."""
    counts = np.zeros(vocab_size, np.int64)
    for part in documents:
        for i in range(0, len(part.tokens), 2**22):
            counts += np.bincount(part.tokens[i : i + 2**22], minlength=vocab_size)
    return counts


def tokenize(corpus: Corpus, tokenizer: Any) -> Documents:
    """Tokenises a corpus and writes it to the disk, or finds the files of an earlier run.

    Args:
        tokenizer: a fast tokenizer. Each sentence is tokenised alone.

    Raises:
        ValueError: if the corpus has no token, or only unknown and special tokens.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy, so that it may be changed
    # Some checkpoints, such as the default one, were saved with padding and truncation.
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True  # `[SEP]` or `<s>` in a text is ordinary text
    unknown = tokenizer.unk_token_id
    special = sorted(set(tokenizer.all_special_ids) - {unknown})
    made_of = f"{_VERSION}\n{corpus.identity}\n{unknown} {special}\n{backend.to_str()}"
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "finetune-documents" / _sha256(made_of.encode())[:24]
    found = _kept(folder)
    if found is None:
        beside = folder.with_name(f"{folder.name}.{os.getpid()}.writing")
        try:
            _write(corpus, backend, beside, unknown, special)
            if _kept(folder) is None:  # no other process was faster
                shutil.rmtree(folder, ignore_errors=True)  # if there is a folder, it is damaged
                with contextlib.suppress(OSError):  # another process is faster now
                    beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        found = _kept(folder)
    if found is None:
        raise OSError(f"{folder}: the tokens were written, but the files differ from what was written")
    notes, source_names = found["notes"], found["source_names"]
    tokens = (folder / "tokens").stat().st_size // np.dtype(_ARRAYS["tokens"]).itemsize
    if notes["unknown"] + notes["special"] == tokens:
        raise ValueError(
            f"{corpus.name}: the vocabulary does not know this text: all of its {tokens:,} subwords are "
            "unknown or special tokens, so nothing can be masked; take a checkpoint or tokenizer of this language or "
            "script, or train one (--tokenizer_name unigram)"
        )
    return Documents(folder, corpus.name, corpus.language, source_names, notes)


def _kept(folder: Path) -> dict[str, Any] | None:
    """The content of notes.json in a folder of arrays; None if a file is missing or damaged."""
    try:
        found: dict[str, Any] = json.loads((folder / "notes.json").read_text())
        whole = all(_file_sha256(folder / name) == found["sha256"][name] for name in _ARRAYS)
        return found if whole and _sha256(_text_of(found).encode()) == found["own_sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text_of(found: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in found.items() if key != "own_sha256"}, sort_keys=True)


def _write(corpus: Corpus, backend: Tokenizer, folder: Path, unknown: int | None, special: list[int]) -> None:
    folder.mkdir(parents=True)
    notes = {"empty_documents": 0, "empty_sentences": 0, "unknown": 0, "special": 0}
    sources: dict[str, int] = {}
    tokens = sentences = 0
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in _ARRAYS}
        np.zeros(1, np.int64).tofile(files["sentences"])
        np.zeros(1, np.int64).tofile(files["documents"])
        for documents in _in_parts(corpus):
            texts = [sentence for document in documents for sentence in document.sentences]
            encoded = iter(backend.encode_batch(texts, add_special_tokens=False))
            new: dict[str, list[Any]] = {name: [] for name in _ARRAYS}
            for document in documents:
                kept = 0
                for sentence in document.sentences:
                    encoding = next(encoded)
                    if not encoding.ids and not corpus.parallel:  # it has only characters that the tokenizer drops
                        notes["empty_sentences"] += 1
                        continue
                    tokens += len(encoding.ids)
                    kept += 1
                    new["tokens"] += encoding.ids
                    new["starts_word"] += word_starts(sentence, encoding.word_ids, encoding.offsets)
                    new["sentences"].append(tokens)
                if not kept:
                    notes["empty_documents"] += 1
                    continue
                sentences += kept
                new["documents"].append(sentences)
                new["lines"].append(document.line)
                new["sources"].append(sources.setdefault(document.source, len(sources)))
            ids = np.array(new["tokens"], dtype=np.int32)
            notes["unknown"] += 0 if unknown is None else int((ids == unknown).sum())
            notes["special"] += int(np.isin(ids, special).sum())
            for name, values in new.items():
                files[name].write(np.array(values, dtype=_ARRAYS[name]).tobytes())  # tofile() hides a full disk
    if not tokens:
        raise ValueError(f"{corpus.name}: no text in it")
    digests = {name: _file_sha256(folder / name) for name in _ARRAYS}
    found: dict[str, Any] = {"notes": notes, "source_names": list(sources), "sha256": digests}
    (folder / "notes.json").write_text(json.dumps(found | {"own_sha256": _sha256(_text_of(found).encode())}))


def _in_parts(corpus: Iterable[Document]) -> Iterator[list[Document]]:
    part: list[Document] = []
    sentences = 0
    for document in corpus:
        part.append(document)
        sentences += len(document.sentences)
        if sentences >= _AT_ONCE:
            yield part
            part, sentences = [], 0
    if part:
        yield part


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
