"""A GPU, through PyCUDA: its primary context, which TensorRT and onnxruntime share."""

from __future__ import annotations

import atexit
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from lineward.runtime.errors import EngineError

OLDEST_CAPABILITY = (8, 0)
"""Ampere: the first with cp.async and mma.m16n8k16. Jetson Orin is 8.7, Xavier (7.2) is too old."""


class Device:
    """One GPU, as `open_device` gives it. Contexts are made here and nowhere else.

    The primary context is retained, not a new one made: the CUDA runtime, and with it TensorRT and
    onnxruntime, always works in the primary one, so pointers and streams pass between us as they are.

    Args:
        ordinal: which GPU, as CUDA counts them.

    Attributes:
        cuda: the module `pycuda.driver`.
        name: the GPU's name.
        capability: compute capability, such as (8, 7).
        multiprocessors: how many streaming multiprocessors it has.

    Raises:
        EngineError: no PyCUDA, no driver, no such GPU, or one older than compute capability 8.0.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self.cuda: Any = _import_driver()
        device = _find(self.cuda, ordinal)
        self.name: str = device.name()
        major, minor = device.compute_capability()
        self.capability: tuple[int, int] = (major, minor)
        if self.capability < OLDEST_CAPABILITY:
            raise EngineError(
                f"{self.name} has compute capability {major}.{minor}; the fused kernel needs 8.0 or newer",
                do="use the onnxruntime engine on this device, or a Jetson Orin or newer",
            )
        self.multiprocessors: int = device.multiprocessor_count
        self._context: Any = device.retain_primary_context()
        # PyCUDA 2026.1 cannot give a primary context back in passing: its destructor calls cuCtxDetach, which
        # is not for primary contexts, and detach() leaves the context current on the calling thread. At the
        # end of the process that does no harm.
        atexit.register(self._context.detach)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context the calling thread's own, for as long as the block lasts.

        Raises:
            EngineError: the device ran out of memory, or the driver failed within the block.
        """
        self._context.push()
        try:
            yield
        except self.cuda.MemoryError as error:
            raise EngineError(
                f"{self.name} is out of memory ({error})",
                do="use a smaller bank (a lower bank size in the recipe), or free memory on the device",
            ) from error
        except self.cuda.Error as error:
            raise EngineError(
                f"CUDA failed on {self.name}: {error}",
                do="restart the process; if it happens again, report what `lineward selfcheck` says",
            ) from error
        finally:
            self.cuda.Context.pop()


@cache
def open_device(ordinal: int = 0) -> Device:
    """Open a GPU, once per process.

    It is never closed: its primary context is kept until the process ends, as the CUDA runtime keeps it.

    Raises:
        EngineError: as `Device`.
    """
    return Device(ordinal)


def _import_driver() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyCUDA warns before it raises the ImportError that says the same
            return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the fused kernel is launched through PyCUDA, which is not installed ({error})",
            do="pip install pycuda (built on the device: it needs the CUDA toolkit and a C++ compiler)",
        ) from error
    except ImportError as error:
        raise EngineError(
            f"PyCUDA found no NVIDIA driver that it can use ({error})",
            do="install the driver (on a Jetson: JetPack), or use the onnxruntime engine",
        ) from error


def _find(cuda: Any, ordinal: int) -> Any:
    try:
        cuda.init()
        return cuda.Device(ordinal)
    except cuda.Error as error:
        raise EngineError(
            f"no usable GPU number {ordinal} ({error})",
            do="check `nvidia-smi` (on a Jetson: `tegrastats`), or use the onnxruntime engine",
        ) from error
