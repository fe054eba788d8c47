"""Text to text: translate, summarise, spell out. Recurrent encoder-decoders, a Transformer, or a pretrained encoder.

python recipes/seq2seq.py --dataset_name samples --model_name_or_path lstm2lstm-attention --output_dir runs/seq2seq
python recipes/seq2seq.py --train_file train.en --train_target_file train.de --validation_file dev.en \\
    --validation_target_file dev.de --model_name_or_path transformer --output_dir runs/en_de
accelerate launch recipes/seq2seq.py --config recipes/configs/seq2seq/multi30k.yaml --output_dir runs/multi30k
python recipes/predict.py --model_name_or_path runs/multi30k --input_file test.en --input_format text

from recipes.seq2seq import Seq2SeqConfig, train_seq2seq
result = train_seq2seq(Seq2SeqConfig(dataset_name="samples", output_dir="runs/seq2seq"))
result.results["test_bleu"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune import cli, models, stages, training
from finetune.arguments import DataArguments, FoldArguments, TrainingArguments, flag
from finetune.from_python import documented, names_of_python
from finetune.models.seq2seq_arguments import Seq2SeqModelArguments


@documented
@dataclass
class Seq2SeqConfig(TrainingArguments, Seq2SeqModelArguments, FoldArguments, DataArguments):
    """All flags of this recipe."""

    train_target_file: str | None = flag(None, "Of two files of lines, the targets; --train_file has the sources.")
    validation_target_file: str | None = flag(None, "The same for --validation_file.")
    test_target_file: str | None = flag(None, "The same for --test_file.")
    source_column_name: str = flag("source", "Column of the sources; or a language in the column translation.")
    target_column_name: str = flag("target", "Column of the targets; or a language in the column translation.")
    max_target_length: int = flag(128, "Subwords of a target, the token for its end included.")
    tokenizer_name: str | None = flag(
        None, "New models: byte-bpe or unigram, trained on the training split, or a tokenizer's place [byte-bpe]."
    )
    vocab_size: int = flag(8000, "Pieces of a tokenizer that is trained.")
    joint_vocabulary: bool = flag(True, "One tokenizer for both sides, trained on both; else one a side.")
    label_smoothing_factor: float = flag(0.0, "Share of each target that all pieces get alike.")
    num_beams: int = flag(1, "Unfinished texts that decoding keeps at each step; 1 is greedy.")
    length_penalty: float = flag(1.0, "With beams: a text's log-probability is divided by its length to this power.")
    bleu_tokenize: Literal["13a", "intl", "zh", "char", "none"] = flag("13a", "How sacrebleu splits words for BLEU.")
    rouge: bool = flag(False, "Also ROUGE-1, ROUGE-2 and ROUGE-L, for summaries.")


def resolved(config: Seq2SeqConfig) -> Seq2SeqConfig:
    """The config with the defaults of its model. Raises ValueError for flags that this model has no use for."""
    new = models.is_new_seq2seq(config.model_name_or_path) and config.model_name_or_path not in models.WARM_STARTED
    rate = 5e-5 if config.lora_r is None else stages.LORA_TIMES * 5e-5
    config = training.with_defaults(
        config, learning_rate=1e-3 if new else rate, num_train_epochs=20 if new else 3, metric=None
    )
    models.check_seq2seq_flags(config)
    models.check_lora_flags(config)
    training.refuse_on_collapse(config)
    for name, off in (
        ("freeze_encoder", False),
        ("freeze_layers", 0),
        ("layerwise_lr_decay", 1.0),
        ("head_learning_rate", None),
    ):
        if getattr(config, name) != off:
            raise ValueError(f"--{name}: for an encoder with a head; an encoder-decoder trains whole")
    return config


@names_of_python
def train_seq2seq(config: Seq2SeqConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains, evaluates and saves an encoder-decoder.

    Args:
        data: rows from Python instead of files: for `train`, `validation` and `test` a `datasets.Dataset`, a frame of
            pandas or polars, or a list with a dict for each row.

    Raises:
        ValueError: for what a user can mend.
    """
    from finetune.tasks import seq2seq as task

    # 1. The run (processes, precision, seed, a folder that holds nothing else), and its data.
    job = stages.begin(resolved(config), task, data)
    config = job.config

    # 2. The tokenizers of both sides, and the model.
    tokenizers = task.tokenizers(config, job.splits["train"], job.run.on_one_process)
    model = models.load_seq2seq(
        config,
        tokenizers.source,
        tokenizers.target,
        max_source_length=config.max_seq_length,
        max_target_length=config.max_target_length,
    )
    models.set_target_loss(model, label_smoothing=config.label_smoothing_factor)
    task.decode_as(model, config)

    # 3. Both sides to subwords, without padding.
    stages.encode(job, model, tokenizers)
    if config.teacher_forcing < 1:
        job.encoded["train"] = task.with_teacher_forcing(job.encoded["train"], config)

    # 4. Train, and evaluate as often as the flags say: the loss, and what the model says on its own.
    outcome = stages.fit(job, model)

    # 5. Save the model, what it says on the evaluation splits, its scores, its card.
    return stages.report(job, outcome)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(Seq2SeqConfig, argv)
    cli.run(train_seq2seq, config)


if __name__ == "__main__":
    main()
