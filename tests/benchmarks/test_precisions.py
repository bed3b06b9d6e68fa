from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from benchmarks.precisions import float16, plain_qdq, rounded_to_float16
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


def test_rounding_leaves_no_float16_and_rounds_every_activation_to_it(float32, images):
    rounded = onnx.load_from_string(rounded_to_float16(float32))
    assert all(weight.data_type != TensorProto.FLOAT16 for weight in rounded.graph.initializer)
    assert not any(a.i == TensorProto.FLOAT16 for n in rounded.graph.node if n.op_type == "Cast" for a in n.attribute)
    outputs = [n.output[0] for n in rounded.graph.node if n.op_type == "Conv"]
    convolutions = [name.removesuffix("_exact") for name in outputs if name.endswith("_exact")]
    assert len(convolutions) == len(outputs) - 1  # all but the whitening
    for value in run(rounded.SerializeToString(), images, *convolutions)[1:]:
        large = value[np.abs(value) > 1e-4]  # below lie float16's subnormal numbers
        np.testing.assert_array_equal(large, large.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "allowed"),
    [(lambda g, _: float16(g), 1e-4), (lambda g, _: rounded_to_float16(g), 1e-4), (plain_qdq, 0.05)],
    ids=["float16", "rounded", "int8"],
)
def test_embeddings_stay_close_but_not_equal(change, allowed, float32, images):
    (before,), (after,) = run(float32, images), run(change(float32, images), images)
    apart = 1 - (before * after).sum(axis=-1)
    assert np.abs(before - after).max() > 0
    assert apart.max() < allowed


def test_int8_is_symmetric(float32, images):
    model = onnx.load_from_string(plain_qdq(float32, images))
    points = {name for n in model.graph.node if n.op_type == "QuantizeLinear" for name in n.input[2:]}
    zeros = [onnx.numpy_helper.to_array(w) for w in model.graph.initializer if w.name in points]
    assert zeros
    assert all(z.dtype == np.int8 and not z.any() for z in zeros)
