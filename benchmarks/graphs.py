"""The choices in the graphs, measured: one or two sessions, NHWC or NCHW input, spinning or sleeping threads.

    python -m benchmarks.graphs

Interleaved rounds, so that other work on the machine falls on all alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import compose, helper

from benchmarks.results_file import write_results
from lineward.export.synthetic import write_dataset
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import EMBEDDING, SIMILARITY, Bundle, decode_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.engines import OnnxRuntimeEngine
from lineward.runtime.engines.onnxruntime import session_options
from lineward.runtime.images import find_images

ROUNDS = 200
RECIPE = Recipe(size=256, rows=2048, position=0.0)


def main() -> None:
    """Time every variant on the same image."""
    with tempfile.TemporaryDirectory() as scratch:
        write_dataset(Path(scratch), train=60, test_good=0, per_defect=0)
        data = train(find_images([scratch]), "parts", recipe=RECIPE, progress=ConsoleProgress())
    bundle = decode_bundle(data, "parts")
    image = np.random.RandomState(0).randint(0, 256, (1, 256, 256, 3)).astype(np.uint8)
    milliseconds = _interleaved(_variants(bundle, image))
    write_results("graphs", "python -m benchmarks.graphs", {"rounds": ROUNDS, "milliseconds": milliseconds})


def _variants(bundle: Bundle, image: np.ndarray[Any, Any]) -> dict[str, Callable[[], object]]:
    two = OnnxRuntimeEngine(bundle)
    merged = _merged(bundle)
    one, spinning = _session(merged, spin=False), _session(merged, spin=True)
    nchw = _session(_without_transpose(merged), spin=False)
    return {
        "two sessions, NHWC (shipped)": lambda: two.score(image),
        "one session, NHWC": lambda: one.run(None, {"images": image}),
        "one session, NHWC, spinning threads": lambda: spinning.run(None, {"images": image}),
        "one session, NCHW, transposed by numpy": lambda: nchw.run(
            None, {"images": np.ascontiguousarray(image.transpose(0, 3, 1, 2))}
        ),
    }


def _merged(bundle: Bundle) -> onnx.ModelProto:
    similarity = onnx.load_from_string(bundle.members[SIMILARITY])
    bank = next(i for i in similarity.graph.initializer if i.name == "bank")
    bank.ClearField("external_data")
    bank.ClearField("data_location")
    bank.raw_data = bundle.bank.tobytes()
    embedding = onnx.load_from_string(bundle.members[EMBEDDING])
    return compose.merge_models(embedding, similarity, io_map=[("embeddings", "embeddings")])


def _without_transpose(model: onnx.ModelProto) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    first = next(n for n in model.graph.node if n.op_type == "Transpose")
    shape = model.graph.input[0].type.tensor_type.shape.dim
    height, width = shape[1].dim_value, shape[2].dim_value
    for node in model.graph.node:
        node.input[:] = [first.input[0] if name == first.output[0] else name for name in node.input]
    model.graph.node.remove(first)
    value = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 3, height, width])
    model.graph.input[0].CopyFrom(value)
    return model


def _session(model: onnx.ModelProto, *, spin: bool) -> Any:
    options = session_options()
    if spin:
        options = ort.SessionOptions()
        options.intra_op_num_threads = session_options().intra_op_num_threads
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _interleaved(variants: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = np.random.RandomState(0)
    for _ in range(ROUNDS):
        for name in order.permutation(list(variants)):  # whoever runs after a hungry neighbour pays for it
            start = time.perf_counter()
            variants[name]()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"least": round(min(s) * 1e3, 2), "median": round(statistics.median(s) * 1e3, 2)}
        for name, s in seconds.items()
    }


if __name__ == "__main__":
    main()
