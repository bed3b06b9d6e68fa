"""Accuracy of the default recipe on MVTec AD categories, three seeds each.

LINEWARD_DATA=<folder with mvtec_ad_384/> python -m benchmarks.accuracy
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_results
from lineward.export.commands.evaluate import figures
from lineward.export.datasets import open_dataset
from lineward.export.evaluation import evaluate
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import read_bundle, write_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.inspector import Inspector

CATEGORIES = ("bottle", "screw", "transistor")
SEEDS = (0, 1, 2)


def main() -> None:
    """Train and evaluate every category with every seed."""
    root = Path(os.environ.get("LINEWARD_DATA", "../shared/data")) / "mvtec_ad_384"
    table = {c: [_one(root / c, seed) for seed in SEEDS] for c in CATEGORIES if (root / c).is_dir()}
    for missing in set(CATEGORIES) - set(table):
        print(f"SKIPPED: {missing}: not under {root}")
    data = "MVTec AD, resized to 384x384; MVTec GmbH, CC BY-NC-SA 4.0"
    summary = {category: _summary(runs) for category, runs in table.items()}
    write_results("accuracy", "python -m benchmarks.accuracy", {"data": data, "summary": summary, "runs": table})


def _one(folder: Path, seed: int) -> dict[str, Any]:
    dataset = open_dataset(folder)
    start = time.perf_counter()
    data = train(dataset.train, dataset.name, recipe=Recipe(seed=seed), progress=ConsoleProgress())
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "bundle.lineward"
        write_bundle(path, data)
        evaluation = evaluate(Inspector(read_bundle(path)), dataset.test)
    row = {"seed": seed, "training_seconds": round(seconds, 1), **figures(evaluation)}
    print(dataset.name, row)
    return row


def _summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    names = ("image_auroc", "pixel_auroc", "aupro", "f1")
    return {
        name: {
            "mean": round(statistics.mean(r[name] for r in runs), 4),
            "least": round(min(r[name] for r in runs), 4),
            "greatest": round(max(r[name] for r in runs), 4),
        }
        for name in names
    }


if __name__ == "__main__":
    main()
