"""The one seam between numbers and hardware."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.bundle import Bundle
from lineward.runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine
from lineward.runtime.errors import EngineError
from lineward.runtime.stages import StageEnded, nobody

PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt-provider": "TensorrtExecutionProvider",
}
"""Engines that are onnxruntime with one of its execution providers."""
TENSORRT = "tensorrt"
"""The engine that is the device's own TensorRT and the fused kernel."""
ENGINES = (*PROVIDERS, TENSORRT)


class Engine(Protocol):
    """Scores preprocessed images on some hardware."""

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Patch scores 1 - max cosine, float32 [N, rows, columns], of images, uint8 [N, height, width, 3].

        NaN where there is no such number, which rejects the part.
        """


def open_engine(bundle: Bundle, name: str = "cpu", threads: int | None = None, ended: StageEnded = nobody) -> Engine:
    """Open an engine by name: that one or an error, never another in its place.

    Args:
        bundle: what to run.
        name: one of `ENGINES`.
        threads: threads of the CPU to use; by default one for each core this process may use.
        ended: hears the embedding end, where the engine can tell it from the similarity.

    Raises:
        EngineError: no such engine, or this device cannot run it.
    """
    if name in PROVIDERS:
        return OnnxRuntimeEngine(bundle, threads, PROVIDERS[name], ended)
    if name == TENSORRT:
        from lineward.runtime.engines.tensorrt import open_tensorrt

        return open_tensorrt(bundle)
    raise EngineError(f"{name}: no such engine", do=f"choose {', '.join(ENGINES)}")


__all__ = ["ENGINES", "Engine", "OnnxRuntimeEngine", "open_engine"]
