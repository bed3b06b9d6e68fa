"""Writes the graphs that TensorRT must take, for tests in environments without torch.

    python tests/export/write_graphs.py FOLDER

The default embedding graph in float32, and with plain symmetric Q/DQ by least and greatest values. That INT8 is here
to be parsed and built, not to be inspected with: nothing guards its accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from lineward.export.backbones import load_backbone
from lineward.export.embedding import EmbeddingGraph, FeatureGraph
from lineward.export.onnx_graphs import export_embedding
from lineward.export.statistics import FeatureStatistics
from lineward.export.synthetic import render_part

SIZE = 256


class Parts(CalibrationDataReader):
    """Four synthetic parts, one at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image[np.newaxis]}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.stack([render_part(seed, size=SIZE).image for seed in range(4)])
    features = FeatureGraph(load_backbone(), (8, 16))
    statistics = FeatureStatistics()
    with torch.inference_mode():
        for patches in features(torch.from_numpy(images)).numpy():
            statistics.update(patches)
    whitening = statistics.whitening(1.0)
    plain = folder / "default.onnx"
    plain.write_bytes(export_embedding(EmbeddingGraph(features, whitening, statistics.lift(whitening, 3.0)), SIZE))
    quantize_static(
        plain,
        folder / "default_int8.onnx",
        Parts(images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv"],
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    for path in sorted(folder.glob("*.onnx")):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
