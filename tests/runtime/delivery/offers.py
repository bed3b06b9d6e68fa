"""Bundles of many versions to deploy, and slots to deploy them to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lineward.runtime.bundle import Bundle, decode_bundle, encode_bundle, replace_signatures
from lineward.runtime.delivery.deployment import Target, deploy
from lineward.runtime.delivery.slot_state import SlotState
from lineward.runtime.delivery.slots import Slots
from lineward.runtime.trust import AcceptAny, Trust
from tests.signers import Signer

TINY = Path(__file__).parents[1] / "data" / "tiny.lineward"


def bundle(number: int, *signers: Signer, **fields: Any) -> bytes:
    """The tiny bundle as another version, with other fields of its manifest, signed."""
    tiny = decode_bundle(TINY.read_bytes(), "tiny")
    data = encode_bundle(msgspec.structs.replace(tiny.manifest, version=number, **fields), tiny.members)
    if not signers:
        return data
    sha256 = decode_bundle(data, "tiny").sha256
    return replace_signatures(data, tuple(signer.sign(sha256) for signer in signers), "tiny")


class Desk:
    """Slots in a folder, and a place where bundles come from."""

    def __init__(self, folder: Path, trust: Trust | None = None) -> None:
        self.folder = folder
        self.trust: Trust = trust or AcceptAny()
        self.slots = Slots(folder / "slots")
        self.proven: list[int] = []

    def file(self, data: bytes) -> Path:
        path = self.folder / "offered.lineward"
        path.write_bytes(data)
        return path

    def deploy(self, data: bytes, permit: Path | None = None) -> SlotState:
        return deploy(Target(self.slots, "desk", self.trust), self.file(data), self._prove, permit)

    @property
    def active(self) -> int:
        state = self.slots.read()
        assert state.active is not None
        assert self.slots.bundle(state.active, self.trust).manifest.version == state.active.version
        return state.active.version

    def _prove(self, bundle: Bundle) -> None:
        self.proven.append(bundle.manifest.version)
