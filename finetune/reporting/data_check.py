"""Writes what the check of a data set found: JSON, and a page of HTML."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.files import write_text
from finetune.reporting.tables import aligned

_TEMPLATES = Path(__file__).parent
_WIDEST = 40  # characters of a cell in a terminal


def write_data_check(
    folder: Path, name: str, sections: Sequence[Mapping[str, Any]], found: Mapping[str, Any]
) -> None:
    """Writes `data_check.json` and `data_check.html`.

    Args:
        name: of the data.
        sections: parts of the page, each with `name`, `title`, `says`, `columns`, `rows`, `note`, `look` and `more`.
        found: the content of the JSON file.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("data_check.html").render(name=name, sections=sections, cell=_cell)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "data_check.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / "data_check.html", page)


def data_check_table(sections: Sequence[Mapping[str, Any]], rows: int = 4) -> str:
    """The check as text for a terminal: of each section its sentence, and the first rows of its table."""
    parts = []
    for section in sections:
        places = [i for i, name in enumerate(section["columns"]) if "place" in name]
        lines = [f"{'!' if section['look'] else ' '} {section['title']}", f"  {section['says']}"]
        few = [[_short(value, i in places) for i, value in enumerate(row)] for row in section["rows"][:rows]]
        if few:
            table = aligned([list(map(_short, section["columns"])), *few])
            lines += ["", *(f"  {line}" for line in table.splitlines())]
            left = len(section["rows"]) + section["more"] - len(few)
            lines += [f"  and {left:,} more rows"] if left else []
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: Any, is_place: bool = False) -> str:
    """A cell of the terminal's table: the beginning of a long text; of a path the end, which has the line."""
    text = " ".join(_cell(value).split())
    if len(text) <= _WIDEST:
        return text
    return f"...{text[3 - _WIDEST :]}" if is_place else f"{text[: _WIDEST - 4]} ..."
