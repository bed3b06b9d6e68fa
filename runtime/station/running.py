"""A whole station as a station file describes it: opened in order, and closed in the order that loses nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from lineward.runtime.delivery.slot_state import Slot
from lineward.runtime.delivery.slots import Slots, is_slots
from lineward.runtime.errors import StationError
from lineward.runtime.station.cameras import Camera, open_camera
from lineward.runtime.station.configuration import Configuration, Engine, GpioTrigger, MessageTrigger
from lineward.runtime.station.device_health import DeviceHealth
from lineward.runtime.station.drift_watch import DriftWatch
from lineward.runtime.station.flight_record import FlightRecord
from lineward.runtime.station.gpio import GpioOutputs, GpioTriggerInput
from lineward.runtime.station.health_server import HealthServer
from lineward.runtime.station.image_archive import ImageArchive
from lineward.runtime.station.jobs import Job, load_from_slots, load_job, open_job
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.logs import EventLog
from lineward.runtime.station.metrics import Metrics
from lineward.runtime.station.mqtt import MqttPublisher
from lineward.runtime.station.notify import Notifier, Watchdog
from lineward.runtime.station.plc.wire import Wire, open_wire
from lineward.runtime.station.pulses import Pulses
from lineward.runtime.station.real_time import (
    RealTime,
    Role,
    enter_real_time,
    raise_priority,
    raise_what_starts,
    settle_garbage,
)
from lineward.runtime.station.records import Source
from lineward.runtime.station.renewal import Renewal
from lineward.runtime.station.station import Station
from lineward.runtime.station.status import RecentParts, StationStatus, StatusReport, report
from lineward.runtime.trust import AcceptAny, open_trust

FLIGHT_RECORD = "flight.record"


@dataclass(frozen=True)
class Running:
    """A station at work.

    Attributes:
        station: the heart of it.
        journal: its journal.
        first_id: of its first trigger.
        real_time: what the system granted.
        status: how it is, at this moment.
    """

    station: Station
    journal: Journal
    first_id: int
    real_time: RealTime
    status: Callable[[], StationStatus]


@contextmanager
def run_station(
    configuration: Configuration, log: EventLog, camera: Callable[[], Camera] | None = None
) -> Iterator[Running]:
    """Run a station until the context ends: then it finishes the parts in flight and closes everything.

    Args:
        configuration: the station file.
        log: where events go.
        camera: opens another camera than the station file's.

    Raises:
        LinewardError: something that the station file names is not there, or not as it says.
    """
    with ExitStack() as stack:
        _make_folder(configuration.folder)
        trust = open_trust(configuration.keys)
        flight = FlightRecord(configuration.folder / FLIGHT_RECORD)
        stack.callback(flight.close)
        journal = Journal(configuration.folder, configuration.name, flight)
        stack.callback(journal.close)
        station = Station(
            configuration,
            camera or (lambda: open_camera(configuration.camera, configuration.trigger)),
            lambda number: _load(configuration, number, station.event),
            flight,
            flight.first_id,
            lambda: journal.behind,
            raise_priority,
            settle_garbage,
        )
        for records in (journal, log):
            station.observe(records=records)
        archive = ImageArchive(configuration.folder, configuration.images, journal)
        stack.callback(archive.close)
        station.observe(frames=archive)
        drift = DriftWatch(station.event)
        station.observe(inspections=drift)
        recent = RecentParts()
        station.observe(records=recent)
        wire = _wire(configuration, station)
        status = _status(configuration, station, journal, wire, drift)
        _serve_health(configuration, station, status, recent, stack)
        _publish(configuration, station, journal, lambda: report(status(), recent), stack)
        if wire is not None:
            stack.callback(wire.close)
        if configuration.outputs:
            pulses = Pulses(configuration.outputs, GpioOutputs(configuration.outputs), station.event, station.fail)
            stack.callback(pulses.stop)
            station.observe(records=pulses)
            pulses.start()
        if isinstance(trust, AcceptAny):
            station.event("any_bundle_accepted", "this machine has no trusted keys: see docs/signing.md")
        if wire is not None:
            wire.start()  # before the first job is loaded: the PLC sees who is coming, and no stale verdict
        stack.callback(station.stop)
        station.start()
        real_time = enter_real_time()
        for missing in real_time.missing:
            station.event("not_real_time", missing)
        _listen_to_edges(configuration, station, stack)
        notifier = Notifier()
        watchdog = Watchdog(notifier, lambda: station.is_alive)
        watchdog.start()
        stack.callback(watchdog.stop)
        stack.callback(notifier.stopping)
        notifier.ready()
        notifier.status(f"{configuration.name}: {station.camera or 'waiting for its camera'}")
        _watch_slots(configuration, station, stack)
        yield Running(station, journal, flight.first_id, real_time, status)


def _load(configuration: Configuration, number: int, tell: Callable[[str, str], object]) -> Job:
    """Load a job, by the keys as they are at this moment: they may have changed since the station was started."""
    path, engine, trust = configuration.jobs[number], configuration.engine, open_trust(configuration.keys)
    calibration = configuration.calibrations.get(number)
    with _workers_raised(engine):
        if not is_slots(path):
            return load_job(number, path, engine, trust, calibration)
        slots = Slots(path)
        return load_from_slots(number, slots, engine, trust, lambda why: tell("bundle_rolled_back", why), calibration)


def _workers_raised(engine: Engine) -> AbstractContextManager[None]:
    """Where the CPU computes, each inspection waits for the engine's workers."""
    return raise_what_starts(Role.DECISION) if engine.name == "cpu" else nullcontext()


def _watch_slots(configuration: Configuration, station: Station, stack: ExitStack) -> None:
    slots = {number: Slots(path) for number, path in configuration.jobs.items() if is_slots(path)}
    if not slots:
        return

    def load(number: int, slots: Slots, slot: Slot) -> Job:
        bundle = slots.bundle(slot, open_trust(configuration.keys))
        with _workers_raised(configuration.engine):
            return open_job(number, bundle, configuration.engine, configuration.calibrations.get(number))

    renewal = Renewal(station, configuration, slots, load, settle_garbage)
    renewal.start()
    stack.callback(renewal.stop)


def _wire(configuration: Configuration, station: Station) -> Wire | None:
    return open_wire(configuration.plc, station.handshake, station.event) if configuration.plc else None


def _status(
    configuration: Configuration, station: Station, journal: Journal, wire: Wire | None, drift: DriftWatch
) -> Callable[[], StationStatus]:
    since = time.time_ns()

    def status() -> StationStatus:
        said, job = station.handshake.status(), station.job
        return StationStatus(
            configuration.name,
            since,
            station.is_alive,
            said.state.offline,
            said.state.job,
            job.bundle.manifest.product if job else "",
            job.bundle.sha256 if job else "",
            said.state.counts,
            said.missed,
            station.camera,
            station.frames_lost_count,
            wire.connected if wire else None,
            journal.backlog,
            drift.states(),
            job.threshold if job else math.nan,
            job.calibration_sha256 if job else "",
        )

    return status


def _serve_health(
    configuration: Configuration,
    station: Station,
    status: Callable[[], StationStatus],
    recent: RecentParts,
    stack: ExitStack,
) -> None:
    health = configuration.health
    if not health.port:
        return
    metrics = Metrics(status, DeviceHealth())
    station.observe(records=metrics)
    stack.callback(HealthServer(health.host, health.port, status, recent, metrics).close)


def _publish(
    configuration: Configuration,
    station: Station,
    journal: Journal,
    report: Callable[[], StatusReport],
    stack: ExitStack,
) -> None:
    if configuration.mqtt is None:
        return
    messages = isinstance(configuration.trigger, MessageTrigger)
    take = (lambda part: station.announce(Source.MESSAGE, part)) if messages else None
    publisher = MqttPublisher(configuration.mqtt, configuration.name, journal, report, station.event, take)
    publisher.start()
    stack.callback(publisher.close)


def _listen_to_edges(configuration: Configuration, station: Station, stack: ExitStack) -> None:
    trigger = configuration.trigger
    if not isinstance(trigger, GpioTrigger):
        return

    def edge(monotonic_ns: int) -> None:
        station.announce(Source.GPIO, monotonic_ns=monotonic_ns)

    edges = GpioTriggerInput(trigger, edge, station.event, station.fail)
    edges.start()
    stack.callback(edges.stop)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StationError(
            f"{folder}: cannot be made ({error.strerror})", do="set `folder` in the station file, or its permissions"
        ) from error
