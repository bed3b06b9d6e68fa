"""Say how a running station is. Exit codes: 0 online, 1 offline, 2 not running."""

from __future__ import annotations

import argparse
import http.client
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from lineward.runtime.cli.console import print_error, print_table
from lineward.runtime.errors import JournalError, StationError, first_line
from lineward.runtime.inspection import JUDGED
from lineward.runtime.station.configuration import Configuration, Health, read_configuration
from lineward.runtime.station.journal_reader import FILE_NAME, JournalReader
from lineward.runtime.station.status import Spread, StatusReport, iso

ONLINE, OFFLINE, NOT_RUNNING = 0, 1, 2
_ANSWER_WITHIN = 5.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_MEANING = {
    "starting": ("the first job is being loaded", "wait; the log says what it waits for"),
    "camera_lost": (
        "the camera is gone",
        "check its cable, power and network: `lineward cameras` lists those it finds",
    ),
    "job_changing": ("another job is being loaded", "wait; parts that come meanwhile are rejected"),
    "engine_hung": ("the engine did not answer and is opened anew", "wait; if it happens again, check the device"),
    "journal_behind": ("the disk cannot keep up with the journal", "check that the disk has room and is healthy"),
    "plc_silent": ("the PLC's heartbeat stopped", "check the PLC and the network to it"),
    "stopping": ("it is being stopped", "start it again"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("station", type=Path, metavar="STATION_FILE", help="the station file it was started with")


def run(arguments: argparse.Namespace) -> int:
    """Ask the station, and print what it says."""
    configuration = read_configuration(arguments.station)
    answer = _ask(configuration.health)
    if answer is None:
        print_error(_not_running(configuration))
        return NOT_RUNNING
    if answer.name != configuration.name:
        raise StationError(
            f"{_url(configuration.health)} answers as station {answer.name!r}, not {configuration.name!r}",
            do="give each station on this device a [health] port of its own",
        )
    print_table("", ("station", answer.name), _rows(answer))
    if answer.state == "online":
        return ONLINE
    what, do = _MEANING.get(answer.offline_reason, (answer.offline_reason, "see its log"))
    print_error(f"{answer.name} is offline: {what}\n  -> {do}")
    return OFFLINE


def _ask(health: Health) -> StatusReport | None:
    """None if nobody listens.

    Raises:
        StationError: something else than a station answers, or nothing does in time.
    """
    url = _url(health)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is beside us, not behind a proxy
    try:
        with opener.open(url, timeout=_ANSWER_WITHIN) as answer:
            return msgspec.json.decode(answer.read(), type=StatusReport)
    except (msgspec.MsgspecError, urllib.error.HTTPError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise StationError(
            f"{url}: what answers is no station of this version ({first_line(error)})", do="check [health] port"
        ) from error
    except TimeoutError as error:
        raise _silent(url) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _silent(url) from error
        return None
    except ConnectionError:
        return None


def _silent(url: str) -> StationError:
    return StationError(
        f"{url} gives no answer within {_ANSWER_WITHIN:g} s", do="look at the station's log; restart it if it hangs"
    )


def _url(health: Health) -> str:
    host = _EVERY_ADDRESS.get(health.host, health.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{health.port}/status"


def _not_running(configuration: Configuration) -> str:
    spoke = _last_spoke(configuration.folder)
    return (
        f"{configuration.name} is not running: nobody listens at {_url(configuration.health)}; {spoke}\n"
        "  -> start it; if it was started, its log says why it ended"
    )


def _last_spoke(folder: Path) -> str:
    """What the journal's last entries say of a station that does not answer."""
    try:
        with closing(JournalReader(folder / FILE_NAME)) as reader:
            parts = list(reader.parts(last=1))
            events = deque(reader.events(), maxlen=1)
    except JournalError as error:
        return error.what
    said = [f"last part {iso(row.utc_ns)}: {row.verdict}, {row.reason.replace('_', ' ')}" for row in parts]
    said += [f"last event {iso(row.utc_ns)}: {row.name}, {row.detail}" for row in events]
    return "; ".join(said) or "its journal is empty"


def _rows(answer: StatusReport) -> Iterator[tuple[str, str]]:
    counts = answer.counts
    yield "state", answer.state + (f": {answer.offline_reason.replace('_', ' ')}" if answer.offline_reason else "")
    yield "since", f"{answer.since}, version {answer.version}"
    yield "job", f"{answer.job}: {answer.product}, bundle {answer.bundle[:12]}" if answer.bundle else "none yet"
    if answer.threshold is not None:
        by = f"this device's calibration {answer.calibration[:12]}" if answer.calibration else "the bundle's own"
        yield "threshold", f"{answer.threshold:.4f}, {by}"
    yield "camera", answer.camera or "none"
    if answer.wire_connected is not None:
        yield "PLC", "connected" if answer.wire_connected else "not connected"
    yield "parts", f"{counts.triggered} triggered, {counts.in_flight} in flight"
    yield "passed", str(counts.passed)
    yield "rejected", str(counts.rejected)
    yield "rejected without verdict", str(counts.rejected_without_verdict)
    for reason, count in counts.reasons.items():
        if reason not in {judged.value for judged in JUDGED}:
            yield f"  {reason.replace('_', ' ')}", str(count)
    yield "missed triggers", str(counts.missed)
    if (last := answer.last_part) is not None:
        score = "no score" if last.score is None else f"score {last.score:.4f} of {last.threshold or 0:.4f}"
        yield "last part", f"{last.id} at {last.at}: {last.verdict}, {last.reason.replace('_', ' ')}, {score}"
    for name, spread in answer.latencies_ms.items():
        if spread.parts:
            yield name.replace("_", " "), _spread(spread)
    if answer.drift:
        alarms = [drift.alarm for drift in answer.drift.values() if drift.alarm]
        yield from (("drift", alarm) for alarm in alarms or ["none seen"])
    yield "journal", f"{answer.journal_backlog} records wait to be written"


def _spread(spread: Spread) -> str:
    found = (("p50", spread.p50), ("p99", spread.p99), ("max", spread.max))
    values = ", ".join(f"{name} {value:.1f} ms" for name, value in found if value is not None)
    return f"{values} (last {spread.parts} parts)"
