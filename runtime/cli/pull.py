"""Bring a station to where its repository wants it: away from recalled bundles, and to the newest one that is for it,
proven as `lineward deploy` does. A running station follows between two parts. Exit codes: 0 done, or nothing to do;
2 not all of it: then what was active stays."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from lineward.runtime.cli import FAILED, PASSED, trusted_bundle
from lineward.runtime.cli.console import print_error
from lineward.runtime.cli.station_slots import Proof, job_slots
from lineward.runtime.cli.stopping import until_told
from lineward.runtime.delivery.deployment import Target
from lineward.runtime.delivery.pulling import Wish, pull
from lineward.runtime.delivery.repository import Repository, Source, open_repository
from lineward.runtime.errors import LinewardError, StationError
from lineward.runtime.quantities import parse_duration
from lineward.runtime.station.configuration import Configuration, Fleet, read_configuration
from lineward.runtime.trust import AcceptAny, open_trust

_STATE = "fleet"
_SPREAD = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("station", type=Path, metavar="STATION_FILE", help="with the table [fleet]; docs/fleet.md")
    parser.add_argument(
        "--from",
        dest="place",
        metavar="PLACE",
        help="another URL or folder of the same repository, such as a USB stick",
    )
    parser.add_argument(
        "--every",
        nargs="?",
        type=_duration,
        const=0.0,
        metavar="TIME",
        help="go on until SIGTERM, and pull that often (default: `every` of [fleet])",
    )


def run(arguments: argparse.Namespace) -> int:
    """Pull once, or until told to stop."""
    configuration = read_configuration(arguments.station)
    if arguments.every is None:
        return PASSED if _pull(configuration, arguments.place) else FAILED
    every = arguments.every or _fleet(configuration).every
    with until_told() as stopping:
        while not stopping.is_set():
            _pull(configuration, arguments.place)
            # Stations that were switched on together do not all ask at once for ever.
            stopping.wait(every * random.uniform(1 - _SPREAD, 1 + _SPREAD))
    return PASSED


def _pull(configuration: Configuration, place: str | None) -> bool:
    """Pull for every job that the table names; one that fails does not keep the others back."""
    fleet = _fleet(configuration)
    source = Source(place or fleet.repository, fleet.root, configuration.folder / _STATE, fleet.limit)
    try:
        with open_repository(source) as repository:
            done = [_pull_job(configuration, repository, job, fleet) for job in sorted(fleet.products)]
            return all(done)
    except LinewardError as error:
        print_error(str(error))
        return False


def _pull_job(configuration: Configuration, repository: Repository, job: int, fleet: Fleet) -> bool:
    try:
        _, slots = job_slots(configuration, job)
        trust = open_trust(configuration.keys)
        if isinstance(trust, AcceptAny):
            trusted_bundle.warn_of_any()
        target, wish = Target(slots, configuration.name, trust), Wish(fleet.products[job], fleet.groups)
        done = pull(repository, target, wish, Proof(configuration, job))
    except LinewardError as error:
        print_error(f"job {job}: {error}")
        return False
    active = slots.read().active
    stays = f"{wish.product} {active.version} stays" if active else f"no {wish.product} yet"
    for line in done or [f"{stays}: nothing newer is for this station"]:
        print(f"job {job}: {line}", flush=True)
    return True


def _fleet(configuration: Configuration) -> Fleet:
    if configuration.fleet is None:
        raise StationError(
            "the station file has no table [fleet]", do="name repository, root and products in it; see docs/fleet.md"
        )
    return configuration.fleet


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
