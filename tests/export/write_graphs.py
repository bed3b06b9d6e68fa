"""Writes the graphs that TensorRT must take, for tests in environments without torch.

    python -m tests.export.write_graphs FOLDER

The default embedding graph in float32, and with plain symmetric Q/DQ by least and greatest values. That INT8 is here
to be parsed and built, not to be inspected with: nothing guards its accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.precisions import plain_qdq
from lineward.export.backbones import load_backbone
from lineward.export.embedding import EmbeddingGraph, EmbeddingHead, FeatureGraph
from lineward.export.onnx_graphs import export_embedding
from lineward.export.statistics import FeatureStatistics
from lineward.export.synthetic import render_part

SIZE = 256


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.stack([render_part(seed, size=SIZE).image for seed in range(4)])
    features = FeatureGraph(load_backbone(), (8, 16))
    statistics = FeatureStatistics()
    with torch.inference_mode():
        for patches in features(torch.from_numpy(images)).numpy():
            statistics.update(patches)
    whitening = statistics.whitening(1.0)
    head = EmbeddingHead(whitening, statistics.lift(whitening, 3.0, 0.5), SIZE // 8)
    graph = export_embedding(EmbeddingGraph(features, head), SIZE)
    (folder / "default.onnx").write_bytes(graph)
    (folder / "default_int8.onnx").write_bytes(plain_qdq(graph, images))
    for path in sorted(folder.glob("*.onnx")):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
