"""Recognises a run that has collapsed: its model gives every input the same answer, and no longer learns.

An evaluation looks dead if all of this is so:

1. The model gives each input of the validation split the same label.
2. Its loss there is not below 0.95 times the loss of the best answer that does not look at its input.
3. The loss of the last training steps is not below 0.9 times that of such an answer. It is a mean that fades: each
   step counts 0.95 times as much as the step after it.

Rare entities also look like this for a while, before a healthy model begins to find them. So a dead look is not
enough. The run has collapsed if one of these is so, too:

- The certainty of the answers is the same for each input (the standard deviation of their log-odds is below 0.005).
  The model does not see its input any more.
- The run stands still: the evaluation before looked dead as well, and the loss has not fallen enough since. Enough is
  5 percent times the share of the run's rates (summed over its steps) that belongs to the steps between the two
  evaluations. At a lower speed, all steps together would not lower the loss by 5 percent. If the loss is more than
  1.25 times that of the best answer that does not look at its input, any fall is enough.

A loss moves little if the rate is low, or if there are few steps between two evaluations. The share takes this into
account. If a loss is far above that of a blind answer, the model has not even learned how frequent the labels are. If
it falls at all, the run is only slow, and half the rate would not help it.

No evaluation is judged before 100 steps, 15 % of the steps and the warm-up are done. `docs/better_training.md` says
how these numbers were chosen. Mosbach et al. (2021, "On the Stability of Fine-tuning BERT") describe such runs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

MOST_RESTARTS = 2
_LEAST_STEPS, _LEAST_SHARE = 100, 0.15
_EVAL, _TRAIN = 0.95, 0.9
_SAME, _FALLEN, _NEAR = 0.005, 0.05, 1.25
_FADE = 0.95
_WARM_UP = 0.1  # of the steps, when a run begins again


@dataclass
class Watch:
    """What the loop must know to recognise a collapse, and to begin again."""

    train_loss: float  # of the best answer that does not look at its input, in nats a target
    eval_loss: float  # the same on the validation split
    weights: Callable[[], Mapping[str, Tensor]]  # of a model at the start of a run; new layers are drawn again
    spread: float = math.inf  # of the answers of the last evaluation, as `finetune.metrics.answer_spread` has it


@dataclass
class Signs:
    """What was seen so far. A checkpoint saves this."""

    loss: float = 0.0  # of the last steps, a sum that fades
    targets: float = 0.0
    dead: float | None = None  # the loss of the last evaluation, if it looked dead
    dead_at: int = 0  # its step
    restarts: int = 0
    collapses: list[dict[str, float]] = field(default_factory=list)  # when and how, of each run that collapsed

    def note_step(self, losses: Mapping[str, float], targets: Mapping[str, float]) -> None:
        """Adds the summed losses of a step."""
        self.loss = _FADE * self.loss + sum(losses.values())
        self.targets = _FADE * self.targets + sum(targets.values())

    def show_collapse(self, watch: Watch, loss: float, step: int, share: Callable[[int, int], float]) -> bool:
        """Whether an evaluation shows that the run has collapsed.

        Args:
            loss: of the evaluation, after the step `step`.
            share: takes two steps, and returns the part of the run's rates between them (see `share_of_rates`).
        """
        recent = self.loss / (self.targets or 1.0)
        dead = math.isfinite(watch.spread) and recent >= _TRAIN * watch.train_loss and loss >= _EVAL * watch.eval_loss
        still = False
        if self.dead is not None:
            needed = _FALLEN * share(self.dead_at, step) if loss <= _NEAR * watch.eval_loss else 0.0
            still = loss >= (1.0 - needed) * self.dead
        self.dead, self.dead_at = (loss, step) if dead else (None, 0)
        return dead and (watch.spread < _SAME or still)

    def after_restart(self) -> "Signs":
        """The signs of the next attempt: nothing is seen of it yet."""
        return Signs(restarts=self.restarts + 1, collapses=self.collapses)

    def results(self) -> dict[str, float]:
        """For `all_results.json`: how often the run was begun again, and where each attempt collapsed."""
        told: dict[str, float] = {"restarts": self.restarts}
        for number, collapse in enumerate(self.collapses, start=1):
            told |= {f"collapse_{number}_{name}": value for name, value in collapse.items()}
        return told


def may_be_judged(step: int, total_steps: int, warmup_steps: float) -> bool:
    """Whether enough steps are done to judge an evaluation.

    Args:
        warmup_steps: below 1 a share of the steps, as in the flags.
    """
    warmup = warmup_steps * total_steps if warmup_steps < 1 else warmup_steps
    return step >= max(_LEAST_STEPS, _LEAST_SHARE * total_steps, warmup)


def share_of_rates(factors: Callable[[int], float], total_steps: int, first: int, last: int) -> float:
    """The sum of the rates of the steps `first` to `last` - 1, divided by the sum of the rates of all steps.

    Args:
        factors: the rate of a step, counted from 0, as a part of the highest rate.
    """
    rates = np.array([factors(step) for step in range(total_steps)])
    return float(rates[first:last].sum() / (rates.sum() or 1.0))


def config_of_attempt(config: Any, restarts: int) -> Any:
    """The flags with which a run is begun again: another seed, half the rate each time, and warm-up.

    A warm-up that is given as a number of steps stays.

    Args:
        config: the flags of the run, with every default filled in.
        restarts: how often it was begun again; 0 changes nothing.
    """
    if not restarts:
        return config
    scale, head = 0.5**restarts, config.head_learning_rate
    return replace(
        config,
        seed=int(np.random.SeedSequence((config.seed, restarts)).generate_state(1)[0]),
        learning_rate=config.learning_rate * scale,
        head_learning_rate=None if head is None else head * scale,
        warmup_steps=max(config.warmup_steps, _WARM_UP),
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(
            config.lr_scheduler_type, config.lr_scheduler_type
        ),
    )


def told_attempt(config: Any, restarts: int) -> str:
    """The seed, the rate and the warm-up of an attempt, in words."""
    own = config_of_attempt(config, restarts)
    warm = f", warm-up {own.warmup_steps:g}" if restarts else ""
    return f"seed {own.seed}, learning rate {own.learning_rate:g}{warm}"


def told_collapses(config: Any, results: Mapping[str, float]) -> list[str]:
    """A sentence for each attempt that collapsed, from the run's results."""
    sentences, number = [], 1
    while f"collapse_{number}_epoch" in results:
        then = "it was begun again" if number <= results["restarts"] else "it went on"
        attempt = told_attempt(config, min(number - 1, int(results["restarts"])))
        sentences.append(f"collapsed at epoch {results[f'collapse_{number}_epoch']:g} ({attempt}); {then}")
        number += 1
    return sentences
