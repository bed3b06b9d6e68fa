"""Casts an embedding graph to float16 where that is safe, and leaves float32 where it is not.

float16 from the first product with weights (convolution or matrix product) up to the last, which is left out:
the arithmetic on pixels before the first, and whitening, lift and unit length from the last one on, stay
float32. So do operators that accumulate or span a wide range (`FLOAT32_OPERATORS`), wherever they stand. The
graph's inputs and outputs keep their types, uint8 in and float32 out; Cast nodes mark the borders.

The precision then is in the ONNX file, where a strongly typed TensorRT must obey it. onnxruntime on a CPU shows what
the rounded weights do, but computes float16 nodes in float32 and does not round between them; the benchmark
`precision` therefore rounds every activation too. Activations beyond 65,504 would overflow: only running the cast
graph on images can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    defs,
    helper,
    numpy_helper,
    shape_inference,
)

from lineward.runtime.errors import EngineError

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
FLOAT32_OPERATORS = frozenset(
    {
        "Cast",
        "Constant",
        "ConstantOfShape",
        "Exp",
        "GlobalAveragePool",
        "InstanceNormalization",
        "LayerNormalization",
        "LpNormalization",
        "Pow",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Sqrt",
    }
)
ONNX_DOMAIN = ("", "ai.onnx")
HALF = "tensor(float16)"
LARGEST = float(np.finfo(np.float16).max)


def to_float16(model: ModelProto) -> ModelProto:
    """A copy of the graph with its body in float16.

    Args:
        model: an embedding graph in float32, without Q/DQ, subgraphs or functions.

    Returns:
        The cast graph: same inputs, outputs, opset and IR version; the same bytes every time.

    Raises:
        EngineError: the graph is quantised or has subgraphs, or a weight does not fit float16 (it is named).
    """
    _check_castable(model)
    cast = ModelProto()
    cast.CopyFrom(shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))
    _hoist_constants(cast.graph)
    _HalfWriter(cast).rewrite()
    del cast.graph.value_info[:]
    onnx.checker.check_model(cast, full_check=True)
    return cast


def float16_body(graph: GraphProto) -> list[NodeProto]:
    """The nodes that may compute in float16, in the graph's order.

    A node counts if it is a product or comes after one, and another product comes after it; operators of
    other domains and nodes that give an output of the graph do not.
    """
    outputs = {output.name for output in graph.output}
    after = _reached(graph.node)
    before = _leading(graph.node)
    return [
        node
        for node in graph.node
        if node.op_type not in FLOAT32_OPERATORS
        and node.domain in ONNX_DOMAIN
        and outputs.isdisjoint(node.output)
        and not after.isdisjoint(node.output)
        and not before.isdisjoint(node.output)
    ]


class _HalfWriter:
    """Rewrites a graph's nodes in order, adding a Cast wherever a tensor crosses between the precisions."""

    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._opset = next(entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAIN)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._float32 = _float32_tensors(model.graph)
        self._half: set[str] = set()
        self._cast: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def rewrite(self) -> None:
        body = {node.output[0] for node in float16_body(self._graph)}
        for node in self._graph.node:
            if node.output[0] in body:
                self._to_half(node)
            else:
                self._to_float32(node)
            self._nodes.append(node)
        self._replace()

    def _to_half(self, node: NodeProto) -> None:
        schema = defs.get_schema(node.op_type, self._opset, node.domain)
        for index in _half_capable(schema, schema.inputs, len(node.input)):
            name = node.input[index]
            if name in self._float32:
                node.input[index] = self._as_type(name, TensorProto.FLOAT16)
        for index in _half_capable(schema, schema.outputs, len(node.output)):
            name = node.output[index]
            if name in self._float32:
                self._float32.remove(name)
                self._half.add(name)

    def _to_float32(self, node: NodeProto) -> None:
        for index, name in enumerate(node.input):
            if name in self._half:
                node.input[index] = self._as_type(name, TensorProto.FLOAT)

    def _as_type(self, name: str, dtype: int) -> str:
        """Name of a tensor in another precision: a converted weight, or a Cast that all its readers share."""
        if (name, dtype) not in self._cast:
            other = f"{name}_{'float16' if dtype == TensorProto.FLOAT16 else 'float32'}"
            if name in self._weights:
                self._graph.initializer.append(_half_weight(self._weights[name], other))
            else:
                self._nodes.append(helper.make_node("Cast", [name], [other], name=f"cast_{other}", to=dtype))
            self._cast[name, dtype] = other
        return self._cast[name, dtype]

    def _replace(self) -> None:
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        weights = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(weights)


def _half_capable(schema: defs.OpSchema, formal: Iterable[defs.OpSchema.FormalParameter], count: int) -> Iterator[int]:
    """Indices of the actual parameters whose type the operator lets be float16."""
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    parameters = list(formal)
    for index in range(count):
        kind = parameters[min(index, len(parameters) - 1)].type_str  # the last one may be variadic
        if HALF in allowed.get(kind, ()):
            yield index


def _reached(nodes: Iterable[NodeProto]) -> set[str]:
    """Tensors that a product gives, or that are computed from such a tensor."""
    reached: set[str] = set()
    for node in nodes:
        if node.op_type in PRODUCTS or not reached.isdisjoint(node.input):
            reached.update(node.output)
    return reached


def _leading(nodes: Sequence[NodeProto]) -> set[str]:
    """Tensors that a product reads, or from which such a tensor is computed."""
    leading: set[str] = set()
    for node in reversed(nodes):
        if node.op_type in PRODUCTS or not leading.isdisjoint(node.output):
            leading.update(node.input)
    return leading


def _float32_tensors(graph: GraphProto) -> set[str]:
    """Names of all float32 tensors and weights of a graph whose shapes are inferred."""
    infos = (*graph.input, *graph.output, *graph.value_info)
    names = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _hoist_constants(graph: GraphProto) -> None:
    """Turns Constant nodes into weights, so that they can be converted rather than cast."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            value.name = node.output[0]
            graph.initializer.append(value)
        else:
            graph.node.append(node)


def _half_weight(weight: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0))
    if not largest <= LARGEST:
        raise EngineError(
            f"Weight {weight.name!r} holds {largest:g}, beyond float16's {LARGEST:g}",
            do="Ship this graph in float32, or train the backbone with smaller weights.",
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _check_castable(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise EngineError(
                f"Node {node.name!r} ({node.op_type}): the graph is quantised already",
                do="Cast the float32 graph to float16, or ship the quantised graph as it is.",
            )
        if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
            raise EngineError(
                f"Node {node.name!r} ({node.op_type}) has a subgraph, which cannot be cast",
                do="Export the backbone without control flow.",
            )
    if model.functions:
        raise EngineError(
            f"The graph defines {len(model.functions)} functions, which cannot be cast",
            do="Inline them with `onnx.inliner.inline_local_functions`.",
        )
