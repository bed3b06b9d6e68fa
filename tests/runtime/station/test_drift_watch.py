from __future__ import annotations

import json
import threading
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lineward.runtime.bundle import decode_bundle, write_bundle
from lineward.runtime.drift import STATISTICS, Statistic, measure
from lineward.runtime.images import read_image, write_png
from lineward.runtime.inspection import Inspection, decide
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import DriftReference
from lineward.runtime.station import drift_watch
from lineward.runtime.station.configuration import CameraTrigger
from lineward.runtime.station.drift_watch import DriftWatch
from lineward.runtime.station.journal_reader import JournalReader
from tests.runtime.station.stand_ins import desk, frame_of, until

LEAST = 0.02  # a change of light from frame to frame, or every frame would be the same
THRESHOLD = 1.0


def lit(golden: np.ndarray, random: np.random.Generator, gain: float = 1.0) -> np.ndarray:
    """The golden part in light that varies a little, with the camera's noise."""
    noise = random.standard_normal(golden.shape) * 2
    return np.clip(golden * gain * (1 + LEAST * random.standard_normal()) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def watched(rebundle, tiny, golden_frames):
    """The tiny bundle with a drift reference of its golden image, in varying light."""
    random, inspector = np.random.default_rng(0), Inspector(tiny)
    seen = [measure(inspector.inspect(lit(golden_frames[0], random))) for _ in range(150)]
    columns = [tuple(sorted(m.of(statistic) for m in seen if m is not None)) for statistic in STATISTICS]
    return rebundle(drift=DriftReference(*columns))


class Events(list[tuple[str, str]]):
    def __call__(self, name: str, detail: str) -> None:
        self.append((name, detail))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self]


def job(bundle: Any, number: int = 1) -> Any:
    return SimpleNamespace(number=number, bundle=bundle, threshold=THRESHOLD)


def seen(golden: np.ndarray, random: np.random.Generator, gain: float = 1.0, score: float = 0.3) -> Inspection:
    frame = lit(golden, random, gain)
    anomaly_map = random.random((64, 64), np.float32)
    return Inspection(*decide(score, THRESHOLD), score, THRESHOLD, anomaly_map, 0.0, frame)


def feed(watch: DriftWatch, at: Any, golden: np.ndarray, count: int, gain: float = 1.0, first: int = 1) -> None:
    random = np.random.default_rng(first)
    for part in range(first, first + count):
        watch.inspected(part, seen(golden, random, gain), at)


def test_a_drift_is_told_once_a_job(watched, golden_frames):
    events, bundle = Events(), decode_bundle(watched, "watched")
    watch = DriftWatch(events)
    assert watch.states() == ()
    feed(watch, job(bundle), golden_frames[0], 300, gain=0.85)
    told = [detail for name, detail in events if detail.startswith("brightness fell at about part 1:")]
    assert len(told) == 1
    assert events.names == ["drift"] * len(events)
    alarms = {state.statistic for state in watch.states() if state.alarm}
    assert Statistic.BRIGHTNESS in alarms
    feed(watch, job(bundle), golden_frames[0], 50, first=301)  # mended, but it stays flagged
    assert {state.statistic for state in watch.states() if state.alarm} >= alarms
    feed(watch, job(bundle, 2), golden_frames[0], 1, first=400)  # another job: a new start
    assert not [state for state in watch.states() if state.alarm]


def test_a_bundle_without_reference_is_said_once(tiny, golden_frames):
    events = Events()
    watch = DriftWatch(events)
    feed(watch, job(tiny), golden_frames[0], 20, gain=0.5)
    assert events.names == ["drift_not_watched"]
    assert "train it" in events[0][1]
    assert watch.states() == ()


def test_what_shows_no_pixels_is_not_watched(watched):
    events = Events()
    watch = DriftWatch(events)
    for part in range(50):
        watch.inspected(part, Inspection(*decide(0.3, 0.5), 0.3, 0.5, None, 0.0), job(decode_bundle(watched, "w")))
    assert not events
    assert all(np.isnan(state.recent) for state in watch.states())


@pytest.mark.parametrize("fails", ["measure", "DriftMonitor"])
def test_its_own_failure_touches_no_part(watched, tmp_path, monkeypatch, fails):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(drift_watch, fails, broken)
    with desk(decode_bundle(watched, "watched"), tmp_path, trigger=CameraTrigger()) as at:
        at.station.observe(inspections=DriftWatch(at.station.event))
        for number in range(1, 6):
            at.camera.feed(frame_of(0.3 if number % 2 else 0.9))
            at.finals(number)
        until(lambda: "drift_not_watched" in at.heard.event_names, "the event")
        assert at.heard.reasons == ["within_threshold", "above_threshold"] * 2 + ["within_threshold"]
        assert at.heard.event_names.count("drift_not_watched") == 1
        assert at.station.failure is None


def test_it_hears_of_each_inspected_part_once_and_of_no_other(watched, tmp_path):
    heard: list[tuple[int, float]] = []
    watcher = SimpleNamespace(inspected=lambda part, inspection, _job: heard.append((part, inspection.score)))
    with desk(decode_bundle(watched, "watched"), tmp_path, trigger=CameraTrigger()) as at:
        at.station.observe(inspections=watcher)
        at.camera.feed(frame_of(0.3))
        at.finals(1)
        at.camera.feed(None)  # an incomplete frame
        at.finals(2)
        at.inspector.before = lambda: 1 / 0  # the engine fails
        at.camera.feed(frame_of(0.3))
        at.finals(3)
        at.inspector.before = lambda: None
        at.camera.feed(frame_of(0.9))
        at.finals(4)
        until(lambda: len(heard) == 2, "two inspections")
        assert [part for part, _ in heard] == [record.trigger.id for record in at.heard.records[::3]]


def test_it_may_be_asked_while_it_works(watched, golden_frames):
    watch, stop = DriftWatch(Events()), threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not stop.is_set():
                assert len(watch.states()) in (0, len(STATISTICS))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    feed(watch, job(decode_bundle(watched, "w")), golden_frames[0], 300)
    stop.set()
    thread.join()
    assert not failures


def test_a_station_whose_light_fades_says_so_and_changes_no_verdict(watched, golden_frames, tmp_path, capsys):
    """`lineward run` on frames that darken by 0.2 % each: event, metrics and status tell, verdicts are the bundle's."""
    processes = pytest.importorskip("tests.runtime.station.processes")
    from lineward.runtime.cli import status as command

    (tmp_path / "images").mkdir()
    bundle, random = tmp_path / "watched.lineward", np.random.default_rng(3)
    write_bundle(bundle, watched)
    paths = [tmp_path / "images" / f"{number:04d}.png" for number in range(150)]
    for number, path in enumerate(paths):
        part = golden_frames[0].copy()
        if number % 50 == 49:
            part[20:50, 20:50] = (255, 0, 255)  # a bad one now and then
        write_png(path, lit(part, random, 1 - 0.002 * number))
    with processes.station_process(tmp_path, bundle, plc="acknowledge = false") as station:
        station.start()
        until(lambda: station.status()["counts"]["triggered"] >= len(paths), "all frames", 60)
        report = station.status()
        text = processes.urllib.request.urlopen(f"http://127.0.0.1:{station.health}/metrics", timeout=5).read().decode()
        assert command.run(SimpleNamespace(station=tmp_path / "station.toml")) == command.ONLINE
        station.stop()
        rows = station.rows()[: len(paths)]
        with closing(JournalReader(station.folder)) as reader:
            told = [event.detail for event in reader.events() if event.name == "drift"]
        log = station.log.read_text()

    assert sum(detail.startswith("brightness fell") for detail in told) == 1
    assert report["drift"]["brightness"]["alarm"] == next(d for d in told if d.startswith("brightness"))
    assert 'lineward_drift_alarm{job="1",statistic="brightness"} 1.0' in text
    assert "brightness fell" in capsys.readouterr().out
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["level"] for line in lines if line["event"] == "drift"] == ["warning"] * len(told)
    inspector = Inspector(decode_bundle(watched, "watched"))
    expected = [inspector.inspect(read_image(path)) for path in paths]
    assert [row.verdict for row in rows] == [inspection.verdict.value for inspection in expected]
    assert [row.score for row in rows] == pytest.approx([inspection.score for inspection in expected], abs=1e-5)
    assert {row.verdict for row in rows} == {"pass", "reject"}
