"""The curves of runs, against the lines of their histories."""

import pytest

from finetune import reporting

SHORT = [
    {"step": 10, "epoch": 0.5, "loss": 2.0},
    {"step": 20, "epoch": 1.0, "loss": 1.5},
    {"step": 20, "epoch": 1.0, "eval_f1": 0.25, "eval_loss": 1.75},
]
LONG = [*SHORT, {"step": 40, "epoch": 2.0, "eval_f1": 0.5, "eval_loss": 1.25}]


def drawn(axes):
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.get_lines()]


def test_every_point_of_the_histories_is_drawn():
    figure = reporting.training_curves({"short": SHORT, "long": LONG, "only trained": SHORT[:1]}, "eval_f1")
    losses, scores = figure.axes
    assert drawn(losses) == [
        [(10, 2.0), (20, 1.5)],
        [(20, 1.75)],
        [(10, 2.0), (20, 1.5)],
        [(20, 1.75), (40, 1.25)],
        [(10, 2.0)],
        [],
    ]
    assert drawn(scores) == [[(20, 0.25)], [(20, 0.25), (40, 0.5)], []]
    colours = [[line.get_color() for line in axes.get_lines()] for axes in (losses, scores)]
    assert colours[0] == [colour for colour in colours[1] for _ in range(2)], "a run has one colour"
    assert len(set(colours[1])) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["short", "long", "only trained"]


def test_a_score_that_no_run_has():
    with pytest.raises(ValueError, match=r"no run has eval_bleu; they have eval_f1, eval_loss$"):
        reporting.training_curves({"long": LONG}, "eval_bleu")
    with pytest.raises(ValueError, match="no run has eval_f1; they have no evaluations"):
        reporting.training_curves({"short": SHORT[:2]}, "eval_f1")
