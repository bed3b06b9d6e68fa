"""What stands in for hardware in tests of the station itself: a camera fed by the test, an engine that obeys it."""

from __future__ import annotations

import os
import queue
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import CameraError
from lineward.runtime.inspection import Inspection, decide
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.configuration import Configuration, PlcTrigger, ReplayCamera, Seconds
from lineward.runtime.station.jobs import Job
from lineward.runtime.station.journal_reader import FILE_NAME
from lineward.runtime.station.records import Capture, Event, PartRecord, Trigger
from lineward.runtime.station.station import Station

SHAPE = (8, 8)
PATIENCE = 30.0


def frame_of(score: float) -> Frame:
    """A frame that the stand-in engine gives this score, in [0, 2]."""
    return np.full(SHAPE, round(score * 100), np.uint8)


class FedCamera:
    """Delivers what the test feeds it; after `fire` too, the test feeds the answer (or `answers` does)."""

    def __init__(self, answers: Callable[[], Frame | None] | None = None) -> None:
        self.name = "fed"
        self.shape: tuple[int, ...] = SHAPE
        self.dtype = "uint8"
        self.answers = answers
        self.started = 0
        self.fired = 0
        self.closed = False
        self.lost = False
        self._captures: queue.SimpleQueue[Capture] = queue.SimpleQueue()
        self._next = 0

    def start(self) -> None:
        self.started += 1
        self._next = 0
        self._captures = queue.SimpleQueue()

    def fire(self) -> None:
        self._check()
        self.fired += 1
        if self.answers is not None:
            self.feed(self.answers())

    def feed(self, pixels: Frame | None, skip: int = 0) -> None:
        self._next += skip
        self._captures.put(Capture(self._next, time.monotonic_ns(), pixels))
        self._next += 1

    def capture(self, seconds: float) -> Capture | None:
        self._check()
        try:
            return self._captures.get(timeout=min(seconds, 0.02))
        except queue.Empty:
            self._check()
            return None

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.lost:
            raise CameraError("fed: went away", do="plug it in")


@dataclass
class ObedientInspector:
    """Scores a frame by its brightness, after doing what the test says."""

    before: Callable[[], None] = lambda: None
    threshold: float = 0.5
    score: float | None = None
    inspected: int = 0
    bundle: Any = None

    def inspect(self, frame: Frame) -> Inspection:
        self.inspected += 1
        self.before()
        score = float(frame[0, 0]) / 100 if self.score is None else self.score
        verdict, reason = decide(score, self.threshold)
        return Inspection(verdict, reason, score, self.threshold, None, 0.0)


class Listener:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.records: list[PartRecord] = []
        self.events: list[Event] = []
        self.frames: list[tuple[PartRecord, Frame]] = []

    def final(self, record: PartRecord) -> None:
        self.records.append(record)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def judged(self, record: PartRecord, frame: Frame) -> None:
        self.frames.append((record, frame.copy()))

    @property
    def reasons(self) -> list[str]:
        return [record.reason.value for record in self.records]

    @property
    def event_names(self) -> list[str]:
        return [event.name for event in self.events]


class NoFlight:
    """Remembers no trigger."""

    def begin(self, trigger: Trigger) -> None: ...

    def finish(self, record: PartRecord) -> None: ...

    def inspects_with(self, bundle: str, job: int, threshold: float, calibration: str = "") -> None: ...


@dataclass
class Desk:
    """A station with stand-ins, and what it said."""

    station: Station
    camera: FedCamera
    inspector: ObedientInspector
    heard: Listener
    jobs: dict[int, Any] = field(default_factory=dict)

    def finals(self, count: int) -> list[str]:
        """Wait for so many final parts, and return their reasons."""
        until(lambda: len(self.heard.records) >= count, f"{count} final parts, have {self.heard.reasons}")
        return self.heard.reasons

    def online(self) -> None:
        until(lambda: self.station.state().offline == 0, "the station online")


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until it holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.002)


def damage_journal(folder: Path) -> None:
    """Overwrite every file of a journal in its place; a shorter one would be fatal, where SQLite has it mapped."""
    noise = random.Random(7)
    for suffix in ("", "-wal", "-shm"):
        with (folder / (FILE_NAME + suffix)).open("r+b") as file:
            file.write(noise.randbytes(os.fstat(file.fileno()).st_size))


def configuration(folder: Path, **changes: Any) -> Configuration:
    """A station file of a fired or self-exposing stand-in camera."""
    values: dict[str, Any] = {
        "name": "desk",
        "folder": folder,
        "deadline": Seconds(0.5),
        "camera": ReplayCamera(images=("none",)),
        "jobs": {1: folder / "one.lineward", 2: folder / "two.lineward"},
        "trigger": PlcTrigger(),
    }
    return Configuration(**{**values, **changes})


@contextmanager
def desk(bundle: Bundle, folder: Path, camera: FedCamera | None = None, **changes: Any) -> Iterator[Desk]:
    """A running station; job 2 is another inspector of the same bundle."""
    camera = camera or FedCamera()
    inspectors = {1: ObedientInspector(), 2: ObedientInspector()}
    heard = Listener()
    behind = changes.pop("journal_behind", lambda: False)
    loads: list[int] = []

    def load(number: int) -> Job:
        loads.append(number)
        made = jobs.get(number)
        if made is not None:
            made()
        return Job(number, bundle, inspectors[number], np.zeros(SHAPE, np.uint8))  # type: ignore[arg-type]

    jobs: dict[int, Any] = {}
    station = Station(
        configuration(folder, **changes), lambda: _opened(camera), load, NoFlight(), journal_behind=behind
    )
    station.observe(heard, heard)
    made = Desk(station, camera, inspectors[1], heard, jobs)
    made.inspectors = inspectors  # type: ignore[attr-defined]
    made.loads = loads  # type: ignore[attr-defined]
    station.start()
    try:
        made.online()
        yield made
    finally:
        station.stop()


def _opened(camera: FedCamera) -> FedCamera:
    camera._check()
    camera.closed = False
    return camera


__all__ = ["SHAPE", "Desk", "FedCamera", "Listener", "NoFlight", "ObedientInspector", "desk", "frame_of", "until"]
