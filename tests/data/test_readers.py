import json

import datasets
import pytest

from finetune import data
from finetune.arguments import DataArguments

ROWS = [{"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["Oslo"], "ner_tags": ["B-LOC"]}]
TEXTS = [
    {"text": 'so "good"', "label": "pos"},
    {"text": "bad,\nvery", "label": "neg"},
    {"text": "bad", "label": "neg"},
]


def dump(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_tagged_forms_agree(tmp_path):
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.to_parquet(tmp_path / "x.parquet")
    dataset.save_to_disk(tmp_path / "one")
    names = datasets.ClassLabel(names=["O", "B-PER", "B-LOC"])
    numbered = [
        {"tokens": row["tokens"], "ner_tags": [names.str2int(tag) for tag in row["ner_tags"]]} for row in ROWS
    ]
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)}
    )
    datasets.DatasetDict(train=datasets.Dataset.from_list(numbered, features=features)).save_to_disk(tmp_path / "all")
    data.write_conll(tmp_path / "x.conll", *([row[key] for row in ROWS] for key in ("tokens", "ner_tags")))
    for arguments in (
        DataArguments(train_file=dump(tmp_path / "x.jsonl", ROWS)),
        DataArguments(train_file=str(tmp_path / "x.parquet")),
        DataArguments(train_file=str(tmp_path / "one")),
        DataArguments(train_file=str(tmp_path / "x.conll")),
        DataArguments(dataset_name=str(tmp_path / "all")),
    ):
        train = data.read_tagged(arguments)["train"]
        assert train.select_columns(["tokens", "ner_tags"]).to_list() == ROWS, arguments


def test_labelled_forms_agree(tmp_path):
    dataset = datasets.Dataset.from_list(TEXTS)
    dataset.to_csv(tmp_path / "x.csv", index=False)
    dataset.to_parquet(tmp_path / "x.parquet")
    for path in (tmp_path / "x.csv", tmp_path / "x.parquet", dump(tmp_path / "x.jsonl", TEXTS)):
        train = data.read_labelled(DataArguments(train_file=str(path)))["train"]
        assert train.select_columns(["text", "label"]).to_list() == TEXTS
    csv = data.read_labelled(DataArguments(train_file=str(tmp_path / "x.csv")))["train"]
    assert csv["line"][:] == [2, 3, 5]  # the second text holds a line end


def test_pairs_whole_number_labels_and_unquoted_tsv(tmp_path):
    (tmp_path / "x.tsv").write_bytes(b'\xef\xbb\xbfQuality\t#1 String\t#2 String\r\n10\tsays "a\tb\r\n9\tc\td"\r\n')
    train = data.read_labelled(
        DataArguments(train_file=str(tmp_path / "x.tsv")), "#1 String", "Quality", "#2 String"
    )["train"]
    assert train["text"][:] == ['says "a', "c"]
    assert train["text_pair"][:] == ["b", 'd"']
    assert data.class_labels(train) == ["9", "10"]


def test_a_file_without_header(tmp_path):
    (tmp_path / "x.tsv").write_text("fine\t1\npoor\t0\n")
    train = data.read_labelled(DataArguments(train_file=str(tmp_path / "x.tsv"), column_names="text,label"))["train"]
    assert train["text"][:] == ["fine", "poor"]
    assert train["line"][:] == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"text": "a", "label": 1}\n{"text": "b"\n', r"x.jsonl:2: not JSON"),
        ("x.jsonl", "[1]\n", r"x.jsonl:1: in a .jsonl file each line is an object"),
        ("x.jsonl", '{"text": "a"}\n', r"x.jsonl:1: no column 'label'; it has: 'text'"),
        ("x.jsonl", '{"text": "a", "label": 0.5}\n{"text": "b", "label": 1}', r"x.jsonl:1: column 'label' holds 0.5"),
        ("x.jsonl", '{"text": null, "label": 1}\n', r"x.jsonl:1: column 'text' holds None"),
        ("x.csv", "text,lable\na,1\n", r"x.csv:1: no column 'label'.*'text', 'lable'"),
        ("x.csv", "text,label\na,1\nb\n", r"x.csv:3: 1 column\(s\), but the header has 2"),
        ("x.csv", "text,text,label\na,b,1\n", r"x.csv:1: two columns are named 'text'"),
        ("x.csv", "text,label\n", r"x.csv: no row"),
        ("x.csv", 'text,label\n"a,1\n', r"x.csv:2: not CSV"),
        ("x.csv", "text,label\na,\n", r"x.csv:2: column 'label' holds ''"),
        ("x.csv", b"text,label\na\xe4,1\n", r"x.csv:2: not UTF-8"),
        ("x.parquet", "nonsense", r"x.parquet: not a Parquet file"),
        ("x.xyz", "nonsense", r"x.xyz: unknown form '.xyz'"),
    ],
)
def test_errors_name_the_place(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        data.read_labelled(DataArguments(train_file=str(path)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"], "ner_tags": ["O", "O"]}, "x.jsonl:1: 1 words but 2 tags"),
        ({"tokens": ["a"], "ner_tags": [0]}, "x.jsonl:1: column 'ner_tags' is not a list of strings"),
        ({"tokens": "a", "ner_tags": ["O"]}, "x.jsonl:1: column 'tokens' is not a list"),
        ({"tokens": [""], "ner_tags": ["O"]}, "x.jsonl:1: the word '' is empty"),
        ({"tokens": ["a\nb"], "ner_tags": ["O"]}, "x.jsonl:1: the word .* breaks a line"),
        ({"tokens": ["a", "#b"], "ner_tags": ["B-PER", "PER"]}, "x.jsonl:1: 'PER' is no tag; .*IOBES.$"),
        ({"tokens": ["a", "b"], "ner_tags": ["PER", ""]}, "x.jsonl:1: 'PER' is no tag"),
    ],
)
def test_tagged_errors_name_the_place(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        data.read_tagged(DataArguments(train_file=dump(tmp_path / "x.jsonl", [row])))


def test_a_parquet_file_with_a_broken_name(tmp_path):
    path = tmp_path / "x.parquet"
    datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}).to_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"label", b"\x80abel"))
    with pytest.raises(ValueError, match=r"x.parquet: not a Parquet file: 'utf-8' codec") as caught:
        data.read_labelled(DataArguments(train_file=str(path)))
    assert caught.type is ValueError


def test_no_training_data_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="no training data"):
        data.read_tagged(DataArguments())
    with pytest.raises(ValueError, match="--dataset_name nobody/nothing: not loaded"):
        data.read_tagged(DataArguments(dataset_name="nobody/nothing"))  # the tests are offline
    with pytest.raises(ValueError, match=r"--test_file .*nope.conll: no such file"):
        data.read_tagged(DataArguments(dataset_name="samples", test_file=str(tmp_path / "nope.conll")))


def test_labels_come_from_training_in_a_stable_order(tmp_path):
    (tmp_path / "train.conll").write_text("a B-Z\nb O\n\nc B-A\n")
    (tmp_path / "again.conll").write_text("c B-A\n\na B-Z\nb O\n")
    for name in ("train", "again"):
        train = data.read_tagged(DataArguments(train_file=str(tmp_path / f"{name}.conll")))["train"]
        assert data.entity_labels(train) == ["O", "B-A", "I-A", "B-Z", "I-Z"]


def test_a_label_unknown_to_training_is_named_with_its_line(tmp_path):
    (tmp_path / "train.conll").write_text("a B-A\n")
    (tmp_path / "test.conll").write_text("a O\n\n# id 2\nb O\nc I-A\nd B-NEW\n")
    splits = data.read_tagged(
        DataArguments(train_file=str(tmp_path / "train.conll"), test_file=str(tmp_path / "test.conll"))
    )
    with pytest.raises(ValueError, match=r"test.conll:6: the label 'B-NEW' does not occur in the training data"):
        data.check_labels(splits, data.entity_labels(splits["train"]), "ner_tags")


def test_limits(samples):
    few = data.read_tagged(DataArguments(dataset_name="samples", max_train_samples=5, max_eval_samples=3))
    assert {name: len(split) for name, split in few.items()} == {"train": 5, "validation": 3, "test": 3}
    assert few["train"]["tokens"][:] == samples["train"]["tokens"][:5]


def _columns(path):
    """Word and tag of every line that has some, read in the plainest way."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [tuple(line.replace("\t", " ").split(" ")) for line in lines if line.strip("\t ")]


def test_real_tagged_files_load_as_they_are(shared):
    folders = [shared / "data/wnut17", *(shared / "data/masakhaner").iterdir()]
    assert len(folders) == 5
    for folder in folders:
        files = {
            f"{split}_file": str(folder / f"{name}.conll")
            for split, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
        }
        splits = data.read_tagged(DataArguments(**files))
        data.check_labels(splits, data.entity_labels(splits["train"]), "ner_tags")
        for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
            rows = splits[split]
            flat = [
                (w, t)
                for words, tags in zip(rows["tokens"], rows["ner_tags"], strict=True)
                for w, t in zip(words, tags, strict=True)
            ]
            assert flat == _columns(folder / f"{name}.conll")


def test_real_labelled_files_load_as_they_are(shared):
    sst2 = shared / "data/sst2"
    splits = data.read_labelled(
        DataArguments(train_file=str(sst2 / "train.tsv"), test_file=str(sst2 / "test.tsv"), column_names="text,label")
    )
    assert [len(splits[name]) for name in ("train", "test")] == [
        len((sst2 / f"{name}.tsv").read_text(encoding="utf-8").strip("\n").split("\n")) for name in ("train", "test")
    ]
    assert data.class_labels(splits["train"]) == ["0", "1"]
    mrpc = shared / "data/mrpc"
    splits = data.read_labelled(
        DataArguments(train_file=str(mrpc / "train.tsv"), test_file=str(mrpc / "test.tsv")),
        "#1 String",
        "Quality",
        "#2 String",
    )
    assert len(splits["train"]) == 4076
    assert len(splits["test"]) == 1725
    assert splits["train"][0]["text"].startswith('Amrozi accused his brother, whom he called "the witness"')


def test_header_or_column_names_but_not_both(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\na,1\n")
    file = str(tmp_path / "x.csv")
    with pytest.raises(ValueError, match=r"x.csv:1: this is a header line; leave out --column_names"):
        data.read_labelled(DataArguments(train_file=file, column_names="text,label"))
    with pytest.raises(ValueError, match=r"--column_names a,b: no column 'text'"):
        data.read_labelled(DataArguments(train_file=file, column_names="a,b"))


def test_a_split_without_labels_is_left_out(tmp_path, caplog):
    train = dump(tmp_path / "train.jsonl", TEXTS)
    test = dump(tmp_path / "test.jsonl", [{"text": "a", "label": -1}, {"text": "b", "label": -1}])
    assert list(data.read_labelled(DataArguments(train_file=train, test_file=test))) == ["train"]
    assert "the test split has no labels" in caplog.text


def test_a_tagged_split_without_labels_is_left_out(tmp_path, caplog):
    kinds = {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
    }
    rows = {"tokens": [["a", "b"], ["c"]], "ner_tags": [[0, 1], [0]]}
    splits = {
        "train": datasets.Dataset.from_dict(rows, datasets.Features(kinds)),
        "test": datasets.Dataset.from_dict(rows | {"ner_tags": [[-1, -1], [-1]]}, datasets.Features(kinds)),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "d")
    assert list(data.read_tagged(DataArguments(dataset_name=str(tmp_path / "d")))) == ["train"]
    assert "the test split has no labels; it is left out" in caplog.text
    train = dump(tmp_path / "train.jsonl", ROWS)
    for tags in ([-1], None, [None]):
        test = dump(tmp_path / "test.jsonl", [{"tokens": ["a"], "ner_tags": tags}])
        assert list(data.read_tagged(DataArguments(train_file=train, test_file=test))) == ["train"]
    test = dump(tmp_path / "test.jsonl", [{"tokens": ["a"], "ner_tags": None}, ROWS[0]])
    with pytest.raises(ValueError, match=r"test.jsonl:1: column 'ner_tags' is not a list of strings"):
        data.read_tagged(DataArguments(train_file=train, test_file=test))


@pytest.mark.parametrize("name", ["dev", "valid", "val"])
def test_a_validation_split_of_another_name_is_used_and_told(name, tmp_path, caplog):
    rows = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": rows, name: rows.select([1]), "extra": rows}).save_to_disk(tmp_path / "d")
    splits = data.read_tagged(DataArguments(dataset_name=str(tmp_path / "d")))
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 2, "validation": 1}
    assert f"its split '{name}' is the validation split" in caplog.text
    assert "not used: the split(s) 'extra'" in caplog.text
    datasets.DatasetDict({"train": rows, name: rows.select([1]), "validation": rows}).save_to_disk(tmp_path / "both")
    assert len(data.read_tagged(DataArguments(dataset_name=str(tmp_path / "both")))["validation"]) == 2


def test_blanks_around_a_label_are_no_part_of_it(tmp_path):
    rows = [{"tokens": ["a", "b", "c"], "ner_tags": ["B-X ", "I-X\u00a0", "\u200bO"]}, ROWS[0]]
    train = data.read_tagged(DataArguments(train_file=dump(tmp_path / "x.jsonl", rows)))["train"]
    assert train["ner_tags"][:] == [["B-X", "I-X", "O"], ["B-PER", "O"]]
    texts = [{"text": "a", "label": label} for label in ("pos", "pos ", "\u00a0pos", "pos\ufeff", "neg  a", "neg a")]
    texts = data.read_labelled(DataArguments(train_file=dump(tmp_path / "y.jsonl", texts)))["train"]
    assert data.class_labels(texts) == ["neg a", "pos"]
    assert data.label_counts(texts, "label") == "'pos' 4, 'neg a' 2"


def test_one_rule_for_numbers_as_labels_in_all_forms(tmp_path):
    rows = [{"text": "a", "label": "4.75"}, {"text": "b", "label": "1"}]
    datasets.Dataset.from_list(rows).to_csv(tmp_path / "x.csv", index=False)
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "x.parquet")
    for path in (tmp_path / "x.csv", tmp_path / "x.parquet", dump(tmp_path / "x.jsonl", rows)):
        with pytest.raises(ValueError, match=r"column 'label' holds '4.75'; a label is a word or a whole number"):
            data.read_labelled(DataArguments(train_file=str(path)))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "01", "10", "9", "1"], ["01", "1", "9", "10"]),
        (["--1", "1", "2"], ["--1", "1", "2"]),
        (["-", "3"], ["-", "3"]),
        (["9" * 5000, "1"], ["1", "9" * 5000]),
        (["-2", "-10", "0"], ["-10", "-2", "0"]),
    ],
)
def test_the_order_of_labels_does_not_depend_on_the_rows(tmp_path, labels, expected):
    for order in (labels, labels[::-1]):
        rows = [{"text": "a", "label": label} for label in order]
        train = data.read_labelled(DataArguments(train_file=dump(tmp_path / "x.jsonl", rows)))["train"]
        assert data.class_labels(train) == expected


def test_one_column_cannot_be_two(tmp_path):
    path = dump(tmp_path / "x.jsonl", [{"text": "a", "tokens": ["a"], "label": "x"}])
    for read, names in (
        (data.read_tagged, ("tokens", "tokens")),
        (data.read_labelled, ("text", "text")),
        (data.read_labelled, ("text", "label", "text")),
    ):
        with pytest.raises(ValueError, match="must be different columns"):
            read(DataArguments(train_file=path), *names)


def test_a_sorted_file_that_is_cut_is_told(tmp_path, caplog):
    rows = [{"text": "a", "label": label} for label in ["neg"] * 5 + ["pos"] * 5]
    arguments = DataArguments(train_file=dump(tmp_path / "x.jsonl", rows), max_train_samples=4)
    data.read_labelled(arguments)
    assert "--max_train_samples 4: the first rows of" in caplog.text
    assert "have 1 of its 2 labels; if it is sorted by label, shuffle it" in caplog.text
    caplog.clear()
    arguments.max_train_samples = 6
    data.read_labelled(arguments)
    assert not caplog.text


def test_the_lines_of_words_are_right_past_a_range(tmp_path):
    (tmp_path / "train.conll").write_text("1\ta\tB-A\n2\tb\tO\n")
    (tmp_path / "test.conll").write_text("1-2\tab\t_\n1\ta\tO\n2\tb\tB-NEW\n")
    files = {f"{split}_file": str(tmp_path / f"{split}.conll") for split in ("train", "test")}
    splits = data.read_tagged(DataArguments(**files), "1")
    with pytest.raises(ValueError, match=r"test.conll:3: the label 'B-NEW'"):
        data.check_labels(splits, data.entity_labels(splits["train"]), "ner_tags")


def test_folders_that_are_no_data_sets(tmp_path):
    for arguments in (DataArguments(train_file=str(tmp_path)), DataArguments(dataset_name=str(tmp_path))):
        with pytest.raises(ValueError, match="this is not a folder that save_to_disk wrote"):
            data.read_tagged(arguments)


def test_each_split_has_a_scheme_of_its_own(tmp_path, caplog):
    """Read together, the IOB1 of one would be taken for broken IOB2."""
    tags = {"train": "I-PER I-PER B-PER O I-LOC", "validation": "B-PER I-PER B-PER O B-LOC"}
    tags["test"] = "I-PER E-PER E-PER O E-LOC"
    for split, written in tags.items():
        data.write_conll(tmp_path / f"{split}.conll", [["w"] * 5], [written.split()])
    files = {f"{split}_file": str(tmp_path / f"{split}.conll") for split in tags}
    splits = data.read_tagged(DataArguments(**files))
    for rows in splits.values():
        assert rows["ner_tags"][0] == ["B-PER", "I-PER", "B-PER", "O", "B-LOC"]
    assert [record.message for record in caplog.records] == [
        "the splits have different tagging schemes; each split is read in its own scheme: "
        "train IOB1, validation IOB2, test IOE"
    ]
    caplog.clear()
    data.write_conll(tmp_path / "test.conll", [["w"]], [["O"]])  # no scheme, so no other one
    data.read_tagged(DataArguments(train_file=files["train_file"], test_file=files["test_file"]))
    assert [record.message for record in caplog.records] == [
        "the tags are read as IOB1, by their prefixes (else give --tagging_scheme)"
    ]
    caplog.clear()
    data.read_tagged(DataArguments(train_file=files["validation_file"]))
    assert not caplog.records  # IOB2 is the usual one
