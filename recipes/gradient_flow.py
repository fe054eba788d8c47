"""How far back a gradient reaches: an Elman network, an LSTM, a GRU and a transformer, before and after training.

python recipes/gradient_flow.py --output_dir runs/gradient_flow
python recipes/gradient_flow.py --length 100 --steps 4000 --seeds 0 --output_dir runs/gradient_flow_100

from recipes.gradient_flow import GradientFlowConfig, gradient_flow
result = gradient_flow(GradientFlowConfig(output_dir="runs/gradient_flow"))
result["models"]["lstm"]["after"]  # a list a seed: the norm at distance 0, 1, 2, ...

The norm is that of the derivative of the last position's hidden state with respect to the input so many positions
before. The task is the adding problem (Hochreiter and Schmidhuber, 1997, section 5.4): the sum of two marked numbers
among many. Always answering 1 has a mean squared error of 1/6, so a model below that remembers.
"""

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune import cli, reporting  # before torch, whose threads it tells how to wait

# isort: split
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from finetune.arguments import flag
from finetune.models import RecurrentConfig, RecurrentModel

UNIFORM = "rnn, uniform"  # an Elman network as torch starts it; the baseline's recurrent matrix starts orthogonal
# The LSTM, the GRU and the transformer learn with these; the Elman network did not with 3e-3 either.
LEARNING_RATES = {UNIFORM: 1e-3, "rnn": 1e-3, "lstm": 1e-2, "gru": 3e-3, "transformer": 2e-3}
BASELINE = 1 / 6  # the variance of the sum of two numbers between 0 and 1
BATCH, HEADS, TESTED = 32, 4, 1000


@dataclass
class GradientFlowConfig:
    """All flags of this recipe."""

    length: int = flag(64, "Positions of an input.")
    steps: int = flag(2000, "Training steps at most; a model stops when its error is a hundredth of the baseline's.")
    hidden_size: int = flag(64, "Units of every model.")
    learning_rate: float | None = flag(None, "Adam's [Elman 1e-3, lstm 1e-2, gru 3e-3, transformer 2e-3].")
    seeds: str = flag("0,1,2", "Comma-separated; each is an initialisation and a stream of data.")
    output_dir: str = flag("runs/gradient_flow", "Where the figure, the table and the numbers are written.")
    overwrite_output_dir: bool = flag(False, "Replace what a run has written there.")


def gradient_flow(config: GradientFlowConfig) -> dict[str, Any]:
    """Measures, trains, measures again, and writes `gradient_flow.{json,md,png,svg}`.

    Returns:
        What the JSON file holds: `config`, `baseline_loss`, and in `models` for each name, a value a seed of `before`
        and `after` (a norm for each distance), `loss` (mean squared error on new inputs), `steps` and `seconds`.

    Raises:
        ValueError: for a flag that cannot be meant.
    """
    # 1. What was asked for.
    seeds, folder = _check(config)

    # 2. Each model, with each seed: gradients as it starts, training, gradients as it ends.
    models: dict[str, dict[str, list[Any]]] = {}
    for name, own_rate in LEARNING_RATES.items():
        found = models[name] = {"before": [], "after": [], "loss": [], "steps": [], "seconds": []}
        for seed in seeds:
            torch.manual_seed(seed)
            module, last_state = build(name, config)
            probes = probe_inputs(config.length, torch.Generator().manual_seed(seed))
            found["before"].append(gradient_norms(last_state, probes).tolist())
            began = time.perf_counter()
            steps = train(module, last_state, config, config.learning_rate or own_rate, seed)
            found["seconds"].append(round(time.perf_counter() - began, 1))
            found["steps"].append(steps)
            found["after"].append(gradient_norms(last_state, probes).tolist())
            found["loss"].append(error_on_new_inputs(module, last_state, config.length))
            print(f"{name}, seed {seed}: error {found['loss'][-1]:.4f} after {steps} steps", flush=True)

    # 3. The numbers, the table and the figure appear together.
    result = {"config": asdict(config), "baseline_loss": BASELINE, "models": models}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        whole = Path(beside, folder.name)
        whole.mkdir()
        (whole / "gradient_flow.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (whole / "gradient_flow.md").write_text(reporting.gradient_flow_table(result), encoding="utf-8")
        drawing = reporting.gradient_flow_figure(result)
        drawing.savefig(whole / "gradient_flow.png", dpi=90)
        drawing.savefig(whole / "gradient_flow.svg", metadata={"Date": None})
        folder.mkdir(exist_ok=True)
        for path in whole.iterdir():
            path.replace(folder / path.name)
    print(f"\n{reporting.gradient_flow_table(result)}\n{folder}: gradient_flow.json .md .png .svg")
    return result


def build(name: str, config: GradientFlowConfig) -> tuple[nn.ModuleDict, Callable[[Tensor], Tensor]]:
    """A model with a linear `output`, and the function from inputs (B, T, 2) to its last hidden state (B, H).

    The recurrent ones are the baselines' layers with their initialisation, but for `UNIFORM`; the transformer is a
    BERT of two layers that sees the whole input, at BERT's initialisation.
    """
    H = config.hidden_size
    module = nn.ModuleDict({"output": nn.Linear(H, 1)})
    if name != "transformer":
        cell = "rnn" if name == UNIFORM else name
        shape = RecurrentConfig(
            embedding_size=2, cell=cell, bidirectional=False, hidden_size=H, char_features="none", dropout=0.0
        )
        layers: Any = RecurrentModel(shape).recurrent
        if name == UNIFORM:
            layers.reset_parameters()
        module["layers"] = layers
        return module, lambda inputs: module["layers"](inputs)[0][:, -1]
    bert = BertConfig(
        vocab_size=1,
        hidden_size=H,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=2 * H,
        max_position_embeddings=config.length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    module["input"] = nn.Linear(2, H)
    module["layers"] = BertModel(bert, add_pooling_layer=False)
    return module, lambda inputs: module["layers"](inputs_embeds=module["input"](inputs)).last_hidden_state[:, -1]


def adding_problem(B: int, T: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (B, T, 2), a number between 0 and 1 and a mark; targets (B,), the sum of the two marked numbers.

    One mark is in the first half, one in the second.
    """
    numbers, marks, rows = torch.rand(B, T, generator=generator), torch.zeros(B, T), torch.arange(B)
    for begin, end in ((0, T // 2), (T // 2, T)):
        marks[rows, torch.randint(begin, end, (B,), generator=generator)] = 1
    return torch.stack([numbers, marks], dim=2), (numbers * marks).sum(1)


def probe_inputs(T: int, generator: torch.Generator) -> Tensor:
    """Inputs of the adding problem (T / 2, T, 2): each position is marked in one, so that none is favoured."""
    B, half = T - T // 2, T // 2
    inputs, _ = adding_problem(B, T, generator)
    rows = torch.arange(B)
    inputs[..., 1] = 0
    inputs[rows, rows % half, 1] = 1
    inputs[rows, half + torch.randperm(B, generator=generator), 1] = 1
    return inputs


def gradient_norms(last_state: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """For each distance k from the last position T, the norm of the Jacobian d h_T / d x_(T-k).

    Args:
        last_state: (B, T, E) -> (B, H), where no input tells on another one's state.
        inputs: (B, T, E).

    Returns:
        (T,): the Frobenius norm, the mean over the inputs; the first is that of the last position.
    """
    inputs = inputs.clone().requires_grad_()
    states = last_state(inputs)
    squares = torch.zeros(inputs.shape[:2], dtype=inputs.dtype)
    for unit in states.sum(0):
        squares += torch.autograd.grad(unit, inputs, retain_graph=True)[0].square().sum(2)
    return squares.sqrt().mean(0).flip(0)


def train(
    module: nn.ModuleDict, last_state: Callable[[Tensor], Tensor], config: GradientFlowConfig, rate: float, seed: int
) -> int:
    """Trains on new inputs at every step, until the mean error of 20 steps is small; returns the steps taken."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    losses: list[float] = []
    for step in range(config.steps):
        inputs, targets = adding_problem(BATCH, config.length, generator)
        loss = nn.functional.mse_loss(module["output"](last_state(inputs))[:, 0], targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses = [*losses[-19:], loss.item()]
        if len(losses) == 20 and statistics.mean(losses) < BASELINE / 100:
            return step + 1
    return config.steps


@torch.no_grad()
def error_on_new_inputs(module: nn.ModuleDict, last_state: Callable[[Tensor], Tensor], length: int) -> float:
    """The mean squared error on inputs that no seed trains on, the same ones for every model."""
    inputs, targets = adding_problem(TESTED, length, torch.Generator().manual_seed(2**40))
    return nn.functional.mse_loss(module["output"](last_state(inputs))[:, 0], targets).item()


def _check(config: GradientFlowConfig) -> tuple[list[int], Path]:
    if config.length < 2:
        raise ValueError(f"--length {config.length}: two marked numbers need at least 2 positions")
    if config.steps < 1:
        raise ValueError(f"--steps {config.steps}: must be at least 1")
    if config.hidden_size < 1 or config.hidden_size % HEADS:
        raise ValueError(f"--hidden_size {config.hidden_size}: must be a multiple of the transformer's {HEADS} heads")
    if config.learning_rate is not None and not 0 < config.learning_rate < math.inf:
        raise ValueError(f"--learning_rate {config.learning_rate}: must be positive")
    try:
        seeds = [int(seed) for seed in config.seeds.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise ValueError(f"--seeds {config.seeds}: give whole numbers from 0 on, such as 0,1,2")
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder}: this is a file; give a folder")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "gradient_flow.json").exists():
            raise ValueError(f"--output_dir {folder}: this folder holds something else; give another")
        if not config.overwrite_output_dir:
            raise ValueError(
                f"--output_dir {folder}: this folder already holds a run; give another, or replace it with "
                "--overwrite_output_dir"
            )
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(folder.parent, os.W_OK):
        raise ValueError(f"--output_dir {folder}: {folder.parent} is not writable")
    return seeds, folder


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    cli.run(gradient_flow, cli.parse(GradientFlowConfig, argv))


if __name__ == "__main__":
    main()
