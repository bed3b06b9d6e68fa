"""INT8 by Q/DQ: scales, what stays float32, and how far the features move."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from lineward.export import quantisation
from lineward.export.embedding import EmbeddingGraph, EmbeddingHead, FeatureGraph
from lineward.export.onnx_graphs import export_embedding
from lineward.export.quantisation import Calibration, calibrate, convolutions, features_of, quantise, spread
from lineward.export.statistics import FeatureStatistics
from lineward.export.synthetic import render_part
from lineward.runtime.errors import TrainingError
from tests import embedding_graphs as graphs

SIZE = 64


@pytest.fixture(scope="module")
def images():
    return np.stack([render_part(seed, size=SIZE).image for seed in range(6)])


@pytest.fixture(scope="module")
def features(backbone):
    return FeatureGraph(backbone, (8, 16))


@pytest.fixture(scope="module")
def graph(features):
    return export_embedding(features, SIZE)


@pytest.fixture(scope="module")
def learned(graph, images):
    statistics = FeatureStatistics()
    for image in features_of(graph)(images):
        statistics.update(image)
    whitening = statistics.whitening(1.0)
    return whitening, statistics.lift(whitening, 3.0, 0.0)


@pytest.fixture(scope="module")
def calibration(graph, images, learned) -> Calibration:
    return calibrate(graph, images, *learned)


def weights(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def moved(graph, changed, images, learned) -> float:
    """1 less the mean cosine of embeddings."""
    whitening, lift = learned

    def unit(g):
        y = whitening.apply(features_of(g)(images).reshape(-1, len(whitening.mean))).astype(np.float64)
        u = np.c_[y, np.full(len(y), lift.constant)]
        return u / np.linalg.norm(u, axis=1, keepdims=True)

    return float(1 - (unit(graph) * unit(changed)).sum(1).mean())


def test_every_convolution_of_the_backbone_is_measured(graph, calibration):
    assert len(calibration.layers) == convolutions(graph) == 33
    costs = [layer.cost for layer in calibration.layers]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 0


def test_what_is_left_in_int8_costs_no_more_than_it_may(calibration):
    taken = calibration.layers[calibration.float32 :]
    assert 0 < calibration.float32 < len(calibration.layers) / 2
    assert sum(layer.cost for layer in taken) <= quantisation.ERROR
    assert sum(layer.cost for layer in calibration.layers[calibration.float32 - 1 :]) > quantisation.ERROR


def test_costs_add_up_to_what_embeddings_move(graph, calibration, images, learned):
    whole = quantise(graph, calibration.layers)
    total = sum(layer.cost for layer in calibration.layers)
    assert moved(graph, whole, images, learned) == pytest.approx(total, rel=0.5)
    assert moved(graph, calibration.quantise(graph), images, learned) < 2 * quantisation.ERROR


def test_it_is_symmetric_and_per_output_channel(graph, calibration):
    model = onnx.load_from_string(calibration.quantise(graph))
    held = weights(model)
    taken = len(calibration.layers) - calibration.float32
    seen = 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (held[name] for name in node.input[1:])
        assert zero.dtype == np.int8
        assert not zero.any()
        assert (scale > 0).all()
        if node.input[0] in held:
            levels = held[node.input[0]]
            assert levels.dtype == np.int8
            assert scale.shape == zero.shape == levels.shape[:1]
            greatest = np.abs(levels.reshape(len(levels), -1).astype(int)).max(1)
            assert set(greatest.tolist()) <= {0, 127}  # 0: a channel that training let die
            seen += 1
        else:
            assert scale.shape == ()
    assert seen == taken


def test_weights_are_off_by_half_a_level_at_most(graph, calibration):
    exact, held = weights(onnx.load_from_string(graph)), weights(onnx.load_from_string(calibration.quantise(graph)))
    names = [name.removesuffix("_int8") for name in held if name.endswith("_int8")]
    for name in names:
        scale = held[f"{name}_scale"].reshape(-1, 1, 1, 1)
        assert np.abs(held[f"{name}_int8"] * scale - exact[name]).max() <= scale.max() * 0.5001


def test_layers_are_found_again_in_the_whole_embedding_graph_whose_head_stays_float32(
    graph, features, calibration, learned
):
    whitening, lift = learned
    exported = export_embedding(EmbeddingGraph(features, EmbeddingHead(whitening, lift, SIZE // 8)), SIZE)
    whole, part = (onnx.load_from_string(calibration.quantise(g)) for g in (exported, graph))
    count = [sum(node.op_type == "QuantizeLinear" for node in m.graph.node) for m in (whole, part)]
    assert count[0] == count[1] > 0
    held = weights(whole)
    product = next(node for node in whole.graph.node if node.op_type == "MatMul")
    assert any(name in held and held[name].dtype == np.float32 for name in product.input)
    assert len(calibration.quantise(exported)) < len(exported) / 2


def test_the_same_bytes_every_time_and_none_changed_without_layers(graph, calibration):
    assert calibration.quantise(graph) == calibration.quantise(graph)
    assert onnx.load_from_string(quantise(graph, [])) == onnx.load_from_string(graph)


def test_a_channel_without_weights_divides_by_no_zero():
    writer = graphs.GraphWriter()
    x = writer.conv(graphs.pixels(writer), (3, 8), 3, stride=8)
    writer.unit_rows(writer.whitened_and_lifted(x, 8, lift=2.0))
    model = writer.model()
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    weight = numpy_helper.to_array(tensor).copy()
    weight[0] = 0
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    layers = quantisation._layers(model.SerializeToString(), np.zeros((1, graphs.SIDE, graphs.SIDE, 3), np.uint8))
    held = weights(onnx.load_from_string(quantise(model.SerializeToString(), layers)))
    assert all(np.isfinite(value).all() for value in held.values())


def test_activations_that_are_no_numbers_are_told(graph, images, learned):
    model = onnx.load_from_string(graph)
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 4)
    broken = np.full_like(numpy_helper.to_array(tensor), np.nan)
    tensor.CopyFrom(numpy_helper.from_array(broken, tensor.name))
    with pytest.raises(TrainingError, match="the backbone's activations reach nan"):
        calibrate(model.SerializeToString(), images, *learned)


def test_a_backbone_without_convolutions_is_told(images, learned):
    writer = graphs.GraphWriter()
    pooled = writer.node("AveragePool", graphs.pixels(writer), kernel_shape=[8, 8], strides=[8, 8])
    writer.unit_rows(writer.node("Identity", pooled))
    with pytest.raises(TrainingError, match="no convolutions"):
        calibrate(writer.model().SerializeToString(), images, *learned)


def test_images_are_spread_evenly(images):
    assert np.array_equal(spread(images, 3), images[[0, 2, 5]])
    assert np.array_equal(spread(images, 99), images)


def test_a_layer_is_known_by_its_weights_alone(graph, calibration):
    stranger = dataclasses.replace(calibration.layers[0], weight_sha256="0" * 64)
    assert onnx.load_from_string(quantise(graph, [stranger])) == onnx.load_from_string(graph)
