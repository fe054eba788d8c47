"""Each form of words: trained on for a few steps, predicted, and written back."""

import json

import conllu
import pytest

from finetune import data
from recipes import ner, predict

WORDS = [["Ada", "Byron", "ran"], ["#", "Oslo"], ["Ada", "saw", "Oslo", "."]] * 4
TAGS = [["B-PER", "I-PER", "O"], ["O", "B-LOC"], ["B-PER", "O", "B-LOC", "O"]] * 4
NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def rows():
    return zip(WORDS, TAGS, strict=True)


def treebank():
    lines = []
    for number, (words, tags) in enumerate(rows()):
        lines += ["# newdoc"] * (number % 3 == 0) + [f"# sent_id = {number}"]
        for i, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
            pairs = "Gloss=x" + f"|NER={tag}" * (tag != "O")
            if i == 2 < len(words):
                lines.append("\t".join([f"{i}-{i + 1}", word, *"_" * 7, "A=b"]))
            lines.append("\t".join([str(i), word, word.lower(), "X", "_", "_", "0", "root", "_", pairs]))
        lines.append("")
    return "\n".join(lines) + "\n"


def table():
    lines = ["nr;Word;POS;Tag"]
    for number, (words, tags) in enumerate(rows()):
        pairs = zip(words, tags, strict=True)
        lines += [f"{number if i == 0 else ''};{word};X;{tag}" for i, (word, tag) in enumerate(pairs)]
    return "\n".join(lines) + "\n"


def columns():
    lines = ["pos|word|ner"]
    for words, tags in rows():
        lines += ["# id 7"] + [f"X|{word}|{tag}" for word, tag in zip(words, tags, strict=True)] + [""]
    return "\n".join(lines) + "\n"


def json_list():
    found = [{"tokens": words, "ner_tags": list(map(NAMES.index, tags))} for words, tags in rows()]
    return json.dumps(found, indent=1)


FORMS = {
    "a.conllu": (treebank, ["--tag_column", "NER"]),
    "a.csv": (table, ["--delimiter", ";", "--sentence_column", "nr"]),
    "a.tbl": (columns, ["--file_format", "conll", "--delimiter", "|", "--word_column=word", "--tag_column=ner"]),
    "a.json": (json_list, ["--label_names", ",".join(NAMES)]),
}
TINY = ["--model_name_or_path", "rnn", "--hidden_size", "8", "--embedding_size", "8", "--char_features", "none"]
TINY += ["--max_steps", "3", "--disable_tqdm", "true", "--eval_strategy", "no", "--save_strategy", "no"]


def train(folder, name):
    text, flags = FORMS[name]
    (folder / name).write_text(text(), encoding="utf-8")
    files = ["--train_file", str(folder / name), "--test_file", str(folder / name)]
    ner.main([*TINY, *files, *flags, "--output_dir", str(folder / "run")])
    return folder / "run"


def said(folder, *flags):
    """The labels that the command gives to the words of a file."""
    out = folder / "said.jsonl"
    predict.main(["--model_name_or_path", str(folder / "run"), "--output_file", str(out), *map(str, flags)])
    return [json.loads(line)["predicted"] for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_trained_on(tmp_path, name):
    run = train(tmp_path, name)
    found = data.read_conll(run / "predictions_test.conll", tag_column=1, written_here=True)
    assert (found.words, found.tags) == (WORDS, TAGS)
    results = json.loads((run / "all_results.json").read_text())
    assert results["test_words"] == results["test_words_scored"] == sum(map(len, WORDS))


def test_a_treebank_comes_back_with_other_tags(tmp_path):
    train(tmp_path, "a.conllu")
    file, back = tmp_path / "a.conllu", tmp_path / "back.conllu"
    labels = said(tmp_path, "--input_file", file, "--input_format", "conllu")
    asked = ["--model_name_or_path", str(tmp_path / "run"), "--input_file", str(file), "--input_format", "conllu"]
    for scheme in ("IOB2", "IOBES"):
        predict.main([*asked, "--output_file", str(back), "--tagging_scheme", scheme])
        wanted = labels if scheme == "IOB2" else [data.from_iob2(tags, scheme) for tags in labels]
        assert data.read_treebank(back, None, "NER").tags == wanted
        before, after = (path.read_text(encoding="utf-8").split("\n") for path in (file, back))
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert one.split("\t")[:9] == other.split("\t")[:9]
            if not one[:1].isdigit() or "-" in one.split("\t")[0]:
                assert one == other
    assert [tree.metadata for tree in conllu.parse(treebank())] == [
        tree.metadata for tree in conllu.parse(back.read_text(encoding="utf-8"))
    ]
    predict.main([*asked, "--output_file", str(back), "--tag_column", "upos"])
    assert data.read_treebank(back, None, "upos").tags == labels
    assert data.read_treebank(back, None, "NER").tags == TAGS  # the gold tags stay beside
    with pytest.raises(SystemExit, match=r"a.conllu:3: --tag_column 10: no such column"):
        predict.main([*asked, "--output_file", str(back), "--tag_column", "10"])


def test_columns_come_back_with_one_more(tmp_path):
    train(tmp_path, "a.tbl")
    asked = [
        "--input_file",
        tmp_path / "a.tbl",
        "--input_format",
        "conll",
        "--delimiter",
        "|",
        "--word_column",
        "word",
    ]
    labels = said(tmp_path, *asked)
    back = tmp_path / "back.conll"
    flags = ["--model_name_or_path", str(tmp_path / "run"), "--output_file", str(back), "--tagging_scheme", "BILOU"]
    predict.main([*flags, *map(str, asked)])
    wanted = iter(tag for tags in labels for tag in data.from_iob2(tags, "BILOU"))
    expected = [
        line + ("|predicted" if line.startswith("pos|") else f"|{next(wanted)}" if "|" in line else "")
        for line in columns().split("\n")
    ]
    # Only `# id 7`, which has no columns, is a comment; `#` is a word.
    assert back.read_text(encoding="utf-8").split("\n") == expected
    # The run knows the name of its column. Without it, the first column, of other words, would be labelled.
    first = back.read_bytes()
    predict.main([*flags, *map(str, asked[:-2])])
    assert back.read_bytes() == first


@pytest.mark.parametrize("name", ["a.conllu", "a.conll"])
def test_labels_come_back_in_the_scheme_of_the_input(name, tmp_path, capsys):
    """Not in IOB2, in which the model gives them, unless the flag asks for it."""
    train(tmp_path, "a.conllu")
    file, back = tmp_path / name, tmp_path / f"back_{name}"
    if name == "a.conllu":
        text = file.read_text(encoding="utf-8").replace("NER=B-LOC", "NER=S-LOC")
        file.write_text(
            text.replace("NER=B-PER\n", "NER=S-PER\n").replace("NER=I-PER", "NER=E-PER"), encoding="utf-8"
        )
    else:
        data.write_conll(file, WORDS, [data.from_iob2(tags, "IOBES") for tags in TAGS])
    asked = ["--input_file", file, "--input_format", name.removeprefix("a.")]
    flags = ["--model_name_or_path", str(tmp_path / "run"), "--output_file", str(back), *map(str, asked)]
    predict.main(flags)
    assert f"{file}: the labels are written in IOBES, as its tags are" in capsys.readouterr().err
    by_itself = back.read_bytes()
    for scheme, same in (("IOBES", True), ("IOB2", False)):
        predict.main([*flags, "--tagging_scheme", scheme])
        assert (back.read_bytes() == by_itself) is same
        assert "are written in" not in capsys.readouterr().err
