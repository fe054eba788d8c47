"""Completion of the command `finetune` with the TAB key: prints a script for your shell.

finetune completion bash > ~/.local/share/bash-completion/completions/finetune
finetune completion zsh > ~/.zfunc/_finetune        # and in ~/.zshrc: fpath+=~/.zfunc; compinit

It knows the commands, the flags of each and the values that a flag can have, or the files. `shtab` writes the script.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from finetune import cli
from recipes.public_data import DATA_SETS

_FOLDERS = ("output_dir", "run", "data_dir")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=cli.program(), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    try:
        import shtab
    except ImportError:
        parser.error("shtab is not installed; the extra `completion` brings it")
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    shell = parser.parse_args(argv).shell
    try:
        print(shtab.complete(whole(), shell), flush=True)
    except BrokenPipeError:
        cli.leave_if_nobody_reads()
        raise


def whole() -> argparse.ArgumentParser:
    """A parser of all commands and their flags, with marks where a file or a folder is meant."""
    import shtab

    from recipes.__main__ import COMMANDS

    first = {"completion": shtab.SUPPORTED_SHELLS, "fetch": (*DATA_SETS, "all")}  # what may stand without a flag
    parser = argparse.ArgumentParser(prog="finetune")
    commands = parser.add_subparsers()
    for name, (module, what) in COMMANDS.items():
        recipe = importlib.import_module(f"recipes.{module}")
        own = commands.add_parser(name, help=what, add_help=False)
        if name in first:
            own.add_argument("first", choices=first[name])
        for source in parsers_of(recipe):
            for action in source._actions:
                # `--output-dir` is another spelling of `--output_dir`; one of them is enough.
                action.option_strings = [word for word in action.option_strings if "-" not in word[2:]]
                if not set(action.option_strings) & own._option_string_actions.keys():
                    mark_places(action)
                    own._add_action(action)
    return parser


def parsers_of(recipe: Any) -> Iterator[argparse.ArgumentParser]:
    """The parsers of a recipe: of its config; for a command that takes the flags of other recipes, of these, too."""
    if hasattr(recipe, "options"):
        for own in recipe.RECIPES.values():
            yield cli.parser_of(own.config if hasattr(own, "config") else own[0])
        yield recipe.options()
        return
    for kind in vars(recipe).values():
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__module__ == recipe.__name__:
            yield cli.parser_of(kind)
            return


def mark_places(action: Any) -> None:
    """Says for the script which flags are true or false, and which take a folder, or a text, which may be a file."""
    import shtab

    action.help = (action.help or "").partition(". ")[0]
    if action.const is True:
        action.choices = ("true", "false")
    elif action.dest in _FOLDERS:
        action.complete = shtab.DIRECTORY
    elif action.choices is None and action.type in (str, None):
        action.complete = shtab.FILE


if __name__ == "__main__":
    main()
