"""What float16 and a plain INT8 do to embeddings, anomaly maps and AUROC, on onnxruntime's CPU.

LINEWARD_DATA=<folder with mvtec_ad_384/> python -m benchmarks.precision

Each changed graph gets a bank of its own, built through it, as in training. `kernel` is what the fused kernel loses
because it looks for the nearest row in half precision: numpy does here what the kernel does on a GPU.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.precisions import float16, plain_qdq, rounded_to_float16
from benchmarks.results_file import write_results
from lineward.export.bank import build_bank
from lineward.export.datasets import Dataset, open_dataset
from lineward.export.evaluation import evaluate
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import EMBEDDING, Bundle, decode_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import preprocess

CATEGORIES = ("bottle", "screw", "transistor")
HELD_OUT = 25
CALIBRATION = 16
BATCH = 8
RECIPE = Recipe(size=256, rows=2048, position=0.0)
Images = NDArray[np.uint8]
Rows = NDArray[np.float32]


def main() -> None:
    """Train every category in float32, and compare each changed graph with it."""
    root = Path(os.environ.get("LINEWARD_DATA", "../shared/data")) / "mvtec_ad_384"
    table = {c: _category(open_dataset(root / c)) for c in CATEGORIES if (root / c).is_dir()}
    for missing in set(CATEGORIES) - set(table):
        print(f"SKIPPED: {missing}: not under {root}")
    figures = {
        "data": "MVTec AD, resized to 384x384; MVTec GmbH, CC BY-NC-SA 4.0",
        "graphs": {
            "float32": "as trained",
            "float16": "cast; onnxruntime's CPU rounds the weights, but no activation",
            "float16, rounded": "the same with every activation rounded to eleven bits",
            "int8": f"convolutions, plain symmetric Q/DQ, min-max over {CALIBRATION} good images of the category",
        },
        "categories": table,
    }
    write_results("precision", "python -m benchmarks.precision", figures)


def _category(dataset: Dataset) -> dict[str, Any]:
    learned, held_out = dataset.train[:-HELD_OUT], dataset.train[-HELD_OUT:]
    bundle = decode_bundle(
        train(learned, dataset.name, held_out=held_out, recipe=RECIPE, progress=ConsoleProgress()), dataset.name
    )
    spec = bundle.manifest.preprocessing
    good = np.stack([preprocess(read_image(path), spec) for path in learned])
    test = np.stack([preprocess(read_image(sample.path), spec) for sample in dataset.test])
    graph = bundle.members[EMBEDDING]
    changed: dict[str, Callable[[], bytes]] = {
        "float16": lambda: float16(graph),
        "float16, rounded": lambda: rounded_to_float16(graph),
        "int8": lambda: plain_qdq(graph, good[:CALIBRATION]),
    }
    rows = {"float32": _auroc(bundle, dataset), "kernel": _kernel(bundle, test)}
    for name, make in changed.items():
        other = _with_graph(bundle, make(), good)
        rows[name] = {**_embeddings(bundle, other, test), **_maps(bundle, other, dataset), **_auroc(other, dataset)}
        print(dataset.name, name, rows[name], flush=True)
    return rows


def _with_graph(bundle: Bundle, graph: bytes, good: Images) -> Bundle:
    """The bundle with another embedding graph, and the bank that it gives."""
    session, grid = EmbeddingSession(graph, bundle.manifest.grid), bundle.manifest.grid
    bank = build_bank(
        lambda: (row for batch in _embed(session, good) for row in batch),
        len(good),
        grid.rows * grid.columns,
        bundle.manifest.rows,
    )
    return dataclasses.replace(bundle, members={**bundle.members, EMBEDDING: graph}, bank=bank)


def _embed(session: EmbeddingSession, images: Images) -> Iterator[Rows]:
    for start in range(0, len(images), BATCH):
        yield session.embed(images[start : start + BATCH])


def _session(bundle: Bundle) -> EmbeddingSession:
    return EmbeddingSession(bundle.members[EMBEDDING], bundle.manifest.grid)


def _embeddings(bundle: Bundle, other: Bundle, images: Images) -> dict[str, float]:
    """1 - cosine between the two graphs' embeddings of the same patch."""
    pairs = zip(_embed(_session(bundle), images), _embed(_session(other), images), strict=True)
    apart = np.concatenate([1 - (a.astype(np.float64) * b).sum(axis=2).ravel() for a, b in pairs])
    return {"embedding_greatest": _short(apart.max()), "embedding_mean": _short(apart.mean())}


def _maps(bundle: Bundle, other: Bundle, dataset: Dataset) -> dict[str, float]:
    first, second = Inspector(bundle), Inspector(other)
    frames = (read_image(sample.path) for sample in dataset.test)
    worst = max(_difference(first.inspect(f).anomaly_map, second.inspect(f).anomaly_map) for f in frames)
    return {"map_greatest_difference": _short(worst)}


def _difference(a: Rows | None, b: Rows | None) -> float:
    return float("nan") if a is None or b is None else float(np.abs(a - b).max())


def _auroc(bundle: Bundle, dataset: Dataset) -> dict[str, float]:
    evaluation = evaluate(Inspector(bundle), dataset.test)
    image, pixel = evaluation.image_auroc, evaluation.pixel_auroc
    return {"image_auroc": round(image or 0.0, 4), "pixel_auroc": round(pixel or 0.0, 4)}


def _kernel(bundle: Bundle, images: Images) -> dict[str, float]:
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
