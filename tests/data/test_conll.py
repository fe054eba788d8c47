import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import read_conll, write_conll


def read(tmp_path, text, *columns):
    path = tmp_path / "x.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_conll(path, *columns)


def test_conll_2003(tmp_path):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n"
    sentences = read(tmp_path, text)
    assert sentences.words == [["EU", "rejects"], ["Peter"]]
    assert sentences.tags == [["B-ORG", "O"], ["B-PER"]]
    assert sentences.lines == [3, 7]
    assert read(tmp_path, text, 1, -1).words == [["NNP", "VBZ"], ["NNP"]]


def test_byte_order_mark_crlf_and_no_final_newline(tmp_path):
    sentences = read(tmp_path, b"\xef\xbb\xbfA\tO\r\nB\tB-X\r\n\r\nC\tO")
    assert sentences.words == [["A", "B"], ["C"]]
    assert sentences.tags == [["O", "B-X"], ["O"]]


def test_lines_with_tabs_alone_separate_sentences(tmp_path):
    assert read(tmp_path, "A\tO\n\t\nB\tO\n").words == [["A"], ["B"]]


def test_a_hash_is_a_word_where_it_has_a_tag(tmp_path):
    text = "# id = 7\n# text = a b\n# O\n#NFL B-X\n# O\n\n# O\nx O\n"
    assert read(tmp_path, text).words == [["#", "#NFL", "#"], ["#", "x"]]
    text = "# id = 7\n#\tO\n#NFL\tB-X\n\n#\tO\n"
    assert read(tmp_path, text).words == [["#", "#NFL"], ["#"]]


def test_odd_white_space_stays_in_words(tmp_path):
    assert read(tmp_path, "a\u2028b\tO\nc\x85\tO\n\ufe0f\tO\nd\u00a0e\tO\n").words == [
        ["a\u2028b", "c\x85", "\ufe0f", "d\u00a0e"]
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A O\nB\n", r"x.conll:2: 1 column"),
        ("A\tO\n#NFL\n", r"x.conll:2: 1 column"),
        ("A\nB\n", r"x.conll:1: 1 column.* 2 are needed"),
        ("A x O\nB O\n", r"x.conll:2: 2 column.*line 1 has 3"),
        ("A O\nB PER\n", r"x.conll:2: 'PER' is no tag"),
        ("A\tO\n\tO\n", r"x.conll:2: the word is empty"),
        ("", r"x.conll: no sentence"),
        ("\n\n", r"x.conll: no sentence"),
        (b"A O\nB\xff O\n", r"x.conll:2: not UTF-8 \(byte 0xff\)"),
        ("A O\nB\0 O\n", r"x.conll:2: a NUL"),
    ],
)
def test_errors_name_the_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


WORD = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r\0"), min_size=1, max_size=6)
WORD |= st.sampled_from(["-DOCSTART-", "# foo", "#", "\ufeffa"])  # a mark elsewhere, which is a word here
ROW = st.tuples(WORD, st.sampled_from(["O", "B-PER", "I-PER"]))


@given(sentences=st.lists(st.lists(ROW, min_size=1, max_size=5), min_size=1, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory, sentences):
    path = tmp_path_factory.mktemp("c") / "x.conll"
    words = [[word for word, _ in sentence] for sentence in sentences]
    tags = [[tag for _, tag in sentence] for sentence in sentences]
    write_conll(path, words, tags)
    again = read_conll(path, written_here=True)
    assert again.words == words
    assert again.tags == tags
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [lines[line - 1].split("\t")[0] for line in again.lines] == [sentence[0] for sentence in words]


@pytest.mark.parametrize("columns", [(0, 5), (-5, -1), (3, -1)])
def test_columns_that_are_not_there(tmp_path, columns):
    with pytest.raises(ValueError, match=r"x.conll:1: 2 column\(s\) where \d are needed"):
        read(tmp_path, "A O\nB O\n", *columns)
