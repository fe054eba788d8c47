"""Named entities, parts of speech: fine-tune BERT, RoBERTa, XLM-R or train a recurrent baseline to tag each word.

python recipes/ner.py --dataset_name samples --output_dir runs/ner
python recipes/ner.py --dataset_name samples --model_name_or_path bilstm --output_dir runs/bilstm
accelerate launch recipes/ner.py --config recipes/configs/ner/wnut17.yaml --output_dir runs/wnut17
accelerate launch --num_processes 2 --cpu recipes/ner.py --train_file train.conll --test_file test.conll ...

from recipes.ner import NerConfig, finetune_ner
result = finetune_ner(NerConfig(dataset_name="samples", output_dir="runs/ner"))
result.results["test_f1"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune import cli, models, stages, training
from finetune.arguments import (
    DataArguments,
    FoldArguments,
    LossArguments,
    ModelArguments,
    TagArguments,
    TextFileArguments,
    TrainingArguments,
    WordFileArguments,
    flag,
)
from finetune.from_python import documented, names_of_python


@documented
@dataclass
class NerConfig(
    TrainingArguments,
    LossArguments,
    ModelArguments,
    TagArguments,
    WordFileArguments,
    TextFileArguments,
    FoldArguments,
    DataArguments,
):
    """All flags of this recipe."""

    text_column_name: str = flag(
        "tokens",
        "Column of the words, also --word_column. In column files a number, counted from 0, or a name of the header "
        "line [the first; the second of CoNLL-U].",
        "--word_column",
    )
    label_column_name: str = flag(
        "ner_tags", "Column of the tags, also --tag_column; in column files as above [the last].", "--tag_column"
    )


def resolved(config: NerConfig) -> NerConfig:
    """The config with the defaults of its model. Raises ValueError for flags that this model does not use."""
    resolved: NerConfig = stages.with_defaults(config)
    return resolved


@names_of_python
def finetune_ner(config: NerConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains, evaluates and saves a tagger.

    Args:
        data: rows from Python instead of files: for `train`, `validation` and `test` a `datasets.Dataset`, a frame of
            pandas or polars, or a list with a dict for each row.

    Raises:
        ValueError: for a mistake that the user can correct.
    """
    from finetune.tasks import tagging as task

    # 1. Start the run (processes, precision, seed, its folder), and read its data.
    job = stages.begin(resolved(config), task, data)
    config = job.config

    # 2. Load the model and its tokenizer.
    def load() -> Any:
        return models.load(
            "token-classification",
            config,
            job.labels,
            words=task.words(job.splits["train"]),
            max_seq_length=config.max_seq_length,
            head=config.head,
        )

    model, tokenizer = load()
    task.check_flags(model, config)
    stages.set_loss(job, model, "ner_tags")

    # 3. Turn words into subwords, in windows without padding.
    stages.encode(job, model, tokenizer)

    # 4. Train, and evaluate as often as the flags say. If the run collapses, begin again.
    outcome = stages.fit(job, model, load)

    # 5. Save the model, its predictions on the evaluation splits, its scores and its card.
    return stages.report(job, outcome)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(NerConfig, argv)
    cli.run(finetune_ner, config)


if __name__ == "__main__":
    main()
