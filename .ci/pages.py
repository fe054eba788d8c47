"""The pages of the site that are not files of docs/: the READMEs, every flag, every public name. mkdocs.yml names it.

The READMEs stay where a reader of the repository looks for them. The site shows the same text, with links that
lead to its own pages.
"""

import ast
import dataclasses
import html
import importlib
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from finetune import arguments
from recipes.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "recipes/README.md": "configs.md",
    "finetune/data/samples/README.md": "samples.md",
}
PARTS = {
    "data": "Text in: readers, tags, alignment, batches",
    "models": "Checkpoints, heads, recurrent baselines, encoder-decoders",
    "metrics": "Counts and scores, and whether a difference is chance",
    "training": "The loop, its steps, its checkpoints",
    "reporting": "Model card, report, plots",
}
TASKS = ("tagging", "classification", "questions", "seq2seq", "masked", "next_word")
LINK = re.compile(r"""((?:\]\(|(?:src|href)="))(?!https?:|#|mailto:)([^)#"\s]+)""")


def on_config(config: Any) -> Any:
    """Pages that mkdocs.yml does not name come last in the navigation, so that none is lost."""
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    others = sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name not in named)
    if others:
        config.nav.append({"More": others})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    pages = {to: (ROOT / at).read_text(encoding="utf-8") for at, to in OUTSIDE.items()}
    pages |= {"flags.md": flags(), "api/finetune.md": uses(), "api/tasks.md": tasks(), "api/recipes.md": recipes()}
    pages |= {f"api/{part}.md": public_names(part, title) for part, title in PARTS.items()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text of a page, with links to the pages of the site."""
    outside = {to: at for at, to in OUTSIDE.items()}
    at = outside.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def linked(found: re.Match[str]) -> str:
        link = site_link(found[2], at)
        # mkdocs turns links of Markdown into links to pages, but leaves HTML as it is.
        return found[1] + (re.sub(r"\.md$", ".html", link) if found[1].endswith('"') else link)

    return LINK.sub(linked, markdown)


def site_link(target: str, at: str) -> str:
    """Where a link of the file `at` leads on the site, as a link. `at` is a path in the repository."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(at), target))
    if path in OUTSIDE:
        path = f"docs/{OUTSIDE[path]}"
    here = f"docs/{OUTSIDE[at]}" if at in OUTSIDE else at
    return posixpath.relpath(path, posixpath.dirname(here))


def public_names(part: str, title: str) -> str:
    """The reference of a part: the names of its `__init__.pyi`, in the order of their modules."""
    stub = (ROOT / f"finetune/{part}/__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from \.(\w+) import (\w+) as \2$", stub, re.MULTILINE)
    lines = [f"# finetune.{part}", f"{title}. Import the names from `finetune.{part}`."]
    module = ""
    for where, name in names:
        if where != module:
            lines.append(f"## {where}.py")
            module = where
        lines.append(f"::: finetune.{part}.{where}.{name}")
    return "\n\n".join(lines) + "\n"


def uses() -> str:
    """The reference of the names at the top of the package."""
    stub = (ROOT / "finetune/__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from \.(\w+) import (\w+) as \2$", stub, re.MULTILINE)
    text = "# finetune\n\n`import finetune` offers these functions, and the parts that the other pages list.\n"
    for where, name in names:
        if name.islower() and name != where:
            text += f"\n::: finetune.{where}.{name}\n    options:\n      heading_level: 2\n"
    return text


def tasks() -> str:
    """The reference of the tasks: each is a module with the same functions."""
    text = "# Tasks\n\nA task is a module of plain functions. `finetune.stages` says which, and calls them.\n"
    for name in ("stages", *(f"tasks.{task}" for task in TASKS)):
        text += f"\n::: finetune.{name}\n    options:\n      heading_level: 2\n      show_root_full_path: true\n"
    return text


def recipe_names() -> dict[str, tuple[str, str]]:
    """The recipes that are commands and have a config: module -> its function, its dataclass."""
    found = {}
    for module, _ in COMMANDS.values():
        body = ast.parse((ROOT / f"recipes/{module}.py").read_text(encoding="utf-8")).body
        config = next(
            (node.name for node in body if isinstance(node, ast.ClassDef) and node.name.endswith("Config")), ""
        )
        for node in body:
            takes = isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].annotation
            if config and takes and ast.unparse(takes) == config and node.name != "resolved":
                found[module] = (node.name, config)
                break
    return found


def recipes() -> str:
    """The reference of the recipes: a function and its config each."""
    text = "# Recipes\n\nEach recipe is a function of a dataclass. The [flags](../flags.md) are its fields.\n"
    for module, (function, config) in recipe_names().items():
        text += f"\n## recipes/{module}.py\n\n::: recipes.{module}.{function}\n"
        text += f"\n::: recipes.{module}.{config}\n    options:\n      members: false\n"
    return text


def flags() -> str:
    """A table of the flags: those that several recipes share, by their dataclass, then each recipe's own."""
    kinds = {name: kind for name, kind in vars(arguments).items() if name.endswith("Arguments")}
    for module, (_, config) in recipe_names().items():
        kind = getattr(importlib.import_module(f"recipes.{module}"), config)
        kinds |= {base.__name__: base for base in kind.__mro__ if base.__name__.endswith("Arguments")}
        kinds[f"recipes/{module}.py"] = kind
    text = (
        "# Flags\n\nThe same names are keys of a config file (`--config`) and fields of the dataclasses. Square "
        "brackets show a default that depends on something. `finetune COMMAND --help` shows the flags of a command.\n"
    )
    for title, kind in sorted(kinds.items(), key=lambda item: item[0].startswith("recipes/")):
        own = set(vars(kind).get("__annotations__", ()))
        rows = [field for field in dataclasses.fields(kind) if field.name in own and "help" in field.metadata]
        if rows:
            text += f"\n## {title}\n\n| flag | meaning | default |\n|---|---|---|\n"
            text += "".join(
                f"| `--{row.name}` | {cell(row.metadata['help'])} | {default(row.default)} |\n" for row in rows
            )
    return text


def default(value: Any) -> str:
    """A default for a table."""
    return "" if value in (None, dataclasses.MISSING) else f"`{value}`"


def cell(text: str) -> str:
    """A help text for a table of Markdown."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")
