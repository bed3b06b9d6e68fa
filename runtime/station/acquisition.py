"""The thread that owns the camera: opens it, matches captures to triggers, survives its loss."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

from lineward.runtime.errors import CameraError
from lineward.runtime.inspection import Reason
from lineward.runtime.station.cameras import Camera
from lineward.runtime.station.records import Capture, Trigger

_LOOK_UP = 0.1  # seconds without a capture after which a stop is looked for
_REOPEN_AFTER = 0.5


class Intake(Protocol):
    """Where captures go."""

    def camera_ready(self, camera: Camera) -> None:
        """The camera was opened."""

    def camera_lost(self, error: CameraError) -> None:
        """The camera cannot be opened, or failed; it is tried again until it is there."""

    def exposed(self, capture: Capture) -> None:
        """The camera exposed by its own trigger line: a new part."""

    def frames_lost(self, count: int, monotonic_ns: int) -> None:
        """So many parts went by without a frame, the last one before that time."""

    def captured(self, trigger: Trigger, capture: Capture) -> None:
        """The frame that a trigger asked for."""

    def not_captured(self, trigger: Trigger, reason: Reason) -> None:
        """There will be no frame for a trigger."""


class Acquisition:
    """Runs a camera in a thread of its own.

    Args:
        intake: where captures go.
        open_camera: opens the camera.
        fires: the station fires the camera; else it exposes by itself.
        frame_within_ns: from trigger to frame; later, there is none.
    """

    def __init__(self, intake: Intake, open_camera: Callable[[], Camera], fires: bool, frame_within_ns: int) -> None:
        self._intake = intake
        self._open_camera = open_camera
        self._fires = fires
        self._frame_within_ns = frame_within_ns
        self._triggers: queue.SimpleQueue[Trigger] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._next = 0
        self.looked_up_ns = time.monotonic_ns()  # when the thread was last seen alive

    def fire(self, trigger: Trigger) -> None:
        """Ask for a frame."""
        self._triggers.put(trigger)

    def stop(self) -> None:
        """Let the camera go, soon."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until stopped."""
        while not self._stopping.is_set():
            try:
                with closing(self._open_camera()) as camera:
                    self._start(camera)
                    self._intake.camera_ready(camera)
                    while not self._stopping.is_set():
                        self.looked_up_ns = time.monotonic_ns()
                        (self._serve_trigger if self._fires else self._serve_line)(camera)
            except CameraError as error:
                self._intake.camera_lost(error)
                self._refuse_triggers()
                self.looked_up_ns = time.monotonic_ns()
                self._stopping.wait(_REOPEN_AFTER)
        self._refuse_triggers()

    def _serve_line(self, camera: Camera) -> None:
        capture = camera.capture(_LOOK_UP)
        if capture is None:
            return
        if capture.number > self._next:
            self._intake.frames_lost(capture.number - self._next, capture.monotonic_ns)
        self._next = capture.number + 1
        self._intake.exposed(capture)

    def _serve_trigger(self, camera: Camera) -> None:
        try:
            trigger = self._triggers.get(timeout=_LOOK_UP)
        except queue.Empty:
            if camera.capture(0.0) is not None:  # and a lost camera says so now, not at the next part
                self._start(camera)  # a frame that nobody asked for must never meet the next part
            return
        try:
            capture = self._capture_for(trigger, camera)
        except CameraError:
            self._intake.not_captured(trigger, Reason.CAMERA_LOST)
            raise
        if capture is not None:
            self._intake.captured(trigger, capture)
        else:
            self._intake.not_captured(trigger, Reason.FRAME_MISSING)
            self._start(camera)  # a frame that comes late must never meet the next part

    def _capture_for(self, trigger: Trigger, camera: Camera) -> Capture | None:
        camera.fire()
        until = trigger.monotonic_ns + self._frame_within_ns
        while (left := until - time.monotonic_ns()) > 0:
            capture = camera.capture(left / 1e9)
            if capture is None or capture.number > self._next:
                return None  # after a lost frame nobody knows whose this one is
            if capture.number == self._next:
                self._next += 1
                return capture
        return None

    def _start(self, camera: Camera) -> None:
        camera.start()
        self._next = 0

    def _refuse_triggers(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._intake.not_captured(self._triggers.get_nowait(), Reason.CAMERA_LOST)
