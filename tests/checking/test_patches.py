"""Corrected files. For each form a wrong label is put in; a patch puts it right; the file is the old one again."""

import importlib
import itertools
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.checking import json_edits, patches
from finetune.checking.samples import gather
from finetune.checking.suspicious import Suspicion, records
from finetune.data.readings import keeping_readings
from recipes.ner import NerConfig
from recipes.sentiment import SentimentConfig
from tests.span_samples import FILES


def splits_of(config):
    task = importlib.import_module(
        f"finetune.tasks.{'tagging' if isinstance(config, NerConfig) else 'classification'}"
    )
    with keeping_readings() as readings:
        return task.read(config), task.PIPELINE, readings


def patched(path, line, *changes, kind=NerConfig, folder="new", **flags):
    """The corrected file or folder, by a patch of one line; the file is read with these flags."""
    config = kind(train_file=str(path), model_name_or_path="bilstm", eval_strategy="no", **flags)
    file = next(iter(path.rglob("b.1.ann"))) if path.is_dir() else path
    how = splits_of(config)[2][str(file)]
    record = {"accept": True, "file": str(file), "line": line, "changes": list(changes), "read": how}
    patches.write_patch(path.parent / "patch.jsonl", [record])
    patches.apply_patch(path.parent / "patch.jsonl", path.parent / folder)
    return path.parent / folder / path.name


def word(at, token, label, new):
    return {"word": at, "token": token, "label": label, "new_label": new}


def put_right(kind, right, wrong, folder, **flags):
    """Makes a patch of all labels in which two files differ, accepts it, and returns the corrected file or folder."""
    config = kind(train_file=str(wrong), model_name_or_path="bilstm", eval_strategy="no", **flags)
    splits, pipeline, readings = splits_of(config)
    samples = gather(splits, pipeline, 0.7)
    wanted = splits_of(kind(**{**vars(config), "train_file": str(right)}))[0]["train"]
    wanted = wanted["ner_tags" if kind is NerConfig else "label"][:]
    assert len(wanted) == len(samples)
    found = []
    for i, (said, label) in enumerate(zip(samples.labels, wanted, strict=True)):
        if kind is NerConfig:
            pairs = enumerate(zip(said, label, strict=True))
            found += [Suspicion(i, word, old, new, 0.1) for word, (old, new) in pairs if old != new]
        elif said != label:
            found.append(Suspicion(i, None, said, label, 0.1))
    lines = records(samples, found, readings)
    assert lines
    patches.write_patch(folder / "patch.jsonl", [line | {"accept": True} for line in lines])
    (target,) = patches.apply_patch(folder / "patch.jsonl", folder / "new")
    return folder / "new" / wrong.name if target == str(folder / "new" / wrong.name) else None


TABLE = 'text;label\n"Schön; sagte er ""ja""";gut\nmäßig;"schlecht"\nnichts;schlecht\n\nso;gut'
OBJECTS = '{"text":"\\u00e9", "label":1,"m":1.0}\n\n{"text": "b","label": 0}\n{"text":"c","label":1}'
LISTED = '[ {"text": "a", "label" : "x"},\n\n{"label": "y", "text": "b"}, {"label": "y", "text": "c"} ]'
OF_TEXTS = {
    "a cell in quotes": ("a.csv", TABLE, '"schlecht"', '"gut"', "delimiter=; encoding=cp1252"),
    "another ending": ("a.txt", TABLE, "so;gut", "so;schlecht", "delimiter=;"),
    "no header line": ("a.tsv", '"a\tx \r\nb\ty\r\nc\tx\r\n', "\ty\r", "\tx\r", "column_names=text,label"),
    "JSON lines": ("a.jsonl", OBJECTS, '"label":1,', '"label":0,', ""),
    "a list": ("a.json", LISTED, '"y", "text": "c"', '"x", "text": "c"', ""),
    "lists of numbers": (
        "a.jsonl",
        '{"text": "a", "label": [3, 5]}\n{"text": "b", "label": []}\n{"text": "c", "label": [3]}\n',
        "[3, 5]",
        "[3]",
        "",
    ),
    "labels in a cell": (
        "a.csv",
        'text,label\na,"joy, love"\nb,\nc,love\nd,joy\n',
        "\nb,",
        "\nb,joy",
        "label_separator=,",
    ),
    "spaces between labels": (
        "a.csv",
        "text,label\na,joy | love\nb,\nc,love\nd,joy | love\n",
        "d,joy | love",
        "d,joy",
        "label_separator=|",
    ),
    "a column for each label": (
        "a.csv",
        "text,joy,love\na,TRUE,FALSE\nb,TRUE,TRUE\nc,FALSE,FALSE\n",
        "b,TRUE,TRUE",
        "b,TRUE,FALSE",
        "label_column_name=joy,love",
    ),
    "numbers": ("a.csv", 'text,label\na,0.5\nb,"2.75"\nc,1.5\n', '"2.75"', '"9.0"', ""),
}

LISTS = '[\n {"t": ["Ada", "ran"], "n": [1, 0], "x": 1.50},\n {"t": ["\\u00c9va", "in", "Oslo"], "n": [1, 0, 3]}\n]\n'
ROWS = '{"tokens":["Ada","ran"],"ner_tags":["S-PER","O"]}\n{"tokens":["New","York"],"ner_tags":["B-LOC","E-LOC"]}\n'
COLUMNS = "# id = 1\r\nAda  NNP  S-PER \r\nsaw  VB  O\r\nNew  NNP  B-LOC\r\nYork  NNP  E-LOC\r\n\r\nOslo  NNP  S-LOC"
TREEBANK = """# newdoc
# text = vámonos Ada
1-2	vámonos	_	_	_	_	_	_	_	_
1	vamos	ir	VERB	_	_	0	_	_	_
2	nos	yo	PRON	_	_	1	_	_	SpaceAfter=No
3	Ada	Ada	PROPN	_	_	1	_	_	NER=B-PER|Gloss=x

1	Oslo	Oslo	PROPN	_	_	0	_	_	NER=B-LOC
"""
CELLS = 'doc;s;w;t\n1;1;Ada;B-PER\n;;ran;O\n;2;"Oslo";"B-LOC"\n2;1;Rome;B-LOC'
OF_WORDS = {
    "a scheme": ("a.conll", COLUMNS, "B-LOC\r\nYork  NNP  E-LOC", "S-PER\r\nYork  NNP  O", ""),
    "an ill-formed tag stays": ("a.conll", "Ada E-PER\nsaw O\nOslo S-LOC\n", "S-LOC", "S-PER", ""),
    "UTF-16": ("a.conll", "\ufeff" + COLUMNS, "saw  VB  O", "saw  VB  S-PER", "encoding=utf-16-be"),
    "named columns": (
        "a.txt",
        "ner;w\nB-PER;Zoë\nO;ran\n\nB-LOC;Oslo\n",
        "O;ran",
        "I-PER;ran",
        "delimiter=; encoding=latin-1 text_column_name=w label_column_name=ner",
    ),
    "types": ("a.conll", "Ada PER\nByron PER\nran O\n\nOslo LOC\n", "Byron PER", "Byron LOC", "tagging=entities"),
    "plain tags": ("a.conll", "Ada PN\nran VB\n\nOslo PN\n", "ran VB", "ran PN", ""),
    "a key of MISC": ("a.conllu", TREEBANK, "NER=B-PER", "NER=B-LOC", "label_column_name=NER"),
    "a key too much": (
        "a.conllu",
        TREEBANK,
        "VERB\t_\t_\t0\t_\t_\t_\n",
        "VERB\t_\t_\t0\t_\t_\tNER=B-LOC\n",
        "label_column_name=NER",
    ),
    "a column of a treebank": ("a.conllu", TREEBANK, "PRON", "VERB", "label_column_name=upos"),
    "a word in a row": (
        "a.csv",
        CELLS,
        '"B-LOC"',
        '"O"',
        "delimiter=; sentence_column=doc,s text_column_name=w label_column_name=t",
    ),
    "lists with numbers": (
        "a.json",
        LISTS,
        "0, 3]",
        "0, 1]",
        "label_names=O,B-PER,I-PER,B-LOC text_column_name=t label_column_name=n",
    ),
    "lists": ("a.jsonl", ROWS, '"B-LOC","E-LOC"', '"S-LOC","O"', ""),
}
KINDS = [(SentimentConfig, case) for case in OF_TEXTS] + [(NerConfig, case) for case in OF_WORDS]


@pytest.mark.parametrize(("kind", "case"), KINDS, ids=[case for _, case in KINDS])
def test_a_file_is_right_again(tmp_path, kind, case):
    name, right, old, new, words = (OF_TEXTS | OF_WORDS)[case]
    flags = dict(word.split("=", 1) for word in words.split())
    assert right.count(old) == 1
    contents = {"right": right, "wrong": right.replace(old, new)}
    contents = {folder: text.encode(flags.get("encoding", "utf-8")) for folder, text in contents.items()}
    for folder, content in contents.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    if case == "UTF-16":
        flags["encoding"] = "utf-16"
    corrected = put_right(kind, *(tmp_path / folder / name for folder in contents), tmp_path, **flags)
    assert corrected.read_bytes() == contents["right"]
    assert (tmp_path / "wrong" / name).read_bytes() == contents["wrong"]


@pytest.mark.parametrize(
    ("kind", "labels", "wrong", "kind_of_column"),
    [
        (SentimentConfig, [0, 1, 1, 0], [0, 1, 0, 0], datasets.ClassLabel(names=["neg", "pos"])),
        (SentimentConfig, [7, 3, 3, 7], [7, 3, 7, 7], datasets.Value("int16")),
        (SentimentConfig, ["a", "b", "b", "a"], ["a", "a", "b", "a"], datasets.Value("large_string")),
        (SentimentConfig, [[0], [], [0, 1], [1]], [[0], [1], [0, 1], [1]],
         datasets.Sequence(datasets.ClassLabel(names=["x", "y"]))),
        (SentimentConfig, [0.5, 1.25, 3.0, 2.0], [0.5, 9.0, 3.0, 2.0], datasets.Value("float32")),
        (NerConfig, [[1, 2], [0, 1], [0, 3], [0, 0]], [[1, 2], [0, 1], [1, 3], [0, 0]],
         datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER", "I-PER", "B-LOC"]))),
        (NerConfig, [["B-A", "I-A"], ["O", "B-B"]], [["B-A", "B-B"], ["O", "B-B"]],
         datasets.Sequence(datasets.Value("string"))),
    ],
)  # fmt: skip
def test_a_parquet_file_is_right_again(tmp_path, kind, labels, wrong, kind_of_column):
    text, label = ("text", "label") if kind is SentimentConfig else ("tokens", "ner_tags")
    texts = [f"text {i}" if kind is SentimentConfig else [f"w{i}", "x"] for i in range(len(labels))]
    for name, values in (("right", labels), ("wrong", wrong)):
        columns = {"id": list(range(len(labels))), text: texts, label: values}
        table = datasets.Dataset.from_dict(columns)
        (tmp_path / name).mkdir()
        table.cast_column(label, kind_of_column).to_parquet(tmp_path / name / "a.parquet")
    corrected = pq.read_table(put_right(kind, *(tmp_path / f / "a.parquet" for f in ("right", "wrong")), tmp_path))
    expected = pq.read_table(tmp_path / "right/a.parquet")
    assert expected.schema.metadata is not None
    assert corrected.schema.equals(expected.schema, check_metadata=True)
    assert corrected.equals(expected)


def test_a_dictionary_column_stays_one(tmp_path):
    for name, labels in (("right", ["a", "b", "a"]), ("wrong", ["a", "a", "a"])):
        (tmp_path / name).mkdir()
        column = pa.array([*labels, "b"]).dictionary_encode()
        pq.write_table(pa.table({"text": list("wxyz"), "label": column}), tmp_path / name / "a.parquet")
    corrected = put_right(SentimentConfig, *(tmp_path / f / "a.parquet" for f in ("right", "wrong")), tmp_path)
    expected = pq.read_table(tmp_path / "right/a.parquet")
    assert pq.read_table(corrected).schema == expected.schema
    assert pq.read_table(corrected).to_pylist() == expected.to_pylist()


WORDS = ["Ada", "😀", "é", "e\u0301va", "🏳️‍🌈", "Zoë", "x", "東京", "a-b", "."]
UNITS = {"code_points": len, "utf16": lambda text: len(text.encode("utf-16-le")) // 2}


def in_form(form, text, spans, unit):
    """A file of a form as its tool might write it; written here and not with what the package has.

    Args:
        spans: begin, end, type, and a number that belongs to the annotation.
    """
    at = [UNITS[unit](text[:begin]) for begin in range(len(text) + 1)]
    marks = [(at[begin], at[end], kind, text[begin:end], number) for begin, end, kind, number in spans]
    if form == "brat":
        return "".join(f"T{number}\t{k} {b} {e}\t{said}\r\n" for b, e, k, said, number in marks) + "#1\tNote T99\tx"
    if form == "triples":
        return json.dumps(
            {"id": 1, "text": text, "label": [[b, e, k] for b, e, k, *_ in marks]}, separators=(",", ":")
        )
    if form == "doccano":
        own = [{"id": number, "label": k, "start_offset": b, "end_offset": e} for b, e, k, _, number in marks]
        return json.dumps([{"entities": own, "text": text, "relations": []}], indent=1)
    if form == "spacy":
        return (
            json.dumps({"text": text, "spans": [{"start": b, "end": e, "label": k} for b, e, k, *_ in marks]}) + "\n"
        )
    results = [
        {"id": f"r{number}", "from_name": "l", "to_name": "t", "type": "labels",
         "value": {"start": b, "end": e, "text": said, "labels": [k]}} for b, e, k, said, number in marks
    ]  # fmt: skip
    done = [{"id": 3, "result": [], "was_cancelled": True}, {"id": 4, "result": results}]
    return json.dumps([{"id": 1, "data": {"t": text}, "annotations": done}], indent=2, ensure_ascii=False)


@st.composite
def annotated(draw):
    """A text, spans of whole words, the same spans with one that is wrong, and what is wrong."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=4, max_size=9))
    begins = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
    cuts = sorted(draw(st.sets(st.integers(0, len(words)), min_size=2, max_size=5)))
    runs = [pair for pair in itertools.pairwise(cuts) if draw(st.booleans())]
    assume(runs)
    right = [(*pair, draw(st.sampled_from(["PER", "LOC"])), number) for number, pair in enumerate(runs, start=3)]
    wrong = list(right)
    which = draw(st.integers(0, len(runs) - 1))
    what = draw(st.sampled_from(["kind", "borders", "missing", "extra"]))
    begin, end, kind, number = right[which]
    if what == "kind":
        wrong[which] = (begin, end, "ORG", number)
    elif what == "borders":
        assume(end - begin > 1)
        wrong[which] = (begin + 1, end, kind, number) if draw(st.booleans()) else (begin, end - 1, kind, number)
    else:
        del (wrong if what == "missing" else right)[which]

    def in_characters(spans):
        return [(begins[begin], begins[end - 1] + len(words[end - 1]), *more) for begin, end, *more in spans]

    return " ".join(words), in_characters(right), in_characters(wrong), what


def marks_of(path, form, unit):
    return [[(mark.parts, mark.kind) for mark in one.marks] for one in data.read_marked(path, form, unit)]


SMILE = ("😀 Ada 😀 Zoë x", [(2, 5, "PER", 3), (6, 11, "LOC", 4)])


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("form", ["triples", "doccano", "spacy", "label_studio"])
@settings(max_examples=8, deadline=None)
@given(case=annotated())
@example(case=(*SMILE, [(2, 5, "ORG", 3), (6, 11, "LOC", 4)], "kind"))
@example(case=(*SMILE, [(2, 5, "PER", 3), (8, 11, "LOC", 4)], "borders"))
@example(case=(*SMILE, [(6, 11, "LOC", 4)], "missing"))
@example(case=(*SMILE, [*SMILE[1], (12, 13, "LOC", 5)], "extra"))
def test_spans_are_right_again(tmp_path_factory, case, form, unit):
    text, right, wrong, what = case
    folder = tmp_path_factory.mktemp("spans")
    file_format = "doccano" if form == "triples" else form
    other = in_form(form, "Bob saw Ada in Oslo now .", [(0, 3, "PER", 1), (15, 19, "LOC", 2)], unit)
    for name, spans in (("right", right), ("wrong", wrong)):
        (folder / name).mkdir()
        own = in_form(form, text, spans, unit)
        rows = own.rstrip("\n") + "\n" + other if other[0] == "{" else own[:-1].rstrip() + ",\n" + other[1:].lstrip()
        (folder / name / "a.json").write_text(rows, encoding="utf-8")
    files = [folder / name / "a.json" for name in ("right", "wrong")]
    corrected = put_right(NerConfig, *files, folder, file_format=file_format, span_offsets=unit)
    if what == "missing" and form in ("doccano", "label_studio"):  # the new annotation has a new id
        assert marks_of(corrected, file_format, unit) == marks_of(files[0], file_format, unit)
    else:
        assert corrected.read_bytes() == files[0].read_bytes()


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=15, deadline=None)
@given(case=annotated())
@example(case=(*SMILE, [(2, 5, "PER", 3), (8, 11, "LOC", 4)], "borders"))
@example(case=(*SMILE, [(6, 11, "LOC", 4)], "missing"))
def test_a_folder_of_brat_is_right_again(tmp_path_factory, case, unit):
    text, right, wrong, what = case
    folder = tmp_path_factory.mktemp("brat")
    files = [folder / name / "brat" for name in ("right", "wrong")]
    for path, spans in zip(files, (right, wrong), strict=True):
        (path / "sub").mkdir(parents=True)
        (path / "sub/a.b.ann").write_text(in_form("brat", text, spans, unit), encoding="utf-8", newline="")
        (path / "sub/a.b.txt").write_text(text, encoding="utf-8", newline="")
        (path / "b.ann").write_text("T1\tPER 0 3\tBob\nT2\tLOC 8 12\tOslo")
        (path / "b.txt").write_text("Bob saw Oslo .")
        (path / "annotation.conf").write_text("[entities]\n")
    corrected = put_right(NerConfig, *files, folder, span_offsets=unit)
    for path in (path for path in files[0].rglob("*") if path.is_file()):
        name = path.relative_to(files[0])
        if what != "missing" or path.suffix != ".ann":  # the new annotation has a new id
            assert (corrected / name).read_bytes() == path.read_bytes()
    assert marks_of(corrected, "brat", unit) == marks_of(files[0], "brat", unit)


TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.data(), TREES, TREES, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_json_changes_as_little_as_possible(choices, tree, leaf, indent, escaped):
    """One value is replaced at a random place. Written by `json` in the same form, all the rest is equal."""

    def replaced(value):
        keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        if not keys or choices.draw(st.booleans()):
            return MARK
        key = choices.draw(st.sampled_from(keys))
        copy = value.copy()
        copy[key] = replaced(value[key])
        return copy

    def written(value):
        return json.dumps(value, indent=indent, ensure_ascii=escaped)

    MARK = "@@@"
    template = replaced(tree)
    new = json.loads(json.dumps(template).replace(json.dumps(MARK), json.dumps(leaf)))
    found = json_edits.with_value(written(tree), new)
    assert json.loads(found) == new
    if not isinstance(leaf, (list, dict, str)) and isinstance(template, (list, dict)):
        before, after = written(template).split(json.dumps(MARK))
        assert found == before + json.dumps(leaf) + after


@pytest.mark.parametrize("name", FILES)
def test_an_entity_that_something_names_is_not_removed(tmp_path, name):
    form, make = FILES[name]
    path = make(tmp_path / name)
    gone = [word(1, "Jose\u0301", "B-PER", "O")]
    line = {"brat": 1, "studio.json": -2}.get(name, 2)
    if form == "spacy" or name in ("doccano.jsonl", "objects.jsonl"):  # their records name no spans
        corrected = patched(path, line, *gone, file_format=form)
        assert len(marks_of(corrected, form, "auto")[1]) == 2
        return
    with pytest.raises(ValueError, match="would be removed, but"):
        patched(path, line, *gone, file_format=form)
    assert not (tmp_path / "new").exists()
    # With another type and other borders it keeps its id.
    corrected = patched(
        path, line, word(1, "Jose\u0301", "B-PER", "B-ORG"), word(2, "met", "O", "I-ORG"), file_format=form
    )
    assert marks_of(corrected, form, "auto")[1][0] == (((2, 11),), "ORG")
    if form == "brat":
        before, after = ((folder / "b.1.ann").read_text().splitlines() for folder in (path, corrected))
        assert [line for line in after if line not in before] == ["T1\tORG 2 11\tJose\u0301 met"]
        assert after[1:] == before[1:]
    else:
        assert "relation" in corrected.read_text()


def test_entities_that_are_joined_parted_and_added(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    text = "Ada Byron King saw Oslo"
    (path / "b.1.txt").write_text(text)
    lines = ["T2\tPER 0 3\tAda", "T7\tPER 4 9\tByron", "#1\tNote T7\tsure", "T3\tLOC 19 23\tOslo\tmore"]
    (path / "b.1.ann").write_text("\n".join(lines))
    fewer = patched(path, 1, word(0, "Ada", "B-PER", "O"), folder="n1")
    assert (fewer / "b.1.ann").read_text() == "\n".join(lines[1:])
    fewer = patched(path, 1, word(1, "Byron", "B-PER", "O"), folder="n2")  # its note goes with it
    assert (fewer / "b.1.ann").read_text() == "\n".join([lines[0], lines[3]])
    both = patched(path, 1, word(1, "Byron", "B-PER", "I-PER"), folder="n3")
    assert (both / "b.1.ann").read_text().splitlines() == ["T7\tPER 0 9\tAda Byron", *lines[2:]]
    new = patched(path, 1, word(2, "King", "O", "B-PER"), word(3, "saw", "O", "B-X"), folder="n4")
    assert (new / "b.1.ann").read_text().splitlines() == [
        *lines[:3], "T8\tPER 10 14\tKing", "T9\tX 15 18\tsaw", lines[3]
    ]  # fmt: skip


def test_label_studio_counts_the_results_again(tmp_path):
    path = tmp_path / "a.json"
    mark = {"type": "labels", "from_name": "label", "to_name": "text"}
    mark["value"] = {"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}
    task = {"id": 1, "data": {"text": "Ada saw Oslo"}, "annotations": [{"result": [mark], "result_count": 1}]}
    path.write_text(json.dumps([task]))
    more = patched(path, -1, word(2, "Oslo", "O", "B-LOC"), file_format="label_studio", folder="more")
    none = patched(path, -1, word(0, "Ada", "B-PER", "O"), file_format="label_studio", folder="none")
    counts = [json.loads(file.read_text())[0]["annotations"][0] for file in (more, none)]
    assert [(own["result_count"], len(own["result"])) for own in counts] == [(2, 2), (0, 0)]


def test_what_was_left_out_does_not_come_back_unseen(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Bank of Oslo in Rome", "label": [[0, 12, "ORG"], [8, 12, "LOC"], [16, 20, "LOC"]]}')
    with pytest.raises(ValueError, match=r"'Oslo' \(LOC\) of .*a.jsonl:1 overlaps an annotation that was left out"):
        patched(path, 1, *(word(i, token, tag, "O") for i, (token, tag) in enumerate(
            zip(["Bank", "of", "Oslo"], ["B-ORG", "I-ORG", "I-ORG"], strict=True))))  # fmt: skip
    corrected = patched(path, 1, word(4, "Rome", "B-LOC", "B-PER"))
    assert corrected.read_text() == path.read_text().replace('20, "LOC"', '20, "PER"')


def test_sentences_of_a_text_have_numbers(tmp_path):
    for name, label in (("right", "LOC"), ("wrong", "PER")):
        (tmp_path / name).mkdir()
        row = {"text": "Ada ran. Ada saw Oslo. Ada ran.", "spans": [{"start": 17, "end": 21, "label": label}]}
        (tmp_path / name / "a.jsonl").write_text(f"{json.dumps(row)}\n" * 2 + json.dumps(row | {"x": "LOC"}))
    files = [tmp_path / name / "a.jsonl" for name in ("right", "wrong")]
    corrected = put_right(NerConfig, *files, tmp_path, split_sentences=True)
    assert corrected.read_bytes() == files[0].read_bytes()
    lines = list(map(json.loads, (tmp_path / "patch.jsonl").read_text().splitlines()))
    assert [(line["line"], line["sentence"]) for line in lines] == [(1, 2), (2, 2), (3, 2)]


def test_a_patch_that_does_not_fit_writes_nothing(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Ada\tB-PER\nran\tO\n")
    for line, change, message in (
        (2, word(0, "ran", "O", "B-LOC"), "does not begin a sentence"),
        (1, word(1, "Ada", "O", "B-LOC"), r"patch.jsonl:1: word 1 of .* is not 'Ada'"),
        (1, word(0, "Ada", "B-LOC", "O"), "has not the tag 'B-LOC'"),
        (1, word(7, "Ada", "B-LOC", "O"), "word 7 of"),
        (1, word(0, "Ada", "B-PER", "PER"), "must be a tag"),
        (1, word(0, "Ada", "B-PER", "B-A\nB"), "must be a tag"),
        (1, word(0, "Ada", "B-PER", "B-A\tB"), "must be a tag"),
        (1, word(0, "Ada", "B-PER", "B-A "), "must be a tag"),
    ):
        with pytest.raises(ValueError, match=message):
            patched(path, line, change)
    path.write_text("Ada B-PER\nran O\n")
    with pytest.raises(ValueError, match="contains what separates the columns"):
        patched(path, 1, word(0, "Ada", "B-PER", "B-VERY GOOD"))
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\nb,y\n")
    for line, label, new, message in (
        (2, "z", "y", "has the label 'x', not 'z'"),
        (9, "x", "y", "no row begins at"),
        (2, "x", ["y"], "new_label is .*; it must be a label"),
        (2, "x", 5, "new_label is 5; it must be a label"),
    ):
        with pytest.raises(ValueError, match=message):
            patched(path, line, {"label": label, "new_label": new}, kind=SentimentConfig)
    path = tmp_path / "a.parquet"
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])})
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features).to_parquet(path)
    with pytest.raises(ValueError, match="no name 'z'; it has: x, y"):
        patched(path, -1, {"label": "x", "new_label": "z"}, kind=SentimentConfig)
    path = tmp_path / "b.csv"
    path.write_bytes("text,label\né,x\nb,y\n".encode("latin-1"))
    with pytest.raises(ValueError, match="'€' of a new label cannot be written in iso8859-1"):
        patched(path, 2, {"label": "x", "new_label": "€"}, kind=SentimentConfig, encoding="latin-1")
    (tmp_path / "patch.jsonl").write_text('{"accept": "yes"}\n')
    with pytest.raises(ValueError, match=r"patch.jsonl:1: not a line of a patch"):
        patches.apply_patch(tmp_path / "patch.jsonl", tmp_path / "new")
    record = {"accept": True, "file": "data (train)", "line": -1, "read": None}
    patches.write_patch(tmp_path / "patch.jsonl", [record | {"changes": [{"label": "x", "new_label": "y"}]}])
    with pytest.raises(ValueError, match=r"data \(train\): only a file can be corrected"):
        patches.apply_patch(tmp_path / "patch.jsonl", tmp_path / "new")
    assert not (tmp_path / "new").exists()


DAMAGED = (5, None, [], {}, "no such thing", True, -1, "\0")


@pytest.mark.parametrize(
    ("name", "content", "kind", "flags"),
    [
        ("a.conll", "Ada B-PER\nran O\n", NerConfig, {}),
        ("a.csv", "text,label\na,x\nb,y\n", SentimentConfig, {}),
        ("a.jsonl", '{"text": "Ada ran", "label": [[0, 3, "PER"]]}\n', NerConfig, {"file_format": "doccano"}),
    ],
)
def test_a_reading_that_a_person_has_damaged_is_applied_or_refused(name, content, kind, flags, tmp_path):
    (tmp_path / name).write_text(content)
    config = kind(train_file=str(tmp_path / name), model_name_or_path="bilstm", eval_strategy="no", **flags)
    how = splits_of(config)[2][str(tmp_path / name)]
    change = {"label": "x", "new_label": "y"} if name == "a.csv" else word(0, "Ada", "B-PER", "O")
    record = {"accept": True, "file": str(tmp_path / name), "line": 2 if name == "a.csv" else 1, "changes": [change]}
    refused = 0
    for i, (key, value) in enumerate([("", ""), *itertools.product(how, DAMAGED)]):
        patches.write_patch(tmp_path / "patch.jsonl", [record | {"read": how | ({key: value} if key else {})}])
        try:
            patches.apply_patch(tmp_path / "patch.jsonl", tmp_path / f"new{i}")
        except ValueError:
            refused += 1
            if not key:
                raise
    assert refused > 3 * len(how)
