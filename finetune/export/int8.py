"""Int8: products with weights and tables of embeddings in whole numbers of 8 bits.

Weights have a scale for each column, inputs a scale for each token, which is found when the model runs. So what a
model says of a text does not depend on the other texts of its batch, as it does where a batch has one scale. Measured
once, with MiniLM on the test split of WNUT-17: one scale for each batch
(`onnxruntime.quantization.quantize_dynamic`) took 16 % less time and changed 79 labels of 23,394 instead of 32.
Scales from a calibration sample (`quantize_static`) took 7 % less time and changed 258.

Shapes: I inputs of a product, O outputs.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

_LEAST_ROWS = 256  # of a table of embeddings that is worth it


def quantized(onnx_model: bytes, in_float: Collection[str] = ()) -> bytes:
    """A graph of ONNX in int8.

    Args:
        in_float: names of products that stay as they are.

    Raises:
        ValueError: if nothing of the graph can be in int8.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(onnx_model)
    graph = model.graph
    floats = {own.name: own for own in graph.initializer if own.data_type == onnx.TensorProto.FLOAT}
    added: dict[str, Any] = {}

    def constant(name: str, value: Any, dtype: Any) -> str:
        added[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    nodes: list[Any] = []
    scaled: set[str] = set()
    changed = 0
    for node in graph.node:
        weight = floats.get(node.input[1]) if _is_product(node) else None
        table = floats.get(node.input[0]) if node.op_type == "Gather" else None
        if weight is not None and len(weight.dims) == 2 and node.name not in in_float:
            x, y = node.input[0], node.output[0]
            if x not in scaled:
                scaled.add(x)
                nodes += _scaled(helper, constant, x)
            whole, scale = _whole(numpy_helper.to_array(weight), axis=0)
            inputs = [
                f"{x}/int8",
                constant(f"{weight.name}/int8", whole, np.int8),
                constant("int8/step", 1 / 127, np.float32),
                constant(f"{weight.name}/scale", scale[0], np.float32),
                constant("int8/zero", 128, np.uint8),
            ]
            product = ("MatMulIntegerToFloat", inputs, [f"{y}/scaled"])
            nodes.append(helper.make_node(*product, name=f"{node.name}/int8", domain="com.microsoft"))
            nodes.append(helper.make_node("Mul", [f"{y}/scaled", f"{x}/greatest"], [y], name=f"{node.name}/scale"))
        elif table is not None and len(table.dims) == 2 and table.dims[0] >= _LEAST_ROWS:
            whole, scale = _whole(numpy_helper.to_array(table), axis=1)
            y, ids = node.output[0], node.input[1]
            parts = (
                constant(f"{table.name}/int8", whole, np.int8),
                constant(f"{table.name}/scale", scale, np.float32),
            )
            for part, name in zip(parts, ("rows", "scale"), strict=True):
                nodes.append(helper.make_node("Gather", [part, ids], [f"{y}/{name}"], name=f"{node.name}/{name}"))
            nodes.append(helper.make_node("Cast", [f"{y}/rows"], [f"{y}/float"], name=f"{node.name}/cast", to=1))
            nodes.append(helper.make_node("Mul", [f"{y}/float", f"{y}/scale"], [y], name=f"{node.name}/mul"))
        else:
            nodes.append(node)
            continue
        changed += 1
    if not changed:
        raise ValueError("--precision int8: nothing of this model can be in int8; give --precision float32")
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(added.values())
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [own for own in graph.initializer if own.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if all(own.domain != "com.microsoft" for own in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found: bytes = model.SerializeToString()
    return found


def products(onnx_model: bytes) -> list[str]:
    """The names of the products that can be in int8."""
    import onnx

    graph = onnx.load_from_string(onnx_model).graph
    weights = {own.name for own in graph.initializer if len(own.dims) == 2}
    return [node.name for node in graph.node if _is_product(node) and node.input[1] in weights]


def _is_product(node: Any) -> bool:
    return bool(node.op_type == "MatMul")


def _scaled(helper: Any, constant: Any, x: str) -> Iterator[Any]:
    """The nodes that divide each token's inputs by the greatest of them, and round them."""
    yield helper.make_node("Abs", [x], [f"{x}/size"], name=f"{x}/abs")
    axis = constant("int8/axis", [-1], np.int64)
    yield helper.make_node("ReduceMax", [f"{x}/size", axis], [f"{x}/most"], name=f"{x}/reduce", keepdims=1)
    least = constant("int8/least", 1e-9, np.float32)
    yield helper.make_node("Max", [f"{x}/most", least], [f"{x}/greatest"], name=f"{x}/max")
    yield helper.make_node("Div", [x, f"{x}/greatest"], [f"{x}/share"], name=f"{x}/div")
    step, zero = constant("int8/step", 1 / 127, np.float32), constant("int8/zero", 128, np.uint8)
    yield helper.make_node("QuantizeLinear", [f"{x}/share", step, zero], [f"{x}/int8"], name=f"{x}/quantize")


def _whole(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers from -127 to 127, and the scales along an axis that make weights of them again."""
    scale = np.maximum(np.abs(weights).max(axis, keepdims=True), 1e-9) / 127
    return np.round(weights / scale).astype(np.int8), scale.astype(np.float32)
