"""Plain tags, and entities without prefixes, beside entities with them."""

import itertools
import json
import random

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import data
from finetune.arguments import DataArguments

CONLLU = """# sent_id = 1
# text = They've gone.
1-2\tThey've\t_\t_\t_\t_\t_\t_\t_\t_
1\tThey\tthey\tPRON\tPRP\t_\t3\tnsubj\t_\t_
2\t've\thave\tAUX\tVBP\t_\t3\taux\t_\t_
3\tgone\tgo\tVERB\tVBN\t_\t0\troot\t_\tSpaceAfter=No
3.1\tfar\tfar\tADV\t_\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

# text = X
1\tX\tx\tX\tFW\t_\t0\troot\t_\t_
"""


def read(path, *columns, **asked):
    return data.read_tagged(DataArguments(train_file=str(path)), *columns, **asked)["train"]


def test_parts_of_speech_are_detected_and_told(tmp_path, caplog):
    (tmp_path / "x.conllu").write_text(CONLLU)
    train = read(tmp_path / "x.conllu", "tokens", "3")
    assert train["tokens"][:] == [["They", "'ve", "gone", "."], ["X"]]
    assert train["ner_tags"][:] == [["PRON", "AUX", "VERB", "PUNCT"], ["X"]]
    assert data.is_plain(train)
    assert data.is_plain(train.select([1]))
    assert data.plain_labels(train) == ["AUX", "PRON", "PUNCT", "VERB", "X"]
    (told,) = caplog.messages
    assert "x.conllu:4: no tag has a prefix such as B-, so all tags are read as plain tags" in told
    assert "'AUX', 'PRON', 'PUNCT', 'VERB', 'X'" in told
    caplog.clear()
    read(tmp_path / "x.conllu", "tokens", "3", tagging="plain")
    assert not caplog.messages


def test_all_forms_of_plain_tags_agree(tmp_path):
    rows = [
        {"tokens": ["Ada", "Byron", "ran"], "ner_tags": ["person-actor", "person-actor", "O"]},
        {"tokens": ["Oslo"], "ner_tags": ["LOC"]},
    ]
    names = datasets.ClassLabel(names=["O", "person-actor", "LOC"])
    kinds = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)}
    numbered = [row | {"ner_tags": names.str2int(row["ner_tags"])} for row in rows]
    datasets.Dataset.from_list(numbered, datasets.Features(kinds)).save_to_disk(tmp_path / "saved")
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data.write_conll(tmp_path / "x.conll", *([row[key] for row in rows] for key in ("tokens", "ner_tags")))
    for name in ("saved", "x.parquet", "x.jsonl", "x.conll"):
        train = read(tmp_path / name)
        assert data.is_plain(train)
        assert train.select_columns(["tokens", "ner_tags"]).to_list() == rows
        entities = read(tmp_path / name, tagging="entities")
        assert not data.is_plain(entities)
        assert entities["ner_tags"][:] == [["B-person-actor", "I-person-actor", "O"], ["B-LOC"]]
        # Until somebody says what they are, no entities are made of them.
        with pytest.raises(ValueError, match="'person-actor' is no tag; tags are O, B-TYPE"):
            data.entity_labels(train)


@given(st.lists(st.sampled_from(["O", "_", "PER", "LOC", "a-b"]), max_size=8))
def test_a_run_of_one_type_is_an_entity(types):
    found = data.runs_to_iob2(types)
    expected = []
    for kind, run in itertools.groupby(types):
        length = len(list(run))
        outside = kind in ("O", "_")
        expected += ["O"] * length if outside else [f"B-{kind}"] + [f"I-{kind}"] * (length - 1)
    assert found == expected
    assert data.invalid_iob2(found) == 0


@pytest.mark.parametrize("bad", ["PER", "b-PER", "B-", "", "17", "B PER"])
def test_one_bad_cell_among_entities_is_an_error_with_its_place(tmp_path, bad):
    generator = random.Random(0)
    tags = [generator.choice(["O", "O", "B-PER", "I-PER"]) for _ in range(1000)]
    tags[0], tags[700] = "O", bad
    (tmp_path / "x.conll").write_text("".join(f"w\t{tag}\n" for tag in tags))
    for tagging in ("auto", "entities"):
        with pytest.raises(ValueError, match=rf"x.conll:701: '{bad}' is no tag; tags are O, B-TYPE, I-TYPE"):
            read(tmp_path / "x.conll", tagging=tagging)
    # Also in a split that is not the training split's.
    (tmp_path / "train.conll").write_text("w\tB-PER\n")
    files = {"train_file": str(tmp_path / "train.conll"), "test_file": str(tmp_path / "x.conll")}
    with pytest.raises(ValueError, match=rf"x.conll:701: '{bad}' is no tag"):
        data.read_tagged(DataArguments(**files))


def test_what_is_asked_for_is_done(tmp_path):
    (tmp_path / "x.conll").write_text("a B-X\nb I-X\nc O\n")
    assert read(tmp_path / "x.conll", tagging="plain")["ner_tags"][:] == [["B-X", "I-X", "O"]]
    assert data.is_plain(read(tmp_path / "x.conll", tagging="plain"))
    assert not data.is_plain(read(tmp_path / "x.conll"))
    (tmp_path / "x.conll").write_text("a O\nb O\n")
    assert not data.is_plain(read(tmp_path / "x.conll"))
    with pytest.raises(ValueError, match=r"x.conll:1: every word has the tag 'O'; two tags are needed"):
        data.plain_labels(read(tmp_path / "x.conll", tagging="plain"))
    (tmp_path / "x.conll").write_text("a\tN\nb\t\n")
    with pytest.raises(ValueError, match=r"x.conll:2: the tag '' is empty, breaks a line"):
        read(tmp_path / "x.conll", tagging="plain")


def test_the_training_split_tells_how_all_are_read(tmp_path):
    (tmp_path / "train.conll").write_text("a N\nb V\n")
    (tmp_path / "test.conll").write_text("a N\nb B-X\n")
    files = {f"{split}_file": str(tmp_path / f"{split}.conll") for split in ("train", "test")}
    splits = data.read_tagged(DataArguments(**files))
    assert splits["test"]["ner_tags"][:] == [["N", "B-X"]]
    with pytest.raises(ValueError, match=r"test.conll:2: the label 'B-X' does not occur in the training data"):
        data.check_labels(splits, data.plain_labels(splits["train"]), "ner_tags")


def test_blanks_of_conllu_are_no_tags(tmp_path, caplog):
    (tmp_path / "train.conllu").write_text(CONLLU)
    (tmp_path / "test.conllu").write_text(CONLLU)
    files = {f"{split}_file": str(tmp_path / f"{split}.conllu") for split in ("train", "test")}
    with pytest.raises(ValueError, match=r"train.conllu:4: every tag is '_', which is no tag"):
        data.read_tagged(DataArguments(**files), "tokens", "5")
    (tmp_path / "test.conllu").write_text("1\ta\ta\t_\t_\t_\t0\troot\t_\t_\n")
    assert list(data.read_tagged(DataArguments(**files), "tokens", "3")) == ["train"]
    assert "the test split has no labels" in caplog.text


def test_a_comment_that_may_be_a_word_is_told(tmp_path, caplog):
    (tmp_path / "x.conll").write_text("# 17\nA N\nB V\n")
    read(tmp_path / "x.conll")
    assert "x.conll:1: '#' is read as a word with the tag '17'; if this line is a comment" in caplog.text


def test_real_tags_of_a_treebanks_form_are_counted_by_hand(shared, tmp_path):
    """The types of real entities without their prefixes: what is plain, and what runs make of them."""
    lines = (shared / "data/wnut17/test.conll").read_text(encoding="utf-8").split("\n")
    cells = [line.split("\t") for line in lines if line.strip("\t ")]
    bare = [line[: -len(line.split("\t")[-1])] + line.split("\t")[-1][2:] if "\t" in line else line for line in lines]
    bare = [line + "O" if line.endswith("\t") and line.strip() else line for line in bare]
    (tmp_path / "x.conll").write_text("\n".join(bare), encoding="utf-8")
    train = read(tmp_path / "x.conll")
    flat = [tag for tags in train["ner_tags"] for tag in tags]
    assert flat == [tag[2:] or "O" for _, tag in cells]
    assert data.is_plain(train)
    entities = [tag for tags in read(tmp_path / "x.conll", tagging="entities")["ner_tags"] for tag in tags]
    assert [tag[2:] for tag in entities] == [tag[2:] for _, tag in cells]


def test_labels_that_training_lacks_are_taken_out_as_asked(tmp_path, caplog):
    (tmp_path / "train.conll").write_text("a B-X\nb O\n")
    (tmp_path / "test.conll").write_text("a B-X\nb B-NEW\nc I-NEW\nd O\n\ne B-X\n")
    files = {f"{split}_file": str(tmp_path / f"{split}.conll") for split in ("train", "test")}
    splits = data.read_tagged(DataArguments(**files, validation_split_percentage=0))
    labels = data.entity_labels(splits["train"])
    skipped = data.without_unknown_tags(splits, labels, "skip")
    assert skipped["test"]["tokens"][:] == [["e"]]
    outside = data.without_unknown_tags(splits, labels, "outside")
    assert outside["test"]["ner_tags"][:] == [["B-X", "O", "O", "O"], ["B-X"]]
    assert outside["test"]["tokens"][:] == splits["test"]["tokens"][:]
    assert outside["train"] is splits["train"]
    told = [message.partition(": ")[2].partition(" of the test")[0] for message in caplog.messages]
    assert told == ["1 sentences are left out", "2 words become O"]
    (tmp_path / "test.conll").write_text("b B-NEW\n")
    splits = data.read_tagged(DataArguments(**files, validation_split_percentage=0))
    with pytest.raises(ValueError, match=r"test.conll:1: each sentence of the test split has a label"):
        data.without_unknown_tags(splits, labels, "skip")
    with pytest.raises(ValueError, match="--unknown_labels outside: the training data has no tag O"):
        data.without_unknown_tags(splits, ["A", "B"], "outside")
