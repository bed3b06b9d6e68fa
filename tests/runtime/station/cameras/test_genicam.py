from __future__ import annotations

import builtins
import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.errors import CameraError, MissingExtraError
from lineward.runtime.station.cameras import genicam, open_camera
from lineward.runtime.station.cameras.genicam import FrameNumbers, find_cameras, open_genicam
from lineward.runtime.station.configuration import CameraTrigger, GenicamCamera, PlcTrigger, Seconds
from tests.runtime.station.peers import FAKE_CAMERA_ID, fake_gige_camera, require_aravis

LONG = 20.0  # seconds that only a broken camera takes
SMALL = (0, 0, 64, 64)
WHOLE = (0, 0, 512, 512)


@pytest.fixture(scope="module")
def found():
    """What is found of a peer that lives as long as these tests."""
    with fake_gige_camera():
        yield find_cameras()


@pytest.fixture
def opened(found, monkeypatch):
    """Opens cameras, and closes them at the end; the network, which takes a second each time, is asked but once."""
    monkeypatch.setattr(genicam, "find_cameras", lambda: found)
    cameras = []

    def open_one(trigger=PlcTrigger(), **settings):  # noqa: B008
        settings.setdefault("pixel_format", "Mono8")
        settings.setdefault("region", SMALL)
        cameras.append(open_camera(GenicamCamera(**settings), trigger))
        return cameras[-1]

    yield open_one
    for camera in cameras:
        camera.close()


def fired(camera):
    camera.fire()
    capture = camera.capture(LONG)
    assert capture is not None
    return capture


def test_a_camera_is_found(found):
    (camera,) = found
    assert (camera.id, camera.vendor, camera.model, camera.serial) == (FAKE_CAMERA_ID, "Aravis", "Fake", "GV01")
    assert (camera.address, camera.protocol) == ("127.0.0.1", "GigEVision")


def test_ten_frames_by_software_trigger(opened):
    camera = opened(id=FAKE_CAMERA_ID, region=WHOLE)
    assert FAKE_CAMERA_ID in camera.name
    assert (camera.shape, camera.dtype) == ((512, 512), "uint8")
    camera.start()
    for number in range(10):
        before = time.monotonic_ns()
        capture = fired(camera)
        assert capture.number == number
        assert before <= capture.monotonic_ns <= time.monotonic_ns()
        # The camera draws a diagonal ramp.
        assert (np.diff(capture.pixels.astype(np.int16), axis=1) % 255 == 1).all()
        assert (np.diff(capture.pixels.astype(np.int16), axis=0) % 255 == 1).all()
    assert camera.statistics() == genicam.Statistics(completed=10, failures=0, underruns=0)
    began = time.monotonic()
    assert camera.capture(0.0) is None
    assert camera.capture(0.25) is None
    assert 0.25 <= time.monotonic() - began < LONG


@pytest.mark.usefixtures("opened")
def test_numbers_go_on_where_frame_ids_wrap(monkeypatch):
    """The peer's 16-bit ids begin near 65400, so that they wrap soon."""
    camera = open_genicam(GenicamCamera(pixel_format="Mono8", region=SMALL), None)
    camera._device.set_frame_rate(500.0)
    ids = []
    count = FrameNumbers.number

    def noted(numbers, frame_id):
        ids.append(frame_id)
        return count(numbers, frame_id)

    monkeypatch.setattr(FrameNumbers, "number", noted)
    camera.start()
    numbers = [camera.capture(LONG).number for _ in range(150)]
    camera._device.set_frame_rate(25.0)
    camera.close()
    assert np.diff(numbers).tolist() == (np.diff(ids) % 65535).tolist()
    if ids[0] <= 65535 - 150:
        pytest.skip("this peer's frame ids do not begin near their end")
    assert ids[0] > ids[-1]


def test_frames_that_wait_are_delivered_in_order_and_start_drops_them(opened):
    camera = opened()
    camera.start()
    before = fired(camera).number
    for _ in range(3):
        camera.fire()
        time.sleep(0.1)
    assert [camera.capture(LONG).number for _ in range(2)] == [before + 1, before + 2]
    camera.start()
    started = time.monotonic_ns()
    assert camera.capture(0.2) is None
    capture = fired(camera)
    assert capture.number == 0
    assert capture.monotonic_ns >= started


def test_frames_that_find_no_buffer_are_a_gap(opened):
    camera = opened(buffers=2)
    camera.start()
    for _ in range(5):
        camera.fire()
        time.sleep(0.1)
    assert [camera.capture(LONG).number for _ in range(2)] == [0, 1]
    assert camera.capture(0.2) is None
    assert fired(camera).number == 5
    assert camera.statistics().underruns > 0


def test_pixels_keep_their_memory_when_the_camera_is_gone(opened):
    camera = opened(region=WHOLE)
    camera.start()
    pixels = fired(camera).pixels
    copy = pixels.copy()
    camera.close()
    del camera
    gc.collect()
    assert np.array_equal(pixels, copy)


@pytest.mark.parametrize(
    ("pixel_format", "shape", "dtype"),
    [
        ("Mono8", (40, 60), "uint8"),
        ("Mono16", (40, 60), "uint16"),
        ("RGB8", (40, 60, 3), "uint8"),
        ("BayerGR8", (40, 60, 3), "uint8"),
    ],
)
def test_pixel_formats(opened, pixel_format, shape, dtype):
    camera = opened(pixel_format=pixel_format, region=(16, 8, 60, 40))
    assert (camera.shape, camera.dtype) == (shape, dtype)
    camera.start()
    capture = fired(camera)
    assert (capture.pixels.shape, str(capture.pixels.dtype)) == (shape, dtype)


@pytest.mark.parametrize(
    ("settings", "what", "do"),
    [
        ({"id": "Nobody-1"}, "'Nobody-1' is not there", "camera.id"),
        ({"pixel_format": "Mono12p"}, "pixel format 'Mono12p' is not offered", "Mono8, RGB8, Mono16"),
        ({"region": (0, 0, 2049, 10)}, "does not lie on the sensor of 2048 x 2048", "camera.region"),
        ({"region": (-1, 0, 10, 10)}, "does not lie on the sensor", "camera.region"),
        ({"exposure": Seconds(20)}, "exposure 20000000us is not offered", "from 10us to 10000000us"),
        ({"gain": 11.0}, "gain 11 is not offered", "from 0 to 10"),
        ({"trigger": CameraTrigger(line="Line9")}, "trigger source 'Line9' is not offered", "Line0"),
        ({"trigger": CameraTrigger(edge="falling")}, "'FallingEdge' is not offered", "RisingEdge"),
    ],
)
def test_what_a_camera_does_not_offer_is_refused_with_what_it_offers(opened, settings, what, do):
    with pytest.raises(CameraError) as error:
        opened(**settings)
    assert what in error.value.what
    assert do in error.value.do
    # The error knows the camera: its end, once another has control, is left unanswered by this peer, for 2.5 s.
    del error
    gc.collect()


def test_a_refused_camera_is_let_go_of_though_the_error_lives_on(opened):
    with pytest.raises(CameraError) as error:
        opened(gain=11.0)
    assert "gain" in error.value.what
    opened().offer()


def test_settings_are_written(opened):
    camera = opened(CameraTrigger(line="Line0"), exposure=Seconds(0.004), gain=3.0, region=(4, 8, 64, 32))
    device = camera._device
    assert device.get_exposure_time() == pytest.approx(4000)
    assert device.get_gain() == pytest.approx(3)
    assert device.get_string("TriggerSelector") == "FrameStart"
    assert device.get_string("TriggerMode") == "On"
    assert device.get_string("TriggerSource") == "Line0"
    assert device.get_string("TriggerActivation") == "RisingEdge"


def test_a_packet_size_is_written(opened):
    assert opened(packet_size=900)._device.gv_get_packet_size() == 900


def test_what_a_camera_offers(opened):
    offer = opened().offer()
    assert {"Mono8", "Mono16", "RGB8", "BayerRG8"} <= set(offer.pixel_formats)
    assert {"Line0", "Software"} <= set(offer.trigger_sources)
    assert offer.sensor == (2048, 2048)
    assert offer.exposure == pytest.approx((10e-6, 10))
    assert offer.gain == pytest.approx((0, 10))


@pytest.mark.usefixtures("opened")
def test_without_trigger_it_runs_freely():
    camera = open_genicam(GenicamCamera(pixel_format="Mono8", region=SMALL), None)
    camera.start()
    captures = [camera.capture(LONG).number for _ in range(3)]
    camera.close()
    assert captures == [0, 1, 2]


def test_a_camera_that_another_holds_is_refused(opened):
    holder = opened()
    with pytest.raises(CameraError, match="another program controls it"):
        opened()
    holder.start()
    assert fired(holder).number == 0


def test_a_jump_of_the_wall_clock_makes_no_impossible_time(opened, monkeypatch):
    camera = opened()
    camera.start()
    started = time.monotonic_ns()
    for jump in (-3600, 3600):
        wall = time.time_ns
        monkeypatch.setattr(genicam.time, "time_ns", lambda wall=wall, jump=jump: wall() + jump * 10**9)
        assert started - 10**9 < fired(camera).monotonic_ns <= time.monotonic_ns()


def test_a_closed_camera_says_so(opened):
    camera = opened()
    camera.start()
    threading.Timer(0.1, camera.close).start()
    with pytest.raises(CameraError, match="closed"):
        camera.capture(LONG)
    camera.close()
    for call in (camera.start, camera.fire, camera.offer, lambda: camera.capture(0.0)):
        with pytest.raises(CameraError, match="closed"):
            call()


@pytest.mark.usefixtures("opened")
def test_twenty_open_and_close_leave_nothing_behind():
    def held():
        gc.collect()
        return len(list(Path("/proc/self/task").iterdir())), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def cycle():
        camera = open_genicam(GenicamCamera(pixel_format="Mono8", region=SMALL), PlcTrigger())
        camera.start()
        assert fired(camera).number == 0
        camera.close()

    for _ in range(3):
        cycle()
    threads, files = held()
    for _ in range(20):
        cycle()
    threads_later, files_later = held()
    assert threads_later <= threads
    assert files_later <= files


def test_two_cameras_need_an_id(monkeypatch):
    require_aravis()
    two = [genicam.Found(id, "", "", "", "", "") for id in ("A-1", "B-2")]
    monkeypatch.setattr(genicam, "find_cameras", lambda: two)
    with pytest.raises(CameraError, match=r"more than one camera \(found: A-1, B-2\)"):
        open_camera(GenicamCamera(), PlcTrigger())
    monkeypatch.setattr(genicam, "find_cameras", list)
    with pytest.raises(CameraError, match="no GenICam camera answers"):
        open_camera(GenicamCamera(), PlcTrigger())


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        ([7, 8, 9], [0, 1, 2]),
        ([0, 1, 4], [0, 1, 4]),
        ([65534, 65535, 1, 2], [0, 1, 2, 3]),
        ([65530, 3], [0, 8]),
        ([65535, 65536, 65539], [0, 1, 4]),  # extended ids
        ([5, None, 7], [0, 1, 2]),
        ([5, None, 9], [0, 1, 4]),
        ([5, None, None, 7, 8], [0, 1, 2, 3, 4]),  # more frames than ids: still each its own number
        ([None, None, 9, 10], [0, 1, 2, 3]),
        ([65535, None, 2], [0, 1, 2]),
    ],
)
def test_numbers_from_frame_ids(ids, numbers):
    count = FrameNumbers("camera")
    assert [count.number(frame_id) for frame_id in ids] == numbers


@pytest.mark.parametrize("ids", [[5, 5], [30000, 100], [2**32, 1], [1, 2**20]])
def test_a_camera_that_counts_anew_is_lost(ids):
    count = FrameNumbers("camera")
    count.number(ids[0])
    with pytest.raises(CameraError, match=f"its frame {ids[0]} was followed by frame {ids[1]}"):
        count.number(ids[1])


@given(st.integers(1, 65535), st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=300))
def test_numbers_only_grow_and_tell_what_was_lost(first, frames):
    count = FrameNumbers("camera")
    assert count.number(first) == 0
    exposure, last = 0, 0
    for step, told in frames:
        exposure += step
        number = count.number((first - 1 + exposure) % 65535 + 1 if told else None)
        assert last < number <= exposure
        assert number == exposure or not told
        last = number


@pytest.mark.parametrize(
    ("missing", "raised", "words"),
    [("gi", ImportError("No module named 'gi'"), "PyGObject"), ("gi", ValueError("Namespace"), "gir1.2-aravis")],
)
def test_a_missing_library_is_named(monkeypatch, missing, raised, words):
    found = builtins.__import__

    def refuse(name, *arguments, **named):
        if name == missing:
            raise raised
        return found(name, *arguments, **named)

    genicam.load_aravis.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError) as error:
        open_camera(GenicamCamera(), PlcTrigger())
    genicam.load_aravis.cache_clear()
    assert words in f"{error.value}"
