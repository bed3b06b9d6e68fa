"""Run a station: one camera, one PLC, one active bundle, until SIGTERM or Ctrl-C, which let the parts in flight finish.
Exit codes: 0 stopped as asked, 2 it could not start or failed; whoever started it should start it anew."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from pathlib import Path

from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_table
from lineward.runtime.cli.stopping import until_told
from lineward.runtime.station.cameras import open_camera
from lineward.runtime.station.configuration import Configuration, read_configuration
from lineward.runtime.station.jobs import active_bundle, load_job
from lineward.runtime.station.ledger import Counts
from lineward.runtime.station.logs import EventLog
from lineward.runtime.station.running import run_station
from lineward.runtime.trust import open_trust

_LOOK_UP = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("station", type=Path, help="the station file; docs/station.md")
    parser.add_argument("--check", action="store_true", help="check the station file and what it names, and end")
    parser.add_argument("--verbose", action="store_true", help="log each part")


def run(arguments: argparse.Namespace) -> int:
    """Run until told to stop."""
    configuration = read_configuration(arguments.station)
    if arguments.check:
        return _check(configuration)
    with closing(EventLog(verbose=arguments.verbose)) as log, until_told() as stopping:
        with run_station(configuration, log) as running:
            while not stopping.is_set() and not running.station.wait(_LOOK_UP):
                pass
        _print(running.station.counts())
        if running.station.failure is not None:
            raise running.station.failure
    return PASSED


def _check(configuration: Configuration) -> int:
    trust = open_trust(configuration.keys)
    rows = []
    for number, path in sorted(configuration.jobs.items()):
        began = time.monotonic()
        own = configuration.calibrations.get(number)
        job = load_job(number, active_bundle(number, path), configuration.engine, trust, own)
        manifest = job.bundle.manifest
        took = time.monotonic() - began
        slow = (
            f", MORE THAN change_within = {configuration.change_within:g} s"
            if took > configuration.change_within
            else ""
        )
        by = f" by calibration {job.calibration_sha256[:12]}" if job.calibration else ""
        what = f"{manifest.product} {manifest.version}, golden images equal, threshold {job.threshold:.4f}{by}"
        rows.append((f"job {number}", f"{what}, {took:.1f} s{slow}"))
    with closing(open_camera(configuration.camera, configuration.trigger)) as camera:
        shape = f"{camera.shape} {camera.dtype}" if camera.shape else "shape known with its first image"
        rows.append(("camera", f"{camera.name}, {shape}"))
    print_table("", ("checked", "found"), rows)
    return PASSED


def _print(counts: Counts) -> None:
    columns = ("triggered", "passed", "rejected", "rejected without verdict", "in flight")
    row = (counts.triggered, counts.passed, counts.rejected, counts.rejected_without_verdict, counts.in_flight)
    print_table("", columns, [[str(value) for value in row]])
