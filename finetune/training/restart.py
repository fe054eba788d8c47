"""Begins a collapsed run again, in the same process: other seed, half the rate, warm-up, the weights of the start."""

from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from finetune.training.collapse import (
    MOST_RESTARTS,
    config_of_attempt,
    may_be_judged,
    share_of_rates,
    told_attempt,
)
from finetune.training.folder import remove_at_once
from finetune.training.optimizers import build_schedule, forget_steps
from finetune.training.progress import progress_bar
from finetune.training.saving import checkpoints, keep_only_weights, remove_weights, set_weights, step_of


def begin_again_after_collapse(training: Any, loss: float, position: float) -> bool:
    """Looks whether the run has collapsed. If so, does what `--on_collapse` says.

    Args:
        training: what the steps work on (`finetune.training.loop`).
        loss: of the evaluation just made.
        position: its epoch.

    Returns:
        Whether the run begins again, from its first step.

    Raises:
        ValueError: with `--on_collapse stop`, if the run has collapsed.
    """
    state, watch, run = training.state, training.watch, training.run
    if watch is None or not may_be_judged(state.step, state.total_steps, training.config.warmup_steps):
        return False
    signs = state.signs
    share = partial(share_of_rates, training.schedule.lr_lambdas[0], state.total_steps)
    if (
        not signs.show_collapse(watch, loss, state.step, share) or len(signs.collapses) > signs.restarts
    ):  # this attempt was told of
        return False
    found = (
        f"the run has collapsed at epoch {position:g}: its model gives every input the same label, and the loss "
        f"{loss:.4f} is not clearly below {watch.eval_loss:.4f}, that of the best answer that does not look at its "
        "input"
    )
    if run.config.on_collapse == "stop":
        raise ValueError(
            f"--on_collapse stop: {found}; give a lower --learning_rate, more --warmup_steps or another --seed, or "
            "--on_collapse restart"
        )
    signs.collapses.append({"step": state.step, "epoch": position, "loss": loss})
    restarts = signs.restarts + 1
    if run.config.on_collapse == "ignore" or restarts > MOST_RESTARTS:
        run.print(f"{found}. It goes on as it is")
        return False
    run.print(f"{found}. It begins again ({restarts} of {MOST_RESTARTS}): {told_attempt(run.config, restarts)}")
    _begin_again(training)
    return True


def _begin_again(training: Any) -> None:
    run, old = training.run, training.state
    signs = old.signs.after_restart()
    config = config_of_attempt(run.config, signs.restarts)
    if run.accelerator.is_main_process:
        _remove_attempt(run.output_dir, old.step)
    run.accelerator.wait_for_everyone()
    training.config, training.batches = config, training.batches.with_seed(config.seed)
    set_seed(config.seed, deterministic=config.full_determinism)  # for the layers that start at random
    set_weights(training.watch.weights(), run.accelerator, training.model)
    set_seed(config.seed + run.accelerator.process_index)
    total = config.max_steps if config.max_steps > 0 else training.batches.steps_of(config.num_train_epochs)
    inner = forget_steps(training.optimizer, 0.5)
    training.schedule = build_schedule(inner, config, total)
    training.state = type(old)(
        total_steps=total,
        data=old.data,
        elsewhere=old.elsewhere,
        tokens=old.tokens,  # time and tokens count over all attempts
        rows=old.rows,
        seconds=old.seconds,
        pieces=old.pieces,
        signs=signs,
    )
    training.begun_at = 0
    training.history.begin_again([{**collapse, "collapsed": 1} for collapse in signs.collapses])
    training.bar.close()
    training.bar = progress_bar(run.print, total, 0, disable=config.disable_tqdm)


def _remove_attempt(folder: Path, last: int) -> None:
    """Removes the checkpoints of a collapsed attempt, up to its step `last`.

    Without them, a run that is killed now begins with its first attempt, and comes to this point again. If it is
    killed in here, there is one checkpoint with all the weights that it needs, or none.
    """
    old = [path for path in checkpoints(folder) if step_of(path) <= last]
    for path in old[:-1]:
        keep_only_weights(path)
    for path in old[-1:]:
        remove_at_once(path)
    remove_weights(folder, last)
