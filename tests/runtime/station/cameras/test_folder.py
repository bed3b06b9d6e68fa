from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from lineward.runtime.errors import CameraError
from lineward.runtime.images import encode_png
from lineward.runtime.station.cameras import folder, open_camera
from lineward.runtime.station.configuration import CameraTrigger, FolderCamera

LONG = 20.0  # seconds that only a broken camera takes
SHORT = 0.3  # seconds in which an image would have come


def png(level, shape=(4, 6), dtype=np.uint8):
    return encode_png(np.full(shape, level, dtype))


@pytest.fixture
def watched(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def camera(watched):
    opened = open_camera(FolderCamera(path=watched, done=watched.parent / "done"), CameraTrigger())
    opened.start()
    yield opened
    opened.close()


def put(watched, name, data, age=0):
    """Write an image the careful way; `age` sets its modification time back, in seconds."""
    hidden = watched / f".{name}"
    hidden.write_bytes(data)
    if age:
        stamp = time.time_ns() - age * 10**9
        os.utime(hidden, ns=(stamp, stamp))
    hidden.rename(watched / name)


def test_images_come_in_the_order_of_their_arrival_and_are_moved_away(camera, watched):
    assert (camera.shape, camera.dtype) == ((), "")
    before = time.monotonic_ns()
    put(watched, "b.png", png(1), age=30)
    put(watched, "c.png", png(2), age=20)
    put(watched, "a.png", png(3), age=10)
    captures = [camera.capture(LONG) for _ in range(3)]
    assert [(c.number, int(c.pixels[0, 0])) for c in captures] == [(0, 1), (1, 2), (2, 3)]
    assert all(before <= c.monotonic_ns <= time.monotonic_ns() for c in captures)
    assert (camera.shape, camera.dtype) == ((4, 6), "uint8")
    assert camera.capture(SHORT) is None
    assert not list(watched.iterdir())
    assert sorted(p.name for p in (watched.parent / "done").iterdir()) == ["a.png", "b.png", "c.png"]


def test_equal_times_are_ordered_by_name(camera, watched):
    stamp = time.time_ns()
    for name, level in (("y.png", 2), ("x.png", 1)):
        (watched / f".{name}").write_bytes(png(level))
        os.utime(watched / f".{name}", ns=(stamp, stamp))
    for name in ("y.png", "x.png"):
        (watched / f".{name}").rename(watched / name)
    found = [int(camera.capture(LONG).pixels[0, 0]) for _ in range(2)]
    assert found in ([1, 2], [2, 1])  # a poll between the two renames may see one alone
    assert found == [1, 2] or camera.capture(0) is None


def test_without_done_they_are_deleted(watched):
    camera = open_camera(FolderCamera(path=watched), CameraTrigger())
    camera.start()
    put(watched, "a.png", png(1))
    assert camera.capture(LONG).pixels is not None
    assert not list(watched.iterdir())


def test_nothing_is_overwritten_in_done(camera, watched):
    for level in (1, 2, 3):
        put(watched, "a.png", png(level))
        assert camera.capture(LONG).number == level - 1
    kept = sorted((watched.parent / "done").iterdir())
    assert [p.name for p in kept] == ["a-1.png", "a-2.png", "a.png"]
    assert [p.read_bytes() for p in kept] == [png(2), png(3), png(1)]


def test_an_image_that_is_still_written_is_waited_for(camera, watched):
    data = png(9, (200, 300))
    found = []
    waiting = threading.Thread(target=lambda: found.append(camera.capture(LONG)))
    waiting.start()
    with (watched / "slow.png").open("wb") as file:
        for start in range(0, len(data), len(data) // 8):
            file.write(data[start : start + len(data) // 8])
            file.flush()
            time.sleep(0.03)
    waiting.join(LONG)
    assert found[0].pixels.shape == (200, 300)
    assert camera.capture(SHORT) is None


def test_a_writer_that_pauses_is_waited_for(camera, watched):
    data = png(9, (200, 300))
    (watched / "slow.png").write_bytes(data[:100])
    assert camera.capture(SHORT) is None
    (watched / "slow.png").write_bytes(data)
    assert camera.capture(LONG).pixels.shape == (200, 300)


@pytest.mark.parametrize("data", [b"", b"no image", png(9, (200, 300))[:-40]])
def test_a_damaged_image_is_one_part_without_pixels(camera, watched, data):
    put(watched, "bad.png", data)
    put(watched, "good.png", png(5))
    captures = [camera.capture(LONG) for _ in range(2)]
    assert [c.number for c in captures] == [0, 1]
    assert sorted((c.pixels is None) for c in captures) == [False, True]
    assert camera.capture(SHORT) is None
    assert not list(watched.iterdir())
    assert (watched.parent / "done" / "bad.png").read_bytes() == data


def test_other_files_are_left_alone(camera, watched):
    (watched / "notes.txt").write_text("mine")
    (watched / ".hidden.png").write_bytes(png(1))
    (watched / "folder.png").mkdir()
    (watched / "nowhere.png").symlink_to(watched / "gone")
    assert camera.capture(SHORT) is None
    assert len(list(watched.iterdir())) == 4


def test_start_counts_anew_and_loses_no_image(camera, watched):
    put(watched, "a.png", png(1))
    assert camera.capture(LONG).number == 0
    put(watched, "b.png", png(2))
    started = time.monotonic_ns()
    camera.start()
    capture = camera.capture(LONG)
    assert (capture.number, int(capture.pixels[0, 0])) == (0, 2)
    assert capture.monotonic_ns >= started


def test_images_of_another_kind_are_delivered_as_they_are(camera, watched):
    put(watched, "a.png", png(1), age=10)
    put(watched, "b.png", png(700, (5, 7, 3), np.uint16))
    assert camera.capture(LONG).pixels.shape == (4, 6)
    capture = camera.capture(LONG)
    assert (capture.pixels.shape, capture.pixels.dtype) == ((5, 7, 3), np.uint16)
    assert (camera.shape, camera.dtype) == ((4, 6), "uint8")


def test_a_timeout_is_kept(camera):
    began = time.monotonic()
    assert camera.capture(0.0) is None
    assert camera.capture(0.1) is None
    assert 0.1 <= time.monotonic() - began < LONG


def test_a_folder_that_vanishes_is_a_lost_camera(watched):
    camera = open_camera(FolderCamera(path=watched), CameraTrigger())
    camera.start()
    watched.rmdir()
    with pytest.raises(CameraError, match="cannot be watched"):
        camera.capture(LONG)


def test_an_image_that_cannot_be_taken_away_is_not_delivered(camera, watched, monkeypatch):
    """It would be delivered again and again."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder.shutil, "move", refuse)
    put(watched, "a.png", png(1))
    with pytest.raises(CameraError, match=r"a\.png: cannot be taken away \(Permission denied\)"):
        camera.capture(LONG)
    assert (watched / "a.png").exists()


def test_close_wakes_a_waiting_capture_and_may_be_called_twice(camera):
    threading.Timer(0.05, camera.close).start()
    with pytest.raises(CameraError, match="closed"):
        camera.capture(LONG)
    camera.close()
    with pytest.raises(CameraError, match="closed"):
        camera.start()


def test_it_cannot_be_fired(camera):
    with pytest.raises(CameraError, match="cannot be fired"):
        camera.fire()


@pytest.mark.parametrize(
    ("path", "done", "words"),
    [
        ("nowhere", None, "no such folder"),
        ("in/file", None, "no such folder"),
        ("in", "in", "is the watched folder"),
        ("in", "in/file/done", "cannot be made"),
    ],
)
def test_folders_that_do_not_do(tmp_path, watched, path, done, words):
    (watched / "file").write_bytes(b"")
    table = FolderCamera(path=tmp_path / path, done=done and tmp_path / done)
    with pytest.raises(CameraError, match=words):
        open_camera(table, CameraTrigger())


def test_a_folder_that_may_not_be_written_is_refused(watched, monkeypatch):
    monkeypatch.setattr(folder.os, "access", lambda *_: False)
    with pytest.raises(CameraError, match="cannot be taken out"):
        open_camera(FolderCamera(path=watched), CameraTrigger())
