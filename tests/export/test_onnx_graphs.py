from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from lineward.export.backbones import Backbone
from lineward.export.embedding import EmbeddingGraph, EmbeddingHead, FeatureGraph
from lineward.export.onnx_graphs import export_embedding
from lineward.export.similarity_graph import similarity_graph
from lineward.export.statistics import Lift, Whitening
from lineward.runtime.bundle import BANK, BANK_TENSOR, EMBEDDING, SIMILARITY, Bundle
from lineward.runtime.engines import OnnxRuntimeEngine
from lineward.runtime.manifest import Grid

NEWEST_OPSET, NEWEST_IR = 19, 10  # that onnxruntime 1.23 reads and TensorRT 10.3 knows


@pytest.fixture(scope="module")
def graphs(trained: Bundle) -> dict[str, onnx.ModelProto]:
    return {name: onnx.load_from_string(trained.members[name]) for name in (EMBEDDING, SIMILARITY)}


def unit_rows(count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    yield from (a.t for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)


@pytest.mark.parametrize("name", [EMBEDDING, SIMILARITY])
def test_versions_are_old_enough_for_the_devices(graphs, name: str):
    assert [entry.domain for entry in graphs[name].opset_import] == [""]
    assert graphs[name].opset_import[0].version <= NEWEST_OPSET
    assert graphs[name].ir_version <= NEWEST_IR
    assert {node.domain for node in graphs[name].graph.node} == {""}


@pytest.mark.parametrize(
    ("name", "takes", "gives"),
    [
        (EMBEDDING, ("images", TensorProto.UINT8, ["N", 128, 128, 3]), ("embeddings", TensorProto.FLOAT, "N")),
        (SIMILARITY, ("embeddings", TensorProto.FLOAT, ["N", 32, 155]), ("similarity", TensorProto.FLOAT, "Q")),
    ],
)
def test_inputs_and_outputs(graphs, name: str, takes: tuple, gives: tuple):
    (taken,), (given,) = graphs[name].graph.input, graphs[name].graph.output
    assert (taken.name, taken.type.tensor_type.elem_type, shape_of(taken)) == takes
    assert (given.name, given.type.tensor_type.elem_type, shape_of(given)[0]) == gives


def test_the_embedding_holds_all_its_weights(graphs):
    tensors = list(tensors_of(graphs[EMBEDDING]))
    assert sum(len(tensor.raw_data) for tensor in tensors) > 1_000_000
    assert {tensor.data_location for tensor in tensors} == {TensorProto.DEFAULT}
    assert not any(tensor.external_data for tensor in tensors)


@pytest.mark.parametrize("name", [EMBEDDING, SIMILARITY])
def test_no_path_of_the_maker_is_left_inside(trained: Bundle, name: str):
    model = onnx.load_from_string(trained.members[name])
    assert (model.producer_name, model.producer_version, model.doc_string) == ("lineward", "", "")
    assert not any(node.doc_string for node in model.graph.node)
    assert not any(trace in trained.members[name] for trace in (b".py", b"site-packages", str(Path.home()).encode()))


def test_the_similarity_takes_one_tensor_from_outside(graphs):
    outside = [t for t in tensors_of(graphs[SIMILARITY]) if t.data_location == TensorProto.EXTERNAL]
    assert [tensor.name for tensor in outside] == [BANK_TENSOR]


def located(similarity: bytes) -> tuple[str, int, int]:
    """The file, offset and length that a similarity graph names."""
    (tensor,) = [t for t in onnx.load_from_string(similarity).graph.initializer if t.external_data]
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return entries["location"], int(entries["offset"]), int(entries["length"])


def test_the_similarity_points_at_exactly_the_bank(trained: Bundle):
    location, offset, length = located(trained.members[SIMILARITY])
    file = trained.members[location]
    assert location == BANK
    assert file[offset : offset + length] == trained.bank.tobytes()
    # As the safetensors format says it, read without its library.
    header = int.from_bytes(file[:8], "little")
    begin, end = json.loads(file[8 : 8 + header])[BANK_TENSOR]["data_offsets"]
    assert (8 + header + begin, 8 + header + end) == (offset, offset + length)


def test_the_engine_gives_one_minus_the_greatest_cosine(trained: Bundle):
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(trained.members[EMBEDDING], providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(None, {"images": images})
    expected = 1 - (embeddings @ trained.bank.T).max(2).reshape(2, 16, 16)
    np.testing.assert_allclose(OnnxRuntimeEngine(trained).score(images), expected, rtol=0, atol=1e-5)


def test_the_same_graph_gives_the_same_bytes(backbone: Backbone):
    def export(constant: float) -> bytes:
        rng = np.random.default_rng(0)
        mean, matrix = rng.normal(size=152).astype(np.float32), rng.normal(size=(152, 7)).astype(np.float32)
        head = EmbeddingHead(Whitening(mean, matrix), Lift(constant, 0.5), side=8)
        graph = EmbeddingGraph(FeatureGraph(backbone, (8, 16)), head)
        torch.rand(3)  # the state of torch's random numbers is no part of it
        return export_embedding(graph, 64)

    first = export(1.5)
    assert export(1.5) == first
    assert export(1.75) != first


def test_the_same_bank_gives_the_same_similarity_graph():
    grid = Grid(4, 4, 7)
    assert similarity_graph(grid, 9, 80) == similarity_graph(grid, 9, 80)
    assert located(similarity_graph(grid, 9, 80)) == (BANK, 80, 9 * 7 * 4)
