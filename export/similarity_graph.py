"""The similarity graph of a bundle, written without torch: the greatest inner product of each embedding with the bank.

It multiplies with the bank block by block, so that the products of a block stay in the processor's cache and the memory
does not grow with patches times rows.

Where the patches of a block of the image share what the coarser feature levels say (see `Split`), that part is
multiplied once a block. Let u = [f, c] be a patch's embedding, f its own coordinates, c the shared ones, and
u0 = [f0, c0] that of the first patch of its block. Before normalising, c and c0 were the same, so c = s c0, and since
the last of them came from a constant greater than 0, s is the ratio of the last coordinates. Then
max_m <u, b_m> = s max_m (<f / s, own of b_m> + <c0, shared of b_m>): the same number, for a part of the operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper

from lineward.runtime.bundle import BANK, BANK_TENSOR
from lineward.runtime.manifest import Grid, Split

OPSET = 17
"""Old enough for the onnxruntime 1.23 of Python 3.10 and for TensorRT 10.3."""
IR_VERSION = 8
BLOCK_ROWS = 1024
"""Rows of the bank to multiply with at a time; fewer cost more calls, more leave the cache."""


def similarity_graph(grid: Grid, rows: int, bank_offset: int) -> bytes:
    """Write the similarity graph.

    Gemm with a constant, transposed right operand is the fastest form onnxruntime has for it on a CPU; it cuts the bank
    into its blocks when the session is made.

    Args:
        grid: gives the dimensions of an embedding, and what of it patches share.
        rows: rows of the bank.
        bank_offset: where the rows begin in `bank.safetensors`, in bytes.

    Returns:
        A model with input `embeddings`, float32 [N, patches, dimensions], and output `similarity`,
        float32 [N * patches]: N strips of as few of the grid's rows as share nothing with the next, so that a device
        may cut an image into as many parts as it has processors.
    """
    graph = _Graph()
    similarity = _plain(graph, grid, rows) if grid.split is None else _split(graph, grid, grid.split, rows)
    graph.add("Reshape", similarity, graph.integers(-1), output="similarity")
    patches = grid.columns * (grid.split.block if grid.split else 1)
    model = helper.make_graph(
        graph.nodes,
        "similarity",
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", patches, grid.dimensions])],
        [helper.make_tensor_value_info("similarity", TensorProto.FLOAT, ["Q"])],
        initializer=[*graph.constants.values(), _bank(rows, grid.dimensions, bank_offset)],
    )
    return finish(helper.make_model(model, opset_imports=[helper.make_opsetid("", OPSET)]), "similarity")


def finish(model: onnx.ModelProto, name: str) -> bytes:
    """The bytes of a model, the same for the same model."""
    model.producer_name, model.producer_version, model.doc_string = "lineward", "", ""
    model.ir_version = IR_VERSION
    model.graph.name = name
    return bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """A graph as it grows: every node's output has a name of its own, every list of integers is there once."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with one output, and name it."""
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def integers(self, *values: int) -> str:
        name = "_".join(["integers", *map(str, values)])
        self.constants[name] = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        return name

    def cut(self, tensor: str, ends: dict[int, tuple[int, int]]) -> str:
        """The part of a tensor between two ends of some axes."""
        starts, stops = zip(*ends.values(), strict=True)
        return self.add("Slice", tensor, self.integers(*starts), self.integers(*stops), self.integers(*ends))

    def greatest_product(self, queries: str, rows: str, *addend: str) -> str:
        """The greatest element in each row of queries times transposed rows, plus an addend."""
        return self.add("ReduceMax", self.add("Gemm", queries, rows, *addend, transB=1), axes=[1], keepdims=0)


def _plain(graph: _Graph, grid: Grid, rows: int) -> str:
    queries = graph.add("Reshape", "embeddings", graph.integers(-1, grid.dimensions))
    blocks = (graph.cut(BANK_TENSOR, {0: block}) for block in _blocks(rows))
    return graph.add("Max", *(graph.greatest_product(queries, block) for block in blocks))


def _split(graph: _Graph, grid: Grid, split: Split, rows: int) -> str:
    side, own, dimensions = split.block, split.own, grid.dimensions
    patches = side * side
    blocks = graph.add("Reshape", "embeddings", graph.integers(-1, side, grid.columns // side, side, dimensions))
    last = graph.cut(blocks, {4: (dimensions - 1, dimensions)})
    ratio = graph.add("Div", last, graph.cut(last, {1: (0, 1), 3: (0, 1)}))
    shared = graph.cut(blocks, {1: (0, 1), 3: (0, 1), 4: (own, dimensions)})
    shared = graph.add("Reshape", shared, graph.integers(-1, dimensions - own))
    scaled = graph.add("Div", graph.cut(blocks, {4: (0, own)}), ratio)
    # All first patches of their blocks, then all second ones, and so on.
    apart = graph.add("Transpose", scaled, perm=[1, 3, 0, 2, 4])
    apart = graph.add("Reshape", apart, graph.integers(patches, -1, own))
    each = (graph.cut(apart, {0: (patch, patch + 1)}) for patch in range(patches))
    queries = [graph.add("Reshape", query, graph.integers(-1, own)) for query in each]
    found = []
    for block in _blocks(rows):
        products = graph.add("Gemm", shared, graph.cut(BANK_TENSOR, {0: block, 1: (own, dimensions)}), transB=1)
        own_rows = graph.cut(BANK_TENSOR, {0: block, 1: (0, own)})
        # Joined block by block: so onnxruntime takes one block after another, and holds the products of one alone.
        found.append(graph.add("Concat", *(graph.greatest_product(q, own_rows, products) for q in queries), axis=0))
    greatest = graph.add("Reshape", graph.add("Max", *found), graph.integers(side, side, -1, grid.columns // side, 1))
    return graph.add("Mul", graph.add("Transpose", greatest, perm=[2, 0, 3, 1, 4]), ratio)


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    """First and last row, exclusive, of blocks of about equally many rows."""
    count = -(-rows // BLOCK_ROWS)
    edges = [rows * i // count for i in range(count + 1)]
    return pairwise(edges)


def _bank(rows: int, dimensions: int, offset: int) -> TensorProto:
    bank = TensorProto(name=BANK_TENSOR, data_type=TensorProto.FLOAT, dims=[rows, dimensions])
    bank.data_location = TensorProto.EXTERNAL
    length = rows * dimensions * 4
    for key, value in {"location": BANK, "offset": str(offset), "length": str(length)}.items():
        bank.external_data.add(key=key, value=value)
    return bank
