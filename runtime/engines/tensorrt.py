"""The TensorRT engine: embedding and similarity on one CUDA stream, with no host copy between them.

Pinned frames -> device -> TensorRT -> embeddings on the device -> fused similarity -> pinned host memory.

Verified with a double of TensorRT: on a double of PyCUDA (order of calls, addresses, stream, batch sizes,
failures), and on real PyCUDA with the shipped kernel on an emulated GPU. Never run on a real device.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType, TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.bundle import EMBEDDING, Bundle
from lineward.runtime.cuda.device import Device, open_device
from lineward.runtime.cuda.similarity import FusedSimilarity
from lineward.runtime.errors import EngineError, ImageError, first_line
from lineward.runtime.tensorrt.api import IExecutionContext
from lineward.runtime.tensorrt.builder import PlanOptions, build_plan
from lineward.runtime.tensorrt.plan import LoadedPlan, load_cached_plan, plan_key
from lineward.runtime.tensorrt.plan_cache import PlanCache

FREE_MEMORY = "Stop other programs that use the GPU, or build the plan with a smaller max_batch."
RESTART = "Start the station again; if it happens again, run `lineward selfcheck` and report what it prints."
AS_EXPORTED = "as in the graph"
"""The precision of a plan: the ONNX file has it, and TensorRT is strongly typed."""
NOT_A_COSINE = 1e-3
"""How far beyond 1 a similarity may lie before it counts as wrong: unit rows in float32 stay within 1e-5."""


class Result(Protocol):
    """Similarities on their way from the GPU."""

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Waits; similarity float32 [count] and bank index int64 [count]."""


class Similarity(Protocol):
    """What the engine needs of `FusedSimilarity`."""

    stream: Any
    stream_handle: int

    def enqueue(self, embeddings: int, count: int) -> Result:
        """Starts the search for `count` float32 rows at a device address; two results may be unread."""

    def close(self) -> None:
        """Frees its device memory."""


class MakeSimilarity(Protocol):
    """The class `FusedSimilarity`, or its double."""

    def __call__(self, bank: NDArray[np.float32], *, capacity: int, device: Device) -> Similarity:
        """Puts a bank, float32 [M, C], on a device."""


class TensorRTEngine:
    """Scores frames with a TensorRT plan and the fused similarity kernel.

    Two pinned buffers alternate, so the host fills one batch while the device works on the other. Not for use
    by several threads at once.

    Args:
        device: the GPU; its primary context is the one that TensorRT uses.
        plan: the embedding plan.
        bank: the memory bank, unit rows, float32 [M, C].
        grid: (rows, cols) of patches; their product is the plan's P.
        similarity: makes the search from bank, capacity in patches and device.

    Raises:
        EngineError: plan, grid and bank do not fit each other, or the device has too little memory.
    """

    def __init__(
        self,
        device: Device,
        plan: LoadedPlan,
        bank: NDArray[np.float32],
        grid: tuple[int, int],
        similarity: MakeSimilarity = FusedSimilarity,
    ) -> None:
        _check_fit(plan, bank, grid)
        self._device, self._plan, self._grid = device, plan, grid
        frames = (plan.max_batch, *plan.frame_shape)
        patches, channels = plan.embedding_shape
        self._similarity = similarity(bank, capacity=plan.max_batch * patches, device=device)
        with device.current():
            cuda = device.cuda
            self._execution = _execution_context(plan)
            self._pinned = [cuda.pagelocked_empty(frames, np.uint8) for _ in range(2)]
            self._frames = cuda.mem_alloc(int(np.prod(frames)))
            self._embeddings = cuda.mem_alloc(plan.max_batch * patches * channels * 4)
        self._bind(plan.frames, self._frames)
        self._bind(plan.embeddings, self._embeddings)

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Patch scores of frames; more than the plan's batch are taken in turns.

        Args:
            images: uint8 [N, H, W, 3], RGB, of the plan's height and width.

        Returns:
            `1 - max cosine`, float32 [N, rows, cols], in [0, 2]; NaN where there is no such number.

        Raises:
            ImageError: images of another type or shape.
            EngineError: the device failed; this call has no scores.
        """
        self._check_images(images)
        scores = np.full((len(images), self._plan.embedding_shape[0]), np.nan, np.float32)
        pending: deque[tuple[NDArray[np.float32], Result]] = deque()
        step = self._plan.max_batch
        with self._device.current(), self._settled(pending):
            for turn, start in enumerate(range(0, len(images), step)):
                if len(pending) == len(self._pinned):
                    _collect(pending)
                batch = slice(start, start + step)
                pending.append((scores[batch], self._enqueue(images[batch], self._pinned[turn % 2])))
            while pending:
                _collect(pending)
        return scores.reshape(-1, *self._grid)

    def _enqueue(self, images: NDArray[np.uint8], pinned: NDArray[np.uint8]) -> Result:
        """Starts one batch. The next overwrites the embeddings, but the stream puts it after this one."""
        count = len(images)
        pinned[:count] = images
        self._device.cuda.memcpy_htod_async(self._frames, pinned[:count], self._similarity.stream)
        accepted = self._execution.set_input_shape(self._plan.frames, (count, *self._plan.frame_shape))
        if not (accepted and self._execution.execute_async_v3(self._similarity.stream_handle)):
            reason = self._plan.messages.reason()
            raise EngineError(f"TensorRT cannot execute {count} frames: {reason}", do=RESTART)
        return self._similarity.enqueue(int(self._embeddings), count * self._plan.embedding_shape[0])

    @contextmanager
    def _settled(self, pending: deque[tuple[NDArray[np.float32], Result]]) -> Iterator[None]:
        """After a failure, waits until nothing is in flight, so that the next call can fill the buffers."""
        try:
            yield
        except BaseException:
            for _, result in pending:
                with suppress(EngineError):
                    result.result()
            self._similarity.stream.synchronize()
            raise

    def _bind(self, tensor: str, address: Any) -> None:
        if not self._execution.set_tensor_address(tensor, int(address)):
            raise EngineError(f"TensorRT refuses the buffer of {tensor}: {self._plan.messages.reason()}", do=RESTART)

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self._plan.frame_shape:
            wanted = ", ".join(map(str, self._plan.frame_shape))
            raise ImageError(
                f"Frames are {images.dtype} {list(images.shape)}, the plan takes uint8 [N, {wanted}]",
                do="Preprocess the frames as the bundle's manifest says.",
            )

    def close(self) -> None:
        """Frees the device memory."""
        self._similarity.close()
        with self._device.current():
            self._frames.free()
            self._embeddings.free()
            del self._execution

    def __enter__(self) -> TensorRTEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_tensorrt(bundle: Bundle, cache: PlanCache | None = None, options: PlanOptions | None = None) -> TensorRTEngine:
    """Open the engine for a bundle, from a cached plan where there is one; else the plan is built, which takes minutes.

    Args:
        bundle: what to run; the precision is that of its graph.
        cache: where plans are kept.
        options: how to build a plan.

    Raises:
        EngineError: no TensorRT, no PyCUDA, no GPU that serves, or the plan cannot be built.
    """
    trt, device = import_tensorrt(), open_device()
    graph, grid = bundle.members[EMBEDDING], bundle.manifest.grid
    options = options or PlanOptions()
    key = plan_key(trt, graph, AS_EXPORTED, device.capability, options)
    with device.current():  # TensorRT builds and loads in the context of the calling thread
        plan = load_cached_plan(trt, cache or PlanCache(), key, lambda: build_plan(trt, graph, options))
    return TensorRTEngine(device, plan, bundle.bank, (grid.rows, grid.columns))


def import_tensorrt() -> ModuleType:
    """The device's own TensorRT.

    Raises:
        EngineError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise EngineError(
            f"TensorRT cannot be imported ({first_line(error)})",
            do="on a Jetson: apt-get install python3-libnvinfer, and make the virtual environment with "
            "--system-site-packages; or use the engine cpu",
        ) from error


def patch_scores(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """`1 - similarity`, same shape, in [0, 2]; NaN where the similarity is no cosine: it must not pass."""
    cosine = np.abs(similarity) <= 1 + NOT_A_COSINE
    return np.where(cosine, np.clip(1 - similarity, 0, 2), np.float32(np.nan))


def _collect(pending: deque[tuple[NDArray[np.float32], Result]]) -> None:
    scores, result = pending.popleft()
    similarity, _ = result.result()
    scores[:] = patch_scores(similarity).reshape(scores.shape)


def _execution_context(plan: LoadedPlan) -> IExecutionContext:
    execution = plan.engine.create_execution_context()
    if execution is None:
        reason = plan.messages.reason()
        raise EngineError(f"TensorRT cannot make an execution context: {reason}", do=FREE_MEMORY)
    return execution


def _check_fit(plan: LoadedPlan, bank: NDArray[np.float32], grid: tuple[int, int]) -> None:
    patches, channels = plan.embedding_shape
    if grid[0] * grid[1] != patches or bank.shape[1:] != (channels,):
        raise EngineError(
            f"The plan gives {patches} patches of {channels} channels; "
            f"the grid is {grid[0]} x {grid[1]} and the bank {list(bank.shape)}",
            do="Build the plan from the graph of this very bundle.",
        )
