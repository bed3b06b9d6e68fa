"""Cameras: the seam, and which camera a station file means."""

from __future__ import annotations

from typing import Protocol

from lineward.runtime.station.records import Capture


class Camera(Protocol):
    """Delivers a capture for each exposure: after `fire`, or by its own trigger line.

    Every call may raise CameraError: the camera is lost, and is opened anew by the station.

    Attributes:
        name: what it is, for people.
        shape: of its frames, [H, W] or [H, W, 3].
        dtype: of its pixels, "uint8" or "uint16".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def start(self) -> None:
        """Begin to acquire, or begin anew: what is under way is dropped, and captures count from 0 again."""

    def fire(self) -> None:
        """Expose one frame by software trigger."""

    def capture(self, seconds: float) -> Capture | None:
        """The next capture in order, or None when none came in that time."""

    def close(self) -> None:
        """Give the camera back. May be called twice."""
