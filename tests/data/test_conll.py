import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import conll_sentences, read_conll, read_records, write_conll


def read(tmp_path, text, *columns):
    path = tmp_path / "x.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_conll(path, *columns)


def test_conll_2003(tmp_path):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n"
    sentences = read(tmp_path, text)
    assert sentences.words == [["EU", "rejects"], ["Peter"]]
    assert sentences.tags == [["B-ORG", "O"], ["B-PER"]]
    assert sentences.lines == [[3, 4], [7]]
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


COMMENTS = [
    "# sent_id = S-1", "# id E-0001", "# doc B-17", "# tags: O B-PER", "# text = a O", "#", "# newpar",
    "# id 0c8c6a0e domain=en", "#\thttp://n-tv.de/x [2009-10-17]", "# text = two\tcells", "# O B-PER I-PER O",
]  # fmt: skip
MARKS = ["-DOCSTART-", "-DOCSTART- -X- O O", "#begin document (bc/x_0000); part 000", "#end document"]
ROW_WORDS = st.sampled_from(["a", "Ada", "#NFL", "#", "##", "#1", "1", "O", "8.1", "1-2", "-", "a#b", "#begin"])


@st.composite
def column_files(draw):
    """A file of rows, comments, marks and blank lines: its lines, its sentences, and where their words stand."""
    separator, columns = draw(st.sampled_from("\t ")), draw(st.integers(2, 5))
    lines, sentences, numbers = [], [], []
    for _ in range(draw(st.integers(1, 4))):
        for kind in draw(st.lists(st.sampled_from(["comment", "mark", "blank"]), max_size=3)):
            line = draw(st.sampled_from({"comment": COMMENTS, "mark": MARKS, "blank": ["", " ", "\t"]}[kind]))
            # What a file of this form cannot hold as a comment: there it is a row.
            like_a_row = len(re.split(f"{separator}+", line)) == columns and (separator == "\t" or columns == 2)
            if kind != "comment" or not like_a_row:
                lines.append(line)
        words = draw(st.lists(ROW_WORDS, min_size=1, max_size=4))
        if not sentences:
            words.insert(draw(st.integers(0, len(words))), "x")  # a file of nothing but # has no certain row
        if separator == " " and columns > 2 and words[0] == "#":
            words[0] = "#a"  # and here this is a comment
        sentences.append([(word, draw(st.sampled_from(["O", "B-PER", "I-PER"]))) for word in words])
        numbers.append([len(lines) + i + 1 for i in range(len(words))])
        lines += [separator.join([word, *["_"] * (columns - 2), tag]) for word, tag in sentences[-1]]
        lines.append(draw(st.sampled_from(["", "", "\t", MARKS[0], MARKS[2]])))
    lines += draw(st.lists(st.sampled_from(["", "# the end, my friend, of it all", "#end document"]), max_size=2))
    return lines, sentences, numbers


@settings(deadline=None, max_examples=300)
@given(file=column_files())
def test_comments_marks_and_rows_are_told_apart_with_tags_and_without(file, tmp_path_factory):
    lines, sentences, numbers = file
    path = tmp_path_factory.getbasetemp() / "told_apart.conll"
    path.write_text("".join(line + "\n" for line in lines))
    found = read_conll(path)
    pairs = [list(zip(words, tags, strict=True)) for words, tags in zip(found.words, found.tags, strict=True)]
    assert pairs == sentences
    assert found.lines == numbers
    blocks = list(conll_sentences(enumerate(lines, start=1), "x", tag_column=None))
    assert [block.words for block in blocks if block.words] == found.words
    # The lines come back as they are, with one more column in the rows.
    rows = dict(
        zip((n for part in numbers for n in part), (tag for part in sentences for _, tag in part), strict=True)
    )
    labels = iter(found.tags)
    out = "".join(block.with_column(next(labels) if block.words else []) for block in blocks).split("\n")
    separator = "\t" if "\t" in lines[numbers[0][0] - 1] else " "
    assert out.pop() == ""
    assert out == [
        line + separator + rows[number] if number in rows else line for number, line in enumerate(lines, start=1)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# sent_id = S-1\nAda _ _ B-PER\nran _ _ O\n\n# sent_id = S\n# tags: O B-PER\na _ _ O\n", ["Ada ran", "a"]),
        ("# id E-0001\nAda N B-PER\n\n# doc B-17\nran V O\n", ["Ada", "ran"]),
        ("#\tn-tv.de vom 26.02.2005 [2005-02-26] \nAda\tN\tB-PER\tO\n\n#\tN\tO\tO\n", ["Ada", "#"]),
        ("#begin document (bc/x); part 000\nAda N V X B-PER\n\n#end document\n#begin document (x)\na b c d O\n",
         ["Ada", "a"]),
        ("#NFL B-ORG\n# O\n\n# O\nx O\n", ["#NFL #", "# x"]),
    ],
)  # fmt: skip
def test_comments_of_real_forms(tmp_path, text, words):
    assert [" ".join(sentence) for sentence in read(tmp_path, text).words] == words
    lines = enumerate(text.removesuffix("\n").split("\n"), start=1)
    assert [" ".join(block.words) for block in conll_sentences(lines, "x", tag_column=None) if block.words] == words


def test_a_comment_that_may_be_a_word_is_told(tmp_path, caplog):
    read(tmp_path, "# NN O\na NN O\n\n# NN O\nb NN O\n")
    list(conll_sentences(enumerate(["# 17", "a O", "", "# 18", "b O"], start=1), "x", tag_column=None))
    read(tmp_path, "#\tNN\tO\na\tNN\tO\n")
    read(tmp_path, "# O\na O\n# O\n\n# id = 17\nb O\n")
    assert [record.getMessage().partition(", like all")[0] for record in caplog.records] == [
        f"{tmp_path / 'x.conll'}:1: '# NN O' is read as a comment",
        "x:1: '# 17' is read as a word",
    ]


def test_a_column_of_a_header_line(tmp_path):
    text = "#begin document (x)\nid;token;pos;ner\n1;Ada B.;N;B-PER\n2;#;X;O\n\n1;#NFL;N;B-ORG\n"
    (tmp_path / "x.csv").write_bytes(text.replace("Ada", "Åda").encode("cp1252"))
    found = read_conll(tmp_path / "x.csv", "token", "ner", separator=";", encoding="cp1252")
    assert found.words == [["Åda B.", "#"], ["#NFL"]]
    assert found.tags == [["B-PER", "O"], ["B-ORG"]]
    assert found.lines == [[3, 4], [6]]
    assert read_conll(tmp_path / "x.csv", "token", 2, separator=";", encoding="cp1252", any_tag=True).tags[0] == [
        *"NX"
    ]
    lines = text.removesuffix("\n").split("\n")
    blocks = list(conll_sentences(enumerate(lines, start=1), "x", "token", None, separator=";"))
    assert "".join(block.with_column("ab"[: len(block.words)]) for block in blocks).split("\n")[1:3] == [
        "id;token;pos;ner;predicted",
        "1;Ada B.;N;B-PER;a",
    ]
    with pytest.raises(ValueError, match=r"x.csv:2: no column is named 'tag' in this header line, .*'id', 'token'"):
        read_conll(tmp_path / "x.csv", "token", "tag", separator=";", encoding="cp1252")
    with pytest.raises(ValueError, match=r"x.csv:3: not UTF-8 \(byte 0xc5\)"):
        read_conll(tmp_path / "x.csv", "token", "ner", separator=";")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("auto", ["#\tO x", "#a b # # c"]),
        ("before_sentences", ["x", "b # # c"]),
        ("none", ["# # x", "#a b # # c"]),
    ],
)
def test_comments_are_what_the_rule_says(tmp_path, rule, words):
    """Whatever a comment says: `# O` looks like a row, and `#a O` is one."""
    text = "# O\n# B-X\nx O\n\n#a O\nb O\n# O\n# O\nc O\n"
    (tmp_path / "x.conll").write_text(text)
    found = [" ".join(sentence) for sentence in read_conll(tmp_path / "x.conll", comments=rule).words]
    assert found == [sentence.replace("#\tO", "# #") for sentence in words]


CONLLU = """# newdoc
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\tO
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\tB-PER
3-4\tal\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
3\ta\ta\tADP\t_\t_\t5\tcase\t_\tO
4\tel\tel\tDET\t_\t_\t5\tdet\t_\tO
4.1\tx\t_\t_\t_\t_\t_\t_\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\tB-LOC

#attached
0.1\ty\t_\t_\t_\t_\t_\t_\t_\t_
1\t#\t#\tSYM\t_\t_\t0\troot\t_\tO

"""


def test_ranges_and_empty_nodes_of_conllu_are_no_words(tmp_path):
    expected = [["vamos", "nos", "a", "el", "mar"], ["#"]]
    for columns in ((), (1,), (-9,)):
        found = read(tmp_path, CONLLU, *columns)
        assert (found.words, found.lines) == (expected, [[4, 5, 7, 8, 10], [14]])
    assert found.tags[0] == ["O", "B-PER", "O", "O", "B-LOC"]
    # The same in a table of its first two and its last column, where the count tells what a range is.
    short = re.sub(r"(?m)^([^\t\n]+\t[^\t]+)\t.*\t", r"\1\t", CONLLU).replace("#attached", "# c")
    assert read(tmp_path, short, 1).words == expected
    long = "9" * 5000  # Python reads no number of so many digits
    assert read(tmp_path, f"1 a O\n{long}-{long} b O\n", 1).words == [["a", "b"]]
    odd = "1 a O\n8.1 b O\n5-6 c O\n2.5 d O\n"  # times, scores: no count, so words
    assert read(tmp_path, odd, 1).words == [["a", "b", "c", "d"]]
    assert read(tmp_path, "1-1 a O\n1-2 b O\n\n2-1 c O\n2-2 d O\n", 1).words == [["a", "b"], ["c", "d"]]


def test_a_column_that_counts_the_words_is_no_column_of_words(tmp_path):
    table = "# c\n1\tAda\tB-PER\tO\n2\tran\tO\tO\n"
    with pytest.raises(ValueError, match=r"x.conll:3: the first column counts the words; .* --text_column_name"):
        read(tmp_path, table)
    with pytest.raises(ValueError, match=r"x:2: the first column counts the words; .* --word_column in predict"):
        list(conll_sentences(enumerate(["0 Ada", "1 ran"], start=1), "x", tag_column=None))
    with pytest.raises(ValueError, match=r"x.conll:2: the first column counts the words"):
        read(tmp_path, "".join(f"{i}\ta" + "\t_" * 7 + "\tO\n" for i in range(2)))  # CoNLL-U counts from 1
    assert read(tmp_path, table, 1).words == [["Ada", "ran"]]
    assert read(tmp_path, table, 0).words == [["1", "2"]]  # who says so gets it
    assert read(tmp_path, "1\tO\n2\tO\n\n1 \tO\n").words == [["1", "2"], ["1 "]]  # the words are nowhere else
    assert read(tmp_path, "1 NN O\nof NN O\n\n1 NN O\n2 NN O\n").words == [["1", "of"], ["1", "2"]]
    with pytest.raises(ValueError, match=r"x.conll:1: column 1 cannot have both the words and the tags"):
        read(tmp_path, "Ada B-PER\n", 1)


def test_blanks_around_a_tag_are_no_part_of_it(tmp_path):
    text = "a\tB-PER\nb\tI-PER \nc\t\u00a0O\u00a0\nd\tB-PER\u200b\ne\tB-\u00c5\u2028\n"
    assert read(tmp_path, text).tags == [["B-PER", "I-PER", "O", "B-PER", "B-\u00c5"]]


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
        ("# 17\nA O\n", r"x.conll:1: '17' is no tag; .*; a line with as many columns as a row is no comment"),
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
    assert [[lines[line - 1].split("\t")[0] for line in numbers] for numbers in again.lines] == words


@pytest.mark.parametrize("columns", [(0, 5), (-5, -1), (3, -1)])
def test_columns_that_are_not_there(tmp_path, columns):
    with pytest.raises(ValueError, match=r"x.conll:1: 2 column\(s\), but \d are needed"):
        read(tmp_path, "A O\nB O\n", *columns)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("broken", [b"\x00 O\x80", b"b\x80 O", b"b\x00 O"])
def test_the_line_of_what_is_no_text(tmp_path, end, mark, broken):
    """After any line ends, and behind a byte-order mark, which the place of a decoding error does not count."""
    (tmp_path / "x.conll").write_bytes(mark + f"a O{end}".encode() * 2 + broken)
    found = r"not UTF-8 \(byte 0x80\)" if b"\x80" in broken else "a NUL character"
    with pytest.raises(ValueError, match=rf"x\.conll:3: {found}"):
        read_conll(tmp_path / "x.conll")
    if b"\x00" not in broken:
        message = r"x:\d: not UTF-8 \(byte 0x80\)"
        with (tmp_path / "x.conll").open("rb") as file, pytest.raises(ValueError, match=message):
            list(read_records(file, "x", "text"))
