"""Builds a TensorRT plan from the embedding graph: one code path for TensorRT 10.3 to 11.x.

The network is strongly typed, always: the precision is what the ONNX file says (float32, our float16 cast, or
explicit symmetric Q/DQ), and TensorRT only executes it. TF32 is switched off for the same reason.

Verified: this code builds float32, float16 and Q/DQ graphs with TensorRT-RTX 1.7 on a machine without a GPU,
and uses only what TensorRT 10.3, 10.13 and 11.4 all have. Never run with TensorRT on a real device.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from lineward.runtime.errors import EngineError
from lineward.runtime.tensorrt.api import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    OnnxParser,
    ParserError,
)
from lineward.runtime.tensorrt.messages import Messages

EXPORT_AGAIN = "Export the embedding graph again with this version of Lineward."
SYMMETRIC = "Quantise symmetrically: int8 with every zero point 0, for activations and weights alike."
READ_REASON = "If memory ran out, free some or lower workspace_bytes; else report the reason with the graph."


@dataclass(frozen=True)
class PlanOptions:
    """How to build a plan.

    Args:
        max_batch: most frames in one execution, at least 1; the plan is tuned for one, the line's case.
        workspace_bytes: most scratch memory that one layer may use, in bytes.
        builder_level: how long to search for fast kernels, 0 (not at all) to 5; 3 is TensorRT's own default.

    Raises:
        EngineError: a value out of range.
    """

    max_batch: int = 8
    workspace_bytes: int = 1 << 30
    builder_level: int = 3

    def __post_init__(self) -> None:
        _require(self.max_batch >= 1, f"max_batch is {self.max_batch}", "Give at least 1.")
        _require(self.workspace_bytes > 0, f"workspace_bytes is {self.workspace_bytes}", "Give at least 1 MiB.")
        _require(0 <= self.builder_level <= 5, f"builder_level is {self.builder_level}", "Give 0 to 5.")


def build_plan(trt: ModuleType, onnx_bytes: bytes, options: PlanOptions) -> bytes:
    """Builds the plan of an embedding graph.

    Args:
        trt: the TensorRT module: `tensorrt` 10.3 to 11.x, or `tensorrt_rtx`.
        onnx_bytes: an ONNX model, one input uint8 [N, H, W, 3] with dynamic N, one output float32 [N, P, C].
        options: batch, memory and effort.

    Returns:
        The serialised plan, for this TensorRT version and this device only.

    Raises:
        EngineError: TensorRT cannot start, refuses the graph (saying which node and why), or cannot build.
    """
    messages = Messages(trt)
    builder = _builder(trt, messages)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser: OnnxParser = trt.OnnxParser(network, messages.logger)  # owns the weights: alive until the plan is built
    if not parser.parse(onnx_bytes):
        raise _refusal(trt, parser)
    frames = _frames(trt, network)
    config = builder.create_builder_config()
    _configure(trt, config, options)
    if config.add_optimization_profile(_profile(builder, frames, options)) < 0:
        raise EngineError(f"TensorRT refuses batches of 1 to {options.max_batch}", do=EXPORT_AGAIN)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT {trt.__version__} cannot build: {messages.reason()}", do=READ_REASON)
    return bytes(plan)


def _builder(trt: ModuleType, messages: Messages) -> Builder:
    try:
        builder: Builder = trt.Builder(messages.logger)
    except (TypeError, RuntimeError) as error:
        raise EngineError(
            f"TensorRT {trt.__version__} cannot start here: {messages.reason()}",
            do="Check that `nvidia-smi` sees the GPU and that the driver is new enough for this TensorRT.",
        ) from error
    return builder


def _configure(trt: ModuleType, config: IBuilderConfig, options: PlanOptions) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.builder_level
    config.clear_flag(trt.BuilderFlag.TF32)


def _profile(builder: Builder, frames: ITensor, options: PlanOptions) -> IOptimizationProfile:
    _, height, width, channels = frames.shape
    one, most = (1, height, width, channels), (options.max_batch, height, width, channels)
    profile = builder.create_optimization_profile()
    profile.set_shape(frames.name, one, one, most)
    return profile


def _frames(trt: ModuleType, network: INetworkDefinition) -> ITensor:
    """The input, once input and output are known to be what the runtime feeds and reads."""
    counts = f"{network.num_inputs} inputs and {network.num_outputs} outputs"
    _require(
        (network.num_inputs, network.num_outputs) == (1, 1),
        f"The graph has {counts}, not one each",
        EXPORT_AGAIN,
    )
    frames, rows = network.get_input(0), network.get_output(0)
    _require(
        frames.dtype == trt.DataType.UINT8 and _is_frames(tuple(frames.shape)),
        f"Input {frames.name!r} is {frames.dtype} {list(frames.shape)}, not uint8 [-1, H, W, 3]",
        EXPORT_AGAIN,
    )
    _require(
        rows.dtype == trt.DataType.FLOAT and len(rows.shape) == 3,
        f"Output {rows.name!r} is {rows.dtype} {list(rows.shape)}, not float32 [N, P, C]",
        EXPORT_AGAIN,
    )
    return frames


def _is_frames(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == -1 and shape[1] > 0 and shape[2] > 0 and shape[3] == 3


def _refusal(trt: ModuleType, parser: OnnxParser) -> EngineError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    quantised = any(error.node_operator() in ("QuantizeLinear", "DequantizeLinear") for error in errors)
    reasons = "; ".join(_told(error) for error in errors) or "TensorRT gave no reason"
    return EngineError(
        f"TensorRT {trt.__version__} refuses the graph: {reasons}",
        do=SYMMETRIC if quantised else EXPORT_AGAIN,
    )


def _told(error: ParserError) -> str:
    operator = error.node_operator()
    where = f"node {error.node_name() or '(unnamed)'!r} ({operator}): " if operator else ""
    return where + error.desc().strip()


def _require(holds: bool, what: str, do: str) -> None:
    if not holds:
        raise EngineError(what, do=do)
