"""The training loop. It takes a model, batches and an `evaluate()` callable, and knows no task."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, Protocol

from accelerate.utils import set_seed

from finetune.training.best import load_best, ranked, value_of
from finetune.training.collapse import Signs, Watch, config_of_attempt
from finetune.training.folder import TRACKED_AS
from finetune.training.history import History, evaluation_line
from finetune.training.listeners import tell
from finetune.training.memory import (
    SMALLER_MICRO_BATCHES,
    SMALLER_OPTIMIZER,
    checkpoint_gradients,
    gradients_that_fit,
    memory_errors_explained,
    peak_memory_mb,
)
from finetune.training.optimizers import build_optimizer, build_schedule
from finetune.training.precision import note_precision
from finetune.training.progress import progress_bar
from finetune.training.restart import begin_again_after_collapse
from finetune.training.resume import check_base, check_data, training_of
from finetune.training.run import Run
from finetune.training.saving import (
    digest_of_elsewhere,
    load_checkpoint,
    load_state,
    remove_old_checkpoints,
    save_checkpoint,
)
from finetune.training.sharding import prepare_for_sharding
from finetune.training.signals import Signals, leave, name_of, noted_signals
from finetune.training.steps import (
    StepNumbers,
    StepSums,
    accumulate_gradients,
    allow_unused_parameters,
    check_finite,
    clip_gradients,
    numbers_of_step,
)
from finetune.training.waits import short_waits


class Batches(Protocol):
    """What the loop asks of its batches (see `finetune.data.TrainBatches`)."""

    def digest(self) -> str: ...

    def with_seed(self, seed: int) -> "Batches": ...

    def steps_in(self, epoch: int) -> int: ...

    def steps_of(self, epochs: float) -> int: ...

    def locate(self, step: int) -> tuple[int, int]: ...

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[list[Any]]: ...


@dataclass
class TrainOutcome:
    """A trained model, still wrapped by Accelerate, and the numbers of its training."""

    model: Any
    results: dict[str, float]  # train_runtime, train_tokens_per_second, ...
    history: list[dict[str, float]]


@dataclass
class _State:
    """How far the run has come. A checkpoint saves this."""

    step: int = 0
    total_steps: int = 0
    data: str = ""  # a digest of the rows
    elsewhere: str = ""  # a digest of the weights that checkpoints leave out
    epoch: float = 0.0  # 1.5: in the middle of the second one
    tokens: int = 0
    rows: int = 0
    seconds: float = 0.0  # of training, with the wait for batches, without evaluations and checkpoints
    losses_since_log: dict[str, float] = field(default_factory=dict)
    targets_since_log: dict[str, float] = field(default_factory=dict)
    best_value: float | None = None
    best_step: int | None = None
    best_epoch: float | None = None
    ranked: list[list[float]] = field(default_factory=list)  # [score, step] of the best evaluations, the best first
    evaluations_since_best: int = 0
    pieces: int = 1  # each micro-batch is cut into so many, after a step did not fit into memory
    schedule: dict[str, Any] = field(default_factory=dict)
    signs: Signs = field(default_factory=Signs)


def train(
    run: Run,
    model: Any,
    tokenizer: Any,
    batches: Batches,
    evaluate: Callable[[Any], dict[str, float]],
    watch: Watch | None = None,
) -> TrainOutcome:
    """Trains `model`, and ends with its best evaluated weights, the mean of some of them, or the last ones.

    Args:
        batches: the micro-batches of every step, as this process sees them.
        evaluate: takes the (wrapped) model and returns scores by name, such as `eval_f1`.
        watch: if given, a run that collapses is recognised, and `--on_collapse` says what happens then.

    Raises:
        MemoryError: if a step does not fit into memory. The message says what helps.
        FloatingPointError: if the loss or the gradient is NaN or infinite. The checkpoints written so far stay.
        OSError: if the disk has no room for a checkpoint. The earlier checkpoints stay.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the step is done and a checkpoint is written.
    """
    try:
        training = _prepare(run, model, tokenizer, batches, watch)
        with noted_signals(run.accelerator) as signals:  # each step asks for them
            signal = _take_steps(training, evaluate, signals)
        training.bar.close()
        if signal:
            _leave(run, signal, training.state.step)
        chosen = load_best(training, evaluate)
    except BaseException:
        run.release()  # this process may be a notebook, which continues
        raise
    return TrainOutcome(training.model, _results(training) | chosen, training.history.lines)


@dataclass
class _Training:
    """What the steps work on."""

    run: Run
    config: Any  # the run's flags; if it was begun again, with the seed and the rates of this attempt
    batches: Batches
    watch: Watch | None
    model: Any  # wrapped by Accelerate, as the optimizer is
    tokenizer: Any
    optimizer: Any
    schedule: Any
    state: _State
    begun_at: int  # the step at which the run was resumed, or 0
    history: History
    bar: Any
    parameters: tuple[int, int]  # of the saved model; of those that train

    @property
    def patience(self) -> float:
        return self.run.config.early_stopping_patience or math.inf


def _prepare(run: Run, model: Any, tokenizer: Any, batches: Batches, watch: Watch | None) -> _Training:
    """Wraps the model and loads the checkpoint. Makes the run's folder last, when all flags have been checked."""
    accelerator, checkpoint = run.accelerator, run.checkpoint
    state = _State() if checkpoint is None else _State(**_known(load_state(checkpoint)))
    config = config_of_attempt(run.config, state.signs.restarts)
    if state.signs.restarts:
        batches = batches.with_seed(config.seed)
    total_steps = config.max_steps if config.max_steps > 0 else batches.steps_of(config.num_train_epochs)
    digest = batches.digest()
    elsewhere = digest_of_elsewhere(accelerator, model)
    if config.gradient_checkpointing:
        checkpoint_gradients(model)
    optimizer = build_optimizer(model, config)
    parameters = _parameters(model)
    schedule = build_schedule(optimizer, config, total_steps)  # not prepared: it would step once for each process
    prepare_for_sharding(accelerator, model)
    batches.locate(0)  # raises if there is nothing to train on, before any batch is made
    with memory_errors_explained("before step 1", SMALLER_MICRO_BATCHES), closing(batches.epoch(0)) as steps:
        allow_unused_parameters(accelerator, model, steps)
    note_precision(accelerator, model)
    model, optimizer = accelerator.prepare(model, optimizer)
    set_seed(config.seed + accelerator.process_index)  # dropout differs between processes
    if checkpoint is None:
        state = _State(total_steps=total_steps, data=digest, elsewhere=elsewhere)
    else:
        check_data(checkpoint, (state.total_steps, state.data or digest), (total_steps, digest))
        check_base(checkpoint, state.elsewhere, elsewhere)
        load_checkpoint(checkpoint, accelerator, model, optimizer)
        schedule.load_state_dict(state.schedule)
        run.print(f"resumed from {checkpoint} after step {state.step}")

    tell(state.step / total_steps, {})
    run.create_folder()
    if state.step and accelerator.is_main_process:  # a killed run may have left one checkpoint too many
        _remove_old_checkpoints(run, state)
    if config.report_to != "none":
        accelerator.init_trackers(TRACKED_AS, config={k: v for k, v in asdict(config).items() if v is not None})
    history = History(run, checkpoint)
    bar = progress_bar(run.print, total_steps, state.step, disable=config.disable_tqdm)
    return _Training(
        *(run, config, batches, watch, model, tokenizer, optimizer, schedule),
        *(state, state.step, history, bar, parameters),
    )


def _parameters(model: Any) -> tuple[int, int]:
    """How many parameters the saved model has, and how many numbers train."""
    sizes = {name: value.numel() for name, value in model.state_dict().items()}  # an embedding may train in part
    added: frozenset[str] = getattr(model, "added_weights", frozenset())  # the saved model has them no more
    total = sum(sizes[name] for name, _ in model.named_parameters() if name not in added)
    return total, sum(sizes[name] for name, parameter in model.named_parameters() if parameter.requires_grad)


def _take_steps(training: _Training, evaluate: Callable[[Any], dict[str, float]], signals: Signals) -> int:
    """Takes the remaining steps, and evaluates and saves when that is due.

    Returns:
        The number of the signal that ended the training, or 0.
    """
    state, config, signal = training.state, training.run.config, 0
    stop = state.step >= state.total_steps  # a finished run was resumed
    stop = stop or state.evaluations_since_best >= training.patience
    began = time.perf_counter()
    while not stop:
        batches = training.batches
        epoch, first_step = batches.locate(state.step)
        steps_in_epoch = batches.steps_in(epoch)
        with closing(batches.epoch(epoch, first_step)) as steps:
            upcoming = next(steps, None)
            step_in_epoch = first_step
            while upcoming is not None and not stop:
                with short_waits() if state.step > training.begun_at else nullcontext():
                    seen, upcoming = _take_step(training, upcoming, steps, signals)
                step_in_epoch += 1
                state.seconds += time.perf_counter() - began
                position = state.epoch = round(epoch + step_in_epoch / steps_in_epoch, 4)
                stop = state.step >= state.total_steps
                epoch_ends = step_in_epoch == steps_in_epoch
                training.bar.update()
                if state.step % config.logging_steps == 0 or stop:
                    _log(training, position, seen)
                if evaluated := _due(config.eval_strategy, config.eval_steps, state.step, epoch_ends, stop):
                    loss = _evaluate(training, evaluate, position)
                    if begin_again_after_collapse(training, loss, position):
                        state, stop, began = training.state, False, time.perf_counter()
                        break
                    if state.evaluations_since_best >= training.patience and not stop:
                        training.run.print(f"stopped early: no better evaluation in {training.patience}")
                        stop = True
                if saved := _due(config.save_strategy, config.save_steps, state.step, epoch_ends, stop):
                    _save(training)
                signal = signals.answer(seen.arrived)
                if not signal and (signals.is_free or evaluated or saved or stop):  # for signals that came later
                    signal = signals.agreed()
                if signal:
                    if not saved and config.save_strategy != "no":
                        _save(training)
                    stop = True
                began = time.perf_counter()
    return signal


def _take_step(
    training: _Training, micro_batches: list[Any], steps: Iterator[list[Any]], signals: Signals
) -> tuple[StepNumbers, list[Any] | None]:
    """Takes one optimizer step. It reads from the device's memory only once.

    Returns:
        The numbers of this step, and the micro-batches of the next step, or None after the last one. They are made
        while a GPU computes.
    """
    config, accelerator, state = training.run.config, training.run.accelerator, training.state
    training.model.train()
    sums = _add_gradients(training, micro_batches)
    norm = clip_gradients(accelerator, training.model, config.max_grad_norm or math.inf)  # 0: measure only
    asked = signals.asked()
    upcoming = next(steps, None)
    seen = numbers_of_step(sums, norm, asked, float(max(training.schedule.get_last_lr())))
    check_finite(state.step + 1, seen, accelerator.scaler is None)
    with memory_errors_explained(f"in the optimizer at step {state.step + 1}", SMALLER_OPTIMIZER):
        training.optimizer.step()
    if accelerator.scaler is None or math.isfinite(seen.norm):  # else the scaler skipped this step
        training.schedule.step()
    training.optimizer.zero_grad(set_to_none=True)

    state.step += 1
    state.tokens += seen.tokens
    state.rows += seen.rows
    state.signs.note_step(seen.losses, seen.targets)
    for name, count in seen.targets.items():
        state.losses_since_log[name] = state.losses_since_log.get(name, 0.0) + seen.losses[name]
        state.targets_since_log[name] = state.targets_since_log.get(name, 0) + count
    return seen, upcoming


def _add_gradients(training: _Training, micro_batches: list[Any]) -> StepSums:
    """Adds up the gradient of the step. If memory is out and the flag allows it, in smaller pieces."""
    accelerator, state = training.run.accelerator, training.state
    with memory_errors_explained(f"at step {state.step + 1}", SMALLER_MICRO_BATCHES):
        if not training.run.config.auto_find_batch_size:
            return accumulate_gradients(accelerator, training.model, micro_batches)
        sums, fitting = gradients_that_fit(accelerator, training.model, micro_batches, state.pieces)
    if fitting > state.pieces:
        training.run.print(
            f"out of memory at step {state.step + 1}: each micro-batch in {fitting} pieces from here on"
        )
        state.pieces = fitting
    return sums


def _log(training: _Training, position: float, seen: StepNumbers) -> None:
    """Adds a line to the history: the mean losses since the last such line."""
    state = training.state
    means = {name: summed / (state.targets_since_log[name] or 1) for name, summed in state.losses_since_log.items()}
    state.losses_since_log, state.targets_since_log = {}, {}
    line = {"loss": sum(means.values())} | means
    line |= {"learning_rate": seen.rate, "grad_norm": seen.norm, "tokens": state.tokens}
    training.history.add({"step": state.step, "epoch": position} | line)
    training.bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)


def _evaluate(training: _Training, evaluate: Callable[[Any], dict[str, float]], position: float) -> float:
    """Evaluates, and notes whether this is the best evaluation so far. Returns the loss."""
    state, metric = training.state, training.run.config.metric_for_best_model
    scores = evaluate(training.model)
    training.history.add({"step": state.step, "epoch": position} | scores)
    value = value_of(scores, metric)
    state.ranked = ranked([*state.ranked, [value, state.step]], metric)
    del state.ranked[training.run.config.average_checkpoints or 1 :]
    if state.ranked[0][1] == state.step:
        state.best_value, state.best_step, state.best_epoch = value, state.step, position
        state.evaluations_since_best = 0
    else:
        state.evaluations_since_best += 1
    training.run.print(evaluation_line(position, scores, best=state.evaluations_since_best == 0))
    tell(state.step / state.total_steps, scores)
    return scores.get("eval_loss", math.nan)


def _save(training: _Training) -> None:
    run, state = training.run, training.state
    state.schedule = training.schedule.state_dict()
    told = asdict(state) | {"run": training_of(run.config, run.accelerator)}
    folder = run.output_dir / f"checkpoint-{state.step}"
    save_checkpoint(
        *(folder, run.accelerator, training.model, training.tokenizer, training.optimizer, told),
        training.history.lines,
    )
    if run.accelerator.is_main_process:
        _remove_old_checkpoints(run, state)
    run.accelerator.wait_for_everyone()


def _remove_old_checkpoints(run: Run, state: _State) -> None:
    averaged = {int(step) for _, step in state.ranked} if run.config.average_checkpoints else set()
    remove_old_checkpoints(run.output_dir, run.config.save_total_limit, state.best_step, state.step, averaged)


def _results(training: _Training) -> dict[str, float]:
    state = training.state
    results = {
        "train_runtime": round(state.seconds, 3),
        "train_tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
        "train_samples_per_second": round(state.rows / max(state.seconds, 1e-9), 2),
        "train_steps": state.step,
        "train_epochs": state.epoch,
        "peak_memory_mb": round(peak_memory_mb(training.run.accelerator.device), 1),
        "total_parameters": training.parameters[0],
    }
    if training.parameters[0] != training.parameters[1]:
        results["trained_parameters"] = training.parameters[1]
    results |= {} if training.watch is None else state.signs.results()
    return results if state.best_epoch is None else results | {"best_epoch": state.best_epoch}


def _leave(run: Run, signal: int, step: int) -> NoReturn:
    saved = f"checkpoint-{step} is written; go on with --resume_from_checkpoint true"
    if run.config.save_strategy == "no":
        saved = "--save_strategy no, so nothing of it is kept"
    sentence = f"{name_of(signal)}: stopped after step {step}: {saved}"
    run.print(sentence)
    if run.config.report_to != "none":
        run.accelerator.end_training()
    leave(signal, sentence)


def _due(strategy: str, every: int, step: int, epoch_ends: bool, stop: bool) -> bool:
    """Whether to evaluate or save after this step: on schedule, and always after the last one."""
    if strategy == "no":
        return False
    return stop or (epoch_ends if strategy == "epoch" else step % every == 0)


def _known(state: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in state.items() if key in _State.__dataclass_fields__}
    if known.get("best_step") is not None:  # of a version that kept only the best one
        known.setdefault("ranked", [[known["best_value"], known["best_step"]]])
    return known | {"signs": Signs(**known.get("signs", {}))}
