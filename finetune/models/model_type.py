"""What a folder says that it holds, without loading it."""

import json
from pathlib import Path


def model_type_of(name: str) -> str | None:
    """The `model_type` in the `config.json` of a folder; None if `name` is no such folder."""
    try:
        return str(json.loads((Path(name) / "config.json").read_text())["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
