"""What tiles find that the whole frame at once does not: small spots on frames of 4096x2048 pixels.

    python -m benchmarks.tiles

A frame shows a tray of 128 synthetic parts of twelve kinds, each photographed with 256 pixels. Defective frames
are the good ones that judge, with a dark spot on one of the parts. Both bundles have the same input, rows and position
0; one sees each frame as one input, the other as 2x4 tiles.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import write_results
from lineward.calibration.metrics import image_auroc
from lineward.export.synthetic import render_part
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.images import write_png
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector

SIDE, ROWS, COLUMNS = 256, 8, 16
TILES = (2, 4)
PARTS = 12
"""Kinds of parts: each a synthetic part of its own, the same in every frame."""
TRAIN, TEST = 40, 16
SPOTS = (24, 48)
"""Diameters of the spots, in pixels of the frame."""
DARKER = 60
"""Grey levels of 255 that a spot is darker than the part."""
NEAR = 64
"""Pixels of the frame that the map's maximum may lie from the middle of a spot that it is said to have found."""
WHOLE = Recipe(position=0.0, false_reject_rate=0.1, threshold_method="split")
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Spotted:
    """A frame with a spot."""

    image: Picture
    middle: tuple[int, int]


def main() -> None:
    """Train both bundles, and judge the same frames with them."""
    with tempfile.TemporaryDirectory() as scratch:
        progress = ConsoleProgress()
        with progress.step("render parts", PARTS) as advance:
            parts = [_rendered(seed, advance) for seed in range(PARTS)]
        random = np.random.default_rng(0)
        paths = []
        for index in range(TRAIN):
            paths.append(Path(scratch) / f"{index:03d}.png")
            write_png(paths[-1], _tray(parts, random))
        good = [_tray(parts, random) for _ in range(TEST)]
        spotted = {size: [_spotted(frame, size, random) for frame in good] for size in SPOTS}
        ways = {"whole": WHOLE, "tiles 2x4": replace(WHOLE, tiles=TILES)}
        figures = {}
        for name, recipe in ways.items():
            bundle = decode_bundle(train(paths, "tray", recipe=recipe, progress=progress), name)
            figures[name] = _judged(bundle, good, spotted)
            print(name, figures[name], flush=True)
    size = f"{COLUMNS * SIDE}x{ROWS * SIDE} pixels"
    frames = f"{size}; {TRAIN} good ones learned from, {TEST} others judged as they are and with each spot"
    write_results("tiles", "python -m benchmarks.tiles", {"frames": frames, "darker_by": DARKER, **figures})


def _rendered(seed: int, advance: Any) -> Picture:
    image = render_part(seed, size=SIDE).image
    advance(seed + 1)
    return image


def _tray(parts: Sequence[Picture], random: np.random.Generator) -> Picture:
    chosen = [parts[i] for i in random.choice(len(parts), ROWS * COLUMNS)]
    rows = [np.concatenate(chosen[row * COLUMNS : (row + 1) * COLUMNS], axis=1) for row in range(ROWS)]
    return np.concatenate(rows)


def _spotted(image: Picture, size: int, random: np.random.Generator) -> Spotted:
    """A spot near the middle of one of the parts, which is where the plate is."""
    part = np.array([random.integers(ROWS), random.integers(COLUMNS)])
    y, x = (int(v) for v in (part + random.uniform(0.35, 0.65, 2)) * SIDE)
    stain = np.zeros(image.shape[:2], np.uint8)
    cv2.circle(stain, (x, y), size // 2, (DARKER,), cv2.FILLED, cv2.LINE_AA)
    darker = cv2.subtract(image, cv2.cvtColor(stain, cv2.COLOR_GRAY2RGB))
    return Spotted(np.asarray(darker, dtype=np.uint8), (y, x))


def _judged(bundle: Bundle, good: Sequence[Picture], spotted: dict[int, list[Spotted]]) -> dict[str, Any]:
    inspector = Inspector(bundle)
    fine = [inspector.inspect(frame) for frame in good]
    scores = np.array([i.score for i in fine])
    figures: dict[str, Any] = {"good_rejected": sum(i.verdict is Verdict.REJECT for i in fine)}
    for size, frames in spotted.items():
        seen = [(inspector.inspect(frame.image), frame.middle) for frame in frames]
        found = np.array([i.score for i, _ in seen])
        labels = np.repeat([False, True], [len(scores), len(found)])
        figures[f"spots of {size} pixels"] = {
            "image_auroc": round(image_auroc(np.concatenate([scores, found]), labels), 4),
            "rejected": sum(i.verdict is Verdict.REJECT for i, _ in seen),
            "map_peak_on_the_spot": sum(_on_the_spot(i.anomaly_map, middle) for i, middle in seen),
            "above_all_good": int((found > scores.max()).sum()),
            "of": len(frames),
        }
    return figures


def _on_the_spot(anomaly_map: NDArray[np.float32] | None, middle: tuple[int, int]) -> bool:
    assert anomaly_map is not None
    peak = np.array(np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)) + 0.5
    frame = np.array([ROWS, COLUMNS]) * SIDE
    return bool(np.linalg.norm(peak / anomaly_map.shape * frame - middle) <= NEAR)


if __name__ == "__main__":
    main()
