from __future__ import annotations

import argparse

import numpy as np
import pytest

from lineward.runtime.cli import PASSED, cameras
from lineward.runtime.errors import CameraError, MissingExtraError
from lineward.runtime.images import encode_png, read_image
from lineward.runtime.station.cameras import genicam, video
from tests.runtime.station.peers import FAKE_CAMERA_ID, fake_gige_camera

STATION = """
name = "s1"
folder = "state"
deadline = "100ms"
jobs = {{ 1 = "a.lineward" }}
camera = {camera}
{trigger}
[plc]
kind = "modbus-server"
"""


@pytest.fixture
def command(capsys):
    def call(*words):
        parser = argparse.ArgumentParser()
        cameras.add_arguments(parser)
        code = cameras.run(parser.parse_args([str(word) for word in words]))
        return code, *capsys.readouterr()

    return call


def station(tmp_path, camera, trigger='trigger = { source = "plc" }'):
    path = tmp_path / "station.toml"
    path.write_text(STATION.format(camera=camera, trigger=trigger))
    return path


def test_a_real_camera_is_listed_and_previewed(command, tmp_path):
    with fake_gige_camera():
        code, out, _ = command()
        assert code == PASSED
        for word in (FAKE_CAMERA_ID, "genicam", "Aravis Fake", "127.0.0.1", "GigEVision"):
            assert word in out
        camera = f'{{ kind = "genicam", id = "{FAKE_CAMERA_ID}", region = [0, 0, 120, 80] }}'
        path = station(tmp_path, camera, 'trigger = { source = "camera", line = "Line0" }')
        code, out, _ = command("--preview", path, "-o", tmp_path / "picture.png")
        assert code == PASSED
        for word in ("120 x 80, Mono8, 8 bits", "BayerRG8", "Line0, Software", "10us to 10000000us", "0 to 10", "2048"):
            assert word in out
        picture = read_image(tmp_path / "picture.png")
        assert picture.shape == (80, 120)
        assert len(np.unique(picture)) > 50
        code, out, _ = command("--preview", FAKE_CAMERA_ID)
        assert (code, FAKE_CAMERA_ID in out) == (PASSED, True)


def test_without_any_camera_it_says_what_to_check(command, monkeypatch):
    monkeypatch.setattr(genicam, "find_cameras", list)
    monkeypatch.setattr(video, "find_devices", list)
    code, _, err = command()
    assert code == PASSED
    assert "no camera answers" in err


def test_without_aravis_video_devices_are_listed(command, monkeypatch):
    def missing():
        raise MissingExtraError("PyGObject is not installed", do="pip install 'lineward[genicam]'")

    monkeypatch.setattr(genicam, "find_cameras", missing)
    monkeypatch.setattr(video, "find_devices", lambda: [video.Device("/dev/video0", "USB camera")])
    code, out, err = command()
    assert code == PASSED
    assert "/dev/video0" in out
    assert "USB camera" in out
    assert "lineward[genicam]" in err


@pytest.mark.parametrize(("rate", "trigger"), [("", 'trigger = { source = "plc" }'), (', rate = "50/s"', "")])
def test_a_replay_is_previewed(command, tmp_path, rate, trigger):
    image = np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000
    (tmp_path / "part.png").write_bytes(encode_png(image))
    path = station(tmp_path, f'{{ kind = "replay", images = ["part.png"]{rate} }}', trigger)
    code, out, _ = command("--preview", path, "-o", tmp_path / "picture.png")
    assert code == PASSED
    assert "10 x 6, gray, 16 bits, values 0 to 59000" in out
    assert np.array_equal(read_image(tmp_path / "picture.png"), image)


def test_a_watched_folder_is_not_previewed(command, tmp_path):
    path = station(tmp_path, '{ kind = "folder", path = "in" }', "")
    with pytest.raises(CameraError, match="take an image out"):
        command("--preview", path)


def test_a_device_that_is_not_there(command):
    with pytest.raises(CameraError, match="/dev/video-none: no such device"):
        command("--preview", "/dev/video-none")
