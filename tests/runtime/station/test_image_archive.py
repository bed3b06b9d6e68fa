from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lineward.runtime.images import encode_png, read_image
from lineward.runtime.inspection import Reason
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station import image_archive
from lineward.runtime.station.configuration import Bytes, Images
from lineward.runtime.station.image_archive import ImageArchive, is_wanted
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.journal_reader import JournalReader
from tests.runtime.station.station_samples import UTC_NS, part

PATIENCE = 20.0
DAY = "2026-09-21"  # of UTC_NS
DAY_NS = 86_400 * 10**9


def noise(seed: int = 0, shape: tuple[int, ...] = (40, 50), kind: Any = np.uint8) -> Frame:
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, shape, dtype=kind)


SIZE = len(encode_png(noise()))


def settings(save: Any = "all", budget: int = 10**9, keep_free: int = 1, **fields: Any) -> Images:
    return Images(save=save, budget=Bytes(budget), keep_free=Bytes(keep_free), **fields)


@contextmanager
def archive(folder: Path, images: Images) -> Iterator[ImageArchive]:
    journal = Journal(folder, "press-3")
    archive = ImageArchive(folder, images, journal)
    try:
        yield archive
    finally:
        archive.close(PATIENCE)
        journal.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "images").rglob("*") if path.is_file())


def events(folder: Path) -> list[str]:
    with closing(JournalReader(folder)) as reader:
        return [event.name for event in reader.events()]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


GOOD, BAD, LATE = Reason.WITHIN_THRESHOLD, Reason.ABOVE_THRESHOLD, Reason.DEADLINE_MISSED


@pytest.mark.parametrize(
    ("images", "reason", "score", "id", "wanted"),
    [
        (settings("none"), BAD, 0.9, 1, False),
        (settings("rejects"), GOOD, 0.49, 1, False),
        (settings("rejects"), BAD, 0.9, 1, True),
        (settings("rejects"), LATE, 0.1, 1, True),
        (settings("rejects"), Reason.SCORE_INVALID, float("nan"), 1, True),
        (settings("rejects"), Reason.ENGINE_FAILED, float("nan"), 1, True),
        (settings("near", near=0.1), GOOD, 0.46, 1, True),
        (settings("near", near=0.1), GOOD, 0.44, 1, False),
        (settings("near", near=0.1), BAD, 0.9, 1, True),
        (settings("near", near=0.0), GOOD, 0.49, 1, False),
        (settings("nth", nth=10), GOOD, 0.1, 20, True),
        (settings("nth", nth=10), GOOD, 0.1, 21, False),
        (settings("nth", nth=10), BAD, 0.9, 21, True),
        (settings("nth", nth=1), GOOD, 0.1, 21, True),
        (settings("all"), GOOD, 0.1, 1, True),
    ],
)
def test_which_frames_are_kept(images: Images, reason: Reason, score: float, id: int, wanted: bool) -> None:
    assert is_wanted(part(id, reason, score=score, threshold=0.5), images) is wanted


@pytest.mark.parametrize(
    "frame",
    [noise(), noise(1, (30, 20, 3)), noise(2, (30, 20), np.uint16), noise(3, (30, 20, 3), np.uint16)],
    ids=["gray", "colour", "gray16", "colour16"],
)
def test_a_frame_is_kept_without_loss(tmp_path: Path, frame: Frame) -> None:
    with archive(tmp_path, settings()) as kept:
        lent = frame.copy()
        kept.judged(part(7, BAD), lent)
        lent[:] = 0  # it was lent until then
    path = tmp_path / "images" / DAY / "7-above_threshold.png"
    assert np.array_equal(read_image(path), frame)
    assert names(tmp_path) == [path.name]
    with closing(JournalReader(tmp_path)) as reader:
        (image,) = reader.images()
    assert (tmp_path / image.file, image.bytes, image.id) == (path, path.stat().st_size, 7)
    assert (kept.saved, kept.skipped) == (1, 0)


def test_the_oldest_go_first_whatever_the_clock_says(tmp_path: Path) -> None:
    with archive(tmp_path, settings(budget=3 * SIZE + 10)) as kept:
        for id in range(8, 13):  # as text, 9 comes after 10
            record = part(id, BAD)
            clock = UTC_NS - id * DAY_NS  # it runs backwards
            kept.judged(replace(record, trigger=replace(record.trigger, utc_ns=clock)), noise(0))
    assert names(tmp_path) == [f"{id}-above_threshold.png" for id in (10, 11, 12)]
    assert len(list((tmp_path / "images").iterdir())) == 3  # folders of days that are empty are gone
    with closing(JournalReader(tmp_path)) as reader:
        assert [image.id for image in reader.images()] == [10, 11, 12]


def test_the_budget_counts_what_earlier_runs_left(tmp_path: Path) -> None:
    with archive(tmp_path, settings()) as kept:
        for id in range(1, 7):
            kept.judged(part(id, BAD), noise(0))
    (tmp_path / "images" / DAY / "7-above_threshold.partial").write_bytes(b"half")
    (tmp_path / "images" / DAY / "notes.txt").write_text("mine")
    with archive(tmp_path, settings(budget=4 * SIZE)) as kept:
        until(lambda: len(names(tmp_path)) == 5)
        kept.judged(part(8, BAD), noise(0))
    assert names(tmp_path) == [*(f"{id}-above_threshold.png" for id in (4, 5, 6, 8)), "notes.txt"]


def test_images_that_someone_deleted_do_no_harm(tmp_path: Path) -> None:
    with archive(tmp_path, settings(budget=2 * SIZE)) as kept:
        for id in (1, 2):
            kept.judged(part(id, BAD), noise(0))
        until(lambda: kept.saved == 2)
        shutil.rmtree(tmp_path / "images")
        for id in (3, 4):
            kept.judged(part(id, BAD), noise(0))
    assert names(tmp_path) == ["3-above_threshold.png", "4-above_threshold.png"]
    assert events(tmp_path) == []


def test_an_image_greater_than_the_budget_is_not_kept_and_costs_no_other(tmp_path: Path) -> None:
    with archive(tmp_path, settings(budget=SIZE)) as kept:
        kept.judged(part(1, BAD), noise(0))
        kept.judged(part(2, BAD), noise(0, (100, 100)))
        kept.judged(part(3, BAD), noise(0, (100, 100)))
    assert names(tmp_path) == ["1-above_threshold.png"]
    assert events(tmp_path) == ["images_stopped"]
    assert kept.skipped == 2


def test_saving_stops_while_the_disk_has_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10**6]
    monkeypatch.setattr(image_archive, "_free", lambda _: free[0])
    with archive(tmp_path, settings(keep_free=500_000)) as kept:
        for number, free[0] in enumerate((10**6, 400_000, 500_000, 10**6, 10**6), 1):
            kept.judged(part(number, BAD), noise())
            until(lambda number=number: kept.saved + kept.skipped == number)  # type: ignore[misc]
    assert [name.partition("-")[0] for name in names(tmp_path)] == ["1", "4", "5"]
    assert events(tmp_path) == ["images_stopped", "images_back"]


def test_the_room_is_that_of_the_disk_that_holds_the_images(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk at /dev/shm")
    (tmp_path / "images").symlink_to(other)
    assert image_archive._free(tmp_path) == pytest.approx(shutil.disk_usage(other).free, rel=0.2)


def test_a_folder_that_cannot_be_written_stops_images_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    with archive(tmp_path, settings()) as kept:
        for id in (1, 2):
            kept.judged(part(id, BAD), noise())
        until(lambda: kept.skipped == 2)
        (tmp_path / "images").unlink()
        kept.judged(part(3, BAD), noise())
    assert names(tmp_path) == ["3-above_threshold.png"]
    assert events(tmp_path) == ["images_stopped", "images_back"]


def test_more_frames_than_can_be_saved_are_counted_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def slow(frame: Frame) -> bytes:
        gate.wait(PATIENCE)
        return encode_png(frame)

    monkeypatch.setattr(image_archive, "encode_png", slow)
    with archive(tmp_path, settings()) as kept:
        kept.judged(part(1, BAD), noise())
        until(kept._queue.empty)  # the worker has it
        began = time.monotonic()
        for id in range(2, 102):
            kept.judged(part(id, BAD), noise())
        assert time.monotonic() - began < PATIENCE / 2
        assert kept.skipped == 100 - image_archive.QUEUE
        gate.set()
    assert kept.saved == 1 + image_archive.QUEUE
    assert events(tmp_path) == ["images_skipped"]


def test_closing_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(image_archive, "encode_png", lambda _: gate.wait(PATIENCE))
    with archive(tmp_path, settings()) as kept:
        for id in range(1, 12):
            kept.judged(part(id, BAD), noise())
        began = time.monotonic()
        kept.close(0.3)
        assert time.monotonic() - began < PATIENCE / 2
        assert kept.skipped == 10
        gate.set()
    assert events(tmp_path)[0] == "images_skipped"


def test_a_full_disk_stops_images_and_not_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archive, "_free", lambda _: 10**9)  # another program is faster than the look at it
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode
    ):
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    try:
        folder = tmp_path / "station"
        folder.mkdir()
        (folder / "images").symlink_to(disk)
        with archive(folder, settings()) as kept:
            descriptor = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
            with suppress(OSError):
                while True:
                    os.write(descriptor, bytes(4096))
            os.close(descriptor)
            for id in (1, 2):
                kept.judged(part(id, BAD), noise())
            until(lambda: kept.skipped == 2)
            (disk / "filler").unlink()
            kept.judged(part(3, BAD), noise())
        assert [path.name for path in disk.rglob("*.p*")] == ["3-above_threshold.png"]
        assert events(folder) == ["images_stopped", "images_back"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
