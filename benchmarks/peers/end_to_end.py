"""From a camera frame of 1024×1024 to score and map: ours, and anomalib's PatchCore model.

anomalib's weights are random (a hub cannot be reached everywhere, and time does not depend on them); so is its bank,
unit rows of the length of its embeddings. torch runs its own pre-processor; its ONNX export is given frames resized by
OpenCV's plain bilinear filter, the cheapest there is, which favours it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.workers import THREADS, Call

SIZE = 256
"""anomalib's default input, in pixels: 1,024 patches."""
DIMENSIONS = {"wide_resnet50_2": 1536, "resnet18": 384}
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


def lineward(bundle: Path, frame: Path) -> Call:
    """`Inspector.inspect`: frame to verdict."""
    from lineward.runtime.bundle import read_bundle
    from lineward.runtime.engines import open_engine
    from lineward.runtime.inspector import Inspector
    from lineward.runtime.trust import AcceptAny

    read = read_bundle(bundle, AcceptAny())
    inspector = Inspector(read, open_engine(read, threads=THREADS))
    pixels = np.load(frame)
    return lambda: inspector.inspect(pixels).score


def anomalib_torch(backbone: str, rows: int, frame: Path) -> Call:
    """anomalib's model after its pre-processor, without gradients."""
    import torch
    from anomalib.models import Patchcore

    model, pixels = patchcore(backbone, rows), np.load(frame)
    prepare = Patchcore.configure_pre_processor((SIZE, SIZE))

    def call() -> float:
        with torch.inference_mode():
            image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() / 255
            return float(model(prepare(image)).pred_score)

    return call


def anomalib_onnxruntime(graph: Path, frame: Path) -> Call:
    """Its ONNX export on onnxruntime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    name, pixels = session.get_inputs()[0].name, np.load(frame)
    return lambda: float(session.run(None, {name: _prepared(pixels)})[0].ravel()[0])


def anomalib_openvino(graph: Path, frame: Path) -> Call:
    """Its ONNX export on OpenVINO."""
    import openvino as ov

    options = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    core = ov.Core()
    compiled, pixels = core.compile_model(core.read_model(str(graph)), "CPU", options), np.load(frame)
    return lambda: float(np.ravel(compiled([_prepared(pixels)])[0])[0])


def export_anomalib(backbone: str, rows: int, path: Path) -> None:
    """Write anomalib's model as ONNX."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            patchcore(backbone, rows),
            (torch.zeros(1, 3, SIZE, SIZE),),
            str(path),
            input_names=["images"],
            output_names=["pred_score", "anomaly_map"],
            opset_version=17,
            dynamo=False,
        )


def patchcore(backbone: str, rows: int) -> Any:
    """anomalib's default PatchCore: layers 2 and 3, nine neighbours, with a bank of so many rows."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of names that others will drop
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    model = PatchcoreModel(["layer2", "layer3"], backbone, pre_trained=False, num_neighbors=9).eval()
    model.memory_bank = torch.nn.functional.normalize(torch.randn(rows, DIMENSIONS[backbone]))
    return model


def _prepared(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    small = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return np.ascontiguousarray(((small - _MEAN) / _STD).transpose(2, 0, 1)[np.newaxis], np.float32)
