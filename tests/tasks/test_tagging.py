"""Parts of speech from a CoNLL-U treebank, and the losses that ner.py can be given."""

import json

import pytest

import finetune
from recipes.ner import NerConfig, finetune_ner
from recipes.simple_baselines import tag_by_dictionary

# `cannot=can/AUX+not/PART` is a range of two words; `~` is an empty node, which is no word.
TREEBANK = """
The/DET old/ADJ ferry/NOUN crosses/VERB the/DET river/NOUN twice/ADV a/DET day/NOUN ./PUNCT
Mira/PROPN cannot=can/AUX+not/PART find/VERB her/PRON keys/NOUN ./PUNCT
We/PRON ordered/VERB soup/NOUN ,/PUNCT and/CCONJ they/PRON ~ tea/NOUN ./PUNCT
Does/AUX the/DET small/ADJ shop/NOUN sell/VERB fresh/ADJ bread/NOUN ?/PUNCT
Rain/NOUN fell/VERB on/ADP the/DET roof/NOUN all/DET night/NOUN ./PUNCT
She/PRON didn't=did/AUX+n't/PART answer/VERB the/DET letter/NOUN ./PUNCT
Three/NUM birds/NOUN sat/VERB on/ADP the/DET wire/NOUN ./PUNCT
Oskar/PROPN plays/VERB the/DET cello/NOUN ,/PUNCT Ida/PROPN ~ the/DET harp/NOUN ./PUNCT
Well/INTJ ,/PUNCT he/PRON paid/VERB five/NUM %/SYM more/ADV ./PUNCT
The/DET train/NOUN to/ADP Oslo/PROPN leaves/VERB at/ADP nine/NUM ./PUNCT
Please/INTJ close/VERB the/DET heavy/ADJ door/NOUN !/PUNCT
The/DET teacher/NOUN can't=ca/AUX+n't/PART read/VERB this/DET note/NOUN ./PUNCT
A/DET quiet/ADJ child/NOUN waited/VERB near/ADP the/DET \u200d/SYM gate/NOUN ./PUNCT
""".strip().split("\n")
SPLITS = {"train": TREEBANK[:9], "validation": TREEBANK[7:11], "test": TREEBANK[9:]}
FLAGS = {"tagging": "plain", "label_column_name": "3", "max_seq_length": 32, "disable_tqdm": True}
SHAPE = {"model_name_or_path": "bilstm", "hidden_size": 8, "embedding_size": 8, "dropout": 0.0, "word_dropout": 0.0}


def words_of(sentence):
    """The (word, tag) pairs."""
    return [pair.rsplit("/", 1) for token in sentence.split() if token != "~" for pair in parts(token)]


def parts(token):
    return token.split("=")[-1].split("+")


def as_conllu(sentence):
    lines, count = [f"# text = {sentence}"], 0
    for token in sentence.split():
        if token == "~":
            lines.append(f"{count}.1\tdrank\tdrink\tVERB\t_\t_\t_\t_\t_\t_")
            continue
        own = parts(token)
        if len(own) > 1:
            lines.append(f"{count + 1}-{count + len(own)}\t{token.split('=')[0]}" + "\t_" * 8)
        for word, tag in (pair.rsplit("/", 1) for pair in own):
            count += 1
            lines.append(f"{count}\t{word}\t{word.lower()}\t{tag}\tX-{tag}\t_\t{count - 1}\tdep\t_\t_")
    return "\n".join(lines) + "\n\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("treebank")
    for split, sentences in SPLITS.items():
        (folder / f"{split}.conllu").write_text("".join(map(as_conllu, sentences)), encoding="utf-8")
    return {f"{split}_file": str(folder / f"{split}.conllu") for split in SPLITS}


def predictions(folder):
    lines = (folder / "predictions_test.conll").read_text(encoding="utf-8").split("\n")
    return [line.split("\t") for line in lines if line]


@pytest.mark.parametrize("name", ["wordpiece", "dictionary"])
def test_accuracy_is_a_hand_count_of_the_predictions(name, files, checkpoints, tmp_path):
    model = str(checkpoints[name]) if name in checkpoints else name
    config = NerConfig(
        **files,
        **FLAGS,
        model_name_or_path=model,
        num_train_epochs=12,
        learning_rate=5e-3,
        output_dir=str(tmp_path / "run"),
    )
    results = (finetune_ner if name == "wordpiece" else tag_by_dictionary)(config).results
    rows = predictions(tmp_path / "run")
    assert [row[:2] for row in rows] == [pair for sentence in SPLITS["test"] for pair in words_of(sentence)]
    right = sum(row[1] == row[2] for row in rows)
    assert results["test_accuracy"] == right / len(rows)
    assert results["test_words"] == results["test_words_scored"] == len(rows)
    assert 0.3 < results["test_accuracy"] < 1  # it has learned something, and some words are new
    # Words that a dictionary does not know, or of which a tokenizer makes nothing, get the most frequent tag.
    said = {row[0]: row[2] for row in rows}
    assert said["\u200d"] == "NOUN"
    if name == "dictionary":
        assert said["quiet"] == said["Please"] == "NOUN"
        assert (said["the"], said["n't"]) == ("DET", "PART")
    else:
        sentences = [[word for word, _ in words_of(sentence)] for sentence in SPLITS["test"]]
        answers = finetune.predict(tmp_path / "run", sentences)
        assert [tag for answer in answers for tag in answer["predicted"]] == [row[2] for row in rows]
        assert all(answer["entities"] == [] for answer in answers)


def test_weighted_losses_of_tags_take_the_same_step_however_it_is_cut(files, tmp_path):
    """The sum of weight times loss over all words of a step, divided by the sum of their weights."""
    asked = {
        "none": {},
        "smoothed": {"class_weights": "balanced", "label_smoothing_factor": 0.1},
        "focal": {"class_weights": "NOUN=0.3,VERB=4", "focal_gamma": 2.0},
    }
    seen = {}
    for name, loss in asked.items():
        for rows, pieces in ((8, 1), (2, 4), (1, 8)):
            cut = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": pieces, "max_steps": 1}
            more = {"eval_strategy": "no", "save_strategy": "no", "logging_steps": 1, "label_all_tokens": True}
            folder = tmp_path / f"{name}-{rows}"
            config = NerConfig(**files, **FLAGS, **SHAPE, **cut, **more, **loss, output_dir=str(folder))
            line = finetune_ner(config).history[0]
            seen.setdefault(name, []).append((line["loss"], line["grad_norm"]))
        assert seen[name] == [pytest.approx(seen[name][0], rel=1e-5)] * 3
        settings = json.loads((folder / "config.json").read_text())
        assert settings.get("focal_gamma", 0.0) == loss.get("focal_gamma", 0.0)
    assert len({round(runs[0][0], 3) for runs in seen.values()}) == 3


def test_a_crf_refuses_weights(files, tmp_path):
    own = FLAGS | SHAPE | {"model_name_or_path": "bilstm-crf", "class_weights": "balanced"}
    with pytest.raises(ValueError, match="a CRF learns whole sequences of labels, so that class weights"):
        finetune_ner(NerConfig(**files, **own, output_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
