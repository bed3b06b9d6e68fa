"""The similarity graph of a bundle: three nodes, written without torch."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from lineward.runtime.bundle import BANK, BANK_TENSOR
from lineward.runtime.manifest import Grid

OPSET = 17
"""Old enough for the onnxruntime 1.23 of Python 3.10 and for TensorRT 10.3."""
IR_VERSION = 8


def similarity_graph(grid: Grid, rows: int, bank_offset: int) -> bytes:
    """Write the similarity graph: the greatest inner product of each embedding with the rows of the bank.

    Gemm with a constant, transposed right operand is the fastest form onnxruntime has for it on a CPU.

    Args:
        grid: gives the dimensions of an embedding.
        rows: rows of the bank.
        bank_offset: where the rows begin in `bank.safetensors`, in bytes.

    Returns:
        A model with input `embeddings`, float32 [N, patches, dimensions], and output `similarity`,
        float32 [N * patches].
    """
    bank = TensorProto(name=BANK_TENSOR, data_type=TensorProto.FLOAT, dims=[rows, grid.dimensions])
    bank.data_location = TensorProto.EXTERNAL
    length = rows * grid.dimensions * 4
    for key, value in {"location": BANK, "offset": str(bank_offset), "length": str(length)}.items():
        bank.external_data.add(key=key, value=value)
    flat = helper.make_tensor("flat", TensorProto.INT64, [2], [-1, grid.dimensions])
    nodes = [
        helper.make_node("Reshape", ["embeddings", "flat"], ["queries"]),
        helper.make_node("Gemm", ["queries", BANK_TENSOR], ["cosines"], transB=1),
        helper.make_node("ReduceMax", ["cosines"], ["similarity"], axes=[1], keepdims=0),
    ]
    patches = grid.rows * grid.columns
    graph = helper.make_graph(
        nodes,
        "similarity",
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", patches, grid.dimensions])],
        [helper.make_tensor_value_info("similarity", TensorProto.FLOAT, ["Q"])],
        initializer=[flat, bank],
    )
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]), "similarity")


def finish(model: onnx.ModelProto, name: str) -> bytes:
    """The bytes of a model, the same for the same model."""
    model.producer_name, model.producer_version, model.doc_string = "lineward", "", ""
    model.ir_version = IR_VERSION
    model.graph.name = name
    return bytes(model.SerializeToString(deterministic=True))
