"""questions + passages + tokenizer -> windows, and spans of tokens -> characters of the passage.

A passage that is longer than an input goes into overlapping windows, each with the whole question in front. A token
of the passage belongs to the window that shows the most context around it. An answer belongs to the window of its
first token. So every question is answered once, from all windows of its passage.

An input is `[CLS] question [SEP] passage [SEP]`, or whatever the tokenizer makes of a pair. Its first token stands
for "no answer" (Devlin et al., 2019, section 4.3). If the tokenizer puts no token in front of a text, as that of the
baselines, its separator is put there.

Shapes: Q questions, P distinct passages, N windows, T tokens of all windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetune.data.rows import Rows, ranges

_NOT_BOUNDED = np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Special:
    """The ids before, between and after two texts, and whether the tokenizer tells the two apart by type."""

    prefix: list[int]
    middle: list[int]
    suffix: list[int]
    kinds: bool


@dataclass(frozen=True)
class QuestionWindows:
    """Windows, and the way back from their tokens to characters."""

    rows: Rows  # N windows: input_ids, passage (1 where an answer may stand); samples: start_positions, end_positions
    question_of: np.ndarray  # int64 (N,), ascending
    first_token: np.ndarray  # int64 (N,): the window's first passage token, counted over the tokens of all passages
    lead: np.ndarray  # int64 (N,): tokens of the row before that one
    shown: np.ndarray  # int64 (N,): passage tokens in the window
    passage_length: np.ndarray  # int64 (N,): tokens of its whole passage
    at: np.ndarray  # int64 (N,): where the window begins in its passage, in tokens
    characters: np.ndarray  # int64 (tokens of all passages, 2): where each begins and ends in its passage
    questions: int  # Q
    questions_cut: int  # questions longer than half an input, which are cut there
    answers_lost: int  # training answers that no window shows whole

    def __str__(self) -> str:
        windows, tokens = len(self.rows), int(self.rows.offsets[-1])
        remarks = [
            f"{count:,} {remark}"
            for count, remark in (
                (self.questions_cut, "questions cut at half of max_seq_length"),
                (self.answers_lost, "answers that no window shows whole, trained as no answer"),
            )
            if count
        ]
        counts = f"{self.questions:,} questions in {windows:,} windows, {tokens:,} subwords"
        return "; ".join([counts, *remarks])

    def context_of(self, windows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The number of tokens between a token and the nearer edge of its window. Edges of the passage do not count.

        Args:
            windows, tokens: int64 arrays of the same shape. A token's number counts within its passage.
        """
        begin, length = self.at[windows], self.shown[windows]
        left = np.where(begin == 0, _NOT_BOUNDED, tokens - begin)
        right = np.where(begin + length >= self.passage_length[windows], _NOT_BOUNDED, begin + length - 1 - tokens)
        return np.minimum(left, right)

    def to_characters(self, windows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Spans of row positions -> int64 (..., 2), the characters of the passage.

        Args:
            windows: int64 (n,).
            starts, ends: int64 (n,), the first and the last token, counted within the row.
        """
        shift = self.first_token[windows] - self.lead[windows]
        return np.stack([self.characters[starts + shift, 0], self.characters[ends + shift, 1]], axis=-1)


def window_questions(
    questions: Sequence[str],
    passages: Sequence[str],
    tokenizer: Any,
    answers: Sequence[tuple[int, int] | None] | None = None,
    *,
    max_seq_length: int = 384,
    doc_stride: int | None = None,
    token_types: bool = False,
) -> QuestionWindows:
    """Puts each question and its passage together, in as many windows as are needed.

    Args:
        questions, passages: Q texts each. A passage that occurs several times is tokenised once.
        tokenizer: a fast tokenizer of any kind.
        answers: for each question, where its answer begins and ends in the passage, in characters; None: no answer.
            Without `answers` the rows have no targets.
        max_seq_length: subwords in a window, special tokens included; at least 16.
        doc_stride: passage subwords that neighbouring windows share; default: half of what a window shows.
        token_types: add `token_type_ids` even if the tokenizer gives none.

    Raises:
        ValueError: for a window that is too short, or shares too much with its neighbour.
    """
    if max_seq_length < 16:
        raise ValueError(
            f"--max_seq_length {max_seq_length}: 16 is the least that leaves room for a question and a passage"
        )
    special = _special_tokens(tokenizer)
    room = max_seq_length - len(special.prefix) - len(special.middle) - len(special.suffix)
    distinct = {text: i for i, text in enumerate(dict.fromkeys(passages))}
    passage_of = np.array([distinct[text] for text in passages], dtype=np.int64)  # (Q,)
    asked, _ = _encode(questions, tokenizer)
    told, characters = _encode(list(distinct), tokenizer)

    # How many windows each question needs, and where they begin.
    length = np.minimum(np.diff(asked["starts"]), room // 2)  # (Q,)
    content = room - length
    overlap = content // 2 if doc_stride is None else np.full_like(content, doc_stride)
    if len(overlap) and (overlap.min() < 0 or (overlap >= content).any()):
        raise ValueError(
            f"--doc_stride {doc_stride}: must be from 0 to {int(content.min()) - 1}: what a window shows of a "
            "passage beside the longest question, less one subword"
        )
    total = np.diff(told["starts"])[passage_of]  # (Q,)
    step = content - overlap
    windows_of = np.where(total > content, 1 + -(-(total - content) // step), 1)
    question_of = np.repeat(np.arange(len(questions)), windows_of)  # (N,)
    k = np.arange(len(question_of)) - np.repeat(np.cumsum(windows_of) - windows_of, windows_of)
    last = np.maximum(total - content, 0)[question_of]  # the last window ends with the passage
    at = np.minimum(k * step[question_of], last)
    shown = np.minimum(content, total)[question_of]
    first_token = told["starts"][passage_of][question_of] + at
    begins = (asked["starts"][:-1][question_of], first_token)
    lengths = (length[question_of], shown)
    windows = QuestionWindows(
        rows=_rows_of_windows((asked, told), begins, lengths, special, token_types),
        question_of=question_of,
        first_token=first_token,
        lead=len(special.prefix) + lengths[0] + len(special.middle),
        shown=shown,
        passage_length=total[question_of],
        at=at,
        characters=characters,
        questions=len(questions),
        questions_cut=int((np.diff(asked["starts"]) > room // 2).sum()),
        answers_lost=0,
    )
    return windows if answers is None else _with_targets(windows, answers, told["starts"][passage_of], total)


def _rows_of_windows(
    features: tuple[dict[str, np.ndarray], dict[str, np.ndarray]],
    begins: tuple[np.ndarray, np.ndarray],
    lengths: tuple[np.ndarray, np.ndarray],
    special: _Special,
    token_types: bool,
) -> Rows:
    """The tokens of all windows: of a question and of a part of its passage, with special tokens around them.

    Args:
        features: the tokens of all questions, and of all passages.
        begins, lengths: int64 (N,) each: of the question of each window, and of what it shows of the passage.
    """
    prefix, middle, suffix = special.prefix, special.middle, special.suffix
    asked, told = features
    length, shown = lengths
    size = len(prefix) + length + len(middle) + shown + len(suffix)  # (N,)
    offsets = np.concatenate([[0], np.cumsum(size, dtype=np.int64)])
    lead = offsets[:-1] + len(prefix) + length + len(middle)  # where the passage begins
    to_question, to_passage = ranges(offsets[:-1] + len(prefix), length), ranges(lead, shown)
    tokens: dict[str, np.ndarray] = {}
    for key in ("input_ids", "char_ids"):
        if key in told:
            tokens[key] = np.zeros((offsets[-1], *told[key].shape[1:]), dtype=told[key].dtype)
            tokens[key][to_question] = asked[key][ranges(begins[0], length)]
            tokens[key][to_passage] = told[key][ranges(begins[1], shown)]
    for place, ids in ((offsets[:-1], prefix), (lead - len(middle), middle), (offsets[1:] - len(suffix), suffix)):
        for i, token in enumerate(ids):
            tokens["input_ids"][place + i] = token
    tokens["passage"] = np.zeros(offsets[-1], dtype=np.int8)
    tokens["passage"][to_passage] = 1
    tokens["passage"][offsets[:-1]] = 1  # no answer
    if special.kinds or token_types:
        tokens["token_type_ids"] = np.zeros(offsets[-1], dtype=np.int32)
        tokens["token_type_ids"][ranges(lead, shown + len(suffix))] = 1
    return Rows(offsets, tokens)


def _with_targets(
    windows: QuestionWindows, answers: Sequence[tuple[int, int] | None], passage_starts: np.ndarray, total: np.ndarray
) -> QuestionWindows:
    """The windows with `start_positions` and `end_positions`. They are 0 if the row does not show the whole answer.

    Args:
        passage_starts, total: int64 (Q,): where the tokens of each question's passage begin, and how many they are.
    """
    tokens = np.full(
        (len(answers), 2), -1, dtype=np.int64
    )  # (Q, 2): first and last token, counted within the passage
    for question, answer in enumerate(answers):
        if answer is not None:
            begin = passage_starts[question]
            places = windows.characters[begin : begin + total[question]]
            first = int(np.searchsorted(np.maximum.accumulate(places[:, 1]), answer[0], side="right"))
            last = int(np.searchsorted(places[:, 0], answer[1], side="left")) - 1
            if first <= last:
                tokens[question] = first, last
    first, last = tokens[windows.question_of].T
    inside = (first >= windows.at) & (last < windows.at + windows.shown) & (first >= 0)
    shift = windows.lead - windows.at
    targets = {
        "start_positions": np.where(inside, first + shift, 0),
        "end_positions": np.where(inside, last + shift, 0),
    }
    found = np.zeros(len(answers), dtype=bool)
    found[windows.question_of[inside]] = True
    lost = sum(answer is not None for answer in answers) - int(found.sum())
    rows = Rows(windows.rows.offsets, windows.rows.tokens, targets)
    return replace(windows, rows=rows, answers_lost=lost)


def _encode(texts: Sequence[str], tokenizer: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The tokens of all texts end to end with `starts` (texts + 1,), and the characters of each (tokens, 2)."""
    output = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    counts = [len(ids) for ids in output["input_ids"]]
    flat: dict[str, np.ndarray] = {"starts": np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])}
    flat["input_ids"] = np.array([value for row in output["input_ids"] for value in row], dtype=np.int32)
    if "char_ids" in output:
        letters = [value for row in output["char_ids"] for value in row]
        flat["char_ids"] = np.array(letters, dtype=np.uint8).reshape(len(letters), tokenizer.word_bytes)
    places = np.array([place for row in output["offset_mapping"] for place in row], dtype=np.int64).reshape(-1, 2)
    return flat, places


def _special_tokens(tokenizer: Any) -> _Special:
    """The special tokens of a pair of texts."""
    pair = tokenizer("x", "x")
    ids = pair["input_ids"]
    sides = pair.encodings[0].sequence_ids
    first, second = ([i for i, side in enumerate(sides) if side == number] for number in (0, 1))
    if not first or not second or first[-1] > second[0]:
        raise ValueError(
            f"{type(tokenizer).__name__} does not lay two texts side by side; it cannot answer questions"
        )
    prefix, middle, suffix = ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :]
    if not prefix:
        prefix = [tokenizer.sep_token_id]
    return _Special(prefix, middle, suffix, "token_type_ids" in pair)
