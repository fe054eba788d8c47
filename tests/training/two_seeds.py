"""Run by test_loop.py under torch's launcher: prints what each process draws in the first step of a run."""

import sys

import torch
from accelerate.utils import gather_object

from finetune.training import loop
from recipes.ner import NerConfig, finetune_ner

drawn = []
accumulate = loop.accumulate_gradients


def noting(*arguments):
    drawn.append(torch.rand(2, generator=torch.default_generator.clone_state()).tolist())
    return accumulate(*arguments)


loop.accumulate_gradients = noting
config = NerConfig(
    dataset_name="samples",
    model_name_or_path="rnn",
    hidden_size=8,
    char_features="none",
    max_train_samples=8,
    max_eval_samples=2,
    max_steps=1,
    output_dir=sys.argv[1],
    disable_tqdm=True,
)
finetune_ner(config)
gathered = gather_object([drawn[0]])
if torch.distributed.get_rank() == 0:
    print("drawn", gathered)
torch.distributed.destroy_process_group()
