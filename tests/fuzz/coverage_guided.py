"""Readers under libFuzzer's guidance: inputs that reach new branches of finetune/data are kept and changed further.

    pip install atheris
    python tests/fuzz/coverage_guided.py CSV -max_total_time=120      # a form of damage.py; then libFuzzer's flags
    python tests/fuzz/coverage_guided.py config -max_total_time=120

It ends with a traceback and a file `crash-...` at the first exception that no user should see.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

with atheris.instrument_imports(include=["finetune"]):
    from damage import FORMS, refused

    import finetune.cli
    import finetune.data.conll
    import finetune.data.documents
    import finetune.data.labels
    import finetune.data.readers
    import finetune.data.span_files
    import finetune.data.tokens
    import finetune.data.treebanks
    import finetune.data.word_files
    import finetune.data.word_rows
    import finetune.data.word_tables

KNOWN = {"seed", "head", "learning_rate", "output_dir"}
CONFIG = (
    "a.yaml",
    lambda path: finetune.config_files.yaml_to_argv(path, KNOWN),
    b"seed: 1\nhead: crf\n? output_dir\n: ~\n",
)


def main() -> None:
    form = sys.argv.pop(1)
    name, reader, whole = CONFIG if form == "config" else FORMS[form]
    folder = Path(tempfile.mkdtemp())
    path = folder / name
    seeds = folder / "seeds"
    seeds.mkdir()
    (seeds / "whole").write_bytes(whole)

    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            reader(path)
        except ValueError as error:
            refused(path, error)

    atheris.Setup([*sys.argv, str(seeds)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
