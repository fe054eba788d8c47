"""Pairs of texts in every form, what is refused, and rows of both sides."""

import json
from types import SimpleNamespace

import datasets
import pytest

from finetune import data
from finetune.data.numbers_in_words import in_words, number_game, ordinal
from finetune.data.readers import SPLITS

PAIRS = [('a dog , "runs"', 'ein Hund, "läuft"'), ("two\u2028cats", "zwei Katzen"), ("  three  ", "drei")]


def flags(**given):
    names = ["dataset_name", "dataset_config_name", "column_names", "max_train_samples", "max_eval_samples"]
    names += [f"{split}{part}_file" for split in SPLITS for part in ("", "_target")]
    return SimpleNamespace(**dict.fromkeys(names) | {key: value and str(value) for key, value in given.items()})


def lines(path, texts, end="\n"):
    path.write_bytes("".join(text + end for text in texts).encode())
    return path


def as_pairs(dataset):
    return list(zip(dataset["text"], dataset["target"], strict=True))


def test_every_form_gives_the_same_pairs(tmp_path):
    sources, targets = zip(*PAIRS, strict=True)
    for end in ("\n", "\r\n"):
        files = {"train_file": lines(tmp_path / "a.en", sources, end)}
        files["train_target_file"] = lines(tmp_path / "a.de", targets, end)
        dataset = data.read_parallel(flags(**files))["train"]
        assert as_pairs(dataset) == PAIRS
        assert dataset["line"][:] == [1, 2, 3]

    rows = [{"en": source, "de": target} for source, target in PAIRS]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"translation": row}) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "a.tsv").write_text("en\tde\n" + "".join(f"{row['en']}\t{row['de']}\n" for row in rows))
    (tmp_path / "bare.tsv").write_text("".join(f"{row['en']}\t{row['de']}\n" for row in rows))
    quoted = ('"' + cell.replace('"', '""') + '"' for row in rows for cell in row.values())
    (tmp_path / "a.csv").write_text(
        '"en","de"\n' + "".join(f"{a},{b}\n" for a, b in zip(quoted, quoted, strict=True))
    )
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    datasets.Dataset.from_list([{"translation": row} for row in rows]).save_to_disk(tmp_path / "saved")
    for name in ("a.jsonl", "b.jsonl", "a.tsv", "a.csv", "a.parquet", "saved"):
        read = data.read_parallel(flags(train_file=tmp_path / name), "en", "de")["train"]
        assert as_pairs(read) == PAIRS, name
    read = data.read_parallel(flags(train_file=tmp_path / "bare.tsv", column_names="en,de"), "de", "en")["train"]
    assert as_pairs(read) == [pair[::-1] for pair in PAIRS]


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [
        (
            "a|b|c",
            "x|y",
            r"a.de:2: this is the last line, and .*a.en has 3; line n of one file must belong to line n",
        ),
        ("a|b", "x|y|z", r"a.en:2: this is the last line, and .*a.de has 3"),
        (
            "a|b",
            "x| ",
            r"a.de:2: an empty line; a pair needs a text on both sides, so remove this line here and in .*a.en",
        ),
        ("|b", "x|y", r"a.en:1: an empty line; .* in .*a.de"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, sources, targets, message):
    files = {"train_file": lines(tmp_path / "a.en", sources.split("|"))}
    files["train_target_file"] = lines(tmp_path / "a.de", targets.split("|"))
    with pytest.raises(ValueError, match=message):
        data.read_parallel(flags(**files))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.jsonl",
            '{"en": "a", "de": "b"}\n{"en": "a", "de": " "}\n',
            r"a.jsonl:2: 'de' is ' '; a pair needs a text",
        ),
        ("a.jsonl", '{"en": "a", "de": 7}\n', r"a.jsonl:1: 'de' is 7; a pair needs a text on both sides"),
        (
            "a.jsonl",
            '{"en": "a", "fr": "b"}\n',
            r"no column 'de'; it has: 'en', 'fr'; name them with --source_column_name",
        ),
        ("a.tsv", "a\tb\n", r"no column 'en'; it has: 'a', 'b'; name them with --source_column_name"),
        (
            "a.jsonl",
            '{"translation": {"en": "a"}}\n',
            r"a.jsonl:1: the translation has no 'de'; its languages are 'en'",
        ),
        (
            "a.en",
            "a\n",
            r"--train_file .*a.en: unknown form '.en'; for a file of lines give its other side as --train_target",
        ),
    ],
)
def test_tables_that_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        data.read_parallel(flags(train_file=tmp_path / name), "en", "de")


def test_a_test_split_without_targets_is_left_out(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}\n')
    (tmp_path / "t.jsonl").write_text('{"source": "a", "target": null}\n')
    found = data.read_parallel(flags(train_file=tmp_path / "a.jsonl", test_file=tmp_path / "t.jsonl"))
    assert list(found) == ["train"]
    assert "the test split has no target texts" in caplog.text


def test_a_share_is_held_out_for_validation(tmp_path):
    sources = [f"text {i % 50}" for i in range(100)]  # each twice
    files = {"train_file": lines(tmp_path / "a.en", sources)}
    files["train_target_file"] = lines(tmp_path / "a.de", [f"Text {i}" for i in range(100)])
    config = flags(**files)
    config.eval_strategy, config.validation_split_percentage = "epoch", 10
    found = data.read_parallel(config)
    assert [len(found[split]) for split in ("train", "validation")] == [90, 10]
    assert not set(found["train"]["text"]) & set(found["validation"]["text"])
    for split in found.values():
        for text, target, line in zip(split["text"], split["target"], split["line"], strict=True):
            assert (text, target) == (sources[line - 1], f"Text {line - 1}")


def test_rows_of_both_sides(tokenizers):
    tokenizer, target = tokenizers["unigram"], tokenizers["byte-bpe"]
    sources, targets = ["Grace Hopper was born", "a", "b c"], ["in New York", "x y z " * 9, "y"]
    encoded = data.encode_pairs(sources, targets, tokenizer, target, end=2, max_seq_length=6, max_target_length=20)
    kept = [tokenizer(text)["input_ids"] for text in sources]
    kept[0] = tokenizer(sources[0], truncation=True, max_length=6)["input_ids"]
    side = encoded.rows.sides["labels"]
    for i, row in enumerate(kept):
        assert encoded.rows.take([i]).tokens["input_ids"].tolist() == row
        whole = [*target(targets[i], add_special_tokens=False)["input_ids"], 2]
        assert side.values[side.offsets[i] : side.offsets[i + 1]].tolist() == whole[:20]
    assert (encoded.sources_cut, encoded.targets_cut) == (1, 1)
    assert str(encoded).endswith("1 sources cut at max_seq_length, 1 targets at max_target_length")


def test_what_a_tokenizer_cannot_write_is_told(tokenizers):
    texts = ["in New York", "born there"]
    for kind, altered in (("byte-bpe", 0), ("wordpiece", 1)):  # this one has lower case alone
        encoded = data.encode_pairs(texts, texts, tokenizers[kind], tokenizers[kind], end=2)
        assert encoded.altered == altered
        assert ("1 targets that this tokenizer cannot write as they are" in str(encoded)) == bool(altered)


def test_the_game():
    pairs = number_game(500)
    assert len({source for source, _ in pairs}) == 500
    assert pairs == number_game(500)
    assert pairs != number_game(500, seed=1)
    known = {
        0: "zero",
        13: "thirteen",
        40: "forty",
        99: "ninety-nine",
        100: "one hundred",
        812: "eight hundred and twelve",
    }
    assert {number: in_words(number) for number in known} == known
    assert [ordinal(day) for day in (1, 2, 3, 9, 12, 20, 21, 28)] == (
        ["first", "second", "third", "ninth", "twelfth", "twentieth", "twenty-first", "twenty-eighth"]
    )
    for source, target in pairs:
        parts, said = source.split(", "), target.split(", ")[::-1]
        for part, words in zip(parts, said, strict=True):
            if part[0].isdigit():
                number, what = part.split()
                assert words == f"{in_words(int(number))} {what}"
