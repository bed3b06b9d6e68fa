"""Peak memory of training on many images: 5,000 of 256 px, with 2,048 rows, must stay under 4 GiB.

    python -m benchmarks.training_memory [IMAGES]

The images are synthetic parts; a hundred rendered ones, each with noise of its own, since rendering is not measured.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.results_file import write_results
from lineward.export.synthetic import render_part
from lineward.export.training import Recipe, train
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.images import write_png

RENDERED = 100
RECIPE = Recipe(size=256, rows=2048, position=0.0)


def main() -> None:
    """Write the images, train, and read the process's peak memory."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    rng = np.random.default_rng(0)
    parts = [render_part(seed).image for seed in range(RENDERED)]
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / f"{index:05d}.png" for index in range(count)]
        for index, path in enumerate(paths):
            part = parts[index % RENDERED].astype(np.int16)
            noise = rng.integers(-4, 5, part.shape, dtype=np.int16)
            write_png(path, np.clip(part + noise, 0, 255).astype(np.uint8))
        start = time.perf_counter()
        train(paths, "parts", recipe=RECIPE, progress=ConsoleProgress())
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = {"images": count, "peak_memory_gib": round(peak, 2), "training_seconds": round(seconds)}
    print(figures)
    write_results("training_memory", "python -m benchmarks.training_memory", figures)


if __name__ == "__main__":
    main()
