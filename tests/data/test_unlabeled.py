"""Text without labels, in each form that it comes in."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import read_unlabeled, split_words

WORD = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z", "Cf"]), min_size=1, max_size=6)


def written(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / name)


def test_every_form_gives_the_same_words(tmp_path):
    sentences = [["Ada", "flew", "to", "Oslo", "."], ["She", "stayed", "."]]
    texts = [" ".join(words) for words in sentences]
    rows = "".join(f"{word}\tO\n" for word in sentences[0]) + "\n" + "".join(f"{word}\tO\n" for word in sentences[1])
    forms = {
        "a.txt": "\n".join(texts) + "\n\n",
        "b.conll": rows,
        "c.jsonl": json.dumps({"tokens": sentences[0]}) + "\n" + json.dumps({"text": texts[1]}) + "\n",
        "d.csv": 'number,text\n1,"Ada flew to Oslo ."\n2,She stayed .\n',
        "e.tsv": "text\tlabel\nAda flew to Oslo .\tx\nShe stayed .\ty\n",
    }
    for name, content in forms.items():
        found = read_unlabeled(written(tmp_path, name, content), words=True, text_column="tokens")
        assert found == sentences, name
        if name in ("a.txt", "d.csv", "e.tsv"):
            assert read_unlabeled(str(tmp_path / name), words=False, text_column="text") == texts, name


def test_columns_encodings_and_pairs(tmp_path):
    file = written(tmp_path, "a.conll", "1\tZoë\n2\tran\n".encode("latin-1"))
    assert read_unlabeled(file, words=True, text_column="1", encoding="latin-1") == [["Zoë", "ran"]]
    file = written(tmp_path, "a.tsv", "good\t1\nbad\t2\n")
    assert read_unlabeled(file, words=False, text_column="review", column_names="review,id") == ["good", "bad"]
    file = written(tmp_path, "b.csv", "one,two\na,b\n,\n")
    assert read_unlabeled(file, words=False, text_column="one", pair_column="two") == [("a", "b")]
    file = written(tmp_path, "b.jsonl", '{"text": "a", "text_pair": "b"}\n')
    assert read_unlabeled(file, words=False, text_column="one", pair_column="two") == [("a", "b")]
    with pytest.raises(ValueError, match=r"b.jsonl:1: two texts, but the teacher labels words"):
        read_unlabeled(file, words=True, text_column="tokens")
    file = written(tmp_path, "c.jsonl", '{"tokens": ["a", "b c\\t"]}\n')
    with pytest.raises(ValueError, match=r"c.jsonl:1: the word 'b c\\t' is no text"):
        read_unlabeled(file, words=True, text_column="tokens")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORD, min_size=1, max_size=5), min_size=1, max_size=4))
def test_lines_of_text_come_back(tmp_path_factory, sentences):
    texts = [" ".join(words) for words in sentences]
    file = written(tmp_path_factory.mktemp("text"), "a.txt", "\n\n".join(texts))
    assert read_unlabeled(file, words=False, text_column="text") == texts
    expected = [[text[begin:end] for begin, end in split_words(text)] for text in texts]
    assert read_unlabeled(file, words=True, text_column="tokens") == expected
