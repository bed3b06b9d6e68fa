from __future__ import annotations

import io
import json
import re
import threading
import time

import pytest

from lineward.runtime.inspection import Reason
from lineward.runtime.station import logs
from lineward.runtime.station.logs import EventLog, level_of
from lineward.runtime.station.records import Event
from tests.runtime.station.station_samples import UTC_NS, part


class Stream(io.StringIO):
    """A log's reader, perhaps a terminal, perhaps one that does not read."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal
        self.reads = threading.Event()
        self.reads.set()
        self.fails = False

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.reads.wait(30)
        if self.fails:
            raise BrokenPipeError
        return super().write(text)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


def test_an_event_is_one_line_of_json():
    stream = Stream()
    log = EventLog(stream)
    log.event(Event("camera_lost", 'cable\n"pulled"', UTC_NS))
    log.close()
    assert [json.loads(line) for line in stream.lines] == [
        {
            "time": "2026-09-21T14:13:20.000+00:00",
            "level": "warning",
            "event": "camera_lost",
            "detail": 'cable\n"pulled"',
        }
    ]


def test_an_event_is_one_line_of_text_on_a_terminal():
    stream = Stream(terminal=True)
    log = EventLog(stream)
    log.event(Event("job_changed", "job 2:\nü \x1b[31mred", UTC_NS))
    log.close()
    assert stream.lines == ["2026-09-21T14:13:20.000Z info    job_changed: job 2:\\x0aü \\x1b[31mred"]


def test_parts_are_counted_and_not_logged_one_by_one():
    stream = Stream()
    log = EventLog(stream)
    for number in range(500):
        log.final(part(number, list(Reason)[number % 5]))
    log.close()
    lines = [json.loads(line) for line in stream.lines]
    assert len(lines) <= 10
    assert {line["event"] for line in lines} == {"parts"}
    assert sum(line["passed"] for line in lines) == 100
    assert sum(line["rejected"] for line in lines) == 100
    assert sum(line["rejected_without_verdict"] for line in lines) == 300


def test_counts_come_while_parts_flow_and_not_after(monkeypatch):
    monkeypatch.setattr(logs, "_COUNTS_EVERY", 0.05)
    stream = Stream()
    log = EventLog(stream)
    log.final(part(1))
    deadline = time.monotonic() + 10
    while not stream.lines and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(stream.lines) == 1
    time.sleep(0.2)
    log.close()
    assert len(stream.lines) == 1


def test_verbose_logs_each_part():
    stream = Stream()
    log = EventLog(stream, verbose=True)
    log.final(part(7))
    log.final(part(8, Reason.FRAME_MISSING, None))
    log.close()
    seen, unseen = (line for line in map(json.loads, stream.lines) if line["event"] == "part")
    assert (seen["id"], seen["part"], seen["verdict"], seen["score"], seen["told_ms"]) == (7, 107, "pass", 0.25, 20.0)
    assert (unseen["id"], unseen["reason"], unseen["score"], unseen["told_ms"]) == (8, "frame_missing", None, None)


def test_a_reader_that_does_not_read_holds_nobody_up():
    stream = Stream()
    stream.reads.clear()
    log = EventLog(stream)
    before = time.monotonic()
    for number in range(3000):
        log.event(Event("camera_lost", str(number), UTC_NS))
    assert time.monotonic() - before < 10
    stream.reads.set()
    log.close()
    lines = [json.loads(line) for line in stream.lines]
    kept = [int(line["detail"]) for line in lines if line["event"] == "camera_lost"]
    dropped = sum(line["dropped"] for line in lines if line["event"] == "log_lines_dropped")
    assert kept == sorted(kept)
    assert dropped > 0
    assert len(kept) + dropped == 3000


def test_a_reader_that_went_away_does_not_end_the_log():
    stream = Stream()
    stream.fails = True
    log = EventLog(stream)
    log.event(Event("camera_lost", "unseen", UTC_NS))
    while not log._lines.empty():
        time.sleep(0.01)
    time.sleep(0.1)
    stream.fails = False
    log.event(Event("camera_back", "seen", UTC_NS))
    log.close()
    assert [json.loads(line)["event"] for line in stream.lines] == ["camera_back", "log_lines_dropped"]


def test_closing_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(logs, "_END_WITHIN", 0.1)
    stream = Stream()
    stream.reads.clear()
    log = EventLog(stream)
    for _ in range(2000):
        log.event(Event("camera_lost", "", UTC_NS))
    log.close()
    stream.reads.set()


def test_by_default_it_writes_to_standard_error(capsys):
    log = EventLog()
    log.event(Event("camera_back", "", UTC_NS))
    log.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search("camera_back", captured.err)


@pytest.mark.parametrize(
    ("event", "level"),
    [
        ("engine_hung", "error"),
        ("station_failed", "error"),
        ("camera_lost", "warning"),
        ("job_refused", "warning"),
        ("engine_not_renewed", "warning"),
        ("any_bundle_accepted", "warning"),
        ("job_changed", "info"),
        ("notified", "info"),
        ("camera_back", "info"),
    ],
)
def test_levels(event, level):
    assert level_of(event) == level
