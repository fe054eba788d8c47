"""How far back a gradient reaches: an Elman network, an LSTM, a GRU and a transformer, before and after training.

python recipes/gradient_flow.py --output_dir runs/gradient_flow
python recipes/gradient_flow.py --length 100 --steps 4000 --seeds 0 --output_dir runs/gradient_flow_100

from recipes.gradient_flow import GradientFlowConfig, gradient_flow
result = gradient_flow(GradientFlowConfig(output_dir="runs/gradient_flow"))
result["models"]["lstm"]["after"]  # for each seed a list: the norm at distance 0, 1, 2, ...

For each distance k, this recipe measures the norm of a derivative: of the hidden state at the last position, with
respect to the input k positions before. The models learn the adding problem (Hochreiter and Schmidhuber, 1997,
section 5.4): some numbers are given, two of them are marked, and the answer is the sum of these two. A model that
always answers 1 has a mean squared error of 1/6. So a model with a smaller error remembers the marked numbers.
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

from finetune import cli, reporting  # before torch: finetune sets how torch's threads wait

# isort: split
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from finetune.arguments import flag
from finetune.models import RecurrentConfig, RecurrentModel

# An Elman network with torch's own initialisation. The baseline `rnn` starts with an orthogonal recurrent matrix.
UNIFORM = "rnn, uniform"
# With these rates the LSTM, the GRU and the transformer learn the task. The Elman network also failed with 3e-3.
LEARNING_RATES = {UNIFORM: 1e-3, "rnn": 1e-3, "lstm": 1e-2, "gru": 3e-3, "transformer": 2e-3}
BASELINE = 1 / 6  # the variance of the sum of two numbers between 0 and 1
BATCH, HEADS, TESTED = 32, 4, 1000


@dataclass
class GradientFlowConfig:
    """All flags of this recipe."""

    length: int = flag(64, "Number of positions of an input.")
    steps: int = flag(2000, "Largest number of training steps. A model stops earlier at an error of 1/600.")
    hidden_size: int = flag(64, "Hidden units of each model.")
    learning_rate: float | None = flag(
        None, "Learning rate of Adam, for all models [rnn 1e-3, lstm 1e-2, gru 3e-3, transformer 2e-3]."
    )
    seeds: str = flag("0,1,2", "Comma-separated seeds. A seed sets the first weights and the training data.")
    output_dir: str = flag("runs/gradient_flow", "The folder for the figure, the table and the numbers.")
    overwrite_output_dir: bool = flag(False, "Replace the results of an earlier run in output_dir.")


def gradient_flow(config: GradientFlowConfig) -> dict[str, Any]:
    """Measures, trains, measures again, and writes `gradient_flow.{json,md,png,svg}`.

    Returns:
        The content of the JSON file: `config`, `baseline_loss` and `models`. For each model there are five lists with
        a value for each seed: `before` and `after` (a norm for each distance), `loss` (mean squared error on new
        inputs), `steps` and `seconds`.

    Raises:
        ValueError: for a flag with a wrong value.
    """
    # 1. Check the flags.
    seeds, folder = _check(config)

    # 2. For each model and seed: measure the gradients, train, and measure them again.
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

    # 3. Write the numbers, the table and the figure. They appear together, or none of them does.
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
    """A model with a linear layer `output`, and the function from inputs (B, T, 2) to the last hidden state (B, H).

    The recurrent models are the layers of the baselines, with their initialisation; `UNIFORM` has torch's. The
    transformer is a BERT of two layers with BERT's initialisation. Each of its positions sees the whole input.
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
    """Inputs (B, T, 2) and targets (B,) of the adding problem.

    Each position has a number between 0 and 1, and a mark. One position of the first half and one of the second half
    are marked. The target is the sum of their numbers.
    """
    numbers, marks, rows = torch.rand(B, T, generator=generator), torch.zeros(B, T), torch.arange(B)
    for begin, end in ((0, T // 2), (T // 2, T)):
        marks[rows, torch.randint(begin, end, (B,), generator=generator)] = 1
    return torch.stack([numbers, marks], dim=2), (numbers * marks).sum(1)


def probe_inputs(T: int, generator: torch.Generator) -> Tensor:
    """Inputs of the adding problem (T / 2, T, 2). Each position is marked in one of them, so that all count alike."""
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
        last_state: (B, T, E) -> (B, H). The state of an input must not depend on the other inputs.
        inputs: (B, T, E).

    Returns:
        (T,): for each distance, the mean of the Frobenius norms over the inputs. Distance 0 comes first.
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
    """Trains with new inputs at each step, until the mean error of 20 steps is small. Returns the number of steps."""
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
    """The mean squared error on inputs that no model was trained on. They are the same for all models."""
    inputs, targets = adding_problem(TESTED, length, torch.Generator().manual_seed(2**40))
    return nn.functional.mse_loss(module["output"](last_state(inputs))[:, 0], targets).item()


def _check(config: GradientFlowConfig) -> tuple[list[int], Path]:
    if config.length < 2:
        raise ValueError(f"--length {config.length}: must be at least 2, one position for each marked number")
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
            raise ValueError(f"--output_dir {folder}: this folder has other files; give another folder")
        if not config.overwrite_output_dir:
            raise ValueError(
                f"--output_dir {folder}: this folder already holds a run; give another, or replace the run with "
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
