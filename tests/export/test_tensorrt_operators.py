"""Every exported graph keeps to operators that TensorRT 10.3, JetPack 6's, is documented to take.

TensorRT-RTX, which `make test-tensorrt` builds with, is newer than that. This table is the part that we use of
`docs/operators.md` of onnx/onnx-tensorrt for TensorRT 8.5 (commit 6d0ab7be324d02c7feb3a306b6fdbeae84f71ddc), the first
that names opset 17. Later ones lift restrictions and add operators, so it is on the safe side of 10.3.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from lineward.export.conversion import FLOAT16, FLOAT32, INT8
from lineward.export.similarity_graph import OPSET, similarity_graph
from lineward.runtime.manifest import Grid, Split
from tests.export.exported_graphs import exported_graph

F32, F16, I32, I8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT8
I64, U8 = TensorProto.INT64, TensorProto.UINT8  # int64 is brought to int32; uint8 is taken by Cast alone, since 8.5.1
FLOATS = {F32, F16}
SUPPORTED = {
    "Add": FLOATS | {I32, I64},
    "AveragePool": FLOATS | {I8, I32},
    "Cast": FLOATS | {I32, I64, I8, U8},
    "Clip": FLOATS | {I8},
    "Concat": FLOATS | {I32, I64, I8},
    "Constant": FLOATS | {I32, I64, I8},
    "Conv": FLOATS | {I8},
    "DequantizeLinear": {I8},
    "Div": FLOATS | {I32, I64},
    "Gather": FLOATS | {I8, I32, I64},
    "Gemm": FLOATS | {I8},
    "MatMul": FLOATS,
    "Max": FLOATS | {I32, I64},
    "Mul": FLOATS | {I32, I64},
    "QuantizeLinear": FLOATS,
    "ReduceMax": FLOATS,
    "ReduceSum": FLOATS,
    "Reshape": FLOATS | {I32, I64, I8},
    "Resize": FLOATS,
    "Shape": FLOATS | {I32, I64, I8},
    "Slice": FLOATS | {I32, I64, I8},
    "Sqrt": FLOATS,
    "Sub": FLOATS | {I32, I64},
    "Transpose": FLOATS | {I32, I64, I8},
    "Unsqueeze": FLOATS | {I32, I64, I8},
}
"""Operator: types of its first input."""
RESIZE = {
    "coordinate_transformation_mode": {
        b"half_pixel",
        b"pytorch_half_pixel",
        b"tf_half_pixel_for_nn",
        b"asymmetric",
        b"align_corners",
    },
    "mode": {b"nearest", b"linear"},
    "nearest_mode": {b"floor", b"ceil", b"round_prefer_floor", b"round_prefer_ceil"},
}


def offences(model: onnx.ModelProto) -> list[str]:
    """What TensorRT 8.5 does not say that it takes."""
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if not tensor.external_data}
    constants |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    given = {tensor.name for tensor in graph.initializer} | constants.keys()
    infos = (*graph.input, *graph.output, *graph.value_info)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    found = [] if versions == {"": OPSET} and OPSET <= 17 else [f"opsets {versions}"]
    for node in graph.node:
        if node.op_type not in SUPPORTED or node.domain:
            found.append(f"{node.op_type}: not in the table")
        elif node.input and types.get(node.input[0]) not in SUPPORTED[node.op_type]:
            found.append(f"{node.op_type}: {node.input[0]} of type {types.get(node.input[0])}")
        found += restricted(node, constants, given)
    return found


def restricted(node: onnx.NodeProto, constants: dict[str, np.ndarray], given: set[str]) -> Iterable[str]:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Resize":
        for name, allowed in RESIZE.items():
            if name == "nearest_mode" and attributes.get("mode") != b"nearest":
                continue
            if name in attributes and attributes[name] not in allowed:
                yield f"Resize: {name} {attributes[name]!r}"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        if not {node.input[1], node.input[2]} <= constants.keys():
            yield f"{node.op_type}: a scale or zero point that is computed"
        elif constants[node.input[2]].any() or constants[node.input[2]].dtype != np.int8:
            yield f"{node.op_type}: zero point is not an int8 of 0"
        elif not (constants[node.input[1]] > 0).all():
            yield f"{node.op_type}: a scale of 0 or less"
    if node.op_type == "AveragePool" and len(attributes["kernel_shape"]) not in (2, 3):
        yield "AveragePool: neither 2D nor 3D"
    needed = {"Slice": node.input[3:4], "Unsqueeze": node.input[1:2]}.get(node.op_type, ())
    yield from (f"{node.op_type}: axes are computed" for name in needed if name not in given)


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16, INT8])
def test_the_embedding_graph_keeps_to_the_table(precision: str) -> None:
    assert offences(onnx.load_from_string(exported_graph(precision, size=64))) == []


@pytest.mark.parametrize("split", [None, Split(10, 2)], ids=["plain", "split"])
def test_the_similarity_graph_keeps_to_the_table(split: Split | None) -> None:
    model = onnx.load_from_string(similarity_graph(Grid(8, 8, 16, split), 64, 128))
    for tensor in model.graph.initializer:  # the bank's own bytes lie in another file
        if tensor.data_location == TensorProto.EXTERNAL:
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = np.zeros(tuple(tensor.dims), np.float32).tobytes()
    assert offences(model) == []


def small(node: onnx.NodeProto, zero: int = 0) -> onnx.ModelProto:
    weights = [
        numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        numpy_helper.from_array(np.array(zero, np.int8), "zero"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "sizes"),
    ]
    kind = TensorProto.INT8 if node.op_type == "QuantizeLinear" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", kind, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


@pytest.mark.parametrize(
    ("node", "zero", "told"),
    [
        (helper.make_node("Resize", ["x", "", "sizes"], ["y"], mode="cubic"), 0, "Resize: mode b'cubic'"),
        (helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"]), 3, "zero point is not an int8 of 0"),
        (helper.make_node("HardSwish", ["x"], ["y"]), 0, "HardSwish: not in the table"),
    ],
    ids=["cubic", "zero point", "operator"],
)
def test_what_is_not_in_the_table_is_found(node: onnx.NodeProto, zero: int, told: str) -> None:
    assert any(told in offence for offence in offences(small(node, zero)))
