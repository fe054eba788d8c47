"""`finetune completion`: bash itself completes with the script that is printed."""

import importlib
import shutil
import subprocess

import pytest

from recipes import completion
from recipes.__main__ import COMMANDS

TRY = """
source script.sh
complete -p finetune
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_finetune; echo "${COMPREPLY[*]}"; }
try finetune pred
try finetune ner --decod
try finetune ner --decoding ""
try finetune compare --see
try finetune predict --input_format ta
try finetune predict --input_file my
try finetune ner --output_dir my
try finetune distil --teacher my
try finetune ner --split_sentences ""
try finetune completion ba
try finetune fetch wnut
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path, capsys):
    completion.main(["bash"])
    (tmp_path / "script.sh").write_text(capsys.readouterr().out)
    (tmp_path / "my_runs").mkdir()
    (tmp_path / "my_reviews.csv").touch()
    done = subprocess.run(["bash", "-c", TRY], capture_output=True, text=True, check=True, cwd=tmp_path)
    wanted = ["predict", "--decoding", "argmax viterbi", "--seed --seeds", "table"]
    assert done.stdout.splitlines()[1:6] == wanted
    files, folders, runs = (set(line.split()) for line in done.stdout.splitlines()[6:9])
    assert "my_reviews.csv" in files
    assert folders == {"my_runs"}
    assert "my_runs" in runs
    assert done.stdout.splitlines()[9:] == ["true false", "bash", "wnut17"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_has_a_script_that_it_can_read(shell, tmp_path, capsys):
    completion.main([shell])
    script = capsys.readouterr().out
    assert "viterbi" in script
    if shell != "tcsh" and shutil.which(shell):  # tcsh has no way to read a script and not run it
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_can_show_its_flags(command):
    recipe = importlib.import_module(f"recipes.{COMMANDS[command][0]}")
    parsers = list(completion.parsers_of(recipe))
    assert bool(parsers) == (command not in ("completion", "demo"))  # these two have no flags
    for parser in parsers:
        assert "--" in parser.format_help()
    with pytest.raises(SystemExit) as end:
        recipe.main(["--help"])
    assert end.value.code == 0


def test_an_unknown_shell(capsys):
    with pytest.raises(SystemExit):
        completion.main(["cmd"])
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
