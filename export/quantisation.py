"""INT8 by explicit Q/DQ: which convolutions take it, at what scale, and the graph that says so.

Symmetric, zero point 0, weights per output channel and activations per tensor, each scale the greatest absolute value
over 127: what TensorRT 10 and 11 take as it is, and what onnxruntime computes too. A few layers near the image cost
most; they stay float32. Biases do, and whatever is no convolution of the backbone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lineward.export.statistics import Lift, Whitening
from lineward.runtime.engines.onnxruntime import open_session, session_options
from lineward.runtime.errors import TrainingError

RANGE_IMAGES = 32
"""Images that the ranges of activations are taken from."""
COST_IMAGES = 4
"""Images that the cost of each layer is measured on."""
ERROR = 0.002
"""Layers stay float32, the costliest first, until what the others cost adds up to this."""

_LEVELS = 127
_SMALLEST = 1e-12
Images = NDArray[np.uint8]
Array = NDArray[np.float32]
Features = Callable[[Images], Array]
"""From images, uint8 [N, height, width, 3], to fused features, float32 [N, patches, channels]."""


@dataclass(frozen=True)
class Layer:
    """A convolution.

    Attributes:
        name: of its node.
        weight_sha256: of its weights, by which it is known in any graph that holds it.
        scale: of its input.
        cost: what quantising it alone does: see `Calibration`.
    """

    name: str
    weight_sha256: str
    scale: float
    cost: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Which convolutions of a backbone take INT8, and at what scales.

    Attributes:
        layers: all of them, the costliest first. A layer's cost is the mean of |dy|^2 / 2 |u|^2 over patches, dy the
            change of the whitened features and u the lifted ones: for small changes, 1 less the cosine of embeddings.
        float32: how many of them stay float32.
    """

    layers: tuple[Layer, ...]
    float32: int

    def quantise(self, graph: bytes) -> bytes:
        """A graph that holds these convolutions, in float32, with those in INT8 that take it."""
        return quantise(graph, self.layers[self.float32 :])


def calibrate(
    graph: bytes, images: Images, whitening: Whitening, lift: Lift, progress: Callable[[int], None] = lambda _: None
) -> Calibration:
    """Find the scales and what each layer costs, and decide which stay float32.

    Args:
        graph: from images to fused features, in float32: `FeatureGraph` as ONNX.
        images: preprocessed good images, uint8 [N, height, width, 3].
        whitening: of the features.
        lift: of the whitened features.
        progress: told of the layers measured.

    Raises:
        TrainingError: there is no convolution, or an activation is no finite number.
    """
    layers = _layers(graph, spread(images, RANGE_IMAGES))
    few = spread(images, COST_IMAGES)
    exact = _whitened(graph, few, whitening)
    squared = (exact.astype(np.float64) ** 2).sum(1) + lift.constant**2
    costed = []
    for layer in layers:
        changed = _whitened(quantise(graph, [layer]), few, whitening)
        cost = float(np.mean(((changed - exact).astype(np.float64) ** 2).sum(1) / (2 * squared)))
        costed.append(Layer(layer.name, layer.weight_sha256, layer.scale, cost))
        progress(len(costed))
    costed.sort(key=lambda layer: (-layer.cost, layer.name))
    rest = np.cumsum([layer.cost for layer in reversed(costed)])[::-1]  # of each layer and all cheaper ones
    return Calibration(tuple(costed), int((rest > ERROR).sum()))


def quantise(graph: bytes, layers: Iterable[Layer]) -> bytes:
    """The graph with some of its convolutions in INT8; weights become int8, so the file shrinks.

    Args:
        graph: ONNX in float32.
        layers: those that take INT8; ones that the graph does not hold are passed over.
    """
    model = onnx.load_from_string(graph)
    _Quantiser(model, {layer.weight_sha256: layer for layer in layers}).rewrite()
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def convolutions(graph: bytes) -> int:
    """How many convolutions with constant weights a graph has."""
    model = onnx.load_from_string(graph)
    weights = _weights(model)
    return sum(bool(_weight_sha256(node, weights)) for node in model.graph.node)


def features_of(graph: bytes) -> Features:
    """What a graph from images to features computes."""
    session = open_session(graph, session_options())

    def read(images: Images) -> Array:
        features: Array = session.run(None, {"images": images})[0]
        return features

    return read


def spread(images: Images, count: int) -> Images:
    """Some of the images, evenly spread over all, uint8 [count or fewer, height, width, 3]."""
    return np.asarray(images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)])


class _Quantiser:
    """Rewrites a graph's nodes in order, adding Q/DQ before the inputs of convolutions."""

    def __init__(self, model: ModelProto, layers: Mapping[str, Layer]) -> None:
        self._graph = model.graph
        self._layers = layers
        self._weights = _weights(model)
        self._quantised: dict[str, str] = {}
        self._nodes: list[NodeProto] = []
        self._initializers = list(model.graph.initializer)

    def rewrite(self) -> None:
        for node in self._graph.node:
            layer = self._layers.get(_weight_sha256(node, self._weights))
            if layer is not None:
                node.input[0] = self._activation(node.input[0], layer.scale)
                node.input[1] = self._weight(node.input[1])
            self._nodes.append(node)
        used = {name for node in self._nodes for name in node.input}
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(tensor for tensor in self._initializers if tensor.name in used)

    def _activation(self, name: str, scale: float) -> str:
        """Name of the tensor after Q/DQ, which all its readers share."""
        if name not in self._quantised:
            ends = [f"{name}_scale", f"{name}_zero"]
            self._add(np.array(scale, np.float32), ends[0])
            self._add(np.array(0, np.int8), ends[1])
            self._node("QuantizeLinear", [name, *ends], f"{name}_int8")
            self._quantised[name] = self._node("DequantizeLinear", [f"{name}_int8", *ends], f"{name}_rounded")
        return self._quantised[name]

    def _weight(self, name: str) -> str:
        if name not in self._quantised:
            weight = self._weights[name]
            scale = np.maximum(np.abs(weight).reshape(len(weight), -1).max(1), _SMALLEST) / _LEVELS
            levels = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
            inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
            for value, end in zip(
                (levels, scale.astype(np.float32), np.zeros(len(scale), np.int8)), inputs, strict=True
            ):
                self._add(value, end)
            self._quantised[name] = self._node("DequantizeLinear", inputs, f"{name}_rounded", axis=0)
        return self._quantised[name]

    def _add(self, value: NDArray[np.float32] | NDArray[np.int8], name: str) -> None:
        self._initializers.append(numpy_helper.from_array(value, name))

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output


def _layers(graph: bytes, images: Images) -> list[Layer]:
    """Every convolution with constant weights, and the scale of its input."""
    model = onnx.load_from_string(graph)
    weights = _weights(model)
    convolutions = [node for node in model.graph.node if _weight_sha256(node, weights)]
    if not convolutions:
        raise TrainingError("the backbone has no convolutions to quantise", do="ship it in float16 or float32")
    greatest = _greatest(model, sorted({node.input[0] for node in convolutions}), images)
    for name, value in greatest.items():
        if not np.isfinite(value):
            raise TrainingError(
                f"{name}: the backbone's activations reach {value}", do="check the weights of the backbone"
            )
    return [
        Layer(node.name, _weight_sha256(node, weights), max(greatest[node.input[0]], _SMALLEST) / _LEVELS)
        for node in convolutions
    ]


def _greatest(model: ModelProto, names: list[str], images: Images) -> dict[str, float]:
    """Greatest absolute values of tensors."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = open_session(tapped.SerializeToString(), session_options())
    greatest = np.zeros(len(names))
    for image in images:
        values = session.run(names, {"images": image[np.newaxis]})
        greatest = np.maximum(greatest, [np.abs(value).max() for value in values])
    return dict(zip(names, greatest.tolist(), strict=True))


def _whitened(graph: bytes, images: Images, whitening: Whitening) -> Array:
    """Whitened features of all patches, float32 [images * patches, dimensions]."""
    read = features_of(graph)
    return np.concatenate([whitening.apply(read(image[np.newaxis])[0]) for image in images])


def _weights(model: ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _weight_sha256(node: NodeProto, weights: Mapping[str, Array]) -> str:
    """What a convolution is known by; empty for any other node."""
    if node.op_type != "Conv" or node.input[1] not in weights:
        return ""
    return hashlib.sha256(np.ascontiguousarray(weights[node.input[1]]).tobytes()).hexdigest()
