"""The training loop. It takes a model, batches and an `evaluate()` callable, and knows no task."""

import json
import math
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from accelerate.utils import set_seed

from finetune.files import write_text
from finetune.training.folder import TRACKED_AS
from finetune.training.memory import (
    SMALLER_MICRO_BATCHES,
    SMALLER_OPTIMIZER,
    checkpoint_gradients,
    gradients_that_fit,
    memory_errors_explained,
)
from finetune.training.optimizers import build_optimizer, build_schedule
from finetune.training.precision import note_precision
from finetune.training.progress import progress_bar
from finetune.training.resume import check_data, find_best, training_of
from finetune.training.run import Run, peak_memory_mb
from finetune.training.saving import (
    load_checkpoint,
    load_state,
    load_weights,
    remove_old_checkpoints,
    save_checkpoint,
)
from finetune.training.sharding import prepare_for_sharding
from finetune.training.signals import leave, name_of, noted_signals
from finetune.training.steps import accumulate_gradients, allow_unused_parameters, clip_gradients, read_numbers


class Batches(Protocol):
    """What the loop asks of its batches (see `finetune.data.TrainBatches`)."""

    def digest(self) -> str: ...

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
    """Where the run stands; a checkpoint holds it."""

    step: int = 0
    total_steps: int = 0
    data: str = ""  # a digest of the rows
    tokens: int = 0
    rows: int = 0
    seconds: float = 0.0  # of training, waiting for batches too, without evaluations and checkpoints
    losses_since_log: dict[str, float] = field(default_factory=dict)
    targets_since_log: dict[str, int] = field(default_factory=dict)
    best_value: float | None = None
    best_step: int | None = None
    best_epoch: float | None = None
    evaluations_since_best: int = 0
    pieces: int = 1  # of each micro-batch, where memory was out
    schedule: dict[str, Any] = field(default_factory=dict)


def train(
    run: Run, model: Any, tokenizer: Any, batches: Batches, evaluate: Callable[[Any], dict[str, float]]
) -> TrainOutcome:
    """Trains `model`, and ends with its best evaluated weights, or with the last ones.

    Args:
        batches: the micro-batches of every step, as this process sees them.
        evaluate: takes the (wrapped) model and returns scores by name, such as `eval_f1`.

    Raises:
        MemoryError: where a step does not fit, saying what helps.
        FloatingPointError: where loss or gradient is NaN or infinite; the checkpoints written so far stay.
        OSError: where the disk has no room for a checkpoint; those before it stay.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the step is done and a checkpoint is written.
    """
    with ExitStack() as stack:
        try:
            return _train(run, model, tokenizer, batches, evaluate, stack)
        except BaseException:
            run.release()  # this process may be a notebook, which lives on
            raise


def _train(
    run: Run,
    model: Any,
    tokenizer: Any,
    batches: Batches,
    evaluate: Callable[[Any], dict[str, float]],
    stack: ExitStack,
) -> TrainOutcome:
    config, accelerator = run.config, run.accelerator
    total_steps = config.max_steps if config.max_steps > 0 else batches.steps_of(config.num_train_epochs)
    checkpoint = run.checkpoint
    names = {name for name, _ in model.named_parameters()}  # as they are saved: an embedding may train in part
    parameters = sum(value.numel() for name, value in model.state_dict().items() if name in names)
    if config.gradient_checkpointing:
        checkpoint_gradients(model)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, total_steps)  # not prepared: it would step once a process
    prepare_for_sharding(accelerator, model)
    batches.locate(0)  # says what is wrong with the plan, before anything is taken from it
    with memory_errors_explained("before step 1", SMALLER_MICRO_BATCHES), closing(batches.epoch(0)) as steps:
        allow_unused_parameters(accelerator, model, steps)
    note_precision(accelerator, model)
    model, optimizer = accelerator.prepare(model, optimizer)
    set_seed(config.seed + accelerator.process_index)  # dropout differs between processes
    digest = batches.digest()
    state = _State(total_steps=total_steps, data=digest)
    if checkpoint is not None:
        state = _State(**_known(load_state(checkpoint)))
        check_data(checkpoint, (state.total_steps, state.data or digest), (total_steps, digest))
        load_checkpoint(checkpoint, accelerator, model, optimizer)
        schedule.load_state_dict(state.schedule)
        run.print(f"resumed from {checkpoint} after step {state.step}")

    run.create_folder()
    begun_at = state.step
    if begun_at and accelerator.is_main_process:  # a run that was killed may have left one too many
        remove_old_checkpoints(run.output_dir, config.save_total_limit, state.best_step, begun_at)
    if config.report_to != "none":
        accelerator.init_trackers(TRACKED_AS, config={k: v for k, v in asdict(config).items() if v is not None})
    history = _History(run, checkpoint)
    improvement = -1.0 if config.metric_for_best_model.endswith("loss") else 1.0
    bar = progress_bar(run.print, total_steps, state.step, disable=config.disable_tqdm)

    def save() -> None:
        state.schedule = schedule.state_dict()
        told = asdict(state) | {"run": training_of(config, accelerator)}
        folder = run.output_dir / f"checkpoint-{state.step}"
        save_checkpoint(folder, accelerator, model, tokenizer, optimizer, told, history.lines)
        if accelerator.is_main_process:
            remove_old_checkpoints(run.output_dir, config.save_total_limit, state.best_step, state.step)
        accelerator.wait_for_everyone()

    signals = stack.enter_context(noted_signals(accelerator))  # from here on it is asked for after each step
    signal = 0
    patience = config.early_stopping_patience or math.inf
    stop = state.step >= total_steps or state.evaluations_since_best >= patience  # a finished run, resumed
    began = time.perf_counter()
    while not stop:
        epoch, first_step = batches.locate(state.step)
        steps_in_epoch = batches.steps_in(epoch)
        steps = stack.enter_context(closing(batches.epoch(epoch, first_step)))
        upcoming = next(steps, None)
        step_in_epoch = first_step
        while upcoming is not None and not stop:
            micro_batches = upcoming
            step_in_epoch += 1
            model.train()
            with memory_errors_explained(f"at step {state.step + 1}", SMALLER_MICRO_BATCHES):
                if config.auto_find_batch_size:
                    sums, fitting = gradients_that_fit(accelerator, model, micro_batches, state.pieces)
                else:
                    sums, fitting = accumulate_gradients(accelerator, model, micro_batches), state.pieces
            if fitting > state.pieces:
                run.print(
                    f"out of memory at step {state.step + 1}: each micro-batch in {fitting} pieces from here on"
                )
                state.pieces = fitting
            norm_there = clip_gradients(accelerator, model, config.max_grad_norm or math.inf)  # 0: measure only
            arrived = signals.asked()
            upcoming = next(steps, None)  # the next batches are made while a GPU computes
            *read, tokens, rows, norm = read_numbers(
                [*arrived, *sums.losses.values(), *sums.targets.values(), sums.tokens, sums.rows, norm_there]
            )
            losses = dict(zip(sums.losses, read[len(arrived) :], strict=False))
            targets = dict(zip(sums.targets, map(int, read[-len(sums.targets) :]), strict=True))
            rate = float(max(schedule.get_last_lr()))
            _check_finite(state.step + 1, rate, sum(losses.values()), norm, accelerator.scaler is None)
            with memory_errors_explained(f"in the optimizer at step {state.step + 1}", SMALLER_OPTIMIZER):
                optimizer.step()
            if accelerator.scaler is None or math.isfinite(norm):  # else the scaler skipped this step
                schedule.step()
            optimizer.zero_grad(set_to_none=True)

            state.step += 1
            state.tokens += int(tokens)
            state.rows += int(rows)
            for name, count in targets.items():
                state.losses_since_log[name] = state.losses_since_log.get(name, 0.0) + losses[name]
                state.targets_since_log[name] = state.targets_since_log.get(name, 0) + count
            state.seconds += time.perf_counter() - began
            position = round(epoch + step_in_epoch / steps_in_epoch, 4)
            bar.update()

            stop = state.step >= total_steps
            epoch_ends = step_in_epoch == steps_in_epoch
            if state.step % config.logging_steps == 0 or stop:
                means = {
                    name: summed / max(state.targets_since_log[name], 1)
                    for name, summed in state.losses_since_log.items()
                }
                state.losses_since_log, state.targets_since_log = {}, {}
                line = {"loss": sum(means.values())} | means
                line |= {"learning_rate": rate, "grad_norm": norm, "tokens": state.tokens}
                history.add({"step": state.step, "epoch": position} | line)
                bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)

            evaluated = _due(config.eval_strategy, config.eval_steps, state.step, epoch_ends, stop)
            if evaluated:
                scores = evaluate(model)
                history.add({"step": state.step, "epoch": position} | scores)
                value = _metric(scores, config.metric_for_best_model)
                if _better(value, state.best_value, improvement):
                    state.best_value, state.best_step, state.best_epoch = value, state.step, position
                    state.evaluations_since_best = 0
                else:
                    state.evaluations_since_best += 1
                run.print(_evaluation_line(position, scores, best=state.evaluations_since_best == 0))
                if state.evaluations_since_best >= patience and not stop:
                    run.print(f"stopped early: no better evaluation in {patience}")
                    stop = True

            saved = _due(config.save_strategy, config.save_steps, state.step, epoch_ends, stop)
            if saved:
                save()
            signal = signals.answer(read[: len(arrived)])
            if not signal and (accelerator.num_processes == 1 or evaluated or saved or stop):  # else one more look
                signal = signals.agreed()
            if signal:
                if not saved and config.save_strategy != "no":
                    save()
                stop = True
            began = time.perf_counter()
    stack.close()
    bar.close()
    if signal:
        _leave(run, signal, state.step)

    if config.load_best_model_at_end and state.best_step is not None and state.best_step != state.step:
        folders = [run.output_dir]
        if checkpoint is not None and state.best_step <= begun_at:  # it lies where that run wrote it
            folders.insert(0, checkpoint.absolute().parent)
        load_weights(find_best(folders, state.best_step), accelerator, model)
        run.print(
            f"best evaluation: {config.metric_for_best_model} {state.best_value:.4f} at epoch {state.best_epoch}"
        )
    results = {
        "train_runtime": round(state.seconds, 3),
        "train_tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
        "train_samples_per_second": round(state.rows / max(state.seconds, 1e-9), 2),
        "train_steps": state.step,
        "peak_memory_mb": round(peak_memory_mb(accelerator.device), 1),
        "total_parameters": parameters,
    }
    if state.best_epoch is not None:
        results["best_epoch"] = state.best_epoch
    return TrainOutcome(model, results, history.lines)


class _History:
    """`history.jsonl`; a resumed run begins with the lines that its checkpoint has."""

    def __init__(self, run: Run, checkpoint: Path | None) -> None:
        self.run = run
        self.path = run.output_dir / "history.jsonl"
        self.lines: list[dict[str, float]] = []
        if checkpoint is not None:
            self.lines = [json.loads(line) for line in (checkpoint / "history.jsonl").read_text().splitlines()]
        if run.accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, line: dict[str, float]) -> None:
        self.lines.append(line)
        if self.run.accelerator.is_main_process:
            with Path(self.path).open("a") as file:
                file.write(json.dumps(line) + "\n")
        if self.run.config.report_to != "none":
            self.run.accelerator.log(line, step=int(line["step"]))


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


def _check_finite(step: int, rate: float, loss: float, norm: float, check_gradient: bool) -> None:
    # With float16 loss scaling, an infinite gradient is normal: the scaler skips that step.
    what = "loss" if not math.isfinite(loss) else "gradient" if check_gradient and not math.isfinite(norm) else None
    if what is not None:
        raise FloatingPointError(
            f"the {what} is not finite at step {step} (learning rate {rate:.3g}); nothing was changed by this step "
            "and the checkpoints before it stay. A lower --learning_rate, more --warmup_steps or a smaller "
            "--max_grad_norm may help"
        )


def _better(value: float, best: float | None, improvement: float) -> bool:
    """Any number is better than NaN, which an evaluation may give before the model has learned anything."""
    return best is None or math.isnan(best) > math.isnan(value) or improvement * (value - best) > 0


def _metric(scores: dict[str, float], name: str) -> float:
    if f"eval_{name}" not in scores:
        choices = ", ".join(key.removeprefix("eval_") for key in scores)
        raise ValueError(f"--metric_for_best_model {name}: evaluation gives {choices}")
    return scores[f"eval_{name}"]


def _evaluation_line(epoch: float, scores: dict[str, float], best: bool) -> str:
    shown = {k.removeprefix("eval_"): v for k, v in scores.items() if not _is_detail(k)}
    text = "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
    return f"epoch {epoch:g}  {text}{'  (best)' if best else ''}"


def _is_detail(key: str) -> bool:
    """Scores by type, and times, are for the files."""
    return key.endswith(("_runtime", "_tokens")) or (
        key.startswith("eval_f1_") and key not in ("eval_f1_strict", "eval_f1_macro")
    )


def _known(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key in _State.__dataclass_fields__}
