"""Pairs of a source text and a target text -> `datasets.Dataset` with the same columns -> rows of subwords.

| column | type | |
|---|---|---|
| `text` | str | the source |
| `target` | str | |
| `source`, `line` | str, int | where the pair comes from, for messages |

Forms: two files of lines, where line n of one belongs to line n of the other; tables (TSV, CSV, JSONL, Parquet, saved
and Hub data sets) with a column for each side, or with a column `translation` of `{"en": ..., "de": ...}`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from finetune.data.conll import read_lines
from finetune.data.held_out import hold_out
from finetune.data.messages import listed, shown, source_name
from finetune.data.numbers_in_words import number_game
from finetune.data.readers import SPLITS, names_of, read_columns, row_at, sources_of, splits_to_read
from finetune.data.rows import Rows, Side

logger = logging.getLogger(__name__)

_TRANSLATION = "translation"  # the column of data sets of several languages
_GAME = {"train": 3000, "validation": 200, "test": 300}
Pairs = tuple[list[Any], list[Any], list[int]]  # sources, targets, lines


def read_parallel(
    config: Any, source: str = "source", target: str = "target", *, given: Mapping[str, Any] | None = None
) -> dict[str, datasets.Dataset]:
    """Reads the splits that the config names, among `train`, `validation` and `test`.

    Args:
        config: has the flags of `DataArguments`, and `train_target_file`, `validation_target_file` and
            `test_target_file`: of two files of lines, the second.
        source, target: the columns of a table, or the languages in its column `translation`.
        given: rows from Python, as `given_splits` takes them.

    Raises:
        ValueError: naming file and line, for anything that cannot be read, and for a pair with an empty side.
    """
    second = {split: getattr(config, f"{split}_target_file") for split in SPLITS}
    for split, name in second.items():
        if name is not None and getattr(config, f"{split}_file") is None:
            raise ValueError(f"--{split}_target_file {name}: it needs --{split}_file, the file of the source texts")
    if config.dataset_name == "samples":
        if given is not None or any(getattr(config, f"{split}_file") is not None for split in SPLITS):
            raise ValueError("--dataset_name samples: it has all three splits; leave out the other data")
        return _samples(config)
    if any(second.values()) and (source, target) != ("source", "target"):
        raise ValueError(
            f"--source_column_name {source}, --target_column_name {target}: two files of lines have no columns; "
            "leave them out"
        )
    splits: dict[str, dict[str, Any]] = {}
    for split, first in sources_of(config, "text to text", given).items():
        if second[split] is not None:
            sources, targets, lines = _two_files(first, Path(second[split]), f"--{split}_target_file")
        else:
            sources, targets, lines = _table(first, source, target, config.column_names, split)
        if split != "train" and all(text is None for text in targets):
            logger.warning("the %s split has no target texts; it is left out", split)
            continue
        if second[split] is None:
            _check_pairs(first, sources, targets, lines, (source, target))
        splits[split] = {"text": sources, "target": targets, "line": lines, "source": first}
    sources = splits["train"]["text"]
    hold_out(splits, config, "pairs", sources, [()] * len(sources), together="those of one source on one side")
    return {split: _dataset(split, columns, config) for split, columns in splits.items()}


def _two_files(source: Any, target: Path, flag: str) -> Pairs:
    if not isinstance(source, Path) or source.is_dir():
        raise ValueError(f"{flag} {target}: for a source in a file of lines; a table has both sides in it")
    if not target.is_file():
        raise ValueError(f"{flag} {target}: no such file")
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        short, long = sorted(((source, len(sources)), (target, len(targets))), key=lambda side: side[1])
        raise ValueError(
            f"{short[0]}:{short[1]}: this is the last line, and {long[0]} has {long[1]:,}; line n of one file must "
            "belong to line n of the other"
        )
    if not sources:
        raise ValueError(f"{source}: no line in this file")
    for line, sides in enumerate(zip(sources, targets, strict=True), start=1):
        for (file, text), (other, _) in (((source, sides[0]), (target, 0)), ((target, sides[1]), (source, 0))):
            if not text.strip():
                raise ValueError(
                    f"{file}:{line}: an empty line; a pair needs a text on both sides, so remove this line here and "
                    f"in {other}"
                )
    return sources, targets, list(range(1, len(sources) + 1))


def _table(table: Any, source: str, target: str, column_names: str | None, split: str) -> Pairs:
    if isinstance(table, Path) and table.is_file() and table.suffix.lower() not in _TABLES:
        raise ValueError(
            f"--{split}_file {table}: unknown form {table.suffix!r}; for a file of lines give its other side as "
            f"--{split}_target_file; tables are {', '.join(_TABLES)}"
        )
    if source == target:
        raise ValueError(f"--source_column_name, --target_column_name: both are {source!r}; give two columns")
    names = names_of(table, column_names)
    flags = "name them with --source_column_name and --target_column_name"
    if _TRANSLATION in names and not {source, target} <= set(names):
        columns, lines = read_columns(table, [_TRANSLATION], column_names)
        sides: tuple[list[Any], list[Any]] = ([], [])
        for row, line in zip(columns[_TRANSLATION], lines, strict=True):
            found = row if isinstance(row, dict) else {}
            for side, language in zip(sides, (source, target), strict=True):
                if language not in found:
                    raise ValueError(
                        f"{row_at(table, line)}: the translation has no {language!r}; its languages are "
                        f"{listed(list(found))}; {flags}"
                    )
                side.append(found[language])
        return *sides, lines
    for name in (source, target):
        if name not in names:
            raise ValueError(f"{source_name(table)}: no column {name!r}; it has: {listed(names)}; {flags}")
    columns, lines = read_columns(table, [source, target], column_names)
    return columns[source], columns[target], lines


_TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def _check_pairs(table: Any, sources: list[Any], targets: list[Any], lines: list[int], names: Sequence[str]) -> None:
    for *texts, line in zip(sources, targets, lines, strict=True):
        for name, text in zip(names, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"{row_at(table, line)}: {name!r} is {shown(text)}; a pair needs a text on both sides"
                )


def _samples(config: Any) -> dict[str, datasets.Dataset]:
    """Pairs of the number game, all different."""
    if getattr(config, "fold", None) is not None:
        raise ValueError(
            f"--fold {config.fold}: the samples of text to text are made, not divided; give --train_file"
        )
    pairs = number_game(sum(_GAME.values()))
    splits, begin = {}, 0
    for split, size in _GAME.items():
        sources, targets = map(list, zip(*pairs[begin : begin + size], strict=True))
        columns = {"text": sources, "target": targets, "line": list(range(1, size + 1)), "source": None}
        if split in splits_to_read():
            splits[split] = _dataset(split, columns, config)
        begin += size
    return splits


def _dataset(split: str, columns: dict[str, Any], config: Any) -> datasets.Dataset:
    source = columns["source"]
    name = str(source) if isinstance(source, Path) else f"{config.dataset_name or 'data'} ({split})"
    dataset = datasets.Dataset(pa.table(columns | {"source": pa.repeat(name, len(columns["line"]))}))
    limit = config.max_train_samples if split == "train" else config.max_eval_samples
    return dataset if limit is None else dataset.select(range(min(limit, len(dataset))))


@dataclass(frozen=True)
class WithShare:
    """Rows that know, in each epoch, how likely a decoder is given the right word: `teacher_forcing` (N,)."""

    rows: Rows
    share: Callable[[int], float]  # of an epoch, counted from 0

    def rows_in(self, epoch: int) -> int:
        """The number of rows of an epoch."""
        return len(self.rows)

    def in_epoch(self, epoch: int) -> Rows:
        """The rows of an epoch."""
        share = np.full(len(self.rows), self.share(epoch), dtype=np.float32)
        return replace(self.rows, samples=self.rows.samples | {"teacher_forcing": share})


@dataclass(frozen=True)
class EncodedPairs:
    """Tokenised pairs."""

    rows: Any  # Rows, one a pair; of texts without a target, without a side. Or `WithShare`
    target_tokenizer: Any
    sources_cut: int  # sources longer than max_seq_length, which are cut there
    targets_cut: int  # targets longer than max_target_length, which training cuts there
    unknown: int  # unknown-token subwords of both sides
    altered: int = 0  # targets that the tokenizer gives back otherwise, such as without capital letters

    def __str__(self) -> str:
        rows, tokens = len(self.rows), int(self.rows.offsets[-1])
        told = f"{rows:,} texts, {tokens:,} subwords ({tokens / max(rows, 1):.1f} a text)"
        for side in self.rows.sides.values():
            told += f" and {len(side.values):,} of targets ({len(side.values) / max(rows, 1):.1f} a text)"
        cut = f"{self.sources_cut:,} sources cut at max_seq_length"
        cut += f", {self.targets_cut:,} targets at max_target_length" if self.rows.sides else ""
        if self.altered:
            cut += f"; {self.altered:,} targets that this tokenizer cannot write as they are"
        return f"{told}, {self.unknown:,} unknown; {cut}"


def encode_pairs(
    sources: Sequence[str],
    targets: Sequence[str] | None,
    tokenizer: Any,
    target_tokenizer: Any,
    *,
    end: int,
    max_seq_length: int = 128,
    max_target_length: int = 128,
) -> EncodedPairs:
    """Tokenises both sides.

    A target is its subwords and the token `end`, as a decoder says them. The end of a target that is cut is not
    there, so that a model does not learn to stop in the middle.

    Args:
        end: the id of the token that ends a target.
        max_seq_length: of a source, special tokens included; at least 4.
        max_target_length: of a target, its end included.
    """
    if max_seq_length < 4:
        raise ValueError(f"--max_seq_length {max_seq_length}: 4 is the least that leaves room for words")
    if max_target_length < 2:
        raise ValueError(f"--max_target_length {max_target_length}: 2 is the least that leaves room for words")
    settings: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    ids = tokenizer(list(sources), **settings)["input_ids"] if len(sources) else []
    long = [i for i, row in enumerate(ids) if len(row) > max_seq_length]
    if long:
        short = tokenizer([sources[i] for i in long], truncation=True, max_length=max_seq_length, **settings)
        for i, row in zip(long, short["input_ids"], strict=True):
            ids[i] = row
    offsets, values = _end_to_end(ids)
    unknown = _unknown(values, tokenizer)
    if targets is None:
        return EncodedPairs(Rows(offsets, {"input_ids": values}), target_tokenizer, len(long), 0, unknown)
    found = target_tokenizer(list(targets), add_special_tokens=False, **settings)["input_ids"] if len(targets) else []
    labels = [[*row, end][:max_target_length] for row in found]
    written = target_tokenizer.batch_decode(found, skip_special_tokens=True) if found else []
    side = Side(*_end_to_end(labels))
    return EncodedPairs(
        Rows(offsets, {"input_ids": values}, sides={"labels": side}),
        target_tokenizer,
        len(long),
        sum(len(row) >= max_target_length for row in found),
        unknown + _unknown(side.values, target_tokenizer),
        sum(said.split() != text.split() for said, text in zip(written, targets, strict=True)),
    )


def _end_to_end(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    return offsets, np.array([value for row in rows for value in row], dtype=np.int32)


def _unknown(ids: np.ndarray, tokenizer: Any) -> int:
    return 0 if tokenizer.unk_token_id is None else int((ids == tokenizer.unk_token_id).sum())
