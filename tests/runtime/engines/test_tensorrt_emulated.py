"""The engine's CUDA half end to end: real PyCUDA, the shipped kernel, a fake driver, the emulated GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.cuda.emulated import PYCUDA, PYCUDA_IS_BUILT, SHIPPED, compile_emulated

ROOT = SHIPPED.parents[1]


@pytest.mark.skipif(
    not PYCUDA_IS_BUILT,
    reason=f"PyCUDA is not in {PYCUDA}: build it once with tests/runtime/cuda/build_pycuda.sh",
)
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: the GPU cannot be emulated")
def test_scores_through_the_shipped_launcher(tmp_path: Path) -> None:
    driver = compile_emulated("fake_driver.cpp", tmp_path / "libcuda.so.1")
    paths = os.pathsep.join([str(PYCUDA), str(ROOT), *sys.path])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "LD_PRELOAD": str(driver),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-W", "error", "-m", "tests.runtime.engines.emulated_engine"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "PyCUDA ERROR" not in run.stderr
