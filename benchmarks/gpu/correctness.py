"""Is the fused kernel right on this GPU, however it is loaded? Needs a GPU and PyCUDA; `run.sh` runs it.

    python -m benchmarks.gpu.correctness [--small]

The cubin or PTX that ships, PTX compiled by the driver, and nvcc on this machine: each over the self-check's shapes,
ragged and larger ones. `--small` is for compute-sanitizer, which slows a GPU down a hundredfold; it writes no file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.results_file import write_results
from lineward.runtime.cuda import Device, module, open_device, similarity
from lineward.runtime.errors import EngineError
from lineward.runtime.selfcheck import SHAPES, check_shape

RAGGED = ((64, 128, 32), (63, 127, 33), (65, 129, 64), (100, 300, 96), (5, 640, 45), (17, 1000, 384))
LARGE = ((784, 20_000, 1024), (4096, 16_000, 384), (784, 100_000, 1024))
BUILDS: dict[str, tuple[str, ...]] = {"as shipped": (), "PTX": ("cubin",), "nvcc": ("cubin", "ptx")}


def main() -> None:
    """Check every build; exit with 1 if one is wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--small", action="store_true", help="the build as shipped and small shapes alone")
    small = parser.parse_args().small
    shapes = RAGGED if small else (*SHAPES, *RAGGED, *LARGE)
    device = open_device()
    rows = [row for name in list(BUILDS)[: 1 if small else None] for row in _check(device, name, shapes)]
    if not small:
        figures = {"gpu": device.name, "capability": device.capability, "checks": rows}
        write_results("gpu_correctness", "python -m benchmarks.gpu.correctness", figures)
    raise SystemExit(not all(row["ok"] for row in rows))


def _check(device: Device, build: str, shapes: tuple[tuple[int, int, int], ...]) -> list[dict[str, Any]]:
    """Every shape with one build of the kernel."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = _without(BUILDS[build], Path(scratch) / "cuda")
        with patch.object(similarity, "load_kernels", partial(module.load_kernels, folder=folder)):
            return [_shape(device, build, shape) for shape in shapes]


def _shape(device: Device, build: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    try:
        ok, finding = True, check_shape(device, *shape)
    except EngineError as error:
        ok, finding = False, error.what
    print(f"{'ok' if ok else 'FAILED':<7} {build}, {shape}: {finding}", flush=True)
    return {"build": build, "shape": shape, "ok": ok, "finding": finding}


def _without(kinds: tuple[str, ...], folder: Path) -> Path:
    """A copy of the shipped GPU files in which those of some kinds are not listed, and so are never loaded."""
    shutil.copytree(module.HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    manifest = json.loads((folder / "kernel.json").read_text())
    manifest["files"] = {name: file for name, file in manifest["files"].items() if not name.endswith(kinds)}
    (folder / "kernel.json").write_text(json.dumps(manifest))
    return folder


if __name__ == "__main__":
    main()
