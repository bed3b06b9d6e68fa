"""Does one threshold keep its promise for both reasons to reject: a pixel above it, and a large area that is fainter?

    python -m benchmarks.calibration.areas DATA

For each category under a folder, a bank is learned from some good parts at random, all others are scored once, and
random splits of those scores into calibration and test are then arithmetic: `splits.keep`. Writes areas.json under
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.splits import Kept, keep
from benchmarks.results_file import write_results
from lineward.export.datasets import open_dataset
from lineward.export.presets import PRESETS
from lineward.export.training import AREA_LEVEL, train
from lineward.runtime.blob import largest_blob
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import MinimumArea

CATEGORIES = ("bottle", "screw", "transistor")
AREA = MinimumArea(pixels=655, level=AREA_LEVEL)
"""A hundredth of the map of the recipe."""
RECIPE = replace(PRESETS["fast"], area=AREA, false_reject_rate=0.1)
BANK_PARTS = 60
SPLITS = 500
PROMISES = ((50, 0.1, None), (50, 0.1, 0.95))
"""Calibration parts, false-reject rate, confidence."""


@dataclass(frozen=True)
class Areas:
    """What was found for a category.

    Attributes:
        name: of the category.
        parts: good parts that did not build the bank.
        kept: how each promise fared for both reasons together.
        raised: of these parts, the share whose score a large area raised above the greatest value of the map.
    """

    name: str
    parts: int
    kept: list[Kept]
    raised: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every category that is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration.areas", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of MVTec AD categories")
    folder: Path = parser.parse_args(argv).data
    found = []
    for name in CATEGORIES:
        if (folder / name).is_dir():
            found.append(_measure(name, folder / name))
        else:
            print(f"SKIPPED: {name}: not under {folder}")
    figures = {"area": {"pixels": AREA.pixels, "level": AREA.level}, "bank_parts": BANK_PARTS}
    write_results(
        "areas", "python -m benchmarks.calibration.areas DATA", {**figures, "found": list(map(asdict, found))}
    )
    for areas in found:
        print(areas)
    return 0


def _measure(name: str, folder: Path) -> Areas:
    dataset, progress = open_dataset(folder), ConsoleProgress()
    good = sorted([*dataset.train, *(sample.path for sample in dataset.test if not sample.defective)])
    order = np.random.default_rng(0).permutation(len(good))
    learned = [good[i] for i in order[:BANK_PARTS]]
    others = [good[i] for i in order[BANK_PARTS:]]
    inspector = Inspector(decode_bundle(train(learned, name, recipe=RECIPE, progress=progress), name))
    scores, raised = [], 0
    with progress.step(f"{name}: score others", len(others)) as advance:
        for done, path in enumerate(others, 1):
            inspection = inspector.inspect(read_image(path))
            assert inspection.anomaly_map is not None
            _check(inspection.anomaly_map, inspection.score)
            scores.append(inspection.score)
            raised += inspection.score > float(inspection.anomaly_map.max())
            advance(done)
    rng = np.random.default_rng(0)
    pool = [np.array(scores)]
    kept = [keep(pool, sample, rate, confidence, SPLITS, rng) for sample, rate, confidence in PROMISES]
    return Areas(name, len(others), kept, raised / len(others))


def _check(anomaly_map: NDArray[np.float32], score: float) -> None:
    """The score says what the two reasons say, at thresholds on either side of it."""
    for threshold in (score * 0.99, score * 1.01):
        rejected = anomaly_map.max() > threshold or largest_blob(anomaly_map, AREA.level * threshold) >= AREA.pixels
        assert rejected == (score > threshold)


if __name__ == "__main__":
    sys.exit(main())
