"""Splits XQuAD by article into train, dev and test: the same articles in every language, no passage on two sides.

    python benchmarks/split_xquad.py --data data/xquad --output_dir data/xquad_split

Reads xquad.<language>.json, and writes <language>.<split>.json: 32, 6 and 10 of the 48 articles, drawn with seed 0,
which have 829, 140 and 221 questions.
"""

import argparse
import json
from pathlib import Path

from recipes.public_data import split_articles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    arguments = parser.parse_args()
    files = sorted(arguments.data.glob("xquad.*.json"))
    if not files:
        raise SystemExit(f"--data {arguments.data}: no file xquad.<language>.json")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    expected: dict[str, list[str]] | None = None
    for path in files:
        language = path.name.split(".")[1]
        sides = split_articles(json.loads(path.read_text(encoding="utf-8"))["data"])
        asked = {
            name: [question["id"] for article in side for part in article["paragraphs"] for question in part["qas"]]
            for name, side in sides.items()
        }
        expected = expected or asked
        if asked != expected:
            raise SystemExit(f"{path}: not the questions of {files[0]}")
        for name, side in sides.items():
            text = json.dumps({"version": "1.1", "data": side}, ensure_ascii=False)
            (arguments.output_dir / f"{language}.{name}.json").write_text(text, encoding="utf-8")
        print(language, *(f"{name} {len(ids)}" for name, ids in asked.items()))


if __name__ == "__main__":
    main()
