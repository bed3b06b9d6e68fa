"""What a float16 device gives, computed in float32: rounding, and overflow."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from lineward.export.float16_rounding import greatest_activations, rounded_to_float16
from tests import embedding_graphs as graphs


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, graphs.SIDE, graphs.SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def float32():
    return graphs.embedding_graph().SerializeToString()


def run(graph, images, *outputs):
    model = onnx.load_from_string(graph)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def scaled(factor):
    """Features times a factor before the last product: (graph, name of the product's node)."""
    writer = graphs.GraphWriter()
    x = writer.conv(graphs.pixels(writer), (3, 8), 3, stride=8)
    x = writer.node("Mul", x, writer.constant(factor))
    writer.unit_rows(writer.whitened_and_lifted(x, 8, lift=2.0))
    return writer.model().SerializeToString()


def test_no_float16_is_left_and_every_activation_is_rounded_to_it(float32, images):
    rounded = onnx.load_from_string(rounded_to_float16(float32))
    assert all(weight.data_type != TensorProto.FLOAT16 for weight in rounded.graph.initializer)
    assert not any(a.i == TensorProto.FLOAT16 for n in rounded.graph.node if n.op_type == "Cast" for a in n.attribute)
    outputs = [n.output[0] for n in rounded.graph.node if n.op_type == "Conv"]
    convolutions = [name.removesuffix("_exact") for name in outputs if name.endswith("_exact")]
    assert len(convolutions) == len(outputs) - 1  # all but the whitening
    for value in run(rounded.SerializeToString(), images, *convolutions)[1:]:
        large = value[np.abs(value) > 1e-4]  # below lie float16's subnormal numbers
        np.testing.assert_array_equal(large, large.astype(np.float16).astype(np.float32))


def test_embeddings_stay_close_but_not_equal(float32, images):
    (before,), (after,) = run(float32, images), run(rounded_to_float16(float32), images)
    assert np.abs(before - after).max() > 0
    assert (1 - (before * after).sum(axis=-1)).max() < 1e-4


def test_it_overflows_exactly_where_float16_does(images):
    exact = dict(greatest_activations(scaled(1.0), images))
    (product,) = (name for name in exact if "Mul" in name)
    within, beyond = 65_000 / exact[product], 66_000 / exact[product]
    assert np.isfinite(run(rounded_to_float16(scaled(within)), images)[0]).all()
    assert not np.isfinite(run(rounded_to_float16(scaled(beyond)), images)[0]).all()
    assert dict(greatest_activations(scaled(within), images))[product] == pytest.approx(65_000, rel=2e-3)
    assert greatest_activations(scaled(beyond), images)[0] == (product, np.inf)


def test_the_greatest_comes_first(float32, images):
    values = [value for _, value in greatest_activations(float32, images)]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
