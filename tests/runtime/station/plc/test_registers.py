from __future__ import annotations

import math
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.inspection import Reason
from lineward.runtime.station.ledger import Counts
from lineward.runtime.station.plc.handshake import Control, ControlBit, Fault, LineState, Offline, Status, StatusBit
from lineward.runtime.station.plc.registers import (
    CONTROL_LENGTH,
    MAP_VERSION,
    NO_RESULT,
    REASON_CODES,
    STATUS_LENGTH,
    Reading,
    beat,
    decode_control,
    decode_status,
    encode_control,
    encode_status,
    reading_of,
)
from lineward.runtime.station.records import PartRecord, Source, Trigger

DOCUMENT = Path(__file__).parents[4] / "docs" / "plc.md"

RECORD = PartRecord(
    trigger=Trigger(0x1_0002_0003, Source.PLC, 1_000_000_000, 0, part=0x0004_0005),
    reason=Reason.ABOVE_THRESHOLD,
    threshold=0.5,
    bundle="",
    job=7,
    score=0.75,
    told_ns=1_012_345_678,
)
STATUS = Status(
    bits=StatusBit.ONLINE | StatusBit.RESULTS_VALID | StatusBit.REJECT,
    fault=Fault.CAMERA,
    acquisition_id=0x0006_0007,
    result=RECORD,
    missed=0x0001_0001,
    state=LineState(True, False, Offline.CAMERA_LOST, 7, Counts(10, 4, 3, 2, 1, 0x0009_0008)),
)


def test_every_register_is_where_the_map_says() -> None:
    assert encode_status(STATUS, 0x1_0009) == [
        *(1 | 1 << 7 | 1 << 10, 9, 3, 2, 7, 1),
        *(6, 7, 2, 3, 4, 5),
        *(2, 0),
        *struct.unpack(">4H", struct.pack(">2f", 0.75, 0.5)),
        *divmod(12_345, 0x1_0000),
        *(0, 10, 0, 4, 0, 3, 0, 2, 1, 1, 9, 8),
    ]
    assert encode_control(Control(ControlBit.RESULTS_ACK, 2, 0x0003_0004, 5)) == [4, 2, 3, 4, 5]


def test_a_fresh_station_has_no_result() -> None:
    fresh = Status(StatusBit(0), Fault.NONE, 0, None, 0, LineState(False, False, Offline.STARTING, 0, Counts()))
    words = encode_status(fresh, 0)
    nan = list(struct.unpack(">2H", struct.pack(">f", math.nan)))
    assert words == [0, 0, 0, 1, 0, MAP_VERSION, *[0] * 6, NO_RESULT, 0, *nan, *nan, *[0] * 14]
    assert decode_status(words).reason is None


@pytest.mark.parametrize(
    ("told_ns", "microseconds"),
    [(0, 0), (1_000_000_000, 0), (1_000_001_999, 1), (10**18, 2**32 - 1)],
)
def test_the_time_from_trigger_to_verdict(told_ns: int, microseconds: int) -> None:
    status = replace(STATUS, result=replace(RECORD, told_ns=told_ns))
    assert decode_status(encode_status(status, 0)).microseconds == microseconds


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0, 1.9999])
def test_any_score_can_be_sent(score: float) -> None:
    sent = decode_status(encode_status(replace(STATUS, result=replace(RECORD, score=score)), 0)).score
    expected = math.copysign(math.inf, score) if abs(score) > 1e39 else score
    assert (math.isnan(sent) and math.isnan(expected)) or sent == pytest.approx(expected)


words_16, words_32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)
controls = st.builds(Control, st.integers(0, 31).map(ControlBit), words_16, words_32, words_16)
large = st.integers(0, 2**40)
statuses = st.builds(
    Status,
    bits=st.integers(0, 2**14 - 1).map(StatusBit),
    fault=st.sampled_from(Fault),
    acquisition_id=large,
    result=st.none()
    | st.builds(
        PartRecord,
        trigger=st.builds(Trigger, large, st.sampled_from(Source), large, st.just(0), words_32),
        reason=st.sampled_from(Reason),
        threshold=st.floats(width=32, allow_nan=False),
        bundle=st.just(""),
        job=words_16,
        score=st.floats(width=32, allow_nan=False),
        told_ns=large,
    ),
    missed=large,
    state=st.builds(
        LineState,
        *(st.booleans(), st.booleans(), st.sampled_from(Offline), words_16),
        st.builds(Counts, large, large, large, large, large, large),
    ),
)


@given(controls)
def test_what_a_plc_writes_is_what_the_station_reads(control: Control) -> None:
    words = encode_control(control)
    assert len(words) == CONTROL_LENGTH
    assert decode_control(words) == control


@given(st.lists(words_16, min_size=CONTROL_LENGTH, max_size=CONTROL_LENGTH))
def test_whatever_a_plc_writes_can_be_read(words: list[int]) -> None:
    assert encode_control(decode_control(words)) == [words[0] & 0b11111, *words[1:]]


@given(statuses, st.integers(0, 2**20))
def test_what_the_station_writes_is_what_a_plc_reads(status: Status, heartbeat: int) -> None:
    words = encode_status(status, heartbeat)
    assert len(words) == STATUS_LENGTH
    assert all(0 <= word <= 0xFFFF for word in words)
    assert repr(decode_status(words)) == repr(reading_of(status, heartbeat))  # as text, for NaN equals nothing


def test_ids_wrap_at_32_bits() -> None:
    reading: Reading = reading_of(replace(STATUS, acquisition_id=2**32), 0)
    assert (reading.inspection_id, reading.acquisition_id) == (RECORD.trigger.id - 2**32, 0)


def test_another_version_of_the_map_is_refused() -> None:
    words = encode_status(STATUS, 0)
    words[5] = 2
    with pytest.raises(ValueError, match="version 2"):
        decode_status(words)


def test_the_heartbeat_counts_up_every_100_ms() -> None:
    assert [beat(1_000_000_000 + n * 50_000_000) for n in range(4)] == [10, 10, 11, 11]
    assert beat(0xFFFF * 100_000_000) + 1 == 0x1_0000
    assert beat(0x1_0000 * 100_000_000) == 0


# What a PLC's program was written against: a code that changes its meaning makes it lie.
PINNED_REASONS = {
    1: "within_threshold",
    2: "above_threshold",
    3: "score_invalid",
    4: "image_unreadable",
    5: "frame_missing",
    6: "frame_incomplete",
    7: "frame_unexpected",
    8: "camera_lost",
    9: "too_many_parts",
    10: "deadline_missed",
    11: "engine_failed",
    12: "not_acknowledged",
    13: "job_changing",
    14: "journal_behind",
    15: "station_killed",
}


def test_every_reason_has_one_code_for_ever() -> None:
    assert set(REASON_CODES) == set(Reason)
    assert len(set(REASON_CODES.values())) == len(REASON_CODES)
    codes = {code: reason.value for reason, code in REASON_CODES.items()}
    assert codes.items() >= PINNED_REASONS.items()


def document_rows(heading: str) -> dict[int, str]:
    """Number and name of each row of the table under a heading of docs/plc.md."""
    section = re.split(r"^##+ ", DOCUMENT.read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    rows = re.findall(r"^\| *(\d+) *\| *`(\w+)`", text, flags=re.MULTILINE)
    return {int(number): name for number, name in rows}


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Reasons", {code: reason.value for reason, code in REASON_CODES.items()}),
        ("Offline", {o.value: o.name for o in Offline}),
        ("Faults", {f.value: f.name for f in Fault}),
        ("Control bits", {bit.bit_length() - 1: bit.name for bit in ControlBit}),
        ("Status bits", {bit.bit_length() - 1: bit.name for bit in StatusBit}),
    ],
)
def test_every_code_has_its_row_in_the_document(heading: str, expected: dict[int, str]) -> None:
    assert document_rows(heading) == expected
