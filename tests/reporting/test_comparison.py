"""The report's page in a real browser, and words of the data in it."""

import json
import re
import shutil
import subprocess

import pytest

from finetune.comparison import comparison_of
from finetune.data import read_tagged
from finetune.reporting import machine, plots, write_comparison
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
    report = comparison_of(runs, read_tagged(runs["whole", 0]), "test") | {
        "failures": [],
        "command": HOSTILE,
        "machine": machine(),
    }
    write_comparison(folder, report)
    return folder / "report.html"


def test_words_of_the_data_are_words(page):
    text = page.read_text()
    assert HOSTILE.replace(" ", "_") not in text
    assert text.count("<script>") == 1


def test_no_two_models_look_alike():
    styles = [plots._style(number) for number in range(64)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 64


def test_the_same_numbers_give_the_same_bytes(page, tmp_path):
    report = json.loads((page.parent / "comparison.json").read_text())
    for folder in ("a", "b"):
        write_comparison(tmp_path / folder, report)
    assert (tmp_path / "a/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium, to open the page in")
def test_the_page_sorts_and_filters_in_a_browser(page, tmp_path):
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
      set("wrong", "short"); said.push(shown());
      set("right", "whole"); said.push(shown());
      set("right", ""); set("find", "bergen"); said.push(shown());
      said.push(document.querySelectorAll("figure svg").length + " plots");
      said.push(document.documentElement.scrollWidth <= window.innerWidth ? "fits" : "too wide");
      document.body.textContent = JSON.stringify(said);
    });
    </script>"""
    test = tmp_path / "page.html"
    test.write_text(page.read_text().replace("<head>", f"<head>{script}", 1))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", f"file://{test}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = json.loads(re.search(r"<body>(\[.*\])</body>", done.stdout, re.DOTALL).group(1))
    assert not [line for line in said if line.startswith("error")]
    assert said == [
        "whole,short", "whole,short", "short,whole",
        "2 of 2", "2 of 2", "1 of 2", "1 of 2", "6 plots", "fits",
    ]  # fmt: skip
