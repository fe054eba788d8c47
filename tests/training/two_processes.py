"""Run by test_steps.py under `torchrun`: prints what each number of processes computes."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from finetune import data, training
from finetune.arguments import ModelArguments
from finetune.models import load
from finetune.tasks import masked

HEADS = {
    "tokens": ("token-classification", "linear", None),
    "crf": ("token-classification", "crf", None),
    "bilstm-crf": ("token-classification", "linear", "bilstm-crf"),
    "sequences": ("sequence-classification", "linear", None),
    "bilstm texts": ("sequence-classification", "linear", "bilstm"),
    "masked tokens": ("pretraining", "roberta", None),
    "masked tokens and next sentences": ("pretraining", "bert", None),
    "recurrent pairs": ("pairs", "gru2gru-attention", {"hidden_size": 8, "embedding_size": 8}),
    "transformer pairs": ("pairs", "transformer", {"hidden_size": 16, "num_attention_heads": 2}),
}


def a_model(checkpoint, head):
    """A model in eval mode (dropout would differ) and 17 rows of different lengths, with uneven targets."""
    from finetune.arguments import DataArguments

    task, kind, baseline = HEADS[head]
    if task == "pretraining":
        return a_masked_model(checkpoint, kind)
    if task == "pairs":
        return a_model_of_pairs(checkpoint, kind, baseline)
    arguments = ModelArguments(model_name_or_path=baseline or str(checkpoint), hidden_size=8, embedding_size=8)
    torch.manual_seed(0)
    if task == "token-classification":
        split = data.read_tagged(DataArguments(dataset_name="samples"))["train"]
        labels = data.entity_labels(split)
        split = split.filter(lambda row: len(row["tokens"]) <= 12).select(range(17))
        words = [word for sentence in split["tokens"] for word in sentence]
        model, tokenizer = load(task, arguments, labels, words=words, max_seq_length=64, head=kind)
        rows = data.align(split, tokenizer, labels, max_seq_length=64).rows
    else:
        split = data.read_labelled(DataArguments(dataset_name="samples"))["train"]
        labels = data.class_labels(split)
        split = split.filter(lambda row: len(row["text"].split()) <= 12).select(range(17))
        model, tokenizer = load(task, arguments, labels, words=split["text"], max_seq_length=64)
        rows = data.encode_texts(split, tokenizer, labels, max_seq_length=64).rows
    return model.eval(), rows, tokenizer.pad_token_id


def a_masked_model(checkpoint, objective):
    """The same for pretraining: 17 rows of one epoch, and a next-sentence head for the objective `bert`."""
    from finetune.models import load_for_pretraining, load_tokenizer
    from recipes.pretrain import PretrainConfig

    tokenizer = load_tokenizer(str(checkpoint))
    torch.manual_seed(0)
    model = load_for_pretraining(
        tokenizer, model_name_or_path=str(checkpoint), next_sentence=objective == "bert", max_seq_length=64
    )
    config = PretrainConfig(
        dataset_name="samples",
        objective=objective,
        max_seq_length=48,
        validation_split_percentage=0,
        max_train_samples=9,
    )
    (corpus,) = data.read_corpus(config)["train"]
    rows = data.pretraining_rows([data.tokenize(corpus, tokenizer)], config, tokenizer, "train")
    return model.eval(), FirstRows(rows, 17), tokenizer.pad_token_id


def a_model_of_pairs(checkpoint, name, shape):
    """The same for text to text, with label smoothing: 17 pairs, and targets of other lengths than their sources."""
    from finetune.models import Seq2SeqModelArguments, load_seq2seq, load_tokenizer, set_target_loss, start_and_end

    tokenizer = load_tokenizer(str(checkpoint), for_words=False)
    torch.manual_seed(0)
    model = load_seq2seq(Seq2SeqModelArguments(model_name_or_path=name, **shape), tokenizer, tokenizer)
    sources, targets = zip(*data.number_game(17), strict=True)
    encoded = data.encode_pairs(sources, targets, tokenizer, tokenizer, end=start_and_end(tokenizer)[1])
    return set_target_loss(model, label_smoothing=0.1).eval(), encoded.rows, tokenizer.pad_token_id


class FirstRows:
    """The first rows of each epoch alone."""

    def __init__(self, rows, count):
        self.rows, self.count = rows, count

    def rows_in(self, epoch):
        return self.count

    def in_epoch(self, epoch):
        return self.rows.in_epoch(epoch)

    def take(self, row_ids):
        return self.rows.in_epoch(0).take(row_ids)


class Small(torch.nn.Module):
    """A model for which more than so many rows are too many."""

    def __init__(self, model, rows):
        super().__init__()
        self.model, self.rows, self.config = model, rows, model.config

    def forward(self, **inputs):
        if len(inputs["input_ids"]) > self.rows:
            raise torch.OutOfMemoryError(f"{len(inputs['input_ids'])} rows")
        return self.model(**inputs)


def gradients(checkpoint, head, batch_size, accumulation, most_rows=None):
    """The gradient of every step of an epoch, end to end as one vector a step.

    Args:
        most_rows: what fits into the memory of the last process; the others have enough.
    """
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    model, rows, pad = a_model(checkpoint, head)
    batches = data.TrainBatches(
        rows,
        pad,
        batch_size,
        accumulation,
        accelerator.num_processes,
        accelerator.process_index,
        seed=3,
        count=masked.targets,
    )
    short = most_rows is not None and accelerator.process_index == accelerator.num_processes - 1
    prepared = accelerator.prepare_model(Small(model, most_rows) if short else model)
    # Dropout off, yet in the mode that trains: a CRF does not decode, an LSTM keeps what its backward needs.
    prepared.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.word_dropout = 0.0
    if hasattr(model, "encoder") and hasattr(model.encoder, "config"):
        model.encoder.config.word_dropout = 0.0
    result, pieces = [], 1
    for micro_batches in batches.epoch(0):
        if most_rows is None:
            sums = training.accumulate_gradients(accelerator, prepared, micro_batches)
        else:
            sums, pieces = training.gradients_that_fit(accelerator, prepared, micro_batches, pieces)
            assert pieces == batch_size // most_rows, pieces
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        result.append((flat.clone(), sums))
        prepared.zero_grad()
    return result


def main():
    checkpoint, output = sys.argv[1:]
    accelerator = Accelerator(cpu=True)
    torch.set_num_threads(1)
    per_device = 8 // accelerator.num_processes
    settings = {"8 x 1": (per_device, 1), "2 x 4": (per_device // 4, 4), "4 x 2": (per_device // 2, 2)}
    if accelerator.num_processes == 1:
        settings |= {"1 x 8": (1, 8), "2 x 4": (2, 4)}
    else:
        settings["2 x 4"] = (1, 4)
    settings["out of memory"] = (per_device, 1, 2)
    found = {}
    for head in HEADS:
        for name, setting in settings.items():
            steps = gradients(checkpoint, head, *setting)
            for i, (flat, sums) in enumerate(steps):
                found[f"{head}/{name}/{i}"] = flat
                found[f"{head}/{name}/{i}/sums"] = torch.tensor(
                    [*sums.losses.values(), *sums.targets.values(), sums.tokens, sums.rows]
                )
    if accelerator.is_main_process:
        torch.save(found, output)
        Path(output).with_suffix(".json").write_text(json.dumps(sorted(found)))
    accelerator.free_memory()
    accelerator.end_training()


if __name__ == "__main__":
    main()
