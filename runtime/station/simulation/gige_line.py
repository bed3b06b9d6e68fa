"""The simulated line before a real GigE Vision camera in software: packets, buffers and all, over loopback."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import numpy as np

from lineward.runtime.station.cameras import Camera, open_camera
from lineward.runtime.station.configuration import GenicamCamera, TriggerTable
from lineward.runtime.station.simulation.gige_camera import GigeCamera
from lineward.runtime.station.simulation.parts import SimulatedPart

_NS = 1_000_000_000
_LOOK_UP = 0.0005
_TAKEN_WITHIN = 0.1  # seconds; a trigger that came before the acquisition began is not taken at all


class GigeLine:
    """As `LineCamera`, with the camera's side of the books kept by the camera itself.

    Args:
        parts: what goes by, in turn; uint8.
        count: exposures; then no part comes any more.
        rate: parts a second; None: one each time the camera is fired.
        trigger: of the station file.
        jitter: greatest deviation from the cadence, as a share of its period.
        seed: of the jitter.

    Raises:
        CameraError: there is a camera on loopback already.
        MissingExtraError: Aravis or its binding is not installed.
    """

    def __init__(
        self,
        parts: Sequence[SimulatedPart],
        count: int,
        rate: float | None,
        trigger: TriggerTable,
        jitter: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._parts = parts
        self._count = count
        self._rate = rate
        self._trigger = trigger
        self._jitter = jitter
        self._random = random.Random(seed)
        frame = parts[0].frame
        self._pixel_format = "Mono8" if frame.ndim == 2 else "RGB8"
        images = (parts[place % len(parts)].frame.astype(np.uint8) for place in range(count))
        self._camera = GigeCamera(images, (frame.shape[0], frame.shape[1]))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._move, name="line", daemon=True)

    @property
    def exposures(self) -> int:
        """Parts that went by."""
        return self._camera.exposures

    @property
    def is_over(self) -> bool:
        """Whether all parts went by."""
        return self.exposures >= self._count

    def planted(self, place: int) -> bool:
        """Whether the part in that place, from 0, has a defect."""
        return self._parts[place % len(self._parts)].planted

    def open(self) -> Camera:
        """The camera, as the station opens it."""
        return open_camera(GenicamCamera(id=self._camera.id, pixel_format=self._pixel_format), self._trigger)

    def move(self) -> None:
        """Let the parts go by, from now on."""
        if self._rate is not None:
            self._thread.start()

    def close(self) -> None:
        """Take the camera away."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._camera.close()

    def _move(self) -> None:
        assert self._rate is not None  # `move` sees to it
        began = time.monotonic_ns()
        for place in range(self._count):
            due = began + round((place + 1 + self._random.uniform(-self._jitter, self._jitter)) * _NS / self._rate)
            if self._ended.wait(max(0, due - time.monotonic_ns()) / _NS):
                return
            self._expose()

    def _expose(self) -> None:
        """One exposure: the camera looks for triggers, and takes two that come before it looks for one."""
        before = self._camera.exposures
        while self._camera.exposures == before and not self._ended.is_set():
            self._camera.expose()
            until = time.monotonic() + _TAKEN_WITHIN
            while self._camera.exposures == before and time.monotonic() < until:
                time.sleep(_LOOK_UP)
