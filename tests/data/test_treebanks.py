"""Treebanks against the parse of the package `conllu`."""

import conllu
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.arguments import DataArguments

CELL = st.text(st.sampled_from("aé東#-.1"), min_size=1, max_size=4)
TAG = st.sampled_from(["O", "B-PER", "I-PER", "B-a b"])
PAIRS = st.dictionaries(st.sampled_from(["SpaceAfter", "Gloss", "NERx", "xNER"]), CELL, max_size=2)


@st.composite
def treebanks(draw):
    """A file with ranges, empty nodes and comments, and the tags of its words."""
    lines, tags = [], []
    for number in range(draw(st.integers(1, 3))):
        lines += draw(st.lists(st.sampled_from(["# newdoc id = d", "# text = a\tb", "#x", "# 1-2"]), max_size=2))
        lines.append(f"# sent_id = {number}")
        tags.append(draw(st.lists(TAG, min_size=1, max_size=4)))
        for i, tag in enumerate(tags[-1], start=1):
            pairs = [f"{key}={value}" for key, value in draw(PAIRS).items()]
            if tag != "O" or draw(st.booleans()):
                pairs.insert(draw(st.integers(0, len(pairs))), f"NER={tag}")
            if draw(st.booleans()):
                lines.append(f"{i}-{i + 1}\t" + "\t".join(["x"] + ["_"] * 7) + "\tNER=B-NO")
            upos = draw(st.sampled_from(["NOUN", "X", "_"]))
            cells = [str(i), draw(CELL), draw(CELL), upos, "_", "Case=Nom", "0", "root", "_"]
            lines.append("\t".join([*cells, "|".join(pairs) or "_"]))
            if draw(st.booleans()):
                lines.append(f"{i}.1\t" + "\t".join(["_"] * 9))
        lines.append("")
    return "".join(line + "\n" for line in lines), tags


@settings(deadline=None, max_examples=150)
@given(file=treebanks(), new=st.data())
def test_words_and_tags_are_those_of_the_package_and_come_back(file, new, tmp_path_factory):
    text, tags = file
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text, encoding="utf-8")
    theirs = [[row for row in tree if isinstance(row["id"], int)] for tree in conllu.parse(text)]
    upos = data.read_treebank(path, None, "UPOS")
    assert upos.words == [[row["form"] for row in rows] for rows in theirs]
    assert upos.tags == [[row["upos"] for row in rows] for rows in theirs]
    assert data.read_treebank(path, "lemma", "3").words == [[row["lemma"] for row in rows] for rows in theirs]
    lines = text.split("\n")
    assert [[lines[at - 1].split("\t")[1] for at in numbers] for numbers in upos.lines] == upos.words
    numbered = list(enumerate(lines[:-1], start=1))
    blocks = list(data.treebank_sentences(numbered, "x", None, "NER"))
    assert [block.tags for block in blocks] == tags
    assert "".join(data.with_tags(block, block.tags) for block in blocks) == text
    # Other tags: all else stays as the package reads it.
    others = [new.draw(st.lists(TAG, min_size=len(row), max_size=len(row))) for row in tags]
    back = "".join(data.with_tags(block, row) for block, row in zip(blocks, others, strict=True))
    again = data.treebank_sentences(enumerate(back.split("\n")[:-1], start=1), "x", None, "misc.NER")
    assert [block.tags for block in again] == others
    for before, after in zip(conllu.parse(text), conllu.parse(back), strict=True):
        assert before.metadata == after.metadata
        for one, other in zip(before, after, strict=True):
            pairs = [dict(row["misc"] or {}) for row in (one, other)]
            if isinstance(one["id"], int):
                for kept in pairs:
                    kept.pop("NER", None)
            assert pairs[0] == pairs[1]
            assert {**one, "misc": None} == {**other, "misc": None}


TEXT = """# newdoc
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\tMood=Imp\t0\troot\t_\tNER=B-X
2\tnos\tnos\tPRON\t_\t_\t1\tobj\t_\tSpaceAfter=No

# newdoc
1\tél\tél\tPRON\t_\t_\t0\troot\t_\t_
"""


def test_columns_keys_and_documents(tmp_path):
    path = tmp_path / "x.conllu"
    path.write_text(TEXT, encoding="utf-8")
    assert data.read_treebank(path, None, "NER").tags == [["B-X", "O"], ["O"]]
    assert data.read_treebank(path, None, "feats.Mood").tags == [["Imp", "O"], ["O"]]
    assert data.read_treebank(path, None, "upos").documents == [1, 2]
    plus = "# global.columns = ID FORM X:NE\n1\ta b\tB-X\n2\t#\tO\n"
    path.write_text(plus)
    found = data.read_tagged(DataArguments(train_file=str(path), validation_split_percentage=0))["train"]
    assert (found["tokens"][0], found["ner_tags"][0], found["line"][0]) == (["a b", "#"], ["B-X", "O"], [2, 3])
    assert data.read_treebank(path, None, "x:ne").tags == [["B-X", "O"]]


@pytest.mark.parametrize(
    ("change", "tags", "message"),
    [
        (("", ""), None, r"x.conllu:3: the last column has 'NER=B-X', which is no tag; give a column \(upos\)"),
        (("", ""), "Nix", r"x.conllu: no word has 'Nix'; keys that words have: 'NER', 'SpaceAfter'"),
        (("", ""), "10", r"x.conllu:2: --tag_column 10: no such column; there are ID FORM"),
        (("2\tnos", "3\tnos"), "upos", r"x.conllu:4: the ID is '3', but the next word of the sentence is 2"),
        (("2\tnos", "zwei\tnos"), "upos", r"x.conllu:4: 'zwei' is no ID"),
        (("2\tnos", "9" * 5000 + "\tnos"), "upos", r"x.conllu:4: '9+\.\.\.9+' is no ID"),
        (("2\tnos", "2\t"), "upos", r"x.conllu:4: the word is empty"),
        (("1\tél\tél", "1 él él"), "upos", r"x.conllu:7: 8 column\(s\) with tabs between them, .* be 10"),
    ],
)
def test_errors_name_the_line(tmp_path, change, tags, message):
    (tmp_path / "x.conllu").write_text(TEXT.replace(*change) if change[0] else TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        data.read_treebank(tmp_path / "x.conllu", None, tags)
