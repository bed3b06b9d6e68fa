"""The fused kernel beside the usual way: cuBLAS matmul, then a maximum, by CuPy where that is installed."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.cuda.device import Device
from lineward.runtime.cuda.similarity import GREATEST_LOSS, FusedSimilarity
from lineward.runtime.errors import EngineError

_ROUNDS = 21


def beside_cublas(device: Device, queries: NDArray[np.float32], bank: NDArray[np.float32]) -> str:
    """Time both on the same embeddings, which lie on the GPU beforehand; only the maxima come back.

    Args:
        device: the GPU.
        queries: unit rows, float32 [Q, C].
        bank: unit rows, float32 [M, C].

    Returns:
        What was found, in words: medians of interleaved rounds, and device memory.

    Raises:
        EngineError: the two disagree, or the device failed.
        ImportError: there is no CuPy.
    """
    cupy: Any = importlib.import_module("cupy")
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    held_before = pool.total_bytes()
    halves, transposed = cupy.asarray(queries, dtype=cupy.float16), cupy.asarray(bank, dtype=cupy.float16).T
    with FusedSimilarity(bank, capacity=len(queries), device=device) as fused:
        with device.current():
            embeddings = device.cuda.to_device(queries)

        def ours() -> Any:
            return fused.enqueue(int(embeddings), len(queries)).result()[0]

        def theirs() -> Any:
            return (halves @ transposed).max(axis=1).get()

        # The product is rounded to float16, to within 2^-11 of 1.
        if not np.allclose(ours(), theirs(), rtol=0, atol=GREATEST_LOSS + 2**-11):
            raise EngineError("the kernel and cuBLAS disagree", do="do not inspect with this GPU; report this")
        rounds = [(_seconds(ours), _seconds(theirs)) for _ in range(_ROUNDS)]
        memory = fused.device_bytes
        with device.current():
            embeddings.free()
    fused_ms, cublas_ms = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
    theirs_held = pool.total_bytes() - held_before
    return (
        f"{len(queries)} x {len(bank)} x {bank.shape[1]}: kernel {fused_ms:.2f} ms, {memory / 2**20:.1f} MiB; "
        f"cuBLAS matmul + max {cublas_ms:.2f} ms, {theirs_held / 2**20:.1f} MiB"
    )


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
