"""Builds the GPU files that ship in runtime/cuda: `python -m lineward.export.cuda_kernel`.

Needs no GPU and no driver, only NVRTC, NVIDIA's runtime compiler, from PyPI: nvidia-cuda-nvrtc-cu12==12.6.85.
The version is pinned for two reasons. Its output is the same bytes every time, so a test can rebuild and
compare. And its PTX (ISA 8.5) and cubin (ELF ABI 7) belong to CUDA 12.6, that of JetPack 6, and newer drivers
read them too; NVRTC 13 writes PTX ISA 9.0 and ABI 8, which a JetPack 6 driver does not promise to read.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lineward.runtime.cuda
from lineward.runtime.errors import EngineError, LinewardError, MissingExtraError

SHIPPED = Path(lineward.runtime.cuda.__file__).resolve().parent
NVRTC = "12.6.85"
SOURCES = ("fused_max.cu", "fused_prims.h")
OPTIONS = ("--std=c++17", "--ptxas-options=-v")
TARGETS = {"fused_max.ptx": "compute_80", "fused_max.sm_87.cubin": "sm_87"}


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of the source, and what it said."""

    code: bytes
    log: str


class Nvrtc:
    """NVRTC's C interface, as far as it is needed here (NVRTC 12.6 manual, "Compilation").

    Raises:
        MissingExtraError: the PyPI package is not installed.
    """

    def __init__(self) -> None:
        spec = importlib.util.find_spec("nvidia")
        folders = [Path(p) / "cuda_nvrtc" / "lib" for p in (spec.submodule_search_locations or [])] if spec else []
        found = [folder / "libnvrtc.so.12" for folder in folders if (folder / "libnvrtc.so.12").exists()]
        if not found:
            raise MissingExtraError("NVRTC 12 is not installed", do=f"pip install nvidia-cuda-nvrtc-cu12=={NVRTC}")
        # NVRTC opens its builtins by name: they must be loaded already, since they are on no library path.
        for builtins in found[0].parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self._lib = ctypes.CDLL(str(found[0]))

    def version(self) -> str:
        """Return major.minor, such as 12.6."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def compile(self, source: str, header: str, architecture: str) -> Compiled:
        """Compile fused_max.cu for "sm_NN" (to a cubin) or "compute_NN" (to PTX).

        Raises:
            EngineError: the source does not compile; the message has the compiler's log.
        """
        program = ctypes.c_void_p()
        headers, names = (ctypes.c_char_p * 1)(header.encode()), (ctypes.c_char_p * 1)(SOURCES[1].encode())
        main = (source.encode(), SOURCES[0].encode())
        self._call("nvrtcCreateProgram", ctypes.byref(program), *main, 1, headers, names)
        options = [f"--gpu-architecture={architecture}".encode(), *(o.encode() for o in OPTIONS)]
        failed = self._lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = self._read(program, "nvrtcGetProgramLog").rstrip(b"\0").decode()
        if failed:
            raise EngineError(f"{SOURCES[0]} does not compile for {architecture}:\n{log}", do="correct the source")
        code = self._read(program, "nvrtcGetCUBIN" if architecture.startswith("sm_") else "nvrtcGetPTX")
        self._call("nvrtcDestroyProgram", ctypes.byref(program))
        return Compiled(code.rstrip(b"\0") if code.startswith(b"//") else code, log)

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{what}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(what, program, content)
        return content.raw

    def _call(self, function: str, *arguments: Any) -> None:
        error = getattr(self._lib, function)(*arguments)
        if error:
            raise EngineError(f"{function} failed with error {error}", do=f"reinstall NVRTC {NVRTC}")


def resources(log: str) -> dict[str, dict[str, int]]:
    """Read registers, spilled bytes and static shared memory of every kernel from ptxas's log."""
    found = {}
    for section in log.split("Function properties for ")[1:]:
        kernel, _, text = section.partition("\n")
        spills = re.findall(r"(\d+) bytes spill", text)
        shared = re.search(r"(\d+) bytes smem", text)
        found[kernel.strip()] = {
            "registers": int(re.findall(r"Used (\d+) registers", text)[0]),
            "spilled_bytes": sum(map(int, spills)),
            "shared_bytes": int(shared[1]) if shared else 0,
        }
    return dict(sorted(found.items()))


def build(folder: Path = SHIPPED) -> dict[str, bytes]:
    """Compile the source in `folder`.

    Returns:
        The files to ship, by name: PTX, cubin, and the manifest kernel.json.

    Raises:
        MissingExtraError: NVRTC is not installed.
        EngineError: it is another version, or the source does not compile.
    """
    nvrtc = Nvrtc()
    if nvrtc.version() != NVRTC.rpartition(".")[0]:
        raise EngineError(f"this is NVRTC {nvrtc.version()}", do=f"pip install nvidia-cuda-nvrtc-cu12=={NVRTC}")
    source, header = ((folder / name).read_text() for name in SOURCES)
    compiled = {name: nvrtc.compile(source, header, architecture) for name, architecture in TARGETS.items()}
    files = {name: result.code for name, result in compiled.items()}
    return {**files, "kernel.json": _manifest(folder, compiled)}


def _manifest(folder: Path, compiled: dict[str, Compiled]) -> bytes:
    ptx_isa = re.search(rb"^\.version (\S+)", compiled["fused_max.ptx"].code, re.MULTILINE)
    content = {
        "sources": {name: _sha256((folder / name).read_bytes()) for name in SOURCES},
        "compiler": {"name": "NVRTC", "version": NVRTC, "options": list(OPTIONS)},
        "files": {
            name: {"target": TARGETS[name], "bytes": len(result.code), "sha256": _sha256(result.code)}
            for name, result in compiled.items()
        },
        "ptx_isa": ptx_isa[1].decode() if ptx_isa else None,
        "cubin_abi": compiled["fused_max.sm_87.cubin"].code[8],  # EI_ABIVERSION of the ELF header
        "kernels": resources(compiled["fused_max.sm_87.cubin"].log),
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Rebuild the shipped files, or with --check say whether they are what the source gives."""
    parser = argparse.ArgumentParser(prog="python -m lineward.export.cuda_kernel", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    check = parser.parse_args().check
    try:
        files = build()
    except LinewardError as error:
        raise SystemExit(str(error)) from error
    stale = []
    for name, content in files.items():
        path = SHIPPED / name
        same = path.exists() and path.read_bytes() == content
        print(f"{name}: {len(content)} bytes, {'unchanged' if same else 'differs' if check else 'written'}")
        stale += [] if same else [name]
        if not same and not check:
            path.write_bytes(content)
    if check and stale:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
