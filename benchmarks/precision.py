"""What float16 and INT8 embedding graphs do to embeddings and AUROC, on onnxruntime's CPU.

LINEWARD_DATA=<folder with mvtec_ad_384/> python -m benchmarks.precision

Each graph gets a bank of its own, built through it, as in training. `kernel` is what the fused kernel loses because it
looks for the nearest row in half precision: numpy does here what the kernel does on a GPU.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.results_file import write_results
from lineward.export.backbones import Backbone, load_backbone
from lineward.export.bank import build_bank
from lineward.export.conversion import FLOAT16, FLOAT32, INT8
from lineward.export.datasets import Dataset, open_dataset
from lineward.export.embedding import FeatureGraph
from lineward.export.evaluation import evaluate
from lineward.export.float16_rounding import rounded_to_float16
from lineward.export.onnx_graphs import export_embedding
from lineward.export.quantisation import Calibration, calibrate, features_of
from lineward.export.statistics import FeatureStatistics
from lineward.export.training import Recipe, draft_bundle
from lineward.runtime.bundle import EMBEDDING, Bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import preprocess

CATEGORIES = ("bottle", "screw", "transistor")
HELD_OUT = 25
BATCH = 8
RECIPE = Recipe(size=256, rows=2048, position=0.0)
Images = NDArray[np.uint8]
Rows = NDArray[np.float32]


def main() -> None:
    """Learn every category in each precision, and compare with float32."""
    root = Path(os.environ.get("LINEWARD_DATA", "../shared/data")) / "mvtec_ad_384"
    backbone = load_backbone()
    table = {c: _category(open_dataset(root / c), backbone) for c in CATEGORIES if (root / c).is_dir()}
    for missing in set(CATEGORIES) - set(table):
        print(f"SKIPPED: {missing}: not under {root}")
    figures = {
        "data": "MVTec AD, resized to 384x384; MVTec GmbH, CC BY-NC-SA 4.0",
        "recipe": f"{RECIPE.size} pixels, {RECIPE.rows:,} rows, all good images but {HELD_OUT}",
        "graphs": {
            "float32": "as trained",
            "float16": "cast; onnxruntime's CPU rounds the weights, but no activation",
            "float16, rounded": "the same with every activation rounded to eleven bits",
            "int8": "as `lineward train --precision int8` makes it: the costliest layers stay float32",
            "int8, all layers": "every convolution in INT8",
            "int8, all layers, saturating": "the same by onnxruntime's own INT8 kernels, on this machine's CPU",
            "bank_int8": "the float32 graph with bank rows of int8 and a scale a row",
        },
        "categories": table,
    }
    write_results("precision", "python -m benchmarks.precision", figures)


def _category(dataset: Dataset, backbone: Backbone) -> dict[str, Any]:
    learned = list(dataset.train[:-HELD_OUT])
    bundles = {
        precision: draft_bundle(learned, backbone, replace(RECIPE, precision=precision), ConsoleProgress())
        for precision in (FLOAT32, FLOAT16, INT8)
    }
    bundle = bundles[FLOAT32]
    spec = bundle.manifest.preprocessing
    good = np.stack([preprocess(read_image(path), spec) for path in learned])
    test = np.stack([preprocess(read_image(sample.path), spec) for sample in dataset.test])
    graph = bundle.members[EMBEDDING]
    rounded = rounded_to_float16(graph)
    bundles["float16, rounded"] = _with_graph(bundles[FLOAT16], rounded)
    calibration = _calibration(backbone, good)
    whole = replace(calibration, float32=0).quantise(graph)
    bundles["int8, all layers"] = _with_bank(_with_graph(bundle, whole), good)
    bundles["bank_int8"] = dataclasses.replace(bundle, bank=_rows_in_int8(bundle.bank))
    rows = {"kernel": _kernel(bundle, test)}
    for name, other in bundles.items():
        rows[name] = {**_auroc(other, dataset)}
        print(dataset.name, name, rows[name], flush=True)
    few = test[:: max(1, len(test) // 16)]
    moved = {
        FLOAT16: (rounded, False),
        INT8: (calibration.quantise(graph), False),
        "int8, all layers": (whole, False),
        "int8, all layers, saturating": (whole, True),
    }
    for name, (other_graph, saturating) in moved.items():
        rows.setdefault(name, {}).update(_moved(graph, other_graph, few, saturating=saturating))
    rows["int8"]["float32_layers"] = [layer.name for layer in calibration.layers[: calibration.float32]]
    rows["int8"]["layers"] = len(calibration.layers)
    rows["golden"] = _other_arithmetic(bundles, few)
    return rows


def _calibration(backbone: Backbone, good: Images) -> Calibration:
    graph = export_embedding(FeatureGraph(backbone, RECIPE.levels), RECIPE.size)
    statistics, read = FeatureStatistics(), features_of(graph)
    for image in good:
        statistics.update(read(image[np.newaxis])[0])
    whitening = statistics.whitening(RECIPE.shrinkage)
    return calibrate(graph, good, whitening, statistics.lift(whitening, RECIPE.tau, RECIPE.position))


def _with_graph(bundle: Bundle, graph: bytes) -> Bundle:
    return dataclasses.replace(bundle, members={**bundle.members, EMBEDDING: graph})


def _with_bank(bundle: Bundle, good: Images) -> Bundle:
    """The bundle with the bank that its embedding graph gives."""
    session, grid = _session(bundle), bundle.manifest.grid
    bank = build_bank(
        lambda: (row for batch in _embed(session, good) for row in batch),
        len(good),
        grid.rows * grid.columns,
        bundle.manifest.rows,
    )
    return dataclasses.replace(bundle, bank=bank)


def _rows_in_int8(bank: Rows) -> Rows:
    """What rows of int8 with a float32 scale each stand for."""
    scale = np.abs(bank).max(axis=1, keepdims=True) / 127
    return np.asarray(np.rint(bank / scale) * scale, np.float32)


def _embed(session: EmbeddingSession, images: Images) -> Iterator[Rows]:
    for start in range(0, len(images), BATCH):
        yield session.embed(images[start : start + BATCH])


def _session(bundle: Bundle) -> EmbeddingSession:
    return EmbeddingSession(bundle.members[EMBEDDING], bundle.manifest.grid)


def _moved(graph: bytes, other: bytes, images: Images, *, saturating: bool) -> dict[str, float]:
    """1 - cosine between the two graphs' embeddings of the same patch."""
    a, b = _run(graph, images), _run(other, images, saturating=saturating)
    apart = 1 - (a.astype(np.float64) * b).sum(axis=2).ravel()
    return {"embedding_greatest": _short(apart.max()), "embedding_mean": _short(apart.mean())}


def _run(graph: bytes, images: Images, *, saturating: bool = False) -> Rows:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "0" if saturating else "1")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": image[np.newaxis]})[0] for image in images])


def _other_arithmetic(bundles: dict[str, Bundle], images: Images) -> dict[str, float]:
    """How far patch scores may be off on another engine, of the same graph and bank.

    float16: with every activation rounded, and not. INT8: with graph optimisations, and without any, which add in
    another order, so that some activations fall to the other side of a rounding.
    """
    half, whole = bundles[FLOAT16], bundles[INT8]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    plain = ort.InferenceSession(whole.members[EMBEDDING], options, providers=["CPUExecutionProvider"])
    other = np.concatenate([plain.run(None, {"images": image[np.newaxis]})[0] for image in images])
    pairs = {
        FLOAT16: (_run(half.members[EMBEDDING], images), _run(bundles["float16, rounded"].members[EMBEDDING], images)),
        INT8: (_run(whole.members[EMBEDDING], images), other),
    }
    return {
        name: _short(np.abs(_best(a, bundles[name].bank) - _best(b, bundles[name].bank)).max())
        for name, (a, b) in pairs.items()
    }


def _best(embeddings: Rows, bank: Rows) -> Rows:
    best: Rows = (embeddings.reshape(-1, bank.shape[1]) @ bank.T).max(axis=1)
    return best


def _auroc(bundle: Bundle, dataset: Dataset) -> dict[str, Any]:
    evaluation = evaluate(Inspector(bundle), dataset.test)
    image, pixel = evaluation.image_auroc, evaluation.pixel_auroc
    return {"image_auroc": round(image or 0.0, 4), "pixel_auroc": round(pixel or 0.0, 4)}


def _kernel(bundle: Bundle, images: Images) -> dict[str, Any]:
    """How much lower the cosine of the row is that half precision picks, and how often it is another row."""
    bank, half = bundle.bank, bundle.bank.astype(np.float16).astype(np.float32)
    losses = []
    for batch in _embed(_session(bundle), images):
        queries = batch.reshape(-1, bank.shape[1])
        exact = queries @ bank.T
        picked = (queries.astype(np.float16).astype(np.float32) @ half.T).argmax(axis=1)
        losses.append(exact.max(axis=1) - exact[np.arange(len(queries)), picked])
    loss = np.concatenate(losses)
    return {
        "score_greatest_difference": _short(loss.max()),
        "score_mean_difference": _short(loss.mean()),
        "other_rows_share": round(float((loss > 0).mean()), 5),
    }


def _short(value: float) -> float:
    return float(f"{value:.2e}")


if __name__ == "__main__":
    main()
