"""`recipes/predict.py` as a user runs it: through pipes, from files, with mistakes."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import finetune
from finetune import data
from recipes import predict as recipe
from recipes.ner import NerConfig, finetune_ner
from recipes.predict import PredictConfig, predict_stream
from recipes.question_answering import QuestionConfig, finetune_questions
from recipes.sentiment import SentimentConfig, finetune_sentiment
from recipes.seq2seq import Seq2SeqConfig, train_seq2seq

ROOT = Path(__file__).parents[2]
TINY = {
    "dataset_name": "samples",
    "max_train_samples": 60,
    "max_eval_samples": 40,
    "num_train_epochs": 12,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "hidden_size": 32,
    "embedding_size": 32,
    "dropout": 0.1,
    "eval_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def ner_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ner"
    finetune_ner(NerConfig(**TINY, output_dir=str(folder), model_name_or_path="gru"))
    return folder


@pytest.fixture(scope="module")
def sentiment_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sentiment"
    finetune_sentiment(SentimentConfig(**TINY, output_dir=str(folder), model_name_or_path="gru"))
    return folder


def start(*flags):
    return subprocess.Popen(
        [sys.executable, "recipes/predict.py", *map(str, flags)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def test_a_line_is_answered_before_the_next_one_is_sent(ner_run):
    process = start("--model_name_or_path", ner_run)
    expected = finetune.predict(ner_run, ["Ada flew to Oslo.", "", "Grace saw Rome."])
    for text, answer in zip(["Ada flew to Oslo.", "", "Grace saw Rome."], expected, strict=True):
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"text": text} | answer
    out, err = process.communicate(timeout=120)
    assert (out, process.returncode) == (b"", 0)
    assert err.decode().startswith("3 inputs labelled in ")


def test_what_comes_before_a_bad_line_is_answered(ner_run):
    lines = [{"text": "Ada flew."}, {"tokens": ["Ada", "flew"], "id": 7}, {"tokens": ["a", ""]}]
    out, err = start("--model_name_or_path", ner_run, "--input_format", "jsonl").communicate(
        "".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]).encode(), timeout=120
    )
    answers = [json.loads(line) for line in out.decode().splitlines()]
    assert [list(answer) for answer in answers] == [
        ["text", "tokens", "predicted", "scores", "entities"],
        ["tokens", "id", "predicted", "scores", "entities"],
    ]
    assert answers[1]["id"] == 7
    assert err.decode().splitlines() == ["error: standard input:3: the word '' is empty or breaks a line"]


def test_a_reader_that_has_read_enough_is_no_error(ner_run):
    process = start("--model_name_or_path", ner_run)
    process.stdin.write(b"Ada\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"Grace\n")
    process.stdin.flush()  # it stays open: the recipe must not wait for a line that nobody needs
    assert process.wait(timeout=120) == 1
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stderr.close()


def test_column_files_come_back_with_the_labels_of_the_evaluation(ner_run, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "CHUNK", 16)
    evaluated = data.read_conll(ner_run / "predictions_test.conll", tag_column=2)
    assert sum(tag != "O" for tags in evaluated.tags for tag in tags) >= 10
    config = PredictConfig(
        model_name_or_path=str(ner_run),
        input_file=str(ner_run / "predictions_test.conll"),
        output_file=str(tmp_path / "out.conll"),
    )
    assert predict_stream(config) == 40
    written = data.read_conll(tmp_path / "out.conll")
    assert (written.words, written.tags) == (evaluated.words, evaluated.tags)
    assert [path.name for path in tmp_path.iterdir()] == ["out.conll"]

    (tmp_path / "words").write_text("".join(" ".join(words) + "\n" for words in evaluated.words))
    config.input_file, config.input_format = str(tmp_path / "words"), "words"
    config.output_file = str(tmp_path / "out.jsonl")
    predict_stream(config)
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["predicted"] for answer in answers] == evaluated.tags


SENTENCES = [["Ada", "flew", "to", "Oslo", "."], ["#Rome", "#"], ["Grace", "Hopper", "saw", "Rome"]]
FORMS = {  # the rows of a sentence, what stands before it, and what after all of them
    "germeval.tsv": (lambda i, word: f"{i + 1}\t{word}\tB-PER\tO", "#\tn-tv.de vom 26.02.2005 [2005-02-26] ", ""),
    "conll2003.conll": (
        lambda i, word: f"{word} NN  B-NP O",
        "-DOCSTART- -X- -X- O\n\n# sent_id = S-1",
        "\n\n# end\n",
    ),
    "words.conll": (lambda i, word: word, "# text = a", "#end document"),
    "ud.conllu": (
        lambda i, word: (
            (f"{i + 1}-{i + 2}\tx" + "\t_" * 8 + "\n") * (i == 1) + f"{i + 1}\t{word}\t{word}" + "\t_" * 7
        ),
        "# newdoc\n# sent_id = 1",
        "\n",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_column_file_comes_back_line_by_line(name, ner_run, tmp_path, monkeypatch):
    """All of its lines, with the label in one more column, so that it can be pasted beside the input."""
    monkeypatch.setattr(recipe, "CHUNK", 2)
    row, before, after = FORMS[name]
    sentences = [before + "\n" + "\n".join(row(i, word) for i, word in enumerate(words)) for words in SENTENCES]
    text = "\n\n".join(sentences) + "\n" + after
    (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode())
    config = PredictConfig(
        model_name_or_path=str(ner_run),
        input_file=str(tmp_path / name),
        input_format="conll",
        output_file=str(tmp_path / "out.conll"),
        word_column=1 if name.startswith("germeval") else None,
    )
    assert predict_stream(config) == 3
    labels = iter(label for answer in finetune.predict(ner_run, SENTENCES) for label in answer["predicted"])
    given = (text if text.endswith("\n") else text + "\n").split("\n")
    answered = (tmp_path / "out.conll").read_text().split("\n")
    rows = {line for words in SENTENCES for i, word in enumerate(words) for line in row(i, word).split("\n")}
    for line, out in zip(given, answered, strict=True):
        if line not in rows:
            assert out == line
            continue
        separator = " " if name.startswith("conll2003") else "\t"
        assert out == line + separator + ("_" if line.startswith("2-3") else next(labels))
    assert next(labels, None) is None

    config.output_file = str(tmp_path / "out.jsonl")
    predict_stream(config)
    found = [json.loads(line)["tokens"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == SENTENCES


def test_a_counting_column_is_not_labelled(ner_run, tmp_path):
    (tmp_path / "a.iob2").write_text("# sent_id = 1\n1\tAda\tB-PER\t-\n2\tflew\tO\t-\n")
    config = PredictConfig(
        model_name_or_path=str(ner_run),
        input_file=str(tmp_path / "a.iob2"),
        output_file=str(tmp_path / "b.iob2"),
    )
    with pytest.raises(ValueError, match=r"a.iob2:3: the first column counts the words; .*--word_column in predict"):
        predict_stream(config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.iob2"]


def test_the_first_column_of_a_run_is_no_number_to_label_in_conllu(ner_run, tmp_path):
    shutil.copytree(ner_run, tmp_path / "run")
    written = (tmp_path / "run/run.yaml").read_text()
    (tmp_path / "run/run.yaml").write_text(written.replace("text_column_name: tokens", "text_column_name: '0'"))
    row, before, after = FORMS["ud.conllu"]
    (tmp_path / "a.conllu").write_text(f"{before}\n{row(0, 'Ada')}\n{row(1, 'flew')}\n{after}")
    own = {"input_file": str(tmp_path / "a.conllu"), "output_file": str(tmp_path / "out.jsonl")}
    for word_column, words in ((None, ["Ada", "flew"]), (0, ["1", "2-3", "2"])):
        predict_stream(PredictConfig(model_name_or_path=str(tmp_path / "run"), word_column=word_column, **own))
        assert json.loads((tmp_path / "out.jsonl").read_text())["tokens"] == words


def test_a_column_of_other_tags_says_nothing_of_the_scheme(ner_run, tmp_path, capsys):
    """A file without the column of entities: its last column has chunks, in IOB1."""
    words = data.read_conll(ner_run / "predictions_test.conll", tag_column=2).words[:12]
    rows = ("".join(f"{word} NN I-NP\n" for word in sentence) + "\n" for sentence in words)
    (tmp_path / "in.conll").write_text("".join(rows))
    own = {"input_file": str(tmp_path / "in.conll"), "output_file": str(tmp_path / "out.conll")}
    predict_stream(PredictConfig(model_name_or_path=str(ner_run), word_column=0, **own))
    assert "are written in" not in capsys.readouterr().err
    said = data.read_conll(tmp_path / "out.conll", tag_column=3)
    assert said.tags == [answer["predicted"] for answer in finetune.predict(ner_run, words)]
    assert any(tag.startswith("B-") for tags in said.tags for tag in tags)


def test_samples_may_come_from_a_generator(sentiment_run):
    texts = ["good", "bad", "good"]
    assert finetune.predict(sentiment_run, (text for text in texts)) == finetune.predict(sentiment_run, texts)


def test_texts_with_labels(sentiment_run, tmp_path, capsys):
    rows = [line.split("\t") for line in (sentiment_run / "predictions_test.tsv").read_text().splitlines()[1:]]
    given = [{"text": row[0], "label": row[1]} for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in given))
    config = PredictConfig(model_name_or_path=str(sentiment_run), input_file=str(tmp_path / "in.jsonl"))
    assert predict_stream(config) == 40
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{key: answer[key] for key in ("text", "label")} for answer in answers] == given
    assert [answer["predicted"] for answer in answers] == [row[2] for row in rows]
    assert [answer["score"] for answer in answers] == pytest.approx([float(row[3]) for row in rows], abs=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_name_or_path": None}, "--model_name_or_path is missing"),
        ({"model_name_or_path": "gru"}, "--model_name_or_path gru: an untrained baseline"),
        ({"input_file": "{folder}/nope.jsonl"}, "--input_file .*nope.jsonl: No such file"),
        ({"input_file": "{folder}"}, "--input_file .*: a folder is of brat"),
        ({"input_file": "{folder}/in.txt", "input_format": "auto"}, "in.txt: give its format with --input_format"),
        ({"output_file": "{folder}/no/out.jsonl"}, "--output_file .*out.jsonl: the folder .*no does not exist"),
        ({"output_file": "{folder}/in.txt"}, "--output_file .*in.txt: this is the input file; give another name"),
        ({"output_file": "{folder}/out.xlsx"}, "--output_file .*out.xlsx: answers are text files; take .csv"),
        ({"output_file": "{folder}"}, "--output_file .*: this is a folder; give a file"),
        ({"output_file": ""}, "--output_file : give a file"),
        ({"input_format": "jsonl"}, "in.txt:1: not JSON"),
        (
            {"word_column": 1},
            "--word_column 1: only a column file or a table of words has columns of words, and the input "
            "format is text",
        ),
        ({"word_column": 1, "input_format": "conll"}, r"in.txt:1: 1 column\(s\), but 2 are needed"),
        ({"tag_column": "upos"}, "--tag_column upos: only a treebank has such a place for the labels, and the input"),
        ({"tagging_scheme": "IOBES"}, "--tagging_scheme IOBES: only column files, treebanks, and tables"),
        (
            {"model_name_or_path": "{sentiment}", "input_format": "auto", "input_file": "{folder}/in.csv"}
            | {"word_column": "text"},
            "--word_column text: this model labels texts, not words; leave it out",
        ),
        ({"input_format": "text"}, r"in.txt:2: not UTF-8 \(byte 0xff\)"),
        (
            {"model_name_or_path": "{sentiment}", "output_file": "{folder}/o.conll"},
            "--output_format conll: this model",
        ),
        ({"model_name_or_path": "{sentiment}", "input_format": "words"}, "in.txt:1: this model labels texts"),
        ({"max_seq_length": 7}, "--max_seq_length 7: must be at least 8"),
    ],
)
def test_a_refused_input_leaves_no_output(change, message, ner_run, sentiment_run, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"Ada\n\xff\n")
    (tmp_path / "in.csv").write_text("id,text\n1,Ada\n")
    (tmp_path / "out.jsonl").write_text("older answers")
    settings = {
        "model_name_or_path": str(ner_run),
        "input_file": str(tmp_path / "in.txt"),
        "input_format": "text",
        "output_file": str(tmp_path / "out.jsonl"),
    }
    places = {"folder": tmp_path, "sentiment": sentiment_run}
    change = {key: value.format(**places) if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises(ValueError, match=message):
        predict_stream(PredictConfig(**settings | change))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "in.txt", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "older answers"


def test_keys_that_an_answer_would_replace_are_refused(sentiment_run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "good", "id": 1}\n{"text": "bad", "score": 5}\n')
    config = PredictConfig(
        model_name_or_path=str(sentiment_run),
        input_file=str(tmp_path / "in.jsonl"),
        output_file=str(tmp_path / "out.jsonl"),
    )
    with pytest.raises(
        ValueError, match=r"in.jsonl:2: the answer needs the key 'score'; rename this key in the input"
    ):
        predict_stream(config)
    assert not (tmp_path / "out.jsonl").exists()


def test_links_and_pipes_stay_what_they_are(ner_run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "Ada flew."}\n')
    config = PredictConfig(model_name_or_path=str(ner_run), input_file=str(tmp_path / "in.jsonl"))
    (tmp_path / "target").write_text("older answers")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        for name in ("link", "pipe"):
            config.output_file = str(tmp_path / name)
            predict_stream(config)
        said = reader.communicate(timeout=60)[0]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "pipe").is_fifo()
    assert said == (tmp_path / "target").read_text()
    assert json.loads(said)["text"] == "Ada flew."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "link", "pipe", "target"]


def test_a_full_disk_is_one_line(ner_run):
    process = start("--model_name_or_path", ner_run, "--output_file", "/dev/full")
    _, said = process.communicate(b"Ada flew to Oslo.\n", timeout=120)
    assert process.returncode == 1
    assert said.decode().splitlines()[-1].endswith("error: /dev/full: No space left on device")


def test_the_column_and_the_windows_are_those_of_the_run(tmp_path):
    """Words in the second column; and a checkpoint has no run.yaml, but tells of its run all the same."""
    sentences = data.read_tagged(NerConfig(dataset_name="samples"))["train"].select(range(30))
    lines = [
        "".join(
            f"{i}\t{word}\t{tag}\n" for i, (word, tag) in enumerate(zip(row["tokens"], row["ner_tags"], strict=True))
        )
        for row in sentences
    ]
    (tmp_path / "a.conll").write_text("\n".join(lines))
    files = dict.fromkeys(("train_file", "test_file"), str(tmp_path / "a.conll"))
    own = TINY | files | {"dataset_name": None, "text_column_name": "1", "max_seq_length": 12, "doc_stride": 5}
    own |= {"save_strategy": "epoch", "load_best_model_at_end": False}
    finetune_ner(NerConfig(**own, output_dir=str(tmp_path / "run"), model_name_or_path="gru"))
    checkpoint = max((tmp_path / "run").glob("checkpoint-*"))
    for folder in (tmp_path / "run", checkpoint):
        config = PredictConfig(
            model_name_or_path=str(folder),
            input_file=str(tmp_path / "a.conll"),
            output_file=str(tmp_path / "b.conll"),
        )
        predict_stream(config)
        found = data.read_conll(tmp_path / "b.conll", 1)
        assert found.words == sentences["tokens"][:]
        evaluated = data.read_conll(tmp_path / "run/predictions_test.conll", tag_column=2)
        assert found.tags == evaluated.tags
        assert any(tag != "O" for tags in found.tags for tag in tags)
        predictor = finetune.load_predictor(folder)
        assert (predictor.max_seq_length, predictor.doc_stride) == (12, 5)


@pytest.mark.parametrize("kind", ["several", "windows"])
def test_a_checkpoint_answers_as_its_run(kind, tmp_path):
    """The last epoch is the best one here, so its checkpoint has the weights and the threshold of the run."""
    words = {"good": "a", "fine": "b", "bad": "c"}
    rows = [
        {"text": f"{'so ' * 12}{word} {'x ' * (i % 3)}", "label": [label, "d"] if kind == "several" else label}
        for i in range(12)
        for word, label in words.items()
    ]
    own = TINY | {"dataset_name": None, "num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
    own |= {"model_name_or_path": "gru", "max_seq_length": 8, "load_best_model_at_end": False}
    config = SentimentConfig(**own, long_texts="window", output_dir=str(tmp_path / "run"))
    finetune_sentiment(config, {"train": rows, "validation": rows})
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    texts = [row["text"] for row in rows[:6]]
    answers = [finetune.predict(folder, texts) for folder in (tmp_path / "run", checkpoint)]
    assert [one["predicted"] for one in answers[0]] == [one["predicted"] for one in answers[1]]
    settings = [json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "run", checkpoint)]
    assert settings[1]["long_texts"] == "window"
    if kind == "several":
        assert settings[0]["threshold"] == settings[1]["threshold"] != 0.5


def test_a_model_of_the_hub_reads_its_inputs_as_its_run_did(sentiment_run, tmp_path, monkeypatch):
    """`--push_to_hub` uploads run.yaml, too. This is the Hub's cache as it is on a disk."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    snapshot = tmp_path / "hub/models--ada--texts/snapshots" / ("0" * 40)
    shutil.copytree(sentiment_run, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("0" * 40)
    text = (snapshot / "run.yaml").read_text()
    (snapshot / "run.yaml").write_text(text.replace("max_seq_length: 128", "max_seq_length: 23"))
    predictor = finetune.load_predictor("ada/texts")
    assert (predictor.max_seq_length, predictor.pairs) == (23, False)
    (snapshot / "run.yaml").unlink()
    assert finetune.load_predictor("ada/texts").pairs is None


def test_the_columns_of_the_training_are_found_in_every_task(tmp_path):
    """The files of the training are labelled, in each form, without a flag."""
    passages = [{"frage": f"Who ran {i}?", "kontext": f"Ada ran {i} miles.", "antwort": "Ada"} for i in range(8)]
    asked = [row | {"antwort": {"text": ["Ada"], "answer_start": [0]}} for row in passages]
    pairs = [{"von": f"one {i}", "nach": f"two {i}"} for i in range(8)]
    reviews = [{"id": i, "review": word, "text": "a title", "label": word} for i, word in enumerate(("x", "y") * 4)]
    own = {
        key: TINY[key] for key in ("hidden_size", "embedding_size", "eval_strategy", "save_strategy", "disable_tqdm")
    }
    own |= {"max_steps": 1}
    finetune_questions(
        QuestionConfig(
            **own, question_column_name="frage", context_column_name="kontext", answer_column_name="antwort",
            model_name_or_path="bilstm", output_dir=str(tmp_path / "questions"),
        ),
        {"train": asked},
    )  # fmt: skip
    named = {"source_column_name": "von", "target_column_name": "nach", "vocab_size": 300}
    train_seq2seq(
        Seq2SeqConfig(**own, **named, model_name_or_path="lstm2lstm", output_dir=str(tmp_path / "pairs")),
        {"train": pairs},
    )
    config = SentimentConfig(
        **own, text_column_name="review", model_name_or_path="rnn", output_dir=str(tmp_path / "texts")
    )
    finetune_sentiment(config, {"train": reviews})
    for name, rows, read in (
        ("questions", passages, lambda row: (row["frage"], row["kontext"])),
        ("pairs", pairs, lambda row: row["von"]),
        ("texts", reviews, lambda row: row["review"]),
    ):
        said = finetune.predict(tmp_path / name, [read(row) for row in rows])
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with (tmp_path / "in.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for ending in ("jsonl", "csv"):
            out = tmp_path / "out.jsonl"
            predict_stream(
                PredictConfig(
                    model_name_or_path=str(tmp_path / name),
                    input_file=str(tmp_path / f"in.{ending}"),
                    output_file=str(out),
                )
            )
            answers = [json.loads(line) for line in out.read_text().splitlines()]
            assert [{key: row[key] for key in one} for row, one in zip(answers, said, strict=True)] == said
    with pytest.raises(ValueError, match=r"in.jsonl:1: no key 'title'; it has: 'id', 'review', 'text', 'label'"):
        predict_stream(
            PredictConfig(
                model_name_or_path=str(tmp_path / "texts"),
                input_file=str(tmp_path / "in.jsonl"),
                output_file=str(tmp_path / "no.jsonl"),
                text_column_name="title",
            )
        )


def test_several_processes_need_a_file(monkeypatch, ner_run):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--input_file -: each of the processes reads the input; give a file"):
        predict_stream(PredictConfig(model_name_or_path=str(ner_run)))


def test_output_is_utf_8_whatever_the_locale(ner_run, tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text('{"text": "Zoë 東"}\n')
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    predict_stream(PredictConfig(model_name_or_path=str(ner_run), input_file=str(tmp_path / "in.jsonl")))
    assert json.loads(raw.getvalue().decode("utf-8"))["text"] == "Zoë 東"


def test_words_do_not_steer_a_terminal(monkeypatch):
    """Files and pipes get every character; a terminal would obey some of them."""
    for terminal in (True, False):
        stream = io.StringIO()
        stream.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stdout", stream)
        with recipe.opened_output("-") as output:
            output.write("a\x1b[2Jb\tO\n\u200d\n")
            output.flush()
        assert stream.getvalue() == ("a\\x1b[2Jb\tO\n\u200d\n" if terminal else "a\x1b[2Jb\tO\n\u200d\n")


def test_a_form_of_several_files_makes_a_folder_whole_or_not_at_all(ner_run, tmp_path, monkeypatch):
    files = data.OutputForm(files=lambda record, answer: {f"{record.row['id']}.txt": " ".join(answer["tokens"])})
    monkeypatch.setitem(data.OUTPUT_FORMS, "files", files)
    config = PredictConfig(model_name_or_path=str(ner_run), input_file=str(tmp_path / "in.jsonl"))
    config.output_format, config.output_file = "files", str(tmp_path / "out")

    def names(lines):
        (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": i, "text": f"Ada {i}"}) + "\n" for i in lines))
        predict_stream(config)
        return sorted((path.name, path.read_text()) for path in (tmp_path / "out").iterdir())

    for bad in ((7, 7), ("a", "../b")):
        with pytest.raises(ValueError, match=f"'{bad[1]}.txt' is no name of a new file in it"):
            names(bad)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert names((7, 8)) == [("7.txt", "Ada 7"), ("8.txt", "Ada 8")]
    with pytest.raises(ValueError, match="this form has several files; give a new or an empty folder"):
        names((9,))
