"""Corrects labels in files: a patch says which; the corrected files are new ones.

A patch is a file of JSON lines, one for each sample:

| key | |
|---|---|
| `accept` | `true` applies the line; a person sets it |
| `file`, `line` | where the sample is; a negative line is the number of a row, counted from 1 |
| `column` | the column of the labels: a name, or in CSV, TSV and column files a number |
| `word_column` | in column files, the number of the column of the words; null: as the reader finds it |
| `text` | the sample, for the reader |
| `changes` | each with `label` and `new_label`; of tagged words also `word` (counted from 0) and `token` |

Tags of entities are in IOB2 in a patch, and in the file's own scheme in the file.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune import data
from finetune.data.conll import read_lines
from finetune.data.json_lines import json_rows
from finetune.data.labels import plain_label
from finetune.data.messages import shown
from finetune.data.tags import Scheme, detect_scheme, runs_to_iob2, to_iob2
from finetune.files import write_text

_TABLES = (".csv", ".tsv")


def apply_patch(patch: Path, folder: Path) -> dict[str, int]:
    """Writes each file that accepted lines of a patch correct to a folder, under its own name. Nothing else changes.

    Returns:
        The number of changed labels by the file that was written.

    Raises:
        ValueError: naming the line of the patch, if it is broken, if the file does not have the label that the patch
            says, or if the file would be written over. Then no file is written.
    """
    by_file: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for number, line in enumerate(_lines(patch), start=1):
        if line.strip():
            where = f"{patch}:{number}"
            record = _record(line, where)
            if record["accept"]:
                by_file.setdefault(record["file"], []).append((where, record))
    if not by_file:
        raise ValueError(f'{patch}: no line of it is accepted; set "accept": true in those that are right')
    corrected: dict[Path, tuple[str, int]] = {}
    for name, records in by_file.items():
        source, target = Path(name), folder / Path(name).name
        if not source.is_file():
            raise ValueError(f"{records[0][0]}: {name}: no such file")
        if target.exists() or target in corrected:
            raise ValueError(f"{target}: exists already; give another --output_dir")
        corrected[target] = (_corrected(source, records), sum(len(record["changes"]) for _, record in records))
    folder.mkdir(parents=True, exist_ok=True)
    for target, (text, _) in corrected.items():
        write_text(target, text)
    return {str(target): changes for target, (_, changes) in corrected.items()}


def write_patch(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Writes a patch."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _lines(patch: Path) -> list[str]:
    if not patch.is_file():
        raise ValueError(f"--apply {patch}: no such file")
    return read_lines(patch)


def _record(line: str, where: str) -> dict[str, Any]:
    keys = "accept, file, line, column and changes, each change with label and new_label"
    try:
        record = json.loads(line)
        good = isinstance(record["accept"], bool) and isinstance(record["file"], str)
        good = good and isinstance(record["line"], int) and isinstance(record["changes"], list)
        good = good and all(("word" in one) == ("token" in one) for one in record["changes"])
        good = good and all({"label", "new_label"} <= one.keys() for one in record["changes"])
        good = good and isinstance(record["column"], (int, str, type(None)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: not a line of a patch, which has {keys}") from error
    if not good:
        raise ValueError(f"{where}: not a line of a patch, which has {keys}")
    found: dict[str, Any] = record
    return found


def _corrected(source: Path, records: list[tuple[str, dict[str, Any]]]) -> str:
    suffix = source.suffix.lower()
    if any(record["column"] is None for _, record in records):
        raise ValueError(f"{records[0][0]}: {source}: its form cannot be corrected; save it as JSONL, CSV or CoNLL")
    if suffix in data.CONLL_ENDINGS:
        return _column_file(source, records)
    if suffix in (".jsonl", ".json"):
        return _json_lines(source, records)
    if suffix in _TABLES:
        return _table(source, records)
    raise ValueError(f"{records[0][0]}: {source}: its form cannot be corrected; save it as JSONL, CSV or CoNLL")


def _ends(source: Path) -> str:
    """How most lines of a file end. Its byte-order mark is not kept."""
    raw = source.read_bytes()
    return "\r\n" if 2 * raw.count(b"\r\n") > raw.count(b"\n") else "\n"


def _column_file(source: Path, records: list[tuple[str, dict[str, Any]]]) -> str:
    lines = read_lines(source)
    column = int(records[0][1]["column"])
    raw = data.read_conll(source, records[0][1].get("word_column"), column, any_tag=True)
    rewrite = _rewriter(raw.tags)
    begins = {own[0]: i for i, own in enumerate(raw.lines)}
    for where, record in records:
        sentence = begins.get(record["line"])
        if sentence is None:
            raise ValueError(f"{where}: {source}:{record['line']} does not begin a sentence; has the file changed?")
        before = raw.tags[sentence]
        own_lines = raw.lines[sentence]
        for change in record["changes"]:
            word = change["word"]
            here = lines[own_lines[word] - 1] if 0 <= word < len(own_lines) else ""
            if change["token"] not in here:
                raise ValueError(f"{where}: word {word} of {source}:{record['line']} is not {shown(change['token'])}")
        after = rewrite(before, record["changes"], where, f"{source}:{record['line']}")
        for number, old, new in zip(own_lines, before, after, strict=True):
            if old != new:
                lines[number - 1] = _with_cell(lines[number - 1], column, old, new)
    return _ends(source).join([*lines, ""])


def _with_cell(line: str, column: int, old: str, new: str) -> str:
    """The line of a column file with another tag. All else stays as it is."""
    if "\t" in line:
        cells = line.split("\t")
        cells[column] = cells[column].replace(old, new, 1)
        return "\t".join(cells)
    places = [i for i, cell in enumerate(line.split(" ")) if cell]
    cells = line.split(" ")
    cells[places[column]] = new
    return " ".join(cells)


def _rewriter(every: list[list[str]]) -> Callable[[list[str], list[dict[str, Any]], str, str], list[str]]:
    """A function that changes the tags of a sentence, in the scheme of the file."""
    distinct = {tag for tags in every for tag in tags}
    prefixed = all(tag == "O" or data.TAG.fullmatch(tag) for tag in distinct) and distinct - {"O"}
    scheme = detect_scheme(every) if prefixed else None

    def change(before: list[str], changes: list[dict[str, Any]], where: str, place: str) -> list[str]:
        # Bare types: as they are in the file, if the patch has plain tags; else as neighbours with one tag.
        told = {str(one[key]) for one in changes for key in ("label", "new_label")} - {"O"}
        plain = scheme is None and not any(map(data.TAG.fullmatch, told))
        read = before if plain else runs_to_iob2(before) if scheme is None else to_iob2(before, scheme)
        new = list(read)
        for one in changes:
            if not 0 <= one["word"] < len(read) or read[one["word"]] != one["label"]:
                raise ValueError(f"{where}: word {one['word']} of {place} has not the tag {shown(one['label'])}")
            new[one["word"]] = str(one["new_label"])
        if plain:
            return new
        if from_iob2(read, scheme) != before:
            raise ValueError(
                f"{where}: the tags of {place} follow no scheme that can be written; change them by hand"
            )
        return from_iob2(new, scheme)

    return change


def from_iob2(tags: Sequence[str], scheme: Scheme | None) -> list[str]:
    """Rewrites tags from IOB2 to a scheme with the same entities; None: to types without prefixes."""
    if scheme == "IOB2":
        return list(tags)
    found = []
    around = ["O", *tags, "O"]
    for before, tag, after in zip(around, around[1:], around[2:], strict=False):
        kind = tag[2:]
        first = tag[0] == "B" or (tag[0] == "I" and before[2:] != kind)
        last = not (after[0] == "I" and after[2:] == kind)
        if tag == "O":
            found.append(tag)
        elif scheme is None:
            found.append(kind)
        elif scheme == "IOB1":
            found.append(("B-" if first and before[2:] == kind else "I-") + kind)
        elif scheme == "IOE":
            found.append(("E-" if last else "I-") + kind)
        else:
            found.append(("S-" if first and last else "B-" if first else "E-" if last else "I-") + kind)
    return found


def _json_lines(source: Path, records: list[tuple[str, dict[str, Any]]]) -> str:
    lines = read_lines(source)
    column = records[0][1]["column"]
    rows = dict(json_rows(source, enumerate(lines, start=1)))
    of_words = "word" in records[0][1]["changes"][0]
    rewrite = _rewriter([row[column] for row in rows.values()]) if of_words else None
    for where, record in records:
        place = f"{source}:{record['line']}"
        row = rows.get(record["line"])
        if row is None or column not in row:
            raise ValueError(f"{where}: {place} has no {shown(column)}; has the file changed?")
        if rewrite is not None:
            row[column] = rewrite(list(row[column]), record["changes"], where, place)
        else:
            row[column] = _replaced(row[column], record["changes"][0], where, place)
        lines[record["line"] - 1] = json.dumps(row, ensure_ascii=False)
    return _ends(source).join([*lines, ""])


def _replaced(old: Any, change: dict[str, Any], where: str, place: str) -> Any:
    """A label, a list of labels or a number in a JSON object, in the type that it had."""
    told = [plain_label(str(one)) for one in old] if isinstance(old, list) else old
    asked = change["label"]
    same = told == asked if isinstance(asked, (list, float)) else plain_label(" ".join(str(told).split())) == asked
    if not same:
        raise ValueError(f"{where}: {place} has the label {shown(old)}, not {shown(asked)}")
    new = change["new_label"]
    if isinstance(old, list):
        return [int(one) for one in new] if old and all(isinstance(one, int) for one in old) else list(new)
    return int(new) if isinstance(old, int) and not isinstance(old, bool) and isinstance(new, str) else new


def _table(source: Path, records: list[tuple[str, dict[str, Any]]]) -> str:
    """Rows that are not changed stay as they are, with their quotes."""
    lines = read_lines(source)
    tabs = source.suffix.lower() == ".tsv"
    column = int(records[0][1]["column"])
    ends = _ends(source)
    wanted = {record["line"]: (where, record) for where, record in records}
    found: list[str] = []
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    end = 0
    while end < len(lines):
        begin = end
        if tabs:
            cells, end = lines[begin].split("\t"), begin + 1
        else:
            cells = next(reader)
            end = reader.line_num
        if begin + 1 not in wanted:
            found += lines[begin:end]
            continue
        where, record = wanted.pop(begin + 1)
        change = record["changes"][0]
        old = cells[column] if column < len(cells) else ""
        if isinstance(change["new_label"], list):
            raise ValueError(f"{where}: several labels in a cell cannot be corrected; save the data as JSONL")
        same = plain_label(" ".join(old.split())) == str(change["label"])
        if not same and isinstance(change["label"], float):
            same = bool(old.strip()) and float(old) == change["label"]
        if not same:
            raise ValueError(
                f"{where}: {source}:{begin + 1} has the label {shown(old)}, not {shown(change['label'])}"
            )
        cells[column] = str(change["new_label"])
        found.append("\t".join(cells) if tabs else _as_csv(cells))
    if wanted:
        where, record = next(iter(wanted.values()))
        raise ValueError(f"{where}: no row begins at {source}:{record['line']}; has the file changed?")
    return ends.join([*found, ""])


def _as_csv(cells: Sequence[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(cells)
    return file.getvalue()
