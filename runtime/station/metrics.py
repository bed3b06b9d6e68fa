"""Metrics for Prometheus (docs/health.md). Everything that is counted comes from one snapshot a scrape, so that it adds
up: triggers = parts of every outcome + parts in flight."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lineward.runtime.errors import MissingExtraError
from lineward.runtime.inspection import Reason, outcome_of
from lineward.runtime.station.device_health import DeviceHealth
from lineward.runtime.station.plc.handshake import Offline
from lineward.runtime.station.records import Event, PartRecord
from lineward.runtime.station.status import LATENCIES, StationStatus, latencies_ns, lineward_version

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_SECONDS = (1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000)
_SECONDS_BUCKETS = tuple(milliseconds / 1e3 for milliseconds in _SECONDS)
_RATIO_BUCKETS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
"""Finest about 1, where a score meets its threshold: a drift shows there first."""
_MEANING = {
    "trigger_to_told": "From trigger to verdict on the wire",
    "trigger_to_captured": "From trigger to complete frame",
    "inspection": "From the start of the inspection to its verdict",
}


class Metrics:
    """A RecordObserver that keeps what Prometheus scrapes, in a registry of its own.

    Args:
        status: a snapshot of the station.
        device: the machine it runs on.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """

    def __init__(self, status: Callable[[], StationStatus], device: DeviceHealth) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Histogram
        except ImportError as error:
            raise MissingExtraError(
                "metrics need prometheus_client, which is not installed", do="pip install 'lineward[station]'"
            ) from error
        self._registry = CollectorRegistry()
        self._events = Counter("lineward_events", "What happened to the station", ["event"], registry=self._registry)
        self._latencies = {
            name: Histogram(
                f"lineward_{name}_seconds", _MEANING[name], buckets=_SECONDS_BUCKETS, registry=self._registry
            )
            for name in LATENCIES
        }
        self._ratios = Histogram(
            "lineward_score_ratio",
            "Image score as a share of the threshold: 1 still passes",
            ["job"],
            buckets=_RATIO_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(_Snapshot(status, device))

    def final(self, record: PartRecord) -> None:
        """See `RecordObserver`."""
        for name, nanoseconds in latencies_ns(record).items():
            self._latencies[name].observe(nanoseconds / 1e9)
        if math.isfinite(record.score) and 0 < record.threshold < math.inf:
            self._ratios.labels(record.job).observe(record.score / record.threshold)

    def event(self, event: Event) -> None:
        """See `RecordObserver`."""
        self._events.labels(event.name).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, and its content type.

        Args:
            accept: the scraper's Accept header.
        """
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Snapshot:
    """A collector of prometheus_client: each scrape asks the station once."""

    def __init__(self, status: Callable[[], StationStatus], device: DeviceHealth) -> None:
        self._status = status
        self._device = device

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the station."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        status = self._status()
        yield from _parts(status)
        yield from _station(status)
        yield from _drift(status)
        yield from _machine(self._device)


def _parts(status: StationStatus) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    counts = status.counts
    yield CounterMetricFamily("lineward_triggers", "Parts announced", counts.triggered)
    parts = CounterMetricFamily("lineward_parts", "Final parts by verdict", labels=["outcome", "reason"])
    for reason in Reason:
        parts.add_metric([outcome_of(reason).value, reason.value], counts.reasons.get(reason, 0))
    yield parts
    yield GaugeMetricFamily("lineward_parts_in_flight", "Parts announced and not final yet", counts.in_flight)
    yield CounterMetricFamily("lineward_triggers_missed", "Triggers of the PLC that were not taken", status.missed)
    yield CounterMetricFamily("lineward_inspections_late", "Inspections that ended after the deadline", counts.late)
    yield CounterMetricFamily("lineward_camera_frames_lost", "Parts without a frame", status.frames_lost)


def _station(status: StationStatus) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    yield GaugeMetricFamily("lineward_up", "1 while every thread that a part waits for is at work", status.alive)
    online = status.offline is Offline.NONE
    yield GaugeMetricFamily("lineward_online", "1 while triggers are taken", online)
    if status.wire_connected is not None:
        yield GaugeMetricFamily("lineward_wire_connected", "1 while the PLC is connected", status.wire_connected)
    yield GaugeMetricFamily("lineward_journal_backlog", "Records that wait to be written", status.journal_backlog)
    yield GaugeMetricFamily("lineward_start_time_seconds", "When it was started, Unix time", status.since_utc_ns / 1e9)
    bundle = {"bundle": status.bundle, "product": status.product, "job": str(status.job)}
    yield InfoMetricFamily("lineward_bundle", "The active bundle", bundle | {"calibration": status.calibration})
    if math.isfinite(status.threshold):
        yield GaugeMetricFamily("lineward_threshold", "Image score that still passes", status.threshold)
    build = {"station": status.name, "version": lineward_version(), "python": platform.python_version()}
    yield InfoMetricFamily("lineward_build", "The software", build)


def _drift(status: StationStatus) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    job = str(status.job)
    for name, meaning, value in (
        ("alarm", "1 once a statistic of the frames left its range", lambda state: state.alarm is not None),
        ("evidence", "log10 of the evidence that it does", lambda state: state.evidence),
        ("evidence_limit", "The evidence that is an alarm", lambda state: state.limit),
        ("recent", "Mean of about the last 50 frames", lambda state: state.recent),
        ("usual", "Mean of the bundle's reference", lambda state: state.usual),
    ):
        metric = GaugeMetricFamily(f"lineward_drift_{name}", meaning, labels=["job", "statistic"])
        for state in status.drift:
            metric.add_metric([job, state.statistic.value], value(state))
        yield metric


def _machine(device: DeviceHealth) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    state = device.state()
    for name, meaning, label, values, unit in (
        ("lineward_temperature_celsius", "Thermal zones", "sensor", state.temperatures, 1.0),
        ("lineward_clock_hertz", "Clocks of processor and GPU, and their limits", "clock", state.clocks, 1e6),
        ("lineward_throttling", "Throttling events, and cooling at work", "source", state.throttling, 1.0),
    ):
        metric = GaugeMetricFamily(name, meaning, labels=[label])
        for source, value in values.items():
            metric.add_metric([source], value * unit)
        yield metric
