"""CSV and TSV as records to label, and answers as CSV and TSV."""

import csv
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data

CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters='",\n;'), max_size=12)
TABLE = st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), max_size=6))


def records(content, form="csv", delimiter=None, **columns):
    file = io.BytesIO(content.encode())
    return list(data.read_records(file, "a." + form, form, columns=data.TextColumns(**columns), delimiter=delimiter))


@settings(max_examples=50, deadline=None)
@given(TABLE)
def test_rows_are_those_of_python_and_come_back_with_the_answer(rows):
    names = ["text", "id", "x", "y"][: len(rows[0]) if rows else 2]
    rows = [row for row in rows if row != names]
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows])
    head, *found = records("\ufeff" + text.getvalue())
    assert (head.head, head.asks, list(head.row)) == (True, False, names)
    assert [list(record.row.values()) for record in found] == rows
    assert [record.sample for record in found] == [row[0] for row in rows]
    answer = {"predicted": "a, b", "score": 0.5, "top_k": [{"label": "a"}], "nbest": [1]}
    form = data.OUTPUT_FORMS["csv"]
    out = "".join(form.made(record, answer) for record in [head, *found])
    told = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [{name: row[name] for name in names} for row in told] == [record.row for record in found]
    assert out.startswith(",".join([*names, "predicted", "score", "top_k"]) + "\n")
    for row in told:
        assert (row["predicted"], row["score"], json.loads(row["top_k"])) == ("a, b", "0.5", [{"label": "a"}])


def test_a_carriage_return_breaks_no_row_of_csv():
    lines = [{"text": "a\rb", "n": 1}, {"text": "c\r\nd", "n": 2}, {"text": "e\r", "n": 3}]
    given = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = data.with_head(data.read_records(io.BytesIO(given), "a.jsonl", "jsonl"), "a.jsonl")
    out = "".join(data.OUTPUT_FORMS["csv"].made(record, {"predicted": "x"}) for record in found)
    assert list(csv.DictReader(io.StringIO(out, newline=""))) == [
        {"text": line["text"], "n": str(line["n"]), "predicted": "x"} for line in lines
    ]


def test_a_quotation_mark_in_tsv_is_a_character():
    head, first, second = records('text\tn\n"He said\t1\nno "x"\t2\n', "tsv")
    assert [first.sample, second.sample] == ['"He said', 'no "x"']
    out = data.OUTPUT_FORMS["tsv"].made(first, {"predicted": "a\tb\r\nc  \u00a0d", "score": None})
    assert out == '"He said\t1\ta b c  \u00a0d\t\n'
    assert data.OUTPUT_FORMS["tsv"].made(head, {"predicted": "a"}) == "text\tn\tpredicted\n"


def test_a_quoted_cell_may_hold_lines_and_messages_know_the_line():
    _, first, second = records('text,n\n"a\nb",1\nc,2\n')
    assert [(own.line, own.sample) for own in (first, second)] == [(2, "a\nb"), (4, "c")]
    with pytest.raises(ValueError, match=r"a.csv:4: 3 column\(s\), but the header has 2"):
        records('text,n\n"a\nb",1\nc,2,3\n')
    with pytest.raises(ValueError, match=r"a.csv:2: not CSV"):
        records('text,n\n"a"b,1\n')


@settings(max_examples=50, deadline=None)
@given(TABLE, st.sampled_from(";|"))
def test_another_delimiter_is_that_of_the_output_too(rows, delimiter):
    names = ["text", "id", "x", "y"][: len(rows[0]) if rows else 2]
    rows = [row for row in rows if row != names]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([names, *rows])
    found = list(data.with_head(records(text.getvalue(), delimiter=delimiter), "a.csv"))
    assert [list(record.row.values()) for record in found[1:]] == rows
    out = "".join(data.OUTPUT_FORMS["csv"].made(record, {"predicted": "a;b|c"}) for record in found)
    told = list(csv.reader(io.StringIO(out, newline=""), delimiter=delimiter))
    assert told == [[*names, "predicted"], *([*row, "a;b|c"] for row in rows)]


def test_a_row_of_another_delimiter_is_no_text():
    for delimiter, name in ((";", "';'"), ("\t", "tab"), ("|", "'|'")):
        text = f"id{delimiter}review\n1{delimiter}{LONG} one\n"
        with pytest.raises(ValueError, match=rf"a.csv:1: one column, .* then give --delimiter {re.escape(name)},"):
            records(text)
        assert records(text, delimiter=delimiter)[1].sample == f"{LONG} one"
    assert records("a;b\nyes;no\n", delimiter=",")[1].sample == "yes;no"  # it is asked for


LONG = "a rather long text of words"
GUESSED = f"id,review\n1,{LONG} one\n2,{LONG} two\n"


@pytest.mark.parametrize(
    ("text", "columns", "sample"),
    [
        ("body,text\nx,y\n", {}, "y"),
        ("body,text\nx,y\n", {"text": "body"}, "x"),
        ("body,text\nx,y\n", {"likely": ["body", "text"]}, "x"),  # the column of the training
        ("a,b\nx,y\n", {"text": "b", "pair": "a"}, ("y", "x")),
        ("x,y\n", {"names": "b,text"}, "y"),
        (GUESSED, {}, f"{LONG} one"),
        ("whatever\nyes\n", {}, "yes"),  # there is no other
    ],
)
def test_the_column_of_the_texts(text, columns, sample):
    assert records(text, **columns)[1].sample == sample


def test_a_guess_is_told_and_made_only_where_it_is_the_only_one(caplog):
    records(GUESSED)
    assert "a.csv: taken as --text_column_name 'review', since no other column could be meant" in caplog.text
    for text, columns, message in (
        (
            f"a,b\n{LONG} 1,{LONG} 2\n",
            {},
            r"a.csv:1: no column 'text'; it has: 'a', 'b'. Name the right one with --text_column_name",
        ),
        ("a,b\n1,2\n", {}, "no column 'text'"),
        (GUESSED, {"text": "reviews"}, "no column 'reviews'"),
        (GUESSED, {"pair": "x"}, "no column 'x'; .* --text_pair_column_name"),
        ("a,a\n1,2\n", {}, "a.csv:1: two columns are named 'a'"),
        ("x,y\n", {"names": "a,b"}, "--column_names a,b: no column 'text'"),
        ("text,y\ntext,y\n", {}, "a.csv:2: this is a header line; the file already has one"),
    ):
        with pytest.raises(ValueError, match=message):
            records(text, **columns)


def test_a_stream_is_not_read_ahead_for_a_guess():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with pytest.raises(ValueError, match="no column 'text'"):
        list(data.read_records(Pipe(GUESSED.encode()), "-", "csv"))


def test_rows_of_a_table_have_the_same_columns():
    rows = [data.Record(1, "a", {"text": "a", "n": 1}), data.Record(2, "b", {"text": "b"})]
    with pytest.raises(ValueError, match=r"in.jsonl:2: has 'text', but the first one has 'text', 'n'; in a table"):
        list(data.with_head(rows, "in.jsonl"))
    head, first = data.with_head(rows[:1], "in.jsonl")
    assert (head.head, head.sample, head.row, first) == (True, "", {"text": "text", "n": "n"}, rows[0])
