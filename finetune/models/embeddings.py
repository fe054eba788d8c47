"""Word vectors to start a baseline from: a GloVe or word2vec text file, or a checkpoint's input embeddings."""

from pathlib import Path
from typing import Any

import numpy as np
import torch


def read_vectors(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Reads `word v1 v2 ...` lines (GloVe), with or without a first line `count size` (word2vec).

    Returns:
        The words, and their vectors as float32 (words, size).

    Raises:
        ValueError: naming file and line, for a line of another size or with something that is no number.
    """
    words: list[str] = []
    vectors: list[np.ndarray] = []
    size = None
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                cells = raw.decode("utf-8").rstrip().split(" ")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8; is this a text file of vectors?") from error
            if number == 1 and len(cells) == 2:
                continue
            size = len(cells) - 1 if size is None else size
            # A few words of some GloVe files hold spaces, so the vector is what stands at the end.
            word, values = " ".join(cells[:-size]), cells[-size:]
            try:
                vector = np.array(values, dtype=np.float32)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not a word followed by {size} numbers") from error
            if not word or len(vector) != size:
                raise ValueError(f"{path}:{number}: not a word followed by {size} numbers")
            words.append(word)
            vectors.append(vector)
    if not words:
        raise ValueError(f"{path}: no word vector in this file")
    return words, np.stack(vectors)


def word_start_mark(pieces: list[str]) -> str | None:
    """What the first piece of a word starts with; None: WordPiece, which marks the others, with `##`."""
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

    The scale of a table depends on where it comes from (0.05 in BERT, 0.4 in GloVe), and a recurrent layer
    learns at a rate that depends on it; so every table starts at the scale of a random one.
    """
    known = ~vectors.isnan().any(dim=1)
    vectors = vectors - vectors[known].mean(dim=0)
    vectors = vectors / vectors[known].std(correction=0).clamp(min=1e-6)
    vectors[~known] = torch.randn(int((~known).sum()), vectors.shape[1])
    return vectors
