"""Does NVIDIA's compiler fuse matrix product and row maximum, or does it hold the whole similarity matrix?

TensorRT-RTX plans MatMul + ReduceMax for Q query rows against a bank of M rows, on a machine without a GPU,
and logs the scratch memory of the plan. If that grows by exactly one Q x M matrix when M doubles, the matrix
is held in memory: the reason for a kernel that keeps a running maximum in registers instead. No time is
measured, and nothing is said about the TensorRT of a Jetson, which cannot be asked here.

    python -m venv rtx
    rtx/bin/pip install tensorrt-rtx-cu13==1.7.1.116 numpy onnx
    rtx/bin/pip install --no-deps .
    rtx/bin/python benchmarks/gpu/materialised_similarity.py
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import helper, numpy_helper

from lineward.runtime.tensorrt.messages import LOG, Messages

RESULTS = Path(__file__).parents[1] / "results" / "tensorrt_rtx_scratch.json"
QUERIES, CHANNELS = 784, 1024
BANKS = (20_000, 40_000)
DTYPES = ("float16", "float32")
TARGET = "SM86"


@dataclass(frozen=True)
class Row:
    """One plan; sizes in bytes."""

    dtype: str
    queries: int
    bank_rows: int
    channels: int
    matrix_bytes: int
    scratch_bytes: int
    beyond_matrix_bytes: int


class Lines(logging.Handler):
    """Keeps what TensorRT logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one line."""
        self.lines.append(record.getMessage())


def similarity_graph(dtype: str, bank_rows: int) -> bytes:
    """ONNX: queries [Q, C] -> highest inner product with any of M bank rows, [Q]."""
    bank = np.random.default_rng(0).standard_normal((CHANNELS, bank_rows)).astype(dtype)
    weights = numpy_helper.from_array(bank, "bank")
    nodes = [
        helper.make_node("MatMul", ["queries", "bank"], ["similarity"]),
        helper.make_node("ReduceMax", ["similarity"], ["highest"], axes=[1], keepdims=0),
    ]
    queries = helper.make_tensor_value_info("queries", weights.data_type, [QUERIES, CHANNELS])
    highest = helper.make_tensor_value_info("highest", weights.data_type, [QUERIES])
    graph = helper.make_graph(nodes, "similarity", [queries], [highest], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def planned_scratch(model: bytes) -> int:
    """Scratch memory of the strongly typed plan, in bytes."""
    said = Lines()
    LOG.addHandler(said)
    try:
        build(model)
    finally:
        LOG.removeHandler(said)
    (scratch,) = re.findall(r"Max Scratch Memory: (\d+) bytes", "\n".join(said.lines))
    return int(scratch)


def build(model: bytes) -> None:
    """Builds the plan for one GPU architecture, without a GPU."""
    messages = Messages(trt)
    builder = trt.Builder(messages.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages.logger)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, TARGET), 0)
    if not parser.parse(model) or builder.build_serialized_network(network, config) is None:
        raise SystemExit(f"TensorRT-RTX cannot build: {messages.reason()}")


def measure(dtype: str, bank_rows: int) -> Row:
    """One row of the table."""
    matrix = QUERIES * bank_rows * np.dtype(dtype).itemsize
    scratch = planned_scratch(similarity_graph(dtype, bank_rows))
    return Row(dtype, QUERIES, bank_rows, CHANNELS, matrix, scratch, scratch - matrix)


def holds_the_matrix(rows: list[Row]) -> bool:
    """Whether scratch exceeds the matrix by one amount for every bank: it grows by the matrix, exactly."""
    return all(
        len({row.beyond_matrix_bytes for row in rows if row.dtype == dtype}) == 1
        and all(row.beyond_matrix_bytes >= 0 for row in rows)
        for dtype in DTYPES
    )


def date() -> str:
    """Today, or the day of SOURCE_DATE_EPOCH, in UTC."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    return moment.date().isoformat()


def machine() -> dict[str, str | int]:
    """The machine in words, without its name."""
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = re.findall(r"^model name\s*: (.+)$", information, re.MULTILINE)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": "not used",
    }


def main() -> None:
    """Measures all rows, prints them and writes the result file."""
    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False
    rows = [measure(dtype, bank) for dtype in DTYPES for bank in BANKS]
    result = {
        "what": "scratch memory that TensorRT-RTX plans for MatMul + ReduceMax, against the size of Q x M",
        "target": TARGET,
        "rows": [asdict(row) for row in rows],
        "holds_the_matrix": holds_the_matrix(rows),
        "date": date(),
        "versions": {
            "tensorrt_rtx": trt.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "machine": machine(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(f"{row.dtype:8} M={row.bank_rows:6} matrix={row.matrix_bytes:11,} scratch={row.scratch_bytes:11,}")
    print(f"holds the matrix: {result['holds_the_matrix']}; written to {RESULTS.name}")


if __name__ == "__main__":
    main()
