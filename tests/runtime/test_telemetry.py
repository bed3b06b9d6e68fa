from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from {first} import {name}
import onnxruntime
from lineward.runtime import Inspector, read_bundle
Inspector(read_bundle(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("first", "name"),
    [("lineward.runtime", "Inspector"), ("lineward.runtime.engines", "open_engine"), ("lineward.runtime.cli", "main")],
)
def test_nothing_is_collected_whatever_is_imported_first(first, name, tiny_path, tmp_path):
    """onnxruntime would keep a device identifier and a database of events below HOME."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = PROGRAM.format(first=first, name=name)
    subprocess.run([sys.executable, "-B", "-c", program, tiny_path], env=environment, check=True, capture_output=True)
    assert list(home.rglob("*")) == []
