"""words + labels + tokenizer -> windows, and windows + predictions -> one prediction for each word.

Every word of the input is labelled and scored exactly once. A sentence longer than `max_seq_length` is cut into
overlapping windows, and each word belongs to the window that shows the most context around it. From some words, such
as U+200E, U+FE0F and control characters, the tokenizer makes no subword. They belong to no window and get label 0,
which is `O` for entities.

Shapes: S sentences, W words of all sentences, U distinct words, N windows, T tokens of all windows.

Each distinct word is tokenised only once. This is enough because for input that is split into words, `tokenizers`
normalises, pre-tokenises and encodes each word alone, and joins the pieces afterwards. So a word's subwords do not
depend on its neighbours. `tests/data/test_alignment.py` compares this with the ordinary call for WordPiece,
byte-level BPE and Unigram.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import pyarrow

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data.context import Context, document_numbers, joined, neighbours, told
from finetune.data.rows import Rows, ranges

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

IGNORE = -100
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Subwords:
    """The subwords of all words, one after the other. Word w has the subwords `[starts[w]:starts[w + 1]]`."""

    features: dict[str, np.ndarray]  # input_ids int32 (T,), and char_ids uint8 (T, C) for the baselines
    starts: np.ndarray  # int64 (W + 1,)


@dataclass(frozen=True)
class Alignment:
    """Windows, and the way back from tokens to words."""

    rows: Rows  # N windows: input_ids, labels (-100 for subwords without a label)
    word_of_token: np.ndarray  # int64 (T,): the word, if the token is its first subword in the word's window; else -1
    sentence_offsets: np.ndarray  # int64 (S + 1,): sentence s has the words [offsets[s]:offsets[s + 1]]
    gold: np.ndarray  # int64 (W,): index into the labels
    word_counts: np.ndarray  # int64 (W,): subwords of each word
    subwords: Subwords  # the subwords of the words, before they were cut into windows
    context: str = ""  # what the context of the windows costs, as a line

    @property
    def words(self) -> int:
        """W, the words of the input."""
        return len(self.gold)

    def to_words(self, token_predictions: np.ndarray, outside: int = 0) -> tuple[np.ndarray, int]:
        """One prediction for each word, or one score for each word.

        Args:
            token_predictions: (T, ...), a label index or scores for each token of `rows`, in their order.
            outside: the label index, or the score, of words without a subword.

        Returns:
            (W, ...) of the same dtype, and the number of words that got exactly one prediction.

        Raises:
            RuntimeError: if this number is not W.
        """
        at = np.flatnonzero(self.word_of_token >= 0)
        words = self.word_of_token[at]
        times = np.bincount(words, minlength=self.words)
        predictions = np.full((self.words, *token_predictions.shape[1:]), outside, dtype=token_predictions.dtype)
        predictions[words] = token_predictions[at]
        times[self.word_counts == 0] += 1
        scored = int((times == 1).sum())
        if scored != self.words:
            raise RuntimeError(f"{self.words} words but {scored} scored exactly once; this is a bug in alignment")
        return predictions, scored


def align(
    dataset: datasets.Dataset,
    tokenizer: Any,
    labels: Sequence[str],
    *,
    max_seq_length: int = 128,
    doc_stride: int | None = None,
    label_all_tokens: bool = False,
    context: Context = "none",
    context_size: int | None = None,
) -> Alignment:
    """Cuts sentences of words into windows of subwords with labels.

    Args:
        dataset: columns `tokens` (list of str) and `ner_tags` (list of str), as `read_tagged` returns them; for a
            `context` also `document` (str, null where it is not known). Without tags, see `align_words`.
        tokenizer: a fast tokenizer of any kind.
        labels: index -> tag. `labels[0]` is the tag of words without a subword.
        max_seq_length: the largest number of subwords in a window, with the special tokens; at least 8.
        doc_stride: the number of subwords that two neighbouring windows share; default: half a window.
        label_all_tokens: label all subwords of a word. After the first subword, `B-` becomes `I-`.
        context, context_size: what a window shows of the neighbours of a sentence (`context.py`).

    Raises:
        ValueError: for a window that is too short, or that shares too much with its neighbour.
    """
    words, sentence_offsets = flatten_words(dataset)
    gold = tag_ids(dataset, labels)[0] if "ner_tags" in dataset.column_names else None
    inside = _inside(labels) if label_all_tokens else None
    known = context != "none" and "document" in dataset.column_names
    return align_words(
        words,
        sentence_offsets,
        tokenizer,
        gold,
        max_seq_length=max_seq_length,
        doc_stride=doc_stride,
        inside=inside,
        documents=document_numbers(dataset["document"]) if known else None,
        context=context,
        context_size=context_size,
    )


def align_words(
    words: pa.Array | list[str],
    sentence_offsets: np.ndarray,
    tokenizer: Any,
    gold: np.ndarray | None = None,
    *,
    max_seq_length: int = 128,
    doc_stride: int | None = None,
    inside: np.ndarray | None = None,
    documents: np.ndarray | None = None,
    context: Context = "none",
    context_size: int | None = None,
) -> Alignment:
    """`align` for words that are not in a data set. They may have no labels.

    Args:
        words: W strings.
        sentence_offsets, gold, inside: see `cut_windows`. Without `gold`, the first subword of each word gets label
            0, because a CRF predicts only where the label is not -100.
        documents: of each sentence, as `document_numbers` gives them. Without them, each sentence is alone.
        context, context_size: as `align` takes them.
    """
    if max_seq_length < 8:
        raise ValueError(f"--max_seq_length {max_seq_length}: must be at least 8, to leave room for words")
    prefix, suffix = special_tokens(tokenizer)
    content = max_seq_length - len(prefix) - len(suffix)
    overlap = content // 2 if doc_stride is None else doc_stride
    if not 0 <= overlap < content:
        raise ValueError(
            f"--doc_stride {overlap}: must be from 0 to {content - 1}, less than the {content} subwords of a window"
        )
    if gold is None:
        gold = np.zeros(len(words), dtype=np.int64)
    subwords = encode_words(tokenizer, words)
    cut = (gold, prefix, suffix, content, overlap, inside)
    if context == "none" or documents is None:
        return cut_windows(subwords, sentence_offsets, *cut)
    at = (subwords.starts, sentence_offsets, documents, content)
    if context == "side_by_side":
        found = replace(cut_windows(subwords, joined(*at), *cut), sentence_offsets=sentence_offsets)
    else:
        found = cut_windows(subwords, sentence_offsets, *cut, around=neighbours(*at, context_size))
    lengths = np.diff(subwords.starts[sentence_offsets])
    windows = _windows_of(lengths, content, content - overlap)
    alone = np.where(windows > 1, windows * content, lengths) + windows * (len(prefix) + len(suffix))
    return replace(found, context=told(documents, len(found.rows), int(found.rows.offsets[-1]), int(alone.sum())))


def _windows_of(lengths: np.ndarray, content: int, step: int) -> np.ndarray:
    """The number of windows of each sentence. They start every `step` tokens; the last one ends with the sentence."""
    return np.where(lengths > content, 1 + -(-(lengths - content) // step), np.minimum(lengths, 1))


def cut_windows(
    subwords: Subwords,
    sentence_offsets: np.ndarray,
    gold: np.ndarray,
    prefix: Sequence[int],
    suffix: Sequence[int],
    content: int,
    overlap: int,
    inside: np.ndarray | None = None,
    around: tuple[np.ndarray, np.ndarray] | None = None,
) -> Alignment:
    """The computation of `align`, with arrays.

    Args:
        sentence_offsets: int64 (S + 1,), in words.
        gold: int64 (W,), the label index of each word.
        prefix, suffix: special tokens before and after the content of each window.
        content, overlap: the largest number of tokens of a window without special tokens, and how many of them the
            next window repeats.
        inside: int64 (L,), for each label of a first subword, the label of the word's further subwords. None: the
            further subwords have no label.
        around: two int64 (S,): how many tokens before and after each sentence its window shows, too, without labels.
            They are 0 where the sentence has several windows.
    """
    counts = np.diff(subwords.starts)  # (W,)
    sentence_starts = subwords.starts[sentence_offsets]  # (S + 1,), in tokens
    lengths = np.diff(sentence_starts)  # (S,)

    step = content - overlap
    windows_of = _windows_of(lengths, content, step)  # (S,)
    first_window = _offsets(windows_of)
    sentence_of_window = np.repeat(np.arange(len(lengths)), windows_of)  # (N,)
    k = np.arange(len(sentence_of_window)) - first_window[sentence_of_window]
    last_start = np.maximum(lengths - content, 0)
    window_start = sentence_starts[sentence_of_window] + np.minimum(k * step, last_start[sentence_of_window])
    window_length = np.minimum(lengths, content)[sentence_of_window]
    if around is not None:
        window_start = window_start - around[0][sentence_of_window]
        window_length = window_length + (around[0] + around[1])[sentence_of_window]
    repeated = around is not None or bool((windows_of > 1).any())
    row_offsets, tokens = _rows_of_windows(subwords, window_start, window_length, prefix, suffix, repeated)

    shift = row_offsets[:-1] + len(prefix) - window_start  # (N,): place in the rows - place in all sentences
    window = _windows_of_words(subwords, sentence_offsets, windows_of, first_window, content, step)  # (W,)
    seen = np.flatnonzero(counts)  # the words that have a subword
    first = subwords.starts[seen] + shift[window[seen]]
    word_of_token = np.full(len(tokens["input_ids"]), -1, dtype=np.int64)
    word_of_token[first] = seen
    tokens["labels"] = np.full(len(word_of_token), IGNORE, dtype=np.int32)
    tokens["labels"][first] = gold[seen]
    if inside is not None:
        # The further subwords, if they are in the same window.
        last = row_offsets[np.searchsorted(row_offsets, first, side="right")] - len(suffix) - 1
        more = np.minimum(counts[seen] - 1, last - first)
        tokens["labels"][ranges(first + 1, more)] = np.repeat(inside[gold[seen]], more)

    return Alignment(Rows(row_offsets, tokens), word_of_token, sentence_offsets, gold, counts, subwords)


def _rows_of_windows(
    subwords: Subwords,
    begin: np.ndarray,
    length: np.ndarray,
    prefix: Sequence[int],
    suffix: Sequence[int],
    repeated: bool,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The tokens of all windows, with special tokens around those of each.

    Args:
        begin, length: int64 (N,), the first of its tokens among all subwords, and how many they are.
        repeated: whether some window shows tokens that another one shows, too. If not, all are copied at once.

    Returns:
        Where the rows begin, int64 (N + 1,), and the columns of the tokens.
    """
    row_offsets = _offsets(length + len(prefix) + len(suffix))
    T = int(row_offsets[-1])
    is_content = np.ones(T, dtype=bool)
    for i in range(len(prefix)):
        is_content[row_offsets[:-1] + i] = False
    for i in range(len(suffix)):
        is_content[row_offsets[1:] - 1 - i] = False
    tokens = {}
    for key, values in subwords.features.items():
        tokens[key] = np.zeros((T, *values.shape[1:]), dtype=values.dtype)
        tokens[key][is_content] = values[ranges(begin, length)] if repeated else values
    for i, token in enumerate(prefix):
        tokens["input_ids"][row_offsets[:-1] + i] = token
    for i, token in enumerate(suffix):
        tokens["input_ids"][row_offsets[1:] - len(suffix) + i] = token
    return row_offsets, tokens


def _windows_of_words(
    subwords: Subwords,
    sentence_offsets: np.ndarray,
    windows_of: np.ndarray,
    first_window: np.ndarray,
    content: int,
    step: int,
) -> np.ndarray:
    """Of each word, int64 (W,): the window of its sentence that shows it with the most context."""
    words_of = np.diff(sentence_offsets)
    found = np.repeat(first_window[:-1], words_of)
    sentences = np.flatnonzero(windows_of > 1)
    if len(sentences):
        words = ranges(sentence_offsets[sentences], words_of[sentences])
        sentence = np.repeat(sentences, words_of[sentences])
        sentence_starts = subwords.starts[sentence_offsets]
        found[words] += _most_context(
            begin=subwords.starts[words] - sentence_starts[sentence],
            size=np.diff(subwords.starts)[words],
            length=np.diff(sentence_starts)[sentence],
            windows=windows_of[sentence],
            content=content,
            step=step,
        )
    return found


def encode_words(tokenizer: Any, words: pa.Array | list[str]) -> Subwords:
    """The subwords of all words. Each distinct word is tokenised only once.

    Args:
        tokenizer: a fast tokenizer.
        words: W strings.
    """
    codes, distinct = _factorise(words)
    if not distinct:
        return Subwords({"input_ids": np.zeros(0, np.int32)}, np.zeros(1, np.int64))
    dtypes = {"input_ids": np.int32, "char_ids": np.uint8}
    # 200 words form one text, because the tokenizer makes an object for each text, which costs more than the words.
    # Only 250 texts are tokenised together, because these objects need much more memory than the ids.
    texts = [distinct[i : i + 200] for i in range(0, len(distinct), 200)]
    counts = []
    flat: dict[str, list[Any]] = {}
    for i in range(0, len(texts), 250):
        part = tokenizer(
            texts[i : i + 250],
            is_split_into_words=True,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for text, encoding in zip(texts[i : i + 250], part.encodings, strict=True):
            counts.append(np.bincount(np.array(encoding.word_ids, dtype=np.int64), minlength=len(text)))
        for key in [key for key in dtypes if key in part]:
            flat.setdefault(key, []).extend(itertools.chain.from_iterable(part[key]))
    lengths = np.concatenate(counts)  # (U,)
    starts = _offsets(lengths[codes])  # (W + 1,)
    at = ranges(_offsets(lengths)[:-1][codes], lengths[codes])
    return Subwords({key: np.array(values, dtype=dtypes[key])[at] for key, values in flat.items()}, starts)


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a single text."""
    bare = tokenizer(["x"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    full = tokenizer(["x"], is_split_into_words=True)["input_ids"]
    for i in range(len(full) - len(bare) + 1):
        if full[i : i + len(bare)] == bare:
            return full[:i], full[i + len(bare) :]
    raise ValueError(
        f"{type(tokenizer).__name__} changes the subwords of a text when it adds special tokens, so words cannot be "
        "aligned with it; take another tokenizer"
    )


def _most_context(
    begin: np.ndarray, size: np.ndarray, length: np.ndarray, windows: np.ndarray, content: int, step: int
) -> np.ndarray:
    """For each word of a long sentence, the number of the window (in its sentence) that shows it with most context.

    Context is the distance to the nearer edge of the window. An edge of the sentence does not count. All arguments
    are int64 (words,), in tokens. `begin` counts from the first token of the sentence.
    """
    best, best_context = np.zeros_like(begin), np.full_like(begin, -_FAR)
    earliest = np.maximum((begin - content) // step + 1, 0)
    # The last window is moved back so that it ends with the sentence. So it is a further candidate.
    candidates = [earliest + i for i in range(-(-content // step) + 1)] + [windows - 1]
    for k in candidates:
        start = np.minimum(k * step, length - content)
        shown = (k < windows) & (start <= begin) & (begin < start + content)
        left = np.where(start == 0, _FAR, begin - start)
        right = np.where(start + content >= length, _FAR, start + content - begin - size)
        context = np.where(shown, np.minimum(left, right), -_FAR)
        better = context > best_context
        best[better], best_context[better] = k[better], context[better]
    return best


def tag_ids(dataset: datasets.Dataset, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The label index of each word, int64 (W,), and where each sentence begins in them, int64 (S + 1,)."""
    tags, offsets = _flatten(dataset.with_format("arrow")[:]["ner_tags"])
    return _indices(tags, labels), offsets


def flatten_words(dataset: datasets.Dataset) -> tuple[pa.Array, np.ndarray]:
    """The W words of all sentences, and where each sentence begins in them, int64 (S + 1,)."""
    return _flatten(dataset.with_format("arrow")[:]["tokens"])


def _flatten(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    lists = column.combine_chunks()
    return lists.flatten(), _offsets(lists.value_lengths().to_numpy(zero_copy_only=False))


def _factorise(values: pa.Array | list[str]) -> tuple[np.ndarray, list[str]]:
    """The number of each word among the distinct words, and these, in the order in which they come."""
    if isinstance(values, list):
        number: dict[str, int] = {}
        codes = [number.setdefault(word, len(number)) for word in values]
        return np.array(codes, dtype=np.int64), list(number)
    encoded = values.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _indices(tags: pa.Array, labels: Sequence[str]) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    indices = pc.index_in(tags, value_set=pa.array(labels, type=tags.type))
    if indices.null_count:
        missing = tags.filter(indices.is_null())[0]
        raise ValueError(f"the tag {str(missing)!r} is not among the labels: {', '.join(labels)}")
    return indices.to_numpy().astype(np.int64)


def _inside(labels: Sequence[str]) -> np.ndarray:
    """For each label, the label of a word's further subwords, int64 (L,)."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index["I" + label[1:] if label.startswith("B-") else label] for label in labels])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
