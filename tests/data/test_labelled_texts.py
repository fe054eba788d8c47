"""Several labels a text, and numbers: every form against the rows that were written, and the real data."""

import csv
import json
import math
import statistics
from collections import Counter

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from finetune import data
from finetune.arguments import DataArguments

SEVERAL, NUMBER = "multi_label_classification", "regression"
NAMES = ["joy", "love", "-3", "007", "née Ü", "a|b"]


def dump(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path, **asked):
    return data.read_labelled(DataArguments(train_file=str(path)), **asked)["train"]


@settings(deadline=None, max_examples=15)
@given(rows=st.lists(st.lists(st.sampled_from(NAMES), unique=True), min_size=1, max_size=6))
def test_every_form_of_several_labels_is_read_as_it_was_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("forms")
    table = [{"text": f"text {i}", "label": labels} for i, labels in enumerate(rows)]
    declared = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(datasets.Value("string"))})
    numbered = datasets.Features(declared | {"label": datasets.List(datasets.ClassLabel(names=NAMES))})
    ids = [{"text": row["text"], "label": [NAMES.index(label) for label in row["label"]]} for row in table]
    datasets.Dataset.from_list(table, declared).to_parquet(folder / "x.parquet")
    datasets.Dataset.from_list(ids, numbered).save_to_disk(folder / "numbered")
    for name, separator in (("x.csv", ","), ("x.tsv", ";")):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            quoting = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
            writer = csv.writer(file, delimiter="," if separator == "," else "\t", quoting=quoting, quotechar='"')
            writer.writerow(["text", "label"])
            writer.writerows([row["text"], f" {separator} ".join(row["label"])] for row in table)
    with (folder / "columns.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *NAMES])
        writer.writerows([row["text"], *(int(name in row["label"]) for name in NAMES)] for row in table)
    told = [{"text": row["text"]} | {name: name in row["label"] for name in NAMES} for row in table]
    found = [
        read(dump(folder / "x.jsonl", table)),
        read(folder / "x.parquet"),
        read(folder / "numbered"),
        read(folder / "x.csv", label_separator=","),
        read(folder / "x.tsv", label_separator=";", problem_type=SEVERAL),
    ]
    for train in found:
        assert train["label"][:] == rows
    for path in (folder / "columns.csv", dump(folder / "told.jsonl", told)):
        found.append(read(path, label=" , ".join(NAMES)))
        assert [set(labels) for labels in found[-1]["label"]] == [set(labels) for labels in rows]
    counts = Counter(label for labels in rows for label in labels)
    for train in found:
        assert train.features["label"] == datasets.List(datasets.Value("string"))
        assert data.problem_type_of(train) == SEVERAL
        if counts:
            names = NAMES if train is found[2] else counts  # a ClassLabel declares all of its names
            assert sorted(data.class_labels(train)) == sorted(names)
            for label, count in counts.items():
                assert f"{label!r} {count}" in data.label_counts(train, "label")
        else:
            with pytest.raises(ValueError, match="no training text has a label"):
                data.class_labels(train)
        bare = sum(not labels for labels in rows)
        assert (f"{bare} texts without a label" in data.label_counts(train, "label")) == (bare > 0)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6), st.booleans())
@pytest.mark.filterwarnings("ignore:overflow")  # the deviation of numbers near the greatest that there are
def test_every_form_of_a_number_is_read_as_it_was_written(tmp_path_factory, numbers, asked):
    folder = tmp_path_factory.mktemp("numbers")
    rows = [{"text": f"text {i}", "label": number} for i, number in enumerate(numbers)]
    datasets.Dataset.from_list(rows).to_parquet(folder / "x.parquet")
    datasets.Dataset.from_list(rows).to_csv(folder / "x.csv", index=False, float_format=lambda x: repr(float(x)))
    (folder / "x.tsv").write_text("text\tlabel\n" + "".join(f"{r['text']}\t {r['label']!r} \n" for r in rows))
    whole = all(number.is_integer() for number in numbers)
    for path in (dump(folder / "x.jsonl", rows), folder / "x.parquet", folder / "x.csv", folder / "x.tsv"):
        if whole and not asked:  # 1.0 may be a label
            with pytest.raises(ValueError, match="a word or a whole number; to learn numbers, give --problem_type"):
                read(path)
            continue
        train = read(path, problem_type=NUMBER if asked else None)
        assert train["label"][:] == numbers
        assert data.problem_type_of(train) == NUMBER
        told = data.label_counts(train, "label").replace(",", "").split()[1::2]
        if 1e-100 < max(map(abs, numbers)) < 1e100:
            expected = [statistics.fmean(numbers), statistics.pstdev(numbers), min(numbers), max(numbers)]
            size = max(map(abs, numbers)) * 1e-3
            assert [float(number) for number in told] == pytest.approx(expected, abs=size)


def test_whole_numbers_are_labels_unless_told_otherwise(tmp_path, caplog):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,1\nb,3\n")
    assert read(path)["label"][:] == ["1", "3"]
    assert not caplog.text
    assert read(path, problem_type=NUMBER)["label"][:] == [1.0, 3.0]
    path.write_text("text,label\na,4.5\nb,3.0\n")
    train = read(path)
    assert train["label"][:] == [4.5, 3.0]
    with pytest.raises(ValueError, match=r"x.csv:2: the labels are numbers, such as 4.5; words are needed"):
        data.class_labels(train)
    assert "x.csv:2: the labels are numbers, such as '4.5', and are learned as numbers" in caplog.text
    caplog.clear()
    read(path, problem_type=NUMBER)
    assert not caplog.text
    path.write_text('text,label\na,"5,0"\nb,"1,5"\n')
    assert read(path)["label"][:] == ["5,0", "1,5"]
    assert "the labels look like numbers with a decimal comma, such as '5,0', and are learned as words" in caplog.text
    with pytest.raises(ValueError, match="'5,0', not a number; write numbers with a decimal point"):
        read(path, problem_type=NUMBER)


def test_labels_that_are_lists_of_labels_are_told(tmp_path, caplog):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,food\nb,price\nc,food|price\nd,price|food\ne,and/or\n")
    read(path)
    assert "2 of the 5 labels consist of other labels, such as 'food|price'" in caplog.text
    assert "give --label_separator '|'" in caplog.text
    caplog.clear()
    read(path, label_separator="|")
    assert not caplog.text


def test_a_column_with_missing_labels_may_still_be_meant(tmp_path):
    rows = [f"{i % 9}.3.,ticket {i} is about many things,{'bill' if i % 3 else 'parcel'}" for i in range(40)]
    rows[5] = rows[5].rpartition(",")[0] + ","
    path = tmp_path / "x.csv"
    path.write_text("\n".join(["day,body,topic", *rows, ""]))
    with pytest.raises(ValueError, match=r"x.csv:1: no column 'text'; it has: 'day', 'body', 'topic'"):
        read(path)  # not the days
    path.write_text("\n".join(["body,topic", *(row.partition(",")[2] for row in rows), ""]))
    with pytest.raises(ValueError, match=r"x.csv:7: column 'topic' holds ''; a label is missing: give one, or leave"):
        read(path)
    path.write_text(path.read_text().replace("is about many things,parcel", "is about many things,", 3))
    with pytest.raises(ValueError, match=r"x.csv:2: .* a label is missing \(as in 3 more rows: "):
        read(path)


def test_a_column_of_texts_that_is_not_used_is_told(tmp_path, caplog):
    rows = [f"this is sentence number {i},the same old question again,{'yes' if i % 2 else 'no'}" for i in range(20)]
    (tmp_path / "x.csv").write_text("\n".join(["one,two,answer", *rows, ""]))
    assert "text_pair" not in read(tmp_path / "x.csv").column_names
    assert "taken as --text_column_name 'one' --label_column_name 'answer'; not used: 'two'" in caplog.text


def test_the_training_split_tells_how_all_are_read(tmp_path):
    train = dump(tmp_path / "train.jsonl", [{"text": "a", "label": 0.5}])
    test = dump(tmp_path / "test.jsonl", [{"text": "a", "label": 1}])
    splits = data.read_labelled(DataArguments(train_file=train, test_file=test))
    assert splits["test"]["label"][:] == [1.0]
    train = dump(tmp_path / "train.jsonl", [{"text": "a", "label": ["x"]}])
    with pytest.raises(ValueError, match=r"test.jsonl:1: column 'label' holds 1; several labels are a list"):
        data.read_labelled(DataArguments(train_file=train, test_file=test))
    test = dump(tmp_path / "test.jsonl", [{"text": "a", "label": []}, {"text": "b", "label": ["x", "y"]}])
    splits = data.read_labelled(DataArguments(train_file=train, test_file=test))
    with pytest.raises(ValueError, match=r"test.jsonl:2: the label 'y' does not occur in the training data"):
        data.check_labels(splits, data.class_labels(splits["train"]), "label")
    for missing in (None, -1, [-1], [None]):
        test = dump(tmp_path / "test.jsonl", [{"text": "a", "label": missing}])
        assert list(data.read_labelled(DataArguments(train_file=train, test_file=test))) == ["train"]


def test_lost_labels_of_lists_are_told_and_of_numbers_not(tmp_path, caplog):
    rows = [{"text": "a", "label": ["x"]}, {"text": "b", "label": []}, {"text": "c", "label": ["x", "y"]}]
    train = dump(tmp_path / "x.jsonl", rows)
    kept = data.read_labelled(DataArguments(train_file=train, max_train_samples=2))["train"]
    assert kept["label"][:] == [["x"], []]
    assert "have 1 of its 2 labels" in caplog.text
    caplog.clear()
    train = dump(tmp_path / "x.jsonl", [{"text": "a", "label": 0.5}, {"text": "b", "label": 1.5}])
    kept = data.read_labelled(
        DataArguments(train_file=train, max_train_samples=1), problem_type="regression"
    )["train"]  # fmt: skip
    assert kept["label"][:] == [0.5]
    assert not caplog.text


@pytest.mark.parametrize(
    ("labels", "asked", "message"),
    [
        ([["a"], "b"], {}, r":2: column 'label' holds 'b'; several labels are a list"),
        (["b", ["a"]], {}, r":2: column 'label' holds \['a'\]; several labels need --problem_type multi_label"),
        ([["a"], None], {}, r":2: column 'label' holds None; several labels are a list, which may be empty"),
        ([["a", 0.5]], {}, r":1: column 'label' holds \['a', 0.5\]; a label is a word or a whole number"),
        ([["a", None]], {}, r":1: column 'label' holds \['a', None\]; a label is a word"),
        ([["a", ["b"]]], {}, r":1: column 'label' holds \['a', \['b'\]\]; a label is a word"),
        ([[0, 0, 1]], {}, r":1: column 'label' holds \[0, 0, 1\], with '0' more than once"),
        ([["a", "a "]], {}, r":1: .* with 'a' more than once"),
        (["a,,b"], {"label_separator": ","}, r":1: column 'label' holds 'a,,b'; a label is a word"),
        (["a", 0.5], {"label_separator": ","}, r":2: column 'label' holds 0.5; several labels are a list"),
        (["a"], {"problem_type": SEVERAL}, r":1: column 'label' holds 'a'; several labels are a list.*--label_sep"),
        ([0.5, "x"], {}, r":1: column 'label' holds 0.5; a label is a word or a whole number; to learn numbers"),
        ([0.5, 1], {}, r":1: column 'label' holds 0.5; a label is a word or a whole number; to learn numbers"),
        ([0.5, math.nan], {"problem_type": NUMBER}, r":2: column 'label' holds nan, not a number"),
        ([-math.inf], {"problem_type": NUMBER}, r":1: column 'label' holds -inf, not a number"),
        (["1e999"], {"problem_type": NUMBER}, r":1: column 'label' holds '1e999', not a number"),
        ([10**400], {"problem_type": NUMBER}, r":1: column 'label' holds 1000.*, not a number"),
        (["1_0"], {"problem_type": NUMBER}, r":1: column 'label' holds '1_0', not a number"),
        ([True], {"problem_type": NUMBER}, r":1: column 'label' holds True, not a number"),
        ([[1.0]], {"problem_type": NUMBER}, r":1: column 'label' holds \[1.0\], not a number"),
        (["a"], {"problem_type": NUMBER, "label_separator": ","}, "--problem_type regression: several columns, or a"),
        (["a"], {"label_separator": ""}, "--label_separator '': what stands between"),
        (["a"], {"label": "label,"}, "--label_column_name label,: names of columns, with a comma"),
        (["a"], {"label": "label,label"}, "they must be different columns"),
        (["a"], {"label": "label,text"}, "they must be different columns"),
    ],
)
def test_what_is_not_clear_is_refused_with_its_place(tmp_path, labels, asked, message):
    rows = [{"text": "a", "label": label} for label in labels]
    with pytest.raises(ValueError, match=message):
        read(dump(tmp_path / "x.jsonl", rows), **asked)


def test_a_column_of_zeros_and_ones_holds_nothing_else(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,joy,love\na,1,0\nb,1,2\n")
    with pytest.raises(ValueError, match=r"x.csv:3: column 'love' holds '2'; a column for one label holds 0 or 1"):
        read(path, label="joy,love")
    path.write_text("text,joy,love\na,1.0,False\nb, 0,true\n")
    assert read(path, label="joy,love")["label"][:] == [["joy"], ["love"]]
    with pytest.raises(ValueError, match=r"x.csv:1: no column 'hate'; it has: 'text', 'joy', 'love'"):
        read(path, label="joy,hate")
    train = dump(tmp_path / "train.jsonl", [{"text": "a", "joy": 1, "love": 0}])
    test = dump(tmp_path / "test.jsonl", [{"text": "a", "joy": -1, "love": -1}])
    assert list(data.read_labelled(DataArguments(train_file=train, test_file=test), label="joy,love")) == ["train"]


def test_class_weights(tmp_path):
    rows = [{"text": "t", "label": label} for label in "abbbcc"]
    train = read(dump(tmp_path / "x.jsonl", rows))
    labels = data.class_labels(train)
    expected = compute_class_weight("balanced", classes=np.array(labels), y=[row["label"] for row in rows])
    assert data.class_weights("balanced", train, labels, "label") == pytest.approx(expected.tolist())
    assert data.class_weights(None, train, labels, "label") is None
    assert data.class_weights(" b = 3,c=.5", train, labels, "label") == [1.0, 3.0, 0.5]
    several = [{"text": "t", "label": label} for label in (["a"], ["a", "b=c"], [], ["a"])]
    train = read(dump(tmp_path / "y.jsonl", several))
    assert data.class_weights("balanced", train, ["a", "b=c", "never"], "label") == [1 / 3, 3.0, 1.0]
    assert data.class_weights("b=c=2", train, ["a", "b=c"], "label") == [1.0, 2.0]
    for told, message in (
        ("a", "'a' is no label with its weight; give balanced, or"),
        ("a=1,", "'' is no label with its weight"),
        ("a=0", "'a=0' is no label with its weight"),
        ("a=-1", "'a=-1' is no label"),
        ("a=nan", "'a=nan' is no label"),
        ("x=1", "there is no label 'x'; there are: 'a', 'b=c'"),
        ("a=1,a=2", "the label 'a' has two weights"),
    ):
        with pytest.raises(ValueError, match=message):
            data.class_weights(told, train, ["a", "b=c"], "label")


def test_balanced_weights_of_words_are_counted_by_word(samples):
    labels = data.entity_labels(samples["train"])
    flat = [tag for tags in samples["train"]["ner_tags"] for tag in tags]
    seen = sorted(set(flat))
    expected = dict(zip(seen, compute_class_weight("balanced", classes=np.array(seen), y=flat), strict=True))
    found = data.class_weights("balanced", samples["train"], labels, "ner_tags")
    assert found == pytest.approx([expected.get(label, 1.0) for label in labels])


def test_goemotions_loads_as_it_is(shared):
    folder = shared / "data/goemotions"
    files = {"train_file": "train.tsv", "validation_file": "dev.tsv", "test_file": "test.tsv"}
    arguments = {flag: str(folder / name) for flag, name in files.items()}
    splits = data.read_labelled(DataArguments(**arguments, column_names="text,label,id"), label_separator=",")
    assert [len(split) for split in splits.values()] == [43410, 5426, 5427]
    for split, name in zip(splits.values(), files.values(), strict=True):
        cells = [line.split("\t") for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        assert split["text"][:] == [cell[0] for cell in cells]
        counts = Counter(label for cell in cells for label in cell[1].split(","))
        assert Counter(label for labels in split["label"] for label in labels) == counts
        assert set(counts) <= set(map(str, range(28)))
    labels = data.class_labels(splits["train"])
    assert labels == [str(i) for i in range(28)]
    data.check_labels(splits, labels, "label")


def test_sick_loads_as_it_is(shared, tmp_path):
    names = {"train": "SICK_train.txt", "validation": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
    for split, name in names.items():  # tables whose names end as those of column files do
        (tmp_path / f"{split}.tsv").write_bytes((shared / "data/sick" / name).read_bytes())
    arguments = DataArguments(**{f"{split}_file": str(tmp_path / f"{split}.tsv") for split in names})
    columns = {"text": "sentence_A", "text_pair": "sentence_B"}
    with pytest.raises(ValueError, match=r"train.tsv:2: column 'relatedness_score' holds '4.5'; .* to learn numbers"):
        data.read_labelled(arguments, label="relatedness_score", **columns)
    splits = data.read_labelled(arguments, label="relatedness_score", problem_type=NUMBER, **columns)
    entailment = data.read_labelled(arguments, label="entailment_judgment", **columns)
    assert [len(split) for split in splits.values()] == [4500, 500, 4927]
    for split in names:
        cells = [line.split("\t") for line in (tmp_path / f"{split}.tsv").read_text().splitlines()[1:]]
        for column, number in (("text", 1), ("text_pair", 2)):
            assert splits[split][column][:] == entailment[split][column][:] == [cell[number] for cell in cells]
        assert splits[split]["label"][:] == [float(cell[3]) for cell in cells]
        assert Counter(entailment[split]["label"]) == Counter(cell[4] for cell in cells)
    assert data.label_counts(splits["train"], "label").endswith("least 1, greatest 5")
