"""Run a station at the desk: parts with planted defects go by, the real loop inspects them, a PLC of ours in a process
of its own takes the verdicts over Modbus TCP; at the end the books of camera, PLC and journal are compared.
Exit codes: 0 they agree, 1 they do not, 2 error."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import PASSED, REJECTED
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.errors import StationError
from lineward.runtime.quantities import parse_rate
from lineward.runtime.station.configuration import Configuration, ReplayCamera, Seconds, read_configuration
from lineward.runtime.station.jobs import load_job
from lineward.runtime.station.logs import EventLog
from lineward.runtime.station.simulation.desk import Plan, Simulation, at_the_desk, find_rate, render_parts, simulate
from lineward.runtime.station.simulation.reconciliation import print_reconciliation
from lineward.runtime.trust import open_trust

FASTEST = "max"
_DEADLINE = Seconds(0.2)
_SLOWEST = 0.4  # of what bare inspection allows: where the search for the highest cadence begins
_SAMPLES = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "station", type=Path, help="a station file, or a bundle for a station with a deadline of 200 ms"
    )
    parser.add_argument("--parts", type=int, default=500, help="parts that go by (default: %(default)s)")
    parser.add_argument(
        "--rate",
        default="5/s",
        help='5/s, 300/min, or "max": the highest that this machine holds (default: %(default)s)',
    )
    parser.add_argument("--jitter", type=float, default=0.1, help="of the cadence, as a share of its period")
    parser.add_argument("--defects", type=float, default=0.1, help="share of parts with a planted defect")
    parser.add_argument("--gige", action="store_true", help="a GigE Vision camera in software, through Aravis")
    parser.add_argument("--seed", type=int, default=0, help="of parts and jitter")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep journal, images and the PLC's report here")


def run(arguments: argparse.Namespace) -> int:
    """Simulate, and print what the books say."""
    if arguments.parts < 1 or not 0 <= arguments.jitter < 1 or not 0 <= arguments.defects <= 1:
        raise StationError(
            "--parts, --jitter or --defects is out of range", do="give 1 or more parts, and shares in [0, 1)"
        )
    with _folder(arguments.keep) as folder, closing(EventLog()) as log:
        configuration = at_the_desk(_configuration(arguments.station, folder), folder / "station")
        trust = open_trust(configuration.keys)
        number = configuration.first_job
        own = configuration.calibrations.get(number)
        job = load_job(number, configuration.jobs[number], configuration.engine, trust, own)
        plan = Plan(arguments.parts, 1.0, arguments.jitter, arguments.defects, arguments.seed, gige=arguments.gige)
        parts = render_parts(job.bundle, plan)
        seconds = sorted(job.inspector.inspect(parts[0].frame).seconds for _ in range(_SAMPLES))
        rate = _rate(arguments.rate)
        if rate is None:
            slowest = replace(plan, rate=_SLOWEST / seconds[_SAMPLES // 2])
            rate = find_rate(configuration, slowest, parts, log)
        plan = replace(plan, rate=rate)
        with ConsoleProgress().step("parts", arguments.parts) as advance:
            simulation = simulate(configuration, plan, parts, log, advance)
        return _print(simulation, seconds)


def _print(simulation: Simulation, seconds: list[float]) -> int:
    plan, planted = simulation.plan, simulation.planted
    print_table(
        "",
        ("the line", ""),
        [
            ("cadence", f"{plan.rate:.1f} parts/s, jitter {plan.jitter:.0%}"),
            ("inspection alone", f"p50 {seconds[len(seconds) // 2] * 1e3:.1f} ms, back to back"),
            ("good parts", f"{planted.good}, of which rejected: {planted.good_rejected}"),
            ("with a planted defect", f"{planted.planted}, of which passed: {planted.planted_passed}"),
            *(("not granted by the system", missing) for missing in simulation.missing_real_time),
        ],
    )
    return PASSED if print_reconciliation(simulation.reconciliation) else REJECTED


def _configuration(path: Path, folder: Path) -> Configuration:
    if path.suffix == ".toml":
        return read_configuration(path)
    read_bundle(path)  # a bundle's errors, not a station file's
    return Configuration(
        name="desk", folder=folder, deadline=_DEADLINE, camera=ReplayCamera(images=()), jobs={1: path.absolute()}
    )


def _rate(text: str) -> float | None:
    """Parts a second; None for the highest."""
    if text == FASTEST:
        return None
    try:
        return parse_rate(text)
    except ValueError as error:
        raise StationError(f"--rate: {error}", do='or say "max"') from error


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="lineward-") as folder:
            yield Path(folder)
    elif (kept / "station").exists():
        raise StationError(f"{kept}: holds an earlier simulation", do="choose another folder, or remove it")
    else:
        yield kept
