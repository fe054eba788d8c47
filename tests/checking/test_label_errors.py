"""Suspicious labels, and the patches that correct them."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import finetune
from finetune import checking, data
from finetune.checking import patches
from finetune.data.folds import fold_of
from recipes.check_data import main
from recipes.ner import NerConfig
from recipes.sentiment import SentimentConfig

SAMPLES = Path(data.__file__).parent / "samples"


def test_folds_keep_copies_together_and_do_not_depend_on_the_order():
    texts = [f"sentence number {i} is about topic {i * 7919 % 101} only" for i in range(60)]
    texts += [text.upper() for text in texts[:20]] + [f"{text} again" for text in texts[20:30]]
    folds = fold_of(texts, 4)
    assert folds[:20].tolist() == folds[60:80].tolist()
    assert folds[20:30].tolist() == folds[80:].tolist()
    order = np.random.default_rng(0).permutation(len(texts))
    assert np.array_equal(fold_of([texts[i] for i in order], 4), folds[order])
    documents = [i // 9 for i in range(len(texts))]
    of_document = fold_of(texts, 3, documents)
    assert all(len(set(of_document[np.array(documents) == d].tolist())) == 1 for d in set(documents))
    assert np.bincount(of_document).max() - np.bincount(of_document).min() <= 9
    with pytest.raises(ValueError, match="--folds 3: the data has only 1 groups"):
        fold_of(["a", "A"], 3)


def reviews(number, mistakes):
    """Texts whose words tell the label, and the numbers of those with the other label."""
    draw = random.Random(0)
    of_label = {"pos": ["good", "great", "fine", "lovely"], "neg": ["bad", "dull", "awful", "poor"]}
    rows = []
    for i in range(number):
        label = ("pos", "neg")[i % 2]
        text = " ".join(draw.choices(of_label[label], k=3) + draw.choices(["film", "plot", "room", "tea"], k=3))
        rows.append({"text": f"{text} {i}", "label": label})
    wrong = draw.sample(range(number), mistakes)
    for i in wrong:
        rows[i]["label"] = "neg" if rows[i]["label"] == "pos" else "pos"
    return rows, wrong


def test_wrong_labels_of_texts_come_first():
    rows, wrong = reviews(300, 15)
    config = SentimentConfig(model_name_or_path="bilstm")
    section = checking.checked(config, {"train": rows}, label_errors=True, folds=4).sections[0]
    assert section.name == "label_errors"
    assert len({row[1] for row in section.rows[:15]} & {rows[i]["text"] for i in wrong}) >= 14
    scores = [row[0] for row in section.rows]
    assert scores == sorted(scores)


def test_a_wrong_tag_is_the_most_suspicious(tmp_path):
    lines = []
    for i in range(80):
        lines += [f"{('Ada', 'Bob', 'Eve')[i % 3]}\tB-PER", "lives\tO", "in\tO", f"{('Oslo', 'Rome')[i % 2]}\tB-LOC"]
        lines += [f"{i}\tO", ""]
    assert lines[6 * 40 + 3] == "Oslo\tB-LOC"
    lines[6 * 40 + 3] = "Oslo\tB-PER"
    (tmp_path / "train.conll").write_text("\n".join(lines))
    config = NerConfig(train_file=str(tmp_path / "train.conll"), model_name_or_path="bilstm")
    report = checking.checked(config, label_errors=True)
    written = checking.write(tmp_path / "out", report, config)
    assert written[-1].name == "patch.jsonl"
    first = report.patch[0]
    assert (first["line"], first["accept"]) == (6 * 40 + 1, False)
    assert first["changes"][0] | {"score": 0} == (
        {"word": 3, "token": "Oslo", "label": "B-PER", "new_label": "B-LOC", "score": 0}
    )
    # A person accepts it.
    patch = tmp_path / "out/patch.jsonl"
    with pytest.raises(ValueError, match="no line of it is accepted"):
        patches.apply_patch(patch, tmp_path / "new")
    told = patch.read_text().splitlines()
    patch.write_text("\n".join([told[0].replace("false", "true", 1), *told[1:]]))
    main(["--apply", str(patch), "--output_dir", str(tmp_path / "new")])
    changed = (tmp_path / "new/train.conll").read_text().splitlines()
    assert [i for i, (a, b) in enumerate(zip(changed, lines, strict=False)) if a != b] == [6 * 40 + 3]
    assert changed[6 * 40 + 3] == "Oslo\tB-LOC"
    assert (tmp_path / "train.conll").read_text() == "\n".join(lines)
    with pytest.raises(ValueError, match="exists already"):
        patches.apply_patch(patch, tmp_path / "new")


def test_a_network_finds_the_wrong_label(tmp_path):
    rows, (wrong,) = reviews(80, 1)
    config = SentimentConfig(
        model_name_or_path="lstm", hidden_size=16, embedding_size=16, char_features="none", num_train_epochs=20,
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    from recipes.sentiment import finetune_sentiment

    found = finetune.check_data(config, {"train": rows}, label_errors=True, folds=2, train=finetune_sentiment)
    assert found["label_errors"]["rows"][0]["text"] == rows[wrong]["text"]
    assert not (tmp_path / "run").exists()


def test_a_network_reads_tags_that_the_files_have_in_another_scheme(tmp_path):
    """Its rows are in IOB2, with names, whatever the flags say of the files."""
    from recipes.ner import finetune_ner

    lines = "".join(f"Ada 1\n{word} 2\nran 0\n\n" for word in ("B", "C", "D", "E") * 3)
    (tmp_path / "a.conll").write_text(lines)
    config = NerConfig(
        model_name_or_path="lstm", hidden_size=8, embedding_size=8, char_features="none", max_steps=2,
        train_file=str(tmp_path / "a.conll"), label_names="O,B-PER,I-PER", tagging_scheme="BILOU",
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    config = replace(config, label_names="O,B-PER,L-PER")
    found = finetune.check_data(config, label_errors=True, folds=2, train=finetune_ner)
    assert "label_errors" in found


def test_accepted_changes_are_not_written_over(tmp_path):
    rows, _ = reviews(80, 4)
    config = SentimentConfig(model_name_or_path="bilstm")
    options = {"label_errors": True, "output_dir": tmp_path}
    for _ in range(2):  # nothing is accepted yet
        finetune.check_data(config, {"train": rows}, **options)
    patch = tmp_path / "patch.jsonl"
    patch.write_text(patch.read_text().replace('"accept": false', '"accept": true', 1))
    with pytest.raises(ValueError, match=r"patch.jsonl: has changes that are accepted"):
        finetune.check_data(config, {"train": rows}, **options)


def test_what_is_refused():
    pairs = [{"source": "a", "target": "b"}] * 3
    from recipes.seq2seq import Seq2SeqConfig

    with pytest.raises(ValueError, match="for words with tags, and for texts"):
        finetune.check_data(Seq2SeqConfig(), {"train": pairs}, label_errors=True)


def test_several_labels_and_numbers_have_suspicions():
    several = [{"text": f"{'sun' * (i % 2)} {'rain' * (i % 3 == 0)} day {i}",
                "label": ["s"] * (i % 2) + ["r"] * (i % 3 == 0)} for i in range(120)]  # fmt: skip
    several[30]["label"] = ["s"]
    report = checking.checked(SentimentConfig(model_name_or_path="bilstm"), {"train": several}, label_errors=True)
    assert report.patch[0]["text"].split()[-1] == "30"
    assert report.patch[0]["changes"][0]["new_label"] == ["r"]
    alone = [row | {"label": [label for label in row["label"] if label == "r"]} for row in several]
    report = checking.checked(SentimentConfig(model_name_or_path="bilstm"), {"train": alone}, label_errors=True)
    assert report.patch[0]["text"].split()[-1] == "30"  # one label, which texts have or have not
    assert report.patch[0]["changes"][0]["new_label"] == ["r"]
    same = {"train": [row | {"label": ["r"]} for row in several]}
    with pytest.raises(ValueError, match="every text has the same labels"):
        checking.checked(SentimentConfig(model_name_or_path="bilstm"), same, label_errors=True)
    numbers = [{"text": f"{'very ' * (i % 4)}good {i}", "label": float(i % 4) + 0.5} for i in range(80)]
    numbers[21]["label"] = 9.5
    report = checking.checked(SentimentConfig(model_name_or_path="bilstm"), {"train": numbers}, label_errors=True)
    assert report.patch[0]["text"] == "very good 21"
    json.dumps(report.patch)
