"""The similarity stage: the greatest inner product of each query with the rows of a bank, by everyone's fastest way.

Every function makes, in its own process, what is timed: queries and bank are there, similarities come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.workers import THREADS, Call, Contender

Similarity = NDArray[np.float32]

OURS = "Lineward"


def contenders(ours: Path, bank: Path, queries: Path) -> dict[str, Contender]:
    """All of them, ours first; and what the machine can do at all.

    Args:
        ours: a bundle with the bank.
        bank: the bank, .npy.
        queries: the queries, .npy.
    """
    peers = {
        "onnxruntime, Gemm and ReduceMax": onnxruntime_plain,
        "OpenVINO": openvino,
        "torch matmul + amax": torch_matmul,
        "torch.cdist + min": torch_cdist,
        "numpy": numpy_matmul,
        "faiss IndexFlatIP": faiss_flat,
    }
    return {
        OURS: Contender(lineward, (ours, queries)),
        **{name: Contender(make, (bank, queries)) for name, make in peers.items()},
    }


def lineward(bundle: Path, queries: Path) -> Call:
    """The similarity stage of a bundle, as the engine does it."""
    from lineward.runtime.bundle import SIMILARITY, read_bundle
    from lineward.runtime.engines.onnxruntime import SimilaritySession
    from lineward.runtime.trust import AcceptAny

    read = read_bundle(bundle, AcceptAny())
    session = SimilaritySession(read.members[SIMILARITY], read.bank, THREADS)
    embeddings = np.load(queries)[np.newaxis]
    return lambda: session.greatest(embeddings)


def plain_graph(rows: int, dimensions: int) -> bytes:
    """Gemm and ReduceMax, with the bank as an input."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Gemm", ["queries", "bank"], ["cosines"], transB=1),
        helper.make_node("ReduceMax", ["cosines"], ["similarity"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["Q", dimensions])],
        [helper.make_tensor_value_info("similarity", TensorProto.FLOAT, ["Q"])],
        initializer=[TensorProto(name="bank", data_type=TensorProto.FLOAT, dims=[rows, dimensions])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert isinstance(model, onnx.ModelProto)
    return bytes(model.SerializeToString())


def _plain_with(bank: Similarity) -> bytes:
    import onnx

    model = onnx.load_from_string(plain_graph(*bank.shape))
    model.graph.initializer[0].raw_data = bank.tobytes()
    return bytes(model.SerializeToString())


def onnxruntime_plain(bank: Path, queries: Path) -> Call:
    """The plain graph, with onnxruntime's own options but for the threads."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(_plain_with(np.load(bank)), options, providers=["CPUExecutionProvider"])
    inputs = {"queries": np.load(queries)}
    return lambda: session.run(None, inputs)[0]


def openvino(bank: Path, queries: Path) -> Call:
    """The plain graph, compiled for latency."""
    import openvino as ov

    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    given = np.load(queries)
    model = core.read_model(_plain_with(np.load(bank)))
    model.reshape(given.shape)
    request = core.compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(given))

    def call() -> Similarity:
        request.infer()
        return np.array(request.get_output_tensor(0).data)

    return call


def torch_matmul(bank: Path, queries: Path) -> Call:
    """A matrix product, then a maximum, without gradients."""
    rows, given, torch = _torch(bank, queries)
    transposed = rows.t()

    def call() -> Similarity:
        with torch.inference_mode():
            return np.asarray(torch.matmul(given, transposed).amax(1).numpy())

    return call


def torch_cdist(bank: Path, queries: Path) -> Call:
    """Euclidean distances of unit rows: |a - b|^2 = 2 - 2 <a, b>."""
    rows, given, torch = _torch(bank, queries)

    def call() -> Similarity:
        with torch.inference_mode():
            return np.asarray((1 - torch.cdist(given, rows).amin(1).square() / 2).numpy())

    return call


def numpy_matmul(bank: Path, queries: Path) -> Call:
    """A matrix product, then a maximum."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(THREADS)
    transposed, given = np.ascontiguousarray(np.load(bank).T), np.load(queries)
    return lambda: (given @ transposed).max(1)


def faiss_flat(bank: Path, queries: Path) -> Call:
    """The exact index."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    rows, given = np.load(bank), np.load(queries)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return lambda: index.search(given, 1)[0][:, 0]


def gemm_peak(side: int = 1024) -> Call:
    """A square product of float32 matrices, for the rate that the machine reaches at best."""
    import torch

    torch.set_num_threads(THREADS)
    a, b = (torch.randn(side, side, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    out = torch.empty(side, side)

    def call() -> None:
        torch.mm(a, b, out=out)

    return call


def _torch(bank: Path, queries: Path) -> tuple[Any, Any, Any]:
    import torch

    torch.set_num_threads(THREADS)
    return torch.from_numpy(np.load(bank)), torch.from_numpy(np.load(queries)), torch
