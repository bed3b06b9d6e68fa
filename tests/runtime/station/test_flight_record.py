from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station import flight_record
from lineward.runtime.station.flight_record import FlightRecord
from lineward.runtime.station.records import PartRecord, Source
from tests.runtime.station.station_samples import BUNDLE, CALIBRATION, part

SLOTS = 64
BEGUN_END = flight_record._BEGUN.size + 4
FINAL_END = flight_record._FINAL_OFFSET + flight_record._FINAL.size + 4


def opened(path: Path) -> FlightRecord:
    return FlightRecord(path, slots=SLOTS)


def recovered(path: Path) -> list[PartRecord]:
    flight = opened(path)
    found = list(flight.recovered())
    flight.close()
    return found


def after_a_kill(path: Path, to: Path) -> list[PartRecord]:
    """What the next process finds: the pages as they are, without a word of farewell."""
    shutil.copy(path, to)
    return recovered(to)


def same(one: PartRecord, other: PartRecord) -> bool:
    return repr(one) == repr(other)  # NaN equals NaN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flight.record"


@pytest.fixture
def flight(path: Path) -> Iterator[FlightRecord]:
    flight = opened(path)
    yield flight
    flight.close()


def test_a_new_record_begins_with_id_1_and_has_nothing_to_recover(flight: FlightRecord) -> None:
    assert (flight.first_id, flight.last_id, list(flight.recovered())) == (1, 0, [])


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_comes_back_as_it_was(flight: FlightRecord, path: Path, tmp_path: Path, reason: Reason) -> None:
    record = part(1, reason, acknowledged_ns=1_030_000_000, calibration=CALIBRATION)
    flight.begin(record.trigger)
    flight.finish(record)
    (found,) = after_a_kill(path, tmp_path / "next")
    assert same(found, record)


@pytest.mark.parametrize("source", Source)
def test_an_unfinished_part_was_killed(flight: FlightRecord, path: Path, tmp_path: Path, source: Source) -> None:
    flight.inspects_with(BUNDLE, 7, 0.4, CALIBRATION)
    trigger = part(1).trigger
    trigger = type(trigger)(1, source, trigger.monotonic_ns, trigger.utc_ns, 2**40)
    flight.begin(trigger)
    (found,) = after_a_kill(path, tmp_path / "next")
    assert same(found, PartRecord(trigger, Reason.STATION_KILLED, 0.4, BUNDLE, 7, calibration=CALIBRATION))
    assert math.isnan(found.score)


def test_a_record_that_was_settled_and_closed_goes_on_with_the_next_id(flight: FlightRecord, path: Path) -> None:
    for number in range(1, 11):
        flight.begin(part(number).trigger)
        flight.finish(part(number))
    flight.settle()
    flight.close()
    again = opened(path)
    assert (again.first_id, list(again.recovered())) == (11, [])
    again.close()


def test_a_part_in_flight_is_never_settled(flight: FlightRecord, path: Path) -> None:
    flight.begin(part(1).trigger)
    flight.settle()
    flight.close()
    again = opened(path)
    assert [record.reason for record in again.recovered()] == [Reason.STATION_KILLED]
    again.close()


def test_ids_go_on_from_the_journals_if_that_knows_greater_ones(flight: FlightRecord) -> None:
    flight.at_least(500)
    assert flight.first_id == 500
    flight.at_least(3)
    assert flight.first_id == 500


def test_a_second_station_with_the_same_folder_is_refused(flight: FlightRecord, path: Path) -> None:
    with pytest.raises(StationError, match="another process runs a station with this folder"):
        opened(path)
    flight.close()
    opened(path).close()


def test_a_folder_is_made_and_one_that_cannot_be_is_a_station_error(tmp_path: Path) -> None:
    opened(tmp_path / "new" / "station" / "flight.record").close()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StationError, match="cannot be locked"):
        opened(tmp_path / "file" / "flight.record")


def test_a_full_disk_is_a_station_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StationError, match="No space left on device") as refused:
        FlightRecord(tmp_path / "flight.record")
    assert "37 MB are needed" in refused.value.do
    assert [path.name for path in tmp_path.iterdir()] == ["flight.record.lock"]


@pytest.mark.parametrize("kept", [0, 1, 50, BEGUN_END - 1, BEGUN_END, BEGUN_END + 1, 150, FINAL_END - 1, FINAL_END])
def test_a_torn_write_is_recognised(flight: FlightRecord, path: Path, tmp_path: Path, kept: int) -> None:
    """Only the first bytes of a slot's last write arrived, over a slot that was used before."""
    first, second = part(1), part(1 + SLOTS)
    flight.begin(first.trigger)
    flight.finish(first)
    before = path.read_bytes()
    flight.begin(second.trigger)
    flight.finish(second)
    after = path.read_bytes()
    offset = 4096 + flight_record._SLOT_SIZE
    torn = tmp_path / "torn"
    torn.write_bytes(before[:offset] + after[offset : offset + kept] + before[offset + kept :])
    found = recovered(torn)
    if kept == 0:
        assert same(found[0], first)
    elif kept < BEGUN_END:  # neither: it was never begun, and nothing happened to the part
        assert found == []
    else:
        (record,) = found
        assert record.trigger == second.trigger
        assert same(record, second) if kept >= FINAL_END else record.reason is Reason.STATION_KILLED


@pytest.mark.parametrize("kept", range(0, 126, 5))
def test_a_torn_final_is_a_killed_part(flight: FlightRecord, path: Path, tmp_path: Path, kept: int) -> None:
    record = part(1)
    flight.begin(record.trigger)
    before = path.read_bytes()
    flight.finish(record)
    after = path.read_bytes()
    start = 4096 + flight_record._SLOT_SIZE + flight_record._FINAL_OFFSET
    torn = tmp_path / "torn"
    torn.write_bytes(after[: start + kept] + before[start + kept :])
    (found,) = recovered(torn)
    assert (found.reason, found.trigger) == (Reason.STATION_KILLED, record.trigger)


DAMAGES = {
    "empty": lambda _: b"",
    "foreign": lambda _: b"a text that someone put here\n" * 3,
    "header cut": lambda data: data[:20],
    "truncated": lambda data: data[:-1000],
    "longer": lambda data: data + bytes(224),
    "header flipped": lambda data: data[:17] + bytes([data[17] ^ 1]) + data[18:],
    "zeroed": lambda data: bytes(len(data)),
}
LEGIBLE = {"truncated", "longer", "header flipped"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_moved_aside_and_what_is_legible_recovered(
    flight: FlightRecord, path: Path, tmp_path: Path, damage: str
) -> None:
    flight.begin(part(1).trigger)
    flight.begin(part(2).trigger)
    flight.finish(part(1))
    changed = DAMAGES[damage](path.read_bytes())
    other = tmp_path / "other" / "flight.record"
    other.parent.mkdir()
    other.write_bytes(changed)
    found = opened(other)
    assert found.damaged is not None
    assert found.damaged.read_bytes() == changed
    reasons = [record.reason for record in found.recovered()]
    assert reasons == ([Reason.WITHIN_THRESHOLD, Reason.STATION_KILLED] if damage in LEGIBLE else [])
    if damage in LEGIBLE:  # and what was not may have had greater ids
        assert found.first_id > 2 + flight_record.BLOCK
    found.begin(part(found.first_id).trigger)
    found.close()


def test_a_file_of_another_size_is_taken_over(flight: FlightRecord, path: Path) -> None:
    flight.begin(part(1).trigger)
    flight.close()
    other = FlightRecord(path, slots=2 * SLOTS)
    assert [record.trigger.id for record in other.recovered()] == [1]
    assert other.first_id > 1
    other.close()


def test_a_half_made_file_is_made_anew(path: Path) -> None:
    path.with_name(f".{path.name}.partial").write_bytes(b"half")
    flight = opened(path)
    assert flight.damaged is None
    flight.close()


STEPS = st.lists(st.sampled_from(["begin", "begin", "finish", "kill", "close", "power cut"]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, data=st.data())
def test_whatever_happens_ids_are_new_and_parts_are_accounted_for(steps: list[str], data: st.DataObject) -> None:
    """A power cut keeps the header that was synced, and of the parts what it likes: here, nothing."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(flight_record, "BLOCK", 8)
        path = Path(folder) / "0"
        flight = opened(path)
        next_id, greatest = flight.first_id, 0
        open_ids: list[int] = []
        finished: list[int] = []
        for number, step in enumerate(steps, 1):
            if step == "begin":
                flight.begin(part(next_id).trigger)
                flight.reserve()  # the journal's thread, which is much faster than a block of parts
                open_ids.append(next_id)
                greatest, next_id = next_id, next_id + 1
            elif step == "finish" and open_ids:
                finished.append(open_ids.pop(data.draw(st.integers(0, len(open_ids) - 1))))
                flight.finish(part(finished[-1]))
            elif step in ("kill", "close", "power cut"):
                if step == "close" and not open_ids:
                    flight.settle()
                    finished = []
                state = path.read_bytes()
                flight.close()
                if step != "close":
                    header = state[:4096]
                    path = Path(folder) / str(number)
                    path.write_bytes(state if step == "kill" else header + bytes(len(state) - 4096))
                flight = opened(path)
                assert flight.damaged is None
                found = list(flight.recovered())
                killed = [r.trigger.id for r in found if r.reason is Reason.STATION_KILLED]
                others = [r.trigger.id for r in found if r.reason is not Reason.STATION_KILLED]
                if step != "power cut":
                    assert (killed, others) == (sorted(open_ids), sorted(finished))
                assert flight.first_id > greatest
                if step == "close" and not open_ids:
                    assert flight.first_id == max(next_id, 1)
                flight.settle()
                next_id, open_ids, finished = flight.first_id, [], []
        flight.close()
