from __future__ import annotations

import pytest

pytest.importorskip("pymodbus", reason="pymodbus is not installed (lineward[station])")

from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.images import write_png
from tests.runtime.station.processes import free_port, station_process

STATION = """\
name = "desk"
folder = "state"
deadline = "{deadline}"
change_within = "10s"
jobs = {{ 1 = "{bundle}" }}
camera = {{ kind = "replay", images = ["images"], rate = "20/s" }}
plc = {{ kind = "modbus-server", host = "127.0.0.1", port = {port} }}
health = {{ port = 0 }}
"""


@pytest.fixture
def station(tmp_path, tiny_path, golden_frames):
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "part.png", golden_frames[0])
    path = tmp_path / "station.toml"
    path.write_text(STATION.format(deadline="200ms", bundle=tiny_path, port=free_port()))
    return path


def test_check(station, capsys):
    assert main(["run", str(station), "--check"]) == PASSED
    out = capsys.readouterr().out
    assert "tiny part 1, golden images equal" in out
    assert "replay of 1 images" in out
    assert not (station.parent / "state").exists()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("200ms", "200", "'200' is no time"),
        ('"images"', '"nowhere"', "nowhere: no image found there"),
        ("tiny.lineward", "none.lineward", "none.lineward: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_begun(station, capsys, old, new, complaint):
    station.write_text(station.read_text().replace(old, new))
    for words in (["--check"], []):
        assert main(["run", str(station), *words]) == FAILED
        assert complaint in capsys.readouterr().err


def test_two_stations_in_one_folder(tmp_path, tiny_path, golden_frames, capsys):
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "part.png", golden_frames[0])
    with station_process(tmp_path, tiny_path) as running:
        running.start()
        assert main(["run", str(tmp_path / "station.toml")]) == FAILED
        assert "another" in capsys.readouterr().err
        running.stop()
