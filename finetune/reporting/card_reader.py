"""Reads the scores of a model card back, to compare them with the results of its run."""

import re
from typing import Any

import yaml
from huggingface_hub import ModelCard


def scores_of_card(text: str) -> dict[str, str]:
    """The rows of the table of scores, as they are written. The table is in the section `## Scores`."""
    section = text.partition("\n## Scores\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (.+) \| (-?(?:[\d.]+|nan|inf)) \|$", section, re.MULTILINE))


def metadata_of_card(text: str) -> dict[str, Any]:
    """The scores in the metadata at the top of the card, by their names in `all_results.json`."""
    try:
        data: Any = ModelCard(text, ignore_metadata_errors=True).data
        found = data.eval_results or []
    except (ValueError, TypeError, yaml.YAMLError):  # somebody has changed it
        return {}
    names = {"validation": "eval"}
    return {
        f"{names.get(str(one.dataset_split), one.dataset_split)}_{one.metric_type}": one.metric_value for one in found
    }
