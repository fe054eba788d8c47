"""The dataclasses that are the flags.

A recipe's config joins the three classes below with its own fields:

    @dataclass
    class NerConfig(TrainingArguments, ModelArguments, DataArguments): ...

They hold fields and nothing else. Names are those of `transformers.TrainingArguments` and `run_ner.py`
where these have one. Precision and the number of processes belong to `accelerate launch`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def flag(default: Any, help: str) -> Any:
    """A dataclass field that `HfArgumentParser` shows with its help."""
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    """Where the data is and how it is cut."""

    dataset_name: str | None = flag(None, "A data set of the Hub, or a folder written by save_to_disk.")
    dataset_config_name: str | None = flag(None, "The configuration of the Hub data set.")
    train_file: str | None = flag(
        None,
        "Training data: .conll .jsonl .csv .tsv .parquet, or a saved folder; pretraining: also text, and many files "
        "(a.txt,b.txt or a pattern).",
    )
    validation_file: str | None = flag(None, "Validation data, in any of these forms.")
    test_file: str | None = flag(None, "Test data, in any of these forms.")
    column_names: str | None = flag(None, "Comma-separated names for CSV or TSV files without a header line.")
    max_seq_length: int = flag(128, "Subwords in one input, special tokens included.")
    max_train_samples: int | None = flag(None, "Only so many training samples, the first ones.")
    max_eval_samples: int | None = flag(None, "Only so many validation and test samples, the first ones.")


@dataclass
class ModelArguments:
    """Which model, and for the recurrent baselines its shape."""

    model_name_or_path: str = flag(
        DEFAULT_MODEL,
        "A Hub id, a directory, or a baseline: rnn, lstm, gru, bilstm, bilstm-crf (not for texts).",
    )
    model_revision: str = flag("main", "Branch, tag or commit of a Hub checkpoint.")
    tokenizer_name: str | None = flag(None, "Another tokenizer than the checkpoint's own.")
    padding_free: bool = flag(True, "BERT, RoBERTa, XLM-R on a CPU: no layer runs on padding; outputs are the same.")
    compact_vocabulary: bool = flag(
        True, "Train only those rows of the word embedding that the data uses; what is saved is the same."
    )
    cell: Literal["default", "rnn", "lstm", "gru"] = flag(
        "default", "Baselines: the recurrent cell, if not the one that the name says (bilstm with gru, say)."
    )
    hidden_size: int = flag(200, "Baselines: units of one direction of one layer.")
    num_hidden_layers: int = flag(1, "Baselines: recurrent layers.")
    embedding_size: int = flag(100, "Baselines: word vector size; --embeddings brings its own.")
    embeddings: str | None = flag(
        None,
        "Baselines: start the word vectors from a GloVe or word2vec text file, "
        "or from the input embeddings of a checkpoint.",
    )
    char_features: Literal["none", "cnn", "bilstm"] = flag(
        "cnn", "Baselines: features of a word's characters (UTF-8 bytes) beside its vector."
    )
    char_hidden_size: int = flag(50, "Baselines: size of the character features.")
    dropout: float = flag(0.5, "Baselines: dropout on word vectors, between layers and before the head.")
    word_dropout: float = flag(0.05, "Baselines: share of training words replaced by the unknown word.")
    min_word_frequency: int = flag(1, "Baselines: rarer training words become the unknown word.")


@dataclass
class TrainingArguments:
    """The run: its folder, its steps, its evaluations, its checkpoints."""

    output_dir: str = flag("runs/latest", "Where everything of this run is written.")
    overwrite_output_dir: bool = flag(False, "Replace the run that output_dir holds; what no run wrote is refused.")
    resume_from_checkpoint: str | None = flag(
        None, "A checkpoint folder, or true for the newest whole one in output_dir (from the start if none)."
    )
    num_train_epochs: float | None = flag(
        None, "Epochs [3 for a checkpoint, 20 for a baseline; pretraining: 3, 10 for a new model]."
    )
    max_steps: int = flag(-1, "Optimizer steps; overrides the epochs where positive.")
    per_device_train_batch_size: int = flag(16, "Rows of a micro-batch, for each process.")
    tokens_per_batch: int | None = flag(
        None, "Instead of so many rows: as many as make up to so many tokens, each counted as long as the longest."
    )
    train_sampling_strategy: Literal["random", "group_by_length"] | None = flag(
        None,
        "Which rows make a step: any, or rows of about the same length [with --tokens_per_batch these, else any].",
    )
    per_device_eval_batch_size: int = flag(32, "Rows of an evaluation batch, for each process.")
    gradient_accumulation_steps: int = flag(1, "Micro-batches of one optimizer step.")
    auto_find_batch_size: bool = flag(
        False, "Out of memory: micro-batches of half as many rows, and twice as many of them, for the same step."
    )
    gradient_checkpointing: bool = flag(
        False, "Compute each layer a second time in the backward pass: less memory, the same weights, more time."
    )
    tf32: bool = flag(True, "On a GPU, products in float32 take TF32, 10 bits after the point, not 23: much faster.")
    learning_rate: float | None = flag(
        None,
        "Peak learning rate [5e-5 for a checkpoint, 2e-3 for a baseline; pretraining: 1e-4, 5e-4 for a new model].",
    )
    head_learning_rate: float | None = flag(None, "Another peak learning rate for the head.")
    layerwise_lr_decay: float = flag(1.0, "Each layer's learning rate as a multiple of the one above.")
    freeze_encoder: bool = flag(False, "Train the head alone.")
    freeze_layers: int = flag(0, "Keep the embeddings and so many lower layers as they are.")
    weight_decay: float = flag(0.01, "AdamW weight decay, not on biases and norms.")
    adam_beta1: float = flag(0.9, "AdamW beta 1.")
    adam_beta2: float = flag(0.999, "AdamW beta 2.")
    adam_epsilon: float = flag(1e-8, "AdamW epsilon.")
    max_grad_norm: float = flag(1.0, "Clip the gradient to this norm; 0 does not clip.")
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = flag("linear", "A schedule of transformers.get_scheduler.")
    warmup_steps: float = flag(0, "Warm-up steps; below 1: a share of all steps.")
    seed: int = flag(42, "All randomness hangs on it.")
    full_determinism: bool = flag(
        False,
        "Deterministic kernels on a GPU: slower, and needed there for an exact resume; a CPU's always are.",
    )
    logging_steps: int = flag(10, "A line of history.jsonl every so many steps.")
    eval_strategy: Literal["no", "steps", "epoch"] = flag("epoch", "When to evaluate during training.")
    eval_steps: int = flag(500, "Steps between evaluations, with --eval_strategy steps.")
    save_strategy: Literal["no", "steps", "epoch"] = flag("epoch", "When to write checkpoints.")
    save_steps: int = flag(500, "Steps between checkpoints, with --save_strategy steps.")
    save_total_limit: int = flag(1, "Checkpoints kept beside the best one.")
    load_best_model_at_end: bool = flag(True, "End with the best evaluated checkpoint, not with the last.")
    metric_for_best_model: str | None = flag(None, "Such as f1, f1_strict, accuracy, loss [the task's own].")
    early_stopping_patience: int | None = flag(None, "Stop after so many evaluations without a better one.")
    dataloader_num_workers: int = flag(0, "Processes that build batches.")
    report_to: str = flag("none", "Comma-separated trackers of Accelerate: tensorboard, wandb, ...")
    push_to_hub: bool = flag(False, "Upload the finished folder to the Hub, after it was saved locally.")
    hub_model_id: str | None = flag(None, "The Hub repository [the name of output_dir].")
    disable_tqdm: bool = flag(False, "No progress bar; without a terminal, no line a minute.")
