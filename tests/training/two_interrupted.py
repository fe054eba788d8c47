"""Run by test_signals.py under `torchrun`: a run, and the same with a SIGTERM to the second process, resumed."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed
from test_signals import a_config

from finetune import training
from finetune.training import loop
from recipes.ner import finetune_ner


def main():
    checkpoint, folder = sys.argv[1], Path(sys.argv[2])
    config = replace(a_config(checkpoint, folder / "whole"), per_device_train_batch_size=2)
    finetune_ner(config)

    original, count = loop.accumulate_gradients, 0

    def step(accelerator, *arguments):
        nonlocal count
        count += 1
        if count == 3 and accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(accelerator, *arguments)

    loop.accumulate_gradients = step
    config = replace(config, output_dir=str(folder / "killed"))
    code = None
    try:
        finetune_ner(config)
    except SystemExit as left:
        code = left.code
    saved = [path.name for path in training.checkpoints(Path(config.output_dir))]
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps([code, saved]))
    torch.distributed.barrier()
    finetune_ner(replace(config, resume_from_checkpoint="true"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
