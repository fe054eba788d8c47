"""Texts with spans, as a user has them: trained on for a few steps, predicted, and written back in their form."""

import json
import re

import pytest
from span_samples import FILES, TEXTS, brat, doccano

import finetune
from recipes.ner import NerConfig, finetune_ner
from recipes.predict import PredictConfig, predict_stream

TINY = {
    "max_steps": 30,
    "learning_rate": 5e-3,
    "validation_split_percentage": 0,
    "eval_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
    "max_seq_length": 12,  # so the second text needs several windows
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, checkpoints):
    folder = tmp_path_factory.mktemp("spans")
    source = brat(folder / "brat")
    config = NerConfig(
        **TINY,
        train_file=str(source),
        test_file=str(source),
        output_dir=str(folder / "run"),
        model_name_or_path=str(checkpoints["wordpiece"]),
    )
    result = finetune_ner(config)
    # Each word is scored, also the piece of a word that a span ends in.
    assert result.results["test_words"] == result.results["test_words_scored"] == 13
    return folder / "run"


@pytest.mark.parametrize("name", FILES)
def test_each_form_is_written_back_with_the_spans_of_the_model(name, run, tmp_path):
    form, make = FILES[name]
    source, target = make(tmp_path / name), tmp_path / "out" / name
    target.parent.mkdir()
    config = PredictConfig(
        model_name_or_path=str(run), input_file=str(source), output_file=str(target), input_format=form
    )
    assert predict_stream(config) == 2
    answers = finetune.predict(run, TEXTS)
    entities = [
        [(own["start"], own["end"], own["label"], own["text"]) for own in answer["entities"]] for answer in answers
    ]
    assert entities[0], "a model that learned nothing shows nothing"
    if form == "brat":
        found = []
        for path in sorted(target.glob("*.ann")):
            lines = [re.fullmatch(r"T\d+\t(\S+) (\d+) (\d+)\t(.*)", line) for line in path.read_text().splitlines()]
            found.append([(int(line[2]), int(line[3]), line[1], line[4]) for line in lines])
        assert found == entities
        assert (target / "a.txt").read_bytes() == (source / "a.txt").read_bytes()
        assert (target / "annotation.conf").is_file()
        with pytest.raises(ValueError, match="this is there already"):
            predict_stream(config)
        return
    text = target.read_text()
    rows = json.loads(text) if form == "label_studio" else [json.loads(line) for line in text.splitlines()]
    for row, own, answer in zip(rows, entities, answers, strict=True):
        if form == "label_studio":
            (prediction,) = row["predictions"]
            values = [result["value"] for result in prediction["result"]]
            assert [(v["start"], v["end"], v["labels"][0], v["text"]) for v in values] == own
            assert [result["score"] for result in prediction["result"]] == [e["score"] for e in answer["entities"]]
            assert (prediction["model_version"], len(row["annotations"])) == ("run", 2)
        elif form == "spacy":
            spans = [(s["start"], s["end"], s["label"], row["text"][s["start"] : s["end"]]) for s in row["spans"]]
            assert spans == own
            assert ("answer" in row, row["meta"]) == (False, {"source": "own"})
        else:
            spans = row.get("label") or [
                [*(s.get(f"{end}_offset", s.get(end)) for end in ("start", "end")), s["label"]]
                for s in row.get("entities", ())
            ]
            assert [(*span, row["text"][span[0] : span[1]]) for span in spans] == own


def test_each_form_is_learned_from(tmp_path):
    """The same words and tags: so the same weights."""
    losses = set()
    for name, (form, make) in FILES.items():
        config = NerConfig(
            **TINY | {"max_steps": 2},
            train_file=str(make(tmp_path / name)),
            file_format=form,
            output_dir=str(tmp_path / f"run-{name}"),
            model_name_or_path="gru",
            hidden_size=8,
        )
        finetune_ner(config)
        losses.add((tmp_path / f"run-{name}" / "model.safetensors").read_bytes())
    assert len(losses) == 1


def test_offsets_of_the_file_are_kept_in_its_own_unit(run, tmp_path):
    rows = [json.loads(line) for line in doccano(tmp_path / "x.jsonl").read_text().splitlines()]
    rows[1]["label"] = []
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    flags = {"model_name_or_path": str(run), "input_file": str(tmp_path / "x.jsonl"), "input_format": "doccano"}
    found = {}
    for unit in ("code_points", "utf16"):
        out = tmp_path / f"{unit}.jsonl"
        predict_stream(PredictConfig(**flags, output_file=str(out), span_offsets=unit))
        found[unit] = [json.loads(line)["label"] for line in out.read_text().splitlines()]
    text = TEXTS[1].encode("utf-16-le")
    (after, plain), (before, same) = found["utf16"], found["code_points"]
    assert (len(before) > 0, plain) == (True, same)
    for (begin, end, kind), (first, last, other) in zip(after, before, strict=True):
        assert text[2 * begin : 2 * end].decode("utf-16-le") == TEXTS[1][first:last]
        assert kind == other


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output_file": "-"}, "--output_file is missing: --input_format doccano needs a file"),
        (
            {"output_format": "jsonl"},
            "--output_format, --word_column: with --input_format doccano, the output has its",
        ),
        ({"input_file": "nowhere.jsonl"}, "--input_file nowhere.jsonl: no such file"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(flags, message, tmp_path):
    given = {"input_file": str(doccano(tmp_path / "x.jsonl")), "output_file": str(tmp_path / "y.jsonl")}
    config = PredictConfig(model_name_or_path="nowhere", input_format="doccano", **given | flags)
    with pytest.raises(ValueError, match=message):
        predict_stream(config)
