"""The shipped GPU files are what the source gives, and what the source gives is lean enough."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lineward.export.cuda_kernel import SHIPPED, SOURCES, build, resources
from lineward.runtime.cuda import similarity
from lineward.runtime.errors import MissingExtraError

STATIC_SHARED_LIMIT = 48 * 1024
MANIFEST = json.loads((SHIPPED / "kernel.json").read_text())
KERNELS = {"fused_max", "narrow_f16", "narrow_f32", "rescore_f16", "rescore_f32"}


def assert_lean(kernels: dict[str, dict[str, int]]) -> None:
    assert set(kernels) == KERNELS
    assert all(kernel["spilled_bytes"] == 0 for kernel in kernels.values())
    assert 0 < kernels["fused_max"]["shared_bytes"] <= STATIC_SHARED_LIMIT
    # 65 536 registers per multiprocessor, given to warps in units of 256: three blocks of four warps fit.
    assert 0 < kernels["fused_max"]["registers"] <= 168


def disassembler() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob("*/bin/nvdisasm")]
    return found[0] if found else None


def tensor_core_instructions(cubin: Path) -> int:
    tool = disassembler()
    if tool is None:
        pytest.skip("no nvdisasm (pip install nvidia-cuda-nvdisasm): the machine code was not read")
    sass = subprocess.run([str(tool), str(cubin)], check=True, capture_output=True, text=True).stdout
    return len(re.findall(r"\bHMMA\.16816\.F32\b", sass))


def test_manifest_names_the_sources_and_files_that_are_there() -> None:
    listed = {**MANIFEST["sources"], **{name: file["sha256"] for name, file in MANIFEST["files"].items()}}
    assert set(MANIFEST["sources"]) == set(SOURCES)
    for name, sha256 in listed.items():
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == sha256, (
            f"{name} is not what kernel.json says: run python -m lineward.export.cuda_kernel"
        )


def test_shipped_files_are_what_an_old_driver_reads() -> None:
    ptx = (SHIPPED / "fused_max.ptx").read_text()
    assert re.search(r"^\.version 8\.5$", ptx, re.MULTILINE)
    assert re.search(r"^\.target sm_80$", ptx, re.MULTILINE)
    cubin = (SHIPPED / "fused_max.sm_87.cubin").read_bytes()
    assert cubin[:4] == b"\x7fELF"
    assert cubin[8] == MANIFEST["cubin_abi"] == 7
    for name in KERNELS:
        assert f".entry {name}(" in ptx
        assert name.encode() in cubin


def test_shipped_cubin_is_lean() -> None:
    assert_lean(MANIFEST["kernels"])


def test_shipped_cubin_uses_the_tensor_cores() -> None:
    assert tensor_core_instructions(SHIPPED / "fused_max.sm_87.cubin") == 32


def test_rebuilding_gives_the_shipped_bytes() -> None:
    try:
        files = build()
    except MissingExtraError as error:
        pytest.skip(f"not rebuilt: {error}")
    for name, content in files.items():
        assert (SHIPPED / name).read_bytes() == content, f"{name}: run python -m lineward.export.cuda_kernel"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc: newer architectures were not compiled")
@pytest.mark.parametrize("arch", ["sm_80", "sm_87", "sm_90", "sm_110"])
@pytest.mark.parametrize("file", ["fused_max.cu", "fused_max.ptx"])
def test_nvcc_compiles_every_supported_architecture(file: str, arch: str, tmp_path: Path) -> None:
    """The source, as the launcher's last resort does; the PTX, as a driver does when it loads it."""
    cubin = tmp_path / "fused_max.cubin"
    command = ["nvcc", "-std=c++17", "-cubin", f"-arch={arch}", "-Xptxas=-v", "-Werror=all-warnings"]
    run = subprocess.run([*command, str(SHIPPED / file), "-o", str(cubin)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert_lean(resources(run.stderr))
    assert tensor_core_instructions(cubin) == 32


def test_launcher_and_kernel_agree_on_the_tile() -> None:
    source = (SHIPPED / "fused_max.cu").read_text()
    constants = {name: int(value) for name, value in re.findall(r"\b(k\w+) = (\d+)[,;]", source)}
    assert constants["kQueries"] == similarity.QUERIES_PER_BLOCK
    assert constants["kRows"] == similarity.ROWS_PER_TILE
    assert constants["kSlice"] == similarity.SLICE
    assert 32 * constants["kWarpsQ"] * constants["kWarpsB"] == similarity.THREADS


@pytest.mark.parametrize("tiles", [1, 2, 16, 125, 782])
@pytest.mark.parametrize("groups", [1, 13, 64])
@pytest.mark.parametrize("multiprocessors", [8, 16, 132])
def test_splits_cover_the_bank_and_fill_the_gpu_once(tiles: int, groups: int, multiprocessors: int) -> None:
    each = similarity.tiles_per_split(tiles, groups, multiprocessors)
    splits = -(-tiles // each)
    assert each * splits >= tiles > each * (splits - 1)
    room = similarity.BLOCKS_PER_MULTIPROCESSOR * multiprocessors
    assert groups * (splits - 1) < room
    assert each == 1 or groups * -(-tiles // (each - 1)) > room
