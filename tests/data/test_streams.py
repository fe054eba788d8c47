import io
import threading
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finetune import data
from finetune.data import in_chunks, read_records
from finetune.data.tables import TextColumns


def records(raw, form):
    return list(read_records(io.BytesIO(raw), "some.file", form))


def test_text_keeps_every_line():
    found = records("\ufeffone two\r\n\n  three\u2028four \rfive".encode(), "text")
    assert [record.sample for record in found] == ["one two", "", "  three\u2028four ", "five"]
    assert [record.line for record in found] == [1, 2, 3, 4]
    assert found[2].row == {"text": "  three\u2028four "}


@given(st.text(alphabet="a \n\r\u2028\x85\x0b\ufeff", max_size=20))
@example("\ufeff")
def test_lines_are_those_of_files(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode())
    from finetune.data.conll import read_lines

    assert [record.sample for record in records(text.encode(), "text")] == read_lines(path)


def test_words_are_split_at_spaces_and_tabs_alone():
    found = records("one\u00a0two  three\t\u3000\n\n".encode(), "words")
    assert [record.sample for record in found] == [["one\u00a0two", "three", "\u3000"], []]


def test_jsonl():
    raw = b'{"id": 7, "text": "a b"}\n\n{"text": "a", "text_pair": "b"}\n{"tokens": ["a", "b"], "text_pair": null}\n'
    found = records(raw, "jsonl")
    assert [(record.line, record.sample) for record in found] == [(1, "a b"), (3, ("a", "b")), (4, ["a", "b"])]
    assert found[0].row == {"id": 7, "text": "a b"}


@pytest.mark.parametrize(
    ("form", "bad", "message"),
    [
        ("jsonl", b"{", "some.file:3: not JSON"),
        ("jsonl", b'{"label": "x"}', 'some.file:3: a line must be {"text"'),
        ("jsonl", b'{"text": 3}', 'some.file:3: a line must be {"text"'),
        ("jsonl", b'{"text": "a", "tokens": []}', 'some.file:3: a line must be {"text"'),
        ("jsonl", b"[1]", 'some.file:3: a line must be {"text"'),
        ("text", b"caf\xe9", "some.file:3: not UTF-8 .byte 0xe9"),
        ("words", b"a\0b", "some.file:3: a NUL character"),
        ("conll", b"a b", r"some.file:3: 2 column\(s\), but line 1 has 1"),
    ],
)
def test_a_bad_line_is_named_after_the_good_ones(form, bad, message):
    good = b'{"text": "fine"}\n' if form == "jsonl" else b"fine\n"
    good += b"\n" if form == "conll" else good
    found = []
    with pytest.raises(ValueError, match=message):
        found.extend(read_records(io.BytesIO(good + bad + b"\n" + good), "some.file", form))
    assert [record.line for record in found] == ([1] if form == "conll" else [1, 2])


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-32", "gb18030"])
@pytest.mark.parametrize("form", ["text", "words", "jsonl", "conll", "csv"])
def test_another_encoding_gives_the_records_of_utf_8(form, encoding):
    text = "text\r\nüble Maßstäbe\nschön \r\n"
    text = '{"text": "schön"}\n{"text": "Maß"}\n' if form == "jsonl" else text
    text = "Größe\nMaß\n\nÖl\n" if form == "conll" else text
    columns = TextColumns(None, None, ["text"], ()) if form == "csv" else None

    def read(encoding):
        found = read_records(io.BytesIO(text.encode(encoding)), "a", form, columns=columns, encoding=encoding)
        return [(record.line, record.sample) for record in found]

    assert read(encoding) == read("utf-8")
    assert len(read(encoding)) >= 2


@pytest.mark.parametrize(("encoding", "bad"), [("cp1252", b"\x81"), ("utf-16", b"\x81")])
def test_bytes_of_no_character_of_an_encoding_are_told(encoding, bad):
    raw = "fine\n".encode(encoding) + bad
    with pytest.raises(ValueError, match=rf"a(:2)?: not {encoding} .*; give another --encoding$"):
        list(read_records(io.BytesIO(raw), "a", "text", encoding=encoding))


@pytest.mark.parametrize("text", [b'\n[{"data": {"text": "a"}}]', b'\n[\n  {"text": "a"}\n]\n'])
def test_a_list_is_told(text):
    with pytest.raises(ValueError, match=r"some.file:2: this file is one list, .* needs --input_format doccano"):
        list(read_records(io.BytesIO(text), "some.file", "jsonl"))


def test_column_files_have_the_words_that_are_read_with_tags(shared, tmp_path):
    paths = [shared / "data/wnut17/test.conll", shared / "data/masakhaner/yor/test.conll", tmp_path / "odd.conll"]
    paths[-1].write_text("# id = 1\n-DOCSTART- O\n\n# O\n#NFL O\na B-X\n\n# a b\n# O\n")
    for path in paths:
        found = records(path.read_bytes(), "conll")
        expected = data.read_conll(path)
        assert [record.sample for record in found] == expected.words
        assert [record.line for record in found] == [lines[0] for lines in expected.lines]


def test_a_sentence_of_a_column_file_does_not_wait_for_the_next_one():
    lines = iter([b"# c\n", b"a\n", b"\n", b"# d\n", b"\n", b"b\n", b"\n", b"# end\n"])
    found = read_records(lines, "some.file", "conll")
    assert (next(found).sample, next(lines)) == (["a"], b"# d\n")
    assert (next(found).sample, next(lines)) == (["b"], b"# end\n")


def test_column_files_without_tags():
    assert [record.sample for record in records(b"# text = a #\na\n#\n\n\nb", "conll")] == [["a", "#"], ["b"]]
    assert [record.sample for record in records(b"a\tNN\n\n# c\n#\tSYM\n", "conll")] == [["a"], ["#"]]


def test_chunks_hold_everything_in_order():
    assert list(in_chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_chunks(range(6), 3)) == [[0, 1, 2], [3, 4, 5]]
    assert list(in_chunks([], 3)) == []


def test_chunks_before_an_error():
    chunks = in_chunks((10 // (4 - i) for i in count()), 3)
    assert next(chunks) == [2, 3, 5]
    assert next(chunks) == [10]
    with pytest.raises(ZeroDivisionError):
        next(chunks)


def test_a_chunk_does_not_wait_for_what_is_not_there():
    asked = threading.Event()

    def items():
        yield 1
        yield 2
        assert asked.wait(60)  # the third comes only when the first two have been given out
        yield 3

    chunks = in_chunks(items(), 100, patience=0.01)
    first = next(chunks)
    while len(first) < 2:  # on a machine under load, the second may have come late
        first += next(chunks)
    asked.set()
    assert [*first, *(item for chunk in chunks for item in chunk)] == [1, 2, 3]
