"""The best evaluated weights of a run, alone or as a mean.

Near its end, a run moves around a good place. The mean of some of its weights is often nearer to that place than each
of them (Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization"). So with
`--average_checkpoints K` the means of the best 2, 3, ... K evaluated weights are evaluated after the last step. The
best of them, or the best weights alone, become the model. Of equal scores, the one with fewer weights is taken.

With LoRA, A and B are averaged, each for itself. Their product is not the mean of the products, but a candidate like
the others.

Nothing is added up while the run trains: the weights are those of its checkpoints. If a checkpoint is one of the best
K, and is no longer kept as a whole, all its files are removed but the weights (`saving.keep_only_weights`). When the
run ends, these are removed, too. So a run that is killed at any point finds what it needs, and takes the same mean.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from finetune.training.resume import finished_mean, missing_weights
from finetune.training.saving import load_weights, set_weights, weights_elsewhere, weights_folder


def value_of(scores: Mapping[str, float], metric: str) -> float:
    """The score of an evaluation that chooses the best one. ValueError if the evaluation does not have it."""
    if f"eval_{metric}" not in scores:
        choices = ", ".join(key.removeprefix("eval_") for key in scores)
        raise ValueError(f"--metric_for_best_model {metric}: evaluation gives {choices}")
    return scores[f"eval_{metric}"]


def is_better_lower(metric: str) -> bool:
    """Whether a lower value of this score is better, as of a loss."""
    return metric.endswith(("loss", "mse"))


def ranked(evaluations: Sequence[Sequence[float]], metric: str) -> list[list[float]]:
    """Evaluations `[score, step]`, the best first; of equal scores, the earlier one in the list.

    Any number is better than NaN, which an untrained model's evaluation may give.
    """
    sign = 1.0 if is_better_lower(metric) else -1.0

    def place(evaluation: Sequence[float]) -> tuple[bool, float]:
        score = evaluation[0]
        return math.isnan(score), 0.0 if math.isnan(score) else sign * score

    return [list(evaluation) for evaluation in sorted(evaluations, key=place)]


def mean_weights(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of the weights in some `model.safetensors` of one run. Integers are those of the first file.

    Each mean is taken in float64 and rounded once. So what is equal in all files, such as a frozen layer, stays as it
    is, bit for bit. One tensor of each file is in memory at a time.
    """
    with ExitStack() as stack:
        first, *others = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        means, names = {}, first.keys()
        for name in names:
            tensor = first.get_tensor(name)
            if tensor.is_floating_point() and others:
                total = tensor.double()
                for other in others:
                    total += other.get_tensor(name)
                tensor = (total / len(files)).to(tensor.dtype)
            means[name] = tensor
    return means


def load_best(training: Any, evaluate: Callable[[Any], dict[str, float]]) -> dict[str, float]:
    """Gives the model its best evaluated weights, or the best mean of them, if the flags ask for that.

    Args:
        training: what the steps worked on (`finetune.training.loop`).
        evaluate: takes the wrapped model and returns scores.

    Returns:
        For the results, with `--average_checkpoints`: `averaged_checkpoints`, of how many weights it is the mean.

    Raises:
        ValueError: if weights that are needed are no longer on the disk.
    """
    run, state = training.run, training.state
    if not run.config.load_best_model_at_end or state.best_step is None:
        return {}
    told = f"best evaluation: {run.config.metric_for_best_model} {state.best_value:.4f} at epoch {state.best_epoch}"
    if run.config.average_checkpoints is None:
        if state.best_step != state.step:
            load_weights(_folder(training, state.best_step), run.accelerator, training.model)
            run.print(told)
        return {}
    run.print(told)
    steps = [int(step) for _, step in state.ranked[: run.config.average_checkpoints]]
    if run.checkpoint is not None and any(weights_folder(_folders(training, step), step) is None for step in steps):
        finished = run.checkpoint.absolute().parent
        if (number := finished_mean(finished)) is not None:  # at its end, it removed the weights of the others
            if weights_elsewhere(run.accelerator, training.model):
                raise ValueError(
                    f"--resume_from_checkpoint {run.checkpoint}: this run has finished, and its model is merged with "
                    f"LoRA; it is in {finished}, and there is nothing left to do"
                )
            load_weights(finished, run.accelerator, training.model)
            run.print(f"this run has finished before: {_told(number)}")
            return {"averaged_checkpoints": number}
    return {"averaged_checkpoints": _load_best_mean(training, evaluate, [_folder(training, step) for step in steps])}


def _load_best_mean(training: Any, evaluate: Callable[[Any], dict[str, float]], folders: Sequence[Path]) -> int:
    """Evaluates the means of the first 2, 3, ... folders, and loads the best one. Returns of how many it is."""
    run, metric = training.run, training.run.config.metric_for_best_model
    files = [folder / "model.safetensors" for folder in folders]
    found: list[list[float]] = [[training.state.best_value, 1]]
    for number in range(2, len(files) + 1):
        set_weights(mean_weights(files[:number]), run.accelerator, training.model)
        found.append([value_of(evaluate(training.model), metric), number])
        run.print(f"mean of the best {number} evaluated weights: {metric} {found[-1][0]:.4f}")
    best = int(ranked(found, metric)[0][1])
    set_weights(mean_weights(files[:best]), run.accelerator, training.model)
    run.print(_told(best))
    return best


def _told(number: int) -> str:
    if number == 1:
        return "the model has the best evaluated weights alone; no mean is better"
    return f"the model is the mean of the best {number} evaluated weights"


def _folders(training: Any, step: int) -> list[Path]:
    """Where the weights after a step can be."""
    run = training.run
    if run.checkpoint is not None and step <= training.begun_at:  # the first run wrote them to its own folder
        return [run.checkpoint.absolute().parent, run.output_dir]
    return [run.output_dir]


def _folder(training: Any, step: int) -> Path:
    folders = _folders(training, step)
    found = weights_folder(folders, step)
    if found is None:
        raise ValueError(f"--resume_from_checkpoint: {missing_weights(folders[-1], step)}")
    return found
