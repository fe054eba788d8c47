"""The steps that are the same in every recipe, from flags to results. A task (`finetune/tasks/`) adds its own parts.

| name in a task | what it is |
|---|---|
| `METRICS` | scores that `--metric_for_best_model` may name |
| `SHOWN` | scores that a run prints at its end |
| `PIPELINE` | its name on the Hub |
| `read(config, given)` | the splits, with columns as the task wants them; `given` is data from Python, if any |
| `headline(dataset)` | the score that chooses the best evaluation, and that models are compared by |
| `labels(splits)` | the label of each output of the model |
| `encode(dataset, tokenizer, labels, config)` | an object with `rows`; its `str()` describes the encoded split |
| `gold(dataset, labels)` | the right answers |
| `targets(inputs)` | the number of targets of each mean loss of a batch |
| `collect(output, batch, settings)` | the part of a batch's output to keep, computed on the device |
| `decode(encoded, found)` | the model's answers for the split |
| `counts(gold, said, labels, settings)` | what each sample adds to the scores, (N, K) |
| `score(sums, labels, settings)` | the scores of summed counts |
| `write(file, name, dataset, said, labels, settings)` | writes the predictions |
| `answer(samples, predictor)` | for `finetune.predict`: an answer for each sample |
| `reread(folder, name)`, `inputs(dataset)`, `compared(runs, splits)` | for comparing and verifying |

A task may also have:

| name | what it is |
|---|---|
| `USE`, or `use(dataset)` | for the model card: how to use the model that learned from a data set |
| `told(dataset)` | the labels of a split and their numbers, as a text |
| `settings(splits, config)` | what a model needs in addition to its weights; saved in its config |
| `run(model, batch, bare)` | how the model is run in an evaluation; default: its forward. `bare` has no wrappers |
| `tune(gold, said)` | settings that are chosen on the validation split |
| `remarks(gold, said)` | further results, such as how many words were scored |
| `derived(scores)` | results that follow from the scores and the loss, such as the perplexity |
| `calibrate(gold, said, labels, settings)` | settings that make the scores of the answers honest |
| `calibration(gold, said, labels, settings)` | results: how far the scores are from that |
| `promises(gold, said, labels, settings)` | settings: which precision the answers above a score have |
| `check(sample, predictor)` | refuses a sample that the model cannot answer |
| `label_numbers(dataset)` | the labels of a split and their numbers |
| `spread(said, settings)` | how much the answers differ, to recognise a model that gives all the same answer |
| `notes(settings)` | for the model card: sentences about the scores |
| `restored(found, labels, settings)` | what `reread` found, as `counts` takes it; for `recipes/verify.py` |
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune import cli, data, models, reporting, training
from finetune.seen_texts import told_of_seen_texts

SPLITS = (("validation", "eval"), ("test", "test"))
# The rate of LoRA, divided by that of full training (Schulman et al., 2025, "LoRA Without Regret"). For a model of
# 768 hidden units this gives 5e-4, with which Hu et al. (2022, table 9) train RoBERTa base.
LORA_TIMES = 10
# The settings of a loss in a model's config, as `finetune.models.set_loss` writes them, and their defaults.
_LOSS: dict[str, Any] = {"class_weights": None, "label_smoothing": 0.0, "focal_gamma": 0.0}


@dataclass
class Job:
    """A run and its data."""

    run: Any
    task: Any  # a module of `finetune/tasks/`
    splits: dict[str, Any]
    labels: list[str]
    settings: dict[str, Any]
    unlabelled: dict[str, Any] = field(default_factory=dict)  # splits that are predicted and not scored
    encoded: dict[str, Any] = field(default_factory=dict)
    gold: dict[str, Any] = field(default_factory=dict)
    tokenizer: Any = None
    targets: Callable[[Mapping[str, Any]], dict[str, float]] | None = None  # [the task's]
    events: list[str] = field(default_factory=list)  # for the model card: what was special about the training
    adapter: Callable[[Path], None] | None = None  # writes it into a folder, with --save_adapter
    # In training, the loss of the best answer that does not look at its input; 0: unknown [that of the labels].
    blind_loss: float | None = None

    @property
    def config(self) -> Any:
        """The flags."""
        return self.run.config


def asked(task: Any, name: str, *arguments: Any) -> Any:
    """Calls an optional function of a task. Returns {} if the task does not have it."""
    return getattr(task, name)(*arguments) if hasattr(task, name) else {}


def with_defaults(config: Any) -> Any:
    """The config with the defaults of its model.

    Raises:
        ValueError: for flags that this model does not use.
    """
    baseline = models.is_baseline(config.model_name_or_path)
    config = training.with_defaults(
        config,
        learning_rate=2e-3 if baseline else _rate_of_checkpoint(config),
        num_train_epochs=20 if baseline else 3,
        metric=None,
        warmup_steps=0.0 if baseline else 0.1,
    )
    models.check_flags(config)
    return config


def _rate_of_checkpoint(config: Any) -> float:
    """The learning rate at which a checkpoint is fine-tuned: what the flag says, or what suits its width and LoRA."""
    if config.learning_rate is not None:  # then no config of a checkpoint has to be read
        given: float = config.learning_rate
        return given
    usual = models.usual_rate(config.model_name_or_path, config.model_revision)
    return usual if config.lora_r is None else LORA_TIMES * usual


def check_splits(config: Any, splits: Mapping[str, Any]) -> None:
    """Raises ValueError if there is nothing to evaluate on."""
    if config.eval_strategy != "no" and "validation" not in splits:
        raise ValueError(
            "--eval_strategy needs a --validation_file or a --validation_split_percentage; without both give "
            "--eval_strategy no"
        )


def begin(config: Any, task: Any, given: Mapping[str, Any] | None = None) -> Job:
    """Starts a run and reads its data.

    Raises:
        ValueError: for a mistake that the user can correct.
    """
    run = training.start_run(config, metrics=task.METRICS)
    with data.keeping_unlabelled() as unlabelled:
        splits = task.read(run.config) if given is None else task.read(run.config, given)
    if run.config.metric_for_best_model is None:
        run.config = replace(run.config, metric_for_best_model=task.headline(splits["train"]))
        training.check_metric(run.checkpoint, run.config.metric_for_best_model)
    check_splits(run.config, splits)
    settings = asked(task, "settings", splits, run.config)
    job = Job(run, task, splits, task.labels(splits), settings, unlabelled=unlabelled)
    if hasattr(task, "inputs") and (seen := told_of_seen_texts(config.model_name_or_path, splits, task)):
        run.print(seen)
        job.events.append(seen)
    return job


def tell_labels(job: Job) -> None:
    """Prints the labels of each split."""
    for split, dataset in job.splits.items():
        if labels := asked(job.task, "told", dataset):
            job.run.print(f"{split} labels: {labels}")


def set_loss(job: Job, model: Any, column: str) -> None:
    """Gives the model the loss that the flags ask for. With weights of labels, a mean is taken over these weights.

    Args:
        column: the column of the labels, in the splits.

    Raises:
        ValueError: for a model with a CRF, and for labels and weights that make no sense.
    """
    config = job.config
    weights = data.class_weights(config.class_weights, job.splits["train"], job.labels, column)
    job.targets = partial(job.task.targets, weights=weights)
    models.set_loss(
        model,
        problem_type=job.settings.get("problem_type", "single_label_classification"),
        class_weights=weights,
        label_smoothing=config.label_smoothing_factor,
        focal_gamma=config.focal_gamma,
    )


def encode(job: Job, model: Any, tokenizer: Any, extended: Callable[[Any], Any] | None = None) -> None:
    """Makes the rows of all splits, and prints where the run computes and what is in its data.

    Args:
        extended: takes the encoded training split, and returns what takes its place.
    """
    job.tokenizer = tokenizer
    job.run.print(training.where(job.run, model))
    if job.config.lora_r is not None:
        job.run.print(models.add_lora(model, job.config))
    tell_labels(job)
    for split, dataset in job.splits.items():
        job.encoded[split] = job.task.encode(dataset, tokenizer, job.labels, job.config)
        if extended is not None and split == "train":
            job.encoded[split] = extended(job.encoded[split])
        job.gold[split] = job.task.gold(dataset, job.labels)
        job.run.print(f"{split}: {job.encoded[split]}")
    for split, dataset in job.unlabelled.items():
        job.encoded[split] = job.task.encode(dataset, tokenizer, job.labels, job.config)
        job.run.print(f"{split}, without labels: {job.encoded[split]}")
    if getattr(job.config, "compact_vocabulary", False) and job.run.holds_whole_parameters:
        seen = [encoded.rows.tokens["input_ids"] for encoded in job.encoded.values()]
        rows, whole = models.compact_vocabulary(model, tokenizer, seen)
        trains = model.get_input_embeddings().weight.requires_grad
        job.run.print(f"embedding: {rows:,} of {whole:,} rows {'train' if trains else 'are used; none trains'}")


def fit(job: Job, model: Any, load: Callable[[], Any] | None = None) -> training.TrainOutcome:
    """Trains the model, and evaluates it as often as the flags say.

    Args:
        load: loads the model and its tokenizer again. If given, a run that collapses is recognised.
    """
    rows = {split: encoded.rows for split, encoded in job.encoded.items()}
    batches = data.train_batches(
        rows, job.tokenizer, job.config, job.run.accelerator, job.targets or job.task.targets
    )
    watch = None if load is None else watch_for_collapse(job, model, load)
    model.config.update(job.settings)
    bare = partial(job.run.accelerator.unwrap_model, keep_torch_compile=False)

    def evaluated(model: Any) -> dict[str, float]:
        said, scores = evaluate(job, model)
        bare(model).config.update(job.settings)  # a checkpoint that is written now can predict
        if watch is not None:
            watch.spread = job.task.spread(said, job.settings)
        return scores

    outcome = training.train(job.run, model, job.tokenizer, batches, evaluated, watch)
    if job.config.lora_r is not None:
        trained = bare(outcome.model)
        job.adapter = models.adapter_of(trained) if job.config.save_adapter else None
        models.merge_lora(trained)  # what is evaluated at the end is what is saved
    return outcome


def watch_for_collapse(job: Job, model: Any, load: Callable[[], Any]) -> training.Watch | None:
    """What shows that a run has collapsed, or None if that cannot be seen.

    It can be seen of one label for each word or text, if labels differ, in a run with evaluations. A run that trains
    only the head is left alone: it learns slowly, and there is nothing in it that breaks.
    """
    config, encoded = job.config, job.encoded
    if config.eval_strategy == "no" or config.freeze_encoder or "validation" not in encoded:
        return None
    blind = {}
    for split in ("train", "validation"):
        rows = encoded[split].rows
        labels = rows.tokens.get("labels", rows.samples.get("labels"))
        if labels is None or labels.dtype.kind not in "iu":
            return None
        if any(isinstance(module, models.LinearChainCrf) for module in model.modules()):
            blind[split] = models.blind_chain_loss(labels, rows.offsets, len(job.labels))
        else:
            settings = {name: getattr(model.config, name, default) for name, default in _LOSS.items()}
            blind[split] = models.blind_loss(labels, len(job.labels), **settings)
    if job.blind_loss is not None:
        blind["train"] = job.blind_loss
    if not all(blind.values()):
        return None
    return training.Watch(blind["train"], blind["validation"], lambda: _loaded(load, config).state_dict())


def _loaded(load: Callable[[], Any], config: Any) -> Any:
    """The model of a run as it is at its start."""
    model, _ = load()
    if config.lora_r is not None:
        models.add_lora(model, config)
    return model


def evaluate(
    job: Job,
    model: Any,
    split: str = "validation",
    name: str = "eval",
    also: Sequence[str] = (),
    *,
    tune: bool = True,
) -> tuple[Any, dict[str, float]]:
    """The model's answers for a split, and its scores. On the validation split, settings are chosen first.

    Args:
        also: what the task's `collect` should keep, too.
        tune: False: the settings stay as they are.
    """
    found = _collect(job, model, split, job.targets, also)
    said = job.task.decode(job.encoded[split], found.arrays)
    if split == "validation" and tune:
        job.settings |= tuned(job, said)
    counts = job.task.counts(job.gold[split], said, job.labels, job.settings)
    scores = job.task.score(np.asarray(counts).sum(0), job.labels, job.settings)
    scores |= asked(job.task, "remarks", job.gold[split], said) | found.costs
    scores |= asked(job.task, "derived", scores)
    return said, {f"{name}_{key}": value for key, value in scores.items()}


def predict(job: Job, model: Any, split: str) -> Any:
    """The model's answers for a split without labels."""
    found = _collect(job, model, split, lambda inputs: {})
    return job.task.decode(job.encoded[split], found.arrays)


def _collect(job: Job, model: Any, split: str, targets: Any, also: Sequence[str] = ()) -> Any:
    """What the task keeps of the model's outputs for a split."""
    return collect(
        job.run.accelerator,
        model,
        job.tokenizer,
        job.encoded[split].rows,
        job.task,
        job.settings | {"also": tuple(also)},
        job.config.per_device_eval_batch_size,
        targets,
    )


def tuned(job: Job, said: Any) -> dict[str, Any]:
    """The settings that the answers for the validation split choose. What a flag says is not tuned."""
    found = asked(job.task, "tune", job.gold["validation"], said)
    return {name: value for name, value in found.items() if getattr(job.config, name, None) is None}


def collect(
    accelerator: Any,
    model: Any,
    tokenizer: Any,
    rows: Any,
    task: Any,
    settings: Mapping[str, Any],
    batch_size: int,
    targets: Any = None,
    *,
    alone: bool = False,
) -> training.Collected:
    """Runs the model over the rows, and returns what the task keeps for each row.

    Args:
        alone: as `finetune.training.collect` takes it.
    """
    batches = data.eval_batches(rows, tokenizer, batch_size, targets or task.targets)
    run = partial(task.run, bare=accelerator.unwrap_model(model)) if hasattr(task, "run") else None
    return training.collect(accelerator, model, batches, partial(task.collect, settings=settings), run, alone=alone)


def last_evaluation(job: Job, model: Any, split: str, name: str) -> tuple[Any, dict[str, float]]:
    """As `evaluate`, at the end of a run.

    On the validation split, the scores of the answers are calibrated first, and then it is found what they promise.
    """
    task, gold = job.task, job.gold[split]
    first = split == "validation" and hasattr(task, "calibrate")
    said, scores = evaluate(job, model, split, name, also=("logs", "raw_scores") if first else ("raw_scores",))
    if first and (calibrated := task.calibrate(gold, said, job.labels, job.settings)):
        job.settings |= calibrated
        said, scores = evaluate(job, model, split, name, also=("raw_scores",))  # with the calibrated scores
    errors = asked(task, "calibration", gold, said, job.labels, job.settings)
    if split == "validation":
        job.settings |= asked(task, "promises", gold, said, job.labels, job.settings)
    return said, scores | {f"{name}_{key}": value for key, value in errors.items()}


def report(job: Job, outcome: training.TrainOutcome) -> training.RunResult:
    """Evaluates the model, and saves it with its predictions, its scores and its card."""
    run, task = job.run, job.task
    said: dict[str, Any] = {}
    results = dict(outcome.results)
    for split, name in SPLITS:
        if split in job.splits:
            said[split], scores = last_evaluation(job, outcome.model, split, name)
            results |= scores
            shown = dict.fromkeys((task.headline(job.splits[split]), *task.SHOWN))
            run.print(f"{name}: {_line(scores, name, list(shown))}  rows {len(job.splits[split]):,}")
    for split in job.unlabelled:
        said[split] = predict(job, outcome.model, split)
        results |= tell_unlabelled(job, split)
    run.accelerator.unwrap_model(outcome.model).config.update(job.settings)
    run.save_model(outcome.model, job.tokenizer, job.adapter)
    if run.accelerator.is_main_process:
        for split, name in SPLITS:
            if split in said:
                dataset = (job.splits | job.unlabelled)[split]
                task.write(run.file, name, dataset, said[split], job.labels, job.settings)
        write_card(job, outcome.model, results)
    result = run.finish(results, outcome.history)
    if hasattr(task, "answer"):
        tell_use(run, "finetune.predict(FOLDER, [...])", cli.command("predict"), "--input_file FILE")
    else:  # such as a language model, which gives no answers
        tell_use(run, snippet(job))
    return result


def tell_unlabelled(job: Job, split: str) -> dict[str, float]:
    """Tells that a split without labels was predicted. Returns what the results say of it."""
    rows = len(job.unlabelled[split])
    told = f"the {split} split has no labels; its {rows:,} rows were predicted and not scored"
    job.run.print(f"{told}: predictions_{split}")
    job.events.append(f"{told[0].upper()}{told[1:]}.")
    return {f"unlabelled_{split}_rows": rows}


def snippet(job: Job) -> str:
    """How to use the model from Python, with FOLDER for its folder."""
    own: str = asked(job.task, "use", job.splits["train"]) or getattr(job.task, "USE", "")
    return own or 'finetune.predict(FOLDER, ["I would see it again."])'


def tell_use(run: Any, use: str, command: str | None = None, flags: str = "") -> None:
    """Prints the folder of a run and what uses its model: the command if there is one, else `use`."""
    folder = run.config.output_dir
    use = use.replace("FOLDER", repr(folder))
    if command is not None:
        use = f"{command} --model_name_or_path {shlex.quote(folder)} {flags}"
    run.print(f"{folder} holds the model; to use it: {use}")


def _line(scores: Mapping[str, float], name: str, shown: Sequence[str]) -> str:
    values = {key: scores[f"{name}_{key}"] for key in shown if f"{name}_{key}" in scores}
    return "  ".join(f"{key} {v:.4f}" if isinstance(v, float) else f"{key} {v:,}" for key, v in values.items())


def write_card(job: Job, model: Any, results: Mapping[str, float]) -> None:
    """Writes the model card."""
    config = training.config_of_attempt(job.config, int(results.get("restarts", 0)))
    reporting.write_model_card(
        job.run.output_dir,
        task=job.task.PIPELINE,
        metric=job.task.headline(job.splits["train"]),
        use=snippet(job),
        base_model=config.model_name_or_path,
        model_type=job.run.accelerator.unwrap_model(model).config.model_type,
        data=config.dataset_name or config.train_file or "data from Python",
        split_sizes={split: len(dataset) for split, dataset in job.splits.items()},
        labels=job.labels,
        results=results,
        notes=list(asked(job.task, "notes", job.settings)),
        settings=reporting.told_settings(config),
        length=reporting.told_length(config, results),
        where=training.where(job.run, model).partition(":")[0],
        license=config.data_license,
        place=config.hub_model_id if config.push_to_hub else None,
        events=[*job.events, *training.told_collapses(job.config, results)],
    )
