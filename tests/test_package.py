"""What is installed: everything that the commands need, and nothing that stays behind in a checkout."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from recipes.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The files of a wheel that was built from this tree, unpacked as pip does."""
    setuptools = pytest.importorskip("setuptools", "77")
    assert setuptools
    tree, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("installed")
    for name in ("finetune", "recipes"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True, check=False, cwd=tree)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = folder.glob("finetune_recipes-*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_both_packages(installed):
    for name in ("finetune", "recipes"):
        files = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.is_file()}
        files = {path for path in files if "__pycache__" not in path.parts} - {Path("recipes/README.md")}
        assert files == {path.relative_to(installed) for path in (installed / name).rglob("*") if path.is_file()}


def test_commands_configs_and_samples_away_from_the_checkout(installed, tmp_path):
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "finetune = recipes.__main__:main" in entry.read_text()
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); sys.argv[0] = 'finetune'\n"
        "from recipes.__main__ import main\nmain()"
    )

    def finetune(*words, status=0):
        command = [sys.executable, "-I", "-c", code, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    (metadata,) = installed.glob("*.dist-info/METADATA")
    assert f"\nVersion: {finetune('--version')}" in metadata.read_text()
    assert "ner/wnut17" in finetune("--help")
    assert "unknown command 'sentimnt'; did you mean sentiment?" in finetune("sentimnt", status=2)
    small = ["--hidden_size=8", "--embedding_size=8", "--char_features=none", "--max_steps=1", "--output_dir=run"]
    assert "test: f1 " in finetune("ner", "--config", "ner/samples_recurrent", *small)
    assert (tmp_path / "run/model.safetensors").exists()


def test_every_recipe_has_a_command_and_none_of_them_costs_torch():
    for file in (ROOT / "recipes").glob("[!_]*.py"):
        has_main = any(getattr(node, "name", "") == "main" for node in ast.parse(file.read_text()).body)
        assert has_main == (file.stem in {module for module, _ in COMMANDS.values()}), file
    code = "import sys; from recipes.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.endswith("False\n")
