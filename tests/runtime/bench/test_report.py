from __future__ import annotations

import msgspec
import pytest

from lineward.runtime.bench.compare import compare
from lineward.runtime.bench.record import Energy, State, Tegra
from lineward.runtime.bench.report import CHANGES, change_rows, machine_rows, run_remarks

HOT = State(
    load=2.0,
    clocks={"cpu policy0": 1510.4, "cpu policy4": 729.6, "cpu policy0 max": 1900.0, "17000000.gpu": 918.0},
    temperatures={"cpu-thermal": 60.0, "tj-thermal": 71.25},
    throttling={"oc1 events": 3},
)


@pytest.fixture
def run(make_record):
    """A run at 5/s of two triggers, with other fields."""

    def build(**fields):
        return msgspec.structs.replace(make_record({5.0: [0.01, 0.02]}).runs[0], **fields)

    return build


@pytest.mark.parametrize(
    ("fields", "deadline", "remark"),
    [
        ({}, 0.015, "deadline of 15 ms missed by 1 of 2"),
        ({"interrupted": True}, None, "ended early, after 2 triggers"),
        ({"energy": Energy(3.0, "a sensor")}, None, "energy 1500 mJ an inspection, idle gaps included (a sensor)"),
        ({"after": HOT}, None, "THROTTLED: oc1 events"),
        (
            {"tegra": Tegra(9, {"VDD_IN": 5.263}, {"tj": 51.0, "cpu": 40.0}, (729, 1510), None)},
            None,
            "tegrastats: VDD_IN 5.26 W, CPU 729 to 1510 MHz, at most 51.0 C",
        ),
    ],
)
def test_remarks(run, fields, deadline, remark):
    assert remark in run_remarks(run(**fields), deadline)


def test_a_quiet_run_has_only_its_waking_to_tell(run):
    assert [text.partition(",")[0] for text in run_remarks(run(), None)] == ["the bench's own waking"]
    assert list(run_remarks(run(rate=None), None)) == []


def test_the_machine_before_and_after(make_record):
    record = make_record()
    record = msgspec.structs.replace(record, runs=(msgspec.structs.replace(record.runs[0], after=HOT),))
    rows = dict(machine_rows(record))
    assert rows["clocks"] == "cores 730 to 730 MHz before, cores 730 to 1510 MHz, 17000000.gpu 918 MHz after"
    assert rows["temperature"] == "48.1 C at most (tj-thermal) before, 71.2 C at most (tj-thermal) after"
    assert (rows["governor"], rows["power mode"]) == ("schedutil", "15W")


def test_what_a_system_does_not_tell_is_said(make_record):
    nothing = State(load=0.0, clocks={}, temperatures={}, throttling={})
    record = make_record(machine={"governor": "", "power_mode": "", "board": "", "cpu": ""})
    record = msgspec.structs.replace(
        record, runs=(msgspec.structs.replace(record.runs[0], before=nothing, after=nothing),)
    )
    rows = dict(machine_rows(record))
    for name in ("clocks", "temperature", "throttling", "governor", "power mode"):
        assert rows[name] == "not told by this system"
    assert rows["machine"].startswith("not told, ")


def test_a_comparison_has_a_cell_for_every_column(make_record):
    rows = list(change_rows(compare(make_record(), make_record({None: [0.02] * 20}))))
    assert rows
    assert {len(row) for row in rows} == {len(CHANGES)}
    assert rows[-1] == (
        "back to back",
        "trigger to verdict",
        "p50",
        "10.000",
        "20.000",
        "2.000",
        "2.000 to 2.000",
        "slower",
    )
