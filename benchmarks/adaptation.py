"""What `lineward adapt` loses against training on all images, and the time it saves.

    python -m benchmarks.adaptation DATA

On each category under the folder: train on half of the good images, adapt with the other half, and train on all. Image
AUROC on the test images, and the time each took. Writes benchmarks/results/adaptation.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.results_file import write_results
from lineward.calibration.metrics import image_auroc
from lineward.export.adaptation import adapt
from lineward.export.datasets import Dataset, open_dataset
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.cli.console import NoProgress, print_error
from lineward.runtime.errors import LinewardError
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector

CATEGORIES = ("bottle", "screw", "transistor")
SEEDS = (0, 1, 2)
"""Of the halves, and of each training."""
T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of MVTec AD categories")
    parser.add_argument("--categories", nargs="+", choices=CATEGORIES, default=CATEGORIES)
    arguments = parser.parse_args(argv)
    try:
        folders = [arguments.data / c for c in arguments.categories if (arguments.data / c).is_dir()]
        if not folders:
            print(f"SKIPPED: adaptation: {arguments.data} holds none of {', '.join(arguments.categories)}")
            return 0
        runs = [_run(open_dataset(folder), seed) for folder in folders for seed in SEEDS]
    except LinewardError as error:
        print_error(str(error))
        return 2
    command = f"python -m benchmarks.adaptation DATA --categories {' '.join(folder.name for folder in folders)}"
    write_results("adaptation", command, {"runs": runs, "means": _means(runs)})
    return 0


def _run(dataset: Dataset, seed: int) -> dict[str, Any]:
    recipe = Recipe(seed=seed)
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    images = [dataset.train[i] for i in order]
    first, second = images[: len(images) // 2], images[len(images) // 2 :]
    half, half_time = _timed(lambda: _train(first, dataset.name, recipe))
    adapted, adapt_time = _timed(lambda: adapt(half, second, seed=seed, progress=NoProgress()))
    whole, whole_time = _timed(lambda: _train(images, dataset.name, recipe))
    run = {
        "category": dataset.name,
        "seed": seed,
        "half": {**_figures(half, dataset), **half_time},
        "adapted": {**_figures(adapted.bundle, dataset), **adapt_time, "full": adapted.full},
        "all": {**_figures(whole, dataset), **whole_time},
    }
    print(run, flush=True)
    return run


def _train(images: Sequence[Path], product: str, recipe: Recipe) -> Bundle:
    return decode_bundle(train(images, product, recipe=recipe, progress=NoProgress()), product)


def _figures(bundle: Bundle, dataset: Dataset) -> dict[str, float]:
    inspector = Inspector(bundle)
    scores = np.array([inspector.inspect(read_image(sample.path)).score for sample in dataset.test])
    labels = np.array([sample.defective for sample in dataset.test])
    passed = scores <= bundle.manifest.threshold.value
    return {
        "image_auroc": image_auroc(scores, labels),
        "false_reject_rate": float(np.mean(~passed[~labels])),
        "escape_rate": float(np.mean(passed[labels])),
        "threshold": bundle.manifest.threshold.value,
        "rows": bundle.manifest.rows,
    }


def _timed(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """The result, and what it took; processor time is the steadier where the machine has other work."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return result, {"seconds": round(seconds, 2), "processor_seconds": round(cpu, 2)}


def _means(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    means = []
    for category in dict.fromkeys(run["category"] for run in runs):
        own = [run for run in runs if run["category"] == category]
        figure: dict[str, Any] = {"category": category}
        for stage in ("half", "adapted", "all"):
            for name in ("image_auroc", "seconds", "processor_seconds", "rows"):
                figure[f"{stage}_{name}"] = round(statistics.mean(run[stage][name] for run in own), 4)
        figure["auroc_lost"] = round(figure["all_image_auroc"] - figure["adapted_image_auroc"], 4)
        for name in ("seconds", "processor_seconds"):
            figure[f"share_of_{name}"] = round(figure[f"adapted_{name}"] / figure[f"all_{name}"], 3)
        means.append(figure)
    return means


if __name__ == "__main__":
    sys.exit(main())
