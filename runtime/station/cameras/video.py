"""A V4L2 device or a GStreamer pipeline through OpenCV: it runs freely, and a trigger picks a frame of its flow."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lineward.runtime.errors import CameraError
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.configuration import VideoCamera
from lineward.runtime.station.records import Capture

QUEUE = 4  # frames that a driver may hold when its frames carry no time, as OpenCV's of V4L2 does
SILENT = 3.0  # seconds without a frame, after which a device is lost
_MOST_WAITING = 64  # fires that wait for their frame
_PLAUSIBLE_NS = 10**9  # a time stamp this near to the monotonic clock is of that clock


@dataclass(frozen=True)
class Device:
    """A V4L2 device: its path, and the name that its driver gives it."""

    path: str
    name: str


def find_devices() -> list[Device]:
    """The V4L2 devices of this machine; some are no cameras, but other ends of the same one."""
    return [
        Device(f"/dev/{entry.name}", (entry / "name").read_text(errors="replace").strip())
        for entry in sorted(Path("/sys/class/video4linux").glob("video*"), key=lambda e: (len(e.name), e.name))
    ]


def open_video(table: VideoCamera) -> Video:
    """Open the device or pipeline of a station file; see `open_camera`."""
    if table.device.startswith("/dev/"):
        if not Path(table.device).exists():
            raise CameraError(f"{table.device}: no such device", do="`lineward cameras` lists those that are there")
        return Video(cv2.VideoCapture(table.device, cv2.CAP_V4L2), table)
    if not _has_gstreamer():
        raise CameraError(
            f"{table.device!r} is a GStreamer pipeline, but OpenCV {cv2.__version__} here was built without GStreamer",
            do="use the system's OpenCV (JetPack's, or apt install python3-opencv) instead of pip's, or name a device",
        )
    return Video(cv2.VideoCapture(table.device, cv2.CAP_GSTREAMER), table)


class Video:
    """A camera that runs freely.

    The frame of a trigger is the first that is known to have begun after it. Where the driver stamps frames with the
    monotonic clock, as V4L2's do, that is the first frame after one stamped later than the trigger; elsewhere frames
    may have waited in a queue, and it is the first after `QUEUE` others read since. A part must stand still, or be
    lit, for that long: a camera with a trigger line needs no such patience.

    Args:
        source: an open cv2.VideoCapture.
        table: what it is, and how to set it.
    """

    def __init__(self, source: Any, table: VideoCamera) -> None:
        self.name = f"video {table.device}"
        self._source = source
        self._changed = threading.Condition()
        self._stopping = False
        self._failed: str | None = None
        self._fires: deque[tuple[int, int]] = deque()  # number and time
        self._ready: deque[Capture] = deque()
        self._fired = 0
        self._starts = 0
        self._frame_ns = time.monotonic_ns()
        try:
            first = self._set_up(table)
        except CameraError:
            source.release()
            raise
        self.shape: tuple[int, ...] = first.shape
        self.dtype = str(first.dtype)
        self._reader = threading.Thread(target=self._read, name="lineward video", daemon=True)
        self._reader.start()

    def start(self) -> None:
        """Forget what was fired; the flow goes on."""
        with self._changed:
            self._check_alive()
            self._fires.clear()
            self._ready.clear()
            self._fired = 0
            self._starts += 1

    def fire(self) -> None:
        """Ask for a frame that begins from now on."""
        with self._changed:
            self._check_alive()
            if len(self._fires) < _MOST_WAITING:
                self._fires.append((self._fired, time.monotonic_ns()))
            self._fired += 1

    def capture(self, seconds: float) -> Capture | None:
        """The frame of the first trigger that has none yet, with the last moment before it began."""
        end_ns = time.monotonic_ns() + round(seconds * 1e9)
        with self._changed:
            while True:
                if self._ready:
                    return self._ready.popleft()
                self._check_alive()
                left = (end_ns - time.monotonic_ns()) / 1e9
                if left <= 0:
                    return None
                self._changed.wait(min(left, 0.1))

    def close(self) -> None:
        """Stop reading; a driver that does not return keeps its device until it does."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._reader is not threading.current_thread():
            self._reader.join(SILENT)

    def _set_up(self, table: VideoCamera) -> Frame:
        """Set the device up and return a first frame."""
        if not self._source.isOpened():
            raise CameraError(f"{self.name}: cannot be opened", do="check that it is a camera that nobody else uses")
        for name, setting, value in _settings(table):
            if not self._source.set(setting, value) or self._source.get(setting) != value:
                raise CameraError(
                    f"{self.name}: {name} {value:g} is not offered; the device took {self._source.get(setting):g}",
                    do=f"leave camera.{name} out, or see `v4l2-ctl --list-ctrls --list-formats-ext`",
                )
        done, first = self._source.read()
        if not done:
            raise CameraError(f"{self.name}: gives no frame", do="check that it is a camera, and its cable")
        return _as_frame(first)

    def _read(self) -> None:
        """Take every frame, so that none waits, and decode only those that were asked for."""
        before: deque[int] = deque(maxlen=QUEUE + 1)  # moments before which a frame cannot have begun
        while not self._stopping:
            asked_ns = time.monotonic_ns()
            try:
                done = self._source.grab()
            except cv2.error:
                done = False
            if not done:
                self._fail("gives no frames any more")
                break
            stamp_ns = self._stamp()
            self._frame_ns = time.monotonic_ns()
            if stamp_ns and before:
                self._deliver(before[-1])
            elif len(before) == before.maxlen:
                self._deliver(before[0])
            before.append(stamp_ns or asked_ns)
        self._source.release()

    def _deliver(self, began_after_ns: int) -> None:
        """Give the frame at hand to the first trigger that came before it began."""
        with self._changed:
            if not self._fires or self._fires[0][1] > began_after_ns:
                return
            number, _ = self._fires.popleft()
            starts = self._starts
        done, pixels = self._source.retrieve()
        with self._changed:
            if starts == self._starts:
                self._ready.append(Capture(number, began_after_ns, _as_frame(pixels) if done else None))
                self._changed.notify_all()

    def _stamp(self) -> int | None:
        """When the driver says that the frame was there, if it says so by the monotonic clock."""
        stamp_ns = round(self._source.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        return stamp_ns if 0 <= time.monotonic_ns() - stamp_ns < _PLAUSIBLE_NS else None

    def _fail(self, how: str) -> None:
        with self._changed:
            self._failed = how
            self._changed.notify_all()

    def _check_alive(self) -> None:
        if self._stopping:
            raise CameraError(f"{self.name}: closed", do="open it again")
        if self._failed is None and time.monotonic_ns() - self._frame_ns > SILENT * 1e9:
            self._failed = f"gave no frame for {SILENT:g} s"
        if self._failed is not None:
            raise CameraError(f"{self.name}: {self._failed}", do="check its cable and power")


def _settings(table: VideoCamera) -> list[tuple[str, int, float]]:
    """Settings of OpenCV: the name in the station file, the property and its value."""
    settings: list[tuple[str, int, float]] = []
    if table.size is not None:
        settings += [
            ("size", cv2.CAP_PROP_FRAME_WIDTH, table.size[0]),
            ("size", cv2.CAP_PROP_FRAME_HEIGHT, table.size[1]),
        ]
    if table.exposure is not None:
        settings += [
            ("exposure", cv2.CAP_PROP_AUTO_EXPOSURE, 1),  # V4L2: manual
            ("exposure", cv2.CAP_PROP_EXPOSURE, round(table.exposure * 1e4)),  # V4L2 counts in 100 us
        ]
    if table.gain is not None:
        settings.append(("gain", cv2.CAP_PROP_GAIN, table.gain))
    return settings


def _as_frame(pixels: Any) -> Frame:
    """OpenCV's image, gray or BGR, as a frame."""
    frame: Frame = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
    return frame


def _has_gstreamer() -> bool:
    return re.search(r"GStreamer:\s*YES", cv2.getBuildInformation()) is not None
