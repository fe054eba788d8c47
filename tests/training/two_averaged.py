"""Run by test_best.py under `torchrun`: a run, and the same again, which dies before it takes its second mean."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from finetune import cli
from finetune.training import best
from recipes.ner import NerConfig, finetune_ner


def main():
    flags, folder = sys.argv[1], Path(sys.argv[2])
    config = cli.parse(NerConfig, ["--config", flags])
    finetune_ner(replace(config, output_dir=str(folder / "whole")))

    best.mean_weights = dies_second(best.mean_weights)
    finetune_ner(replace(config, output_dir=str(folder / "killed")))


def dies_second(original):
    calls = []

    def mean(files):
        calls.append(files)
        if len(calls) == 2:
            os._exit(9)
        return original(files)

    return mean


if __name__ == "__main__":
    main()
