"""Doubles of TensorRT and pycuda.driver that record every call and really compute, as late as a GPU may.

Work enqueued on a stream runs only when someone waits for it, so host memory that is reused too early, or a
result that is read too early, gives wrong numbers. Faults are switched on one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.cuda.device import Device
from lineward.runtime.errors import EngineError

FRAME = (4, 6, 3)
PATCHES, CHANNELS = 6, 5
MAX_BATCH = 3


@dataclass
class Bench:
    """What the doubles share: the record, the faults, the device's memory and its streams."""

    faults: set[str] = field(default_factory=set)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    memory: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    parser_errors: list[tuple[str, str, str]] = field(default_factory=list)
    output: tuple[str, tuple[int, ...]] = ("FLOAT", (-1, PATCHES, CHANNELS))
    depth: int = 0

    def record(self, *call: Any) -> None:
        self.calls.append(call)

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def view(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Device memory as an array; fails where it would leave its allocation."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert size <= self.memory[address].size
        return self.memory[address][:size].view(dtype).reshape(shape)

    def read(self, address: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """What the plan reads."""
        return self.view(address, shape, np.uint8)

    def write(self, address: int, values: NDArray[np.float32]) -> None:
        """What the plan writes."""
        np.copyto(self.view(address, values.shape, np.float32), values)


def embeddings_of(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 4, 6, 3] to [N, 6, 5]; a frame of 255 only becomes NaN."""
    flat = frames.reshape(-1, int(np.prod(FRAME))).astype(np.float32)
    weights = np.random.default_rng(7).normal(size=(flat.shape[1], PATCHES * CHANNELS)).astype(np.float32)
    rows = (flat @ weights).reshape(-1, PATCHES, CHANNELS)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-9
    rows[(frames == 255).all(axis=(1, 2, 3))] = np.nan
    return rows


class Stream:
    def __init__(self, bench: Bench) -> None:
        self.bench, self.waiting = bench, []
        self.handle = 1000 + len(bench.streams)
        bench.streams[self.handle] = self

    def enqueue(self, work: Callable[[], None]) -> None:
        assert self.bench.depth > 0, "no current context"
        self.waiting.append(work)

    def run(self, upto: int) -> None:
        for work in self.waiting[:upto]:
            work()
        del self.waiting[:upto]

    def synchronize(self) -> None:
        self.bench.record("stream.synchronize")
        self.run(len(self.waiting))


class Event:
    def __init__(self, bench: Bench) -> None:
        self.bench, self.stream = bench, None

    def record(self, stream: Stream) -> None:
        self.stream = stream
        stream.enqueue(self.mark)

    def mark(self) -> None:
        pass

    def synchronize(self) -> None:
        marks = [index for index, work in enumerate(self.stream.waiting) if work == self.mark]
        self.stream.run(marks[0] + 1 if marks else 0)


def cuda_double(bench: Bench) -> ModuleType:
    """A double of pycuda.driver."""
    cuda = ModuleType("cuda_double")
    cuda.Error = type("Error", (Exception,), {})
    cuda.MemoryError = type("MemoryError", (cuda.Error,), {})

    class Allocation:
        def __init__(self, size: int) -> None:
            if "memory" in bench.faults:
                raise cuda.MemoryError("cuMemAlloc failed: out of memory")
            assert bench.depth > 0, "no current context"
            self.address = 0x10000 * (1 + len(bench.memory))
            bench.memory[self.address] = np.full(size, 0xCD, np.uint8)

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            bench.record("free", self.address)

    def memcpy_htod_async(target: Allocation, source: NDArray[Any], stream: Stream) -> None:
        bench.record("htod", int(target), source.nbytes, stream.handle)
        if "copy" in bench.faults:
            raise cuda.Error("cuMemcpyHtoDAsync failed: an illegal memory access was encountered")
        stream.enqueue(lambda: np.copyto(bench.view(int(target), source.shape, source.dtype), source))

    def push(_: Any) -> None:
        bench.depth += 1

    def pop() -> None:
        bench.depth -= 1

    cuda.Stream = lambda: Stream(bench)
    cuda.mem_alloc = Allocation
    cuda.pagelocked_empty = lambda shape, dtype: np.empty(shape, dtype)
    cuda.memcpy_htod_async = memcpy_htod_async
    cuda.Context = type("Context", (), {"push": push, "pop": staticmethod(pop)})
    return cuda


def device_double(bench: Bench) -> Device:
    """A real `Device`, with its own handling of contexts and errors, on the double of pycuda.driver."""
    device = object.__new__(Device)
    device.cuda = cuda_double(bench)
    device.name = "a double"
    device._context = device.cuda.Context()
    return device


def bank() -> NDArray[np.float32]:
    """A memory bank, float32 [40, 5]."""
    rows = np.random.default_rng(3).normal(size=(40, CHANNELS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class SimilarityDouble:
    """Searches rows on the doubles' device; like the real one, at most two results may be unread."""

    def __init__(self, bench: Bench, bank: NDArray[np.float32], *, capacity: int, device: Device) -> None:
        self.bench, self.bank, self.capacity = bench, bank, capacity
        self.stream = device.cuda.Stream()
        self.stream_handle = self.stream.handle
        self.unread = 0

    def enqueue(self, embeddings: int, count: int) -> Pending:
        self.bench.record("similarity", embeddings, count)
        assert 1 <= count <= self.capacity
        if self.unread == 2 or "similarity" in self.bench.faults:
            raise EngineError("results have not been read", do="read them")
        self.unread += 1
        return Pending(self, embeddings, count)

    def close(self) -> None:
        self.bench.record("close")


class Pending:
    def __init__(self, owner: SimilarityDouble, embeddings: int, count: int) -> None:
        self.owner, self.similarity = owner, np.full(count, 7, np.float32)
        self.arrived = Event(owner.bench)
        owner.stream.enqueue(lambda: self.search(embeddings))
        self.arrived.record(owner.stream)

    def search(self, embeddings: int) -> None:
        rows = self.owner.bench.view(embeddings, (len(self.similarity), CHANNELS), np.float32)
        self.similarity[:] = (rows @ self.owner.bank.T).max(axis=1)

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.owner.bench.record("result", len(self.similarity))
        self.arrived.synchronize()
        self.owner.unread -= 1
        return self.similarity, np.zeros(len(self.similarity), np.int64)


def tensorrt_double(bench: Bench) -> ModuleType:
    """A double of the TensorRT module, for graphs of uint8 [-1, 4, 6, 3] to float32 [-1, 6, 5]."""
    trt = ModuleType("tensorrt_double")
    trt.__version__ = "10.3.0"
    trt.DataType = Enum("DataType", "UINT8 FLOAT HALF")
    trt.TensorIOMode = Enum("TensorIOMode", "INPUT OUTPUT")
    trt.MemoryPoolType = Enum("MemoryPoolType", "WORKSPACE")
    trt.BuilderFlag = Enum("BuilderFlag", "TF32")
    trt.NetworkDefinitionCreationFlag = type("NetworkDefinitionCreationFlag", (), {"STRONGLY_TYPED": 1})
    dtype, shape = bench.output
    tensors = {
        "images": (trt.TensorIOMode.INPUT, trt.DataType.UINT8, (-1, *FRAME)),
        "embeddings": (trt.TensorIOMode.OUTPUT, trt.DataType[dtype], shape),
    }

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    class ITensor:
        def __init__(self, name: str) -> None:
            self.name, (_, self.dtype, self.shape) = name, tensors[name]

    class INetworkDefinition:
        num_inputs = num_outputs = 1

        def get_input(self, _: int) -> ITensor:
            return ITensor("images")

        def get_output(self, _: int) -> ITensor:
            return ITensor("embeddings")

    class ParserError:
        def __init__(self, error: tuple[str, str, str]) -> None:
            self.node_name, self.node_operator, self.desc = ((lambda part=part: part) for part in error)

    class OnnxParser:
        def __init__(self, _: INetworkDefinition, logger: ILogger) -> None:
            self.logger = logger
            self.num_errors = len(bench.parser_errors)

        def parse(self, model: bytes) -> bool:
            bench.record("parse", model)
            return "parse" not in bench.faults and not bench.parser_errors

        def get_error(self, index: int) -> ParserError:
            return ParserError(bench.parser_errors[index])

    class IOptimizationProfile:
        def set_shape(self, *shapes: Any) -> None:
            bench.record("set_shape", *shapes)

    class IBuilderConfig:
        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            bench.record("set_memory_pool_limit", pool.name, size)

        def clear_flag(self, flag: Any) -> None:
            bench.record("clear_flag", flag.name)

        def add_optimization_profile(self, _: IOptimizationProfile) -> int:
            return -1 if "profile" in bench.faults else 0

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            if "builder" in bench.faults:
                logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int) -> INetworkDefinition:
            bench.record("create_network", flags)
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, _: INetworkDefinition, config: IBuilderConfig) -> bytearray | None:
            bench.record("build", config.builder_optimization_level)
            if "build" in bench.faults:
                self.logger.log(ILogger.WARNING, "tactic skipped")
                self.logger.log(ILogger.ERROR, "Could not find any implementation for node {ForeignNode}")
                return None
            return bytearray(b"a plan")

    class IExecutionContext:
        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}
            self.frames = 0

        def set_tensor_address(self, name: str, memory: int) -> bool:
            bench.record("set_tensor_address", name, memory)
            self.addresses[name] = memory
            return f"address of {name}" not in bench.faults

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            bench.record("set_input_shape", name, shape)
            self.frames = shape[0]
            return "shape" not in bench.faults

        def execute_async_v3(self, stream_handle: int) -> bool:
            bench.record("execute", stream_handle)
            executed = bench.names().count("execute")
            if "execute" in bench.faults or f"execute {executed}" in bench.faults:
                return False
            frames = self.frames
            bench.streams[stream_handle].enqueue(lambda: self.compute(frames))
            return True

        def compute(self, count: int) -> None:
            frames = bench.read(self.addresses["images"], (count, *FRAME))
            bench.write(self.addresses["embeddings"], embeddings_of(frames))

    class ICudaEngine:
        num_io_tensors = 2

        def get_tensor_name(self, index: int) -> str:
            return ("embeddings", "images")[index]

        def get_tensor_mode(self, name: str) -> Any:
            return tensors[name][0]

        def get_tensor_dtype(self, name: str) -> Any:
            return tensors[name][1]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tensors[name][2]

        def get_tensor_profile_shape(self, _: str, profile_index: int) -> list[tuple[int, ...]]:
            assert profile_index == 0
            return [(1, *FRAME), (1, *FRAME), (MAX_BATCH, *FRAME)]

        def create_execution_context(self) -> IExecutionContext | None:
            return None if "context" in bench.faults else IExecutionContext()

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            bench.record("deserialise", serialized_engine)
            if "deserialise" in bench.faults or serialized_engine == b"of another TensorRT":
                self.logger.log(ILogger.ERROR, "Version tag does not match")
                return None
            return ICudaEngine()

    for part in (ILogger, Builder, OnnxParser, Runtime):
        setattr(trt, part.__name__, part)
    trt.parts = (
        Builder,
        IBuilderConfig,
        ICudaEngine,
        INetworkDefinition,
        OnnxParser,
        Runtime,
        IOptimizationProfile,
    )
    return trt
