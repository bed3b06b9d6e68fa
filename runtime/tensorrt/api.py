"""The part of TensorRT's Python API that Lineward uses, stated as protocols.

Each class carries the name of the TensorRT class it stands for and declares only members that exist in
TensorRT 10.3, 10.13 and 11.4, so the type checker refuses any other use. A test compares these declarations,
and every `trt.X.Y` in the modules that take `trt`, with the API recorded from those three releases.

Shapes are sequences of int with -1 for the dynamic batch; device addresses and stream handles are plain ints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Shape = Sequence[int]


class ILogger(Protocol):
    """Receives what TensorRT has to say."""


class ITensor(Protocol):
    """A tensor of a network that is being built."""

    name: str
    shape: Shape
    dtype: object


class INetworkDefinition(Protocol):
    """The parsed graph."""

    num_inputs: int
    num_outputs: int

    def get_input(self, index: int) -> ITensor:
        """The network's input of that index."""

    def get_output(self, index: int) -> ITensor:
        """The network's output of that index."""


class ParserError(Protocol):
    """One reason why the parser refused a graph."""

    def node_name(self) -> str:
        """Name of the refused node; empty where the file gives it none."""

    def node_operator(self) -> str:
        """ONNX operator of the refused node; empty when the whole file is refused."""

    def desc(self) -> str:
        """The reason, in TensorRT's words."""


class OnnxParser(Protocol):
    """Fills a network from ONNX bytes; it owns the weights, so it must outlive the build."""

    num_errors: int

    def parse(self, model: bytes) -> bool:
        """Parses a serialised ONNX model; False when it was refused."""

    def get_error(self, index: int) -> ParserError:
        """The refusal of that index."""


class IOptimizationProfile(Protocol):
    """The range of shapes that a plan accepts, and the one it is tuned for."""

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:
        """Sets the range of one input."""


class IBuilderConfig(Protocol):
    """How to build."""

    builder_optimization_level: int

    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None:
        """Limits a memory pool, in bytes."""

    def clear_flag(self, flag: object) -> None:
        """Switches a builder flag off."""

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Adds a profile; its index, or -1 when it is not valid."""


class IHostMemory(Protocol):
    """A serialised plan in host memory."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """The plan's bytes."""


class Builder(Protocol):
    """Turns a network into a serialised plan."""

    def create_network(self, flags: int) -> INetworkDefinition:
        """An empty network; `flags` is a bit mask."""

    def create_builder_config(self) -> IBuilderConfig:
        """A configuration with TensorRT's defaults."""

    def create_optimization_profile(self) -> IOptimizationProfile:
        """An empty profile, owned by the builder."""

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        """The plan; None when it could not be built."""


class IExecutionContext(Protocol):
    """One execution of an engine at a time, with its own scratch memory on the device."""

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        """Sets the shape of an input for the next executions; False when outside the profile."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Sets the device address of an input or output; False when refused."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueues one execution on a CUDA stream; False when refused."""


class ICudaEngine(Protocol):
    """A deserialised plan."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str:
        """Name of the input or output of that index."""

    def get_tensor_mode(self, name: str) -> object:
        """Whether the tensor is an input or an output."""

    def get_tensor_dtype(self, name: str) -> object:
        """Element type of the tensor."""

    def get_tensor_shape(self, name: str) -> Shape:
        """Shape of the tensor, -1 where dynamic."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Shape]:
        """The input's smallest, tuned and largest shape."""

    def create_execution_context(self) -> IExecutionContext | None:
        """A context; None when the device has no memory for it."""


class Runtime(Protocol):
    """Turns a serialised plan into an engine on this device."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """The engine; None when the plan does not fit this TensorRT or device."""
