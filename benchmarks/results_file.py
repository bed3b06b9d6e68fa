"""Where every figure comes from: one JSON file a benchmark, with the machine, the versions and the date in it."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lineward.runtime.bench.machine import cpu_model

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("lineward", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "torch")


def write_results(name: str, command: str, figures: dict[str, Any]) -> Path:
    """Write a benchmark's figures, with their circumstances, to `results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"command": command, "date": time.strftime("%Y-%m-%d"), "machine": machine(), "figures": figures}
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"wrote {path}")
    return path


def machine() -> dict[str, Any]:
    """This machine and its versions; the load tells whether it had other work."""
    return {
        "cpu": cpu_model(cpuinfo.read_text() if (cpuinfo := Path("/proc/cpuinfo")).exists() else "") or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_1_minute": round(os.getloadavg()[0], 2),
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
