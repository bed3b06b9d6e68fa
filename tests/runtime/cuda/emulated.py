"""The shipped kernels on the CPU emulator: compiles fused_max.cu with g++ and calls it through ctypes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
EMULATOR = HERE / "emulator"
SHIPPED = HERE.parents[2] / "runtime" / "cuda"

WHEELS = Path(os.environ.get("LINEWARD_WHEELS", Path.home() / ".cache" / "lineward" / "wheels"))
PYCUDA = WHEELS / f"pycuda-2026.1-cp{sys.version_info[0]}{sys.version_info[1]}"
"""Where build_pycuda.sh leaves PyCUDA."""
PYCUDA_IS_BUILT = (PYCUDA / ".complete").exists()


class LaunchError(RuntimeError):
    """A kernel did what a GPU must not be asked to do; the message says what, and which thread."""


@dataclass(frozen=True)
class Winners:
    """What fused_max leaves, the 64-bit keys and what they say; and what it took."""

    keys: NDArray[np.uint64]
    similarity: NDArray[np.float32]
    index: NDArray[np.int64]
    bank_conflicts: int
    tile_products: int


def compile_emulated(unit: str, library: Path, kernels: Path = SHIPPED) -> Path:
    """Compile emulator/`unit` with the .cu and .h found in `kernels` into a shared library."""
    command = ["g++", "-O1", "-std=c++17", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    command += [f"-I{kernels}", f"-I{EMULATOR}", str(EMULATOR / unit), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def aligned(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Copy to a 16-byte aligned address, as cp.async needs and as every CUDA allocation is."""
    room = np.empty(array.nbytes + 16, np.uint8)
    start = -room.ctypes.data % 16
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def decode(keys: NDArray[np.uint64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read keys as (similarity, index), independently of the kernel's own reading."""
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & 0x7FFFFFFF, ~ordered)
    return bits.view(np.float32), (~keys.astype(np.uint32)).view(np.int32).astype(np.int64)


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def _checked(reason: bytes | None) -> None:
    if reason is not None:
        raise LaunchError(reason.decode())


class EmulatedKernels:
    """The kernels of one compiled kernels.cpp."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.run_key.restype = ctypes.c_uint64
        self._lib.run_key.argtypes = [ctypes.c_float, ctypes.c_uint32]
        for run in (self._lib.run_max, self._lib.run_narrow, self._lib.run_rescore):
            run.restype = ctypes.c_char_p

    def key(self, similarity: float, index: int) -> int:
        return int(self._lib.run_key(similarity, index))

    def max(self, queries: NDArray[np.float16], bank: NDArray[np.float16], splits: int = 1, seed: int = 0) -> Winners:
        """Run fused_max over half [nq, width] and half [nb, width]."""
        queries, bank = aligned(queries), aligned(bank)
        (nq, width), nb = queries.shape, len(bank)
        keys, conflicts, products = np.zeros(nq, np.uint64), ctypes.c_uint64(), ctypes.c_uint64()
        arguments = (_pointer(queries), _pointer(bank), nq, nb, width, splits, seed, _pointer(keys))
        _checked(self._lib.run_max(*arguments, ctypes.byref(conflicts), ctypes.byref(products)))
        return Winners(keys, *decode(keys), conflicts.value, products.value)

    def narrow(self, rows: NDArray[np.floating], padded: int, blocks: int = 1) -> NDArray[np.float16]:
        """Run narrow_f32 or narrow_f16 over [n, width]; the result is [n, padded]."""
        out = np.full((len(rows), padded), 7, np.float16)
        half = int(rows.dtype == np.float16)
        _checked(self._lib.run_narrow(_pointer(rows), half, *rows.shape, padded, blocks, _pointer(out)))
        return out

    def rescore(
        self, queries: NDArray[np.floating], bank: NDArray[np.float32], keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Run rescore_f32 or rescore_f16 over [nq, width], [nb, width] and keys [nq]."""
        (nq, width), nb = queries.shape, len(bank)
        similarity, index = np.full(nq, 7, np.float32), np.full(nq, 7, np.int32)
        half = int(queries.dtype == np.float16)
        arguments = (_pointer(queries), half, _pointer(bank), _pointer(keys), nq, nb, width)
        _checked(self._lib.run_rescore(*arguments, _pointer(similarity), _pointer(index)))
        return similarity, index.astype(np.int64)
