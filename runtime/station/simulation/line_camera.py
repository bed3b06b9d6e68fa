"""A camera over a simulated line: so many parts at a cadence with jitter, or one each time it is fired."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from lineward.runtime.station.cameras import Camera
from lineward.runtime.station.cameras.replay import Replay
from lineward.runtime.station.records import Capture
from lineward.runtime.station.simulation.parts import SimulatedPart


class LineCamera:
    """Shows the given parts over and over until so many were exposed, and keeps count: the camera's side of the books.

    Args:
        parts: what goes by, in turn.
        count: exposures; then no part comes any more.
        rate: parts a second; None: one for each `fire`.
        jitter: greatest deviation from the cadence, as a share of its period.
        seed: of the jitter.
    """

    def __init__(
        self, parts: Sequence[SimulatedPart], count: int, rate: float | None, jitter: float = 0.0, seed: int = 0
    ) -> None:
        self._parts = parts
        self._count = count
        self._rate = rate
        self._jitter = jitter
        self._seed = seed
        self._replay: Replay | None = None
        self._moves = threading.Event()
        self._before = 0  # exposures of earlier openings and starts
        self._exposed = 0  # since the last start
        self.name = f"simulated line of {count} parts"
        self.shape: tuple[int, ...] = parts[0].frame.shape
        self.dtype = str(parts[0].frame.dtype)

    @property
    def exposures(self) -> int:
        """Parts that went by."""
        return self._before + self._exposed

    @property
    def is_over(self) -> bool:
        """Whether all parts went by."""
        return self.exposures >= self._count

    def planted(self, place: int) -> bool:
        """Whether the part in that place, from 0, has a defect."""
        return self._parts[place % len(self._parts)].planted

    def open(self) -> Camera:
        """The camera, as the station opens it."""
        return self

    def move(self) -> None:
        """Let the parts go by, from now on."""
        if self._replay is not None:
            self._replay.start()
        self._moves.set()

    def start(self) -> None:
        """See `Camera`; the line goes on with its next part."""
        self._before, self._exposed = self.exposures, 0
        first = self._before % len(self._parts)
        frames = [part.frame for part in (*self._parts[first:], *self._parts[:first])]
        self._replay = Replay(frames, self._rate, self._jitter, self._seed)
        self._replay.start()

    def fire(self) -> None:
        """See `Camera`."""
        assert self._replay is not None  # the station starts a camera before it fires it
        self._replay.fire()
        self._exposed += 1

    def capture(self, seconds: float) -> Capture | None:
        """See `Camera`."""
        assert self._replay is not None  # the station starts a camera before it waits for it
        if not self._moves.is_set():
            self._moves.wait(seconds)
            return None
        if self._rate is not None and self.is_over:
            time.sleep(seconds)
            return None
        capture = self._replay.capture(seconds)
        if capture is None or self._before + capture.number >= self._count:
            return None
        if self._rate is not None:
            self._exposed = capture.number + 1
        return capture

    def close(self) -> None:
        """See `Camera`."""
        if self._replay is not None:
            self._replay.close()
