"""Whether the PLC is there, and the news when that changes."""

from __future__ import annotations

import time
from collections.abc import Callable

_SILENT_AFTER_NS = 2_000_000_000


class Presence:
    """Hears the PLC; that it was never there yet is news as well, that it is there for the first time is not.

    Args:
        on_event: hears "plc_lost" and "plc_back".
        clock: `time.monotonic_ns`, or a test's.
    """

    def __init__(self, on_event: Callable[[str, str], None], clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._on_event = on_event
        self._clock = clock
        self._heard_ns: int | None = None
        self._missed = False
        self.connected = False

    def heard(self, detail: str) -> None:
        """The PLC spoke."""
        self._heard_ns = self._clock()
        self.connected = True
        if self._missed:
            self._missed = False
            self._on_event("plc_back", detail)

    def lost(self, detail: str) -> None:
        """The PLC is not there."""
        self.connected = False
        if not self._missed:
            self._missed = True
            self._on_event("plc_lost", detail)

    def look(self) -> None:
        """Hold a PLC for lost that has not spoken for two seconds, or in two seconds since the first look."""
        now = self._clock()
        self._heard_ns = now if self._heard_ns is None else self._heard_ns
        silent_ns = now - self._heard_ns
        if silent_ns >= _SILENT_AFTER_NS:
            self.lost(f"nothing was heard from it for {silent_ns / 1e9:.0f} s")
