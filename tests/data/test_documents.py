"""Corpora: forms, guards, and documents in arrays on the disk."""

import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune import data
from finetune.arguments import DEFAULT_MODEL
from finetune.models import load_tokenizer
from recipes.pretrain import PretrainConfig

TEXT = "One sentence.\nAnother one here.\n\n\n  \nThe second document.\n"


def corpus(path, **options):
    settings = {"train_file": str(path), "validation_split_percentage": 0} | options
    return data.read_corpus(PretrainConfig(**settings))["train"][0]


def texts(corpus):
    return [document.sentences for document in corpus]


def test_text_with_a_sentence_a_line(tmp_path):
    path = tmp_path / "en.txt"
    path.write_text(TEXT)
    found = corpus(path)
    assert texts(found) == [["One sentence.", "Another one here."], ["The second document."]]
    assert texts(found) == texts(found)  # as often as is asked
    assert [document.line for document in found] == [1, 6]
    assert found.language == "en"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends_and_byte_order_mark(tmp_path, end):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode().replace(b"\n", end))
    assert texts(corpus(path)) == [["One sentence.", "Another one here."], ["The second document."]]
    assert [document.line for document in corpus(path)] == [1, 6]


def test_free_text_is_split(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Dr. Smith lives in\nthe U.S. and works. A second\nsentence!\n\nAnother text.\n")
    expected = [["Dr. Smith lives in the U.S. and works.", "A second sentence!"], ["Another text."]]
    assert texts(corpus(path, sentences="split")) == expected


def test_forms_of_rows(tmp_path):
    rows = [{"body": "One.\nTwo."}, {"body": ["Three.", "Four."]}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert texts(corpus(path, text_column_name="body")) == [["One.", "Two."], ["Three.", "Four."]]
    saved = datasets.Dataset.from_list([{"text": "One. Two.\nThree."}, {"text": "Four."}])
    saved.save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "a.parquet")
    for source in ("saved", "a.parquet"):
        assert texts(corpus(tmp_path / source)) == [["One. Two.", "Three."], ["Four."]]
        assert texts(corpus(tmp_path / source, sentences="split"))[0] == ["One.", "Two.", "Three."]
    splits = data.read_corpus(PretrainConfig(dataset_name=str(tmp_path / "saved"), validation_split_percentage=50))
    assert [texts(splits[split][0]) for split in ("train", "validation")] == [[["Four."]], [["One. Two.", "Three."]]]


def test_several_files_and_a_held_out_share(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{name} {i}." for i in range(100)))
    given = {"train_file": f"{tmp_path}/*.txt", "objective": "xlm-r"}
    splits = data.read_corpus(PretrainConfig(**given, validation_split_percentage=10))
    assert [found.language for found in splits["train"]] == ["a", "b"]
    for train, held in zip(splits["train"], splits["validation"], strict=True):
        assert len(list(held)) == 10
        joined = sorted(texts(train) + texts(held))
        assert joined == sorted([f"{train.language} {i}."] for i in range(100))
    for share in (1, 30, 40, 60, 99):
        held = data.read_corpus(PretrainConfig(**given, validation_split_percentage=share))["validation"]
        assert [len(list(part)) for part in held] == [share, share]
    for name in ("x.en.txt", "x.de.txt"):
        (tmp_path / name).write_text("Text.\n")
    both = PretrainConfig(train_file=f"{tmp_path}/x.*.txt", objective="xlm-r", validation_split_percentage=0)
    found = data.read_corpus(both)["train"]
    assert [part.language for part in found] == ["x.de", "x.en"]
    both = PretrainConfig(train_file=f"{tmp_path}/b.txt,{tmp_path}/a.txt", max_train_samples=3)
    assert texts(data.read_corpus(both)["train"][0]) == [["b 0."], ["b 1."], ["b 2."]]  # one corpus


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", b"fine\n\nbroken \xff here\n", {}, r"a.txt:3: not UTF-8 \(byte 0xff\)"),
        ("a.txt", b"fine\nnul \0\n", {}, "a.txt:2: a NUL character"),
        ("a.txt", b"\n\n  \n", {}, "a.txt: no text in it"),
        ("a.jsonl", b'{"text": "x"}\n{"text": }\n', {}, "a.jsonl:2: not JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', {}, "a.jsonl:1: not JSON: .*surrogates"),
        ("a.jsonl", b'{"txt": "x"}\n', {}, "a.jsonl:1: no 'text'; it has: 'txt'.*--text_column_name"),
        ("a.jsonl", b'{"text": 3}\n', {}, "a.jsonl:1: 'text' is int"),
        ("a.csv", b"body\nx y\n", {"text_column_name": "story"}, "a.csv:1: no column 'story'; it has: 'body'"),
        ("a.conll", b"Ada B-PER\nran\n", {}, "a.conll:2: 1 column"),
        ("a.tsv", b"en\tde\nx\ty\n", {"objective": "tlm", "parallel_columns": "en,fr"}, "no column 'fr'"),
    ],
)
def test_what_cannot_be_read(tmp_path, tokenizers, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.tokenize(corpus(tmp_path / name, **options), tokenizers["wordpiece"])
    assert not list(Path(datasets.config.HF_DATASETS_CACHE).rglob("*.writing"))


def test_no_such_file():
    with pytest.raises(ValueError, match=r"--train_file nowhere\.txt: no such file"):
        corpus("nowhere.txt")


def test_arrays_hold_every_sentences_tokens(tokenizer, tmp_path, sample_texts):
    path = tmp_path / "a.txt"
    groups = [sample_texts[i : i + 7] for i in range(0, 70, 7)]
    path.write_text("\n\n".join("\n".join(group) for group in groups))
    found = data.tokenize(corpus(path), tokenizer)
    assert len(found) == 10
    for i, group in enumerate(groups):
        first, last = found.documents[i : i + 2]
        assert last - first == len(group)
        for sentence, text in zip(range(first, last), group, strict=True):
            begin, end = found.sentences[sentence : sentence + 2]
            expected = tokenizer(text, add_special_tokens=False)
            assert found.tokens[begin:end].tolist() == expected["input_ids"]
            ids = expected.word_ids()
            assert found.starts_word[begin:end].tolist() == [a != b for a, b in zip(ids, [None, *ids], strict=False)]
    assert found.place(1) == f"{path}:9"
    assert (
        data.unigram_counts([found], len(tokenizer)).tolist()
        == np.bincount(found.tokens, minlength=len(tokenizer)).tolist()
    )
    again = pickle.loads(pickle.dumps(found))
    assert (again.tokens == found.tokens).all()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=15), max_size=4), max_size=6)
)
@example([["[CLS]"], ["a [MASK] </s> <mask>b"]])
def test_any_text_comes_back(tokenizer, tmp_path, documents):
    """Whatever the characters, the arrays hold what the tokenizer makes of each line; `[CLS]` in a text is text."""
    path = tmp_path / "any.jsonl"
    path.write_text("".join(json.dumps({"text": sentences}) + "\n" for sentences in documents))
    as_text = {"add_special_tokens": False, "split_special_tokens": True}
    expected = [
        [ids for ids in (tokenizer(text.strip(), **as_text)["input_ids"] for text in sentences) if ids]
        for sentences in documents
    ]
    expected = [sentences for sentences in expected if sentences]
    if not expected:
        with pytest.raises(ValueError, match="no text in it"):
            data.tokenize(corpus(path), tokenizer)
        return
    if {token for sentences in expected for ids in sentences for token in ids} <= set(tokenizer.all_special_ids):
        with pytest.raises(ValueError, match="the vocabulary does not know this text"):
            data.tokenize(corpus(path), tokenizer)
        return
    found = data.tokenize(corpus(path), tokenizer)
    bounds = found.documents.tolist()
    assert [
        [found.tokens[found.sentences[i] : found.sentences[i + 1]].tolist() for i in range(a, b)]
        for a, b in itertools.pairwise(bounds)
    ] == expected
    left_out = sum(map(len, documents)) - sum(map(len, expected))
    assert found.notes["empty_sentences"] == left_out


def test_a_tokenizer_saved_with_padding_and_truncation(tmp_path):
    """The default checkpoint's tokenizer.json pads every text to 128 and cuts it there."""
    try:
        tokenizer = load_tokenizer(DEFAULT_MODEL)
    except ValueError:
        pytest.skip("needs the default checkpoint (the extra `offline`), which is not here")
    assert tokenizer.backend_tokenizer.padding is not None
    path = tmp_path / "a.txt"
    path.write_text("short\n\n" + "word " * 300)
    found = data.tokenize(corpus(path), tokenizer)
    assert np.diff(found.sentences).tolist() == [1, 300]


def test_the_cache_knows_what_has_changed(tmp_path, tokenizers):
    path = tmp_path / "a.txt"
    path.write_text("one two\n")
    first = data.tokenize(corpus(path), tokenizers["wordpiece"])
    assert data.tokenize(corpus(path), tokenizers["wordpiece"]).folder == first.folder
    assert data.tokenize(corpus(path), tokenizers["unigram"]).folder != first.folder
    path.write_text("one two three\n")
    second = data.tokenize(corpus(path), tokenizers["wordpiece"])
    assert second.folder != first.folder
    assert len(second.tokens) > len(first.tokens)


def test_the_cache_goes_by_content_not_by_time(tmp_path, tokenizers):
    """Files of the same size and time, as text and in a saved folder: each has its own tokens."""
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["one two"]}).save_to_disk(str(saved))
    (tmp_path / "a.txt").write_text("one two\n")
    files = [tmp_path / "a.txt", *saved.glob("*.arrow")]
    before = [data.tokenize(corpus(path), tokenizers["byte-bpe"]) for path in (files[0], saved)]
    for file in files:
        times = file.stat()
        file.write_bytes(file.read_bytes().replace(b"one two", b"two one"))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    after = [data.tokenize(corpus(path), tokenizers["byte-bpe"]) for path in (files[0], saved)]
    for found, text in ((before, "one two"), (after, "two one")):
        assert [tokenizers["byte-bpe"].decode(documents.tokens).strip() for documents in found] == [text, text]


@pytest.mark.parametrize(
    "name", ["tokens", "starts_word", "sentences", "documents", "lines", "sources", "notes.json"]
)
def test_a_damaged_cache_is_made_again(tmp_path, tokenizers, name):
    """Shorter, of the same size with another bit, or not there: what comes back is what was written first."""
    path = tmp_path / "a.txt"
    path.write_text("one two\nthree\n\nfour five\n")
    whole = data.tokenize(corpus(path), tokenizers["wordpiece"])
    files = {file.name: file.read_bytes() for file in whole.folder.iterdir()}

    def flipped(content):
        return bytes([content[0] ^ 1]) + content[1:]

    def another_number(content):
        return content.replace(b'"unknown": 0', b'"unknown": 1')

    for damage in (lambda content: content[:-1], flipped, another_number, None):
        if damage is None:
            (whole.folder / name).unlink()
        else:
            (whole.folder / name).write_bytes(damage(files[name]))
        again = data.tokenize(corpus(path), tokenizers["wordpiece"])
        assert {file.name: file.read_bytes() for file in again.folder.iterdir()} == files
        assert again.notes == whole.notes
    assert [entry.name for entry in whole.folder.parent.glob(f"{whole.folder.name}*")] == [whole.folder.name]


def test_unknown_pieces_are_counted_and_nothing_else_is_refused(tmp_path, tokenizers):
    tokenizer = tokenizers["wordpiece"]
    path = tmp_path / "a.txt"
    path.write_text("the \u4e00 the\n\n\u4e00\n")
    assert data.tokenize(corpus(path), tokenizer).notes["unknown"] == 2
    path.write_text("\u4e00\n\u4e8c \u4e09\n")
    with pytest.raises(ValueError, match=r"a\.txt: the vocabulary does not know this text: all of its 3 subwords"):
        data.tokenize(corpus(path), tokenizer)


@pytest.mark.parametrize("share", [1, 5, 40, 60, 95])
@pytest.mark.parametrize("sizes", [[100], [1] * 5, [3, 1, 40], [2], [30, 30, 30], [1] * 9 + [4]])
def test_few_documents_give_sentences(tmp_path, sizes, share):
    """Each sentence is on one side, in its order; both sides have some; a document's last ones are held out."""
    rows = [[f"{i} {j}." for j in range(size)] for i, size in enumerate(sizes)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": sentences}) + "\n" for sentences in rows))
    splits = data.read_corpus(PretrainConfig(train_file=str(path), validation_split_percentage=share))
    train, held = (texts(splits[split][0]) for split in ("train", "validation"))
    assert sum(map(len, train)) > 0 < sum(map(len, held))
    together = {int(part[0].split()[0]): list(part) for part in train if part}
    for part in held:
        if part:
            together.setdefault(int(part[0].split()[0]), []).extend(part)
    assert [together.get(i, []) for i in range(len(sizes))] == rows
    by_document = math.floor(len(sizes) * share / 100 + 0.5)
    if not 0 < by_document < len(sizes):
        wanted = min(max(math.floor(sum(sizes) * share / 100 + 0.5), 1), sum(sizes) - 1)
        assert sum(map(len, held)) == wanted
        assert f"{wanted} of its {sum(sizes)} sentences in {len(sizes)} document(s)" in splits["validation"][0].name


def test_few_rows_of_translations_stay_whole(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("en\tde\n" + "".join(f"one {i}\teins {i}\n" for i in range(4)))
    config = PretrainConfig(train_file=str(path), objective="tlm", parallel_columns="en,de")
    splits = data.read_corpus(config)
    assert texts(splits["train"][0]) == [[f"one {i}", f"eins {i}"] for i in range(3)]
    assert texts(splits["validation"][0]) == [["one 3", "eins 3"]]


def test_one_sentence_cannot_be_held_out(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n")
    with pytest.raises(ValueError, match=r"a\.txt: 1 sentence in all, of which none can be held out: give a --valid"):
        data.read_corpus(PretrainConfig(train_file=str(tmp_path / "a.txt")))


def test_a_folder_that_was_saved_anew_is_read_anew(tmp_path, tokenizers):
    """save_to_disk writes into the files that are there: the folder's own time and size stay."""
    for text in ("alpha beta", "zebra yak"):
        datasets.Dataset.from_dict({"text": [text]}).save_to_disk(str(tmp_path / "saved"))
        documents = data.tokenize(corpus(tmp_path / "saved"), tokenizers["byte-bpe"])
        assert tokenizers["byte-bpe"].decode(documents.tokens).strip() == text
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(ValueError, match="two: several splits are saved here; give the folder as --dataset_name"):
        corpus(tmp_path / "two")


def test_the_samples_are_pythons_own_reference(tokenizers):
    splits = data.read_corpus(PretrainConfig(dataset_name="samples"))
    assert sum(len(list(found)) for found in (*splits["train"], *splits["validation"])) >= 70
    assert sum(len(sentence.split()) for sentence in splits["train"][0].sentences()) > 50_000


def test_memory_does_not_grow_with_the_corpus(tmp_path, checkpoints):
    """The memory of a process that tokenises, builds and masks: the same for 1 and for 20 times the text."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc, which this system does not have")
    sentence = " ".join(f"word{i} the of" for i in range(30))
    script = """
import sys
import numpy as np
from types import SimpleNamespace
import finetune.data.instances as instances
import finetune.data.tokens as tokens
instances._IN_MEMORY, tokens._AT_ONCE = 2**12, 200
from finetune import data
from finetune.models import load_tokenizer
from recipes.pretrain import PretrainConfig
tokenizer = load_tokenizer(sys.argv[2])
def run(file):
    config = PretrainConfig(train_file=file, max_seq_length=64, validation_split_percentage=0)
    corpora = data.read_corpus(config)["train"]
    rows = data.pretraining_rows([data.tokenize(corpus, tokenizer) for corpus in corpora], config, tokenizer, "train")
    data.instance_audit(rows.in_epoch(0), tokenizer, max_seq_length=64, batch_size=32)
    batches = data.TrainBatches(rows, 0, 32)
    for (batch,) in batches.epoch(0):
        pass
    status = open("/proc/self/status").read()
    return int(status.split("RssAnon:")[1].split()[0]), len(rows.documents[0].tokens)
print(*run(sys.argv[1] + "/small.txt"))
print(*run(sys.argv[1] + "/large.txt"))
"""
    small = "\n\n".join("\n".join([sentence] * 5) for _ in range(60)) + "\n\n"
    (tmp_path / "small.txt").write_text(small)
    (tmp_path / "large.txt").write_text(small * 20)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(checkpoints["wordpiece"])],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (before, few), (after, many) = (map(int, line.split()) for line in done.stdout.splitlines()[-2:])
    assert many == 20 * few
    # The tokens and flags of the large corpus alone are 5 bytes each; a tenth of them may stay in memory.
    assert (after - before) * 1024 < 0.1 * 5 * many + 8e6, (before, after, many)
