"""The report's page in a real browser, and words of the data in it."""

import csv
import json
import re
import shutil
import subprocess
import urllib.parse
from dataclasses import asdict

import numpy as np
import pytest

from finetune import metrics
from finetune.comparison import comparison_of
from finetune.data import read_tagged
from finetune.reporting import machine, plots, write_comparison
from finetune.reporting.comparison import _markdown
from finetune.tasks import tagging
from recipes.ner import NerConfig
from recipes.simple_baselines import tag_by_dictionary

HOSTILE = "</script><script>document.title='owned'</script>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    word = HOSTILE.replace(" ", "_")
    (folder / "train.conll").write_text(f"Kai\tB-PER\nOslo\tB-LOC\n\n{word}\tB-LOC\nis\tO\n")
    (folder / "test.conll").write_text(f"{word}\tB-LOC\nis\tO\nOslo\tB-LOC\n\nBergen\tB-LOC\n")
    runs = {}
    for name, size in (("whole", None), ("short", 1)):
        own = NerConfig(
            train_file=str(folder / "train.conll"),
            test_file=str(folder / "test.conll"),
            eval_strategy="no",
            model_name_or_path="dictionary",
            max_train_samples=size,
            output_dir=str(folder / name),
        )
        tag_by_dictionary(own)
        runs[name, 0] = own
    report = comparison_of(runs, read_tagged(runs["whole", 0]), "test", tagging) | {
        "failures": [],
        "command": HOSTILE,
        "machine": machine(),
    }
    write_comparison(folder, report)
    return folder / "report.html"


def test_words_of_the_data_are_words(page):
    text = page.read_text()
    assert HOSTILE.replace(" ", "_") not in text
    assert text.count("</script>") == text.count("<script") == 2  # the samples, and the program


def test_no_two_models_look_alike():
    styles = [plots._style(number) for number in range(64)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 64


def test_the_same_numbers_give_the_same_bytes(page, tmp_path):
    report = json.loads((page.parent / "comparison.json").read_text())
    for folder in ("a", "b"):
        write_comparison(tmp_path / folder, report)
    assert (tmp_path / "a/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium, to open the page in")
def test_the_page_sorts_and_filters_in_a_browser(report, tmp_path):
    two = report["examples"]
    many = [sample | {"sentence": 2 * at + sample["sentence"]} for at in range(25) for sample in two]
    write_comparison(tmp_path, report | {"examples": many})
    script = """<script>
    const said = [];
    window.onerror = message => said.push("error " + message);
    const error = console.error;
    console.error = message => { said.push("error " + message); error(message); };
    window.addEventListener("load", () => {
      const table = document.querySelector("#table ~ .wide table");
      const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent).join();
      said.push(names());
      const button = table.tHead.rows[0].cells[1].querySelector("button");
      button.click(); said.push(names());
      button.click(); said.push(names());
      const shown = () => document.getElementById("shown").textContent;
      const set = (id, value) => {
        const control = document.getElementById(id);
        control.value = value; control.dispatchEvent(new Event("input"));
      };
      said.push(shown());
      const numbers = () => [...document.querySelectorAll(".sample > div > small")].map(one => one.textContent);
      const at = () => `${numbers().length} from ${numbers()[0]}, ${document.querySelector(".place").textContent}`;
      set("order", "file"); said.push(at());
      document.querySelector(".last").click(); said.push(at());
      document.querySelector(".before").click(); said.push(at());
      set("wrong", "short"); said.push(shown());
      set("right", "whole"); said.push(shown(), at());
      set("right", ""); set("find", "bergen"); said.push(shown());
      said.push([...document.querySelectorAll(".sample dd")].slice(0, 2).map(one => one.textContent).join());
      set("find", ""); set("wrong", "");
      said.push([...document.getElementById("kind").options].map(one => one.textContent).join());
      set("kind", "0"); said.push(shown());
      said.push(document.querySelectorAll("figure svg").length + " plots");
      said.push(document.documentElement.scrollWidth <= window.innerWidth ? "fits" : "too wide");
      document.body.style.width = "390px";  // of a phone
      const wide = [...document.querySelectorAll("figure")].filter(one => one.scrollWidth > one.clientWidth);
      said.push(wide.length + " too wide");
      document.body.textContent = JSON.stringify(said);
    });
    </script>"""
    test = tmp_path / "page.html"
    test.write_text((tmp_path / "report.html").read_text().replace("<head>", f"<head>{script}", 1))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", f"file://{test}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = json.loads(re.search(r"<body[^>]*>(\[.*\])</body>", done.stdout, re.DOTALL).group(1))
    assert not [line for line in said if line.startswith("error")]
    assert said == [
        "whole,short", "whole,short", "short,whole",
        "50 of 50", "20 from 1, page 1 of 3", "10 from 41, page 3 of 3", "20 from 21, page 2 of 3",
        "50 of 50", "25 of 50", "20 from 1, page 1 of 2", "25 of 50", "BergenLOC,BergenLOC",
        "any or none,missed (50)", "50 of 50", "6 plots", "fits", "0 too wide",
    ]  # fmt: skip


@pytest.fixture
def report(page):
    return json.loads((page.parent / "comparison.json").read_text())


def with_labels(report, number):
    """The same with so many labels, and a confusion matrix of random errors."""
    generator = np.random.default_rng(0)
    labels = [f"label {i} {'long ' * (i % 9)}" for i in range(number)]
    breakdown = {"size": dict.fromkeys(labels, 1), "of": "gold entities"}
    breakdown["scores"] = {name: dict.fromkeys(labels, 0.5) for name in report["models"]}
    tables = {name: generator.poisson(0.3, (number + 1, number + 1)).tolist() for name in report["models"]}
    return report | {"labels": labels, "confusion": tables, "breakdowns": {"label": breakdown}}


def test_plots_of_many_labels_show_those_with_most_errors(report):
    report = with_labels(report, 70)
    tables = report["confusion"]
    errors = []
    for at in range(70):
        wrong = 0
        for table in tables.values():
            wrong += sum(table[at][j] + table[j][at] for j in range(71) if j != at)
        errors.append((-wrong, at))
    chosen = sorted(at for _, at in sorted(errors)[: plots.MOST])
    for name, table in tables.items():
        rows, columns, cells = plots.confusion_shown(report, name)
        assert rows == [*(report["labels"][at] for at in chosen), "none"]
        assert columns == [*rows[:-1], "others", "none"]
        for row, at in enumerate([*chosen, 70]):
            others = sum(table[at][j] for j in range(70) if j not in chosen)
            assert cells[row].tolist() == [*(table[at][j] for j in chosen), others, table[at][70]]


def test_plots_and_page_do_not_grow_with_the_labels(report, tmp_path):
    """A confusion matrix of 300 labels took 14 GB."""
    sizes, cells = [], []
    for number in (70, 200):
        many = with_labels(report, number)
        sizes.append([tuple(draw().get_size_inches()) for draw in plots.comparison_plots(many).values()])
        write_comparison(tmp_path / str(number), many)
        cells.append((tmp_path / str(number) / "report.html").read_text().count("<td>"))
    assert sizes[0] == sizes[1]
    assert cells[1] - cells[0] < 200 * len(report["models"])  # of the table by label, a column each
    few = with_labels(report, plots.MOST)
    assert plots.confusion_shown(few, "whole")[2].tolist() == few["confusion"]["whole"]


def test_without_a_confusion_the_most_frequent_labels_are_plotted(report):
    """Of several labels a text, say."""
    many = with_labels(report, 70) | {"confusion": {}}
    size = many["breakdowns"]["label"]["size"]
    size |= {label: number for number, label in enumerate(size)}
    shown = [tick.get_text() for tick in plots.comparison_plots(many)["by_label"]().axes[0].get_yticklabels()]
    assert sorted(" ".join(text.split()[:2]) for text in shown) == [f"label {i}" for i in range(50, 70)]


def test_a_plot_that_fails_is_named_and_costs_nothing_else(report, tmp_path, monkeypatch):
    write_comparison(tmp_path, report)
    assert (tmp_path / "plots/quality_and_cost.png").exists()

    def too_large(report):
        raise MemoryError("Unable to allocate 1.39 GiB")

    monkeypatch.setattr(plots, "_costs", too_large)
    write_comparison(tmp_path, report)
    told = "the plot quality_and_cost: MemoryError: Unable to allocate 1.39 GiB"
    assert told in (tmp_path / "report.html").read_text()
    markdown = (tmp_path / "comparison.md").read_text()
    assert f"- **failed**: {told}" in markdown
    assert "plots/quality_and_cost.png" not in markdown
    assert "plots/scores.png" in markdown
    assert not (tmp_path / "plots/quality_and_cost.png").exists()  # of the earlier report
    assert json.loads((tmp_path / "comparison.json").read_text())["plots_failed"].keys() == {"quality_and_cost"}


def test_plots_are_not_written_through_links(report, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "scores.png").write_text("mine")
    (out / "plots").symlink_to(elsewhere)
    write_comparison(out, report)
    assert not (out / "plots").is_symlink()
    assert (out / "plots/scores.png").stat().st_size > 2000
    for name in ("scores.png", ".scores.png.writing"):
        (out / "plots" / name).unlink(missing_ok=True)
        (out / "plots" / name).symlink_to(elsewhere / "scores.png")
    write_comparison(out, report)
    assert not (out / "plots/scores.png").is_symlink()
    assert not (out / "plots/.scores.png.writing").is_symlink()
    assert [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("scores.png", "mine")]


def test_files_that_no_report_wrote_stay(report, tmp_path):
    for name in ("thesis.png", "by_hand.png", "deeper/scores.png"):
        (tmp_path / "plots" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plots" / name).write_text("mine")
    write_comparison(tmp_path, report)
    assert all((tmp_path / "plots" / name).read_text() == "mine" for name in ("thesis.png", "by_hand.png"))
    assert (tmp_path / "plots/deeper/scores.png").exists()


def with_scores(report, **values):
    """The same with these scores of the seeds."""
    models = {}
    for name, model in report["models"].items():
        score = asdict(metrics.over_seeds(values[name], 0.0, 1.0)) | {"values": values[name]}
        models[name] = model | {"seeds": list(range(len(values[name]))), "scores": {"test_f1": score}}
    return report | {"models": models}


def told(report):
    return _markdown(report | {"plots_failed": {}}, [])


def test_what_is_no_interval_is_not_told_as_one(report):
    text = told(with_scores(report, whole=[0.1, 0.3], short=[0.0, 0.0, 0.0]))
    assert re.search(r"^\| whole +\| +0.2000 ± 0.1414 \| +two seeds: no interval \|", text, re.MULTILINE)
    assert re.search(r"^\| short +\| +0.0000 ± 0.0000 \| +all seeds have this score: no interval", text, re.MULTILINE)
    text = told(with_scores(report, whole=[0.9, 1.0, 1.0], short=[0.5]))
    assert re.search(r"^\| whole +\| .*\| +0.8232 to 1.0000 \|", text, re.MULTILINE)
    flat = report["pairs"][0] | {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert "so the interval has no width" in told(report | {"pairs": [flat]})
    assert "so the interval has no width" not in told(report | {"pairs": [flat | {"high": 0.1}]})


def test_the_first_sentence_says_what_was_shown(report):
    def first(p, high=0.1, **values):
        pair = {"difference": -0.2, "low": -0.5, "high": high, "p_holm": p}
        of_both = report | {"pairs": [report["pairs"][0] | pair]}
        assert (of_both["pairs"][0]["first"], of_both["pairs"][0]["second"]) == ("whole", "short")
        return told(with_scores(of_both, **values)).splitlines()[2]

    lower = "short has the highest test F1, 0.7000 ± 0.0000. The next is whole, 0.2000 lower. "
    values = {"whole": [0.5, 0.5], "short": [0.7, 0.7]}
    assert first(0.04, **values) == f"{lower}Chance alone would hardly give such a difference (p 0.040)."
    assert first(0.3, **values) == (
        f"{lower}This test cannot tell which of the two is better: with other test sentences or other seeds, "
        "short may be up to 0.1000 lower or 0.5000 higher (p 0.300). It does not show that they are equally good; "
        "more test sentences or more seeds may decide it."
    )
    # The interval does not hold 0, but there are many pairs.
    assert "1 pairs of models are compared here" in first(0.3, **values, high=-0.01)
    for other in (0.1 + 0.2, 0.30001):  # greater in the last bit, or in what no table shows
        assert first(1.0, whole=[0.3], short=[other]) == "short and whole have the same test F1, 0.3000."
    assert "have the same" not in first(1.0, whole=[0.3], short=[0.3001])


def test_tables_are_files_and_inside_the_page(report, page):
    folder = page.parent / "tables"
    rows = list(csv.DictReader((folder / "scores.csv").open(encoding="utf-8", newline="")))
    means = {row["model"]: float(row["mean"]) for row in rows if row["score"] == "test_f1"}
    assert means == {name: model["scores"]["test_f1"]["mean"] for name, model in report["models"].items()}
    (pair,) = csv.DictReader((folder / "differences.csv").open(encoding="utf-8", newline=""))
    assert {key: float(pair[key]) for key in ("difference", "low", "p_holm")} == {
        key: report["pairs"][0][key] for key in ("difference", "low", "p_holm")
    }
    cells = list(csv.DictReader((folder / "confusion.csv").open(encoding="utf-8", newline="")))
    assert sum(float(cell["number"]) for cell in cells) == np.sum(list(report["confusion"].values()))
    inside = re.findall(r'href="data:text/plain;charset=utf-8,([^"]*)" download="([^"]+)"', page.read_text())
    assert sorted(name for _, name in inside) == sorted(path.name for path in folder.iterdir())
    for text, name in inside:
        assert urllib.parse.unquote(text) == (folder / name).read_text(encoding="utf-8")


def test_latex_has_as_many_cells_in_each_row_and_no_command_of_the_data(report, tmp_path):
    named = {"whole": "a_b & c%", "short": r"\\input{x}$^~#"}
    # In JSON, each backslash is written twice.
    renamed = json.dumps(report).replace('"whole"', f'"{named["whole"]}"').replace('"short"', f'"{named["short"]}"')
    write_comparison(tmp_path, json.loads(renamed))
    for path in (tmp_path / "tables").glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        columns = re.search(r"\\begin{tabular}{(lr*)}", text).group(1)
        rows = [line for line in text.splitlines() if line.endswith(r" \\")]
        assert len(rows) > 1
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
        if path.name not in ("differences.tex", "confusion.tex"):
            assert rows[1].startswith(r"a\_b \& c\% & ")
    assert r"\textbackslash{}input\{x\}\$\textasciicircum{}\textasciitilde{}\# & " in (
        tmp_path / "tables/scores.tex"
    ).read_text(encoding="utf-8")


def test_tables_of_an_earlier_report_go_and_files_of_the_user_stay(report, tmp_path):
    write_comparison(tmp_path, report)
    (tmp_path / "tables/mine.csv").write_text("mine")
    assert (tmp_path / "tables/scorers.csv").exists()
    write_comparison(tmp_path, {key: value for key, value in report.items() if key != "scorers"})
    assert not (tmp_path / "tables/scorers.csv").exists()
    assert not (tmp_path / "tables/scorers.tex").exists()
    assert (tmp_path / "tables/mine.csv").read_text() == "mine"
