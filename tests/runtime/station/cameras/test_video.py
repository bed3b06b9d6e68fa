from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lineward.runtime.errors import CameraError
from lineward.runtime.station.cameras import open_camera, video
from lineward.runtime.station.cameras.video import QUEUE, Video, find_devices
from lineward.runtime.station.configuration import PlcTrigger, Seconds, VideoCamera

LONG = 20.0  # seconds that only a broken camera takes
PERIOD = 0.02


class Flow:
    """A cv2.VideoCapture whose frames come at a cadence, their number in their pixels; a few wait in its queue."""

    def __init__(self, queue=1, stamped=True):
        self.began = time.monotonic()
        self.queue = queue
        self.stamped = stamped
        self.taken = 0
        self.dead = self.released = False
        self.pause = threading.Event()

    def done(self, number):
        return self.began + (number + 1) * PERIOD

    def isOpened(self):  # noqa: N802
        return True

    def set(self, *_):
        return False

    def get(self, setting):
        return self.done(self.taken) * 1e3 if setting == cv2.CAP_PROP_POS_MSEC and self.stamped else 0.0

    def grab(self):
        while self.pause.is_set() and not self.dead:
            time.sleep(0.005)
        if self.dead:
            return False
        newest = int((time.monotonic() - self.began) / PERIOD) - 1
        self.taken = max(self.taken + 1, newest - self.queue + 1)
        time.sleep(max(0.0, self.done(self.taken) - time.monotonic()))
        return True

    def retrieve(self):
        return True, np.full((4, 6, 3), (self.taken & 255, self.taken >> 8, 7), np.uint8)

    def read(self):
        return (self.grab(), self.retrieve()[1])

    def release(self):
        self.released = True


@pytest.fixture
def flowing():
    cameras = []

    def start(**settings):
        flow = Flow(**settings)
        camera = Video(flow, VideoCamera(device="/dev/video9"))
        camera.start()
        cameras.append((camera, flow))
        return camera, flow

    yield start
    for camera, flow in cameras:
        flow.pause.clear()
        camera.close()
        assert flow.released


def frame_number(capture):
    red, green, blue = (int(value) for value in capture.pixels[0, 0])
    assert red == 7, "RGB, not BGR"
    return blue | green << 8


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("queue", [1, QUEUE])
def test_the_frame_of_a_trigger_began_after_it(flowing, stamped, queue):
    camera, flow = flowing(queue=queue, stamped=stamped)
    assert (camera.shape, camera.dtype) == ((4, 6, 3), "uint8")
    for number in range(5):
        if number % 2:  # the reader was held up, and old frames wait in the queue
            flow.pause.set()
            time.sleep(8 * PERIOD)
        fired = time.monotonic_ns()
        camera.fire()
        flow.pause.clear()
        capture = camera.capture(LONG)
        assert capture.number == number
        began = flow.done(frame_number(capture) - 1)
        assert began * 1e9 >= fired - 1e6
        assert fired <= capture.monotonic_ns <= time.monotonic_ns()


def test_each_trigger_gets_a_frame_of_its_own(flowing):
    camera, _ = flowing()
    for _ in range(3):
        camera.fire()
    captures = [camera.capture(LONG) for _ in range(3)]
    assert [c.number for c in captures] == [0, 1, 2]
    assert len({frame_number(c) for c in captures}) == 3
    assert camera.capture(0.1) is None


def test_start_drops_what_was_fired(flowing):
    camera, _ = flowing()
    camera.fire()
    camera.fire()
    camera.start()
    assert camera.capture(0.2) is None
    camera.fire()
    assert camera.capture(LONG).number == 0


def test_a_device_that_dies_is_lost(flowing):
    camera, flow = flowing()
    flow.dead = True
    with pytest.raises(CameraError, match="gives no frames any more"):
        camera.capture(LONG)
    with pytest.raises(CameraError, match="gives no frames any more"):
        camera.fire()


def test_a_device_that_falls_silent_is_lost(flowing, monkeypatch):
    monkeypatch.setattr(video, "SILENT", 0.3)
    camera, flow = flowing()
    flow.pause.set()
    with pytest.raises(CameraError, match=r"gave no frame for 0\.3 s"):
        camera.capture(LONG)


def test_close_wakes_a_waiting_capture_and_may_be_called_twice(flowing):
    camera, _ = flowing()
    threading.Timer(0.05, camera.close).start()
    with pytest.raises(CameraError, match="closed"):
        camera.capture(LONG)
    camera.close()
    with pytest.raises(CameraError, match="closed"):
        camera.fire()
    assert "lineward video" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"size": (640, 480)}, "size 640"), ({"exposure": Seconds(0.005)}, "exposure 1"), ({"gain": 3.5}, "gain 3.5")],
)
def test_a_setting_that_the_device_does_not_take_is_refused(settings, word):
    flow = Flow()
    with pytest.raises(CameraError, match=f"{word} is not offered"):
        Video(flow, VideoCamera(device="/dev/video9", **settings))
    assert flow.released


def test_a_real_video_through_opencv(tmp_path):
    """A file gives its frames at once and without times of the monotonic clock: nothing before the queue counts."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MJPG")
    for number in range(2000):
        writer.write(np.full((48, 64, 3), number // 8 % 256, np.uint8))
    writer.release()
    camera = Video(cv2.VideoCapture(str(path)), VideoCamera(device=str(path)))
    assert (camera.shape, camera.dtype) == ((48, 64, 3), "uint8")
    camera.start()
    camera.fire()
    capture = camera.capture(LONG)
    assert (capture.number, capture.pixels.shape) == (0, (48, 64, 3))
    with pytest.raises(CameraError, match="gives no frames any more"):
        camera.capture(LONG)
    camera.close()


def test_a_missing_device_and_one_that_is_no_camera(tmp_path):
    with pytest.raises(CameraError, match="no such device"):
        open_camera(VideoCamera(device="/dev/video-none"), PlcTrigger())
    with pytest.raises(CameraError, match="cannot be opened"):
        open_camera(VideoCamera(device="/dev/null"), PlcTrigger())
    assert tmp_path.exists()


def test_a_pipeline_needs_an_opencv_with_gstreamer(monkeypatch):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GStreamer:                   NO")
    with pytest.raises(CameraError, match="built without GStreamer") as error:
        open_camera(VideoCamera(device="videotestsrc ! videoconvert ! appsink"), PlcTrigger())
    assert "python3-opencv" in error.value.do


def test_a_pipeline_where_opencv_has_gstreamer():
    if not video._has_gstreamer():
        pytest.skip("this OpenCV was built without GStreamer")
    pipeline = "videotestsrc is-live=true ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
    camera = open_camera(VideoCamera(device=pipeline), PlcTrigger())
    camera.start()
    camera.fire()
    assert camera.capture(LONG).number == 0
    camera.close()


def test_a_v4l2_device():
    devices = find_devices()
    if not devices:
        pytest.skip("no V4L2 device here")
    if not any(Path(device.path).exists() for device in devices):
        pytest.skip("the V4L2 devices here cannot be reached")
    assert all(device.name for device in devices)
