"""The same two texts with the same spans as each tool exports them, in the form that its documentation shows:

brat: https://brat.nlplab.org/standoff.html
doccano: https://doccano.github.io/doccano/tutorial/ (sequence labelling, and its form with relations)
Label Studio: https://labelstud.io/guide/export and https://labelstud.io/templates/named_entity
Prodigy: https://prodi.gy/docs/api-interfaces#ner_manual

The second text has an emoji before its spans, a letter with a combining mark in one, and a span that ends in a word.
"""

import json
from pathlib import Path

TEXTS = ["Ada Byron flew to Oslo.", "😀 Jose\u0301 met Tromsø-based Eva."]
SPANS = [[(0, 9, "PER"), (18, 22, "LOC")], [(2, 7, "PER"), (12, 18, "LOC"), (25, 28, "PER")]]


def spans_by_place(text: str, spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str, str]]:
    return [(begin, end, kind, text[begin:end]) for begin, end, kind in spans]


def brat(folder: Path) -> Path:
    folder.mkdir()
    (folder / "annotation.conf").write_text("[entities]\nPER\nLOC\n[relations]\n[events]\n[attributes]\n")
    for name, text, spans in zip(["a", "b.1"], TEXTS, SPANS, strict=True):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        lines = [
            f"T{i}\t{kind} {begin} {end}\t{said}"
            for i, (begin, end, kind, said) in enumerate(spans_by_place(text, spans), start=1)
        ]
        lines += ["R1\tSees Arg1:T1 Arg2:T2", "#1\tAnnotatorNotes T1\ta note", "*\tEquiv T1 T2"]
        (folder / f"{name}.ann").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def written(path: Path, rows: list[dict], listed: bool = False) -> Path:
    lines = json.dumps(rows) if listed else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
    return path


def doccano(path: Path) -> Path:
    rows = [
        {"id": 11 + i, "text": text, "label": [list(span) for span in spans], "Comments": []}
        for i, (text, spans) in enumerate(zip(TEXTS, SPANS, strict=True))
    ]
    return written(path, rows)


def doccano_relations(path: Path) -> Path:
    rows = [
        {
            "id": 11 + i,
            "text": text,
            "entities": [
                {"id": 7 + n, "label": kind, "start_offset": begin, "end_offset": end}
                for n, (begin, end, kind) in enumerate(spans)
            ],
            "relations": [{"id": 0, "from_id": 7, "to_id": 8, "type": "sees"}],
        }
        for i, (text, spans) in enumerate(zip(TEXTS, SPANS, strict=True))
    ]
    return written(path, rows)


def plain_objects(path: Path) -> Path:
    """As many programs write spans, also `finetune predict`."""
    rows = [
        {
            "id": 11 + i,
            "text": text,
            "entities": [{"label": kind, "start": begin, "end": end} for begin, end, kind in spans],
        }
        for i, (text, spans) in enumerate(zip(TEXTS, SPANS, strict=True))
    ]
    return written(path, rows)


def label_studio(path: Path, utf16: bool = False) -> Path:
    tasks = []
    for i, (text, spans) in enumerate(zip(TEXTS, SPANS, strict=True)):
        shift = utf16 and not text.isascii() and 1  # the emoji is two units
        result = [
            {
                "id": f"r{n}",
                "from_name": "ner",
                "to_name": "txt",
                "type": "labels",
                "origin": "manual",
                "value": {"start": begin + shift, "end": end + shift, "text": said, "labels": [kind]},
            }
            for n, (begin, end, kind, said) in enumerate(spans_by_place(text, spans))
        ]
        result.append({"type": "relation", "from_id": "r0", "to_id": "r1", "direction": "right", "labels": ["sees"]})
        done = {"id": i, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "lead_time": 4.2}
        cancelled = done | {"was_cancelled": True, "result": []}
        annotations = [cancelled, done | {"result": result}]
        tasks.append(
            {"id": 5 + i, "data": {"note": text, "source": 3}, "annotations": annotations, "predictions": []}
        )
    return written(path, tasks, listed=True)


def prodigy(path: Path) -> Path:
    rows = []
    for text, spans in zip(TEXTS, SPANS, strict=True):
        starts = [0, *(i + 1 for i, character in enumerate(text) if character == " ")]
        ends = [*(start - 1 for start in starts[1:]), len(text)]
        tokens = [
            {"text": text[a:b], "start": a, "end": b, "id": i, "ws": b < len(text)}
            for i, (a, b) in enumerate(zip(starts, ends, strict=True))
        ]
        marks = [{"start": begin, "end": end, "label": kind} for begin, end, kind in spans]
        row = {"text": text, "_input_hash": 1, "_task_hash": 2, "tokens": tokens, "spans": marks}
        rows.append(row | {"answer": "accept", "meta": {"source": "own"}})
    return written(path, rows)


# A name -> the form, and what makes the file or folder.
FILES = {
    "brat": ("brat", brat),
    "doccano.jsonl": ("doccano", doccano),
    "objects.jsonl": ("doccano", plain_objects),
    "relations.jsonl": ("doccano", doccano_relations),
    "studio.json": ("label_studio", label_studio),
    "prodigy.jsonl": ("spacy", prodigy),
}
