"""Questions about passages, with the answers that stand in them -> `datasets.Dataset` with the same columns.

| column | type | |
|---|---|---|
| `id` | str | as the data has it, else the number of the row |
| `question`, `context` | str | |
| `answers` | list of str | each right answer; none: the passage does not hold one |
| `answer_starts` | list of int | where each begins in the passage, in characters |
| `source`, `line` | str, int | where the row comes from, for messages |

Forms: SQuAD's JSON, version 1.1 or 2.0 (`data`, `paragraphs`, `qas`), and tables (JSONL, Parquet, saved and Hub
data sets) whose column `answers` holds `{"text": [...], "answer_start": [...]}` or a list of `{"text": ...,
"answer_start": ...}`.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from finetune.arguments import DataArguments
from finetune.data.held_out import hold_out
from finetune.data.messages import listed, shown, source_name
from finetune.data.readers import names_of, read_columns, row_at, sources_of

logger = logging.getLogger(__name__)

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON may name half of a character of UTF-16


def read_questions(
    config: DataArguments,
    question: str = "question",
    context: str = "context",
    answers: str = "answers",
    *,
    given: Mapping[str, Any] | None = None,
) -> dict[str, datasets.Dataset]:
    """Reads the splits that the config names, among `train`, `validation` and `test`.

    Args:
        question, context, answers: the columns of a table; SQuAD's JSON has its own names.
        given: rows from Python, as `given_splits` takes them.

    Raises:
        ValueError: naming file and question, for anything that cannot be read, and for an answer that does not
            stand where its offset says.
    """
    columns = {"question": question, "context": context, "answer": answers}
    splits: dict[str, dict[str, Any]] = {}
    sources = sources_of(config, "questions", given)
    usual = {"question": "question", "context": "context", "answer": "answers"}
    if columns != usual and all(map(_is_squad, sources.values())):
        names = ", ".join(f"--{kind}_column_name {name}" for kind, name in columns.items() if name != usual[kind])
        raise ValueError(f"{sources['train']}: SQuAD's JSON has no columns to name; leave out {names}")
    for split, source in sources.items():
        rows = list(_squad_rows(source) if _is_squad(source) else _table_rows(source, columns))
        if not rows:
            raise ValueError(f"{source_name(source)}: no question in this data")
        unknown = [row["id"] for row in rows if row["answers"] is None]
        if len(unknown) == len(rows) and split != "train":
            logger.warning("the %s split has no answers; it is left out", split)
            continue
        if unknown:
            raise ValueError(
                f"{source_name(source)}: question {shown(unknown[0])} has no answers; an empty list says that its "
                "passage does not answer it"
            )
        counts = Counter(row["id"] for row in rows)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"{source_name(source)}: two questions have the id {shown(twice[0])}")
        splits[split] = {"rows": rows, "source": source}
    train = splits["train"]["rows"]
    kinds = [("answered" if row["answers"] else "unanswered",) for row in train]
    passages = [row["context"] for row in train]
    hold_out(splits, config, "questions", passages, kinds, together="those about one passage on one side")
    return {split: _dataset(split, own["rows"], config, source_name(own["source"])) for split, own in splits.items()}


def _is_squad(source: Any) -> bool:
    return isinstance(source, Path) and source.is_file() and source.suffix.lower() == ".json"


def _squad_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        articles = json.loads(path.read_text(encoding="utf-8-sig"))["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        found = [(asked, paragraph["context"]) for paragraph in paragraphs for asked in paragraph["qas"]]
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not SQuAD's JSON ({type(error).__name__}: {error}), which has the keys data, paragraphs, "
            "context and qas; a file with an object a line ends with .jsonl"
        ) from error
    for number, (asked, passage) in enumerate(found, start=1):
        if not isinstance(asked, dict) or "question" not in asked:
            raise ValueError(f"{path}: question {number} has no text under the key question")
        name = str(number if asked.get("id") is None else asked["id"])
        given = [] if asked.get("is_impossible") else asked.get("answers")
        yield _row(f"{path}: question {name}", name, -number, asked["question"], passage, given)


def _table_rows(source: Any, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    if isinstance(source, Path) and source.is_file() and source.suffix.lower() not in (".jsonl", ".parquet"):
        raise ValueError(f"{source}: questions come as SQuAD's .json, as .jsonl, as .parquet or as a saved folder")
    present = names_of(source, None)
    for kind, name in columns.items():
        if present and name not in present:
            raise ValueError(
                f"{source_name(source)}: no column {shown(name)}; it has: {listed(present)}. Name the right one with "
                f"--{kind}_column_name"
            )
    names = [*columns.values(), *(["id"] if "id" in present else [])]
    values, lines = read_columns(source, names, None)
    question, context, answers = (values[name] for name in columns.values())
    ids = values.get("id") or [None] * len(lines)
    for number, line in enumerate(lines):
        place = row_at(source, line)
        name = str(number + 1 if ids[number] is None else ids[number])
        yield _row(place, name, line, question[number], context[number], answers[number])


def _row(place: str, name: str, line: int, question: Any, passage: Any, given: Any) -> dict[str, Any]:
    for key, text in (("question", question), ("passage", passage)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{place}: the {key} is {shown(text)}; a text is needed")
        if _HALF_CHARACTER.search(text):
            raise ValueError(f"{place}: the {key} has half of a character (a surrogate), which no file can hold")
    row = {"id": name, "question": question, "context": passage, "line": line}
    if given is None:
        return row | {"answers": None, "answer_starts": None}
    if isinstance(given, dict):
        texts, starts = given.get("text"), given.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise ValueError(f'{place}: answers are {{"text": [...], "answer_start": [...]}}, both of one length')
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(given, list) or not all(isinstance(answer, dict) for answer in given):
        raise ValueError(f'{place}: answers are a list of {{"text": ..., "answer_start": ...}}')
    texts, starts = [answer.get("text") for answer in given], [answer.get("answer_start") for answer in given]
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text or not isinstance(start, int) or isinstance(start, bool):
            good = isinstance(text, str) and text
            what = f"its answer_start is {shown(start)}" if good else f"its text is {shown(text)}"
            raise ValueError(f"{place}: an answer is a text with the number of its first character; {what}")
        if start < 0 or passage[start : start + len(text)] != text:
            raise ValueError(
                f"{place}: {shown(text)} does not stand at character {start} of the passage{_hint(passage, text)}"
            )
    return row | {"answers": texts, "answer_starts": starts}


def _hint(passage: str, text: str) -> str:
    """Where the answer stands, if in only one place. Offsets in bytes or UTF-16 units are the usual mistake."""
    if passage.count(text) == 1:
        return f", but at {passage.index(text)}; offsets count characters (Unicode code points) from 0"
    return f", which has it {passage.count(text)} times" if text in passage else ", which does not have it at all"


def _dataset(split: str, rows: list[dict[str, Any]], config: DataArguments, source: str) -> datasets.Dataset:
    kinds = {
        "id": pa.string(),
        "question": pa.string(),
        "context": pa.string(),
        "answers": pa.list_(pa.string()),
        "answer_starts": pa.list_(pa.int64()),
        "line": pa.int64(),
    }
    arrays = {key: pa.array([row[key] for row in rows], type=kind) for key, kind in kinds.items()}
    arrays["source"] = pa.repeat(source, len(rows))
    dataset = datasets.Dataset(pa.table(arrays))
    limit = config.max_train_samples if split == "train" else config.max_eval_samples
    return dataset if limit is None else dataset.select(range(min(limit, len(dataset))))
