"""Is the fused kernel right on this GPU, however it is loaded? Needs a GPU and PyCUDA; `run.sh` runs it.

    python -m benchmarks.gpu.correctness [--small]

The cubin or PTX that ships, PTX compiled by the driver, and nvcc on this machine: each over the self-check's shapes
and larger ones. `--small` is for compute-sanitizer, which slows a GPU down a hundredfold; it writes no file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.results_file import write_results
from lineward.runtime.cuda import Device, module, open_device, similarity
from lineward.runtime.selfcheck import kernel
from lineward.runtime.selfcheck.facts import facts
from lineward.runtime.selfcheck.findings import Finding, Outcome, look

LARGE = ((784, 20_000, 1024), (4096, 16_000, 384), (784, 100_000, 1024))
BUILDS = {"as shipped": (), "PTX": ("cubin",), "nvcc": ("cubin", "ptx")}
CHECKS: dict[str, Callable[[Device], str]] = {
    "unit rows": kernel.unit_rows_agree,
    "whole numbers": kernel.whole_numbers_are_bit_equal,
    "NaN": kernel.nan_is_never_a_score,
}


def main() -> None:
    """Check every build; exit with 1 if one is wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--small", action="store_true", help="the build as shipped and small shapes alone")
    small = parser.parse_args().small
    kernel.SHAPES = kernel.SHAPES[:7] if small else (*kernel.SHAPES, *LARGE)
    device = open_device()
    findings = [found for name in list(BUILDS)[: 1 if small else None] for found in _check(device, name)]
    for found in findings:
        print(f"{found.outcome.value:<15}  {found.subject}: {found.words}", flush=True)
    if not small:
        figures = {"facts": facts(), "shapes": kernel.SHAPES, "checks": [asdict(found) for found in findings]}
        write_results("gpu_correctness", "python -m benchmarks.gpu.correctness", figures)
    raise SystemExit(any(found.outcome is not Outcome.OK for found in findings))


def _check(device: Device, build: str) -> list[Finding]:
    """Every check with one build of the kernel."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = _without(BUILDS[build], Path(scratch) / "cuda")
        with patch.object(similarity, "load_kernels", partial(module.load_kernels, folder=folder)):
            return [look(f"{build}, {name}", partial(check, device)) for name, check in CHECKS.items()]


def _without(kinds: tuple[str, ...], folder: Path) -> Path:
    """A copy of the shipped GPU files in which those of some kinds are not listed, and so are never loaded."""
    shutil.copytree(module.HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    manifest = json.loads((folder / "kernel.json").read_text())
    manifest["files"] = {name: file for name, file in manifest["files"].items() if not name.endswith(kinds)}
    (folder / "kernel.json").write_text(json.dumps(manifest))
    return folder


if __name__ == "__main__":
    main()
