"""The texts of files with labels, read as a corpus."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import data
from recipes.pretrain import PretrainConfig

WORD = st.text(st.sampled_from("abc,.’é東"), min_size=1, max_size=4)


def documents(path, **flags):
    config = PretrainConfig(train_file=str(path), objective="roberta", validation_split_percentage=0, **flags)
    [corpus] = data.read_corpus(config)["train"]
    return [document.sentences for document in corpus]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.lists(WORD, min_size=1, max_size=5), min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_sentences_of_column_files_are_their_words(tmp_path_factory, groups):
    path = tmp_path_factory.mktemp("words") / "a.conll"
    text = "".join(
        "-DOCSTART-\tO\n\n" + "".join("".join(f"{w}\tB-X\n" for w in words) + "\n" for words in group)
        for group in groups
    )
    path.write_text(text, encoding="utf-8")
    assert documents(path) == [[" ".join(words) for words in group] for group in groups]
    # Without its marks, each sentence is a document.
    path.write_text(text.replace("-DOCSTART-\tO\n", ""), encoding="utf-8")
    assert documents(path) == [[" ".join(words)] for group in groups for words in group]


def test_other_forms(tmp_path):
    (tmp_path / "a.tsv").write_text("A film\t1\nNot so good\t0\n")
    assert documents(tmp_path / "a.tsv", column_names="text,label") == [["A film"], ["Not so good"]]
    (tmp_path / "b.csv").write_text('label,review\n1,"One. Two, three.\nFour."\n0,Bad from start to end\n')
    expected = [["One.", "Two, three.", "Four."], ["Bad from start to end"]]
    assert documents(tmp_path / "b.csv", text_column_name="review", sentences="split") == expected
    rows = [{"tokens": ["Ada", "ran", "."], "ner_tags": ["B-PER", "O", "O"]}, {"tokens": ["No"], "ner_tags": ["O"]}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert documents(tmp_path / "c.jsonl") == [["Ada ran ."], ["No"]]
    (tmp_path / "brat").mkdir()
    (tmp_path / "brat/d.txt").write_text("Ada ran. Bob sat.\nSo what?")
    (tmp_path / "brat/d.ann").write_text("T1\tPER 0 3\tAda\n")
    assert documents(tmp_path / "brat") == [["Ada ran. Bob sat.", "So what?"]]
    assert documents(tmp_path / "brat", sentences="split") == [["Ada ran.", "Bob sat.", "So what?"]]
    head = "# newdoc\n# text = x\n"
    row = "{}\t{}\t_\tNOUN" + "\t_" * 6 + "\n"
    (tmp_path / "e.conllu").write_text(head + row.format(1, "Ja") + "\n" + row.format(1, "Nein") + "\n")
    assert documents(tmp_path / "e.conllu") == [["Ja", "Nein"]]


def test_a_table_with_a_word_in_each_row_is_told(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("word,tag\nAda,B-PER\nran,O\n")
    documents(tmp_path / "a.csv", text_column_name="word")
    assert "have one word each" in caplog.text


def test_samples_of_a_task_have_no_test_text(samples):
    config = PretrainConfig(dataset_name="samples", dataset_config_name="ner", objective="roberta")
    found = data.read_corpus(config)
    assert sorted(found) == ["train", "validation"]
    for split, [corpus] in found.items():
        assert list(corpus.sentences()) == [" ".join(words) for words in samples[split]["tokens"]]


@pytest.mark.parametrize(("split", "number"), [("validation", 1), ("test", 2)])
def test_texts_that_are_also_evaluated_on_are_told(tmp_path, split, number):
    texts = ["Ada ran .", "Bob sat .", "Cid ate ."]
    for name, own in (("train", texts), (split, [*texts[:number], "Another one"])):
        lines = "".join("".join(f"{word} O\n" for word in text.split()) + "\n" for text in own)
        (tmp_path / f"{name}.conll").write_text(lines)
    files = {f"{name}_file": str(tmp_path / f"{name}.conll") for name in ("train", split)}
    config = PretrainConfig(**files, objective="roberta", validation_split_percentage=0)
    told = data.told_of_texts(data.read_corpus(config))
    assert told[0].startswith("only texts are read, no labels")
    assert told[1] == f"{number} of the {number + 1} sentences of the {split} split are in the training text, too"
