from __future__ import annotations

import subprocess
import sys
import textwrap

BLOCKED = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {"torch", "timm", "onnx", "sklearn", "pycuda", "tensorrt", "jinja2"}:
                raise ModuleNotFoundError(f"{name} is blocked", name=name)

    sys.meta_path.insert(0, Blocker())
"""


def run(code):
    """Run code in an interpreter of its own and return what it prints, as words."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_module_of_the_runtime_imports_on_a_device():
    found = run(
        BLOCKED
        + """
    import importlib
    import pkgutil

    import lineward.runtime

    for module in pkgutil.walk_packages(lineward.runtime.__path__, "lineward.runtime."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if error.name not in {"asyncua", "pymodbus", "tuf"}:  # of the extras: opened only by who asks for them
                    raise
            print(module.name)
    """
    )
    assert {"lineward.runtime.bundle", "lineward.runtime.inspector", "lineward.runtime.engines.onnxruntime"} <= set(
        found
    )


def test_the_blocker_blocks():
    assert run(
        BLOCKED
        + """
    try:
        import onnx
    except ModuleNotFoundError as error:
        print(error.name)
    """
    ) == ["onnx"]


def test_importing_the_runtime_is_lean():
    """It brings what scoring needs, not what printing, training or a TensorRT engine does."""
    loaded = set(run("import sys, lineward.runtime; print(*sys.modules)"))
    assert {"numpy", "onnxruntime", "cv2", "msgspec", "safetensors"} <= loaded
    heavy = {"rich", "torch", "timm", "onnx", "sklearn", "scipy", "pycuda", "tensorrt", "jinja2"}
    assert loaded & heavy == set()
    assert {name for name in loaded if name.startswith(("lineward.export", "lineward.calibration"))} == set()
    assert "lineward.runtime.cli" not in loaded
