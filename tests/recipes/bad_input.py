"""The cases of docs/ERRORS.md: bad input, the command it is given to, and the sentence that comes back.

    python tests/recipes/bad_input.py     # writes docs/ERRORS.md anew from this list

`test_bad_input.py` runs every case in a folder of its own. In an answer, `…` stands for words of a library.
"""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

ERRORS = Path(__file__).parents[2] / "docs/ERRORS.md"
Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    what: str
    command: str  # the recipe and its flags
    answer: str
    files: dict[str, str | bytes | Change] = field(default_factory=dict)  # content, or what makes the file
    model: str = ""  # a tiny checkpoint of this kind is in the folder `model`, before `files` are made
    status: int = 1
    leaves: tuple[str, ...] = ()  # files of `out` that are there afterwards


def table(**columns: object) -> Change:
    return lambda path: pq.write_table(pa.table(columns), path)


def cut(keep: int, change: Change = lambda path: None) -> Change:
    """The first bytes of what is there, or of what `change` writes."""

    def write(path: Path) -> None:
        change(path)
        path.write_bytes(path.read_bytes()[:keep])

    return write


def saved(rows: list[dict[str, object]], then: Change = lambda folder: None, **features: object) -> Change:
    def write(folder: Path) -> None:
        kinds = datasets.Features(features) if features else None
        datasets.Dataset.from_list(rows, features=kinds).save_to_disk(folder)
        then(folder)

    return write


def numbered_tags(*rows: list[int]) -> Change:
    """Tags as numbers, with names for the numbers 0 and 1 alone."""
    words = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    tags = {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "List"}
    known = json.dumps({"info": {"features": {"tokens": words, "ner_tags": tags}}})
    columns = pa.table({"tokens": [["a"] * len(row) for row in rows], "ner_tags": list(rows)})
    return lambda path: pq.write_table(columns.replace_schema_metadata({"huggingface": known}), path)


def twice_named(path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array(["x"])]
    pq.write_table(pa.table(columns, names=["text", "text", "label"]), path)


def not_utf8(*names: str) -> Change:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xffok")]
    )
    return table(**dict.fromkeys(names, broken), label=["x", "y"])


def settings(**changes: object) -> Change:
    """Another value in a JSON file."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def inside_a_crf(**changes: object) -> Change:
    """The config of a tagger with a CRF over this encoder."""

    def write(path: Path) -> None:
        encoder = json.loads(path.read_text()) | changes
        names = {"model_type": "encoder-crf", "architectures": ["EncoderCrfForTokenClassification"]}
        path.write_text(json.dumps(names | {"encoder": encoder}))

    return write


def last_piece_at(number: int) -> Change:
    def write(path: Path) -> None:
        definition = json.loads(path.read_text())
        vocab = definition["model"]["vocab"]
        vocab[max(vocab, key=vocab.get)] = number
        path.write_text(json.dumps(definition))

    return write


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def write(path: Path) -> None:
        values = load_file(path)
        change(values)
        save_file(values, path, metadata={"format": "pt"})

    return write


class Payload:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("UNPICKLED", "w")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Payload()}))


def pickled_parts(path: Path) -> None:
    """An index of safetensors files that names a pickle."""
    values = load_file(path.with_name("model.safetensors"))
    path.with_name("model.safetensors").unlink()
    pickled(path.with_name("part.bin"))
    path.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(values, "part.bin")}))


def without_special_tokens(path: Path) -> None:
    definition = json.loads(path.read_text())
    for token in definition["added_tokens"]:
        definition["model"]["vocab"].pop(token["content"])
    path.write_text(json.dumps(definition | {"added_tokens": [], "post_processor": None}))


def nan(values: dict[str, torch.Tensor]) -> None:
    values["bert.embeddings.LayerNorm.weight"] *= float("nan")


def brat(text: str | None, marks: str) -> Change:
    """A folder of brat with one document."""

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "a.ann").write_text(marks)
        if text is not None:
            (folder / "a.txt").write_text(text)

    return write


def patch_line(file: str, accept: bool = True, new_label: str = "B-LOC", read: object = "CoNLL") -> str:
    """A patch of one line, for the first word of a file."""
    change = {"word": 0, "token": "Ada", "label": "B-PER", "new_label": new_label}
    how = CONLL_READ if read == "CoNLL" else read
    return json.dumps({"accept": accept, "file": file, "line": 1, "changes": [change], "read": how})


def full(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def remove(path: Path) -> None:
    path.unlink()


def teacher(head: str, *labels: str, problem: str = "single_label_classification") -> Change:
    """The config of a fine-tuned BERT. Mistakes are found before its weights are needed."""

    def write(folder: Path) -> None:
        folder.mkdir()
        told = {"model_type": "bert", "architectures": [f"BertFor{head}"], "problem_type": problem}
        told |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        (folder / "config.json").write_text(json.dumps(told))

    return write


DISTIL = "distil --model_name_or_path bilstm --teacher t --dataset_name samples"
TAGGER = {"t": teacher("TokenClassification", "O", "B-PER", "I-PER")}
MOODS = ("negative", "neutral", "positive")
CLASSIFIER = {"t": teacher("SequenceClassification", *MOODS)}
NER, SENTIMENT, TLM = (
    "ner --train_file",
    "sentiment --train_file",
    "pretrain --model_name_or_path model --objective tlm --parallel_columns en,de --train_file",
)
PRETRAIN = "pretrain --model_name_or_path model --train_file"
QUESTIONS = "question_answering --model_name_or_path bilstm --eval_strategy no --train_file"
ASKED = '{"question": "Who?", "context": "It is Ada.", "answers": {"text": ["Ada"], "answer_start": [6]}}\n'
MODEL = "ner --dataset_name samples --max_seq_length 32 --model_name_or_path model"
SEARCH = "search --task ner --dataset_name samples --model_name_or_path bilstm --config search.yaml"
SEARCH_FILE = "search --task ner --train_file t.conll --model_name_or_path bilstm"
MORE = "pretrain --dataset_name samples --max_seq_length 32 --model_name_or_path model"
SERVE, VERIFY = "serve --model_name_or_path model", "verify --model_name_or_path model"
APPLY = "check_data --apply patch.jsonl --output_dir out"
CONLL_READ = dict.fromkeys(("words", "tags", "delimiter", "sentences", "column_names", "label_names"))
CONLL_READ |= {"form": "conll", "comments": "auto", "encoding": "utf-8", "scheme": "IOB2"}
BRAT_READ = {"form": "brat", "folder": "brat", "nested": "outer", "span_offsets": "auto", "split_sentences": False}
GOOD = "Ada\tB-PER\nran\tO\n"
CSV = "text,label\ngood,1\nbad,0\n"
HINT = "Name the right one with a flag that ends in _column_name"
COLUMNS = "each line of a word has the word, its tag, and the same number of columns as the others"
ICONV = "convert the file, for example with iconv"
ENCODING = f"{ICONV}, or give --encoding (such as cp1252) if the command has it"
OBJECT = "in a .jsonl file each line is an object"
NUL = "a NUL character; is this a text file?"
TAGS = "tags are O, B-TYPE, I-TYPE (or IOBES)"
NO_LIST = (
    "is not a list of strings, like ['O', 'B-PER']; tags that are numbers need --label_names; a file with one "
    "word on each line needs --file_format conll"
)
TEXTS = {"text": ["good", "bad"], "label": ["x", "y"]}
PICKLED = (
    "model: its weights are pickled (pytorch_model.bin), and unpickling can run code, so they are not loaded; "
    "whoever trusts them saves them as model.safetensors"
)
HUB = "… connect to … couldn't find them in the cached files."

GROUPS: dict[str, list[Case]] = {
    "Truncated files": [
        Case("CoNLL, cut within a line", f"{NER} a.conll", f"a.conll:3: 1 column(s), but line 1 has 2; {COLUMNS}",
             {"a.conll": GOOD + "Oslo"}),
        Case("CoNLL, cut within a tag", f"{NER} a.conll", f"a.conll:3: 'B-' is no tag; {TAGS}",
             {"a.conll": GOOD + "Oslo\tB-"}),
        Case("CoNLL, cut within a character", f"{NER} a.conll", f"a.conll:3: not UTF-8 (byte 0xc3); {ENCODING}",
             {"a.conll": GOOD.encode() + "é".encode()[:1]}),
        Case("JSON lines, cut within an object", f"{SENTIMENT} a.jsonl",
             f"a.jsonl:2: not JSON: …; {OBJECT}", {"a.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "la'}),
        Case("CSV, cut within a quoted cell", f"{SENTIMENT} a.csv", "a.csv:4: not CSV: unexpected end of data",
             {"a.csv": CSV + '"not so'}),
        Case("CSV, cut within a row", f"{SENTIMENT} a.csv", "a.csv:4: 1 column(s), but the header has 2",
             {"a.csv": CSV + "fine"}),
        Case("TSV, cut within a row", f"{SENTIMENT} a.tsv", "a.tsv:2: 1 column(s), but the header has 2",
             {"a.tsv": "text\tlabel\ngood"}),
        Case("Parquet", f"{SENTIMENT} a.parquet", "a.parquet: not a Parquet file: …",
             {"a.parquet": cut(200, table(**TEXTS))}),
        Case("save_to_disk, its table cut", f"{SENTIMENT} a", "a: a broken save_to_disk folder: …",
             {"a": saved([{"text": "a", "label": "x"}],
                         lambda folder: cut(300)(folder / "data-00000-of-00001.arrow"))}),
        Case("save_to_disk, a file of it gone", f"{SENTIMENT} a", "a: a broken save_to_disk folder: …",
             {"a": saved([{"text": "a", "label": "x"}], lambda folder: (folder / "state.json").unlink())}),
        Case("save_to_disk, an empty state", f"{SENTIMENT} a", "a: a broken save_to_disk folder: KeyError: …",
             {"a": saved([{"text": "a", "label": "x"}], lambda folder: (folder / "state.json").write_text("{}"))}),
        Case("a corpus of text, cut within a character", f"{PRETRAIN} a.txt",
             f"a.txt:3: not UTF-8 (byte 0xc3); {ICONV}", {"a.txt": "One.\n\né".encode()[:-1]}, "wordpiece"),
        Case("a corpus of JSON lines", f"{PRETRAIN} a.jsonl", f"a.jsonl:2: not JSON: …; {OBJECT}",
             {"a.jsonl": '{"text": "a"}\n{"te'}, "wordpiece"),
        Case("a corpus in Parquet", f"{PRETRAIN} a.parquet", "a.parquet: not a Parquet file: …",
             {"a.parquet": cut(200, table(**TEXTS))}, "wordpiece"),
        Case("translation pairs", f"{TLM} a.tsv", "a.tsv:2: 1 column(s), but the header has 2",
             {"a.tsv": "en\tde\nOne"}, "wordpiece"),
    ],
    "Spans of characters": [
        Case("a line that is no annotation", f"{NER} brat",
             "brat/a.ann:1: 'T1 PER 0 3 Ada' is no annotation; a span is T1<TAB>Type 0 5<TAB>characters",
             {"brat": brat("Ada ran.", "T1 PER 0 3 Ada\n")}),
        Case("an .ann file without its text", f"{NER} brat", "brat/a.ann: its text a.txt is missing",
             {"brat": brat(None, "T1\tPER 0 3\tAda\n")}),
        Case("a folder without texts", f"{NER} empty --file_format brat", "empty: no .txt file in this folder",
             {"empty": lambda path: path.mkdir()}),
        Case("other characters at the offsets", f"{NER} brat",
             "brat/a.ann:1: at 1 4 the text has 'da ', not 'Ada'", {"brat": brat("Ada ran.", "T1\tPER 1 4\tAda\n")}),
        Case("offsets in UTF-16 units", f"{NER} brat",
             "brat/a.ann:1: at 3 6 the text has 'da ', not 'Ada'; the file counts UTF-16 units, so give "
             "--span_offsets utf16", {"brat": brat("😀 Ada ran.", "T1\tPER 3 6\tAda\n")}),
        Case("offsets in UTF-16 units, of spans without their characters", f"{NER} a.jsonl",
             "a.jsonl:1: the offsets seem to count UTF-16 units, because fewer spans then begin or end inside a word "
             "(0, but 1 in code points); give --span_offsets utf16, or else code_points",
             {"a.jsonl": '{"text": "😀 Ada ran.", "label": [[3, 6, "PER"]]}\n'}),
        Case("a span past the end of its text", f"{NER} a.jsonl",
             "a.jsonl:1: a span from 0 to 99, but the text has 8 characters",
             {"a.jsonl": '{"text": "Ada ran.", "label": [[0, 99, "PER"]]}\n'}),
        Case("a span that ends where it begins", f"{NER} a.jsonl",
             "a.jsonl:1: a span from 3 to 3; its end must be greater than its begin",
             {"a.jsonl": '{"text": "Ada ran.", "label": [[3, 3, "PER"]]}\n'}),
        Case("spans that overlap", f"{NER} a.jsonl --nested error",
             "a.jsonl:1: 'Oslo' (LOC, 8 to 12) overlaps 'Bank of Oslo' (ORG, 0 to 12); with --nested outer the "
             "longer one is read, with --nested inner the shorter one",
             {"a.jsonl": '{"text": "Bank of Oslo.", "label": [[0, 12, "ORG"], [8, 12, "LOC"]]}\n'}),
        Case("a span with two values", f"{NER} a.jsonl --file_format doccano",
             "a.jsonl:1: 'label' has [0, 3]; a span is [0, 3, 'PER'], or has 'start_offset', 'end_offset' and "
             "'label' (or 'start', 'end' and 'label')",
             {"a.jsonl": '{"text": "Ada ran.", "label": [[0, 3]]}\n'}),
        Case("a span without its end", f"{NER} a.jsonl --file_format spacy",
             "a.jsonl:1: 'spans' has {'start': 0, 'label': 'PER'}; a span has 'start', 'end' and 'label'",
             {"a.jsonl": '{"text": "Ada ran.", "spans": [{"start": 0, "label": "PER"}]}\n'}),
        Case("an export of Label Studio in its smaller form", f"{NER} a.json --file_format label_studio",
             "a.json, record 1: no 'data'; a task is an object like {\"data\": {\"text\": \"Ada saw Oslo.\"}, "
             "\"annotations\": [...]}. In Label Studio, export JSON, and not JSON-MIN",
             {"a.json": '[{"id": 1, "text": "Ada ran.", "label": []}]'}),
        Case("labels in HTML", f"{NER} a.json --file_format label_studio",
             "a.json, record 1: labels in HTML (hypertextlabels); only labels in plain text can be read",
             {"a.json": '[{"data": {"text": "<b>Ada</b>"}, "annotations": '
                        '[{"result": [{"type": "hypertextlabels", "value": {}}]}]}]'}),
        Case("nobody has annotated the texts", f"{NER} a.jsonl --file_format spacy",
             "a.jsonl: no text is annotated, of 1", {"a.jsonl": '{"text": "Ada ran."}\n'}),
    ],
    "Wrong delimiters": [
        Case("CoNLL with commas", f"{NER} a.conll", f"a.conll:1: 1 column(s), but 2 are needed; {COLUMNS}",
             {"a.conll": "Ada,B-PER\nran,O\n"}),
        Case("CoNLL, tabs and then spaces", f"{NER} a.conll", f"a.conll:3: 1 column(s), but line 1 has 2; {COLUMNS}",
             {"a.conll": GOOD + "Oslo B-LOC\n"}),
        Case("CoNLL, spaces and then a tab", f"{NER} a.conll",
             "a.conll:2: a tab in the word 'ran\\tO', but line 1 has spaces between its columns; use the same "
             "separator in all lines", {"a.conll": "Ada B-PER\nran\tO O\n"}),
        Case("a tab within a tag", f"{NER} a.conll", f"a.conll:2: 'B-X\\tO' is no tag; {TAGS}",
             {"a.conll": "Ada B-PER\nran B-X\tO\n"}),
        Case("CSV with semicolons", f"{SENTIMENT} a.csv",
             f"a.csv:1: no column 'text'; it has: 'text;label'. {HINT} (is ';' between the columns? "
             "then give --delimiter ';', if the command has it)",
             {"a.csv": CSV.replace(",", ";")}),
        Case("CSV with tabs", f"{SENTIMENT} a.csv",
             f"a.csv:1: no column 'text'; it has: 'text\\tlabel'. {HINT} (is tab between the columns? "
             "then give --delimiter tab, if the command has it)",
             {"a.csv": CSV.replace(",", "\t")}),
        Case("TSV with commas", f"{SENTIMENT} a.tsv",
             f"a.tsv:1: no column 'text'; it has: 'text,label'. {HINT} (is ',' between the columns? "
             "then give --delimiter ',', if the command has it)",
             {"a.tsv": CSV}),
        Case("a JSON list that does not end", f"{SENTIMENT} a.json",
             "a.json:2: not JSON: Expecting ',' delimiter; this file begins with [, so it must be one list",
             {"a.json": '[\n {"text": "a", "label": 1}\n'}),
        Case("a word a row, with semicolons", f"{NER} a.csv",
             "a.csv: one column, 'sentence;word;tag' "
             "(is ';' between the columns? then give --delimiter ';', if the command has it)",
             {"a.csv": "sentence;word;tag\n1;Ada;B-PER\n"}),
        Case("a delimiter of two characters", f"{NER} a.csv --delimiter '; '",
             "--delimiter '; ': one character is needed, such as ';' or ',', or tab or space", {"a.csv": "a"}),
        Case("another encoding than the file's", f"{NER} a.conll --encoding ascii",
             "a.conll:2: not ascii (byte 0xc3); give another --encoding", {"a.conll": "Ada B-PER\né O\n"}),
        Case("an encoding that is none", f"{NER} a.conll --encoding base64",
             "--encoding base64: Python knows no such encoding of text; give one such as utf-8, utf-16, latin-1, "
             "cp1252, shift_jis or gb18030", {"a.conll": GOOD}),
        Case("a name that the header line lacks", f"{NER} a.txt --delimiter ';' --tag_column ner",
             "a.txt:1: no column is named 'ner' in this header line, which has: 'word', 'tag'; give another name "
             "with --label_column_name, or the number of a column, counted from 0",
             {"a.txt": "word;tag\nAda;B-PER\n"}),
        Case("a treebank without the key", f"{NER} a.conllu --tag_column NER",
             "a.conllu: no word has 'NER'; keys that words have: 'Gloss'; give a column (upos), a key of MISC (NER), "
             "or a key of FEATS (feats.Case) with --tag_column",
             {"a.conllu": "1\tAda" + "\t_" * 7 + "\tGloss=x\n"}),
        Case("a sentence that comes back", f"{NER} a.csv",
             "a.csv:4: the sentence '1' was there before (line 2); if each document counts anew, give "
             "--sentence_column document,sentence; else sort the table",
             {"a.csv": "sentence,word,tag\n1,a,O\n2,b,O\n1,c,O\n"}),
        Case("context without documents", f"{NER} a.conll --context document",
             "a.conll: no document is marked, so no sentence has a context; mark where each begins (-DOCSTART-, "
             "#begin document, # newdoc), name a --document_column, or give --context none", {"a.conll": GOOD}),
        Case("a size for no context", f"{NER} a.conll --context_size 64",
             "--context_size 64: a number of subwords from 1 on, and only with --context document",
             {"a.conll": GOOD}),
        Case("a column of documents where there is none", f"{NER} a.conll --document_column doc_id",
             "--document_column doc_id: only tables with a list of words in each row have it; a table with a word in "
             "each row takes --sentence_column document,sentence", {"a.conll": GOOD}),
        Case("a column of sentences where there is none", f"{NER} a.conll --sentence_column nr",
             "--sentence_column nr: only a table with a word in each row has it, and this data is conll",
             {"a.conll": GOOD}),
        Case("a tag of another scheme", f"{NER} a.conll --tagging_scheme IOB2",
             "a.conll:1: 'S-PER' is no tag of IOB2, whose prefixes are BI; give another --tagging_scheme",
             {"a.conll": "Ada S-PER\n"}),
        Case("a number without a name", f"{NER} a.conll --label_names O,B-PER",
             "a.conll:2: the tag '2'; --label_names has names for 0 to 1", {"a.conll": "Ada 1\nran 2\n"}),
        Case("translation pairs with commas in TSV", f"{TLM} a.tsv",
             f"a.tsv:1: no column 'en'; it has: 'en,de'. {HINT} "
             "(is ',' between the columns? then give --delimiter ',', if the command has it)",
             {"a.tsv": "en,de\nOne,Eins\n"}, "wordpiece"),
        Case("a table as a corpus, another column", f"{PRETRAIN} a.csv --text_column_name story",
             "a.csv:1: no column 'story'; it has: 'text', 'label'. Name the right one with --text_column_name (no "
             "header line? then give --column_names)", {"a.csv": CSV}, "wordpiece"),
        Case("samples without texts", "pretrain --model_name_or_path model --dataset_name samples "
             "--dataset_config_name questions",
             "--dataset_config_name questions: no samples with texts have this name; there are ner, sentiment",
             {}, "wordpiece"),
    ],
    "NUL bytes": [
        Case("CoNLL", f"{NER} a.conll", f"a.conll:2: {NUL}", {"a.conll": "Ada\tB-PER\nr\0n\tO\n"}),
        Case("CSV", f"{SENTIMENT} a.csv", f"a.csv:3: {NUL}", {"a.csv": CSV.replace("bad", "b\0d")}),
        Case("TSV", f"{SENTIMENT} a.tsv", f"a.tsv:2: {NUL}", {"a.tsv": "text\tlabel\n\0\t1\n"}),
        Case("JSON lines", f"{SENTIMENT} a.jsonl", f"a.jsonl:1: {NUL}", {"a.jsonl": '{"text": "\0", "label": 1}\n'}),
        Case("a word with an escaped NUL in JSON", f"{NER} a.jsonl",
             "a.jsonl:1: the word 'a\\x00' is empty, breaks a line, or has a NUL in it, so it cannot be written "
             "into a column file",
             {"a.jsonl": '{"tokens": ["a\\u0000"], "ner_tags": ["O"]}\n'}),
        Case("a word with a NUL in Parquet", f"{NER} a.parquet",
             "a.parquet, row 1: the word '\\x00' is empty, breaks a line, or has a NUL in it, so it cannot be "
             "written into a column file", {"a.parquet": table(tokens=[["\0"]], ner_tags=[["O"]])}),
        Case("UTF-16 without a mark", f"{NER} a.conll", f"a.conll:1: {NUL}", {"a.conll": GOOD.encode("utf-16-le")}),
        Case("a corpus of text", f"{PRETRAIN} a.txt", f"a.txt:2: {NUL}", {"a.txt": "One.\nTw\0.\n"}, "wordpiece"),
        Case("translation pairs", f"{TLM} a.tsv", f"a.tsv:2: {NUL}", {"a.tsv": "en\tde\n\0\tEins\n"}, "wordpiece"),
    ],
    "Invalid UTF-8 in the middle": [
        Case("CoNLL", f"{NER} a.conll", f"a.conll:2: not UTF-8 (byte 0xe9); {ENCODING}",
             {"a.conll": b"Ada\tB-PER\nArr\xe9\tO\n" + GOOD.encode()}),
        Case("after lines that end with CR", f"{NER} a.conll", f"a.conll:3: not UTF-8 (byte 0xff); {ENCODING}",
             {"a.conll": b"Ada\tB-PER\rran\tO\r\n\xff\tO\n"}),
        Case("UTF-16", f"{NER} a.conll", f"a.conll:1: not UTF-8 (byte 0xff); {ENCODING}",
             {"a.conll": GOOD.encode("utf-16")}),
        Case("CSV", f"{SENTIMENT} a.csv", f"a.csv:2: not UTF-8 (byte 0xe4); {ENCODING}",
             {"a.csv": b"text,label\nsch\xe4n,1\nbad,0\n"}),
        Case("TSV", f"{SENTIMENT} a.tsv", f"a.tsv:2: not UTF-8 (byte 0xe4); {ENCODING}",
             {"a.tsv": b"text\tlabel\nsch\xe4n\t1\nbad\t0\n"}),
        Case("JSON lines", f"{SENTIMENT} a.jsonl", f"a.jsonl:1: not UTF-8 (byte 0xe4); {ENCODING}",
             {"a.jsonl": b'{"text": "sch\xe4n", "label": 1}\n'}),
        Case("half of a surrogate pair in JSON", f"{SENTIMENT} a.jsonl",
             f"a.jsonl:1: not JSON: …surrogates not allowed; {OBJECT}",
             {"a.jsonl": '{"text": "\\ud83d", "label": 1}\n'}),
        Case("a text in Parquet", f"{SENTIMENT} a.parquet", "a.parquet: column 'text' is broken: …UTF8…",
             {"a.parquet": not_utf8("text")}),
        Case("a corpus of text", f"{PRETRAIN} a.txt", f"a.txt:3: not UTF-8 (byte 0xff); {ICONV}",
             {"a.txt": b"One.\n\nTwo \xff.\n\nThree.\n"}, "wordpiece"),
        Case("a corpus in Parquet", f"{PRETRAIN} a.parquet",
             "a.parquet, row 1 or soon after: not read: 'utf-8' codec can't decode byte 0xff …",
             {"a.parquet": not_utf8("text")}, "wordpiece"),
    ],
    "Empty documents": [
        Case("an empty CoNLL file", f"{NER} a.conll", "a.conll: no sentence in this file", {"a.conll": ""}),
        Case("blank lines alone", f"{NER} a.conll", "a.conll: no sentence in this file", {"a.conll": "\n \n\t\n"}),
        Case("an empty CSV file", f"{SENTIMENT} a.csv", "a.csv: no row in this file", {"a.csv": ""}),
        Case("a header without rows", f"{SENTIMENT} a.tsv", "a.tsv: no row in this file", {"a.tsv": "text\tlabel\n"}),
        Case("an empty JSON lines file", f"{SENTIMENT} a.jsonl", "a.jsonl: no row in this file", {"a.jsonl": "\n\n"}),
        Case("an empty Parquet file", f"{SENTIMENT} a.parquet", "a.parquet: not a Parquet file: …",
             {"a.parquet": ""}),
        Case("Parquet without rows", f"{SENTIMENT} a.parquet", "a.parquet: no row in this data",
             {"a.parquet": table(text=pa.array([], pa.string()), label=pa.array([], pa.string()))}),
        Case("sentences without words", f"{NER} a.jsonl --eval_strategy no",
             "a.jsonl:1: the training split has no entity, only O tags",
             {"a.jsonl": '{"tokens": [], "ner_tags": []}\n' * 3}),
        Case("words of which the tokenizer makes nothing",
             f"{NER} a.conll --model_name_or_path model --max_seq_length 32 --eval_strategy no",
             "no row to train on: the tokenizer makes nothing of the training data's words",
             {"a.conll": "\u200e\tB-PER\n\ufe0f\tO\n"}, "wordpiece"),
        Case("a corpus of blank lines", f"{PRETRAIN} a.txt --validation_split_percentage 0 --eval_strategy no",
             "a.txt: no text in it", {"a.txt": "\n\n  \n"}, "wordpiece"),
        Case("a corpus of one sentence", f"{PRETRAIN} a.txt",
             "a.txt: 1 sentence in all, of which none can be held out: give a --validation_file, or "
             "--validation_split_percentage 0 with --eval_strategy no", {"a.txt": "One.\n"}, "wordpiece"),
        Case("a corpus in a script that the vocabulary does not have",
             f"{PRETRAIN} a.txt --validation_split_percentage 0 --eval_strategy no",
             "a.txt: the vocabulary does not know this text: all of its 5 subwords are unknown or special tokens, "
             "so nothing can be masked; take a checkpoint or tokenizer of this language or script, or train one "
             "(--tokenizer_name unigram)", {"a.txt": "\u4e00\u4e8c\u4e09\n\n\u56db\u4e94\n"}, "wordpiece"),
        Case("a corpus in Parquet without rows",
             f"{PRETRAIN} a.parquet --validation_split_percentage 0 --eval_strategy no", "a.parquet: no text in it",
             {"a.parquet": table(text=pa.array([], pa.string()))}, "wordpiece"),
    ],
    "Columns and labels": [
        Case("tags that must fit together, and have no prefixes",
             "ner --dataset_name samples --tagging plain --decoding viterbi",
             "--decoding viterbi: plain tags have no B- and I-; leave this flag out"),
        Case("the same for a CRF", "ner --dataset_name samples --model_name_or_path bilstm-crf --decoding viterbi",
             "--decoding viterbi: a CRF always decodes so; leave the flag out, or take a model without a CRF, such "
             "as bilstm"),
        Case("two columns of one name, CSV", f"{SENTIMENT} a.csv", "a.csv:1: two columns are named 'text'",
             {"a.csv": "text,text,label\na,b,1\n"}),
        Case("two columns of one name, TSV", f"{SENTIMENT} a.tsv", "a.tsv:1: two columns are named 'label'",
             {"a.tsv": "text\tlabel\tlabel\na\tb\t1\n"}),
        Case("one name twice in --column_names", f"{SENTIMENT} a.csv --column_names text,text,label",
             "--column_names text,text,label: two columns are named 'text'", {"a.csv": "a,b,1\nc,d,0\n"}),
        Case("one name twice in a JSON object", f"{SENTIMENT} a.jsonl",
             f"a.jsonl:1: not JSON: an object has the name 'text' twice; {OBJECT}",
             {"a.jsonl": '{"text": "a", "text": "b", "label": 1}\n'}),
        Case("two columns of one name, Parquet", f"{SENTIMENT} a.parquet", "a.parquet: two columns are named 'text'",
             {"a.parquet": twice_named}),
        Case("the same in a corpus", f"{PRETRAIN} a.parquet", "a.parquet: two columns are named 'text'",
             {"a.parquet": twice_named}, "wordpiece"),
        Case("one column for texts and labels", f"{SENTIMENT} a.csv --label_column_name text",
             "--text_column_name, --text_pair_column_name and --label_column_name name 'text', 'text'; they must be "
             "different columns", {"a.csv": CSV}),
        Case("one column of a column file for words and tags", f"{NER} a.conll --text_column_name 1",
             "a.conll:1: column 1 cannot have both the words and the tags; give another column with "
             "--text_column_name or --label_column_name", {"a.conll": GOOD}),
        Case("a first column that counts the words", f"{NER} a.conll",
             "a.conll:3: the first column counts the words; give the column of the words, counted from 0: "
             "--text_column_name in training, --word_column in predict",
             {"a.conll": "#\tn-tv.de\n1\tAda\tB-PER\n2\tran\tO\n"}),
        Case("the header line once more, between rows", f"{SENTIMENT} a.csv",
             "a.csv:4: this is a header line; the file already has one", {"a.csv": CSV + CSV}),
        Case("labels of which some are floats, CSV", f"{SENTIMENT} a.csv",
             "a.csv:2: column 'label' holds '0.5'; a label is a word or a whole number; to learn numbers, give "
             "--problem_type regression",
             {"a.csv": "text,label\ngood,0.5\nbad,1\n"}),
        Case("labels of which some are floats, JSON lines", f"{SENTIMENT} a.jsonl",
             "a.jsonl:2: column 'label' holds 0.5; a label is a word or a whole number; to learn numbers, give "
             "--problem_type regression",
             {"a.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": 0.5}\n'}),
        Case("labels of which some are floats in quotes, JSON lines", f"{SENTIMENT} a.jsonl",
             "a.jsonl:1: column 'label' holds '4.75'; a label is a word or a whole number; to learn numbers, give "
             "--problem_type regression",
             {"a.jsonl": '{"text": "a", "label": "4.75"}\n{"text": "b", "label": "bad"}\n'}),
        Case("labels that are whole numbers written as floats, Parquet", f"{SENTIMENT} a.parquet",
             "a.parquet, row 1: column 'label' holds 1.0; a label is a word or a whole number; to learn numbers, "
             "give --problem_type regression",
             {"a.parquet": table(text=["a", "b"], label=[1.0, 0.0])}),
        Case("a score of numbers for labels",
             f"{SENTIMENT} a.csv --validation_file a.csv --metric_for_best_model pearson",
             "--metric_for_best_model pearson: no score of this data (single_label_classification); choose from "
             "accuracy, f1_macro, f1_micro, recall_macro, loss", {"a.csv": CSV}),
        Case("a list among labels", f"{SENTIMENT} a.jsonl",
             "a.jsonl:2: column 'label' holds ['b']; several labels need --problem_type multi_label_classification, "
             "and a list in every row",
             {"a.jsonl": '{"text": "a", "label": "a"}\n{"text": "b", "label": ["b"]}\n'}),
        Case("a label among lists", f"{SENTIMENT} a.jsonl",
             "a.jsonl:2: column 'label' holds 'b'; several labels are a list, which may be empty, or words with a "
             "--label_separator between them",
             {"a.jsonl": '{"text": "a", "label": ["a"]}\n{"text": "b", "label": "b"}\n'}),
        Case("a list that names a label twice", f"{SENTIMENT} a.jsonl",
             "a.jsonl:1: column 'label' holds [0, 1, 0], with '0' more than once; a list names labels",
             {"a.jsonl": '{"text": "a", "label": [0, 1, 0]}\n'}),
        Case("a missing label", f"{SENTIMENT} a.parquet",
             "a.parquet, row 2: column 'label' holds None; a label is missing: give one, or leave this text out",
             {"a.parquet": table(text=["a", "b"], label=["x", None])}),
        Case("a missing label where numbers have names", f"{SENTIMENT} a",
             "a, row 2: column 'label' holds None; a label is missing: give one, or leave this text out",
             {"a": saved([{"text": "a", "label": 0}, {"text": "b", "label": None}], text=datasets.Value("string"),
                         label=datasets.ClassLabel(names=["neg", "pos"]))}),
        Case("a number that names no tag", f"{NER} a.parquet",
             "a.parquet: column 'ner_tags' holds the label number 7, but has names for 2 labels, from 0 on",
             {"a.parquet": numbered_tags([0, 1], [7])}),
        Case("numbers without names", f"{NER} a.parquet", f"a.parquet, row 1: column 'ner_tags' {NO_LIST}",
             {"a.parquet": table(tokens=[["a"]], ner_tags=[[0]])}),
        Case("a row without tags", f"{NER} a.parquet", f"a.parquet, row 2: column 'ner_tags' {NO_LIST}",
             {"a.parquet": table(tokens=[["a"], ["b"]], ner_tags=[["O"], None])}),
        Case("a text that is none", f"{PRETRAIN} a.parquet",
             "a.parquet, row 2: 'text' is NoneType, neither a text nor a list of sentences",
             {"a.parquet": table(text=["a", None])}, "wordpiece"),
        Case("100,000 labels, and another one in the test split", f"{SENTIMENT} a.csv --test_file b.csv "
             "--eval_strategy no", "b.csv:2: the label 'new' does not occur in the training data, which has: "
             "'l0', 'l1', 'l10', …and 99,980 more",
             {"a.csv": "text,label\n" + "".join(f"a,l{i}\n" for i in range(100_000)),
              "b.csv": "text,label\na,new\n"}),
        Case("JSON nested 100,000 deep", f"{SENTIMENT} a.jsonl",
             f"a.jsonl:1: not JSON: maximum recursion depth exceeded …; {OBJECT}", {"a.jsonl": "[" * 100_000}),
        Case("features that are no JSON", f"{SENTIMENT} a.parquet", "a.parquet: not read: …",
             {"a.parquet": lambda path: pq.write_table(
                 pa.table(TEXTS).replace_schema_metadata({"huggingface": "{"}), path)}),
    ],
    "Distillation": [
        Case("no teacher", "distil --dataset_name samples",
             "--teacher is missing: give the folder of a fine-tuned model"),
        Case("no such teacher", DISTIL, "--teacher t: no such folder; give the folder of a fine-tuned model"),
        Case("a teacher without a head", DISTIL,
             "--teacher t: holds BertForMaskedLM; fine-tune it for words or for texts first",
             {"t": teacher("MaskedLM")}),
        Case("a teacher of another task", DISTIL,
             "--teacher t: a model for question-answering; only taggers and classifiers are distilled",
             {"t": teacher("QuestionAnswering")}),
        Case("teachers of two tasks", f"{DISTIL} --teacher t,u",
             "--teacher: t is for token-classification (single_label_classification), and u for "
             "sequence-classification (single_label_classification); give teachers of one kind",
             TAGGER | {"u": CLASSIFIER["t"]}),
        Case("a teacher with other labels", DISTIL,
             "--teacher t: other labels than the training data: only the training data has …", TAGGER),
        Case("a teacher with more labels", DISTIL,
             "--teacher t: other labels than the training data: only the teacher has 'mixed'",
             {"t": teacher("SequenceClassification", "mixed", *MOODS)}),
        Case("a flag for texts, and a teacher for words", f"{DISTIL} --pooling mean",
             "--pooling: the teacher labels words, and this is for a teacher that labels texts; leave it out",
             TAGGER),
        Case("a flag for words, and a teacher for texts", f"{DISTIL} --head crf",
             "--head: the teacher labels texts, and this is for a teacher that labels words; leave it out",
             CLASSIFIER),
        Case("a temperature of 0", f"{DISTIL} --temperature 0", "--temperature 0: must be greater than 0", TAGGER),
        Case("a temperature of numbers", f"{DISTIL} --temperature 2",
             "--temperature 2: the teacher gives numbers, which have none",
             {"t": teacher("SequenceClassification", "number", problem="regression")}),
        Case("teachers without a name", "distil --model_name_or_path bilstm --dataset_name samples --teacher ,",
             "--teacher ',': give the folder of a fine-tuned model"),
        Case("a share above 1", f"{DISTIL} --distil_alpha 1.5", "--distil_alpha 1.5: must be from 0 to 1", TAGGER),
        Case("no such file of texts without labels", f"{DISTIL} --unlabeled_file a.txt",
             "--unlabeled_file a.txt: no such file", CLASSIFIER),
        Case("no text in it", f"{DISTIL} --unlabeled_file a.txt", "--unlabeled_file a.txt: no text in it",
             CLASSIFIER | {"a.txt": "\n \n"}),
        Case("words without labels, and a teacher for texts", f"{DISTIL} --unlabeled_file a.conll",
             "a.conll:1: a list of words, but the teacher labels texts; give texts",
             CLASSIFIER | {"a.conll": "Ada\nran\n"}),
        Case("pairs without labels, and a teacher for single texts", f"{DISTIL} --unlabeled_file a.jsonl",
             "a.jsonl:1: two texts, but the labelled data has single texts",
             CLASSIFIER | {"a.jsonl": '{"text": "a", "text_pair": "b"}\n'}),
        Case("a file in the place of the folder", f"{DISTIL} --teacher_cache a.txt",
             "--teacher_cache a.txt: a.txt is no folder that can be written to; give another",
             CLASSIFIER | {"a.txt": "x"}),
    ],
    "Questions": [
        Case("an answer at another place", f"{QUESTIONS} a.jsonl",
             "a.jsonl:1: 'Ada' does not stand at character 5 of the passage, but at 6; offsets count characters "
             "(Unicode code points) from 0", {"a.jsonl": ASKED.replace("[6]", "[5]")}),
        Case("answers without their places", f"{QUESTIONS} a.jsonl",
             'a.jsonl:1: answers are a list of {"text": ..., "answer_start": ...}',
             {"a.jsonl": '{"question": "Who?", "context": "It is Ada.", "answers": ["Ada"]}\n'}),
        Case("a question whose answers are not known", f"{QUESTIONS} a.jsonl",
             "a.jsonl: question '2' has no answers; an empty list says that its passage does not answer it",
             {"a.jsonl": ASKED + '{"question": "Who?", "context": "It is Ada.", "answers": null}\n'}),
        Case("one id for two questions", f"{QUESTIONS} a.json", "a.json: two questions have the id '1'",
             {"a.json": '{"data": [{"paragraphs": [{"context": "It is Ada.", "qas": [{"id": 1, "question": "Who?", '
              '"answers": []}, {"id": "1", "question": "Who is?", "answers": []}]}]}]}'}),
        Case("a column of another name", f"{QUESTIONS} a.jsonl",
             "a.jsonl: no column 'question'; it has: 'query', 'context', 'answers'. Name the right one with "
             "--question_column_name", {"a.jsonl": ASKED.replace("question", "query")}),
        Case("a form that cannot hold answers", f"{QUESTIONS} a.csv",
             "a.csv: questions come as SQuAD's .json, as .jsonl, as .parquet or as a saved folder",
             {"a.csv": "question,context\n"}),
        Case("JSON lines that are called .json", f"{QUESTIONS} a.json",
             "a.json: not SQuAD's JSON (JSONDecodeError: …), which has the keys data, paragraphs, context and qas; a "
             "file with an object a line ends with .jsonl", {"a.json": ASKED + ASKED}),
        Case("windows that share all that they show", f"{QUESTIONS} a.jsonl --max_seq_length 32 --doc_stride 30",
             "--doc_stride 30: must be from 0 to …: what a window shows of a passage beside the longest question, "
             "less one subword", {"a.jsonl": ASKED}),
        Case("answers of no length", f"{QUESTIONS} a.jsonl --max_answer_length 0",
             "--max_answer_length 0: must be at least 1", {"a.jsonl": ASKED}),
        Case("a threshold that is no number", f"{QUESTIONS} a.jsonl --null_score_diff_threshold nan",
             "--null_score_diff_threshold nan: must be a number", {"a.jsonl": ASKED}),
    ],
    "Pairs of texts": [
        Case(
            "Two files with different numbers of lines",
            "seq2seq --train_file a.en --train_target_file a.de",
            "a.de:1: this is the last line, and a.en has 2; line n of one file must belong to line n of the other",
            {"a.en": "one\ntwo\n", "a.de": "eins\n"},
        ),
        Case(
            "A line that is empty on one side",
            "seq2seq --train_file a.en --train_target_file a.de",
            "a.de:2: an empty line; a pair needs a text on both sides, so remove this line here and in a.en",
            {"a.en": "one\ntwo\n", "a.de": "eins\n \n"},
        ),
        Case(
            "A language that the translations do not have",
            "seq2seq --train_file a.jsonl --source_column_name en --target_column_name de",
            "a.jsonl:1: the translation has no 'de'; its languages are 'en', 'fr'; name them with "
            "--source_column_name and --target_column_name",
            {"a.jsonl": '{"translation": {"en": "one", "fr": "un"}}\n'},
        ),
        Case(
            "A file of lines without its other side",
            "seq2seq --train_file a.en",
            "--train_file a.en: unknown form '.en'; for a file of lines give its other side as --train_target_file; "
            "tables are .jsonl, .json, .csv, .tsv, .parquet",
            {"a.en": "one\n"},
        ),
        Case(
            "A flag of another model",
            "seq2seq --dataset_name samples --model_name_or_path transformer --input_feeding true",
            "--input_feeding: transformer has no use for this flag; leave it out",
        ),
    ],
    "Flags and --config": [
        Case("a config that is no YAML", "ner --config a.yaml", "--config a.yaml: not a YAML file: …",
             {"a.yaml": "seed: [1\n"}, status=2),
        Case("a config that runs code, for a reader that would", "ner --config a.yaml",
             "a.yaml:1: seed takes one plain value", {"a.yaml": "seed: !!python/object/apply:os.mkdir [RUN]\n"},
             status=2),
        Case("the same as a flag's name", "ner --config a.yaml", "a.yaml:1: the name of a flag must be a plain value",
             {"a.yaml": "? !!python/object/apply:os.mkdir [RUN]\n: 1\n"}, status=2),
        Case("a config nested 1,000 deep", "ner --config a.yaml",
             "--config a.yaml: not a YAML file: maximum recursion depth exceeded…", {"a.yaml": "[" * 1_000},
             status=2),
        Case("a flag twice in one config", "ner --config a.yaml", "a.yaml:3: seed is given a second time",
             {"a.yaml": "seed: 1\nhead: crf\nseed: 2\n"}, status=2),
        Case("rows of equal length, for states that are carried",
             "language_model --dataset_name samples --train_sampling_strategy group_by_length",
             "--train_sampling_strategy group_by_length: a recurrent language model carries its state from step to "
             "step, so the order is fixed; leave it out"),
        Case("a shape for a checkpoint",
             "language_model --dataset_name samples --model_name_or_path model --hidden_size 64",
             "--hidden_size: model has no use for this flag; leave it out", model="wordpiece"),
        Case("more context than a window has",
             "language_model --dataset_name samples --model_name_or_path transformer --eval_context 128",
             "--eval_context 128: must be at least 1 and below --max_seq_length 128"),
        Case("an encoder, to predict the next word",
             "language_model --dataset_name samples --model_name_or_path model",
             "--model_name_or_path model: holds BertForMaskedLM, which does not predict the next token; give a "
             "causal language model, as recipes/language_model.py writes it, or a new one: rnn, lstm, gru, "
             "transformer",
             model="wordpiece"),
        Case("an unknown flag", "ner --lerning_rate 1", "unknown flag --lerning_rate; did you mean --learning_rate?",
             status=2),
        Case("an unknown flag like no other", "ner --quux=1", "unknown flag --quux; --help lists the flags",
             status=2),
        Case("a flag by another name", "ner --epochs 3", "unknown flag --epochs; did you mean --num_train_epochs?",
             status=2),
        Case("a flag of TrainingArguments that Accelerate has", "ner --fp16",
             "unknown flag --fp16; that belongs to Accelerate: accelerate launch --mixed_precision fp16 ...",
             status=2),
        Case("an unknown flag in a config", "ner --config a.yaml",
             "a.yaml:2: unknown flag 'max_seq_len'; did you mean max_seq_length?",
             {"a.yaml": "seed: 1\nmax_seq_len: 3\n"}, status=2),
        Case("flags of recurrent baselines, given to a transformer",
             "ner --dataset_name samples --embeddings nowhere.vec --dropout 0.9",
             "--embeddings, --dropout: for recurrent baselines only, and sentence-transformers/all-MiniLM-L6-v2 is "
             "none; leave them out"),
        Case("a tokenizer for a baseline, which makes its own",
             "ner --dataset_name samples --model_name_or_path lstm --tokenizer_name nowhere",
             "--tokenizer_name: lstm has no use for this flag; leave it out"),
        Case("a tracker that is not installed", "ner --dataset_name samples --report_to aim",
             "--report_to aim: this tracker is not installed here; install its package, or leave it out"),
        Case("a tracker that nobody knows", "ner --dataset_name samples --report_to tensorbord",
             "--report_to tensorbord: no tracker of Accelerate; did you mean tensorboard?"),
        Case("a misspelt folder of a model", "ner --dataset_name samples --model_name_or_path runs/nerr",
             "--model_name_or_path runs/nerr: no such folder; did you mean runs/ner?",
             {"runs": lambda path: (path / "ner").mkdir(parents=True)}),
        Case("a baseline of another task", "seq2seq --train_file pairs.jsonl --eval_strategy no "
             "--model_name_or_path gru", "--model_name_or_path gru: this baseline is for words, texts and questions; "
             "name another model, such as those of docs/models.md",
             {"pairs.jsonl": '{"source": "a", "target": "b"}\n' * 20}),
        Case("a misspelt baseline", "ner --dataset_name samples --model_name_or_path bi-lstm",
             "--model_name_or_path bi-lstm: no such folder, and no baseline; did you mean bilstm?"),
        Case("a model of a comparison alone", "sentiment --dataset_name samples --model_name_or_path svm",
             "--model_name_or_path svm: only recipes/compare.py trains this one"),
        Case("a misspelt folder of a tokenizer", f"{MODEL} --tokenizer_name ./modell",
             "--tokenizer_name ./modell: no such folder; did you mean ./model?", model="wordpiece"),
        Case("a number that is none", "ner --seed one", "argument --seed: invalid int value: 'one'", status=2),
        Case("a score that plain tags do not have",
             "ner --train_file a.conll --eval_strategy no --model_name_or_path rnn --metric_for_best_model f1",
             "--metric_for_best_model f1: no score of plain tags; choose from accuracy, f1_macro, loss",
             {"a.conll": "Ada NOUN\nran VERB\n\n" * 20}),
        Case("a CRF and sentences in their context",
             "ner --train_file a.conll --eval_strategy no --model_name_or_path bilstm-crf --context document",
             "--context document: a CRF reads each sentence alone; leave the flag out, or take a model without a "
             "CRF", {"a.conll": "-DOCSTART- O\n\nAda B-PER\n\nOslo B-LOC\n"}),
        Case("a rate below the end of its schedule",
             "ner --dataset_name samples --learning_rate 1e-8 --lr_scheduler_type polynomial",
             "--learning_rate 1e-08: --lr_scheduler_type polynomial ends at 1e-07; give a larger one"),
        Case("a share of right words that falls by epochs, and a number of steps",
             "seq2seq --dataset_name samples --model_name_or_path lstm2lstm --teacher_forcing 0 --max_steps 9",
             "--teacher_forcing 0.0: the share falls with the epochs; give --num_train_epochs instead of "
             "--max_steps"),
        Case("an encoder without weights beside it",
             "language_model --dataset_name samples --model_name_or_path transformer --freeze_encoder true",
             "--freeze_encoder: the head of this model has no weights of its own; leave this flag out"),
        Case("a flag that another one leaves without effect", "pretrain --dataset_name samples --dupe_factor 3",
             "--dupe_factor 3: it needs --static_masks; leave it out"),
        Case("a collapse where it cannot be seen", "question_answering --dataset_name samples --on_collapse stop",
             "--on_collapse stop: for labels of words and of texts; leave it out"),
        Case("a configuration of no data set", "ner --train_file a.conll --dataset_config_name en",
             "--dataset_config_name en: it needs a data set of the Hub, --dataset_name", {"a.conll": "Ada B-PER\n"}),
        Case("spans of characters where there are none", "ner --train_file a.conll --nested inner",
             "--nested inner: only files with spans of characters have it; leave it out", {"a.conll": "Ada B-PER\n"}),
        Case("a compressed file", "sentiment --train_file a.csv", "a.csv:1: not UTF-8 (byte 0x8b); this is a file of "
             "gzip; unpack it first", {"a.csv": b"\x1f\x8b\x08\x00text,label\n"}),
        Case("a number out of its range", "ner --dataset_name samples --dataloader_num_workers -1",
             "--dataloader_num_workers -1: must not be negative"),
        Case("means of evaluated weights, without evaluations",
             "ner --dataset_name samples --average_checkpoints 3 --eval_strategy no",
             "--average_checkpoints 3 needs evaluations: give --eval_strategy epoch or steps"),
        Case("means of evaluated weights that no checkpoint has",
             "ner --dataset_name samples --average_checkpoints 3 --save_strategy no",
             "--average_checkpoints 3 needs a checkpoint at each evaluation: give --save_strategy the value of "
             "--eval_strategy (epoch), or no --average_checkpoints and --load_best_model_at_end false"),
        Case("means of evaluated weights, but the last ones are to be saved",
             "ner --dataset_name samples --average_checkpoints 3 --load_best_model_at_end false",
             "--average_checkpoints 3 needs --load_best_model_at_end true: it averages the best weights"),
        Case("a baseline of no size", "ner --dataset_name samples --model_name_or_path lstm --char_hidden_size 0",
             "--char_hidden_size 0: must be at least 1"),
        Case("layers computed twice of a model that has none",
             "ner --dataset_name samples --model_name_or_path lstm --gradient_checkpointing true",
             "--gradient_checkpointing: … has no layers to compute twice; leave this flag out"),
        Case("a baseline that no memory holds",
             "ner --dataset_name samples --model_name_or_path bilstm --hidden_size 1000000",
             "--hidden_size 1000000: this baseline would have …"),
        Case("a token budget below one row", f"{MODEL} --tokens_per_batch 8 --max_steps 2",
             "--tokens_per_batch 8: the longest input has 32 tokens; give at least that many, or a smaller "
             "--max_seq_length", model="wordpiece"),
        Case("output_dir is a file", "ner --dataset_name samples --output_dir taken",
             "--output_dir taken: this is a file; give a folder", {"taken": ""}),
        Case("output_dir lies below a file",
             f"{MODEL} --output_dir taken/run --max_steps 1",
             "--output_dir taken/run: lies below a file; give a folder", {"taken": ""}, "wordpiece"),
        Case("output_dir holds something else", "ner --dataset_name samples --output_dir other",
             "--output_dir other: this folder holds something that is no run; give another",
             {"other": lambda folder: (folder.mkdir(), (folder / "thesis.txt").touch())}),
    ],
    "A cross-validation": [
        Case("a fold that there is not", "ner --dataset_name samples --fold 6/5",
             "--fold 6/5: give the number of a fold and the number of folds, such as 2/5"),
        Case("more folds than the data can have", "ner --train_file a.conll --fold 1/3",
             "--folds 3: the data has only 2 groups of texts that are not nearly equal; give fewer folds",
             {"a.conll": "Ada B-PER\n\nOslo B-LOC\n"}),
        Case("a fold of samples that are made", "seq2seq --dataset_name samples --model_name_or_path lstm --fold 1/3",
             "--fold 1/3: the samples of text to text are made, not divided; give --train_file"),
        Case("one fold", "compare --task ner --dataset_name samples --models dictionary --folds 1",
             "--folds 1: must be at least 2"),
        Case("folds and one of them",
             "compare --task ner --dataset_name samples --models dictionary --folds 3 --fold 1/3",
             "--fold 1/3: --folds 3 gives each run its fold; leave one of them out"),
        Case("folds of a task that has none",
             "compare --task language_model --dataset_name samples --models unigram --folds 3",
             "--folds 3: not for this task; tags of words, labels of texts, questions and text to text have it"),
    ],
    "A search": [
        Case("a flag that does not exist", SEARCH, "search.yaml:2: unknown flag 'learning_rat'; did you mean "
             "learning_rate?", {"search.yaml": "search:\n  learning_rat: [1]\n"}, status=2),
        Case("a value where a range is wanted", SEARCH, "search.yaml:2: learning_rate: '1e-3' is no range; give low "
             "and high, such as {low: 1e-5, high: 1e-3, log: true}, or a list, such as [8, 16, 32]",
             {"search.yaml": "search:\n  learning_rate: 1e-3\n"}, status=2),
        Case("a range without an end", SEARCH, "search.yaml:2: learning_rate: a range needs low and high; give low "
             "and high, such as {low: 1e-5, high: 1e-3, log: true}, or a list, such as [8, 16, 32]",
             {"search.yaml": "search:\n  learning_rate: {low: 1e-3}\n"}, status=2),
        Case("a key that is none", SEARCH, "search.yaml:2: learning_rate: 'max' is no key of a range; give low and "
             "high, such as {low: 1e-5, high: 1e-3, log: true}, or a list, such as [8, 16, 32]",
             {"search.yaml": "search:\n  learning_rate: {low: 1e-3, max: 1e-2}\n"}, status=2),
        Case("an end that is no number", SEARCH, "search.yaml:2: learning_rate: low is 'small', which is no number",
             {"search.yaml": "search:\n  learning_rate: {low: small, high: 1}\n"}, status=2),
        Case("ends in the wrong order", SEARCH, "search.yaml:2: learning_rate: low 0.01 is not below high 0.001",
             {"search.yaml": "search:\n  learning_rate: {low: 1e-2, high: 1e-3}\n"}, status=2),
        Case("powers of ten from 0", SEARCH, "search.yaml:2: weight_decay: log needs a low above 0, and takes no "
             "step",
             {"search.yaml": "search:\n  weight_decay: {low: 0, high: 1, log: true}\n"}, status=2),
        Case("a range and a value for one flag", f"{SEARCH} --learning_rate 1", "--learning_rate: search has a range "
             "for it, too; leave one of them out", {"search.yaml": "search:\n  learning_rate: [1, 2]\n"}, status=2),
        Case("a value that its flag does not take", SEARCH, "--per_device_train_batch_size 0: must be at least 1",
             {"search.yaml": "search:\n  per_device_train_batch_size: [0, 8]\n"}),
        Case("a flag of the data", SEARCH, "search, train_file: a search cannot change this flag",
             {"search.yaml": "search:\n  train_file: [a, b]\n"}),
        Case("no evaluations", f"{SEARCH} --eval_strategy no", "--eval_strategy no: a search needs evaluations; give "
             "epoch or steps", {"search.yaml": "search:\n  learning_rate: [1, 2]\n"}),
        Case("no validation data", f"{SEARCH_FILE} --validation_split_percentage 0", "a search needs validation "
             "data; give --validation_file or a --validation_split_percentage above 0",
             {"t.conll": "a B-X\n\nb O\n"}),
        Case("no trial", f"{SEARCH_FILE} --trials 0", "--trials 0: must be at least 1", {"t.conll": "a B-X\n"}),
        Case("a model that is not trained by steps", f"{SEARCH_FILE} --model_name_or_path dictionary",
             "--model_name_or_path dictionary: it has no flags to search", {"t.conll": "a B-X\n"}),
        Case("--overwrite_output_dir", f"{SEARCH_FILE} --overwrite_output_dir true", "--overwrite_output_dir: a "
             "search goes on with the trials in its folder; to begin a new one, give another --output_dir",
             {"t.conll": "a B-X\n"}),
        Case("a folder with something else", f"{SEARCH_FILE} --output_dir there", "--output_dir there: this folder "
             "holds something that is no search; give another", {"t.conll": "a B-X\n\nb O\n" * 20, "there": full}),
    ],
    "LoRA": [
        Case("its flags without a rank", "ner --dataset_name samples --lora_alpha 16",
             "--lora_alpha: it belongs to LoRA; give --lora_r, too, such as --lora_r 8"),
        Case("a rank of nothing", "sentiment --dataset_name samples --lora_r 0",
             "--lora_r 0: the rank of a matrix is at least 1"),
        Case("an alpha of nothing", "sentiment --dataset_name samples --lora_r 8 --lora_alpha 0",
             "--lora_alpha 0: must be positive"),
        Case("a dropout of everything", "sentiment --dataset_name samples --lora_r 8 --lora_dropout 1",
             "--lora_dropout 1.0: must be at least 0 and below 1"),
        Case("no layer at all", "ner --dataset_name samples --lora_r 8 --lora_target_modules ,",
             "--lora_target_modules: names no layer; give query,value or all-linear, or leave it out"),
        Case("a layer that the model does not have", f"{MODEL} --lora_r 4 --lora_target_modules q_proj,query",
             "--lora_target_modules q_proj: no linear layer of model has this name; there are "
             "attention.output.dense, attention.self.key, attention.self.query, attention.self.value, "
             "intermediate.dense, output.dense; or give all-linear", model="wordpiece"),
        Case("an embedding", f"{MODEL} --lora_r 4 --lora_target_modules word_embeddings",
             "--lora_target_modules word_embeddings: no linear layer of model has this name; there are …",
             model="wordpiece"),
        Case("a frozen encoder", f"{MODEL} --lora_r 4 --freeze_encoder true",
             "--lora_r: it trains the encoder, and --freeze_encoder does not; leave out one of them",
             model="wordpiece"),
        Case("a recurrent baseline", "ner --dataset_name samples --model_name_or_path bilstm --lora_r 4",
             "--lora_r: bilstm has no use for this flag; leave it out"),
        Case("a recurrent encoder-decoder",
             "seq2seq --dataset_name samples --model_name_or_path lstm2lstm --lora_r 4",
             "--lora_r: lstm2lstm is recurrent, and LoRA is for transformers; leave this flag out"),
        Case("a new Transformer", "seq2seq --dataset_name samples --lora_r 4",
             "--lora_r: transformer starts at random, and LoRA adapts a model that is trained; leave it out"),
        Case("weights that encoder and decoder share",
             "seq2seq --dataset_name samples --model_name_or_path bert2bert --encoder_name_or_path model "
             "--tie_encoder_decoder true --max_seq_length 32 --max_target_length 32 --lora_r 4",
             "--lora_r: it cannot adapt weights that encoder and decoder share; leave this flag out",
             model="wordpiece"),
        Case("an adapter of a CRF", f"{MODEL} --lora_r 4 --head crf --save_adapter true",
             "--save_adapter: an adapter goes onto a checkpoint and its head, and peft cannot make a CRF of a "
             "checkpoint; leave this flag out", model="wordpiece"),
        Case("pretraining", f"{MORE} --lora_r 4",
             "--lora_r: in pretraining, a model is trained whole, without LoRA; leave this flag out",
             model="wordpiece"),
        Case("a language model", "language_model --dataset_name samples --lora_r 4",
             "--lora_r: a language model is trained whole, without LoRA; leave this flag out"),
    ],
    "The Hub cannot be reached": [
        Case("a data set", "ner --dataset_name nobody/nothing", "--dataset_name nobody/nothing: not loaded: …"),
        Case("a streamed corpus", "pretrain --dataset_name nobody/nothing --streaming true",
             "--dataset_name nobody/nothing: not loaded: …"),
        Case("a model", "ner --dataset_name samples --model_name_or_path nobody/nothing",
             f"--model_name_or_path nobody/nothing: {HUB}"),
        Case("a tokenizer", f"{MODEL} --tokenizer_name nobody/nothing",
             f"--tokenizer_name nobody/nothing: its tokenizer does not load: {HUB}", model="wordpiece"),
        Case("a config", "pretrain --dataset_name samples --config_name nobody/nothing --tokenizer_name model",
             f"--config_name nobody/nothing: {HUB}; or give bert, roberta, xlm-roberta", model="wordpiece"),
        Case("an upload, asked for before the training", "ner --dataset_name samples --push_to_hub true",
             "--push_to_hub: no access to the Hub: …"),
    ],
    "Checkpoints": [
        Case("of another architecture: BERT's weights, model_type: roberta", MODEL,
             "model: 37 weights of the encoder are not in the checkpoint or have another shape, such as "
             "roberta.embeddings.LayerNorm.bias; is it a roberta checkpoint?",
             {"model/config.json": settings(model_type="roberta")}, "wordpiece"),
        Case("of a kind with no such head (model_type: clip)", MODEL,
             "model: the weights do not load: Unrecognized configuration class …",
             {"model/config.json": settings(model_type="clip")}, "wordpiece"),
        Case("of another vocabulary size: 500 rows, vocab_size: 600", MODEL,
             "model: 1 weights of the encoder are not in the checkpoint or have another shape, such as "
             "bert.embeddings.word_embeddings.weight; is it a bert checkpoint?",
             {"model/config.json": settings(vocab_size=600)}, "wordpiece"),
        Case("with a tokenizer of more pieces", MODEL,
             "the tokenizer has 501 pieces but model has embeddings for 500; they do not belong together",
             {"model/tokenizer.json": lambda path: settings(model=json.loads(path.read_text())["model"] | {
                 "vocab": json.loads(path.read_text())["model"]["vocab"] | {"unheard-of": 500}})(path)}, "wordpiece"),
        Case("with pickled weights", MODEL,
             PICKLED,
             {"model/model.safetensors": remove, "model/pytorch_model.bin": pickled}, "wordpiece"),
        Case("the same, to go on pretraining", MORE,
             PICKLED,
             {"model/model.safetensors": remove, "model/pytorch_model.bin": pickled}, "wordpiece"),
        Case("with an index that names a pickle", MODEL,
             "model/model.safetensors.index.json: names 'part.bin', which is no .safetensors file of this folder",
             {"model/model.safetensors.index.json": pickled_parts}, "wordpiece"),
        Case("with a config that names its weights", MODEL,
             "--model_name_or_path model: its config.json names a file of weights (transformers_weights), which may "
             "be a pickle; weights come from model.safetensors",
             {"model/config.json": settings(transformers_weights="adapter_model.bin"),
              "model/adapter_model.bin": pickled}, "wordpiece"),
        Case("cut weights", MODEL, "model: the weights do not load: …",
             {"model/model.safetensors": cut(1000)}, "wordpiece"),
        Case("no weights", MODEL, "model: the weights do not load: …", {"model/model.safetensors": remove},
             "wordpiece"),
        Case("weights that are NaN", MODEL,
             "model: NaN or infinity in 1 weights, such as bert.embeddings.LayerNorm.weight",
             {"model/model.safetensors": weights(nan)}, "wordpiece"),
        Case("an auto_map to code of its own", MODEL,
             "--model_name_or_path model: it comes with code of its own, which is not run here (trust_remote_code is "
             "off)",
             {"model/config.json": settings(model_type="own", auto_map={"AutoConfig": "own.Config"}),
              "model/own.py": "open('RUN', 'w')\n"}, "wordpiece"),
        Case("the same as the config of a new model",
             "pretrain --dataset_name samples --config_name model --tokenizer_name model",
             "--config_name model: it comes with code of its own, which is not run here (trust_remote_code is off); "
             "or give bert, roberta, xlm-roberta",
             {"model/config.json": settings(model_type="own", auto_map={"AutoConfig": "own.Config"}),
              "model/own.py": "open('RUN', 'w')\n"}, "wordpiece"),
        Case("attn_implementation: a repository of the Hub", MODEL,
             "--model_name_or_path model: its config.json asks for code of the Hub (nobody/attention), which is not "
             "run here (trust_remote_code is off)",
             {"model/config.json": settings(attn_implementation="nobody/attention")}, "wordpiece"),
        Case("the same in a config inside it", MODEL,
             "--model_name_or_path model: its config.json asks for code of the Hub (nobody/attention), which is not "
             "run here (trust_remote_code is off)",
             {"model/config.json": inside_a_crf(attn_implementation="nobody/attention")}, "wordpiece"),
        Case("the same for one part of a model", MODEL,
             "--model_name_or_path model: its config.json asks for code of the Hub (nobody/attention), which is not "
             "run here (trust_remote_code is off)",
             {"model/config.json": settings(attn_implementation={"": "nobody/attention"})}, "wordpiece"),
        Case("num_hidden_layers: -1", MODEL,
             "--model_name_or_path model: num_hidden_layers in its config.json is -1; it must be a whole number from "
             "1 to 1,000",
             {"model/config.json": settings(num_hidden_layers=-1)}, "wordpiece"),
        Case("next sentences for a BERT that tells no segments apart", MORE,
             "--model_name_or_path model: --objective bert and sop need a model that tells two segments apart; "
             "type_vocab_size in its config.json is 1; use --objective roberta or xlm-r",
             {"model/config.json": settings(type_vocab_size=1)}, "wordpiece"),
        Case("fewer layers than it has stored", MODEL,
             "model: the checkpoint has more layers than its config.json counts (16 weights, such as "
             "bert.encoder.layer.1.attention.output.LayerNorm.bias); correct num_hidden_layers in it",
             {"model/config.json": settings(num_hidden_layers=1)}, "wordpiece"),
        Case("quantization_config", MODEL,
             "--model_name_or_path model: its weights are quantised (quantization_config in its config.json), which "
             "is not read here",
             {"model/config.json": settings(quantization_config={"quant_method": "mxfp4"})}, "wordpiece"),
        Case("architectures: a mapping", MODEL,
             "--model_name_or_path model: …",
             {"model/config.json": settings(architectures={"0": "BertModel"})}, "wordpiece"),
        Case("model_max_length: \"long\"", MODEL,
             "--model_name_or_path model: model_max_length in its tokenizer_config.json is 'long', no number",
             {"model/tokenizer_config.json": settings(model_max_length="long")}, "wordpiece"),
        Case("a piece with an id far beyond the others", MODEL,
             "the tokenizer gives '…' the id 100709 but model has embeddings for 500; they do not belong together",
             {"model/tokenizer.json": last_piece_at(100_709)}, "wordpiece"),
        Case("a model type that would steer the terminal", MODEL, "--model_name_or_path model: …",
             {"model/config.json": settings(model_type="\x1b]0;x\x07\x1b[2J")}, "wordpiece"),
        Case("hidden_size: \"wide\"", MODEL, "--model_name_or_path model: …",
             {"model/config.json": settings(hidden_size="wide")}, "wordpiece"),
        Case("num_attention_heads: 0", MODEL, "model: the weights do not load: ZeroDivisionError: …",
             {"model/config.json": settings(num_attention_heads=0)}, "wordpiece"),
        Case("a config that is `null`", MODEL, "--model_name_or_path model: TypeError: …",
             {"model/config.json": "null"}, "wordpiece"),
        Case("a config nested 100,000 deep", MODEL,
             "--model_name_or_path model: maximum recursion depth exceeded …", {"model/config.json": "[" * 100_000},
             "wordpiece"),
    ],
    "Tokenizers": [
        Case("all special tokens lost", MODEL, "--model_name_or_path model: its tokenizer does not load: …[UNK]…",
             {"model/tokenizer.json": without_special_tokens}, "wordpiece"),
        Case("RoBERTa's lost", MODEL,
             "the tokenizer's padding token has the id …, that of model has 1; they do not belong together, or the "
             "tokenizer has lost its special tokens", {"model/tokenizer.json": without_special_tokens}, "byte-bpe"),
        Case("none put around a text (no post_processor)", MODEL,
             "the tokenizer puts no special tokens around a text, as model needs them ([CLS] and [SEP], <s> and "
             "</s>); has its tokenizer.json lost them?",
             {"model/tokenizer.json": settings(post_processor=None),
              "model/tokenizer_config.json": '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}'},
             "wordpiece"),
        Case("no padding token", MODEL, "--model_name_or_path model: the tokenizer has no padding token",
             {"model/tokenizer_config.json": settings(pad_token=None)}, "wordpiece"),
        Case("no mask token, in pretraining", MORE,
             "the tokenizer (BertTokenizer) has no mask token, so nothing can be masked",
             {"model/tokenizer_config.json": settings(mask_token=None)}, "wordpiece"),
        Case("tokenizer.json is not there", MODEL,
             "--model_name_or_path model: the tokenizer has no piece but special tokens; is a file of it missing?",
             {"model/tokenizer.json": remove}, "wordpiece"),
        Case("tokenizer.json is cut", MODEL, "--model_name_or_path model: its tokenizer does not load: …",
             {"model/tokenizer.json": cut(3000)}, "wordpiece"),
        Case("a chat template that would be saved elsewhere", MODEL,
             "--model_name_or_path model: the tokenizer has a chat template '../../evil', which is no file name",
             {"model/tokenizer_config.json": settings(chat_template=[
                 {"name": "default", "template": "x"}, {"name": "../../evil", "template": "x"}])}, "wordpiece"),
    ],
    "During the training": [
        Case("the loss becomes NaN", f"{MODEL} --learning_rate 1e38 --warmup_steps 0 --max_steps 9 "
             "--max_train_samples 20 --max_eval_samples 5",
             "the … is not finite at step 2 (learning rate 8.89e+37); nothing was changed by this step and the "
             "checkpoints before it stay. A lower --learning_rate, more --warmup_steps or a smaller --max_grad_norm "
             "may help", model="wordpiece", leaves=(".lock", ".written", "history.jsonl", "run.yaml")),
    ],
    "The service": [
        Case("no model", "serve", "--model_name_or_path is missing: give the folder of a run, or a model of the Hub"),
        Case("a port that does not exist", f"{SERVE} --port 70000", "--port 70000: must be from 0 to 65,535"),
        Case("a limit of nothing", f"{SERVE} --max_texts 0", "--max_texts 0: must be at least 1"),
        Case("no text in a batch", f"{SERVE} --batch_texts 0", "--batch_texts 0: must be at least 1"),
        Case("texts that wait longer than their request may take", f"{SERVE} --batch_wait 2 --max_seconds 1",
             "--batch_wait 2.0, --max_seconds 1.0: the first must be at least 0, and less than the second"),
        Case("time without end", f"{SERVE} --max_seconds inf",
             "--batch_wait 0.005, --max_seconds inf: the first must be at least 0, and less than the second"),
        Case("a queue that is too short for a request", f"{SERVE} --max_queue 100 --max_texts 101",
             "--max_queue 100: must be at least --max_texts 101, or the largest request would always be refused"),
        Case("a host that does not exist", f"{SERVE} --host nowhere.invalid --port 0",
             "--host nowhere.invalid: no address of this name is known"),
        Case("an untrained model", f"{SERVE} --port 0",
             "--model_name_or_path model: holds BertForMaskedLM; fine-tune it for words or for texts first",
             model="wordpiece"),
    ],
    "Correcting labels": [
        Case("a patch that is not there", APPLY, "--apply patch.jsonl: no such file"),
        Case("a patch of which nothing is accepted", APPLY,
             'patch.jsonl: no line of it is accepted; set "accept": true in those that are right',
             {"patch.jsonl": patch_line("a.conll", accept=False)}),
        Case("a line of something else", APPLY,
             "patch.jsonl:1: not a line of a patch, which has accept, file, line, read (as the check wrote it) and "
             "changes, each change with label and new_label", {"patch.jsonl": '{"accept": true}\n'}),
        Case("rows from Python, or of the Hub", APPLY,
             "patch.jsonl:1: data (train): only a file can be corrected; save this data as one, and check that",
             {"patch.jsonl": patch_line("data (train)", read=None)}),
        Case("a file that has changed since", APPLY,
             "patch.jsonl:1: word 0 of a.conll:1 has not the tag 'B-PER'",
             {"patch.jsonl": patch_line("a.conll"), "a.conll": "Ada B-LOC\nran O\n"}),
        Case("a new label that is no tag", APPLY,
             "patch.jsonl:1: new_label is 'LOC'; it must be a tag, as the old one is",
             {"patch.jsonl": patch_line("a.conll", new_label="LOC"), "a.conll": "Ada B-PER\nran O\n"}),
        Case("an entity that would be removed, and that a relation names", APPLY,
             "patch.jsonl:1: brat/a.ann:1: T1 would be removed, but line 2 names it; remove that line first, or give "
             "the entity another type",
             {"brat": brat("Ada ran", "T1\tPER 0 3\tAda\nR1\tSees Arg1:T1 Arg2:T2\n"),
              "patch.jsonl": patch_line("brat/a.ann", new_label="O", read=BRAT_READ)}),
        Case("an entity under one that overlaps it", APPLY,
             "patch.jsonl:1: 'Ada' (LOC) of a.jsonl:1 overlaps an annotation that was left out, or begins or ends "
             "within a character; correct this text by hand",
             {"a.jsonl": '{"text": "Ada ran", "label": [[0, 3, "PER"], [0, 3, "LOC"]]}\n',
              "patch.jsonl": patch_line("a.jsonl", new_label="O", read=BRAT_READ | {"form": "doccano"})}),
    ],
    "Verifying a run": [
        Case("no folder", "verify", "--model_name_or_path is missing: give the folder of a finished run"),
        Case("a folder that does not exist", VERIFY,
             "--model_name_or_path model: no such folder; give the folder of a finished run"),
        Case("a model that no run has trained", VERIFY,
             "--model_name_or_path model: no all_results.json; give the folder of a finished run", model="wordpiece"),
        Case("an export", VERIFY, "--model_name_or_path model: an exported model; give the folder of its run",
             {"model/export.json": "{}"}, "wordpiece"),
        Case("no run.yaml", VERIFY, "model/run.yaml: no such file; give the folder of a finished run",
             {"model/all_results.json": "{}"}, "wordpiece"),
        Case("a run.yaml of another program", VERIFY,
             "model/run.yaml: not the flags of one of the recipes ner, sentiment, qa, distil, seq2seq, "
             "language-model, pretrain",
             {"model/all_results.json": "{}", "model/run.yaml": "seed: 1\n"}, "wordpiece"),
        Case("results that are no object", VERIFY, "model/all_results.json: must be an object of JSON",
             {"model/all_results.json": "[]"}, "wordpiece"),
        Case("results that are cut", VERIFY, "model/all_results.json: not JSON: …",
             {"model/all_results.json": '{"eval_f1": 0.'}, "wordpiece"),
        Case("a tolerance of more than all", f"{VERIFY} --max_difference 2",
             "--max_difference 2.0: must be at least 0 and below 1", model="wordpiece"),
    ],
}  # fmt: skip

# What is no error, or no sentence of ours: (what, what happens, the test of test_bad_input.py that shows it).
OTHERS: dict[str, list[tuple[str, str, str]]] = {
    "What simply works": [
        ("LF, CRLF and CR in one file", "each ends a line; no word is lost", "test_mixed_line_ends"),
        ("a line of 10 MB, in every form",
         "is read whole; a word of 1 MB is scored once, with each kind of tokenizer", "test_long_lines"),
        ("100,000 labels", "are 100,000 classes, or 200,001 tags; no row is lost", "test_many_labels"),
        ("empty texts, sentences without words", "are rows like others", "test_empty_rows"),
        ("a clock that runs backwards", "changes no weight; times stay positive, and the newest checkpoint is the "
         "one of the most steps", "test_a_clock_that_runs_backwards"),
    ],
    "What stands beside a model": [
        ("a config.json of a known kind that names code beside it", "the code is not run, nor is anybody asked "
         "whether it should be", "test_code_beside_a_known_model_is_not_run"),
        ("a tokenizer_config.json that names code beside it", "the same",
         "test_code_beside_a_known_model_is_not_run"),
        ("links in the folder of a run that is gone on with", "are replaced, and never written through",
         "test_a_folder_of_links_is_written_to_and_not_through"),
        ("a model of the Hub whose index of weights names a pickle", "`error: …/model.safetensors.index.json: names "
         "'part.bin', which is no .safetensors file of this folder`",
         "test_an_index_of_the_hub_that_names_a_pickle_is_refused"),
        ("a folder of a stranger, given to `finetune.attention`", "the same checks as in training",
         "test_a_folder_of_a_stranger_runs_no_code"),
        ("a run.yaml of a stranger: aliases, 100,000 brackets, a day that does not exist", "plain values are read, "
         "and the rest is refused with its file and line", "test_a_run_yaml_of_a_stranger"),
        ("escape sequences in words, labels or names", "are written `\\x1b` on a terminal",
         "test_what_comes_from_a_file_does_not_steer_the_terminal"),
        ("names of other places in both", "nothing is written but in output_dir",
         "test_code_beside_a_known_model_is_not_run"),
    ],
    "The machine": [
        ("output_dir is not writable", "`error: --output_dir FOLDER/out: FOLDER is not writable`, exit status 1",
         "test_a_folder_that_is_not_writable"),
        ("a process of a two-process run is killed", "the launcher ends the others, says which one died of what, and "
         "exits with status 1", "test_a_dead_process_ends_the_run"),
        ("out of memory", "`error: out of memory at step 1: --auto_find_batch_size true cuts the micro-batches …`",
         "test_a_process_without_memory_goes_on"),
        ("the same with `--auto_find_batch_size true`", "micro-batches of half as many rows, and the same step; over "
         "several processes all begin it again", "test_every_cut_takes_the_same_step"),
        ("out of memory in the optimizer, or in an evaluation", "`error: out of memory in the evaluation: a smaller "
         "--per_device_eval_batch_size needs less`", "test_memory_may_be_out_elsewhere"),
        ("a full disk", "the last checkpoint stays whole; the sentence says how much room is needed and how much "
         "there is", "test_a_full_disk_leaves_the_last_checkpoint"),
        ("float16 on a CPU", "`error: --mixed_precision fp16: on a CPU this would train in float32; give bf16 or no "
         "to accelerate launch`, exit status 1", "test_float16_on_a_cpu_is_refused"),
        ("a mistake that several processes see", "one of them tells it", "test_another_number_of_processes"),
        ("SIGTERM, Ctrl-C", "the step ends, a checkpoint is written, exit status 143 or 130",
         "test_a_signal_lets_the_step_end_and_saves"),
        ("a second Ctrl-C", "the run ends at once", "test_the_second_ctrl_c_leaves_at_once"),
        ("SIGTERM or Ctrl-C before the first step", "the run ends at once",
         "test_before_the_first_step_a_signal_acts_at_once"),
        ("a launcher that is killed with SIGKILL", "its processes end, too, so that the run can be "
         "resumed",
         "test_processes_end_with_their_launcher"),
        ("two commands with one output_dir", "`error: --output_dir FOLDER: another command is writing there (process "
         "…); wait for its end, or give another folder`, exit status 1",
         "test_one_command_at_a_time_and_the_lock_dies_with_its_process"),
        ("`--overwrite_output_dir`, and a folder that no run made", "`error: --overwrite_output_dir: FOLDER has no "
         "list of what a run wrote there (.written), …`; nothing is removed",
         "test_a_folder_that_no_run_made_keeps_everything"),
        ("`--overwrite_output_dir`, and a run's folder with a file that no run wrote",
         "`error: --overwrite_output_dir: no run wrote FILE, which would be lost; …`; nothing is removed",
         "test_what_no_run_wrote_is_named_and_everything_stays"),
        ("a command with `--overwrite_output_dir` that is killed", "can be given again",
         "test_overwriting_can_be_repeated_wherever_it_was_killed"),
        ("a damaged checkpoint, and `--resume_from_checkpoint true`", "it is named, and the run goes on from the one "
         "before", "test_the_one_before_a_damaged_one_is_taken"),
        ("checkpoints that were moved and linked", "are named and passed over", "test_linked_checkpoints_are_told"),
        ("`--resume_from_checkpoint`, and output_dir holds another run", "refused, with the flags that differ",
         "test_another_run_is_not_written_over"),
        ("a command with `--overwrite_output_dir` that is refused", "leaves the run that it would have overwritten",
         "test_a_refused_command_leaves_the_run_that_it_would_overwrite"),
        ("changed flags or data, and `--resume_from_checkpoint`", "refused by name", "test_other_data_under_the_same_"
         "name_is_refused"),
        ("FSDP, and a head that shares its weights with the word embedding", "`error: FSDP cannot shard …`, exit "
         "status 1", "test_a_tied_head_is_refused_in_one_sentence"),
        ("DeepSpeed", "`error: DeepSpeed takes the optimizer's step inside the backward pass …`, exit status 1",
         "test_deepspeed_is_refused_before_anything_is_read"),
    ],
}  # fmt: skip


def document() -> str:
    """docs/ERRORS.md."""
    lines = [
        "# Errors",
        "",
        "What comes back for bad input: one sentence on standard error that names file and line, column or flag, and",
        "exit status 1 (2 where the command line or its `--config` cannot be read). A refused input leaves no output",
        "behind. Each row is a test (`tests/recipes/test_bad_input.py`), held against what the command answers; `…`",
        "stands for words of a library. `model` is a tiny checkpoint that was changed as the row says.",
        "From Python, the recipe functions raise a `ValueError` with the same sentence.",
        "",
        "    python tests/recipes/bad_input.py     # writes this file anew from the list of cases",
    ]
    for group, cases in GROUPS.items():
        lines += ["", f"## {group}", "", "| given | command | answer |", "|---|---|---|"]
        for case in cases:
            rest = f", exit status {case.status}" if case.status != 1 else ""
            rest += f"; {' and '.join(case.leaves)} stay in output_dir" if case.leaves else ""
            lines.append(f"| {case.what} | `{_cell(case.command)}` | `error: {_cell(case.answer)}`{rest} |")
    for group, rows in OTHERS.items():
        lines += ["", f"## {group}", "", "| given | what happens | test |", "|---|---|---|"]
        lines += [f"| {what} | {happens} | `{test}` |" for what, happens, test in rows]
    lines += [
        "",
        "Where the Hub is known but does not answer, `huggingface_hub` tries six times before the sentence comes",
        "(about a minute); `HF_HUB_OFFLINE=1` skips that.",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    ERRORS.parent.mkdir(exist_ok=True)
    ERRORS.write_text(document(), encoding="utf-8")
