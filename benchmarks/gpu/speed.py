"""Time and memory of the fused kernel against cuBLAS matmul + max. Needs a GPU, PyCUDA and CuPy; `run.sh` runs it.

    python -m benchmarks.gpu.speed

Times are the GPU's own, by events around repeated launches. The roofline is measured on the same GPU: the rate of a
large square float16 product in cuBLAS, and that of a copy in memory.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import write_results
from lineward.runtime.cuda import Device, FusedSimilarity, open_device

QUERIES = (784, 1024, 4096)
ROWS = (2_000, 16_000, 100_000)
CHANNELS = (160, 384, 1024)
REPEATS, ROUNDS = 20, 5
SQUARE = 8192
COPIED = 1 << 30


def main() -> None:
    """Measure every shape, round after round with cuBLAS, and write the results."""
    cupy, device = importlib.import_module("cupy"), open_device()
    peak, bandwidth = _matmul_rate(cupy), _copy_rate(cupy)
    rows = [_shape(cupy, device, shape, peak) for shape in itertools.product(QUERIES, ROWS, CHANNELS)]
    figures = {
        "gpu": device.name,
        "capability": device.capability,
        "cupy": cupy.__version__,
        "matmul_tflops": round(peak / 1e12, 1),
        "copy_gb_per_s": round(bandwidth / 1e9, 1),
        "rows": rows,
    }
    write_results("gpu_speed", "python -m benchmarks.gpu.speed", figures)


def _shape(cupy: Any, device: Device, shape: tuple[int, int, int], peak: float) -> dict[str, Any]:
    queries, bank = (_unit_rows(count, shape[2], seed) for seed, count in enumerate(shape[:2]))
    cupy.get_default_memory_pool().free_all_blocks()
    halves = [cupy.asarray(rows, dtype=cupy.float16) for rows in (queries, bank)]
    with FusedSimilarity(bank, capacity=len(queries), device=device) as fused:
        with device.current():
            embeddings = device.cuda.to_device(queries)

        def ours() -> None:
            fused._search(int(embeddings), len(queries), "f32")

        times = [(_on_device(device, fused, ours), _on_cupy(cupy, halves)) for _ in range(ROUNDS)]
        held = fused.device_bytes
        with device.current():
            embeddings.free()
    fused_ms, cublas_ms = (float(np.median(column)) for column in zip(*times, strict=True))
    rate = 2 * float(np.prod(shape)) / (fused_ms * 1e-3)
    row = {
        **dict(zip(("queries", "rows", "channels"), shape, strict=True)),
        "fused_ms": round(fused_ms, 4),
        "cublas_ms": round(cublas_ms, 4),
        "times_faster": round(cublas_ms / fused_ms, 2),
        "share_of_matmul_rate": round(rate / peak, 3),
        "fused_bytes": held,
        "cublas_bytes": int(cupy.get_default_memory_pool().total_bytes()),
    }
    print(row, flush=True)
    return row


def _on_device(device: Device, fused: FusedSimilarity, run: Callable[[], None]) -> float:
    """Milliseconds of one run, by events on the kernel's own stream."""
    cuda = device.cuda
    with device.current():
        begin, end = cuda.Event(), cuda.Event()
        run()
        begin.record(fused.stream)
        for _ in range(REPEATS):
            run()
        end.record(fused.stream)
        end.synchronize()
        return float(end.time_since(begin)) / REPEATS


def _on_cupy(cupy: Any, halves: list[Any]) -> float:
    queries, transposed = halves[0], halves[1].T
    return _cupy_ms(cupy, lambda: (queries @ transposed).max(axis=1))


def _cupy_ms(cupy: Any, run: Callable[[], object]) -> float:
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    run()
    begin.record()
    for _ in range(REPEATS):
        run()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(begin, end)) / REPEATS


def _matmul_rate(cupy: Any) -> float:
    """Operations a second of a float16 product of two large squares."""
    square = cupy.ones((SQUARE, SQUARE), cupy.float16)
    return 2 * SQUARE**3 / (_cupy_ms(cupy, lambda: square @ square) * 1e-3)


def _copy_rate(cupy: Any) -> float:
    """Bytes read and written a second by a copy."""
    source, target = (cupy.empty(COPIED, cupy.uint8) for _ in range(2))
    return 2 * COPIED / (_cupy_ms(cupy, lambda: cupy.copyto(target, source)) * 1e-3)


def _unit_rows(count: int, width: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    main()
