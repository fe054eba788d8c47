"""Language models, which predict the next word: Elman networks, LSTMs, GRUs, a small transformer, or a checkpoint.

python recipes/language_model.py --dataset_name samples --model_name_or_path lstm --output_dir runs/lstm
python recipes/language_model.py --train_file 'corpus/*.txt' --model_name_or_path transformer --hidden_size 256 \\
    --num_hidden_layers 4 --output_dir runs/transformer
accelerate launch recipes/language_model.py --config recipes/configs/language_model/news_lstm.yaml
python recipes/compare.py --task language_model --dataset_name samples --models lstm,transformer,5-gram,unigram

from recipes.language_model import LanguageModelConfig, train_language_model
result = train_language_model(LanguageModelConfig(dataset_name="samples", output_dir="runs/lstm"))
result.results["eval_perplexity"]  # of a word, whatever the tokenizer
finetune.generate("runs/lstm", "The statement", length=30, top_p=0.9)
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from finetune import cli, models, stages, training
from finetune import data as texts  # `data` is what comes from Python
from finetune.arguments import DataArguments, TrainingArguments, flag
from finetune.from_python import documented, names_of_python


@documented
@dataclass
class LanguageModelConfig(TrainingArguments, DataArguments):
    """All flags of this recipe."""

    model_name_or_path: str = flag("lstm", "A new rnn, lstm, gru or transformer; or a causal language model's place.")
    model_revision: str = flag("main", "Branch, tag or commit of a Hub checkpoint.")
    tokenizer_name: str | None = flag(
        None, "A tokenizer's place, or one to be trained: byte-bpe, unigram [new models: byte-bpe]."
    )
    vocab_size: int = flag(8000, "Pieces of a tokenizer that is trained.")
    hidden_size: int = flag(256, "New models: width.")
    num_hidden_layers: int = flag(1, "New models: layers.")
    embedding_size: int | None = flag(None, "New recurrent models: width of the embedding [hidden_size].")
    num_attention_heads: int | None = flag(None, "A new transformer: heads [width / 64].")
    dropout: float = flag(0.1, "New models: dropout.")
    eval_context: int | None = flag(
        None, "Transformers: tokens that each token sees at least in an evaluation [half of max_seq_length]."
    )
    text_column_name: str = flag("text", "Column of the documents: a text, or a list of sentences.")
    sentences: Literal["line", "split"] = flag("line", "A line is a sentence, or the text is split into sentences.")
    streaming: bool = flag(False, "Read a Hub data set as a stream instead of downloading it first.")
    validation_split_percentage: float = flag(
        5.0, "Documents held out where there is no --validation_file; of few documents, their last sentences."
    )


def resolved(config: LanguageModelConfig) -> LanguageModelConfig:
    """The config with the defaults of its model. Raises ValueError for flags that make no sense."""
    name = config.model_name_or_path
    new = models.is_new_language_model(name) or name in models.COMPARED
    resolved: LanguageModelConfig = training.with_defaults(
        config,
        learning_rate=1e-3 if name == "transformer" else 2e-3 if new else 5e-5,
        num_train_epochs=10 if new else 3,
        metric="log_probability",
    )
    models.check_language_model_flags(resolved)
    training.refuse_on_collapse(resolved)
    return replace(resolved, tokenizer_name=resolved.tokenizer_name or ("byte-bpe" if new else None))


@names_of_python
def train_language_model(config: LanguageModelConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains, evaluates and saves a language model. Raises ValueError for what a user can mend."""
    from finetune.tasks import next_word as task

    # 1. The run, and its data: documents of sentences, a share of them held out.
    job = stages.begin(resolved(config), task, data)
    config, run = job.config, job.run

    # 2. The tokenizer, and the model. A new model needs the tokenizer first.
    tokenizer = models.tokenizer_for_language_model(
        lambda: task.sentences(job.splits["train"]),
        name=config.model_name_or_path,
        revision=config.model_revision,
        tokenizer_name=str(run.checkpoint) if run.checkpoint else config.tokenizer_name,  # a resumed run's own
        vocab_size=config.vocab_size,
        on_one_process=run.on_one_process,
    )
    documents = texts.tokenize_documents(job.splits["train"], tokenizer)
    model = models.load_language_model(
        config, tokenizer, unigram_counts=texts.unigram_counts([documents], len(tokenizer))
    )

    # 3. Documents to rows. A recurrent model reads so many lanes of documents side by side, a row of each in a step,
    # and carries the state of each lane from step to step.
    stages.encode(job, model, tokenizer)
    if hasattr(model, "carry_state"):
        lanes = config.per_device_train_batch_size * config.gradient_accumulation_steps
        lanes *= run.accelerator.num_processes
        job.encoded["train"].rows.lanes = lanes
        model.carry_state(lanes)

    # 4. Train, and evaluate as often as the flags say.
    outcome = stages.fit(job, model)

    # 5. Save the model, what it says of the evaluation splits, its scores, its card.
    return stages.report(job, outcome)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(LanguageModelConfig, argv)
    cli.run(train_language_model, config)


if __name__ == "__main__":
    main()
