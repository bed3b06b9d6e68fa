"""Cameras: the seam, and which camera a station file means."""

from __future__ import annotations

from typing import Protocol

from lineward.runtime.station.configuration import (
    CameraTable,
    FolderCamera,
    GenicamCamera,
    ReplayCamera,
    TriggerTable,
)
from lineward.runtime.station.records import Capture


class Camera(Protocol):
    """Delivers a capture for each exposure: after `fire`, or by its own trigger line.

    Every call may raise CameraError: the camera is lost, and is opened anew by the station. One thread calls
    `capture`; the other calls may come from another thread meanwhile.

    Attributes:
        name: what it is, for people.
        shape: of its frames, [H, W] or [H, W, 3]; empty while it is not known, before a watched folder's first image.
        dtype: of its pixels, "uint8" or "uint16"; empty as long as the shape.
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


def open_camera(table: CameraTable, trigger: TriggerTable) -> Camera:
    """Open the camera that a station file means, set up for its trigger. It acquires nothing before `start`.

    Raises:
        CameraError: it is not there, or does not offer what the station file asks of it.
        ImageError: an image to replay cannot be read, or is not like the others.
        DataError: there is no image to replay.
        MissingExtraError: a package is missing that it needs.
    """
    # Each kind of camera needs libraries that a station without it may lack.
    if isinstance(table, ReplayCamera):
        from lineward.runtime.station.cameras.replay import open_replay

        return open_replay(table)
    if isinstance(table, FolderCamera):
        from lineward.runtime.station.cameras.folder import open_folder

        return open_folder(table)
    if isinstance(table, GenicamCamera):
        from lineward.runtime.station.cameras.genicam import open_genicam

        return open_genicam(table, trigger)
    from lineward.runtime.station.cameras.video import open_video

    return open_video(table)
