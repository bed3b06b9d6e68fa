"""What many tests need: a small ready bundle, and changed copies of it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import settings

from lineward.runtime.bundle import Bundle, decode_bundle, encode_bundle
from lineward.runtime.cli import main
from lineward.runtime.images import decode_image
from lineward.runtime.preprocessing import Frame

# A landing depends on the change alone: the same examples every time, however long they take on a busy machine.
# CONTRIBUTING.md says how to explore new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

KEYS_FOLDER = "lineward.runtime.trust.KEYS_FOLDER"
TINY = Path(__file__).parent / "runtime" / "data" / "tiny.lineward"


@pytest.fixture(autouse=True)
def a_machine_without_keys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key or passphrase of the machine that runs the tests decides what they find."""
    monkeypatch.setattr(KEYS_FOLDER, tmp_path_factory.getbasetemp() / "etc" / "lineward" / "keys")
    for variable in ("LINEWARD_KEYS", "LINEWARD_PASSPHRASE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def lineward(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """Runs the command in this process: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[Any, str, str]:
        code: Any
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    """The bundle that `runtime/data/make_tiny.py` makes."""
    return TINY


@pytest.fixture(scope="session")
def tiny_bytes() -> bytes:
    return TINY.read_bytes()


@pytest.fixture(scope="session")
def tiny(tiny_bytes: bytes) -> Bundle:
    return decode_bundle(tiny_bytes, "tiny.lineward")


@pytest.fixture(scope="session")
def golden_frames(tiny: Bundle) -> list[Frame]:
    """The golden images of the tiny bundle: a good part, and the same with a patch of noise."""
    return [decode_image(tiny.members[golden.image], golden.image) for golden in tiny.manifest.golden]


@pytest.fixture(scope="session")
def rebundle(tiny: Bundle) -> Callable[..., bytes]:
    """The tiny bundle with other members or manifest fields, hashes made good; a member of None is left out."""

    def build(members: Mapping[str, bytes | None] | None = None, **fields: Any) -> bytes:
        changed = {**tiny.members, **(members or {})}
        kept = {name: data for name, data in changed.items() if data is not None}
        return encode_bundle(msgspec.structs.replace(tiny.manifest, **fields), kept)

    return build


@pytest.fixture(scope="session")
def onnx_model() -> Callable[..., bytes]:
    """Writes an ONNX model without the onnx package, which a device does not have."""
    return _onnx_model


FLOAT, UINT8, INT64, STRING, DOUBLE = 1, 2, 7, 8, 11
_ELEMENT = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}


def _onnx_model(
    nodes: Sequence[tuple[str, Sequence[str], str, Mapping[str, int | Sequence[int]]]],
    *,
    takes: tuple[str, int, Sequence[int | str]],
    gives: tuple[str, int, Sequence[int | str]],
    constants: Mapping[str, Any],
) -> bytes:
    """An ONNX model.

    Args:
        nodes: operator, inputs, output and attributes of each, integers or lists of them.
        takes: name, element type and shape of the input.
        gives: the same of the output.
        constants: arrays by name, or the name of the file that holds one and its shape.
    """
    graph = b"".join(_field(1, _node(*node)) for node in nodes) + _field(2, b"graph")
    graph += b"".join(_field(5, _tensor(name, value)) for name, value in constants.items())
    graph += _field(11, _value_info(*takes)) + _field(12, _value_info(*gives))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 17))


def _field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = b""
    while value > 127:
        encoded += struct.pack("B", value & 127 | 128)
        value >>= 7
    return encoded + struct.pack("B", value)


def _node(operator: str, inputs: Sequence[str], output: str, attributes: Mapping[str, int | Sequence[int]]) -> bytes:
    encoded = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
    encoded += _field(4, operator.encode())
    for name, value in attributes.items():
        if isinstance(value, int):
            values = _field(3, value) + _field(20, 2)
        else:
            values = b"".join(_field(8, each) for each in value) + _field(20, 7)
        encoded += _field(5, _field(1, name.encode()) + values)
    return encoded


def _tensor(name: str, value: Any) -> bytes:
    stored = isinstance(value, tuple)
    location, shape = value if stored else ("", value.shape)
    dims = b"".join(_field(1, side) for side in shape)
    if stored:
        entry = _field(1, b"location") + _field(2, location.encode())
        return dims + _field(2, FLOAT) + _field(8, name.encode()) + _field(13, entry) + _field(14, 1)
    return dims + _field(2, _ELEMENT[value.dtype]) + _field(8, name.encode()) + _field(9, value.tobytes())


def _value_info(name: str, element: int, shape: Sequence[int | str]) -> bytes:
    sides = b"".join(_field(1, _field(1, s) if isinstance(s, int) else _field(2, s.encode())) for s in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, element) + _field(2, sides)))
