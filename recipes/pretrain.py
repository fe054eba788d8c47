"""Pretraining with masked tokens, as for BERT, RoBERTa and XLM-R; also next sentences, sentence order, translations.

python recipes/pretrain.py --dataset_name samples --config_name bert --tokenizer_name wordpiece --vocab_size 4000 \\
    --hidden_size 128 --num_hidden_layers 2 --output_dir runs/tiny_bert
python recipes/pretrain.py --train_file 'data/corpus/*.train.txt' --objective bert --dry_run
python recipes/pretrain.py --train_file data/wnut17/train.conll --objective roberta --output_dir runs/adapted
accelerate launch recipes/pretrain.py --config recipes/configs/pretrain/small_bert.yaml --output_dir runs/small_bert
python recipes/ner.py --model_name_or_path runs/small_bert --dataset_name samples --output_dir runs/ner

from recipes.pretrain import PretrainConfig, pretrain
result = pretrain(PretrainConfig(dataset_name="samples", output_dir="runs/pretrain"))
result.results["eval_mlm_loss"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from finetune import cli, metrics, models, reporting, stages, tasks, training
from finetune import data as texts  # `data` is what comes from Python
from finetune.arguments import DEFAULT_MODEL, DataArguments, TrainingArguments, flag
from finetune.from_python import documented, names_of_python


@documented
@dataclass
class PretrainConfig(TrainingArguments, DataArguments):
    """All flags of this recipe."""

    objective: Literal["bert", "sop", "roberta", "xlm-r", "tlm"] = flag(
        "bert",
        "What the model learns: masked tokens alone (roberta), with next sentences (bert) or sentence order (sop), "
        "in several languages with one file each (xlm-r), or in translation pairs (tlm).",
    )
    input_form: Literal["default", "segment_pair", "sentence_pair", "full_sentences", "doc_sentences"] = flag(
        "default",
        "How sentences form an input [bert, sop: segment_pair; roberta, xlm-r: full_sentences; tlm: sentence_pair].",
    )
    text_column_name: str = flag(
        "text", "Column of the documents: each is a text, or a list of sentences. Of a task's data: as in its recipe."
    )
    sentences: Literal["line", "split"] = flag("line", "line: a sentence on each line; split: split the texts.")
    parallel_columns: str | None = flag(None, "tlm: comma-separated columns of a table, one for each language.")
    streaming: bool = flag(False, "Read a data set of the Hub as a stream, without downloading all of it first.")
    validation_split_percentage: float = flag(
        5.0, "Percentage of the documents for validation, without --validation_file; of few, the last sentences."
    )
    model_name_or_path: str = flag(DEFAULT_MODEL, "The checkpoint to continue from, without --config_name.")
    model_revision: str = flag("main", "Branch, tag or commit of a checkpoint on the Hub.")
    config_name: str | None = flag(None, "Config of a new model: bert, roberta, xlm-roberta, a folder or a Hub id.")
    num_hidden_layers: int | None = flag(None, "With --config_name: number of layers [as in the config].")
    hidden_size: int | None = flag(None, "With --config_name: size of the hidden states [as in the config].")
    num_attention_heads: int | None = flag(None, "With --config_name: number of attention heads [hidden_size / 64].")
    intermediate_size: int | None = flag(None, "With --config_name: inner size of a layer [4 * hidden_size].")
    padding_free: bool = flag(True, "On a CPU, compute nothing for padding. It is faster; the outputs are the same.")
    dropout: float | None = flag(None, "Dropout rate of hidden states and attention [as in the config].")
    tokenizer_name: str | None = flag(
        None, "A folder or a Hub id; or wordpiece, byte-bpe or unigram to train a new one on the training split."
    )
    vocab_size: int = flag(16000, "Number of pieces of a new tokenizer.")
    do_lower_case: bool = flag(True, "A new wordpiece tokenizer turns letters into lower case.")
    masking: Literal["token", "whole_word", "span"] = flag("token", "What is masked as a whole; span: several words.")
    mlm_probability: float = flag(0.15, "Share of the subwords that are masked.")
    mask_replace_prob: float = flag(0.8, "Share of the masked subwords that become the mask token.")
    random_replace_prob: float = flag(0.1, "Share of the masked subwords that become a random token; the rest stays.")
    static_masks: bool = flag(False, "Repeat the same inputs and masks after dupe_factor epochs, as BERT did.")
    dupe_factor: int = flag(10, "With --static_masks: the number of epochs before masks are repeated.")
    short_seq_prob: float = flag(0.1, "Share of the documents that give shorter segment pairs.")
    sampling_alpha: float = flag(0.3, "xlm-r: a language with n inputs gets a share proportional to n ** alpha.")
    dry_run: bool = flag(False, "Count the inputs, print ten of them, and stop.")


@names_of_python
def pretrain(config: PretrainConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains, evaluates and saves a masked language model. Raises ValueError for a mistake of the user.

    Documents may come as rows from Python (`data`), as in the other recipes.
    """
    from finetune.tasks import masked

    # 1. Start the run, and read its data: documents of sentences. A share of them is held out.
    run = training.start_run(resolved(config), metrics=masked.metrics_of(config.objective))
    config, accelerator = run.config, run.accelerator
    corpora = texts.read_corpus(config, data)
    stages.check_splits(config, corpora)
    for told in texts.told_of_texts(corpora):
        run.print(told)

    # 2. Load or train the tokenizer, turn the documents into tokens, and load or make the model.
    tokenizer = load_tokenizer(run, corpora["train"])
    with accelerator.main_process_first():
        documents = {
            split: [texts.tokenize(corpus, tokenizer) for corpus in parts] for split, parts in corpora.items()
        }
    counts = texts.unigram_counts(documents["train"], len(tokenizer))
    model = load_model(config, tokenizer, counts)

    # 3. Turn the documents into inputs, and choose the masks of each epoch.
    rows = rows_of(config, documents, tokenizer, model)
    audit = texts.instance_audit(
        rows["train"].in_epoch(0),
        tokenizer,
        max_seq_length=config.max_seq_length,
        batch_size=config.per_device_train_batch_size,
    )
    results = {"unigram_entropy": metrics.unigram_entropy(counts)}
    run.print(
        training.where(run, model),
        f"train: {audit}",
        f"entropy of its unigrams: {results['unigram_entropy']:.3f} nats",
    )
    run.print(*(f"{split}: {part}" for split, parts in documents.items() for part in parts if split != "train"))
    run.print(f"the tokens are kept in {documents['train'][0].folder.parent}")
    if config.dry_run:
        run.print(*(f"\n{number}. {text}" for number, text in enumerate(audit.examples, start=1)))
        run.release()
        return training.RunResult(run.output_dir, {"instances": audit.instances} | results)

    # 4. Train, and evaluate as often as the flags say. Every evaluation has the same masks.
    evaluate = partial(masked.evaluate, accelerator, tokenizer, rows, config)
    batches = texts.train_batches(rows, tokenizer, config, accelerator, masked.targets)
    outcome = training.train(run, model, tokenizer, batches, lambda model: evaluate(model, "validation", "eval"))

    # 5. Save the model, its scores on the evaluation splits and its card.
    run.save_model(outcome.model, tokenizer)
    results = outcome.results | results
    for split, name in stages.SPLITS:
        if split in corpora:
            results |= (scores := evaluate(outcome.model, split, name))
            shown = (f"{key} {value:.4f}" for key, value in scores.items() if "runtime" not in key)
            run.print(f"{name}: {'  '.join(shown)}")
    if accelerator.is_main_process:
        write_card(run, model, documents, results)
    result = run.finish(results, outcome.history)
    stages.tell_use(run, "fine-tune it with another recipe", cli.command("ner"), "--train_file FILE")
    return result


def resolved(config: PretrainConfig) -> PretrainConfig:
    """The config with the defaults of its model. Raises ValueError for flags that have no effect here."""
    models.refuse_lora(config, "in pretraining, a model")
    training.refuse_on_collapse(config)
    resolved: PretrainConfig = training.with_defaults(
        config,
        learning_rate=5e-4 if config.config_name else 1e-4,
        num_train_epochs=10 if config.config_name else 3,
        metric="mlm_loss",
    )
    return resolved


def load_tokenizer(run: training.Run, train: Sequence[Any]) -> Any:
    """The tokenizer that the flags name, or a new one that is trained on the training split."""
    config = run.config
    return models.tokenizer_for_pretraining(
        lambda: (sentence for corpus in train for sentence in corpus.sentences()),
        tokenizer_name=str(run.checkpoint) if run.checkpoint else config.tokenizer_name,  # a resumed run has its own
        config_name=config.config_name,
        model_name_or_path=config.model_name_or_path,
        revision=config.model_revision,
        vocab_size=config.vocab_size,
        lowercase=config.do_lower_case,
        on_one_process=run.on_one_process,
    )


def load_model(config: PretrainConfig, tokenizer: Any, counts: Any) -> Any:
    """The model that the flags name, or a new one with random weights, with the heads of the objective."""
    return models.load_for_pretraining(
        tokenizer,
        model_name_or_path=config.model_name_or_path,
        revision=config.model_revision,
        config_name=config.config_name,
        shape={name: getattr(config, name) for name in models.SHAPE},
        dropout=config.dropout,
        unigram_counts=counts,
        next_sentence=config.objective in tasks.masked.PAIRS,
        padding_free=config.padding_free,
        max_seq_length=config.max_seq_length,
    )


def rows_of(config: PretrainConfig, documents: Mapping[str, Any], tokenizer: Any, model: Any) -> dict[str, Any]:
    """The inputs of each split, and those of the questions on translations."""
    first = models.first_position(model)
    rows = {
        split: texts.pretraining_rows(parts, config, tokenizer, split, first) for split, parts in documents.items()
    }
    return rows | tasks.masked.questions_on_translations(rows, config.objective)


def write_card(run: training.Run, model: Any, documents: Mapping[str, Any], results: Mapping[str, float]) -> None:
    """Writes the model card."""
    config = run.config
    reporting.write_model_card(
        run.output_dir,
        task="fill-mask",
        metric="mlm_perplexity",
        use=tasks.masked.USE,
        base_model=config.config_name or config.model_name_or_path,
        model_type=model.config.model_type,
        data=config.dataset_name or config.train_file or "data from Python",
        split_sizes={split: sum(map(len, parts)) for split, parts in documents.items()},
        results=results,
        length=reporting.told_length(config, results),
        where=training.where(run, model).partition(":")[0],
        license=config.data_license,
        place=config.hub_model_id if config.push_to_hub else None,
        settings=reporting.told_settings(config) | {"objective": config.objective, "masking": config.masking},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(PretrainConfig, argv)
    cli.run(pretrain, config)


if __name__ == "__main__":
    main()
