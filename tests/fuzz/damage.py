"""Files of every form that are as they should be, and what becomes of them; how many of them a test tries."""

import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from finetune import data
from finetune.arguments import DataArguments
from finetune.files import remove
from recipes.pretrain import PretrainConfig

TAGGED = [{"tokens": ["Ada", "ran", "é"], "ner_tags": ["B-PER", "O", "I-LOC"]}, {"tokens": ["#"], "ner_tags": ["O"]}]
LABELLED = [{"text": 'so "good"', "label": "pos"}, {"text": "bad,\nvery é", "label": "neg"}, {"text": "", "label": 1}]


MARKED = "Ada 😀 saw Tromsø-based e\u0301va.\n"
MARKS = "T1\tPER 0 3\tAda\nR1\tSees Arg1:T1 Arg2:T2\nT2\tLOC 10 16\tTromsø\nT3\tPER 0 3;23 27\tAda e\u0301va\n"
SPACY = [{"text": MARKED, "spans": [{"start": 0, "end": 3, "label": "PER", "text": "Ada"}], "answer": "accept"}]
DOCCANO = [
    {"id": 1, "text": MARKED, "label": [[0, 3, "PER"], [10, 16, "LOC"]]},
    {"text": "", "entities": [], "relations": [{}]},
]
STUDIO = [
    {
        "data": {"text": MARKED},
        "annotations": [
            {"result": [{"type": "labels", "value": {"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}}]}
        ],
    }
]


def fuzz(examples: int):
    """So many examples, the same ones; with the profile `fuzz` 30 times as many, others each time."""
    long = settings.get_current_profile_name() == "fuzz"
    return settings(
        max_examples=examples * (30 if long else 1),
        derandomize=not long,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet(columns: dict) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="none")
    return sink.getvalue().to_pybytes()


def tagged(path: Path):
    """Reads it as words with tags; raises what a user is told."""
    split = data.read_tagged(DataArguments(train_file=str(path)))["train"]
    data.entity_labels(split)
    return split


def treebank(path: Path):
    return data.read_tagged(DataArguments(train_file=str(path)), "tokens", "NER")["train"]


def word_table(path: Path):
    """Reads it as training does; prediction, which reads a stream, finds the same words."""
    split = data.read_tagged(DataArguments(train_file=str(path)), delimiter=";")["train"]
    with path.open("rb") as file:
        records = list(data.read_records(file, str(path), "table", delimiter=";"))
    assert [record.sample for record in records if record.asks] == split["tokens"][:]
    return split


def named_columns(path: Path):
    asked = {"file_format": "conll", "comment_lines": "before_sentences", "encoding": "utf-16"}
    return data.read_tagged(DataArguments(train_file=str(path)), "word", "ner", **asked)["train"]


def labelled(path: Path):
    split = data.read_labelled(DataArguments(train_file=str(path)))["train"]
    data.class_labels(split)
    return split


def as_test_split(path: Path, read, train: bytes):
    """A test split beside a training file of the same ending. It may have no labels."""
    beside = path.with_name(f"train{path.suffix}")
    beside.write_bytes(train)
    with data.keeping_unlabelled() as kept:
        splits = read(DataArguments(train_file=str(beside), test_file=str(path)))
    return kept.get("test") or splits["test"]


def headless(path: Path):
    return data.read_labelled(DataArguments(train_file=str(path), column_names="text,label"))["train"]


def corpus(path: Path, **flags: object):
    config = PretrainConfig(train_file=str(path), validation_split_percentage=0, **flags)
    return list(data.read_corpus(config)["train"][0])


def split_corpus(path: Path):
    return corpus(path, sentences="split")


def pairs(path: Path):
    return corpus(path, objective="tlm", parallel_columns="en,de")


def spans(path: Path, form: str):
    """Reads it as texts with spans; and what was read can be written."""
    split = data.read_tagged(DataArguments(train_file=str(path)), file_format=form)["train"]
    data.entity_labels(split)
    texts = data.read_marked(path, form, "auto")
    target = path.with_name("back")
    remove(target)
    data.write_marked(target, path, form, texts, [data.spans_of(marked) for marked in texts])
    return split


def marks_of_brat(path: Path):
    """An `.ann` file, beside its text."""
    folder = path.with_name(f"{path.stem}-brat")
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    (folder / f"{path.stem}.txt").write_text(MARKED, encoding="utf-8")
    return spans(folder, "brat")


def text_of_brat(path: Path):
    """A text, beside its `.ann` file."""
    folder = path.with_name(f"{path.name}.folder")
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_bytes(path.read_bytes())
    (folder / "a.ann").write_text(MARKS, encoding="utf-8")
    return spans(folder, "brat")


words_to_predict = partial(as_test_split, read=data.read_tagged)
texts_to_predict = partial(as_test_split, read=data.read_labelled)
# A name -> the file's name, its reader, what it holds.
FORMS = {
    "column file": ("a.conll", tagged, "# id\nAda NNP B-PER\nran VB O\n\n-DOCSTART- -X- O\n\né NN I-LOC\n".encode()),
    "column file with tabs": ("a.bio", tagged, "Ada\tB-PER\r\nran\tO\r\n\r\n#\tO\r\né\tI-LOC\r\n".encode()),
    "tagged lines": ("a.jsonl", tagged, _lines(TAGGED)),
    "tagged Parquet": (
        "a.parquet",
        tagged,
        _parquet({key: [row[key] for row in TAGGED] for key in ("tokens", "ner_tags")}),
    ),
    "treebank": (
        "a.conllu",
        treebank,
        "# newdoc\n1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n1\tde\tde\tX\t_\tA=b\t0\t_\t_\tNER=B-X|C=é\n"
        "2\tel\tel\tX\t_\t_\t0\t_\t_\t_\n2.1\tx\t_\t_\t_\t_\t_\t_\t_\t_\n\n1\t#\t_\t_\t_\t_\t_\t_\t_\tNER=O\n".encode(),
    ),
    "a word a row": ("a.csv", word_table, 'Sentence;Word;Tag\n1;"A;da";B-X\n;é;O\n\n2;#;O\n3;x;I-X\n'.encode()),
    "columns with names": ("a.txt", named_columns, "#x\nword ner\n# O\né B-X\n# O\n\n#a O\nb O\n".encode("utf-16")),
    "a list of lists": ("a.json", tagged, json.dumps(TAGGED, indent=1).encode()),
    "labelled lines": ("a.jsonl", labelled, _lines(LABELLED)),
    "CSV": ("a.csv", labelled, 'text,label\n"so ""good""",pos\n"bad,\nvery é",neg\r\nx,1\n'.encode()),
    "CSV without header": ("a.csv", headless, b'good,pos\n"bad",neg\n'),
    "TSV": ("a.tsv", labelled, 'text\tlabel\nso "good\tpos\nbad é\tneg\n'.encode()),
    "labelled Parquet": ("a.parquet", labelled, _parquet({"text": ["good", "bad é"], "label": ["pos", "neg"]})),
    "words to predict": (
        "a.conll",
        partial(words_to_predict, train=b"Ada B-PER\n"),
        "# id 1\nAda\né\n\nran\n".encode(),
    ),
    "lines to predict": (
        "a.jsonl",
        partial(words_to_predict, train=_lines(TAGGED)),
        _lines([{"tokens": row["tokens"]} for row in TAGGED]),
    ),
    "spans to predict": (
        "a.jsonl",
        partial(words_to_predict, train=_lines(SPACY)),
        _lines([{"text": MARKED}, {"text": "Ada", "meta": {}}]),
    ),
    "texts to predict": (
        "a.csv",
        partial(texts_to_predict, train=b"text,label\ngood,x\nbad,y\n"),
        'text\n"so ""good"""\nbad é\n'.encode(),
    ),
    "brat marks": ("a.ann", marks_of_brat, MARKS.encode()),
    "brat text": ("brat-text", text_of_brat, MARKED.encode()),
    "doccano": ("a.jsonl", partial(spans, form="doccano"), _lines(DOCCANO)),
    "Label Studio": ("a.json", partial(spans, form="label_studio"), json.dumps(STUDIO, indent=1).encode()),
    "spaCy": ("a.jsonl", partial(spans, form="spacy"), _lines(SPACY)),
    "corpus": ("a.txt", corpus, "One. Two.\nThree é.\n\n\nFour.\r\nFive.\r".encode()),
    "corpus to be split": ("en.txt", split_corpus, "One. Two!\nThree é. Dr. Four?\n\n\nFive.\n".encode()),
    "corpus of lines": ("a.jsonl", corpus, _lines([{"text": "One.\nTwo."}, {"text": ["Three é.", "Four."]}])),
    "corpus in Parquet": ("a.parquet", corpus, _parquet({"text": ["One.\nTwo.", "Three é."]})),
    "translation pairs": ("a.tsv", pairs, "en\tde\nOne\tEins é\nTwo\tZwei\n".encode()),
}

# What readers look at: separators, line ends, quotes, marks, halves of characters, words of the forms above.
PIECES = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\t",
    b" ",
    b",",
    b";",
    b'"',
    b'""',
    b"\\",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
]
PIECES += [
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"#",
    b"# ",
    b"-DOCSTART-",
    b"O",
    b"B-",
    b"I-X",
    b"B-PER",
    b"{",
    b"}",
    b"[",
    b"]",
]
PIECES += [
    b":",
    b"null",
    b"NaN",
    b"1e999",
    b"0.5",
    b"-1",
    b'"text"',
    b'"label"',
    b'"tokens": []',
    b"\\ud800",
    b"\\u0000",
]
PIECES += [b"text", b"label", b"text,label\n", b"text\tlabel\n", b"en\tde\n"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with parts cut out, doubled, put in or changed."""
    content = whole
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["cut", "drop", "double", "put", "piece", "flip"]))
        if kind == "cut":
            content = content[:begin]
        elif kind == "drop":
            content = content[:begin] + content[end:]
        elif kind == "double":
            content = content[:end] + content[begin:]
        elif kind == "put":
            content = content[:begin] + draw(st.binary(min_size=1, max_size=6)) + content[end:]
        elif kind == "piece":
            content = content[:begin] + draw(st.sampled_from(PIECES)) + content[end:]
        elif begin < len(content):
            flipped = content[begin] ^ (1 << draw(st.integers(0, 7)))
            content = content[:begin] + bytes([flipped]) + content[begin + 1 :]
    return content


def refused(path: Path, error: ValueError) -> None:
    """A refusal is one sentence that names the file, and not a library's own kind of error."""
    message = str(error)
    assert type(error) is ValueError, repr(error)
    assert path.name in message, message
    assert "\n" not in message, message
    assert len(message) < 1000, message
