"""onnxruntime's execution providers: the one asked for, or an error."""

from __future__ import annotations

from typing import Protocol

from lineward.runtime.errors import EngineError

LIBRARIES = {
    "CUDAExecutionProvider": "CUDA and cuDNN",
    "TensorrtExecutionProvider": "TensorRT (libnvinfer), CUDA and cuDNN",
}

OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""TensorFloat-32, onnxruntime's default, rounds factors to 10 bits: golden images would not be met within 1e-4."""


class Session(Protocol):
    """An `onnxruntime.InferenceSession`."""

    def get_providers(self) -> list[str]:
        """The providers that the session really has, first choice first."""


def require_provider(session: Session, name: str) -> None:
    """Makes sure that a session runs where it was asked to.

    onnxruntime falls back to the CPU without an exception when a provider's libraries cannot be loaded, and
    lists a provider as available although it cannot be; only the finished session tells the truth.

    Args:
        session: a session made with the provider as first choice.
        name: the provider, such as `CUDAExecutionProvider`.

    Raises:
        EngineError: the session's first provider is another one.
    """
    actual = session.get_providers()
    if actual[:1] == [name]:
        return
    raise EngineError(
        f"onnxruntime was asked for {name} and fell back to {', '.join(actual) or 'nothing'}; most likely a "
        "library that the provider needs is missing or of another version",
        do=f"Install {LIBRARIES.get(name, 'what the provider needs')} in the versions that this onnxruntime "
        "was built for (its log names the library that it could not open), or ask for CPUExecutionProvider.",
    )
