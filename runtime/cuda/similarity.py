"""Similarity of patch embeddings to the memory bank, on the GPU: max_m <u, b_m>, and which m."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.cuda.device import Device, open_device
from lineward.runtime.cuda.module import load_kernels
from lineward.runtime.errors import EngineError

# As in fused_max.cu; a test compares them.
QUERIES_PER_BLOCK = 64
ROWS_PER_TILE = 128
SLICE = 32
THREADS = 128

# Shared memory (46 080 bytes per block) lets three blocks reside on an Orin multiprocessor, four on Hopper.
BLOCKS_PER_MULTIPROCESSOR = 3
# Results in flight: one being read on the host while the next is computed.
SLOTS = 2

GREATEST_LOSS = 2**-9
"""By how much a similarity of unit rows may be too low, because the winner is found in half precision."""


@dataclass
class _Slot:
    """Pinned memory for one result, and the event that says it has arrived."""

    words: NDArray[np.int32]
    arrived: Any
    free: bool = True


class Pending:
    """A result on its way from the GPU. Read it once, with `result`."""

    def __init__(self, device: Device, slot: _Slot, count: int) -> None:
        self._device, self._slot, self._count = device, slot, count

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Wait for the result and free its buffer.

        Returns:
            Similarity, float32 [count], and index of the nearest bank row, int64 [count]. A query that met a
            NaN has similarity NaN; one that no row won has similarity NaN and index -1.

        Raises:
            EngineError: the GPU failed, or the result was already read.
        """
        if self._slot.free:
            raise EngineError("this result was already read", do="keep what the first call of result() returned")
        with self._device.current():
            self._slot.arrived.synchronize()
        words = self._slot.words[: 2 * self._count].copy()
        self._slot.free = True
        return words[: self._count].view(np.float32), words[self._count :].astype(np.int64)


class FusedSimilarity:
    """Nearest bank row of every query, with the bank resident on the GPU.

    The kernel finds the winner in half precision and then computes its score in float32 from the float32
    bank, so scores owe nothing to rounding to half, but for one thing: of rows whose similarities lie within
    about 2^-9 of each other it may pick one that is not the first. Similarity is then too low by at most
    that, and never too high. Both copies of the bank stay on the device: 4 M C + 2 M ceil32(C) bytes.

    Embeddings stay on the device too: `enqueue` takes the pointer that TensorRT wrote to, and per query
    8 bytes come back. Give `stream_handle` to TensorRT's `execute_async_v3`, so that both work on one stream.
    (PyCUDA can hand out a stream's handle but not adopt one, hence the direction.)

    Any thread may use it, but only one at a time.

    Verified through PyCUDA on an emulated driver and GPU. Not yet run on a GPU.

    Args:
        bank: float32 [M, C], finite; unit rows, if the result is to be a cosine.
        capacity: the most queries in one call.
        device: the GPU; by default number 0.

    Attributes:
        origin: which build of the kernel was loaded.
        stream: the `pycuda.driver.Stream` on which everything runs.
        stream_handle: the same, as CUDA's integer handle.
        device_bytes: device memory in use.

    Raises:
        EngineError: the bank is not as described, no usable GPU, or too little memory on it.
    """

    def __init__(self, bank: NDArray[np.float32], *, capacity: int = 4096, device: Device | None = None) -> None:
        _check_bank(bank)
        if capacity < 1:
            raise EngineError(f"capacity is {capacity}", do="give the number of patches in a frame")
        self._rows, self._width = bank.shape
        self._padded = -(-self._width // SLICE) * SLICE
        self._capacity = capacity
        self._device = device or open_device()
        self._buffers: list[Any] = []
        self._closed = False
        self.device_bytes = 0
        self.stream: Any = None
        self._kernels: Any = None
        self._slots: list[_Slot] = []
        self._staging: tuple[NDArray[np.float32], int] | None = None
        try:
            with self._device.current():
                self._prepare(bank)
        except BaseException:
            self.close()
            raise

    def _prepare(self, bank: NDArray[np.float32]) -> None:
        cuda = self._device.cuda
        self._kernels = load_kernels(self._device)
        self.origin = self._kernels.origin
        self.stream = cuda.Stream()
        self.stream_handle: int = self.stream.handle
        self._bank = self._allocate(bank.nbytes)
        self._bank_half = self._allocate(2 * self._rows * self._padded)
        self._queries_half = self._allocate(2 * self._capacity * self._padded)
        self._best = self._allocate(8 * self._capacity)
        self._results = self._allocate(8 * self._capacity)
        self._slots = [_Slot(cuda.pagelocked_empty(2 * self._capacity, np.int32), cuda.Event()) for _ in range(SLOTS)]
        cuda.memcpy_htod(self._bank, np.ascontiguousarray(bank))
        self._narrow("narrow_f32", self._bank, self._rows, self._bank_half)
        self.stream.synchronize()

    def _allocate(self, size: int) -> int:
        buffer = self._device.cuda.mem_alloc(size)
        self._buffers.append(buffer)
        self.device_bytes += size
        return int(buffer)

    def enqueue(self, embeddings: int, count: int, dtype: Literal["float32", "float16"] = "float32") -> Pending:
        """Start the search for `count` embeddings that are, or will be by stream order, on the device.

        Args:
            embeddings: device pointer to [count, C] row-major; must stay as it is until the result is read.
            count: number of queries, 1 to `capacity`.
            dtype: of the embeddings.

        Raises:
            EngineError: `count` or `dtype` out of range, two results still unread, closed, or the GPU failed.
        """
        if self._closed:
            raise EngineError("this FusedSimilarity is closed", do="make another")
        if not 1 <= count <= self._capacity:
            raise EngineError(f"{count} queries, not 1 to {self._capacity}", do="make it with a larger capacity")
        suffix = {"float32": "f32", "float16": "f16"}.get(dtype)
        if suffix is None:
            raise EngineError(f"embeddings are {dtype}", do="give float32 or float16 embeddings")
        slot = next((slot for slot in self._slots if slot.free), None)
        if slot is None:
            raise EngineError(f"{SLOTS} results have not been read", do="call result() on the oldest first")
        with self._device.current():
            self._search(embeddings, count, suffix)
            self._device.cuda.memcpy_dtoh_async(slot.words[: 2 * count], self._results, self.stream)
            slot.arrived.record(self.stream)
        slot.free = False
        return Pending(self._device, slot, count)

    def _search(self, embeddings: int, count: int, suffix: str) -> None:
        self._narrow(f"narrow_{suffix}", embeddings, count, self._queries_half)
        self._device.cuda.memset_d32_async(self._best, 0, 2 * count, self.stream)
        tiles = _ceil_div(self._rows, ROWS_PER_TILE)
        groups = _ceil_div(count, QUERIES_PER_BLOCK)
        per_split = tiles_per_split(tiles, groups, self._device.multiprocessors)
        self._launch(
            "fused_max",
            (groups, _ceil_div(tiles, per_split)),
            *_pointers(self._queries_half, self._bank_half),
            *_integers(count, self._rows, self._padded, per_split),
            *_pointers(self._best),
        )
        self._launch(
            f"rescore_{suffix}",
            (_ceil_div(32 * count, THREADS), 1),
            *_pointers(embeddings, self._bank, self._best),
            *_integers(count, self._width),
            *_pointers(self._results, self._results + 4 * count),
        )

    def _narrow(self, kernel: str, rows: int, count: int, halves: int) -> None:
        grid = min(_ceil_div(count * self._padded, THREADS), 16 * self._device.multiprocessors)
        sizes = _integers(count, self._width, self._padded)
        self._launch(kernel, (grid, 1), *_pointers(rows), *sizes, *_pointers(halves))

    def _launch(self, kernel: str, grid: tuple[int, int], *arguments: np.number[Any]) -> None:
        self._kernels.function(kernel)(*arguments, grid=grid, block=(THREADS, 1, 1), stream=self.stream)

    def similarity(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search for embeddings that are on the host; any number of them.

        Args:
            queries: float32 [Q, C].

        Returns:
            As `Pending.result`.

        Raises:
            EngineError: the shape or type is not as described, or the GPU failed.
        """
        if queries.dtype != np.float32 or queries.ndim != 2 or queries.shape[1] != self._width:
            raise EngineError(
                f"queries are {queries.dtype} {list(queries.shape)}, not float32 [Q, {self._width}]",
                do="give the embeddings that belong to this bank",
            )
        if self._closed:
            raise EngineError("this FusedSimilarity is closed", do="make another")
        parts = [self._from_host(queries[i : i + self._capacity]) for i in range(0, len(queries), self._capacity)]
        empty = (np.empty(0, np.float32), np.empty(0, np.int64))
        similarity, index = zip(*(parts or [empty]), strict=True)
        return np.concatenate(similarity), np.concatenate(index)

    def _from_host(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        with self._device.current():
            if self._staging is None:
                shape = (self._capacity, self._width)
                pinned = self._device.cuda.pagelocked_empty(shape, np.float32)
                self._staging = pinned, self._allocate(pinned.nbytes)
            pinned, embeddings = self._staging
            pinned[: len(queries)] = queries
            self._device.cuda.memcpy_htod_async(embeddings, pinned[: len(queries)], self.stream)
        return self.enqueue(embeddings, len(queries)).result()

    def close(self) -> None:
        """Free all device memory. Results not yet read are lost."""
        if self._closed:
            return
        self._closed = True
        with self._device.current():
            for buffer in self._buffers:
                buffer.free()
            self._buffers.clear()
            self.device_bytes = 0
            self._slots, self._staging = [], None
            self.stream = self._kernels = None

    def __enter__(self) -> FusedSimilarity:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tiles_per_split(tiles: int, query_groups: int, multiprocessors: int) -> int:
    """How many bank tiles one block works through: few enough that blocks fill the GPU once.

    More blocks would only repeat the pipeline's start; fewer would leave multiprocessors idle. Not measured.
    """
    wanted = _ceil_div(BLOCKS_PER_MULTIPROCESSOR * multiprocessors, query_groups)
    return _ceil_div(tiles, min(wanted, tiles))


def _check_bank(bank: NDArray[np.float32]) -> None:
    if bank.dtype != np.float32 or bank.ndim != 2 or 0 in bank.shape:
        raise EngineError(f"the bank is {bank.dtype} {list(bank.shape)}, not float32 [M, C]", do="rebuild the bundle")
    if not np.isfinite(bank).all():
        raise EngineError("the bank holds NaN or infinity", do="rebuild the bundle")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _pointers(*addresses: int) -> list[np.number[Any]]:
    return [np.uintp(address) for address in addresses]


def _integers(*values: int) -> list[np.number[Any]]:
    return [np.int32(value) for value in values]
