"""The shipped launcher end to end: real PyCUDA, the real cubin and PTX, a fake driver, the emulated GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.cuda.emulated import PYCUDA, PYCUDA_IS_BUILT, SHIPPED, compile_emulated

ROOT = SHIPPED.parents[1]

needs_pycuda = pytest.mark.skipif(
    not PYCUDA_IS_BUILT,
    reason=f"PyCUDA is not in {PYCUDA}: build it once with tests/runtime/cuda/build_pycuda.sh",
)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: the GPU cannot be emulated")

Run = Callable[..., None]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_emulated("fake_driver.cpp", tmp_path_factory.mktemp("driver") / "libcuda.so.1")


def run_scenario(*words: str, paths: list[Path], **settings: str) -> None:
    environment = {**os.environ, **settings, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *sys.path])
    command = [sys.executable, "-W", "error", "-m", "tests.runtime.cuda.scenarios", *words]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "PyCUDA" not in run.stderr, run.stderr  # it only warns of what it could not clean up


@pytest.fixture
def scenario(driver: Path, tmp_path: Path) -> Run:
    """Run one scenario; settings are those of fake_driver.cpp, in lower case and without the prefix."""

    def run(*words: str, **settings: int) -> None:
        fake = {f"LINEWARD_FAKE_{name.upper()}": str(value) for name, value in settings.items()}
        run_scenario(
            *words,
            paths=[PYCUDA, ROOT],
            LD_PRELOAD=str(driver),
            LD_LIBRARY_PATH=str(driver.parent),
            PYCUDA_CACHE_DIR=str(tmp_path),
            **fake,
        )

    return run


@needs_pycuda
@needs_compiler
class TestOnTheFakeDriver:
    @pytest.mark.parametrize(
        "name",
        [
            "answers_are_right_and_only_results_come_back",
            "integer_results_are_bit_equal",
            "device_pointers_share_the_stream_and_two_results_wait",
            "another_thread_may_use_it",
            "nan_is_never_a_score",
            "wrong_arguments_are_refused",
            "a_failed_launch_is_an_error",
            "a_damaged_file_is_passed_over",
            "the_selfcheck_agrees",
            "the_selfcheck_finds_a_wrong_similarity",
            "the_kernel_agrees_with_cublas",
        ],
    )
    def test_scenario(self, scenario: Run, name: str) -> None:
        scenario(name)

    def test_cubin_is_loaded_on_its_own_capability(self, scenario: Run) -> None:
        scenario("loaded_from", "fused_max.sm_87.cubin", capability=87)

    def test_ptx_is_loaded_on_others(self, scenario: Run) -> None:
        scenario("loaded_from", "fused_max.ptx", capability=90)

    def test_ptx_is_loaded_when_the_cubin_is_refused(self, scenario: Run) -> None:
        scenario("loaded_from", "fused_max.ptx", refuse=1)

    @pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc: compiling on the device cannot be tried")
    def test_nvcc_compiles_when_both_are_refused(self, scenario: Run) -> None:
        scenario("loaded_from", "nvcc", refuse=2)

    def test_every_reason_is_told_when_nothing_loads(self, scenario: Run) -> None:
        scenario("nothing_loads", refuse=3)

    def test_too_old_a_gpu_is_refused(self, scenario: Run) -> None:
        scenario("refused_with", "needs 8.0 or newer", capability=72)

    def test_no_gpu_is_an_error(self, scenario: Run) -> None:
        scenario("refused_with", "no usable GPU number 0", devices=0)

    def test_too_little_memory_is_an_error_and_frees_all(self, scenario: Run) -> None:
        scenario("refused_with", "out of memory", memory=2_500_000)


@needs_pycuda
def test_no_driver_is_an_error() -> None:
    run_scenario("refused_with", "no NVIDIA driver", paths=[PYCUDA, ROOT])


def test_no_pycuda_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pycuda.py").write_text("raise ModuleNotFoundError('no pycuda here')\n")
    run_scenario("refused_with", "PyCUDA, which is not installed", paths=[tmp_path, ROOT])
