"""The report of a device: what is checked, what failed, what could not be checked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lineward.runtime import selfcheck as module
from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.engines import ENGINES, OnnxRuntimeEngine
from lineward.runtime.errors import EngineError
from lineward.runtime.selfcheck import Outcome, selfcheck


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without TensorRT and PyCUDA, wherever the tests run."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    module.open_device.cache_clear()


def test_what_is_there_is_checked_and_what_is_not_is_said(tiny: Bundle) -> None:
    found = {check.subject: check for check in selfcheck(tiny)}
    assert found["preprocessing"].outcome is Outcome.OK
    assert found["engine cpu"].outcome is Outcome.OK
    assert "2 golden images within" in found["engine cpu"].finding
    for absent, reason in {"TensorRT": "cannot be imported", "fused kernel": "PyCUDA"}.items():
        assert found[absent].outcome is Outcome.NOT_CHECKED
        assert reason in found[absent].finding
    assert {f"engine {name}" for name in ENGINES} <= found.keys()


def test_without_a_bundle_no_engine_is_checked() -> None:
    engines = [check for check in selfcheck(None) if check.subject.startswith("engine")]
    assert {check.outcome for check in engines} == {Outcome.NOT_CHECKED}
    assert len(engines) == len(ENGINES)


def test_other_pixels_are_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "PREPROCESSED_SHA256", "0" * 64)
    assert main(["selfcheck"]) == FAILED
    assert "FAILED       preprocessing: a seeded frame gives other pixels here" in capsys.readouterr().out


def test_golden_images_that_differ_are_a_failure(tiny: Bundle, rebundle, tmp_path: Path, capsys) -> None:
    golden = tiny.manifest.golden[0]
    swapped = {golden.scores: tiny.members[tiny.manifest.golden[1].scores]}
    path = tmp_path / "other.lineward"
    path.write_bytes(rebundle(swapped))
    assert main(["selfcheck", str(path)]) == FAILED
    assert "FAILED       engine cpu" in capsys.readouterr().out


@pytest.mark.parametrize(("by", "outcome"), [(0.0015, Outcome.OK), (0.0025, Outcome.FAILED)])
def test_the_tensorrt_engine_may_lose_what_half_precision_loses(by, outcome, tiny: Bundle, monkeypatch) -> None:
    """Its kernel looks for the nearest row in half precision, so scores may be 2^-9 too high, and no more."""

    class TooHigh(OnnxRuntimeEngine):
        def score(self, images):
            return super().score(images) + np.float32(by)

    monkeypatch.setattr(module, "open_engine", lambda bundle, _: TooHigh(bundle))
    monkeypatch.setattr(module, "_need_parts", lambda *_: None)
    found = {check.subject: check.outcome for check in selfcheck(tiny)}
    assert found["engine tensorrt"] is outcome
    assert found["engine cpu"] is Outcome.FAILED


def test_an_engine_whose_parts_are_all_there_must_open(tiny: Bundle, monkeypatch) -> None:
    def refused(*_):
        raise EngineError("TensorRT refuses the graph", do="report it")

    monkeypatch.setattr(module, "open_engine", refused)
    for part in ("import_tensorrt", "open_device"):
        monkeypatch.setattr(module, part, lambda: SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(module, "_check_kernel", list)
    found = {check.subject: check.outcome for check in selfcheck(tiny)}
    assert found["engine tensorrt"] is Outcome.FAILED
    assert found["engine cuda"] is Outcome.NOT_CHECKED


def test_a_bundle_without_golden_images_cannot_tell(tiny: Bundle, rebundle) -> None:
    members = {name: None for name in tiny.members if name.startswith("golden/")}
    bundle = decode_bundle(rebundle(members, golden=()), "bare.lineward")
    engines = [check for check in selfcheck(bundle) if check.subject.startswith("engine")]
    assert {check.finding for check in engines} == {"the bundle has no golden images"}
    assert {check.outcome for check in engines} == {Outcome.NOT_CHECKED}


def test_whatever_a_driver_raises_the_report_goes_on(tiny: Bundle, monkeypatch) -> None:
    def broken(*_):
        raise RuntimeError("cuMemAlloc failed")

    monkeypatch.setattr(module, "check_golden", broken)
    found = {check.subject: check for check in selfcheck(tiny)}
    assert found["engine cpu"].outcome is Outcome.FAILED
    assert found["engine cpu"].finding == "RuntimeError: cuMemAlloc failed"
    assert "engine tensorrt" in found


def test_without_cupy_the_kernel_is_not_compared_with_cublas(monkeypatch) -> None:
    monkeypatch.setattr(module, "open_device", lambda: SimpleNamespace(name="GPU", capability=(8, 7)))
    monkeypatch.setattr(module, "check_shape", lambda *_: "as numpy")
    found = {check.subject: check for check in module._check_kernel()}["fused kernel beside cuBLAS"]
    assert found.outcome is Outcome.NOT_CHECKED
    assert "pip install cupy" in found.finding


def test_json(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", str(tiny_path), "--json"]) == PASSED
    checks = json.loads(capsys.readouterr().out)
    assert {"subject", "outcome", "finding"} == set(checks[0])
    assert "ok" in {check["outcome"] for check in checks}


def test_engine_list_prune_and_build_without_tensorrt(tiny_path: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["engine", "list"]) == PASSED
    assert main(["engine", "prune", str(tiny_path)]) == PASSED
    assert main(["engine", "build", str(tiny_path)]) == FAILED
    assert "TensorRT cannot be imported" in capsys.readouterr().err
