"""The similarity stage on the CPU: how fast next to the machine's own matrix product, and how time and memory grow.

    python -m benchmarks.similarity [--rounds 30]

A few minutes on two cores; leave the machine alone meanwhile. 1,024 patches of 153 dimensions, 40 of them a patch's
own (EfficientNet-Lite0, strides 8 and 16, without the place of a patch), and banks of 2,048 to 65,536 random unit rows:
the time does not depend on what the rows hold. Rounds are interleaved, so that other work on the machine falls on all
alike.

- *effective rate*: 2 * patches * dimensions * rows / time, as if every patch were multiplied whole, next to the rate of
  onnxruntime's and numpy's own product of square matrices.
- *growth of time*: the exponent e of time = c * rows^e, fitted by least squares in logarithms to the medians; and since
  what comes with every call draws e below 1 where banks are small, also the line time = fixed + slope * rows, fitted by
  least squares of relative errors, and the greatest of these.
- *growth of memory*: for each bank a process of its own reads a bundle, opens it and inspects five frames; lines are
  fitted to what it holds then, and to the most it ever held.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.results_file import write_results
from lineward.export.bundle_bank import with_bank
from lineward.export.similarity_graph import OPSET, finish, similarity_graph
from lineward.export.synthetic import write_dataset
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import decode_bundle, encode_bundle, write_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.engines.onnxruntime import SimilaritySession, open_session, session_options
from lineward.runtime.images import find_images
from lineward.runtime.manifest import Grid, Split

SIDE, DIMENSIONS, SPLIT = 32, 153, Split(own=40, block=2)
COMPARED = (2048, 16384)
"""Rows at which the rate is compared with the machine's."""
GROWTH = (2048, 4096, 8192, 16384, 32768, 65536)
SQUARE = 1024
"""Side of the square matrices whose product is the machine's rate."""
_PAUSE = 0.1
"""Seconds between two: numpy's threads spin on for some 20 ms after a product."""
Rows = NDArray[np.float32]
Work = Callable[[], object]


def main() -> None:
    """Measure rate, growth of time and growth of memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.similarity", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    figures = {
        "patches": SIDE * SIDE,
        "dimensions": DIMENSIONS,
        "rounds": rounds,
        "rate": _rate(rounds),
        "time": _time(rounds),
        "memory": _memory(),
    }
    write_results("similarity", f"python -m benchmarks.similarity --rounds {rounds}", figures)


def _rate(rounds: int) -> dict[str, Any]:
    """Giga-operations a second: of square products, and effectively of the similarity with and without the split."""
    works: dict[str, Work] = {"onnxruntime's Gemm": _square_gemm(), "numpy's matmul": _square_matmul()}
    operations = dict.fromkeys(works, 2 * SQUARE**3)
    for rows in COMPARED:
        for name, split in (("split", SPLIT), ("plain", None)):
            works[f"{name}, {rows} rows"] = _similarity(rows, split)
            operations[f"{name}, {rows} rows"] = 2 * SIDE * SIDE * DIMENSIONS * rows
    seconds = _interleaved(works, rounds)
    rates = {name: operations[name] / statistics.median(times) / 1e9 for name, times in seconds.items()}
    fastest = {name: operations[name] / min(times) / 1e9 for name, times in seconds.items()}
    peak = max(list(rates.values())[:2])
    return {
        "median_gflops": _rounded(rates),
        "fastest_gflops": _rounded(fastest),
        "median_of_the_faster_square_product": _rounded({name: rate / peak for name, rate in rates.items()}, 3),
        "median_ms": _rounded({name: 1e3 * statistics.median(times) for name, times in seconds.items()}, 2),
    }


def _time(rounds: int) -> dict[str, Any]:
    """Milliseconds by rows, and the exponent."""
    found = {}
    for name, split in (("split", SPLIT), ("plain", None)):
        seconds = _interleaved({str(rows): _similarity(rows, split) for rows in GROWTH}, max(rounds // 2, 1))
        milliseconds = {rows: 1e3 * statistics.median(times) for rows, times in seconds.items()}
        medians = np.array(list(milliseconds.values()))
        exponent, _ = np.polyfit(np.log(GROWTH), np.log(medians), 1)
        slope, fixed = np.polyfit(GROWTH, medians, 1, w=1 / medians)
        off = np.abs((fixed + slope * np.array(GROWTH)) / medians - 1)
        found[name] = {
            "median_ms": _rounded(milliseconds, 2),
            "exponent": round(float(exponent), 3),
            "fixed_ms": round(float(fixed), 2),
            "ms_for_1024_rows": round(float(1024 * slope), 3),
            "greatest_relative_error_of_the_line": round(float(off.max()), 3),
        }
    return found


def _memory() -> dict[str, Any]:
    """MiB held by a process that inspects, by rows, and how much each MiB of bank adds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_dataset(folder / "parts", train=30, test_good=0, per_defect=0)
        recipe = Recipe(size=256, rows=512, false_reject_rate=0.2, position=0.0)
        bundle = decode_bundle(
            train(find_images([folder / "parts"]), "parts", recipe=recipe, progress=ConsoleProgress()), "parts"
        )
        banks, held, most = [], {}, {}
        for rows in GROWTH:
            bank = _unit_rows(rows, bundle.manifest.grid.dimensions)
            banks.append(bank.nbytes / 2**20)
            path = folder / "grown.lineward"
            grown = with_bank(bundle, bank)
            write_bundle(path, encode_bundle(grown.manifest, grown.members))
            child = subprocess.run([sys.executable, "-c", _INSPECT, path], check=True, capture_output=True, text=True)
            held[str(rows)], most[str(rows)] = (float(word) for word in child.stdout.split())
    return {
        "bank_mib": _rounded(dict(zip(map(str, GROWTH), banks, strict=True))),
        "held_mib": _rounded(held),
        "most_mib": _rounded(most),
        "held_for_each_mib_of_bank": round(float(np.polyfit(banks, list(held.values()), 1)[0]), 2),
        "most_for_each_mib_of_bank": round(float(np.polyfit(banks, list(most.values()), 1)[0]), 2),
    }


_INSPECT = """
import sys
import numpy as np
from lineward.runtime import Inspector, read_bundle
inspector = Inspector(read_bundle(sys.argv[1]))
for seed in range(5):
    inspector.inspect(np.random.RandomState(seed).randint(0, 256, (256, 256, 3)).astype(np.uint8))
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
print(*(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")))
"""


def _similarity(rows: int, split: Split | None) -> Work:
    """A run of the similarity stage as the engine does it."""
    graph = similarity_graph(Grid(SIDE, SIDE, DIMENSIONS, split), rows, 80)
    session = SimilaritySession(graph, _unit_rows(rows, DIMENSIONS))
    embeddings = _embeddings()
    return lambda: session.greatest(embeddings)


def _embeddings() -> Rows:
    """Unit embeddings that share what the split says, float32 [1, patches, dimensions]."""
    drawn = np.random.default_rng(1).normal(size=(SIDE, SIDE, DIMENSIONS))
    coarse = drawn[:: SPLIT.block, :: SPLIT.block, SPLIT.own :]
    coarse[..., -1] = 30
    drawn[..., SPLIT.own :] = coarse.repeat(SPLIT.block, axis=0).repeat(SPLIT.block, axis=1)
    unit = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    embeddings: Rows = unit.reshape(1, -1, DIMENSIONS).astype(np.float32)
    return embeddings


def _unit_rows(rows: int, dimensions: int) -> Rows:
    drawn = np.random.default_rng(0).standard_normal((rows, dimensions), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def _square_gemm() -> Work:
    tensor = helper.make_tensor("b", TensorProto.FLOAT, [SQUARE, SQUARE], _square().tobytes(), raw=True)
    shape = [SQUARE, SQUARE]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["a", "b"], ["c"], transB=1)],
        "square",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, shape)],
        initializer=[tensor],
    )
    model = finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]), "square")
    session = open_session(model, session_options())
    left = ort.OrtValue.ortvalue_from_numpy(_square())
    return lambda: session.run_with_ort_values(None, {"a": left})


def _square_matmul() -> Work:
    left, right = _square(), _square()
    product = np.empty_like(left)
    return lambda: np.matmul(left, right, out=product)


def _square() -> Rows:
    return np.random.default_rng(0).standard_normal((SQUARE, SQUARE), dtype=np.float32)


def _interleaved(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in rounds whose order is drawn anew; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    order = np.random.RandomState(0)
    with ConsoleProgress().step("rounds", rounds + 1) as advance:
        for done in range(rounds + 1):
            for name in order.permutation(list(works)):
                time.sleep(_PAUSE)
                works[name]()  # the processors are awake again
                start = time.perf_counter()
                works[name]()
                if done:
                    seconds[name].append(time.perf_counter() - start)
            advance(done + 1)
    return seconds


def _rounded(values: Mapping[str, float], digits: int = 1) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}


if __name__ == "__main__":
    main()
