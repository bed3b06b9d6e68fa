"""An engine by name: that one or an error, never another."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
import pytest

from lineward.runtime.bundle import Bundle
from lineward.runtime.engines import ENGINES, OnnxRuntimeEngine, open_engine
from lineward.runtime.errors import EngineError


def test_the_cpu_is_the_default(tiny: Bundle) -> None:
    image = np.random.RandomState(0).randint(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    scores = open_engine(tiny).score(image)
    assert np.array_equal(scores, open_engine(tiny, "cpu").score(image))
    assert np.array_equal(scores, OnnxRuntimeEngine(tiny).score(image))


@pytest.mark.parametrize(
    ("name", "provider"), [("cuda", "CUDAExecutionProvider"), ("tensorrt-provider", "TensorrtExecutionProvider")]
)
def test_a_provider_that_is_not_there_is_an_error(tiny: Bundle, name: str, provider: str) -> None:
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime is built with {provider}")
    with pytest.raises(EngineError, match=f"asked for {provider} and fell back to CPU"):
        open_engine(tiny, name)


def test_tensorrt_that_is_not_there_is_an_error(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="TensorRT cannot be imported") as caught:
        open_engine(tiny, "tensorrt")
    assert "python3-libnvinfer" in caught.value.do


def test_an_unknown_name_is_an_error(tiny: Bundle) -> None:
    with pytest.raises(EngineError, match="abacus: no such engine") as caught:
        open_engine(tiny, "abacus")
    assert all(name in caught.value.do for name in ENGINES)
