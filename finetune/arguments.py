"""The flags that several recipes have, as dataclasses.

A recipe's config has the fields of some of these classes, and its own:

    @dataclass
    class NerConfig(TrainingArguments, ModelArguments, DataArguments): ...

The classes have fields and nothing else. A flag has its name from `transformers.TrainingArguments` or `run_ner.py`,
if one of them has it. Precision and the number of processes are no flags here: `accelerate launch` sets them.

In a help text, square brackets show the default of a flag whose default depends on something.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def flag(default: Any, help: str, *aliases: str) -> Any:
    """A dataclass field with a help text, and other names of its flag, for `HfArgumentParser`."""
    return field(default=default, metadata={"help": help, **({"aliases": list(aliases)} if aliases else {})})


@dataclass
class DataArguments:
    """Where the data is, and how long an input may be."""

    dataset_name: str | None = flag(
        None,
        "A data set: its name on the Hub, a folder written by save_to_disk, a folder laid out as a data set of the "
        "Hub is, or samples (comes with finetune).",
    )
    dataset_config_name: str | None = flag(
        None, "The configuration of a data set on the Hub. For pretraining on samples: ner or sentiment."
    )
    train_file: str | None = flag(
        None,
        "Training data: a .conll, .jsonl, .csv, .tsv or .parquet file, or a folder written by save_to_disk. "
        "Questions also come as SQuAD's .json. "
        "Pretraining also takes text files, and several files: a.txt,b.txt or a pattern such as *.txt.",
    )
    validation_file: str | None = flag(None, "Validation data, in one of the forms of --train_file.")
    test_file: str | None = flag(None, "Test data, in one of the forms of --train_file.")
    validation_split_percentage: float = flag(
        10.0, "Percentage of the training data that is held out if there is no validation data; 0 holds out nothing."
    )
    column_names: str | None = flag(
        None, "Comma-separated column names, for a CSV or TSV file without a header line."
    )
    data_license: str | None = flag(None, "The licence of the data, for the model card, such as cc-by-4.0.")
    max_seq_length: int = flag(128, "Largest number of subwords in one input, with the special tokens.")
    max_train_samples: int | None = flag(None, "Use only the first N training samples.")
    max_eval_samples: int | None = flag(None, "Use only the first N validation samples and the first N test samples.")


@dataclass
class FoldArguments:
    """One run of a cross-validation."""

    fold: str | None = flag(
        None,
        "Cross-validation, such as 2/5: the second of five parts of the training data is the test split, the others "
        "are the training split. finetune compare --folds 5 trains all five.",
    )


@dataclass
class TextFileArguments:
    """How text files are written."""

    encoding: str = flag("utf-8", "Encoding of text files, such as utf-8, utf-16, latin-1, cp1252 or gb18030.")
    delimiter: str | None = flag(
        None,
        "What stands between two columns: one character, or tab or space [a comma in .csv, a tab in .tsv; in column "
        "files a tab if the first row has one, else spaces].",
    )


@dataclass
class WordFileArguments:
    """The form of files of words."""

    file_format: Literal["auto", "conll", "conllu", "table", "brat", "doccano", "label_studio", "spacy"] = flag(
        "auto",
        "The format of the files. conll: a word on each line, an empty line after a sentence; conllu: a treebank; "
        "table: a word in each row, with a --sentence_column; brat (a folder), doccano, label_studio, spacy (also "
        "Prodigy): texts with spans of characters. auto: as the endings of the files say, or the keys of their first "
        "records.",
    )
    nested: Literal["outer", "inner", "error"] = flag(
        "outer", "Spans that overlap: outer reads the longest one, inner the shortest one, error refuses them."
    )
    span_offsets: Literal["auto", "code_points", "utf16", "graphemes"] = flag(
        "auto", "What offsets of spans count. auto: code points; files that seem to count something else are refused."
    )
    sentence_column: str | None = flag(
        None,
        "Tables: the column that says which sentence a word is in; an empty cell stands for the cell above it. With "
        "sentences that each document counts anew: document,sentence.",
    )
    document_column: str | None = flag(
        None, "Tables with a list of words in each row: the column that says which document a sentence belongs to."
    )
    split_sentences: bool = flag(
        False,
        "Files with spans: each sentence of a text is a row, instead of the whole text; always so with a --context. "
        "The model then splits the texts that it is given, too.",
    )
    tagging_scheme: Literal["auto", "IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU", "BMES"] = flag(
        "auto", "The scheme of the tags of entities. auto: each split's own, as its prefixes say."
    )
    label_names: str | None = flag(
        None,
        "The names of tags that are numbers from 0 on: O,B-PER,I-PER, or a file with a name on each line.",
    )
    unknown_labels: Literal["error", "skip", "outside"] = flag(
        "error",
        "Labels that only evaluation data has. error: refuse them; skip: leave out their sentences; outside: read O.",
    )
    comment_lines: Literal["auto", "before_sentences", "none"] = flag(
        "auto",
        "Column files: which lines are comments. before_sentences: all that begin with # before the first word of a "
        "sentence; none: no line. auto: those with # and a space, if they do not look like a row (docs/tables.md).",
    )


@dataclass
class PredictionArguments:
    """The model, the file that is labelled, and the file of the answers."""

    model_name_or_path: str | None = flag(None, "The folder of a run, or a fine-tuned model of the Hub.")
    model_revision: str = flag("main", "Branch, tag or commit of a Hub model.")
    runtime: Literal["torch", "onnx"] = flag(
        "torch", "onnx: for a folder that recipes/export.py made; it needs no torch."
    )
    input_file: str = flag("-", "The file to label; - is the standard input.")
    output_file: str = flag("-", "The file for the answers; - is the standard output.")
    input_format: Literal[
        "auto",
        "text",
        "words",
        "jsonl",
        "conll",
        "conllu",
        "csv",
        "tsv",
        "table",
        "brat",
        "doccano",
        "label_studio",
        "spacy",
    ] = flag(
        "auto",
        "Format of the input. auto: as the ending of the file says (.jsonl, .conll, .csv, .tsv); the standard input "
        "is text. A folder is of brat. conllu: a treebank, which keeps its columns. table: CSV or TSV with a word in "
        "each row; auto, too, if the model was trained on such a table, or with --sentence_column.",
    )
    output_format: Literal["auto", "jsonl", "conll", "conllu", "text", "csv", "tsv"] = flag(
        "auto",
        "Format of the output. auto: conllu if the input is; else as the ending of the output file says (.conll, "
        ".csv, .tsv), else jsonl. text: of a model that turns a text into another, the text alone.",
    )
    word_column: str | None = flag(
        None,
        "Column of the words in a column file or a table: a number, counted from 0, or a name of the header line [as "
        "in training; 1 in CoNLL-U files].",
    )
    sentence_column: str | None = flag(
        None,
        "Tables with a word in each row: the column that says which sentence a word is in, or document,sentence [as "
        "in training].",
    )
    tag_column: str | None = flag(
        None, "Treebanks: where the labels go: a column (upos), a key of MISC, or feats.KEY [NER, in MISC]."
    )
    delimiter: str | None = flag(
        None,
        "What stands between two columns: one character, or tab or space [a comma in .csv, a tab in .tsv; in column "
        "files a tab if the first row has one, else spaces].",
    )
    encoding: str = flag("utf-8", "Encoding of the input, such as cp1252 or utf-16. The output is always UTF-8.")
    tagging_scheme: Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU", "BMES"] | None = flag(
        None,
        "Column files, treebanks, and tables with a word in each row: the scheme in which the labels of entities are "
        "written [that of the tags in the input file; else IOB2].",
    )
    span_offsets: Literal["auto", "code_points", "utf16", "graphemes"] = flag(
        "auto", "What offsets of spans count. auto: code points; files that seem to count something else are refused."
    )
    text_column_name: str | None = flag(
        None,
        "CSV, TSV, JSON Lines: column of the texts, or of the questions [as in training, or the only one with "
        "texts].",
    )
    text_pair_column_name: str | None = flag(
        None, "CSV, TSV, JSON Lines: column of the second texts, or of the passages [as in training]."
    )
    column_names: str | None = flag(
        None, "CSV, TSV: comma-separated names of the columns, for a file without a header line."
    )


@dataclass
class TagArguments:
    """What the tags of words are, what a window of words shows, and the head."""

    tagging: Literal["auto", "plain", "entities"] = flag(
        "auto",
        "What the tags are: plain (such as parts of speech) or entities (with or without B- and I-). auto: entities "
        "if the training data has such prefixes, else plain.",
    )
    label_all_tokens: bool = flag(False, "Train on all subwords of a word, not only on the first one.")
    doc_stride: int | None = flag(None, "Number of subwords that two neighbouring windows share [half a window].")
    context: Literal["none", "document", "side_by_side"] = flag(
        "none",
        "What a window shows beside a sentence. document: its neighbours in the same document, as many as fit; only "
        "the sentence is labelled there. side_by_side: sentences of a document share a window.",
    )
    context_size: int | None = flag(
        None, "Largest number of subwords of neighbours on each side, with --context document [as many as fit]."
    )
    head: Literal["linear", "crf"] = flag(
        "linear", "linear: each word is tagged alone. crf: a CRF also learns which tag follows which."
    )
    decoding: Literal["argmax", "viterbi"] = flag(
        "argmax",
        "argmax: each word gets its most probable tag. viterbi: a sentence gets the most probable tags that fit "
        "together, without an I- that continues nothing.",
    )


@dataclass
class ModelArguments:
    """Which model to use, and the shape of a recurrent baseline."""

    model_name_or_path: str = flag(
        DEFAULT_MODEL,
        "A Hub id, a folder, or a recurrent baseline: rnn, lstm, gru, bilstm, or bilstm-crf (only for words).",
    )
    model_revision: str = flag("main", "Branch, tag or commit of a checkpoint on the Hub.")
    tokenizer_name: str | None = flag(None, "A tokenizer that replaces the checkpoint's own: a Hub id or a folder.")
    padding_free: bool = flag(
        True, "On a CPU, BERT, RoBERTa and XLM-R compute nothing for padding. It is faster; the outputs are the same."
    )
    compact_vocabulary: bool = flag(
        True, "Train only the rows of the word embedding that the data uses. The saved model is the same."
    )
    cell: Literal["default", "rnn", "lstm", "gru"] = flag(
        "default", "Baselines: the recurrent cell. default: the cell of the model's name (bilstm: lstm)."
    )
    hidden_size: int = flag(200, "Baselines: hidden units of each direction of each layer.")
    num_hidden_layers: int = flag(1, "Baselines: number of recurrent layers.")
    embedding_size: int = flag(
        100, "Baselines: size of the word vectors; with --embeddings, these have their own size."
    )
    embeddings: str | None = flag(
        None,
        "Baselines: the first values of the word vectors: a text file of GloVe or word2vec, or a checkpoint (its "
        "input embeddings).",
    )
    char_features: Literal["none", "cnn", "bilstm"] = flag(
        "cnn",
        "Baselines: the network for the characters (UTF-8 bytes) of a word; it adds features to the word vector.",
    )
    char_hidden_size: int = flag(50, "Baselines: number of character features.")
    dropout: float = flag(0.5, "Baselines: dropout rate on word vectors, between layers and before the head.")
    word_dropout: float = flag(0.05, "Baselines: share of training words that are replaced by the unknown word.")
    min_word_frequency: int = flag(1, "Baselines: training words with a lower count become the unknown word.")


@dataclass
class LossArguments:
    """The loss of a model that gives labels to words or texts."""

    class_weights: str | None = flag(
        None, "Weights of the labels in the loss: balanced (rare labels weigh more), or numbers such as a=1,b=3."
    )
    label_smoothing_factor: float = flag(0.0, "Share of each target that is divided equally among all labels.")
    focal_gamma: float = flag(
        0.0, "Gamma of the focal loss: the loss of a target is multiplied by (1 - p) ** gamma; 0 is the usual loss."
    )


@dataclass
class TeacherArguments:
    """The teachers of a distillation."""

    teacher: str | None = flag(
        None,
        "The teacher: the folder of a fine-tuned model; or several with commas, whose probabilities are averaged.",
    )
    temperature: float | None = flag(
        None, "Divides the logits of teacher and student before they are compared; not for numbers [2]."
    )
    distil_alpha: float = flag(
        0.5, "Share of the labels in the loss of a text with labels; the rest is that of the teacher."
    )
    unlabeled_file: str | None = flag(
        None,
        "Texts without labels, on which the teacher alone is the target: lines of text, a column file (.conll), "
        ".jsonl, .csv or .tsv.",
    )
    teacher_cache: str | None = flag(
        None, "The folder where the outputs of the teachers are kept [finetune-teachers in the cache of datasets]."
    )


@dataclass
class TrainingArguments:
    """The run: its folder, its steps, its evaluations, its checkpoints."""

    output_dir: str = flag("runs/latest", "The folder for all files of this run.")
    overwrite_output_dir: bool = flag(False, "Replace the run in output_dir. A folder with other files is refused.")
    resume_from_checkpoint: str | None = flag(
        None, "Continue from this checkpoint folder. true: from the newest in output_dir, or from the start if none."
    )
    num_train_epochs: float | None = flag(
        None,
        "Number of epochs [3 for a checkpoint; 20 for a baseline or a new encoder-decoder; 10 for a new language "
        "model and for pretraining from scratch].",
    )
    max_steps: int = flag(-1, "Number of optimizer steps. A positive number replaces num_train_epochs.")
    per_device_train_batch_size: int = flag(16, "Number of rows in a micro-batch of each process.")
    tokens_per_batch: int | None = flag(
        None,
        "Fill each micro-batch with rows up to this number of tokens, padding included. It replaces the number of "
        "rows.",
    )
    train_sampling_strategy: Literal["random", "group_by_length"] | None = flag(
        None,
        "Which rows form a batch. random: any rows; group_by_length: rows of similar length [group_by_length with "
        "--tokens_per_batch, else random].",
    )
    per_device_eval_batch_size: int = flag(32, "Number of rows in an evaluation batch of each process.")
    gradient_accumulation_steps: int = flag(1, "Number of micro-batches in one optimizer step.")
    auto_find_batch_size: bool = flag(
        False,
        "If memory runs out, halve the rows of a micro-batch and double the micro-batches of a step. The step stays "
        "the same.",
    )
    gradient_checkpointing: bool = flag(
        False,
        "Compute each layer again in the backward pass. It saves memory and costs time; the weights are the same.",
    )
    tf32: bool = flag(
        True, "On a GPU, multiply float32 matrices in TF32: much faster, with 10 bits of the fraction instead of 23."
    )
    learning_rate: float | None = flag(
        None,
        "Peak learning rate [for a checkpoint that labels or answers questions, as its width asks: 5e-5 for 768 "
        "hidden units, more for fewer (docs/practices.md); ten times that with --lora_r; 2e-3 for a baseline. "
        "Text to text and language models: 5e-5 for a checkpoint, 1e-3 for a new encoder-decoder or transformer, "
        "2e-3 for a recurrent language model. Pretraining: 1e-4, or 5e-4 for a new model].",
    )
    head_learning_rate: float | None = flag(None, "Peak learning rate of the head [learning_rate].")
    layerwise_lr_decay: float = flag(1.0, "Learning rate of a layer, as a multiple of the rate of the layer above.")
    freeze_encoder: bool = flag(False, "Train only the head.")
    freeze_layers: int = flag(0, "Do not train the embeddings and this number of the lowest layers; 0 trains all.")
    lora_r: int | None = flag(
        None,
        "Train with LoRA of this rank, such as 8: two small matrices beside each linear layer of the encoder, and "
        "the head. The saved model is like any other [off: all weights train].",
    )
    lora_alpha: int | None = flag(None, "LoRA: its product is multiplied by lora_alpha / lora_r [2 * lora_r].")
    lora_dropout: float = flag(0.0, "LoRA: dropout on the input of its matrices.")
    lora_target_modules: str | None = flag(
        None,
        "LoRA: comma-separated names of linear layers, such as query,value; or all-linear [all linear layers inside "
        "the layers of the encoder: attention and feed-forward].",
    )
    save_adapter: bool = flag(
        False, "LoRA: also write its matrices and the head into the folder adapter, as peft loads them."
    )
    weight_decay: float = flag(0.01, "Weight decay of AdamW. Biases and norms have none.")
    adam_beta1: float = flag(0.9, "Beta 1 of AdamW.")
    adam_beta2: float = flag(0.999, "Beta 2 of AdamW.")
    adam_epsilon: float = flag(1e-8, "Epsilon of AdamW.")
    max_grad_norm: float = flag(1.0, "The gradient is scaled down to this norm if it is larger; 0 does not clip.")
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = flag("linear", "The schedule of the learning rate, as in transformers.get_scheduler.")
    warmup_steps: float | None = flag(
        None,
        "Number of warm-up steps; a number below 1 is a share of all steps [0.1 for a checkpoint that labels or "
        "answers questions, else 0].",
    )
    seed: int = flag(42, "The seed of all random numbers.")
    full_determinism: bool = flag(
        False,
        "On a GPU, use deterministic kernels. They are slower, but an exact resume needs them. A CPU is always "
        "deterministic.",
    )
    logging_steps: int = flag(10, "Number of steps between two lines of history.jsonl.")
    eval_strategy: Literal["no", "steps", "epoch"] = flag(
        "epoch", "When to evaluate during training: never, every eval_steps, or after each epoch."
    )
    eval_steps: int = flag(500, "Number of steps between two evaluations, with --eval_strategy steps.")
    save_strategy: Literal["no", "steps", "epoch"] = flag(
        "epoch", "When to write a checkpoint: never, every save_steps, or after each epoch."
    )
    save_steps: int = flag(500, "Number of steps between two checkpoints, with --save_strategy steps.")
    save_total_limit: int = flag(1, "Number of newest checkpoints to keep; the best one is kept, too.")
    load_best_model_at_end: bool = flag(True, "Save the best evaluated model at the end, instead of the last one.")
    average_checkpoints: int | None = flag(
        None,
        "At the end, also evaluate the means of the best 2, 3, ... evaluated weights, up to this number. The best of "
        "all is saved [only the best weights alone].",
    )
    metric_for_best_model: str | None = flag(
        None, "The score that chooses the best model, such as f1, accuracy or loss [the main score of the task]."
    )
    on_collapse: Literal["restart", "stop", "ignore"] = flag(
        "restart",
        "What to do if the model gives every input the same label and no longer learns. restart: begin again with "
        "another seed, half the rate and warm-up, at most twice; stop: end with an error; ignore: say so and go on.",
    )
    early_stopping_patience: int | None = flag(
        None, "Stop after this number of evaluations in a row without a better score."
    )
    dataloader_num_workers: int = flag(
        0, "Number of processes that prepare batches; 0: the training process does it."
    )
    report_to: str = flag("none", "Comma-separated trackers that Accelerate knows, such as tensorboard or wandb.")
    push_to_hub: bool = flag(False, "Upload the folder to the Hub at the end.")
    hub_model_id: str | None = flag(None, "The repository on the Hub [the name of output_dir].")
    disable_tqdm: bool = flag(
        False, "Show no progress: neither the bar in a terminal, nor the line each minute elsewhere."
    )
