"""Loads a TensorRT plan on this device, and says what it takes in and gives out.

Verified with TensorRT-RTX 1.7 without a GPU (a plan is refused, readably) and with a double of the module; no
plan has been loaded on a real device.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType

from lineward.runtime.errors import EngineError
from lineward.runtime.tensorrt.api import ICudaEngine, Runtime
from lineward.runtime.tensorrt.builder import PlanOptions
from lineward.runtime.tensorrt.messages import LOG, Messages
from lineward.runtime.tensorrt.plan_cache import PlanCache, PlanKey, graph_hash

BUILD_AGAIN = "Build the plan again on this device with `lineward engine build`."


@dataclass(frozen=True)
class LoadedPlan:
    """A plan ready to execute.

    Args:
        runtime: what loaded the engine; it must outlive it.
        engine: the deserialised plan.
        messages: what TensorRT says about both.
        frames: name of the input, uint8 [N, H, W, 3].
        embeddings: name of the output, float32 [N, P, C].
        frame_shape: (H, W, 3).
        embedding_shape: (P, C): patches of a frame, channels of a patch.
        max_batch: most frames in one execution.
    """

    runtime: Runtime
    engine: ICudaEngine
    messages: Messages
    frames: str
    embeddings: str
    frame_shape: tuple[int, ...]
    embedding_shape: tuple[int, ...]
    max_batch: int


def plan_key(
    trt: ModuleType, onnx_bytes: bytes, precision: str, capability: tuple[int, int], options: PlanOptions
) -> PlanKey:
    """The key under which a plan is kept.

    Args:
        trt: the TensorRT module; its name and version are part of the key.
        onnx_bytes: the embedding graph.
        precision: what the graph computes in, such as `float32`, `float16` or `int8`.
        capability: compute capability of the device, such as (8, 7).
        options: how the plan is built.
    """
    return PlanKey(
        graph=graph_hash(onnx_bytes),
        precision=precision,
        tensorrt=f"{trt.__name__} {trt.__version__}",
        capability="{}.{}".format(*capability),
        options=json.dumps(asdict(options), sort_keys=True),
    )


def load_plan(trt: ModuleType, plan: bytes) -> LoadedPlan:
    """Deserialises a plan.

    Args:
        trt: the TensorRT module that built it.
        plan: the serialised plan.

    Raises:
        EngineError: TensorRT refuses the plan, or it is not the plan of an embedding graph.
    """
    messages = Messages(trt)
    runtime: Runtime = trt.Runtime(messages.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"TensorRT {trt.__version__} refuses the plan: {messages.reason()}", do=BUILD_AGAIN)
    frames, embeddings = _seam(trt, engine)
    return LoadedPlan(
        runtime,
        engine,
        messages,
        frames,
        embeddings,
        tuple(engine.get_tensor_shape(frames))[1:],
        tuple(engine.get_tensor_shape(embeddings))[1:],
        engine.get_tensor_profile_shape(frames, 0)[2][0],
    )


def load_cached_plan(trt: ModuleType, cache: PlanCache, key: PlanKey, build: Callable[[], bytes]) -> LoadedPlan:
    """Loads the plan of a key from the cache; one that TensorRT refuses is built again, once.

    Args:
        trt: the TensorRT module.
        cache: where plans are kept.
        key: what the plan must have been built for.
        build: builds it, when there is none.

    Raises:
        EngineError: the plan cannot be built, or TensorRT refuses even a new one.
    """
    plan = cache.load(key)
    if plan is None:
        return load_plan(trt, cache.plan(key, build))
    try:
        return load_plan(trt, plan)
    except EngineError as error:
        LOG.warning("The cached plan is built again: %s", error.what)
        return load_plan(trt, cache.renew(key, build))


def _seam(trt: ModuleType, engine: ICudaEngine) -> tuple[str, str]:
    """Names of the one input and the one output, once their types and ranks are right."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    kinds = [(engine.get_tensor_dtype(name), len(engine.get_tensor_shape(name))) for name in (*inputs, *outputs)]
    if len(inputs) != 1 or kinds != [(trt.DataType.UINT8, 4), (trt.DataType.FLOAT, 3)]:
        raise EngineError(
            f"The plan takes {inputs} and gives {outputs}, as {kinds}; "
            "an embedding plan takes uint8 [N, H, W, 3] and gives float32 [N, P, C]",
            do=BUILD_AGAIN,
        )
    return inputs[0], outputs[0]
