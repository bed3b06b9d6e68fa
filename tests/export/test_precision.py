"""The float16 cast: what becomes half, what stays, and how far the embeddings move."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from lineward.export.precision import float16_body, to_float16
from lineward.runtime.errors import EngineError
from tests import embedding_graphs as graphs


def run(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def images(seed: int, count: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, graphs.SIDE, graphs.SIDE, 3), dtype=np.uint8)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, weights too."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    infos = (*inferred.input, *inferred.output, *inferred.value_info)
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return weights | {info.name: info.type.tensor_type.elem_type for info in infos}


@settings(deadline=None, max_examples=15)
@given(weights=st.integers(0, 1000), pixels=st.integers(0, 1000))
def test_embeddings_stay_unit_rows_and_move_little(weights: int, pixels: int) -> None:
    model, frames = graphs.embedding_graph(weights), images(pixels)
    exact, cast = run(model, frames), run(to_float16(model), frames)
    assert cast.dtype == np.float32
    assert cast.shape == exact.shape == (2, graphs.PATCHES, graphs.CHANNELS)
    np.testing.assert_allclose(np.linalg.norm(cast, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(cast, exact, atol=1e-3)
    assert not np.array_equal(cast, exact)


def test_inputs_outputs_and_versions_stay() -> None:
    model = graphs.embedding_graph()
    cast = to_float16(model)
    assert list(cast.graph.input) == list(model.graph.input)
    assert list(cast.graph.output) == list(model.graph.output)
    assert list(cast.opset_import) == list(model.opset_import)
    assert cast.ir_version == model.ir_version


def test_every_product_but_the_last_is_half() -> None:
    cast = to_float16(graphs.embedding_graph())
    of = types(cast)
    convolutions = [node for node in cast.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 9
    for node in convolutions[:-1]:
        assert {of[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    assert {of[name] for name in (*convolutions[-1].input, *convolutions[-1].output)} == {TensorProto.FLOAT}


def test_pixels_whitening_and_unit_length_stay_float32() -> None:
    cast = to_float16(graphs.embedding_graph())
    of = types(cast)
    for node in cast.graph.node:
        if node.op_type in ("Mul", "Sub", "ReduceL2", "Div"):
            assert {of[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}, node.name


def test_one_cast_into_half_and_one_out() -> None:
    cast = to_float16(graphs.embedding_graph())
    casts = [node.attribute[0].i for node in cast.graph.node if node.op_type == "Cast"]
    assert casts == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT]


def test_no_weight_is_kept_twice_and_shape_arguments_keep_their_type() -> None:
    cast = to_float16(graphs.embedding_graph())
    used = {name for node in cast.graph.node for name in node.input}
    of = types(cast)
    assert {tensor.name for tensor in cast.graph.initializer} <= used
    (resize,) = (node for node in cast.graph.node if node.op_type == "Resize")
    assert of[resize.input[0]] == TensorProto.FLOAT16
    assert of[resize.input[2]] == TensorProto.FLOAT


def test_the_same_bytes_every_time_and_the_original_untouched() -> None:
    model = graphs.embedding_graph()
    before = model.SerializeToString(deterministic=True)
    first, second = (to_float16(model).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert model.SerializeToString(deterministic=True) == before


def attention(scale: float = 1.0) -> onnx.ModelProto:
    """Pixels -> product -> Softmax between products -> product -> unit rows."""
    writer = graphs.GraphWriter()
    x = writer.conv(graphs.pixels(writer), (3, 8), 3, stride=8)
    x = writer.node("Mul", x, writer.constant(scale))
    x = writer.node("Softmax", x, axis=1)
    writer.unit_rows(writer.whitened_and_lifted(writer.conv(x, (8, 8), 1), 8, lift=2.0))
    return writer.model()


def test_operators_that_need_float32_keep_it_between_half_neighbours() -> None:
    model = attention()
    cast = to_float16(model)
    of = types(cast)
    (softmax,) = (node for node in cast.graph.node if node.op_type == "Softmax")
    assert {of[name] for name in (*softmax.input, *softmax.output)} == {TensorProto.FLOAT}
    np.testing.assert_allclose(run(cast, images(1)), run(model, images(1)), atol=2e-3)


def test_readers_of_one_tensor_share_its_cast() -> None:
    writer = graphs.GraphWriter()
    x = writer.node("Softmax", writer.conv(graphs.pixels(writer), (3, 8), 3, stride=8), axis=1)
    x = writer.node("Add", writer.conv(x, (8, 8), 1), writer.conv(x, (8, 8), 3))
    writer.unit_rows(writer.whitened_and_lifted(x, 8, lift=2.0))
    cast = to_float16(writer.model())
    casts = [node.input[0] for node in cast.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts)) == 5


def test_an_output_inside_the_body_keeps_its_type() -> None:
    model = graphs.embedding_graph()
    features = next(node.output[0] for node in model.graph.node if node.op_type == "Add")
    model.graph.output.append(helper.make_tensor_value_info(features, TensorProto.FLOAT, ("N", 24, 8, 8)))
    cast = to_float16(model)
    assert list(cast.graph.output) == list(model.graph.output)
    assert types(cast)[features] == TensorProto.FLOAT


def test_constants_in_nodes_are_converted_as_weights_are() -> None:
    model = attention(3.0)
    (scale,) = (tensor for tensor in model.graph.initializer if numpy_helper.to_array(tensor).tolist() == 3.0)
    model.graph.initializer.remove(scale)
    model.graph.node.insert(0, helper.make_node("Constant", [], [scale.name], value=scale))
    cast = to_float16(model)
    assert "Constant" not in {node.op_type for node in cast.graph.node}
    assert types(cast)[f"{scale.name}_float16"] == TensorProto.FLOAT16
    np.testing.assert_allclose(run(cast, images(1)), run(model, images(1)), atol=2e-3)


def test_a_graph_with_one_product_has_nothing_to_cast() -> None:
    writer = graphs.GraphWriter()
    pooled = writer.node("AveragePool", graphs.pixels(writer), kernel_shape=[8, 8], strides=[8, 8])
    writer.unit_rows(writer.whitened_and_lifted(pooled, 3, lift=2.0))
    model = writer.model()
    assert float16_body(model.graph) == []
    np.testing.assert_array_equal(run(to_float16(model), images(1)), run(model, images(1)))


@pytest.mark.parametrize("value", [65_520, -1e30, np.inf, np.nan])
def test_a_weight_beyond_float16_is_named(value: float) -> None:
    with pytest.raises(EngineError, match=r"Weight 'constant_\d+' holds .*, beyond float16's 65504"):
        to_float16(attention(value))


def test_the_largest_float16_weight_is_taken() -> None:
    to_float16(attention(65_504))


def test_a_quantised_graph_is_refused() -> None:
    with pytest.raises(EngineError, match=r"\(QuantizeLinear\): the graph is quantised already"):
        to_float16(graphs.quantised_graph())


def test_a_subgraph_is_refused() -> None:
    branch = helper.make_graph([], "branch", [], [])
    model = graphs.embedding_graph()
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch, else_branch=branch))
    with pytest.raises(EngineError, match=r"Node 'if' \(If\) has a subgraph"):
        to_float16(model)


def test_functions_are_refused() -> None:
    model = graphs.embedding_graph()
    model.functions.append(helper.make_function("own", "F", ["x"], ["x"], [], [helper.make_opsetid("", 17)]))
    with pytest.raises(EngineError, match="defines 1 functions"):
        to_float16(model)
