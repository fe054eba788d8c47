"""Whatever the bytes, a reader reads them or says in one sentence what is wrong with which file."""

import json
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import FORMS, PIECES, corpus, damaged, fuzz, labelled, refused, spans, tagged
from hypothesis import example, given
from hypothesis import strategies as st

from finetune.data import read_conll, write_conll


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def read(path, reader, content):
    path.write_bytes(content)
    try:
        return reader(path)
    except ValueError as error:
        refused(path, error)
        return None


@pytest.mark.parametrize("form", FORMS)
@fuzz(25)
@given(choices=st.data())
def test_a_damaged_file(form, folder, choices):
    name, reader, whole = FORMS[form]
    assert reader(_written(folder / f"whole-{name}", whole)) is not None
    read(folder / name, reader, choices.draw(damaged(whole)))


@pytest.mark.parametrize("form", FORMS)
@fuzz(25)
@given(content=st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join))
def test_any_bytes(form, folder, content):
    name, reader, _ = FORMS[form]
    read(folder / name, reader, content)


def _written(path, content):
    path.write_bytes(content)
    return path


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["O", "B-X", "Ada"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@fuzz(60)
@given(
    rows=st.lists(
        st.fixed_dictionaries({}, optional=dict.fromkeys(("tokens", "ner_tags", "text", "label"), JSON)) | JSON,
        max_size=5,
    )
)
@example(rows=[{"tokens": ["a"], "ner_tags": ["B-\r"]}])
@example(rows=[{"text": "a", "label": True}, {"text": "a", "label": 1}])
def test_any_json(folder, rows):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for reader in (tagged, labelled, corpus):
        read(folder / "any.jsonl", reader, content)


SPAN_KEYS = ("start", "end", "label", "text", "start_offset", "end_offset", "labels", "type", "value", "result")
SPAN_KEYS += ("spans", "entities", "data", "annotations", "answer", "tokens", "id", "relations")
SPANS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from(["Ada ran", "PER", "labels", "accept", "", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(SPAN_KEYS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("form", ["doccano", "label_studio", "spacy"])
@fuzz(60)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "text": st.just("Ada 😀 ran") | SPANS,
                "label": st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.just("PER"))) | SPANS,
                "spans": st.lists(SPANS, max_size=2),
                "data": st.just({"text": "Ada ran"}) | SPANS,
                "annotations": st.lists(st.fixed_dictionaries({"result": st.lists(SPANS, max_size=2)})) | SPANS,
                "tokens": SPANS,
            },
        )
        | SPANS,
        max_size=3,
    ),
    listed=st.booleans(),
)
def test_any_json_with_spans(form, folder, rows, listed):
    content = json.dumps(rows) if listed else "".join(json.dumps(row) + "\n" for row in rows)
    read(folder / "any-spans.json", partial(spans, form=form), content.encode())


CELLS = st.one_of(
    st.none(),
    st.text(max_size=4),
    st.integers(-3, 300),
    st.floats(),
    st.booleans(),
    st.binary(max_size=3),
    st.lists(st.sampled_from(["O", "B-X", "Ada", None, ""]), max_size=3),
    st.lists(st.integers(-1, 3), max_size=2),
    st.fixed_dictionaries({"a": st.integers(0, 3)}),
    st.datetimes(),
)
CLASSES = {"names": ["O", "B-X"], "_type": "ClassLabel"}
FEATURES = st.sampled_from(
    [CLASSES, {"feature": CLASSES, "_type": "List"}, {"dtype": "string", "_type": "Value"}, {"_type": "Image"}, {}, 3]
)


@fuzz(60)
@given(
    names=st.lists(st.sampled_from(["tokens", "ner_tags", "text", "label"]), min_size=1, max_size=5),
    choices=st.data(),
    compression=st.sampled_from(["none", "snappy"]),
)
def test_any_table(folder, names, choices, compression):
    rows = choices.draw(st.integers(0, 4))
    columns = []
    for _ in names:
        values = choices.draw(st.lists(CELLS, min_size=rows, max_size=rows))
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, OverflowError):  # of several kinds
            columns.append(pa.array([str(value) for value in values]))
    table = pa.table(columns, names=names)
    features = choices.draw(st.none() | st.dictionaries(st.sampled_from(names), FEATURES, max_size=3))
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression)
    for reader in (tagged, labelled, corpus):
        read(folder / "any.parquet", reader, sink.getvalue().to_pybytes())


WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r\0"), min_size=1, max_size=6)
TAGS = st.sampled_from(["O", "B-PER", "I-PER", "S-a b", "E-#", "B-a\u2028b"])


@fuzz(100)
@given(sentences=st.lists(st.lists(st.tuples(WORDS, TAGS, TAGS), min_size=1, max_size=5), min_size=1, max_size=5))
@example(sentences=[[("x", "O", "O")], [("#", "O", "O"), ("# ", "O", "O")]])
def test_what_is_written_is_read_back(folder, sentences):
    """But for what a column file cannot say of the first word of a file, or of a sentence (conll.py)."""
    sentences = [[("x", "O", "O"), *sentence] for sentence in sentences]
    words, gold, said = ([[word[i] for word in sentence] for sentence in sentences] for i in range(3))
    write_conll(folder / "back.conll", words, gold, said)
    for column, tags in ((1, gold), (2, said)):
        again = read_conll(folder / "back.conll", tag_column=column)
        assert (again.words, again.tags) == (words, tags)
