"""What a simulated PLC knows of its parts, and the report it leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from lineward.runtime.errors import StationError, first_line
from lineward.runtime.inspection import Reason

Fate = Literal["passed", "rejected", "no_result"]


class PlcResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part at the PLC.

    Attributes:
        id: of the inspection.
        part: the PLC's own number of the part, 0 if it gave none.
        fate: what its gate did: "no_result" is a reject for want of a result in time.
        reason: as the station gave it; None without result, or where it was not understood.
        score: as the station gave it; None without one.
        told_us: from trigger to the verdict on the wire, as the station gave it; None without result.
        took_us: from raising TRIGGER to taking the verdict, by the PLC's own clock; None where it did not trigger.
    """

    id: int
    part: int
    fate: Fate
    reason: Reason | None = None
    score: float | None = None
    told_us: int | None = None
    took_us: int | None = None


class PlcReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a simulated PLC leaves behind.

    Attributes:
        results: of every part it knows of, in the order in which their fates were sealed.
        triggered: parts whose trigger was acknowledged; 0 where the camera triggers itself.
        missed: triggers that were not.
        after_reject: results that came for a part after it had been rejected for want of one.
        connections: times it connected.
        scans: requests, each of which wrote the control block and read the status block.
        scan_us_p50: of a scan, from request to answer.
        scan_us_p99: likewise.
        scan_us_max: likewise.
    """

    results: tuple[PlcResult, ...]
    triggered: int
    missed: int
    after_reject: int
    connections: int
    scans: int
    scan_us_p50: float
    scan_us_p99: float
    scan_us_max: float

    def count(self, fate: Fate) -> int:
        """Parts of that fate."""
        return Counter(result.fate for result in self.results)[fate]


def encode_report(report: PlcReport) -> bytes:
    """As JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def read_report(path: Path) -> PlcReport:
    """Read a report.

    Raises:
        StationError: it is not there, or is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlcReport)
    except OSError as error:
        raise StationError(f"{path}: cannot be read ({error.strerror})", do="check that the PLC program ran") from error
    except msgspec.DecodeError as error:
        raise StationError(f"{path}: {first_line(error)}", do="check that the PLC program wrote it") from error


class Books:
    """Keeps one fate for each part: the first that was sealed."""

    def __init__(self) -> None:
        self.results: dict[int, PlcResult] = {}
        self.triggered = 0
        self.missed = 0
        self.after_reject = 0

    def seal(self, result: PlcResult) -> None:
        """The gate has dealt with a part; what comes of it later changes nothing."""
        if self.results.setdefault(result.id, result) is not result:
            self.after_reject += 1
