"""An embedding graph in lower precisions, as the benchmarks and the checks with TensorRT-RTX need it.

The INT8 here is onnxruntime's own static quantisation, plainly applied: a graph to try parsers and engines on, not
the calibration that a product would ship.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from lineward.export.precision import to_float16

_SPLIT = np.array((1 << 13) + 1, np.float32)
"""Veltkamp's constant (Dekker, Numer. Math. 18, 1971): float32 has 24 significant bits, float16 has 11."""


def float16(graph: bytes) -> bytes:
    """The graph cast to float16; see `to_float16`."""
    return bytes(to_float16(onnx.load_from_string(graph)).SerializeToString(deterministic=True))


def rounded_to_float16(graph: bytes) -> bytes:
    """A float32 graph that computes what the float16 one would if every node rounded its result to float16.

    onnxruntime's CPU computes float16 nodes in float32 and does not round between them, so the cast graph alone shows
    what rounded weights do, not what rounded activations do. Here each activation is rounded to the eleven significant
    bits of float16 by arithmetic: t = s x, hi = t - (t - x). Overflow is not modelled.
    """
    model = shape_inference.infer_shapes(to_float16(onnx.load_from_string(graph)))
    half = {i.name for i in model.graph.value_info if i.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = [replaced for node in model.graph.node for replaced in _rounded(node, half)]
    weights = [_widened(weight) for weight in model.graph.initializer]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*weights, numpy_helper.from_array(_SPLIT, "split")])
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def plain_qdq(graph: bytes, images: NDArray[np.uint8]) -> bytes:
    """Convolutions in INT8: symmetric Q/DQ, weights per channel, activations between the least and greatest seen.

    Args:
        graph: an embedding graph in float32.
        images: to calibrate on, uint8 [N, height, width, 3].
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "float32.onnx", Path(scratch) / "int8.onnx"
        source.write_bytes(graph)
        quantize_static(
            source,
            target,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        return target.read_bytes()


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Hands images out one by one."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._rest: Iterator[Any] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next image as the graph's input; None after the last."""
        image = next(self._rest, None)
        return None if image is None else {"images": image[np.newaxis]}


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
        helper.make_node("Sub", [f"{rounded}_scaled", f"{rounded}_rest"], [rounded]),
    ]


def _widened(weight: TensorProto) -> TensorProto:
    if weight.data_type != TensorProto.FLOAT16:
        return weight
    return numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name)
