"""Cameras that lose packets or die. Each test has a peer of its own, apart from the tests that share one."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lineward.runtime.errors import CameraError
from lineward.runtime.station.cameras import open_camera
from lineward.runtime.station.configuration import CameraTrigger, GenicamCamera, PlcTrigger
from tests.runtime.station.peers import FAKE_CAMERA_ID, fake_gige_camera

LONG = 20.0  # seconds that only a broken camera takes
SMALL = (0, 0, 64, 64)


@pytest.mark.parametrize(("lost_per_thousand", "height", "fewest_whole"), [(10, 1024, 1), (200, 200, 0)])
def test_frames_with_lost_packets_have_no_pixels_and_keep_their_number(lost_per_thousand, height, fewest_whole):
    """With two buffers, one whose first packet is lost was soon used before, and holds the id of another frame."""
    with fake_gige_camera(lost_per_thousand):
        table = GenicamCamera(pixel_format="Mono8", region=(0, 0, 64, height), buffers=2)
        camera = open_camera(table, PlcTrigger())
        camera.start()
        captures = []
        for _ in range(24):
            before = time.monotonic_ns()
            camera.fire()
            capture = camera.capture(LONG)
            assert before <= capture.monotonic_ns <= time.monotonic_ns()
            if capture.pixels is not None:
                assert (np.diff(capture.pixels.astype(np.int16), axis=1) % 255 == 1).all()
            captures.append((capture.number, capture.pixels is not None))
        found = camera.statistics()
        camera.close()
    assert [number for number, _ in captures] == list(range(24))
    whole = sum(whole for _, whole in captures)
    assert fewest_whole <= whole < 24
    assert (found.completed, found.failures) == (whole, 24 - whole)


def test_a_camera_that_dies_is_lost_and_comes_back():
    with fake_gige_camera() as peer:
        table = GenicamCamera(id=FAKE_CAMERA_ID, pixel_format="Mono8", region=SMALL)
        camera = open_camera(table, CameraTrigger())
        camera.start()
        peer.kill()
        began = time.monotonic()
        with pytest.raises(CameraError, match="no longer answers"):
            camera.capture(2 * LONG)
        assert time.monotonic() - began < LONG
        with pytest.raises(CameraError, match="no longer answers"):
            camera.fire()
        with pytest.raises(CameraError, match="is not there"):
            open_camera(table, CameraTrigger())
        peer.start()
        camera.close()
        camera = open_camera(table, PlcTrigger())
        camera.start()
        camera.fire()
        assert camera.capture(LONG).number == 0
        camera.close()


def test_a_camera_that_dies_before_a_fire():
    with fake_gige_camera() as peer:
        camera = open_camera(GenicamCamera(pixel_format="Mono8", region=SMALL), PlcTrigger())
        camera.start()
        peer.kill()
        with pytest.raises(CameraError, match=FAKE_CAMERA_ID):
            camera.fire()
        with pytest.raises(CameraError, match="no longer answers"):
            camera.capture(0.0)
        peer.start()
        camera.close()
