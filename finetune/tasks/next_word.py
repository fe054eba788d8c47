"""The next word: language models, which give a text's probability token by token.

Every token of a document, and the token that ends it, is scored exactly once. The scores divide by words and
characters of the raw text, so models with different tokenizers can be compared.

Shapes: D documents.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from finetune import data, metrics, models
from finetune.data import labels_counted as targets  # noqa: F401
from finetune.data import read_documents as read  # noqa: F401
from finetune.files import write_text
from finetune.tasks.samples import Runs, each, first_run, in_order

METRICS = ("log_probability", "loss")
SHOWN = ("perplexity", "bits_per_character", "words")
PIPELINE = "text-generation"
USE = 'finetune.generate(FOLDER, "The committee", length=30, top_p=0.9, count=3)'


@dataclass
class Said:
    """What a model says of each document: the negative log-probability in nats, float64 (D,), of so many tokens."""

    nll: np.ndarray
    tokens: np.ndarray


@dataclass
class EncodedDocuments:
    """The rows of a split."""

    rows: data.NextWordRows
    words: int

    def __str__(self) -> str:
        documents, kept = self.rows.documents, self.rows.context
        whole = "its whole document, or at least 8,192 tokens of it"
        context = whole if kept is None else f"{kept} tokens of its document or more"
        tokens = len(documents.tokens)
        return (
            f"{len(documents):,} documents, {self.words:,} words, {tokens:,} tokens ({tokens / self.words:.2f} a "
            f"word, {documents.notes['unknown'] / tokens:.2%} unknown); an evaluation shows each token {context}"
        )


def headline(dataset: Any) -> str:
    """The score that models are compared by: the mean log-probability of a word, in nats."""
    return "log_probability"


def labels(splits: Mapping[str, Any]) -> list[str]:
    """There are none."""
    return []


def sentences(dataset: Any) -> Any:
    """All sentences, for training a tokenizer."""
    return (sentence for document in dataset["sentences"] for sentence in document)


def encode(dataset: Any, tokenizer: Any, labels: Sequence[str], config: Any) -> EncodedDocuments:
    """The rows of a split."""
    begin, end = models.document_marks(tokenizer)
    recurrent = models.is_baseline(config.model_name_or_path)
    context = None if recurrent else config.eval_context or config.max_seq_length // 2
    documents = data.tokenize_documents(dataset, tokenizer)
    rows = data.NextWordRows(documents, begin, end, config.max_seq_length, config.seed, context)
    return EncodedDocuments(rows, int(gold(dataset, labels)[:, 0].sum()))


def gold(dataset: Any, labels: Sequence[str]) -> np.ndarray:
    """The size of each document: words (between spaces) and characters, int64 (D, 2)."""
    words, sizes = inputs(dataset)
    return np.array([[len(some), size] for some, size in zip(words, sizes, strict=True)], dtype=np.int64)


def collect(output: Any, batch: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The negative log-probability of each row's targets, float64 (B,)."""
    return {"nll": output["nll"]}


def decode(encoded: EncodedDocuments, found: Mapping[str, np.ndarray]) -> Said:
    """Sums over the rows of each document.

    Raises:
        RuntimeError: if a token was not scored exactly once.
    """
    windows, documents = encoded.rows.windows, encoded.rows.documents
    of, D = windows.parts[:, 0], len(documents)
    nll = np.bincount(of, weights=found["nll"], minlength=D)
    tokens = np.bincount(of, weights=windows.targets, minlength=D).astype(np.int64)
    if (tokens != np.diff(documents.sentences[documents.documents]) + 1).any():
        raise RuntimeError("a token was not scored exactly once; this is a bug in cutting documents into rows")
    # A document of which the tokenizer makes nothing has no rows; `lines` are the numbers of the others.
    said = Said(*(np.zeros(int(documents.lines.max()) + 1, dtype) for dtype in (np.float64, np.int64)))
    said.nll[documents.lines], said.tokens[documents.lines] = nll, tokens
    return said


def counts(gold: np.ndarray, said: Said, labels: Sequence[str], settings: Mapping[str, Any]) -> np.ndarray:
    """What each document adds to the scores, float64 (D, 4): nats, tokens, words, characters."""
    found = np.zeros((len(gold), 4))
    found[: len(said.nll), 0], found[: len(said.nll), 1] = said.nll, said.tokens
    found[:, 2:] = gold
    return found


def score(sums: np.ndarray, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The scores of summed counts."""
    return metrics.next_word_scores(sums)


def write(
    file: Callable[[str], Path],
    name: str,
    dataset: Any,
    said: Said,
    labels: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Writes `predictions_<name>.jsonl`: each document with its nats and tokens."""
    lines = [
        json.dumps({"nll": nats, "tokens": tokens, "sentences": text}, ensure_ascii=False) + "\n"
        for text, (nats, tokens, *_) in zip(
            dataset["sentences"], counts(gold(dataset, labels), said, labels, settings).tolist(), strict=True
        )
    ]
    write_text(file(f"predictions_{name}.jsonl"), "".join(lines))


def reread(folder: Path, name: str) -> tuple[list[list[str]], list[Any], list[Any], list[float]]:
    """Words and number of characters of each document, its nats and tokens; no scores."""
    text = (folder / f"predictions_{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    words, sizes = inputs({"sentences": [row["sentences"] for row in rows]})
    return words, sizes, [(row["nll"], row["tokens"]) for row in rows], []


def restored(found: Sequence[Any], labels: Sequence[str], settings: Mapping[str, Any]) -> tuple[np.ndarray, Said]:
    """The size of each document and its nats from what `reread` gave, as `counts` takes them."""
    words, sizes, said, _ = found
    nll, tokens = np.array(said, dtype=np.float64).reshape(-1, 2).T
    gold = np.array([[len(some), size] for some, size in zip(words, sizes, strict=True)], dtype=np.int64)
    return gold.reshape(-1, 2), Said(nll, tokens.astype(np.int64))


def inputs(dataset: Any) -> tuple[list[list[str]], list[Any]]:
    """Words and number of characters of each document, as `reread` has them. Between two sentences is a space."""
    texts = [" ".join(document) for document in dataset["sentences"]]
    return [text.split() for text in texts], [len(text) for text in texts]


def compared(runs: Runs, splits: Mapping[str, Any]) -> dict[str, Any]:
    """What models have in common and where they differ, from what each of their runs said."""
    some = first_run(runs)
    sizes = np.array([[len(words), size] for words, size in zip(some.words, some.gold, strict=True)])
    tables = {}
    for key, run in each(runs):
        nll, tokens = np.array(run.predicted).T
        tables[key] = counts(sizes, Said(nll, tokens), [], {})
    groups = np.array([_length_group(len(words)) for words in some.words])
    names = sorted(set(groups.tolist()), key=in_order)

    def log_probability(sums: np.ndarray) -> np.ndarray:
        return -sums[..., 0] / sums[..., 2]

    by_length = {
        name: {
            group: float(np.mean([log_probability(tables[name, seed][groups == group].sum(0)) for seed in seeds]))
            for group in names
        }
        for name, seeds in runs.items()
    }
    return {
        "metric": "log_probability",
        "score": log_probability,
        "counts": {name: np.stack([tables[name, seed] for seed in seeds]) for name, seeds in runs.items()},
        "breakdowns": {
            "words of the document": {
                "size": {group: int((groups == group).sum()) for group in names},
                "of": "documents, by log-probability a word",
                "scores": by_length,
            }
        },
    }


def _length_group(words: int) -> str:
    ranges = ((1, 100), (101, 250), (251, 500), (501, 1000))
    return next((f"{low}-{high}" for low, high in ranges if words <= high), f"over {ranges[-1][1]}")
