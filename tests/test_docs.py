"""README.md and docs/: commands have flags that exist, links lead somewhere, marked blocks run, the site builds.

A mark is a comment on the line before a block: `<!-- run -->`, `<!-- run, slow -->`, `<!-- not run: REASON -->`, and
`<!-- output -->` for what the block before it prints. The blocks of a page run one after another in one folder.
They run as they are written, but short: where a training has the default number of steps or the default checkpoint,
it gets two steps and a tiny one. So these tests see that a command works, not what it measures.
"""

import ast
import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify
from random_checkpoint import build

from finetune import cli
from finetune.arguments import DEFAULT_MODEL
from recipes.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "recipes/README.md", "benchmarks/README.md"]
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITTEN = re.compile(r"^cat > (\S+) <<'(\w+)'\n(.*?)^\2$", re.MULTILINE | re.DOTALL)  # files that a block writes
GENERATED = ("flags.md", "samples.md")  # .ci/pages.py makes them; the test of the site looks at these links
LINK = r"""(?:\]\(|(?:src|href)=")(?!https?:)([^)"\s]+)"""
SHORT = {"max_steps": 2, "max_train_samples": 24, "max_eval_samples": 12, "per_device_train_batch_size": 8}


@dataclasses.dataclass
class Block:
    page: str
    line: int
    mark: str
    language: str
    code: str


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1] or "", found[2], found[3])


def commands(code):
    """The commands of a block of shell: their words, and what an `echo` in front of a pipe says."""
    code = re.sub(r"<<'(\w+)'.*?^\1$", "", code, flags=re.MULTILINE | re.DOTALL)
    for line in code.replace("\\\n", " ").splitlines():
        *before, command = line.split(" | ")
        said = shlex.split(before[0])[1] + "\n" if before and before[0].startswith("echo ") else None
        words = shlex.split(command, comments=True)
        if words:
            yield words, said


def recipe(words):
    """The module of the recipe that a command starts, and the words that follow; None for another command."""
    text = shlex.join(words)
    found = re.match(r"finetune ([\w-]+)|(?:python|accelerate) .*?(?:-m recipes ([\w-]+)|recipes/(\w+)\.py)", text)
    if found is None or (found[1] or "").startswith("-"):
        return None
    module = found[3] or COMMANDS[found[1] or found[2]][0]
    return importlib.import_module(f"recipes.{module}"), shlex.split(text[found.end() :])


def config_class(module):
    kinds = [
        kind for name, kind in vars(module).items() if name.endswith("Config") and dataclasses.is_dataclass(kind)
    ]
    return next((kind for kind in kinds if kind.__module__ == module.__name__), None)


def parsed(module, words):
    if hasattr(module, "parse"):
        return module.parse(words)
    kind = config_class(module)
    return cli.parse(kind, words) if kind else None


def shortened(config, tiny):
    """The fields that make a training short, where the config has their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    wanted = {name: value for name, value in SHORT.items() if name in defaults and "learning_rate" in defaults}
    if getattr(config, "model_name_or_path", None) == DEFAULT_MODEL:
        wanted["model_name_or_path"] = str(tiny)
    return {name: value for name, value in wanted.items() if getattr(config, name) == defaults[name]}


SHELL = [block for page in TEXTS for block in blocks(page) if block.language in ("sh", "bash")]
PYTHON = [block for page in TEXTS for block in blocks(page) if block.language == "python"]


def test_marks_are_written_in_the_same_way():
    marks = {block.mark for page in PAGES for block in blocks(page) if block.mark}
    assert {mark for mark in marks if not mark.startswith("not run: ")} <= {"run", "run, slow", "output"}


def test_every_command_has_flags_and_files_that_exist(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    seen = 0
    for block in SHELL:
        for words, _ in commands(block.code):
            where = f"{block.page}:{block.line}: {shlex.join(words)}"
            scripts = [word for word in words if re.match(r"(recipes|benchmarks|tests)/.*\.(py|yaml)$", word)]
            assert all((ROOT / script).exists() for script in scripts), where
            found = recipe(words)
            if (
                found is None
                or "--help" in words
                or words[-1] == "..."
                or any("runs/" in word and word.endswith(".yaml") for word in words)
            ):
                continue
            try:
                parsed(*found)
            except SystemExit:
                pytest.fail(f"{where}\n{capsys.readouterr().err}")
            seen += 1
    assert seen > 40


def test_every_name_that_a_snippet_imports_exists():
    for block in PYTHON:
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(("finetune", "recipes")):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), f"{block.page}:{block.line}"


def anchors(path):
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {slugify(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", ""), "-") for title in titles}


def test_links_within_the_repository_lead_somewhere():
    seen = 0
    for page in TEXTS:
        for target in re.findall(LINK, (ROOT / page).read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            there = (ROOT / page).parent / path if path else ROOT / page
            generated = page.startswith("docs/") and path in GENERATED
            assert generated or there.exists(), f"{page}: {target}"
            if anchor and not generated:
                assert anchor in anchors(there), f"{page}: {target}"
            seen += 1
    assert seen > 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, sample_texts):
    """A checkpoint that learns nothing, but quickly."""
    folder = tmp_path_factory.mktemp("tiny")
    build("wordpiece", sample_texts, folder, vocab_size=400, hidden_size=16, layers=1, positions=512)
    return folder


class _Shorten(ast.NodeTransformer):
    def visit_Call(self, node):
        self.generic_visit(node)
        name = ast.unparse(node.func)
        made = name.endswith("Config") and not name.startswith("Auto")
        return ast.Call(ast.Name("short", ast.Load()), [node], []) if made else node


def run_blocks(page, marks, tiny, folder, monkeypatch, capfd):
    """Runs the marked blocks of a page in a folder. Returns what each of them printed, by its line."""
    monkeypatch.chdir(folder)
    names = {"short": lambda config: dataclasses.replace(config, **shortened(config, tiny))}
    printed = {}
    capfd.readouterr()
    for block in blocks(page):
        if block.mark not in marks:
            continue
        if block.language == "python":
            code = ast.fix_missing_locations(_Shorten().visit(ast.parse(block.code)))
            exec(compile(code, f"{page}:{block.line}", "exec"), names)
        for name, _, content in WRITTEN.findall(block.code) if block.language == "sh" else ():
            Path(name).write_text(content, encoding="utf-8")
        for words, said in commands(block.code) if block.language == "sh" else ():
            if words[:2] == ["cat", ">"]:
                continue
            module, rest = recipe(words)
            config = parsed(module, rest)
            more = shortened(config, tiny) if dataclasses.is_dataclass(config) else {}
            if module.__name__ == "recipes.compare":  # a comparison gives its flags to each model
                more = {"max_train_samples": 24, "max_eval_samples": 12, "num_train_epochs": 1}
            if said is not None:
                Path("said.txt").write_text(said, encoding="utf-8")
                more |= {"input_file": "said.txt", "input_format": "text"}
            module.main([*rest, *(f"--{name}={value}" for name, value in more.items())])
        printed[block.line] = capfd.readouterr()
    assert printed
    return printed


def test_the_commands_of_the_readme_run(tiny, tmp_path, monkeypatch, capfd):
    printed = list(run_blocks("README.md", {"run"}, tiny, tmp_path, monkeypatch, capfd).values())
    assert '"text": "Grace Hopper was born in New York."' in printed[0].out
    assert re.search(r"^0\.\d+ \d+$", printed[1].out, re.MULTILINE)


MARKED = [page for page in PAGES if any(block.mark.startswith("run") for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", MARKED)
def test_the_commands_of_a_page_run(page, tiny, tmp_path, monkeypatch, capfd):
    run_blocks(page, {"run", "run, slow"}, tiny, tmp_path, monkeypatch, capfd)


def numbers(text):
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


@pytest.mark.slow
def test_the_readme_shows_what_its_snippet_prints(tmp_path, monkeypatch, capfd):
    """The real checkpoint and the whole training: words as they are written, scores within five points."""
    snippet, said = [block for block in blocks("README.md") if block.language == "python" or block.mark == "output"][
        1:
    ]
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet.code, "README.md", "exec"), {})
    found = capfd.readouterr().out.splitlines()[-len(said.code.splitlines()) :]
    assert re.sub(r"0\.\d+", "", "\n".join(found)) == re.sub(r"0\.\d+", "", said.code.strip())
    assert numbers(found[0])[0] == pytest.approx(numbers(said.code)[0], abs=0.05)


def test_the_readme_shows_one_run_only():
    """Shell and Python train with the same settings, so they have the same score."""
    shell, python = (block.code for block in blocks("README.md") if block.mark == "output")
    assert re.search(r"test: f1 (\S+)", shell)[1] == python.split()[0]


@pytest.mark.slow
def test_the_site_builds_and_its_links_lead_somewhere(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in re.findall(r'(?:src|href)="([^"#:?]+)["#?]', (tmp_path / "index.html").read_text(encoding="utf-8")):
        assert (tmp_path / name).exists(), name  # HTML that is written by hand, too
    reference = (tmp_path / "api/data.html").read_text(encoding="utf-8")
    assert "finetune.data.alignment.align" in reference
    assert "--max_seq_length" in (tmp_path / "flags.html").read_text(encoding="utf-8")
