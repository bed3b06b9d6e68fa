"""Temperatures, clocks and throttling of the device, as often as anyone asks and read seldom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lineward.runtime.bench.machine import read_state
from lineward.runtime.bench.record import State

_KEEP = 5.0
"""Seconds; some sensors take milliseconds to read."""


class DeviceHealth:
    """The state of this machine, at most five seconds old.

    Args:
        read: reads it.
        clock: `time.monotonic`, or a test's.
    """

    def __init__(self, read: Callable[[], State] = read_state, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._state: State | None = None
        self._read_at = 0.0

    def state(self) -> State:
        """Load, clocks (MHz), temperatures (degrees Celsius) and throttling; see `read_state`."""
        with self._lock:
            now = self._clock()
            if self._state is None or now - self._read_at >= _KEEP:
                self._state, self._read_at = self._read(), now
            return self._state
