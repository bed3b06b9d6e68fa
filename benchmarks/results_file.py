"""Where every figure comes from: one JSON file a benchmark, with the machine, the versions and the date in it."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_1_minute": round(os.getloadavg()[0], 2),
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
