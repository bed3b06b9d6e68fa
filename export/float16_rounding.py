"""What a device that computes in float16 gives, computed in float32 and rounded.

onnxruntime's CPU computes float16 nodes in float32 and does not round between them, so the cast graph alone shows what
rounded weights do, not what rounded activations do, nor that one overflows.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from lineward.export.precision import to_float16
from lineward.runtime.engines.onnxruntime import open_session, session_options

_SPLIT = np.array((1 << 13) + 1, np.float32)
"""Veltkamp's constant (Dekker, Numer. Math. 18, 1971): float32 has 24 significant bits, float16 has 11."""
_BEYOND = np.array(2.0**112, np.float32)
"""Takes what rounds to 65,536 or more, and nothing else that float16 holds, beyond float32."""


def rounded_to_float16(graph: bytes) -> bytes:
    """A float32 graph that computes what the float16 one would if every node rounded its result to float16.

    Each activation is rounded to the eleven significant bits of float16 by arithmetic, t = s x, hi = t - (t - x), and
    becomes infinite beyond 65,504. Numbers below 6e-5, which float16 holds with fewer bits, keep all eleven.

    Args:
        graph: an embedding graph in float32.

    Raises:
        EngineError: as `to_float16`.
    """
    return bytes(_rounded_model(graph)[0].SerializeToString(deterministic=True))


def greatest_activations(graph: bytes, images: NDArray[np.uint8]) -> list[tuple[str, float]]:
    """The nodes that float16 would hold, with their greatest absolute value on some images, greatest first.

    Args:
        graph: an embedding graph in float32.
        images: uint8 [N, height, width, 3].

    Returns:
        Names of nodes and infinity where float16 overflows.
    """
    model, half = _rounded_model(graph)
    made_by = {name: node.name for node in onnx.load_from_string(graph).graph.node for name in node.output}
    names = [name for name in half if name in made_by]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = open_session(model.SerializeToString(), session_options())
    greatest = np.zeros(len(names))
    for image in images:
        values = session.run(names, {"images": image[np.newaxis]})
        # NaN comes of an infinity before it, and is as bad.
        greatest = np.maximum(greatest, [np.nan_to_num(np.abs(v).max(), nan=np.inf, posinf=np.inf) for v in values])
    order = np.argsort(-greatest, kind="stable")
    return [(made_by[names[i]], float(greatest[i])) for i in order]


def _rounded_model(graph: bytes) -> tuple[ModelProto, list[str]]:
    """The model, and the tensors that float16 would hold."""
    model = shape_inference.infer_shapes(to_float16(onnx.load_from_string(graph)))
    half = [i.name for i in model.graph.value_info if i.type.tensor_type.elem_type == TensorProto.FLOAT16]
    nodes = [replaced for node in model.graph.node for replaced in _rounded(node, set(half))]
    weights = [_widened(weight) for weight in model.graph.initializer]
    constants = {"split": _SPLIT, "beyond": _BEYOND, "back": np.float32(1) / _BEYOND}
    weights += [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    onnx.checker.check_model(model, full_check=True)
    return model, half


def _rounded(node: NodeProto, half: set[str]) -> list[NodeProto]:
    """The node in float32, and after it the rounding of what the float16 graph would hold in float16."""
    if node.op_type == "Cast":
        to = next(a.i for a in node.attribute if a.name == "to")
        if to == TensorProto.FLOAT and node.input[0] in half:
            return [helper.make_node("Identity", node.input, node.output)]
        if to == TensorProto.FLOAT16:
            return _rounding(node.input[0], node.output[0])
    copy = NodeProto()
    copy.CopyFrom(node)
    after = []
    for index, name in enumerate(node.output):
        if name in half:
            copy.output[index] = f"{name}_exact"
            after += _rounding(copy.output[index], name)
    return [copy, *after]


def _rounding(value: str, rounded: str) -> list[NodeProto]:
    return [
        helper.make_node("Mul", [value, "split"], [f"{rounded}_scaled"]),
        helper.make_node("Sub", [f"{rounded}_scaled", value], [f"{rounded}_rest"]),
        helper.make_node("Sub", [f"{rounded}_scaled", f"{rounded}_rest"], [f"{rounded}_short"]),
        helper.make_node("Mul", [f"{rounded}_short", "beyond"], [f"{rounded}_beyond"]),
        helper.make_node("Mul", [f"{rounded}_beyond", "back"], [rounded]),
    ]


def _widened(weight: TensorProto) -> TensorProto:
    if weight.data_type != TensorProto.FLOAT16:
        return weight
    return numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name)
