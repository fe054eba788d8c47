"""Files with spans of characters, in the forms of the tools that people annotate with: which form a file has, its
rows, and how it is written back. A row is a whole text, which goes through the model in windows if it is long; or a
sentence of a text.

What is not read, or had to be decided, is counted and told in one line for each split.
"""

import contextlib
import functools
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.data.brat import read_brat, write_brat
from finetune.data.character_spans import MarkedText, Nested, Span, place, spans_of, words_and_tags
from finetune.data.context import sentence_lengths
from finetune.data.doccano import read_doccano, with_doccano_spans
from finetune.data.json_records import read_json_records, write_json_records
from finetune.data.label_studio import read_label_studio, with_label_studio_spans
from finetune.data.offset_units import UNITS, Unit, positions
from finetune.data.readings import note_reading
from finetune.data.spacy_spans import read_spacy, with_spacy_spans
from finetune.data.words import split_words

logger = logging.getLogger(__name__)

SPAN_READERS: dict[str, Callable[[Path], list[MarkedText]]] = {
    "brat": read_brat,
    "doccano": read_doccano,
    "label_studio": read_label_studio,
    "spacy": read_spacy,
}
_LOOKED_AT = 100  # records that tell the form of a file
_COUNTED: tuple[Unit, ...] = ("code_points", "utf16", "graphemes")


def read_marked(source: Path, form: str, unit: Unit) -> list[MarkedText]:
    """The texts of a file of one of `SPAN_READERS`, with marks whose offsets are checked.

    Raises:
        ValueError: naming file and line or record, also for offsets that seem to count something else than `unit`.
    """
    texts = SPAN_READERS[form](source)
    check_unit(texts, unit)
    for marked in texts:
        spans_of(marked, unit=unit)
    return texts


def write_marked(
    target: Path,
    source: Path,
    form: str,
    texts: Sequence[MarkedText],
    spans: Sequence[Sequence[Span]],
    unit: Unit = "auto",
    model: str = "finetune",
) -> None:
    """Writes texts in the form in which they came in, with other spans.

    Args:
        source: the file or folder that the texts are from.
        spans: of each text.
        unit: what the offsets of the file count.
        model: the name of the model that found the spans, for Label Studio.

    Raises:
        ValueError: if a folder is at `target` already.
        OSError: if it cannot be written.
    """
    if form == "brat":
        write_brat(target, texts, spans, source, unit)
        return
    kinds = {"doccano": with_doccano_spans, "spacy": with_spacy_spans}
    kinds["label_studio"] = functools.partial(with_label_studio_spans, model=model)
    records = (
        kinds[form](marked, found, positions(marked.text, unit)) for marked, found in zip(texts, spans, strict=True)
    )
    write_json_records(target, records, listed=texts[0].line < 0)


def span_form(source: Any, file_format: str = "auto") -> str | None:
    """The form of a file with spans, of `SPAN_READERS`; None if it is no such file.

    With `auto`, a folder with `.ann` files is of brat. A JSON file is of another tool if one of its first records has
    the tool's keys; a line says so.
    """
    if file_format in SPAN_READERS:
        return file_format
    if file_format != "auto" or not isinstance(source, Path):
        return None
    if source.is_dir():
        return "brat" if next(source.rglob("*.ann"), None) else None
    if source.suffix.lower() not in (".json", ".jsonl"):
        return None
    form = next(filter(None, map(_form_of, _first_records(source))), None)
    if form is not None:
        logger.warning("%s: read as --file_format %s, by the keys of its records", source, form)
    return form


def _first_records(path: Path) -> list[dict[str, Any]]:
    """The first records of a file of JSON, or of a damaged file of lines those that can be read."""
    try:
        return [row for _, row in read_json_records(path, "")[0][:_LOOKED_AT]]
    except ValueError:  # whoever reads all records says what is wrong
        records = []
        with contextlib.suppress(ValueError), path.open(encoding="utf-8-sig") as lines:
            for line in itertools.islice(lines, _LOOKED_AT):
                records.append(json.loads(line))
        return [row for row in records if isinstance(row, dict)]


def _form_of(row: dict[str, Any]) -> str | None:
    """The tool whose keys a record has, if it has some spans."""
    if isinstance(row.get("data"), dict) and isinstance(row.get("annotations", row.get("completions")), list):
        return "label_studio"
    if not isinstance(row.get("text"), str) or "ner_tags" in row:
        return None
    if any(isinstance(mark, dict) and "start" in mark for mark in _items(row.get("spans"))):
        return "spacy"
    for mark in itertools.chain(*(_items(row.get(key)) for key in ("label", "labels", "entities"))):
        if isinstance(mark, dict) and "start_offset" in mark:
            return "doccano"
        # Rows with words have tags of their own, and perhaps such spans beside them.
        if isinstance(mark, dict) and {"start", "end", "label"} <= mark.keys() and "tokens" not in row:
            return "doccano"
        if isinstance(mark, list) and len(mark) == 3 and isinstance(mark[0], int):
            return "doccano"
    return None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def read_spans(
    source: Any,
    form: str,
    split: str,
    *,
    nested: Nested = "outer",
    unit: Unit = "auto",
    split_sentences: bool = False,
) -> dict[str, Any]:
    """The rows of a split.

    Args:
        form: of `SPAN_READERS`.
        split_sentences: each sentence of a text is a row. No span goes over the end of a sentence.

    Returns:
        Lists with an item for each row: `tokens`, `ner_tags` in IOB2, `document` (the name or id of the text),
        `sources` (its file), `line` (of each word: where its span stands, or the text); `source`, as it was given;
        and with `split_sentences` also `documents` (the number of the text, from 1 on). If no text of an evaluation
        split is annotated, it has all texts, and None in the place of the tags.

    Raises:
        ValueError: naming file and line or record.
    """
    if not isinstance(source, Path):
        raise ValueError(f"--file_format {form}: only files have this format; give --train_file")
    texts = SPAN_READERS[form](source)
    for file in {text.source for text in texts}:
        how = {"nested": nested, "span_offsets": unit, "split_sentences": split_sentences}
        note_reading(file, form=form, folder=str(source), **how)
    check_unit(texts, unit)
    annotated = sum(text.annotated for text in texts)
    bare = not annotated and split != "train"
    if not annotated and not bare:
        raise ValueError(f"{source}: no text is annotated, of {len(texts):,}")
    told = Counter({"texts without annotation, left out": 0 if bare else len(texts) - annotated})
    columns: dict[str, Any] = {key: [] for key in ("tokens", "ner_tags", "line", "sources", "document", "documents")}
    kept, number = 0, 0
    for marked in texts:
        if not marked.annotated and not bare:
            continue
        spans = spans_of(marked, nested, unit, told)
        number += len(spans)
        words = split_words(marked.text)
        places, tags, owners = words_and_tags(words, spans)
        if not places:
            told["texts without a word, left out"] += 1
            continue
        kept += 1
        told["words split where a span begins or ends in them"] += len(set(words) - set(places))
        lengths = _sentences(marked, places, spans, told) if split_sentences else [len(places)]
        tokens = (marked.text[begin:end] for begin, end in places)
        lines = (marked.line if owner < 0 else spans[owner].line for owner in owners)
        for key, values in (("tokens", tokens), ("ner_tags", iter(tags)), ("line", lines)):
            columns[key] += [list(itertools.islice(values, length)) for length in lengths]
        for key, value in (("sources", str(marked.source)), ("document", marked.document), ("documents", kept)):
            columns[key] += [value] * len(lengths)
    if not split_sentences:
        del columns["documents"]
    told = Counter({"texts": kept, "spans": number}) + told
    _tell(source, told, sum((text.others for text in texts), Counter()))
    if not columns["tokens"]:
        raise ValueError(f"{source}: no text with a word in this file")
    return columns | {"source": source} | ({"ner_tags": None} if bare else {})


def _sentences(
    marked: MarkedText, places: Sequence[tuple[int, int]], spans: Sequence[Span], told: Counter[str]
) -> list[int]:
    """How many words each sentence of a text has."""
    lengths = sentence_lengths(marked.text, places, [(span.begin, span.end) for span in spans])
    told["sentences"] += len(lengths)
    found = len(sentence_lengths(marked.text, places))
    told["ends of sentences inside a span, which do not count"] += found - len(lengths)
    return lengths


def _tell(source: Path, told: Counter[str], others: Counter[str]) -> None:
    parts = [f"{what}: {number:,}" for what, number in told.items()]
    if others:
        parts.append("not read: " + ", ".join(f"{kind} {number:,}" for kind, number in sorted(others.items())))
    logger.warning("%s: %s", source, "; ".join(parts))


def check_unit(texts: Sequence[MarkedText], unit: Unit) -> None:
    """Refuses a file whose offsets seem to count something else than code points, where only its words can tell.

    If the file says which characters a span has, `spans_of` compares them. Otherwise words tell it: with the wrong
    unit, spans begin and end inside words.

    Raises:
        ValueError: naming the first span that would be wrong, and the flag.
    """
    if unit != "auto":
        return
    misfits: Counter[Unit] = Counter()
    wrong: list[str] = []  # the places of the misfits that count code points
    for marked in texts:
        marks = [mark for mark in marked.marks if mark.said is None]
        units = {other: positions(marked.text, other) for other in _COUNTED}
        if not marks or len(set(map(len, units.values()))) == 1:
            continue
        words = split_words(marked.text)
        begins, ends = {begin for begin, _ in words}, {end for _, end in words}
        for mark in marks:
            for other, at in units.items():
                if not all(
                    0 <= begin < end < len(at) and at[begin] in begins and at[end] in ends
                    for begin, end in mark.parts
                ):
                    misfits[other] += 1
                    wrong += [place(marked.source, mark.line)] if other == "code_points" else []
    best = min(_COUNTED, key=lambda other: misfits[other])
    if misfits[best] < misfits["code_points"]:
        raise ValueError(
            f"{wrong[0]}: the offsets seem to count {UNITS[best]}, because fewer spans then begin or end inside a "
            f"word ({misfits[best]:,}, but {misfits['code_points']:,} in code points); give --span_offsets {best}, "
            "or else code_points"
        )
