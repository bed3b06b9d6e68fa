"""Offline re-inspection: images a second with one image a core and one at a time; memory over 100,000 images.

    python -m benchmarks.throughput [IMAGES]

IMAGES, 100,000 by default, is how many the memory is followed over. Rounds are interleaved, so that other work on the
machine falls on all alike. The pipeline is that of `lineward inspect`, files to rows.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.processes import LINEWARD, memory_of
from benchmarks.results_file import write_results
from lineward.export.presets import PRESETS
from lineward.export.synthetic import write_dataset
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import Bundle, decode_bundle, write_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.cli.inspect import inspect_files
from lineward.runtime.engines import open_engine
from lineward.runtime.images import find_images, read_image
from lineward.runtime.inspector import Inspector

ROUNDS = 7
IMAGES = 48
"""Of a round."""
FRAME = 1024
MARKS = (1_000, 10_000, 50_000, 99_000)
"""After which memory is looked at; the last before the process ends."""
SMALL = Recipe(size=64, rows=64, false_reject_rate=0.2)


def main() -> None:
    """Measure throughput, then memory."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        figures = {
            "rounds": ROUNDS,
            "frame": f"{FRAME}x{FRAME} PNG",
            "throughput": _throughput(folder),
            "memory": _memory(folder, count),
        }
    write_results("throughput", " ".join(["python -m benchmarks.throughput", *sys.argv[1:]]), figures)


def _throughput(folder: Path) -> dict[str, dict[str, Any]]:
    write_dataset(folder / "large", train=IMAGES, test_good=0, per_defect=0, size=FRAME)
    paths = find_images([folder / "large"])
    found = {}
    for preset in ("fast", "balanced"):
        recipe = replace(PRESETS[preset], false_reject_rate=0.2)
        bundle = decode_bundle(train(paths, "parts", recipe=recipe, progress=ConsoleProgress()), "parts")
        found[preset] = _compare(bundle, paths)
        print(preset, found[preset], flush=True)
    return found


def _compare(bundle: Bundle, paths: Sequence[Path]) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    ways = {
        "one image at a time, one thread": [_inspector(bundle, 1)],
        "one image at a time, a thread a core": [_inspector(bundle, cores)],
        "one image a core": [_inspector(bundle, 1) for _ in range(cores)],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    scores = set()
    for _, (way, inspectors) in itertools.product(range(ROUNDS), ways.items()):
        start = time.perf_counter()
        rows = list(inspect_files(inspectors, paths, {}, lambda _: None))
        seconds[way].append(time.perf_counter() - start)
        scores.add(tuple(row.inspection.score for row in rows))
    first = next(iter(ways))
    return {
        "images_per_second": {way: _spread([len(paths) / s for s in taken]) for way, taken in seconds.items()},
        "times_one_thread": {
            way: _spread([one / s for one, s in zip(seconds[first], taken, strict=True)])
            for way, taken in seconds.items()
        },
        "milliseconds_to_decode": round(1e3 * statistics.median(map(_decoding, paths)), 2),
        "scores_equal_to_the_bit": len(scores) == 1,
    }


def _memory(folder: Path, count: int) -> list[dict[str, float]]:
    """Memory of a `lineward inspect` of its own as small images go by."""
    write_dataset(folder / "small", train=64, test_good=0, per_defect=0, size=64)
    paths = find_images([folder / "small"])
    write_bundle(folder / "parts.lineward", train(paths, "parts", recipe=SMALL, progress=ConsoleProgress()))
    many = folder / "many"
    many.mkdir()
    for number, path in zip(range(count), itertools.cycle(paths)):
        os.link(path, many / f"{number:06d}.png")
    words = [*LINEWARD, "inspect", str(folder / "parts.lineward"), str(many), "--format", "jsonl"]
    marks: list[dict[str, float]] = []
    start = 0.0
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for done, _ in enumerate(process.stdout, 1):
            start = start or time.perf_counter()
            if done in MARKS:
                taken = round(time.perf_counter() - start, 1)
                marks.append({"images": done, **memory_of(process.pid), "seconds": taken})
                print(marks[-1], flush=True)
    return marks


def _inspector(bundle: Bundle, threads: int) -> Inspector:
    return Inspector(bundle, open_engine(bundle, threads=threads))


def _decoding(path: Path) -> float:
    start = time.perf_counter()
    read_image(path)
    return time.perf_counter() - start


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]}


if __name__ == "__main__":
    main()
