"""Each form of words: trained on for a few steps, predicted, and written back."""

import csv
import json
import subprocess
import sys

import conllu
import pytest

import finetune
from finetune import data
from recipes import export, ner, predict

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


def rows_of(path, delimiter):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_a_table_of_words_comes_back_with_two_more_columns(tmp_path, caplog):
    run = train(tmp_path, "a.csv")
    file, back = tmp_path / "a.csv", tmp_path / "back.csv"
    answers = finetune.predict(run, WORDS, top_k=2)
    wanted = [cell for own in answers for cell in zip(own["predicted"], own["scores"], own["top_k"], strict=True)]
    asked = ["--model_name_or_path", str(run), "--input_file", str(file), "--delimiter", ";"]
    predict.main([*asked, "--output_file", str(back), "--top_k", "2"])  # the run knows the rest
    assert sum("a.csv:1: taken as --word_column 'Word'" in told for told in caplog.messages) == 1
    before, after = rows_of(file, ";"), rows_of(back, ";")
    assert after[0] == [*before[0], "predicted", "score", "top_k"]
    assert [row[:4] for row in after] == before
    assert [(tag, float(score), json.loads(best)) for *_, tag, score, best in after[1:]] == wanted
    assert data.read_word_table(back, "Word", "predicted", "nr", delimiter=";").words == WORDS

    # The labels have the scheme of the tags that are there; a flag says another one.
    other = tmp_path / "iobes.csv"
    tags = iter(tag for tags in TAGS for tag in data.from_iob2(tags, "IOBES"))
    lines = file.read_text(encoding="utf-8").splitlines()
    other.write_text("\n".join([lines[0], *(f"{line.rpartition(';')[0]};{next(tags)}" for line in lines[1:])]))
    for flags, scheme in (([], "IOBES"), (["--tagging_scheme", "IOE2"], "IOE2")):
        predict.main([*asked[:3], str(other), *asked[4:], *flags, "--output_file", str(back)])
        written = iter(tag for own in answers for tag in data.from_iob2(own["predicted"], scheme))
        assert [row[4] for row in rows_of(back, ";")[1:]] == list(written)

    # As lines of JSON, and as a column file.
    assert said(tmp_path, *asked[2:]) == [own["predicted"] for own in answers]
    predict.main([*asked, "--output_file", str(tmp_path / "back.conll")])
    assert data.read_conll(tmp_path / "back.conll").words == WORDS
    with pytest.raises(SystemExit, match=r"back.csv:1: the answer needs the column 'predicted'; rename this column"):
        predict.main([*asked[:3], str(back), *asked[4:], "--output_file", str(tmp_path / "again.csv")])
    assert not (tmp_path / "again.csv").exists()
    for text, message in (
        (
            "id;text\n1;Ada ran\n",
            r"iobes.csv:1: the column of --word_column is not clear.* give --input_format csv or",
        ),
        ("nr;Word\n1;Ada\n2;ran\n1;.\n", r"iobes.csv:4: the sentence '1' was there before \(line 2\)"),
        ("nr;Word\n1;Ada\n;\n", r"iobes.csv:3: the word '' is empty"),
        ("nr;Word\n1\n", r"iobes.csv:2: 1 column\(s\), but the header has 2"),
    ):
        other.write_text(text)
        with pytest.raises(SystemExit, match=message):
            predict.main([*asked[:3], str(other), *asked[4:]])

    exported = ["--model_name_or_path", str(run), "--output_dir", str(tmp_path / "onnx"), "--precision", "float32"]
    export.main(exported)
    predict.main([*asked, "--output_file", str(back)])
    fast = [*asked[2:], "--model_name_or_path", str(tmp_path / "onnx"), "--runtime", "onnx"]
    predict.main([*fast, "--output_file", str(tmp_path / "fast.csv")])
    assert [row[:5] for row in rows_of(tmp_path / "fast.csv", ";")] == [row[:5] for row in rows_of(back, ";")]


def test_a_table_that_arrives_slowly_is_labelled_by_sentence(tmp_path):
    run = train(tmp_path, "a.csv")
    flags = ["--input_format", "table", "--delimiter", ";", "--output_format", "csv"]
    command = [sys.executable, "-m", "recipes", "predict", "--model_name_or_path", str(run), *flags]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        running.stdin.write("nr;Word\n1;Ada\n;ran\n2;Oslo\n")
        running.stdin.flush()
        # The second sentence is not yet at its end.
        first = [running.stdout.readline() for _ in range(3)]
        running.stdin.write(";.\n")
        rest = running.communicate()[0].splitlines()
    assert first[0] == "nr;Word;predicted;score\n"
    rows = [line.rstrip("\n").split(";") for line in [*first[1:], *rest]]
    assert [row[:2] for row in rows] == [["1", "Ada"], ["", "ran"], ["2", "Oslo"], ["", "."]]
    wanted = finetune.predict(run, [["Ada", "ran"], ["Oslo", "."]])
    assert [row[2] for row in rows] == [tag for own in wanted for tag in own["predicted"]]


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
