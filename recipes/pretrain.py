"""Pretraining: masked tokens, with next sentences, sentence order or translations, as BERT, RoBERTa and XLM-R had it.

python recipes/pretrain.py --dataset_name samples --config_name bert --tokenizer_name wordpiece --vocab_size 4000 \\
    --hidden_size 128 --num_hidden_layers 2 --output_dir runs/tiny_bert
python recipes/pretrain.py --train_file 'data/corpus/*.train.txt' --objective bert --dry_run
accelerate launch recipes/pretrain.py --config recipes/configs/pretrain/small_bert.yaml --output_dir runs/small_bert
python recipes/ner.py --model_name_or_path runs/small_bert --dataset_name samples --output_dir runs/ner

from recipes.pretrain import PretrainConfig, pretrain
result = pretrain(PretrainConfig(dataset_name="samples", output_dir="runs/pretrain"))
result.results["eval_mlm_loss"]
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from finetune import cli, data, metrics, models, reporting, stages, training
from finetune.arguments import DEFAULT_MODEL, DataArguments, TrainingArguments, flag


@dataclass
class PretrainConfig(TrainingArguments, DataArguments):
    """All flags of this recipe."""

    objective: Literal["bert", "sop", "roberta", "xlm-r", "tlm"] = flag(
        "bert",
        "Masked tokens with next sentences (bert) or sentence order (sop), alone (roberta), over languages, a file "
        "each (xlm-r), or on translation pairs (tlm).",
    )
    input_form: Literal["default", "segment_pair", "sentence_pair", "full_sentences", "doc_sentences"] = flag(
        "default", "What stands in an input [bert: segment_pair; roberta, xlm-r: full_sentences]."
    )
    text_column_name: str = flag("text", "Column of the documents: a text, or a list of sentences.")
    sentences: Literal["line", "split"] = flag("line", "A line is a sentence, or the text is split into sentences.")
    parallel_columns: str | None = flag(None, "tlm: comma-separated columns of a table, a language each.")
    streaming: bool = flag(False, "Read a Hub data set as a stream instead of downloading it first.")
    validation_split_percentage: float = flag(
        5.0, "Documents held out where there is no --validation_file; of few documents, their last sentences."
    )
    model_name_or_path: str = flag(DEFAULT_MODEL, "The checkpoint to continue from, without --config_name.")
    model_revision: str = flag("main", "Branch, tag or commit of a Hub checkpoint.")
    config_name: str | None = flag(
        None, "Start from random weights: bert, roberta, xlm-roberta, or a config's place."
    )
    num_hidden_layers: int | None = flag(None, "With --config_name: layers.")
    hidden_size: int | None = flag(None, "With --config_name: width.")
    num_attention_heads: int | None = flag(None, "With --config_name: heads [width / 64].")
    intermediate_size: int | None = flag(None, "With --config_name: inner width [4 x width].")
    padding_free: bool = flag(True, "On a CPU, no layer runs on padding; outputs are the same.")
    dropout: float | None = flag(None, "Of hidden states and attention [the config's].")
    tokenizer_name: str | None = flag(
        None, "A tokenizer's place, or one to be trained on the training split: wordpiece, byte-bpe, unigram."
    )
    vocab_size: int = flag(16000, "Pieces of a tokenizer that is trained.")
    do_lower_case: bool = flag(True, "Of a wordpiece tokenizer that is trained.")
    masking: Literal["token", "whole_word", "span"] = flag("token", "What is masked as one.")
    mlm_probability: float = flag(0.15, "Share of the subwords that are masked, whatever is masked as one.")
    mask_replace_prob: float = flag(0.8, "Share of it that becomes the mask token.")
    random_replace_prob: float = flag(0.1, "Share of it that becomes another token; the rest stays.")
    static_masks: bool = flag(False, "The same instances and masks again after dupe_factor epochs, as BERT had it.")
    dupe_factor: int = flag(10, "Sets of static masks.")
    short_seq_prob: float = flag(0.1, "Share of the documents with shorter segment pairs.")
    sampling_alpha: float = flag(0.3, "xlm-r: a language of n inputs gets a share proportional to n ** alpha.")
    dry_run: bool = flag(False, "Count the instances, write ten out, and stop.")


def pretrain(config: PretrainConfig) -> training.RunResult:
    """Trains, evaluates and saves a masked language model. Raises ValueError for what a user can mend."""
    from finetune.tasks import masked

    # 1. The run, and its data: documents of sentences, a share of them held out.
    pairs = {"bert": "nsp", "sop": "sop"}.get(config.objective)  # what is asked of a pair of segments
    run = training.start_run(
        training.with_defaults(
            config,
            learning_rate=5e-4 if config.config_name else 1e-4,
            num_train_epochs=10 if config.config_name else 3,
            metric="mlm_loss",
        ),
        metrics=("mlm_loss", "mlm_accuracy", "loss") + ((f"{pairs}_accuracy",) if pairs else ()),
    )
    config, accelerator = run.config, run.accelerator
    corpora = data.read_corpus(config)
    stages.check_splits(config, corpora)

    # 2. The tokenizer and the model.
    tokenizer = models.tokenizer_for_pretraining(
        lambda: (sentence for corpus in corpora["train"] for sentence in corpus.sentences()),
        tokenizer_name=str(run.checkpoint) if run.checkpoint else config.tokenizer_name,  # a resumed run's own
        config_name=config.config_name,
        model_name_or_path=config.model_name_or_path,
        revision=config.model_revision,
        vocab_size=config.vocab_size,
        lowercase=config.do_lower_case,
        on_one_process=run.on_one_process,
    )
    with accelerator.main_process_first():
        documents = {
            split: [data.tokenize(corpus, tokenizer) for corpus in parts] for split, parts in corpora.items()
        }
    counts = data.unigram_counts(documents["train"], len(tokenizer))
    model = models.load_for_pretraining(
        tokenizer,
        model_name_or_path=config.model_name_or_path,
        revision=config.model_revision,
        config_name=config.config_name,
        shape={name: getattr(config, name) for name in models.SHAPE},
        dropout=config.dropout,
        unigram_counts=counts,
        next_sentence=pairs is not None,
        padding_free=config.padding_free,
        max_seq_length=config.max_seq_length,
    )

    # 3. Documents to instances, and the masks of every epoch.
    first = models.first_position(model)
    rows = {
        split: data.pretraining_rows(parts, config, tokenizer, split, first) for split, parts in documents.items()
    }
    if config.objective == "tlm":  # the same words of one language, with and without their translation in sight
        for split in [split for split in rows if split != "train"]:
            rows[f"{split} with_translation"] = replace(rows[split], only_first=True)
            rows[f"{split} with_other"] = replace(rows[split], only_first=True, shift=1)
    audit = data.instance_audit(
        rows["train"].in_epoch(0),
        tokenizer,
        max_seq_length=config.max_seq_length,
        batch_size=config.per_device_train_batch_size,
    )
    entropy = metrics.unigram_entropy(counts)
    run.print(training.where(run, model), f"train: {audit}", f"entropy of its unigrams: {entropy:.3f} nats")
    run.print(*(f"{split}: {part}" for split, parts in documents.items() for part in parts if split != "train"))
    run.print(f"the tokens are kept in {documents['train'][0].folder.parent}")
    if config.dry_run:
        run.print(*(f"\n{number}. {text}" for number, text in enumerate(audit.examples, start=1)))
        run.release()
        return training.RunResult(run.output_dir, {"instances": audit.instances, "unigram_entropy": entropy})

    # How to score: the same masks in every evaluation.
    def count(model: Any, rows: Any) -> training.Collected:
        batches = data.eval_batches(rows.in_epoch(0), tokenizer, config.per_device_eval_batch_size, masked.targets)
        return training.collect(accelerator, model, batches, masked.collect)

    def evaluate(model: Any, split: str, name: str) -> dict[str, float]:
        found = count(model, rows[split])
        scores = masked.score(found, pairs or "")
        scores |= {"loss": sum(scores.get(f"{part}_loss", 0.0) for part in ("mlm", pairs))}
        scores |= {"masked": next(iter(found.targets.values())), "runtime": round(found.runtime, 3)}
        if pairs:
            scores[f"{pairs}_majority"] = rows[split].majority()
        parts = {name.split()[1]: rows[name] for name in rows if name.startswith(f"{split} ")}
        if config.objective == "xlm-r":
            parts = {part.language: replace(rows[split], documents=[part]) for part in documents[split]}
        for part, its_rows in parts.items():
            scores[f"mlm_loss_{part}"] = masked.score(count(model, its_rows))["mlm_loss"]
        return {f"{name}_{key}": value for key, value in scores.items()}

    # 4. Train, and evaluate as often as the flags say.
    batches = data.train_batches(rows, tokenizer, config, accelerator, masked.targets)
    outcome = training.train(run, model, tokenizer, batches, lambda model: evaluate(model, "validation", "eval"))

    # 5. Save the model, its scores on the evaluation splits, its card.
    run.save_model(outcome.model, tokenizer)
    results = outcome.results | {"unigram_entropy": entropy}
    for split, name in (("validation", "eval"), ("test", "test")):
        if split in corpora:
            scores = evaluate(outcome.model, split, name)
            results |= scores
            run.print(
                f"{name}: " + "  ".join(f"{key} {value:.4f}" for key, value in scores.items() if "runtime" not in key)
            )
    if accelerator.is_main_process:
        reporting.write_model_card(
            run.output_dir,
            task="fill-mask",
            metric="mlm_perplexity",
            use=masked.USE,
            base_model=config.config_name or config.model_name_or_path,
            model_type=model.config.model_type,
            data=config.dataset_name or str(config.train_file),
            split_sizes={split: sum(map(len, parts)) for split, parts in documents.items()},
            results=results,
            settings=reporting.told_settings(config) | {"objective": config.objective, "masking": config.masking},
        )
    result = run.finish(results, outcome.history)
    stages.tell_use(run, "ner", "--train_file FILE")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(PretrainConfig, argv)
    cli.run(pretrain, config)


if __name__ == "__main__":
    main()
