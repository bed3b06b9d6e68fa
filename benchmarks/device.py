"""What the device pays: installed size, import time, memory and time of an image, with the default recipe's bundle.

    python -m benchmarks.device

The installed size is that of a new environment with `pip install .` alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_results
from lineward.export.synthetic import write_dataset
from lineward.export.training import train
from lineward.runtime.bundle import write_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.images import find_images

ROOT = Path(__file__).parent.parent

_IMPORT = """
import time; start = time.perf_counter()
import lineward.runtime
print(time.perf_counter() - start)
"""
_INSPECT = """
import json, sys, time
from pathlib import Path
import numpy as np
from lineward.runtime import Inspector, read_bundle
inspector = Inspector(read_bundle(sys.argv[1]))
frame = np.random.RandomState(0).randint(0, 256, (1024, 1024, 3)).astype(np.uint8)
start = time.perf_counter(); inspector.inspect(frame); cold = time.perf_counter() - start
seconds = sorted(inspector.inspect(frame).seconds for _ in range(200))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
memory = int(status["VmHWM"].split()[0]) / 1024  # getrusage would count the parent's before exec
print(json.dumps({"peak_memory_mib": memory, "first_ms": cold * 1e3, "p50_ms": seconds[100] * 1e3,
                  "p99_ms": seconds[198] * 1e3, "frame": "1024x1024 RGB", "images": 200}))
"""


def main() -> None:
    """Install, import and inspect in processes of their own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        python = _new_environment(folder / "device")
        imports = sorted(float(_run(python, _IMPORT)) for _ in range(7))
        figures = {
            "installed_mib": _size(folder / "device"),
            "import_seconds_median_of_7": round(imports[3], 3),
            "inspect": _rounded(json.loads(_run(python, _INSPECT, _bundle(folder)))),
        }
    write_results("device", "python -m benchmarks.device", figures)


def _new_environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", str(ROOT)], check=True)
    return python


def _bundle(folder: Path) -> str:
    write_dataset(folder / "parts", train=60, test_good=0, per_defect=0)
    path = folder / "parts.lineward"
    write_bundle(path, train(find_images([folder / "parts" / "train"]), "parts", progress=ConsoleProgress()))
    return str(path)


def _run(python: Path, code: str, *arguments: str) -> str:
    return subprocess.run([python, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout


def _size(folder: Path) -> int:
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) / 2**20)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in values.items()}


if __name__ == "__main__":
    main()
