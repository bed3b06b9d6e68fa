"""The three presets, as a user would train them: accuracy on MVTec AD categories, some seeds each, and CPU latency.

    python -m benchmarks.accuracy.presets [DATA] [--seeds 0 1]

DATA defaults to mvtec_ad_384/ under LINEWARD_DATA (default ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results_file import write_results
from lineward.export.commands.evaluate import figures
from lineward.export.datasets import Dataset, open_dataset
from lineward.export.evaluation import evaluate
from lineward.export.presets import PRESETS
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import Bundle, read_bundle, write_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector

CATEGORIES = ("bottle", "screw", "transistor")
SEEDS = (0, 1)
FRAME = 1024
"""Side of the frames whose latency is measured, in pixels."""
INSPECTIONS = 200


def main() -> None:
    """Train and evaluate every preset on every category with every seed."""
    default = Path(os.environ.get("LINEWARD_DATA", "../shared/data")) / "mvtec_ad_384"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.presets", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", default=default, help="a folder of MVTec AD categories")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    root, seeds = arguments.data, arguments.seeds
    datasets = [open_dataset(root / c) for c in CATEGORIES if (root / c).is_dir()]
    for missing in set(CATEGORIES) - {dataset.name for dataset in datasets}:
        print(f"SKIPPED: {missing}: not under {root}")
    table = {preset: [_one(dataset, preset, seed) for dataset in datasets for seed in seeds] for preset in PRESETS}
    summary = {preset: _summary(runs) for preset, runs in table.items()}
    data = "MVTec AD, resized to 384x384; MVTec GmbH, CC BY-NC-SA 4.0"
    command = f"python -m benchmarks.accuracy.presets --seeds {' '.join(map(str, seeds))}"
    write_results("presets", command, {"data": data, "summary": summary, "runs": table})


def _one(dataset: Dataset, preset: str, seed: int) -> dict[str, Any]:
    recipe = Recipe(**{**_fields(PRESETS[preset]), "seed": seed})
    start = time.perf_counter()
    data = train(dataset.train, dataset.name, recipe=recipe, progress=ConsoleProgress())
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "bundle.lineward"
        write_bundle(path, data)
        bundle = read_bundle(path)
    row = {
        "category": dataset.name,
        "seed": seed,
        "training_seconds": round(seconds, 1),
        "bundle_megabytes": round(len(data) / 1e6, 1),
        **_latency(bundle, dataset),
        **figures(evaluate(Inspector(bundle), dataset.test)),
    }
    print(preset, row, flush=True)
    return row


def _fields(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}


def _latency(bundle: Bundle, dataset: Dataset) -> dict[str, float]:
    """Milliseconds from a frame in memory to the verdict, back to back, after a warm-up."""
    frame = read_image(dataset.test[0].path)
    repeats = -(-FRAME // min(frame.shape[:2]))
    frame = np.ascontiguousarray(np.tile(frame, (repeats, repeats, *(1,) * (frame.ndim - 2)))[:FRAME, :FRAME])
    inspector = Inspector(bundle)
    seconds = [inspector.inspect(frame).seconds for _ in range(INSPECTIONS)][INSPECTIONS // 10 :]
    return {f"p{q}_ms": round(1e3 * float(np.percentile(seconds, q)), 2) for q in (50, 99)}


def _summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, least and greatest over the seeds, of each category and of the mean over categories."""
    names = ("image_auroc", "pixel_auroc", "aupro", "f1", "p50_ms", "p99_ms", "training_seconds")
    by_category = {c: [run for run in runs if run["category"] == c] for c in dict.fromkeys(r["category"] for r in runs)}
    by_seed = [[run for run in runs if run["seed"] == seed] for seed in dict.fromkeys(run["seed"] for run in runs)]
    means = [{name: statistics.mean(run[name] for run in group) for name in names} for group in by_seed]
    rows = {**by_category, "mean": means}
    return {row: {name: _spread([run[name] for run in group]) for name in names} for row, group in rows.items()}


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(statistics.mean(values), 4),
        "least": round(min(values), 4),
        "greatest": round(max(values), 4),
    }


if __name__ == "__main__":
    main()
