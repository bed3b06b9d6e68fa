from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from lineward.runtime.errors import CameraError, DataError, ImageError
from lineward.runtime.images import encode_png
from lineward.runtime.station.cameras import open_camera, replay
from lineward.runtime.station.cameras.replay import BACKLOG, Replay
from lineward.runtime.station.configuration import CameraTrigger, PerSecond, PlcTrigger, ReplayCamera

IMAGES = [np.full((4, 6), level, np.uint8) for level in range(3)]
LONG = 20.0  # seconds that only a broken camera takes


@pytest.fixture
def pictures(tmp_path):
    for level in range(3):
        (tmp_path / f"{level}.png").write_bytes(encode_png(np.full((4, 6), level, np.uint8)))
    return tmp_path


def level(capture):
    return int(capture.pixels[0, 0])


def test_each_fire_delivers_the_next_image(pictures):
    camera = open_camera(ReplayCamera(images=(str(pictures),)), PlcTrigger())
    assert (camera.shape, camera.dtype) == ((4, 6), "uint8")
    camera.start()
    assert camera.capture(0.0) is None
    for number in range(5):
        before = time.monotonic_ns()
        camera.fire()
        capture = camera.capture(LONG)
        assert (capture.number, level(capture)) == (number, number % 3)
        assert before <= capture.monotonic_ns <= time.monotonic_ns()
    assert camera.capture(0.01) is None


def test_start_drops_what_is_under_way_and_counts_anew():
    camera = Replay(IMAGES)
    camera.start()
    camera.fire()
    camera.fire()
    assert camera.capture(LONG).number == 0
    camera.start()
    assert camera.capture(0.01) is None
    started = time.monotonic_ns()
    camera.fire()
    capture = camera.capture(LONG)
    assert capture.number == 0
    assert capture.monotonic_ns >= started


def test_nothing_comes_before_the_start():
    fired, free = Replay(IMAGES), Replay(IMAGES, rate=1000.0)
    fired.fire()
    assert fired.capture(0.02) is None
    assert free.capture(0.02) is None


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_the_cadence_is_kept_whenever_captures_are_asked_for(jitter):
    rate = 200.0
    camera = Replay(IMAGES, rate, jitter, seed=3)
    before = time.monotonic_ns()
    camera.start()
    after = time.monotonic_ns()
    captures = []
    for number in range(30):
        captures.append(camera.capture(LONG))
        assert captures[-1].monotonic_ns <= time.monotonic_ns()
        if number == 10:
            time.sleep(0.1)  # the caller is late: the captures that were due meanwhile keep their times
    assert [c.number for c in captures] == list(range(30))
    assert [level(c) for c in captures] == [n % 3 for n in range(30)]
    period = 1e9 / rate
    for number, capture in enumerate(captures):
        due = (number + 1) * period
        assert before + due - jitter * period - 1 <= capture.monotonic_ns
        assert capture.monotonic_ns <= after + due + jitter * period + 1
    times = [c.monotonic_ns for c in captures]
    assert times == sorted(times)


def test_the_jitter_is_the_seeds():
    def gaps(seed):
        camera = Replay(IMAGES, 1000.0, 0.4, seed)
        camera.start()
        times = [camera.capture(LONG).monotonic_ns for _ in range(20)]
        return np.diff(times).tolist()

    assert gaps(1) == pytest.approx(gaps(1), abs=2)
    assert gaps(1) != pytest.approx(gaps(2), abs=1000)


def test_more_than_the_backlog_is_lost_as_in_a_camera(monkeypatch):
    """What comes while all buffers are full is lost; what waits in them is not."""
    now = [10**9]
    monkeypatch.setattr(replay.time, "monotonic_ns", lambda: now[0])
    camera = Replay(IMAGES, rate=1000.0)
    camera.start()
    now[0] += 100 * 10**6
    numbers = [camera.capture(0.0).number for _ in range(BACKLOG)]
    assert numbers == list(range(BACKLOG))
    assert camera.capture(0.0) is None
    now[0] += 10**6
    capture = camera.capture(0.0)
    assert (capture.number, level(capture)) == (100, 100 % 3)
    assert capture.monotonic_ns == 10**9 + 101 * 10**6


def test_a_station_file_gives_rate_and_jitter(pictures):
    camera = open_camera(ReplayCamera(images=(str(pictures),), rate=PerSecond(500), jitter=0.1), CameraTrigger())
    camera.start()
    assert camera.capture(LONG).number == 0
    with pytest.raises(CameraError, match="cannot be fired"):
        camera.fire()


def test_fire_wakes_a_waiting_capture():
    camera = Replay(IMAGES)
    camera.start()
    found = []
    waiting = threading.Thread(target=lambda: found.append(camera.capture(LONG)))
    waiting.start()
    time.sleep(0.05)
    camera.fire()
    waiting.join(LONG)
    assert [capture.number for capture in found] == [0]


def test_close_wakes_a_waiting_capture_and_may_be_called_twice():
    camera = Replay(IMAGES)
    camera.start()
    threading.Timer(0.05, camera.close).start()
    with pytest.raises(CameraError, match="closed"):
        camera.capture(LONG)
    camera.close()
    for call in (camera.start, camera.fire, lambda: camera.capture(0.0)):
        with pytest.raises(CameraError, match="closed"):
            call()


def test_pixels_cannot_be_changed_in_place(pictures):
    camera = open_camera(ReplayCamera(images=(str(pictures),)), PlcTrigger())
    camera.start()
    camera.fire()
    with pytest.raises(ValueError, match="read-only"):
        camera.capture(LONG).pixels[0, 0] = 7


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (np.zeros((4, 7), np.uint8), "7 x 4, gray, 8 bits"),
        (np.zeros((4, 6), np.uint16), "6 x 4, gray, 16 bits"),
        (np.zeros((4, 6, 3), np.uint8), "6 x 4, colour, 8 bits"),
    ],
)
def test_images_of_different_cameras_are_refused(pictures, odd, words):
    (pictures / "9.png").write_bytes(encode_png(odd))
    with pytest.raises(ImageError, match=r"9\.png") as error:
        open_camera(ReplayCamera(images=(str(pictures),)), PlcTrigger())
    assert words in error.value.what


def test_a_damaged_image_and_an_empty_place_are_refused(pictures, tmp_path):
    (pictures / "9.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"9\.png"):
        open_camera(ReplayCamera(images=(str(pictures),)), PlcTrigger())
    with pytest.raises(DataError, match="nowhere"):
        open_camera(ReplayCamera(images=(str(tmp_path / "nowhere"),)), PlcTrigger())


def test_more_images_than_memory_are_refused(pictures, monkeypatch):
    monkeypatch.setattr(replay, "MOST_BYTES", 50)
    with pytest.raises(ImageError, match=r"2\.png") as error:
        open_camera(ReplayCamera(images=(str(pictures),)), PlcTrigger())
    assert "at most 2" in error.value.do
