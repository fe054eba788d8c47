"""The notebooks run from top to bottom, and end with what they set out to show."""

import itertools
import json
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[1]
RUNS = {
    "ner": {"transformer", "bilstm"},
    "sentiment": {"transformer", "bilstm"},
    "pretraining": {"bert", "roberta"},
    "baselines_and_attention": {"rnn", "lstm", "gru", "lstm-attention", "gradient_flow"},
    "sequence_to_sequence": {"lstm2lstm", "lstm2lstm-attention", "transformer"},
}
TABLES = {
    "ner": ("test_f1", ["transformer", "bilstm"]),
    "sentiment": ("test_accuracy", ["transformer", "bilstm"]),
    "pretraining": ("unigram_entropy", ["bert", "roberta"]),
    "baselines_and_attention": ("test_accuracy", ["rnn", "lstm", "gru", "lstm, attention"]),
    "sequence_to_sequence": ("test_bleu", ["lstm2lstm", "lstm2lstm-attention", "transformer"]),
}
SHOWN = {  # by the cells that end in a figure or in attention maps
    "ner": ["image/png", "image/png", "image/png"],
    "sentiment": ["image/png", "text/html"],
    "pretraining": ["image/png"],
    "baselines_and_attention": [*["image/png"] * 5, "text/html", "image/png"],
    "sequence_to_sequence": ["image/png", "image/png", "image/png", "text/html"],
}
SAID = {  # among others by the solutions of the exercises
    "ner": r"^  (\d+) words past 24 subwords(?s:.*)^\1 words are lost$(?s:.*)^F1 by hand (\S+), F1 of the run \2$",
    "sentiment": r"^only the transformer is right: \d+, only the BiLSTM: \d+, p = \d",
    "pretraining": r"^[\d,]+ subwords, entropy (\S+) nats; the run says \1$",
    "baselines_and_attention": r"^largest difference from torch's states: LSTM \de-0[67], GRU \de-0[67]$",
    "sequence_to_sequence": r"^True ",
}


def rows(text, column):
    """The numbers of a column of the last table that has it, by row."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    head = max(i for i, cells in enumerate(lines) if column in cells)
    at = lines[head].index(column)
    return {cells[0]: float(cells[at]) for cells in itertools.takewhile(len, lines[head + 2 :])}


def test_every_notebook_is_run_here():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(RUNS)


@pytest.mark.parametrize("name", list(RUNS))
def test_no_outputs_are_stored(name):
    for cell in nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", list(RUNS))
def test_it_runs_and_ends_with_a_comparison(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_NOTEBOOK_FOLDER", str(tmp_path))
    notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {path.name for path in tmp_path.iterdir()} == RUNS[name]

    column, compared = TABLES[name]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    table = rows(printed, column)
    assert list(table) == compared
    for row, value in table.items():
        results = json.loads((tmp_path / row.replace(", ", "-") / "all_results.json").read_text())
        assert value == pytest.approx(results[column], rel=0.01)

    assert re.search(SAID[name], printed, re.MULTILINE)
    assert not [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]

    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    assert [kind for kind, data in zip(SHOWN[name], shown, strict=True) if kind in data] == SHOWN[name]
