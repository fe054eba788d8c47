"""A tagger with document context: what predicts later agrees with its evaluation, and finished runs know how."""

import itertools
import json
import shutil
import subprocess
import sys

import pytest

import finetune
from finetune import data
from finetune.arguments import DataArguments
from recipes.ner import NerConfig, finetune_ner
from recipes.predict import PredictConfig, predict_stream

# A model that has learned almost nothing gives many different labels, and its neighbours change them.
FLAGS = {"max_seq_length": 48, "learning_rate": 1e-6, "disable_tqdm": True, "max_steps": 2}


@pytest.fixture(scope="module")
def corpus(samples, tmp_path_factory):
    """The samples in documents of five sentences, and a sentence before the first document."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, rows in samples.items():
        parts = []
        for i, (words, tags) in enumerate(zip(rows["tokens"][:81], rows["ner_tags"][:81], strict=True)):
            mark = "-DOCSTART-\tO\n\n" if i % 5 == 1 else ""
            parts.append(mark + "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)))
        (folder / f"{split}.conll").write_text("\n".join(parts), encoding="utf-8")
    return folder


def files(folder, ending=".conll"):
    return {f"{split}_file": str(folder / f"{split}{ending}") for split in ("train", "validation", "test")}


@pytest.fixture(scope="module", params=["document", "side_by_side"])
def run(request, corpus, checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    flags = FLAGS | files(corpus) | {"model_name_or_path": str(checkpoints["wordpiece"]), "output_dir": str(folder)}
    finetune_ner(NerConfig(**flags, context=request.param))
    return folder


def test_a_column_file_is_labelled_as_in_the_evaluation(run, corpus, tmp_path):
    config = PredictConfig(
        model_name_or_path=str(run), input_file=str(corpus / "test.conll"), output_file=str(tmp_path / "out.conll")
    )
    assert predict_stream(config) == 81
    evaluated = data.read_conll(run / "predictions_test.conll", tag_column=2, written_here=True)
    assert data.read_conll(tmp_path / "out.conll").tags == evaluated.tags
    # Without its documents, the same words get other labels: the neighbours have a say.
    assert labels_of(finetune.predict(run, evaluated.words)) != evaluated.tags


def test_json_lines_and_python_know_documents(run, corpus, tmp_path):
    found = data.read_conll(corpus / "test.conll")
    evaluated = data.read_conll(run / "predictions_test.conll", tag_column=2, written_here=True).tags
    predictor = finetune.load_predictor(run)
    assert labels_of(predictor(found.words, found.documents)) == evaluated
    lines = (
        json.dumps({"tokens": words, "doc": number or None})
        for words, number in zip(found.words, found.documents, strict=True)
    )
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    shutil.copytree(run, tmp_path / "run")
    settings = (run / "run.yaml").read_text()
    (tmp_path / "run/run.yaml").write_text(settings.replace("document_column: null", "document_column: doc"))
    out = tmp_path / "out.jsonl"
    names = {"model_name_or_path": str(tmp_path / "run"), "input_file": str(tmp_path / "in.jsonl")}
    predict_stream(PredictConfig(**names, output_file=str(out)))
    assert labels_of(map(json.loads, out.read_text().splitlines())) == evaluated
    with pytest.raises(ValueError, match="2 numbers for 1 samples"):
        predictor([["Ada"]], [1, 1])


def labels_of(answers):
    return [answer["predicted"] for answer in answers]


def test_a_text_is_a_document_of_its_sentences(run):
    sentences = ["Ada Okonkwo left Lagos in May.", "She works for Acme Corp.", "Rome is far away."]
    predictor = finetune.load_predictor(run)
    [found] = predictor([" ".join(sentences)])
    words = [[text[begin:end] for begin, end in data.split_words(text)] for text in sentences]
    apart = predictor(words, [1] * 3)
    assert found["predicted"] == list(itertools.chain(*labels_of(apart)))
    borders = [0, *itertools.accumulate(map(len, words))]
    expected = [
        [begin + word for word in entity["words"]]
        for begin, answer in zip(borders, apart, strict=False)
        for entity in answer["entities"]
    ]
    assert [entity["words"] for entity in found["entities"]] == expected
    for entity in found["entities"]:
        assert entity["text"] == " ".join(sentences)[entity["start"] : entity["end"]]
    # Texts are documents of their own, and a text of one sentence has no context.
    assert labels_of(predictor(sentences)) == labels_of(predictor(words))


def test_brat_is_labelled_as_in_the_evaluation(run, corpus, tmp_path):
    """The same documents as texts with spans: sentences are found in them, and found again in prediction."""
    for split in ("train", "validation", "test"):
        found = data.read_conll(corpus / f"{split}.conll")
        groups = itertools.groupby(zip(found.documents, found.words, found.tags, strict=True), key=lambda row: row[0])
        (tmp_path / split).mkdir()
        for number, rows in groups:
            words, tags = (list(itertools.chain(*column)) for column in list(zip(*rows, strict=True))[1:])
            write_brat(tmp_path / split / f"{number:03}", words, tags)
    context = json.loads((run / "config.json").read_text())["context"]
    flags = FLAGS | files(tmp_path, "") | {"model_name_or_path": str(run), "output_dir": str(tmp_path / "run")}
    finetune_ner(NerConfig(**flags, context=context))
    names = {"model_name_or_path": str(tmp_path / "run"), "input_file": str(tmp_path / "test")}
    predict_stream(PredictConfig(**names, output_file=str(tmp_path / "out")))
    config = DataArguments(train_file=str(tmp_path / "out"), validation_split_percentage=0)
    labelled = data.read_tagged(config, split_sentences=True)["train"]
    evaluated = data.read_conll(tmp_path / "run/predictions_test.conll", tag_column=2, written_here=True)
    # The words of both are those of the gold spans and of the found spans, so only their entities are compared.
    assert entities(labelled["tokens"], labelled["ner_tags"]) == entities(evaluated.words, evaluated.tags)


def write_brat(name, words, tags):
    text, starts = "", []
    for word in words:
        text += " " if text else ""
        starts.append(len(text))
        text += word
    spans = finetune.metrics.entity_spans(tags)
    lines = []
    for i, (begin, end, kind) in enumerate(spans):
        a, b = starts[begin], starts[end - 1] + len(words[end - 1])
        lines.append(f"T{i}\t{kind} {a} {b}\t{text[a:b]}\n")
    name.with_suffix(".txt").write_text(text, encoding="utf-8")
    name.with_suffix(".ann").write_text("".join(lines), encoding="utf-8")


def entities(words, tags):
    return [
        (" ".join(own[begin:end]), kind)
        for own, their in zip(words, tags, strict=True)
        for begin, end, kind in finetune.metrics.entity_spans(their)
    ]


def test_a_piped_document_is_labelled_as_a_whole(run, corpus):
    """The lines of a document arrive one by one, with pauses; the labels are those of the evaluation."""
    lines = (corpus / "test.conll").read_text(encoding="utf-8").splitlines()[:150]
    items = iter(lines)
    seen = data.read_records(Slow(items), "pipe", "conll")
    chunks = list(data.in_chunks(seen, 4, patience=0.001, group=lambda record: record.document))
    numbers = [{record.document for record in chunk} - {0} for chunk in chunks]
    assert len(chunks) > 1
    for before, after in itertools.pairwise(numbers):
        assert not before & after


class Slow:
    """A binary file whose every tenth line comes late."""

    def __init__(self, lines):
        self.lines = lines

    def __iter__(self):
        import time

        for i, line in enumerate(self.lines):
            time.sleep(0.01 if i % 10 == 0 else 0)
            yield f"{line}\n".encode()

    def seekable(self):
        return False


def test_a_checkpoint_folder_knows_its_context(corpus, checkpoints, tmp_path):
    flags = FLAGS | files(corpus) | {"model_name_or_path": str(checkpoints["byte-bpe"]), "output_dir": str(tmp_path)}
    finetune_ner(NerConfig(**flags, context="document", context_size=9, load_best_model_at_end=False))
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        settings = finetune.load_predictor(folder).settings
        assert (settings["context"], settings["context_size"]) == ("document", 9)


@pytest.mark.parametrize("model", ["wordpiece", "bilstm"])
def test_a_resumed_run_ends_with_the_same_bytes(model, corpus, checkpoints, tmp_path):
    """Also with several rows of a document in one step."""
    flags = FLAGS | files(corpus) | {"model_name_or_path": str(checkpoints.get(model, model)), "context": "document"}
    flags |= {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "save_total_limit": 5, "learning_rate": 1e-3}
    flags |= {"eval_strategy": "no"}
    if model not in checkpoints:
        flags |= {"hidden_size": 8, "embedding_size": 8}
    whole = finetune_ner(NerConfig(**flags, output_dir=str(tmp_path / "whole")))
    assert whole.results["test_words"] == whole.results["test_words_scored"]
    flags |= {"resume_from_checkpoint": str(tmp_path / "whole/checkpoint-3")}
    finetune_ner(NerConfig(**flags, output_dir=str(tmp_path / "again")))
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again"))
    assert first == second


@pytest.mark.slow
def test_two_processes_label_the_same(run, corpus, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
    flags = ["--model_name_or_path", str(run), "--input_file", str(corpus / "test.conll")]
    out = tmp_path / "out.conll"
    subprocess.run([*command, "recipes/predict.py", *flags, "--output_file", str(out)], check=True, timeout=300)
    evaluated = data.read_conll(run / "predictions_test.conll", tag_column=2, written_here=True)
    assert data.read_conll(out).tags == evaluated.tags
