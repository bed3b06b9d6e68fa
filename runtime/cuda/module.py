"""Loads the compiled kernels: the shipped cubin if it fits, else the shipped PTX, else nvcc on the device."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lineward.runtime.cuda.device import Device
from lineward.runtime.errors import EngineError

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class KernelModule:
    """The kernels, loaded.

    Attributes:
        origin: where the code came from: "fused_max.sm_87.cubin", "fused_max.ptx" or "nvcc".
        refused: what was tried before, and why the driver or the compiler would not have it.
    """

    handle: Any
    origin: str
    refused: tuple[str, ...]

    def function(self, name: str) -> Any:
        """Look up one kernel."""
        return self.handle.get_function(name)


def load_kernels(device: Device, folder: Path = HERE) -> KernelModule:
    """Load the kernels into the current context.

    Args:
        device: the GPU whose context is current.
        folder: holds kernel.json and the files that it lists.

    Raises:
        EngineError: nothing loads; the message has every reason.
    """
    refused: list[str] = []
    for origin, image in _candidates(device, folder):
        try:
            handle = device.cuda.module_from_buffer(image())
        except Exception as error:
            refused.append(f"{origin}: {str(error).strip() or type(error).__name__}")
        else:
            return KernelModule(handle, origin, tuple(refused))
    raise EngineError(
        f"no build of the fused kernel loads on {device.name}: {'; '.join(refused)}",
        do="update the NVIDIA driver, or install the CUDA toolkit so that nvcc is on the PATH",
    )


def _candidates(device: Device, folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield names and recipes, the cheapest to load first.

    A cubin holds machine code for its own compute capability. PTX is compiled by the driver (once: it keeps a
    cache). nvcc covers a driver older than the PTX.
    """
    arch = "sm_{}{}".format(*device.capability)
    manifest = json.loads((folder / "kernel.json").read_text())
    for name in (f"fused_max.{arch}.cubin", "fused_max.ptx"):
        if name in manifest["files"]:
            yield name, partial(_intact, folder / name, manifest["files"][name]["sha256"])
    yield "nvcc", partial(_compile, folder, arch)


def _intact(path: Path, sha256: str) -> bytes:
    """Read a shipped file. A damaged one must not reach the driver, which trusts what it loads."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("the file is damaged: it does not match kernel.json")
    return content


def _compile(folder: Path, arch: str) -> bytes:
    compiler = importlib.import_module("pycuda.compiler")
    source = (folder / "fused_max.cu").read_text()
    cubin: bytes = compiler.compile(
        source, arch=arch, options=["-std=c++17"], no_extern_c=True, include_dirs=[str(folder)]
    )
    return cubin
