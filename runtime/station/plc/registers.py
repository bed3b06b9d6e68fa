"""The register map: the PLC's and the station's words as 16-bit Modbus registers, both ways (docs/plc.md).

32-bit values take two registers, the high word first; floats are IEEE 754 singles, laid out alike. Ids and counts are
sent modulo 2^32: they wrap.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from lineward.runtime.inspection import Reason
from lineward.runtime.station.plc.handshake import Control, ControlBit, Fault, Offline, Status, StatusBit

MAP_VERSION = 1
CONTROL_ADDRESS, STATUS_ADDRESS = 0, 100

_CONTROL = struct.Struct(">HHIH")
_STATUS = struct.Struct(">6H 3I 2H 2f 7I")
CONTROL_LENGTH, STATUS_LENGTH = _CONTROL.size // 2, _STATUS.size // 2  # in registers

NO_RESULT = 0
REASON_CODES = {  # a code, once given, is never given to another reason
    Reason.WITHIN_THRESHOLD: 1,
    Reason.ABOVE_THRESHOLD: 2,
    Reason.SCORE_INVALID: 3,
    Reason.IMAGE_UNREADABLE: 4,
    Reason.FRAME_MISSING: 5,
    Reason.FRAME_INCOMPLETE: 6,
    Reason.FRAME_UNEXPECTED: 7,
    Reason.CAMERA_LOST: 8,
    Reason.TOO_MANY_PARTS: 9,
    Reason.DEADLINE_MISSED: 10,
    Reason.ENGINE_FAILED: 11,
    Reason.NOT_ACKNOWLEDGED: 12,
    Reason.JOB_CHANGING: 13,
    Reason.JOURNAL_BEHIND: 14,
    Reason.STATION_KILLED: 15,
    Reason.AREA_ABOVE_THRESHOLD: 16,
}
_REASONS = {code: reason for reason, code in REASON_CODES.items()}

_32_BITS = 0xFFFF_FFFF
_CONTROL_BITS = sum(ControlBit)


@dataclass(frozen=True)
class Reading:
    """What a PLC reads of the station, all valid together.

    Attributes:
        bits: what holds now.
        heartbeat: the station's, 16 bits, counts up while it lives.
        fault: the last error, until the PLC clears it.
        offline: why no trigger is taken.
        job: the active job.
        acquisition_id: of the last trigger of the PLC that was taken; 0 before the first.
        inspection_id: trigger id of the result; 0 before the first.
        part: the PLC's own number of the part the result is of.
        reason: of the result; None before the first.
        score: image score; NaN when there is none.
        threshold: image score that still passes; NaN before the first result.
        microseconds: from trigger to the verdict on the wire, 2^32 - 1 at most.
        triggered: parts announced.
        passed: parts told *pass*, for good.
        rejected: parts rejected by their score.
        rejected_without_verdict: parts rejected for want of a verdict.
        missed: triggers of the PLC that were not taken.
        late: inspections that ended too late.
    """

    bits: StatusBit
    heartbeat: int
    fault: Fault
    offline: Offline
    job: int
    acquisition_id: int
    inspection_id: int
    part: int
    reason: Reason | None
    score: float
    threshold: float
    microseconds: int
    triggered: int
    passed: int
    rejected: int
    rejected_without_verdict: int
    missed: int
    late: int


def reading_of(status: Status, heartbeat: int) -> Reading:
    """The station's words as a PLC reads them."""
    result, counts = status.result, status.state.counts
    taken_ns = 0 if result is None else max(0, result.told_ns - result.trigger.monotonic_ns)
    return Reading(
        bits=status.bits,
        heartbeat=heartbeat & 0xFFFF,
        fault=status.fault,
        offline=status.state.offline,
        job=status.state.job,
        acquisition_id=status.acquisition_id & _32_BITS,
        inspection_id=0 if result is None else result.trigger.id & _32_BITS,
        part=0 if result is None else result.trigger.part & _32_BITS,
        reason=None if result is None else result.reason,
        score=math.nan if result is None else result.score,
        threshold=math.nan if result is None else result.threshold,
        microseconds=min(taken_ns // 1000, _32_BITS),
        triggered=counts.triggered & _32_BITS,
        passed=counts.passed & _32_BITS,
        rejected=counts.rejected & _32_BITS,
        rejected_without_verdict=counts.rejected_without_verdict & _32_BITS,
        missed=status.missed & _32_BITS,
        late=counts.late & _32_BITS,
    )


def beat(now_ns: int) -> int:
    """The station's heartbeat at a moment, monotonic nanoseconds: counts up every 100 ms."""
    return now_ns // 100_000_000 & 0xFFFF


def decode_control(words: Sequence[int]) -> Control:
    """The PLC's words out of the control block; bits that have no meaning are not looked at."""
    bits, job, part, heartbeat = _CONTROL.unpack(_bytes(words))
    return Control(ControlBit(bits & _CONTROL_BITS), job, part, heartbeat)


def encode_control(control: Control) -> list[int]:
    """The control block, as a PLC's program writes it."""
    return _words(_CONTROL.pack(control.bits, control.job, control.part & _32_BITS, control.heartbeat & 0xFFFF))


def encode_status(status: Status, heartbeat: int) -> list[int]:
    """The status block: one state of the station, whole."""
    r = reading_of(status, heartbeat)
    reason = NO_RESULT if r.reason is None else REASON_CODES[r.reason]
    return _words(
        _STATUS.pack(
            *(r.bits, r.heartbeat, r.fault, r.offline, r.job, MAP_VERSION),
            *(r.acquisition_id, r.inspection_id, r.part),
            *(reason, 0),
            *(_single(r.score), _single(r.threshold)),
            *(r.microseconds, r.triggered, r.passed, r.rejected, r.rejected_without_verdict, r.missed, r.late),
        )
    )


def decode_status(words: Sequence[int]) -> Reading:
    """What a PLC's program reads in the status block.

    Raises:
        ValueError: it is of another version of the map.
    """
    bits, heartbeat, fault, offline, job, version, *rest = _STATUS.unpack(_bytes(words))
    acquisition_id, inspection_id, part, reason, _, *measured = rest
    if version != MAP_VERSION:
        raise ValueError(f"register map of version {version}, not {MAP_VERSION}")
    return Reading(
        *(StatusBit(bits), heartbeat, Fault(fault), Offline(offline), job, acquisition_id, inspection_id, part),
        *(_REASONS.get(reason), *measured),
    )


def _single(number: float) -> float:
    """A float that a single can hold: what is out of its range becomes infinite, as it does everywhere else."""
    greatest = 3.4028234663852886e38
    return number if abs(number) <= greatest or math.isnan(number) else math.copysign(math.inf, number)


def _bytes(words: Sequence[int]) -> bytes:
    return struct.pack(f">{len(words)}H", *words)


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))
