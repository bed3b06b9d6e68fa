"""A provider that onnxruntime silently replaces is an error."""

from __future__ import annotations

import onnxruntime
import pytest

from lineward.runtime.bundle import EMBEDDING, Bundle
from lineward.runtime.engines.onnxruntime import open_session, session_options
from lineward.runtime.engines.providers import require_provider
from lineward.runtime.errors import EngineError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class SessionDouble:
    def __init__(self, *providers: str) -> None:
        self.providers = list(providers)

    def get_providers(self) -> list[str]:
        return self.providers


@pytest.mark.parametrize("name", [CUDA, "TensorrtExecutionProvider", CPU])
def test_the_provider_asked_for(name: str) -> None:
    require_provider(SessionDouble(name, CPU), name)


@pytest.mark.parametrize(("name", "library"), [(CUDA, "CUDA and cuDNN"), ("TensorrtExecutionProvider", "libnvinfer")])
def test_a_fall_back(name: str, library: str) -> None:
    with pytest.raises(EngineError, match=rf"asked for {name} and fell back to {CPU};") as error:
        require_provider(SessionDouble(CPU), name)
    assert library in error.value.do


def test_second_choice_is_a_fall_back() -> None:
    with pytest.raises(EngineError, match=f"fell back to {CPU}, {CUDA}"):
        require_provider(SessionDouble(CPU, CUDA), CUDA)


def test_no_provider_at_all() -> None:
    with pytest.raises(EngineError, match="fell back to nothing"):
        require_provider(SessionDouble(), CUDA)


def test_the_real_onnxruntime(tiny: Bundle) -> None:
    """On a machine that has the provider the session must keep it, elsewhere the fall is found."""
    model = tiny.members[EMBEDDING]
    require_provider(onnxruntime.InferenceSession(model, providers=[CPU]), CPU)
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built with CUDA; its fall to the CPU cannot be provoked here")
    with pytest.warns(UserWarning, match=f"'{CUDA}' is not in available provider"):
        session = onnxruntime.InferenceSession(model, providers=[CUDA, CPU])
    with pytest.raises(EngineError, match=f"asked for {CUDA} and fell back to {CPU}"):
        require_provider(session, CUDA)


def test_cuda_is_asked_for_without_tensorfloat32(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def session(*_, providers):
        asked.append(providers)
        return SessionDouble(CUDA, CPU)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    open_session(tiny.members[EMBEDDING], session_options(), provider=CUDA)
    assert asked == [[(CUDA, {"use_tf32": "0"}), (CPU, {})]]
