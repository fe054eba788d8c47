"""A model as a graph of ONNX: its forward pass, and what its task keeps of the output.

torch has two exporters. The newer one (`dynamo=True`) is used. With the older one, the graph of a BERT gave other
logits than the model (differences of 0.2, other labels for up to 16 % of the tokens), even for the very batch that it
was traced with. A graph that was traced with a mask of ones may have lost the mask, so the sample here is padded, and
`folder.float32` runs the graph with other lengths.

Recurrent layers become ONNX's own `LSTM`, `GRU` or `RNN`, which know the lengths of the rows.

Shapes: B rows, T tokens of the longest, H hidden of one direction, G gates.
"""

import contextlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.data.rows import Rows, padded

OPSET = 20  # the first one with Gelu
_TOLERANCE = 1e-4
_MOST_PARAMETERS = 450_000_000  # a file of ONNX holds 2 GB
_TARGETS = ("labels", "start_positions", "end_positions")
# Where ONNX wants each gate of torch: i f g o -> i o f g, and r z n -> z r n.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,)}


@dataclass(frozen=True)
class _Batch:
    """What a task's `collect` sees of a batch: its padding stays, and the runner removes it."""

    inputs: dict[str, Tensor]
    seen: list[str]

    def without_padding(self, values: Tensor) -> Tensor:
        """(B, T, ...), and a note that there is a value for each token."""
        self.seen.append("tokens")
        return values


class _Kept(nn.Module):
    """The model, and what its task keeps of the output."""

    def __init__(self, model: nn.Module, task: Any, settings: Mapping[str, Any], names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self._task, self._settings, self._names = task, settings, list(names)
        self._crf = hasattr(model, "crf")
        self.outputs: list[str] = []
        self.per_token: list[str] = []

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        batch = _Batch(dict(zip(self._names, values, strict=True)), [])
        output = self.model(**batch.inputs)
        found = {"logits": output.logits} if self._crf else self._task.collect(output, batch, self._settings)
        if not torch.onnx.is_in_onnx_export():
            self.outputs = list(found)
            self.per_token = list(found) if batch.seen else []
        return tuple(found.values())


class _OnnxCell(nn.Module):
    """A recurrent layer with the weights in ONNX's order; it exists in a graph alone."""

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.hidden_size, self._mode, self._directions = cell.hidden_size, cell.mode, 1 + cell.bidirectional
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            sides = [getattr(cell, f"{name}_l0{side}") for side in ("", "_reverse")[: self._directions]]
            self.register_buffer(name, torch.stack([self._ordered(side.detach()) for side in sides]))

    def _ordered(self, weight: Tensor) -> Tensor:
        gates = weight.chunk(len(_GATES[self._mode]))
        return torch.cat([gates[i] for i in _GATES[self._mode]])

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, E), (B,) -> (B, T, H of both directions), 0 past a row's length."""
        B, T, _ = features.shape
        attributes: dict[str, Any] = {
            "hidden_size": self.hidden_size,
            "direction": "bidirectional" if self._directions == 2 else "forward",
        }
        if self._mode == "GRU":
            attributes["linear_before_reset"] = 1
        weights = [self.get_buffer(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        states = torch.onnx.ops.symbolic(
            self._mode.partition("_")[0],
            (features.transpose(0, 1), *weights[:2], torch.cat(weights[2:], dim=1), lengths.int()),
            attributes,
            dtype=features.dtype,
            shape=(T, self._directions, B, self.hidden_size),
        )
        return states.permute(2, 0, 1, 3).flatten(2)


@dataclass(frozen=True)
class Graph:
    """An exported model."""

    onnx: bytes
    per_token: list[str]


def export(
    model: Any, task: Any, settings: Mapping[str, Any], rows: Rows, pad_token_id: int, *, pad_left: bool = False
) -> Graph:
    """A model as ONNX, in float32.

    Args:
        model: as `finetune.models.load_finetuned` gives it, padded. It is changed, and of no use afterwards.
        rows: at least two, of different lengths: the sample. Their columns are the inputs of the graph.

    Raises:
        ValueError: for a model that torch cannot export, or that one file cannot hold.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > _MOST_PARAMETERS:
        raise ValueError(f"a model of {parameters:,} parameters does not fit into one file of ONNX (2 GB)")
    model.eval().requires_grad_(False)
    with contextlib.suppress(ValueError, AttributeError):  # a model that has one kind of attention alone
        model.set_attn_implementation("eager")
    batch = padded(rows, pad_token_id, pad_left=pad_left, least=1)
    names = [name for name in batch if name not in _TARGETS]
    values = [torch.from_numpy(batch[name]) for name in names]
    kept = _Kept(model, task, settings, names)
    if hasattr(model, "crf"):  # the graph ends before the CRF, which `viterbi` decodes
        kept.outputs, per_token = ["logits"], ["labels", "scores", "logs"]
    else:
        with torch.no_grad():
            kept(*values)
        per_token = kept.per_token
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.RNNBase):
                setattr(parent, name, _OnnxCell(child))
    return Graph(_traced(kept, values, names), per_token)


def _traced(kept: _Kept, values: Sequence[Tensor], names: Sequence[str]) -> bytes:
    """The graph, without the places in the source, which are paths of this machine."""
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                kept,
                tuple(values),
                input_names=list(names),
                output_names=kept.outputs,
                dynamic_shapes=(tuple(dynamic for _ in names),),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch has a class for each kind of error
        told = next((line for line in str(error).splitlines() if line.startswith("<class ")), str(error))
        kind = getattr(getattr(kept.model, "config", None), "model_type", "model")
        raise ValueError(f"torch does not export this {kind}: {' '.join(told.split())[:300]}") from error
    finally:
        logging.disable(disabled)
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    found: bytes = proto.SerializeToString()
    return found


def disagreement(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> str | None:
    """How the answers of a graph differ from those of the model, in words; None if they do not.

    Numbers may differ by 0.0001, and labels where two are equally likely, which is rare.
    """
    for name, values in wanted.items():
        own = found[name]
        if own.shape != values.shape:
            return f"{name} has the shape {own.shape}, not {values.shape}"
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if (finite != np.isfinite(own)).any():
                return f"{name} is not finite in the same places"
            most = float(np.abs(own[finite] - values[finite]).max(initial=0.0))
            if most > _TOLERANCE * max(1.0, float(np.abs(values[finite]).max(initial=0.0))):
                return f"{name} differs by up to {most:.5f}"
        else:
            scores = [other for other in wanted.values() if other.dtype.kind == "f" and other.shape == values.shape]
            meant = (
                np.all([np.isfinite(other) for other in scores], axis=0) if scores else np.ones(values.shape, bool)
            )
            others = float((own != values)[meant].mean()) if meant.any() else 0.0
            if others > 0.01:
                return f"{others:.1%} of {name} are others"
    return None
