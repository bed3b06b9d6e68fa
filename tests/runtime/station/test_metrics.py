from __future__ import annotations

import math
import threading

import pytest

from lineward.runtime.bench.record import State
from lineward.runtime.drift import Statistic
from lineward.runtime.inspection import Reason
from lineward.runtime.station.device_health import DeviceHealth
from lineward.runtime.station.ledger import Ledger
from lineward.runtime.station.plc.handshake import Offline
from lineward.runtime.station.records import Event, Source, Trigger
from tests.runtime.station.station_samples import counts, drift, part, status

pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families

from lineward.runtime.station.metrics import Metrics

STATE = State(0.5, {"cpu policy0": 1500.0}, {"CPU-therm": 48.5}, {"oc1 events": 2})


def device() -> DeviceHealth:
    return DeviceHealth(lambda: STATE)


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples by name and labels."""
    text = metrics.exposition("text/plain")[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return scrape(metrics)[name, frozenset(labels.items())]


def total(samples: dict, name: str) -> float:
    return sum(found for (sample, _), found in samples.items() if sample == name)


def test_every_trigger_is_found_among_the_parts():
    samples = scrape(Metrics(status, device()))
    triggers, in_flight = total(samples, "lineward_triggers_total"), total(samples, "lineward_parts_in_flight")
    assert triggers == total(samples, "lineward_parts_total") + in_flight == 103


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("lineward_parts_total", {"outcome": "passed", "reason": "within_threshold"}, 90),
        ("lineward_parts_total", {"outcome": "rejected", "reason": "above_threshold"}, 7),
        ("lineward_parts_total", {"outcome": "rejected_without_verdict", "reason": "frame_missing"}, 2),
        ("lineward_parts_total", {"outcome": "rejected_without_verdict", "reason": "engine_failed"}, 0),
        ("lineward_triggers_missed_total", {}, 4),
        ("lineward_inspections_late_total", {}, 2),
        ("lineward_camera_frames_lost_total", {}, 5),
        ("lineward_journal_backlog", {}, 6),
        ("lineward_up", {}, 1),
        ("lineward_online", {}, 1),
        ("lineward_wire_connected", {}, 1),
        (
            "lineward_bundle_info",
            {"bundle": "ab" * 32, "product": "bottle", "job": "1", "calibration": "cd" * 32},
            1,
        ),
        ("lineward_threshold", {}, 0.5),
        ("lineward_temperature_celsius", {"sensor": "CPU-therm"}, 48.5),
        ("lineward_clock_hertz", {"clock": "cpu policy0"}, 1.5e9),
        ("lineward_throttling", {"source": "oc1 events"}, 2),
    ],
)
def test_the_snapshot_is_exported(name, labels, expected):
    assert value(Metrics(status, device()), name, **labels) == expected


def test_a_station_in_trouble_shows_it():
    metrics = Metrics(lambda: status(alive=False, offline=Offline.CAMERA_LOST, wire_connected=None), device())
    assert value(metrics, "lineward_up") == value(metrics, "lineward_online") == 0
    assert "lineward_wire_connected" not in {name for name, _ in scrape(metrics)}


def test_drift_is_exported_by_statistic():
    states = (drift(Statistic.BRIGHTNESS, alarm=True), drift(Statistic.COLOUR))
    metrics = Metrics(lambda: status(drift=states), device())
    for name, statistic, expected in (
        ("alarm", "brightness", 1),
        ("alarm", "colour", 0),
        ("evidence", "brightness", 7.0),
        ("evidence_limit", "colour", 6.8),
        ("recent", "brightness", 96.0),
        ("usual", "colour", 103.25),
    ):
        assert value(metrics, f"lineward_drift_{name}", job="1", statistic=statistic) == expected
    assert math.isnan(value(metrics, "lineward_drift_recent", job="1", statistic="colour"))
    assert not total(scrape(Metrics(status, device())), "lineward_drift_alarm")


def test_latencies_and_ratios_fall_into_their_buckets():
    metrics = Metrics(status, device())
    for record in (
        part(1),
        part(2, told_ms=700.0),
        part(3, Reason.ABOVE_THRESHOLD),
        part(4, Reason.FRAME_MISSING, None),
    ):
        metrics.final(record)
    for le, expected in (("0.015", 0), ("0.02", 2), ("0.5", 2), ("0.75", 3), ("+Inf", 3)):
        assert value(metrics, "lineward_trigger_to_told_seconds_bucket", le=le) == expected
    assert value(metrics, "lineward_trigger_to_captured_seconds_bucket", le="0.005") == 3
    assert value(metrics, "lineward_inspection_seconds_sum") == pytest.approx(0.030)
    for le, expected in (("0.25", 0), ("0.5", 2), ("1.25", 2), ("1.5", 3)):
        assert value(metrics, "lineward_score_ratio_bucket", job="1", le=le) == expected


@pytest.mark.parametrize(
    "fields", [{"score": math.nan}, {"score": math.inf}, {"threshold": 0.0}, {"threshold": math.nan}]
)
def test_a_score_without_a_ratio_is_left_out(fields):
    metrics = Metrics(status, device())
    metrics.final(part(1, **fields))
    assert total(scrape(metrics), "lineward_score_ratio_count") == 0


def test_events_are_counted_by_name():
    metrics = Metrics(status, device())
    for name in ("camera_lost", "camera_back", "camera_lost"):
        metrics.event(Event(name, "in words", 0))
    assert value(metrics, "lineward_events_total", event="camera_lost") == 2
    assert value(metrics, "lineward_events_total", event="camera_back") == 1


def test_two_stations_in_one_process_know_nothing_of_each_other():
    ours, theirs = Metrics(status, device()), Metrics(lambda: status(counts=counts()), device())
    ours.final(part(1))
    assert value(ours, "lineward_trigger_to_told_seconds_count") == 1
    assert value(theirs, "lineward_trigger_to_told_seconds_count") == 0
    assert value(theirs, "lineward_triggers_total") == 3


def test_every_scrape_of_a_station_at_work_adds_up():
    """Parts begin and end while it is scraped: each scrape is of one moment."""
    lock = threading.Lock()
    ledger = Ledger(10**18, lambda _: None)

    def snapshot():
        with lock:
            return status(counts=ledger.counts())

    metrics, stop = Metrics(snapshot, device()), threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            number += 1
            record = part(number, list(Reason)[number % len(Reason)])
            with lock:
                ledger.open(Trigger(number, Source.PLC, record.trigger.monotonic_ns, 0))
            with lock:
                ledger.decide(record)
            with lock:
                ledger.final(record)
            metrics.final(record)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(30):
            samples = scrape(metrics)
            in_flight = total(samples, "lineward_parts_in_flight")
            assert total(samples, "lineward_triggers_total") == total(samples, "lineward_parts_total") + in_flight
    finally:
        stop.set()
        worker.join()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain"), ("application/openmetrics-text;version=1.0.0", "application/openm")],
)
def test_it_speaks_the_format_that_is_asked_for(accept, content_type):
    assert Metrics(status, device()).exposition(accept)[1].startswith(content_type)


def test_the_device_is_read_seldom():
    now, reads = [0.0], []
    health = DeviceHealth(lambda: reads.append(1) or STATE, lambda: now[0])
    for now[0] in (0.0, 1.0, 4.9, 5.0, 6.0):
        assert health.state() is STATE
    assert len(reads) == 2


def test_this_device_can_be_read():
    assert DeviceHealth().state().load >= 0
