"""Records the Python API of TensorRT releases from NVIDIA's own wheels, with no GPU and no TensorRT library.

    pip download --no-deps -d W1 tensorrt-cu12-bindings==10.3.0        # and unzip each wheel in place:
    pip download --no-deps -d W2 tensorrt-cu13-bindings==10.13.3.9     #   python -m zipfile -e W1/*.whl W1
    pip download --no-deps -d W3 tensorrt-cu13-bindings==11.4.0.106
    python record.py W1 W2 W3          # oldest first; Python of the wheels' version, gcc

The bindings import nine C functions of libnvinfer and its companions; stubs of these are enough to load them,
and then every class and member is the real one. Written beside this file: `<version>.json` with the classes
below, and `gone.json` with what the oldest release has and the newest has not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorIOMode",
]

STUB = """
#include <stddef.h>
#define S(n) void* n(void){ return NULL; }
S(createInferBuilder_INTERNAL) S(createInferRefitter_INTERNAL) S(createInferRuntime_INTERNAL)
S(createNvOnnxParserRefitter_INTERNAL) S(createNvOnnxParser_INTERNAL) S(getBuilderPluginRegistry)
S(getPluginRegistry)
int getNvOnnxParserVersion(void){ return 0; }
int initLibNvInferPlugins(void*l,const char*n){ return 1; }
"""

SURFACE = """
import inspect, json, tensorrt_bindings as trt
public = {name: getattr(trt, name) for name in dir(trt) if name[0] != "_"}
members = {name: sorted(m for m in dir(c) if m[0] != "_") for name, c in public.items() if inspect.isclass(c)}
print(json.dumps({"version": trt.__version__, "names": sorted(public), "classes": members}))
"""


def stubs(folder: Path) -> None:
    source = folder / "stub.c"
    source.write_text(STUB)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        for major in (10, 11):
            name = f"lib{library}.so.{major}"
            soname = f"-Wl,-soname,{name}"
            subprocess.run(["gcc", "-shared", "-fPIC", soname, "-o", folder / name, source], check=True)


def surface(wheel: Path, libraries: Path) -> dict:
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(wheel.resolve())}
    command = [sys.executable, "-c", SURFACE]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def write(name: str, content: dict) -> None:
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    Path(__file__).with_name(name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main(wheels: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stubs(Path(folder))
        recorded = [surface(Path(wheel), Path(folder)) for wheel in wheels]
    for one in recorded:
        write(f"{one['version']}.json", {name: one["classes"][name] for name in CLASSES})
    oldest, newest = recorded[0]["classes"], recorded[-1]["classes"]
    gone = {name: sorted(set(oldest[name]) - set(newest[name])) for name in [*CLASSES, "ILayer"]}
    gone["module"] = sorted(set(recorded[0]["names"]) - set(recorded[-1]["names"]))
    write("gone.json", {name: members for name, members in gone.items() if members})


if __name__ == "__main__":
    main(sys.argv[1:])
