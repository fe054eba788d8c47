"""Word vectors with which a baseline starts: a GloVe or word2vec text file, or a checkpoint's input embeddings."""

from pathlib import Path
from typing import Any

import numpy as np
import torch


def read_vectors(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Reads `word v1 v2 ...` lines (GloVe), with spaces or tabs, and a first line `count size` (word2vec) or none.

    Returns:
        The words, and their vectors as float32 (words, size).

    Raises:
        ValueError: naming file and line, for a line of another size or with something that is no finite number, and
            for another number of words than the first line says.
    """
    words: list[str] = []
    vectors: list[np.ndarray] = []
    count = size = None
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8; is this a text file of vectors?") from error
            cells = line.rstrip(" \t\r\n").replace("\t", " ").split(" ")
            if cells == [""]:
                continue
            if number == 1 and len(cells) == 2 and all(cell.isascii() and cell.isdigit() for cell in cells):
                count, size = map(int, cells)
                continue
            size = len(cells) - 1 if size is None else size
            # In some GloVe files a few words hold spaces. So the last `size` cells are the vector.
            word, values = " ".join(cells[:-size]), cells[-size:]
            no_vector = f"{path}:{number}: not a word followed by {size or 'its'} numbers"
            try:
                with np.errstate(over="ignore"):  # a number that is too large becomes infinity, refused below
                    vector = np.array(values, dtype=np.float32)
            except ValueError as error:
                raise ValueError(no_vector) from error
            if not word or len(vector) != size or size == 0:
                raise ValueError(no_vector)
            if not np.isfinite(vector).all():
                raise ValueError(f"{path}:{number}: the vector of {word!r:.100} has a number that is not finite")
            words.append(word)
            vectors.append(vector)
    if not words:
        raise ValueError(f"{path}: no word vector in this file")
    if count is not None and count != len(words):
        raise ValueError(
            f"{path}: its first line says that there are {count:,} words, and there are {len(words):,}; is the file "
            "whole?"
        )
    return words, np.stack(vectors)


def rows_of_words(vocabulary: list[str], words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Finds each word of a vocabulary among the `words` of a file.

    First the same word is looked for, then the word in lower case, then a word of the file whose lower case is the
    same. If several fit, the first one counts.

    Returns:
        int64 (V,), the place in `words`, or -1 if there is none; and bool (V,), true if it is exactly the same word.
    """
    same = {word: i for i, word in reversed(list(enumerate(words)))}
    lower = {word.lower(): i for i, word in reversed(list(enumerate(words)))}
    exact = np.array([word in same for word in vocabulary], dtype=bool)
    rows = [same.get(w, same.get(w.lower(), lower.get(w.lower(), -1))) for w in vocabulary]
    return np.array(rows, dtype=np.int64), exact


def word_start_mark(pieces: list[str]) -> str | None:
    """The mark at the start of a word's first piece. None for WordPiece, which marks the other pieces with `##`."""
    return next((mark for mark in ("Ġ", "▁") if sum(p.startswith(mark) for p in pieces) > len(pieces) // 10), None)


def checkpoint_words(tokenizer: Any) -> list[str]:
    """The pieces of a vocabulary that are whole words."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_tokens)
    mark = word_start_mark(pieces)
    if mark is None:
        words = [p for p in pieces if not p.startswith("##") and p not in special and not p.startswith("[unused")]
    else:
        words = [p[len(mark) :] for p in pieces if p.startswith(mark) and p not in special]
    return [word for word in words if word and not any(c.isspace() for c in word)]


def vectors_from_checkpoint(words: list[str], tokenizer: Any, table: torch.Tensor) -> torch.Tensor:
    """For each word the mean of its subwords' input embeddings; NaN where it has none.

    Args:
        table: float (V, H), the input embeddings.

    Returns:
        float (words, H).
    """
    encoded = tokenizer([[word] for word in words], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    lengths = torch.tensor([len(ids) for ids in encoded])
    flat = torch.tensor([i for ids in encoded for i in ids], dtype=torch.long)
    owner = torch.repeat_interleave(torch.arange(len(words)), lengths)
    sums = torch.zeros(len(words), table.shape[1]).index_add_(0, owner, table[flat].float())
    return sums / lengths[:, None]


def standardised(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors with mean 0 and standard deviation 1 over all components; rows with NaN become random draws.

    The scale of a table depends on its source (0.05 in BERT, 0.4 in GloVe), and the speed at which a recurrent layer
    learns depends on the scale. So every table starts at the scale of a random one.
    """
    known = ~vectors.isnan().any(dim=1)
    vectors = vectors - vectors[known].mean(dim=0)
    vectors = vectors / vectors[known].std(correction=0).clamp(min=1e-6)
    vectors[~known] = torch.randn(int((~known).sum()), vectors.shape[1])
    return vectors
