"""Tables with a word in each row, against a grouping written out slowly; JSON lists, numbers as tags."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.arguments import DataArguments

WORD = st.text(st.sampled_from("aé東#\"; ,'"), min_size=1, max_size=4)
ROWS = st.lists(st.lists(st.tuples(WORD, st.sampled_from(["O", "B-X", "I-X"])), min_size=1, max_size=3), min_size=1)


def read(path, *columns, **asked):
    config = DataArguments(train_file=str(path), validation_split_percentage=0)
    return data.read_tagged(config, *columns, **asked)["train"]


@settings(deadline=None, max_examples=100)
@given(
    sentences=ROWS,
    delimiter=st.sampled_from([";", ",", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "gb18030"]),
    form=st.sampled_from(["each", "down", "documents"]),
)
def test_a_word_a_row(sentences, delimiter, encoding, form, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "words.csv"
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["doc", "nr", "Word", "POS", "Tag"])
    for number, sentence in enumerate(sentences):
        for i, (word, tag) in enumerate(sentence):
            ids = (number // 2, number % 2) if form == "documents" else ("d", number)
            writer.writerow([*(("", "") if form == "down" and i else ids), word, "N", tag])
    path.write_bytes(out.getvalue().encode(encoding))
    ids = "doc,nr" if form == "documents" else "nr"
    found = data.read_word_table(path, "Word", "-1", ids, encoding=encoding, delimiter=delimiter)
    assert found.words == [[word for word, _ in sentence] for sentence in sentences]
    assert found.tags == [[tag for _, tag in sentence] for sentence in sentences]
    assert [number for numbers in found.lines for number in numbers] == list(range(2, 2 + sum(map(len, sentences))))
    assert found.documents == [number // 2 + 1 if form == "documents" else 0 for number in range(len(sentences))]

    # As prediction reads it, and writes it with the same tags in a new column.
    columns = data.WordColumns(words="Word", sentences=ids)
    with path.open("rb") as file:
        records = list(data.read_records(
            file, str(path), "table", word_columns=columns, delimiter=delimiter, encoding=encoding
        ))  # fmt: skip
    head, *rows = records
    assert head.head
    assert [record.sample for record in rows] == found.words
    assert [record.document for record in rows] == found.documents
    answers = [{"predicted": tags, "scores": [0.5] * len(tags)} for tags in ([], *found.tags)]
    write = data.OUTPUT_FORMS["csv"].write
    back = path.with_name("back.csv")
    back.write_text("".join(map(write, records, answers)), encoding="utf-8", newline="")
    again = data.read_word_table(back, "Word", "predicted", ids, delimiter=delimiter)
    assert (again.words, again.tags, again.documents) == (found.words, found.tags, found.documents)
    with path.open(encoding=encoding, newline="") as one, back.open(encoding="utf-8", newline="") as other:
        for before, after in zip(*(csv.reader(own, delimiter=delimiter) for own in (one, other)), strict=True):
            assert after[: len(before)] == before


TABLE = "Sentence #;Word;POS;Tag\n1;Ada;N;B-X\n;ran;V;O\n2;Ada;N;B-X\n"


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        (("", ""), {}, r"t.csv: one column, 'Sentence #;Word;POS;Tag' \(is ';' between the columns\?"),
        (("", ""), {"sentence_column": "id"}, r"t.csv: --sentence_column id: no such column"),
        (("2;", "1;"), {}, None),
        ((";ran", "2;ran"), {}, None),
        (("1;Ada", ";Ada"), {}, r"t.csv:2: column 'Sentence #' is empty in the first row"),
        (("Ada;N;B-X\n;ran", ";N;B-X\n;ran"), {}, r"t.csv:2: the word '' is empty"),
        ((";ran", "0;ran;V;O\n1;ran"), {}, r"t.csv:4: the sentence '1' was there before \(line 2\)"),
    ],
)
def test_errors_name_the_line(tmp_path, change, asked, message):
    path = tmp_path / "t.csv"
    path.write_text(TABLE.replace(*change) if change[0] else TABLE)
    delimiter = None if message and "one column" in message else ";"
    if message is None:
        assert sum(map(len, read(path, delimiter=delimiter)["tokens"])) == 3
        return
    with pytest.raises(ValueError, match=message):
        read(path, delimiter=delimiter, **asked)


def test_columns_with_usual_names_are_told(tmp_path, caplog):
    (tmp_path / "t.tsv").write_text(TABLE.replace(";", "\t"))
    assert read(tmp_path / "t.tsv")["tokens"][:] == [["Ada", "ran"], ["Ada"]]
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "taken as --word_column 'Word'",
        "taken as --tag_column 'Tag'",
        "taken as --sentence_column 'Sentence #'",
    ]
    assert read(tmp_path / "t.tsv", "1", "POS", sentence_column="0", tagging="plain")["ner_tags"][0] == ["N", "V"]


ROWS_OF_LISTS = [{"tokens": ["Ada", "ran"], "ner_tags": [1, 0]}, {"tokens": ["c"], "ner_tags": [0]}]


def test_a_column_that_the_run_named_by_number_is_told(caplog):
    """In another table the same number may be another column."""
    columns = data.WordColumns(likely_words="1", likely_sentences="0")
    assert columns.of(["nr", "POS", "Word"], "a.csv:1") == ("POS", ["nr"])
    assert [record.getMessage() for record in caplog.records] == [
        "a.csv:1: taken as --word_column 'POS', which is number 1, as in training",
        "a.csv:1: taken as --sentence_column 'nr', which is number 0, as in training",
    ]
    caplog.clear()
    assert data.WordColumns(words="2", sentences="nr").of(["nr", "POS", "Word"], "a.csv:1") == ("Word", ["nr"])
    assert not caplog.records


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_list_and_numbers_as_tags(tmp_path, indent):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(ROWS_OF_LISTS, indent=indent))
    (tmp_path / "names.txt").write_text("O\nB-X\n")
    for names in ("O,B-X", str(tmp_path / "names.txt")):
        assert read(path, label_names=names)["ner_tags"][:] == [["B-X", "O"], ["O"]]
    (tmp_path / "x.conll").write_text("Ada 1\nran 0\n")
    assert read(tmp_path / "x.conll", label_names="O,B-X")["ner_tags"][:] == [["B-X", "O"]]
    with pytest.raises(ValueError, match=r"x.conll:1: the tag '1'; --label_names has names for 0 to 0"):
        read(tmp_path / "x.conll", label_names="O")
    with pytest.raises(ValueError, match="the name of 1 is 'O', which has another number"):
        read(path, label_names="O,O")
    path.write_text(path.read_text()[:-3])
    with pytest.raises(
        ValueError, match=r"x.json:\d+: not JSON: .*; this file begins with \[, so it must be one list"
    ):
        read(path, label_names="O,B-X")
