"""Pretraining on the text of a task, and fine-tuning from what it writes."""

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from recipes.ner import NerConfig, finetune_ner
from recipes.pretrain import PretrainConfig, pretrain
from recipes.sentiment import SentimentConfig, finetune_sentiment

TINY = {"max_seq_length": 48, "max_steps": 4, "learning_rate": 1e-3, "disable_tqdm": True, "eval_strategy": "no"}


def column_file(path, rows, change=str):
    sentences = zip(rows["tokens"], rows["ner_tags"], strict=True)
    path.write_text(
        "".join("".join(f"{w}\t{change(t)}\n" for w, t in zip(*pair, strict=True)) + "\n" for pair in sentences),
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def files(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    for split, rows in samples.items():
        column_file(folder / f"{split}.conll", rows.select(range(60)))
    return {f"{split}_file": str(folder / f"{split}.conll") for split in samples}


@pytest.fixture(scope="module")
def adapted(files, checkpoints, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("adapted"))
    model = str(checkpoints["wordpiece"])
    pretrain(
        PretrainConfig(
            **TINY, train_file=files["train_file"], objective="roberta", model_name_or_path=model, output_dir=folder
        )
    )
    return folder


def test_no_label_reaches_the_weights(samples, files, adapted, checkpoints, tmp_path, monkeypatch):
    """With every label of the file replaced, the bytes of the weights are the same."""
    column_file(tmp_path / "train.conll", samples["train"].select(range(60)), change=lambda tag: "B-WRONG")
    again = {"train_file": str(tmp_path / "train.conll"), "output_dir": str(tmp_path / "run")}
    model = str(checkpoints["wordpiece"])
    pretrain(PretrainConfig(**TINY | again, objective="roberta", model_name_or_path=model))
    first, second = (Path(folder, "model.safetensors").read_bytes() for folder in (adapted, tmp_path / "run"))
    assert first == second


def test_a_tagger_begins_with_the_adapted_encoder(files, adapted, checkpoints, tmp_path, capsys):
    flags = TINY | {"max_steps": 1, "learning_rate": 1e-12, "warmup_steps": 0} | files
    finetune_ner(NerConfig(**flags, model_name_or_path=adapted, output_dir=str(tmp_path)))
    before, after = load_file(Path(adapted, "model.safetensors")), load_file(tmp_path / "model.safetensors")
    encoder = [name for name in after if name.startswith("bert.encoder.layer")]
    assert encoder
    for name in encoder:
        assert (before[name] - after[name]).abs().max() < 1e-9
    origin = load_file(checkpoints["wordpiece"] / "model.safetensors")
    assert any((before[name] - origin[name]).abs().max() > 1e-5 for name in encoder)
    assert "classifier.weight" in after
    assert Path(adapted, "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    # It is told, and stands in the card, that no text of the evaluation was seen.
    told = capsys.readouterr().out
    said = rf"{adapted} was pretrained on the text of {files['train_file']}, without labels; in it are (\d+) of the "
    seen = re.search(said + r"60 texts of the validation split and (\d+) of the 60 texts of the test split", told)
    assert [int(number) for number in seen.groups()] == [0, 0]
    assert seen[0] in (tmp_path / "README.md").read_text()


def test_text_of_the_test_split_is_told(files, checkpoints, tmp_path, capsys):
    """Half of the test sentences were in the text, with other spaces between their words."""
    lines = Path(files["test_file"]).read_text(encoding="utf-8").split("\n\n")[:30]
    texts = ["".join(line.split("\t")[0] for line in sentence.split("\n")) for sentence in lines]
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    model = str(checkpoints["wordpiece"])
    flags = TINY | {"train_file": str(tmp_path / "a.txt"), "validation_split_percentage": 0, "objective": "roberta"}
    pretrain(PretrainConfig(**flags, model_name_or_path=model, output_dir=str(tmp_path / "adapted")))
    capsys.readouterr()
    flags = TINY | files | {"model_name_or_path": str(tmp_path / "adapted"), "max_steps": 1}
    finetune_ner(NerConfig(**flags, output_dir=str(tmp_path / "run")))
    assert "30 of the 60 texts of the test split" in capsys.readouterr().out
    (tmp_path / "a.txt").unlink()
    finetune_ner(NerConfig(**flags, output_dir=str(tmp_path / "other")))
    assert "it is not known whether" in capsys.readouterr().out


def test_texts_with_labels(checkpoints, tmp_path, capsys):
    flags = TINY | {"dataset_name": "samples", "max_train_samples": 60}
    model = str(checkpoints["byte-bpe"])
    adapted = str(tmp_path / "adapted")
    more = {"dataset_config_name": "sentiment", "objective": "roberta", "model_name_or_path": model}
    pretrain(PretrainConfig(**flags | more, output_dir=adapted))
    finetune_sentiment(SentimentConfig(**flags, model_name_or_path=adapted, output_dir=str(tmp_path / "run")))
    assert re.search(
        r"samples \(sentiment\), without labels; in it are 0 of the .* 0 of the", capsys.readouterr().out
    )
