"""Reads text without labels: lines of text, words in a column file, JSON lines, tables."""

from pathlib import Path
from typing import Any

from finetune.data.conll import column_asked
from finetune.data.file_flags import check_delimiter, check_encoding
from finetune.data.messages import shown
from finetune.data.streams import read_records
from finetune.data.tables import TextColumns
from finetune.data.task_texts import labelled_form
from finetune.data.words import split_words

Sample = str | tuple[str, str] | list[str]


def read_unlabeled(
    path: str,
    *,
    words: bool,
    text_column: str,
    pair_column: str | None = None,
    column_names: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> list[Any]:
    """The samples of a file, as `finetune.predict` takes them. Blank lines and empty texts are left out.

    Args:
        path: a column file or a treebank (`.conll`, `.conllu` ...), `.jsonl`, `.csv`, `.tsv`, or else lines of text.
        words: whether samples are lists of words. A text is then split by `split_words`.
        text_column: of the texts in a table, or of the words in a column file, as the flag has it.
        pair_column: if given, samples are pairs of texts, and in a table this is the column of the second ones.
        column_names, encoding, delimiter: as the flags have them.

    Raises:
        ValueError: naming the flag or file and line, for what cannot be read, for what is not of the asked kind, and
            for a file without a text.
    """
    file, ending = Path(path), Path(path).suffix.lower()
    if not file.is_file():
        raise ValueError(
            f"--unlabeled_file {path}: {'this is a folder; give a file' if file.is_dir() else 'no such file'}"
        )
    if ending in (".parquet", ".gz", ".zip"):
        raise ValueError(f"--unlabeled_file {path}: give lines of text, a column file, .jsonl, .csv or .tsv")
    form = labelled_form(file) or ("jsonl" if ending in (".jsonl", ".json") else "text")
    likely = dict.fromkeys((text_column, "text"))
    columns = TextColumns(
        None,
        None,
        list(likely),
        () if pair_column is None else list(dict.fromkeys((pair_column, "text_pair"))),
        column_names,
    )
    default = not words or text_column == "tokens"
    word_column = None if default else column_asked(text_column)
    how: Any = {"delimiter": check_delimiter(delimiter), "encoding": check_encoding(encoding)}
    found = []
    with file.open("rb") as stream:
        for record in read_records(stream, path, form, word_column, columns, **how):
            if record.asks and _says_something(record.sample):
                found.append(_of_kind(record.sample, f"{path}:{record.line}", words, pair_column is not None))
    if not found:
        raise ValueError(f"--unlabeled_file {path}: no text in it")
    return found


def _says_something(sample: Any) -> bool:
    if isinstance(sample, tuple):
        return any(text.strip() for text in sample)
    return bool(sample if isinstance(sample, list) else sample.strip())


def _of_kind(sample: Any, where: str, words: bool, pairs: bool) -> Sample:
    """The sample as the task takes it."""
    if words:
        if isinstance(sample, tuple):
            raise ValueError(f"{where}: two texts, but the teacher labels words; give a text or a list of words")
        if isinstance(sample, str):
            sample = [sample[begin:end] for begin, end in split_words(sample)]
        for word in sample:
            if not isinstance(word, str) or not word or any(mark in word for mark in "\t\n\r\0"):
                raise ValueError(f"{where}: the word {shown(word)} is no text, is empty, or breaks a line")
        return list(sample)
    if isinstance(sample, list):
        raise ValueError(f"{where}: a list of words, but the teacher labels texts; give texts")
    if isinstance(sample, tuple) != pairs:
        given, asked = ("two texts", "single texts") if not pairs else ("a single text", "pairs of texts")
        raise ValueError(f"{where}: {given}, but the labelled data has {asked}")
    return sample
