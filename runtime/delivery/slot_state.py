"""What slots remember: one record in one file, so that one rename changes all of it at once."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lineward.runtime.manifest import LONGEST_PRODUCT, Record

KEPT = 3
"""Bundles that are kept beside the active one, to go back to."""

STATE_LIMIT = 1 << 20
"""The most bytes that a file of slots may have."""

_HISTORY = 200
_LONGEST_WHY = 500
_REFUSED = 50

Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Change = Literal["deployed", "rolled back", "taken back", "mended"]


class Slot(Record, frozen=True):
    """A bundle that lies in the folder.

    Attributes:
        version: of its manifest.
        sha256: SHA-256 of its manifest, `Bundle.sha256`.
        proven: it came through its trial on the line, or was there before there was another to go back to.
    """

    version: Annotated[int, Meta(ge=1)]
    sha256: Sha256
    proven: bool = False

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return f"{self.version}-{self.sha256[:12]}.lineward"

    def is_of(self, sha256: str) -> bool:
        """Whether it is that bundle."""
        return self.sha256 == sha256


class HistoryEntry(Record, frozen=True):
    """One change of what is active.

    Attributes:
        time: UTC, ISO 8601.
        change: what was done.
        version: of what became active.
        sha256: of what became active.
        why: in words.
    """

    time: str
    change: Change
    version: int
    sha256: Sha256
    why: str


class Newest(Record, frozen=True):
    """The highest version that was ever active with a key's signature.

    Attributes:
        key: fingerprint of a key whose signature counted; empty where the device had no keys.
        version: the version.
        sha256: which bundle that was.
    """

    key: str
    version: int
    sha256: Sha256


class Refused(Record, frozen=True):
    """A bundle that proved bad on the line, and is not taken again unless it is deployed anew."""

    version: int
    sha256: Sha256
    time: str
    why: str


class SlotState(Record, frozen=True):
    """Everything about the slots of one product.

    Attributes:
        format: of this record.
        product: the only product that these slots take; empty: not known, since nothing was ever deployed.
        active: what is inspected with; None: nothing may be, until something is deployed.
        before: what can be gone back to, the latest first.
        newest: downgrade protection, one entry a key.
        refused: what proved bad.
        history: what was active when, and why it changed; the last entry is the latest.
    """

    product: Annotated[str, Meta(max_length=LONGEST_PRODUCT)] = ""
    active: Slot | None = None
    before: tuple[Slot, ...] = ()
    newest: tuple[Newest, ...] = ()
    refused: tuple[Refused, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    format: Literal[1] = 1

    @property
    def kept(self) -> tuple[Slot, ...]:
        """Every slot that is in use, the active one first."""
        return (*([self.active] if self.active else []), *self.before)

    def deployed(self, product: str, slot: Slot, keys: tuple[str, ...], time: str, why: str) -> SlotState:
        """With another bundle active, which is the newest of its keys from now on if its version is."""
        before = tuple(s for s in self.kept if not s.is_of(slot.sha256))[:KEPT]
        known = self.active is not None and self.active.is_of(slot.sha256) and self.active.proven
        newest = merge_newest(self.newest, tuple(Newest(key, slot.version, slot.sha256) for key in keys))
        return msgspec.structs.replace(
            self,
            product=product,
            active=msgspec.structs.replace(slot, proven=known or not before),
            before=before,
            newest=newest,
            refused=tuple(r for r in self.refused if r.sha256 != slot.sha256),
            history=self._with(HistoryEntry(time, "deployed", slot.version, slot.sha256, why[:_LONGEST_WHY])),
        )

    def back_to(self, slot: Slot, change: Change, time: str, why: str) -> SlotState:
        """With one of `before` active again; what came after it is let go."""
        at = self.before.index(slot)
        entry = HistoryEntry(time, change, slot.version, slot.sha256, why[:_LONGEST_WHY])
        return msgspec.structs.replace(self, active=slot, before=self.before[at + 1 :], history=self._with(entry))

    def refusing(self, slot: Slot, time: str, why: str) -> SlotState:
        """With a bundle refused, so that it is neither active nor gone back to; see `back_to` for what is then."""
        refused = (*self.refused, Refused(slot.version, slot.sha256, time, why[:_LONGEST_WHY]))[-_REFUSED:]
        before = tuple(s for s in self.before if not s.is_of(slot.sha256))
        return msgspec.structs.replace(self, refused=refused, before=before)

    def proving(self, sha256: str) -> SlotState:
        """With the active bundle proven, if it is this one."""
        if self.active is None or not self.active.is_of(sha256):
            return self
        return msgspec.structs.replace(self, active=msgspec.structs.replace(self.active, proven=True))

    def _with(self, entry: HistoryEntry) -> tuple[HistoryEntry, ...]:
        return (*self.history, entry)[-_HISTORY:]


def merge_newest(one: tuple[Newest, ...], other: tuple[Newest, ...]) -> tuple[Newest, ...]:
    """The higher version of each key; at the same version, what is in `one`."""
    merged: dict[str, Newest] = {}
    for entry in (*one, *other):
        known = merged.get(entry.key)
        if known is None or entry.version > known.version:
            merged[entry.key] = entry
    return tuple(merged[key] for key in sorted(merged))


def encode_record(record: SlotState | tuple[Newest, ...]) -> bytes:
    """JSON, and below it the SHA-256 of that: half of it, or a flipped bit in it, is never taken for the whole."""
    body = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    return body + hashlib.sha256(body).hexdigest().encode() + b"\n"


def decode_state(data: bytes) -> SlotState:
    """Decode what `encode_record` made.

    Raises:
        ValueError: it is not whole, or of a format that this version does not know.
    """
    return msgspec.json.decode(_body(data), type=SlotState)


def decode_newest(data: bytes) -> tuple[Newest, ...]:
    """See `decode_state`."""
    return msgspec.json.decode(_body(data), type=tuple[Newest, ...])


def _body(data: bytes) -> bytes:
    body, check = data[:-65], data[-65:]
    if hashlib.sha256(body).hexdigest().encode() + b"\n" != check:
        raise ValueError("damaged")
    return body
