"""Small graphs with every kind of operator that the embedding graph has, for tests that need no backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
CHANNELS = 33
PATCHES = 64


class GraphWriter:
    """Adds nodes and weights one after the other; every call returns the name of what it made."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def conv(self, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, group: int = 1) -> str:
        before, after = channels
        shape = (after, before // group, kernel, kernel)
        weight = self.random.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        bias = self.random.normal(0, 0.1, after)
        pad = kernel // 2
        return self.node(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            strides=[stride] * 2,
            pads=[pad] * 4,
            group=group,
        )

    def relu6(self, x: str) -> str:
        return self.node("Clip", x, self.constant(0), self.constant(6))

    def separable(self, x: str, channels: tuple[int, int], stride: int) -> str:
        before, _ = channels
        depthwise = self.relu6(self.conv(x, (before, before), 3, stride, group=before))
        return self.relu6(self.conv(depthwise, channels, 1))

    def pooled(self, x: str) -> str:
        return self.node("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1], count_include_pad=0)

    def upsampled(self, x: str) -> str:
        return self.node(
            "Resize",
            x,
            "",
            self.constant([1, 1, 2, 2]),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def whitened_and_lifted(self, x: str, channels: int, lift: float) -> str:
        """A 1x1 convolution whose last output channel is the constant `lift`."""
        weight = self.random.normal(0, channels**-0.5, (CHANNELS, channels, 1, 1))
        bias = self.random.normal(0, 0.1, CHANNELS)
        weight[-1], bias[-1] = 0, lift
        return self.node("Conv", x, self.constant(weight), self.constant(bias))

    def unit_rows(self, x: str) -> str:
        """[N, C, h, w] to unit rows [N, h * w, C]."""
        norm = self.node("ReduceL2", x, axes=[1], keepdims=1)
        unit = self.node("Div", x, norm)
        rows = self.node("Reshape", unit, self.constant([0, CHANNELS, -1], np.int64))
        return self.node("Transpose", rows, output="embeddings", perm=[0, 2, 1])

    def model(self, shape: Sequence[int | str | None] = ("N", PATCHES, CHANNELS), **frames: Any) -> onnx.ModelProto:
        return finished(self, [("embeddings", TensorProto.FLOAT, shape)], **frames)


def finished(
    writer: GraphWriter,
    outputs: Sequence[tuple[str, int, Sequence[int | str | None] | None]],
    frames: Sequence[int | str] = ("N", SIDE, SIDE, 3),
    frame_type: int = TensorProto.UINT8,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        writer.nodes,
        "embedding",
        [helper.make_tensor_value_info("images", frame_type, frames)],
        [helper.make_tensor_value_info(*output) for output in outputs],
        writer.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def pixels(writer: GraphWriter) -> str:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1]."""
    real = writer.node("Cast", "images", to=TensorProto.FLOAT)
    scaled = writer.node("Mul", real, writer.constant(1 / 127.5))
    centred = writer.node("Sub", scaled, writer.constant(1))
    return writer.node("Transpose", centred, perm=[0, 3, 1, 2])


def embedding_graph(seed: int = 0) -> onnx.ModelProto:
    """uint8 [N, 64, 64, 3] to unit rows float32 [N, 64, 33]: two levels, whitening, lift, unit length."""
    writer = GraphWriter(seed)
    stem = writer.relu6(writer.conv(pixels(writer), (3, 16), 3, stride=2))
    fine = writer.separable(writer.separable(stem, (16, 16), 2), (16, 24), 2)
    fine = writer.node("Add", fine, writer.conv(fine, (24, 24), 1))
    coarse = writer.separable(fine, (24, 40), 2)
    fused = writer.node("Concat", writer.pooled(fine), writer.upsampled(writer.pooled(coarse)), axis=1)
    writer.unit_rows(writer.whitened_and_lifted(fused, 64, lift=2.0))
    return writer.model()


def quantised_graph(zero_point: int = 0) -> onnx.ModelProto:
    """The embedding graph with explicit Q/DQ around every convolution but the whitening."""
    model = embedding_graph()
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"][:-1]
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node in convolutions:
            nodes += _quantised(node, weights, zero_point)
        nodes.append(node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def _quantised(conv: onnx.NodeProto, weights: dict[str, NDArray[Any]], zero_point: int) -> list[onnx.NodeProto]:
    """Rewires one convolution to read Q/DQ activations and int8 weights; gives the nodes that precede it."""
    x, w = conv.input[0], conv.input[1]
    kernel = weights.pop(w)
    scale = np.abs(kernel).max(axis=(1, 2, 3)) / 127
    weights[f"{w}_int8"] = np.round(kernel / scale[:, None, None, None]).astype(np.int8)
    weights[f"{w}_scale"] = scale.astype(np.float32)
    weights[f"{w}_zero"] = np.zeros(len(scale), np.int8)
    weights[f"{x}_{w}_scale"] = np.float32(6 / 127)
    weights[f"{x}_{w}_zero"] = np.int8(zero_point)
    of_x, of_w = [f"{x}_{w}_scale", f"{x}_{w}_zero"], [f"{w}_scale", f"{w}_zero"]
    conv.input[0], conv.input[1] = f"{x}_{w}_real", f"{w}_real"
    return [
        helper.make_node("QuantizeLinear", [x, *of_x], [f"{x}_{w}_int8"], name=f"quantise_{conv.name}"),
        helper.make_node("DequantizeLinear", [f"{x}_{w}_int8", *of_x], [f"{x}_{w}_real"], name=f"real_{conv.name}"),
        helper.make_node("DequantizeLinear", [f"{w}_int8", *of_w], [f"{w}_real"], name=f"weight_{conv.name}", axis=0),
    ]


def wide_graph() -> onnx.ModelProto:
    """Like the embedding graph, but weights make up nearly all of it."""
    writer = GraphWriter()
    wide = writer.conv(writer.conv(pixels(writer), (3, 256), 3, stride=8), (256, 256), 3)
    writer.unit_rows(writer.whitened_and_lifted(wide, 256, lift=2.0))
    return writer.model()
