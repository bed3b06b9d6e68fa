"""The shipped builder on NVIDIA's own parser and compiler: TensorRT-RTX builds plans without a GPU.

It runs in an environment of its own (`make test-tensorrt`). LINEWARD_GRAPHS may name a directory of exported
graphs to build as well. TensorRT-RTX is newer than the TensorRT of JetPack 6: what it takes, 10.3 may refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed; `make test-tensorrt` installs it")

import onnx  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

from lineward.export.precision import to_float16  # noqa: E402
from lineward.runtime.errors import EngineError  # noqa: E402
from lineward.runtime.tensorrt.builder import PlanOptions, build_plan  # noqa: E402
from lineward.runtime.tensorrt.plan import load_plan  # noqa: E402
from tests import embedding_graphs as graphs  # noqa: E402

QUICK = PlanOptions(max_batch=2, workspace_bytes=1 << 26, builder_level=0)
GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "float32": graphs.embedding_graph,
    "float16": lambda: to_float16(graphs.embedding_graph()),
    "int8": graphs.quantised_graph,
}
EXPORTED = sorted(Path(os.environ.get("LINEWARD_GRAPHS", "unset")).glob("**/*.onnx"))


@pytest.mark.skipif(not EXPORTED, reason="LINEWARD_GRAPHS names no directory of exported graphs")
@pytest.mark.parametrize("path", EXPORTED, ids=str)
def test_every_exported_graph_builds(path: Path) -> None:
    assert len(build_plan(trt, path.read_bytes(), QUICK)) > 10_000


@pytest.mark.parametrize("precision", GRAPHS)
@pytest.mark.parametrize("options", [QUICK, PlanOptions()], ids=["quick", "default"])
def test_every_precision_builds(precision: str, options: PlanOptions) -> None:
    plan = build_plan(trt, GRAPHS[precision]().SerializeToString(), options)
    assert len(plan) > 10_000


def test_the_float16_plan_holds_float16_weights() -> None:
    """Strongly typed: the precision of the file decides, so the weights in the plan halve."""
    wide = graphs.wide_graph()
    sizes = [len(build_plan(trt, model.SerializeToString(), QUICK)) for model in (wide, to_float16(wide))]
    weights = sum(len(tensor.raw_data) for tensor in wide.graph.initializer)
    assert sizes[0] - sizes[1] > weights / 3


def no_importer() -> onnx.ModelProto:
    writer = graphs.GraphWriter()
    writer.node("Unique", graphs.pixels(writer), output="embeddings")
    return writer.model(shape=[None, None, None])


def two_outputs() -> onnx.ModelProto:
    model = graphs.embedding_graph()
    model.graph.output.append(helper.make_tensor_value_info("Transpose_3", TensorProto.FLOAT, ("N", 3, 64, 64)))
    return model


def half_output() -> onnx.ModelProto:
    model = graphs.embedding_graph()
    model.graph.node.append(helper.make_node("Cast", ["embeddings"], ["half"], to=TensorProto.FLOAT16))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("half", TensorProto.FLOAT16, ("N", 64, 33)))
    return model


def frames(shape: tuple[int | str, ...], dtype: int = TensorProto.UINT8) -> onnx.ModelProto:
    model = graphs.embedding_graph()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", dtype, shape))
    return model


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        (no_importer, r"node 'node_embeddings' \(Unique\): .+"),
        (
            lambda: graphs.quantised_graph(zero_point=3),
            r"\(QuantizeLinear\): .*[Zz]ero point.*\n.*every zero point 0",
        ),
        (two_outputs, "The graph has 1 inputs and 2 outputs, not one each"),
        (half_output, r"Output 'half' is DataType.HALF \[-1, 64, 33\], not float32"),
        (
            lambda: frames((1, 64, 64, 3)),
            r"Input 'images' is DataType.UINT8 \[1, 64, 64, 3\], not uint8 \[-1, H",
        ),
        (
            lambda: frames(("N", "H", "W", 3)),
            r"Input 'images' is DataType.UINT8 \[-1, -1, -1, 3\], not uint8",
        ),
        (lambda: frames(("N", 64, 64, 3), TensorProto.FLOAT), "Input 'images' is DataType.FLOAT"),
    ],
    ids=[
        "operator",
        "zero point",
        "two outputs",
        "half output",
        "fixed batch",
        "dynamic size",
        "float input",
    ],
)
def test_a_graph_that_must_be_refused(graph: Callable[[], onnx.ModelProto], told: str) -> None:
    with pytest.raises(EngineError, match=told):
        build_plan(trt, graph().SerializeToString(), QUICK)


def test_bytes_that_are_no_plan() -> None:
    with pytest.raises(EngineError, match=r"TensorRT [\d.]+ refuses the plan: .*deserializeCudaEngine"):
        load_plan(trt, b"no plan" * 100)


def test_a_file_that_is_not_onnx() -> None:
    with pytest.raises(EngineError, match="Failed to parse the ONNX model"):
        build_plan(trt, b"not a graph", QUICK)
