from __future__ import annotations

import time

import numpy as np
import pytest

from lineward.runtime.errors import CameraError
from lineward.runtime.station.cameras import open_camera
from lineward.runtime.station.cameras.genicam import find_cameras
from lineward.runtime.station.configuration import CameraTrigger, GenicamCamera, PlcTrigger
from lineward.runtime.station.simulation.gige_camera import GigeCamera
from tests.runtime.station.peers import gige_port, require_aravis

LONG = 20.0  # seconds that only a broken camera takes
SHAPE = (96, 160)
SCENES = [np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8) for seed in range(4)]


@pytest.fixture
def simulated():
    require_aravis()
    with gige_port():
        camera = GigeCamera(iter(SCENES), SHAPE)
        yield camera
        camera.close()
        camera.close()


@pytest.mark.parametrize("trigger", [PlcTrigger(), CameraTrigger()])
def test_it_shows_the_images_in_order_and_the_last_one_for_ever(simulated, trigger):
    assert [found.id for found in find_cameras()] == [simulated.id]
    camera = open_camera(GenicamCamera(id=simulated.id), trigger)
    assert camera.shape == SHAPE
    camera.start()
    assert camera.capture(0.1) is None
    for number in range(6):
        if isinstance(trigger, CameraTrigger):
            simulated.expose()
        else:
            camera.fire()
        capture = camera.capture(LONG)
        assert capture.number == number
        assert np.array_equal(capture.pixels, SCENES[min(number, 3)])
    assert simulated.exposures == 6
    camera.close()


def test_two_on_one_interface_are_refused(simulated):
    assert simulated.exposures == 0
    with pytest.raises(CameraError, match="no camera can be simulated beside Aravis-Fake-Lineward"):
        GigeCamera(iter(SCENES), SHAPE)


def test_it_leaves_the_network(simulated):
    simulated.close()
    time.sleep(0.1)
    assert find_cameras() == []
