"""Pulses: each within its part's passage through the gate, or not at all."""

import errno
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station.configuration import GpioOutput, Seconds
from lineward.runtime.station.pulses import Change, PulsePlan, Pulses, TooLate
from lineward.runtime.station.records import PartRecord, Source, Trigger

_MS = 1_000_000


def output(after_ms: float = 100, width_ms: float = 20, on: str = "pass", line: int = 0) -> GpioOutput:
    return GpioOutput(
        chip="/dev/gpiochip0",
        line=line,
        on=on,  # type: ignore[arg-type]
        after=Seconds(after_ms / 1e3),
        width=Seconds(width_ms / 1e3),
    )


def record(part: int, trigger_ns: int, passed: bool) -> PartRecord:
    reason = Reason.WITHIN_THRESHOLD if passed else Reason.ABOVE_THRESHOLD
    return PartRecord(Trigger(part, Source.CAMERA, trigger_ns, 0), reason, 0.5, "", 1)


def play(plan: PulsePlan, times_ms: list[float]) -> list[tuple[float, object]]:
    return [(at, what) for at in times_ms for what in plan.due(round(at * _MS))]


def test_a_pass_gets_its_pulse_and_a_reject_none() -> None:
    plan = PulsePlan([output(on="pass"), output(on="reject", line=1)])
    plan.add(record(1, 0, passed=True))
    plan.add(record(2, 50 * _MS, passed=False))
    assert plan.next_ns() == 100 * _MS
    assert play(plan, [99.9, 100, 119.9, 120, 149.9, 150, 170, 999]) == [
        (100, Change(0, True)),
        (120, Change(0, False)),
        (150, Change(1, True)),
        (170, Change(1, False)),
    ]
    assert plan.next_ns() is None


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.WITHIN_THRESHOLD])
def test_only_what_passed_gets_a_pass_pulse(reason: Reason) -> None:
    plan = PulsePlan([output(on="pass"), output(on="reject", line=1)])
    plan.add(PartRecord(Trigger(1, Source.PLC, 0, 0), reason, 0.5, "", 1))
    assert play(plan, [100, 120]) == [(100, Change(1, True)), (120, Change(1, False))]


@pytest.mark.parametrize(
    ("triggers_ms", "expected"),
    [
        ([0, 10], [(100, True), (130, False)]),
        ([0, 20], [(100, True), (140, False)]),
        ([0, 10, 15], [(100, True), (135, False)]),
        ([0, 21], [(100, True), (120, False), (121, True), (141, False)]),
    ],
    ids=["overlap", "touch", "three", "apart"],
)
def test_overlapping_pulses_last_until_the_later_end(
    triggers_ms: list[int], expected: list[tuple[float, bool]]
) -> None:
    plan = PulsePlan([output()])
    for part, at in enumerate(triggers_ms):
        plan.add(record(part, at * _MS, passed=True))
    assert play(plan, list(range(200))) == [(at, Change(0, active)) for at, active in expected]


@pytest.mark.parametrize(
    ("looked_at", "expected"),
    [
        (100.1, [(100.1, Change(0, True)), (120, Change(0, False))]),
        (110, [(110, Change(0, True)), (120, Change(0, False))]),
        (110.1, [(110.1, TooLate(0, 7, round(10.1 * _MS)))]),
        (121, [(121, TooLate(0, 7, 21 * _MS))]),
        (9999, [(9999, TooLate(0, 7, 9899 * _MS))]),
    ],
)
def test_a_late_pulse_ends_in_time_or_is_not_given(looked_at: float, expected: list[object]) -> None:
    plan = PulsePlan([output()])
    plan.add(record(7, 0, passed=True))
    assert play(plan, [looked_at, 120, 140, 10000]) == expected


parts = st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=30)
looks = st.lists(st.integers(0, 40), min_size=1, max_size=60)


@given(parts, looks, st.integers(1, 40))
def test_an_output_is_active_only_while_a_part_of_its_verdict_passes(
    parts: list[tuple[int, bool]], pauses: list[int], width: int
) -> None:
    """Whenever the thread comes to look, an output that it left active had a part of its verdict before it just then,
    and each part had its pulse or was told to be too late, not both."""
    plan = PulsePlan([output(100, width)])
    for part, (at, passed) in enumerate(parts):
        plan.add(record(part, at * _MS, passed))
    passing = [at + 100 for at, passed in parts if passed]
    now, active, late = 0, False, 0
    for pause in [*pauses, 1000]:
        now += pause
        for what in plan.due(now * _MS):
            if isinstance(what, Change):
                assert what.active is not active
                active = what.active
            else:
                late += 1
        covering = [begin for begin in passing if begin <= now < begin + width]
        assert not active or covering
    assert not active
    assert plan.next_ns() is None
    assert late <= len(passing)


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 40))
def test_looked_at_in_time_every_pulse_is_whole(triggers: list[int], width: int) -> None:
    plan = PulsePlan([output(100, width)])
    for part, at in enumerate(triggers):
        plan.add(record(part, at * _MS, passed=True))
    active = False
    for now in range(500):
        for what in plan.due(now * _MS):
            assert isinstance(what, Change)
            active = what.active
        assert active == any(at + 100 <= now < at + 100 + width for at in triggers)


class Lines:
    """Outputs that remember, and fail when told to."""

    def __init__(self, fails: bool | None = None) -> None:
        self.changes: list[tuple[int, int, bool]] = []
        self.fails = fails
        self.closed = 0
        self.changed = threading.Event()

    def set(self, output: int, active: bool) -> None:
        if active is self.fails:
            raise OSError(errno.EIO, "Input/output error")
        self.changes.append((time.monotonic_ns(), output, active))
        self.changed.set()

    def close(self) -> None:
        self.closed += 1


class Heard:
    """What a station would hear."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.failures: list[StationError] = []
        self.heard = threading.Event()

    def event(self, name: str, detail: str) -> None:
        self.events.append((name, detail))
        self.heard.set()

    def failed(self, error: StationError) -> None:
        self.failures.append(error)
        self.heard.set()


def pulses_of(outputs: list[GpioOutput], lines: Lines, heard: Heard) -> Pulses:
    return Pulses(outputs, lines, heard.event, heard.failed)


def test_pulses_come_in_time_and_outputs_rest_before_and_after() -> None:
    lines, heard = Lines(), Heard()
    pulses = pulses_of([output(50, 30), output(90, 30, "reject", 1)], lines, heard)
    pulses.start()
    begin = time.monotonic_ns()
    pulses.final(record(1, begin, passed=True))
    pulses.final(record(2, begin, passed=False))
    time.sleep(0.5)
    pulses.stop()
    pulses.stop()
    changes = [(number, active) for _, number, active in lines.changes]
    rest = [(0, False), (1, False)]
    assert changes[:2] == rest
    assert changes[2:-2] == [(0, True), (0, False), (1, True), (1, False)]
    assert changes[-2:] == rest
    times = [at - begin for at, _, _ in lines.changes[2:-2]]
    assert all(due <= at < due + 100 * _MS for at, due in zip(times, (50e6, 80e6, 90e6, 120e6), strict=True))
    assert (heard.events, heard.failures, lines.closed) == ([], [], 1)


def test_a_later_pulse_does_not_keep_an_earlier_one_waiting() -> None:
    lines, heard = Lines(), Heard()
    pulses = pulses_of([output(700, 20), output(30, 20, "reject", 1)], lines, heard)
    pulses.start()
    pulses.final(record(1, time.monotonic_ns(), passed=True))
    pulses.final(record(2, time.monotonic_ns(), passed=False))
    time.sleep(0.4)
    assert [(number, active) for _, number, active in lines.changes[2:]] == [(1, True), (1, False)]
    pulses.stop()


def test_a_stop_gives_what_is_planned_and_rests() -> None:
    lines, heard = Lines(), Heard()
    pulses = pulses_of([output(100, 100)], lines, heard)
    pulses.start()
    begin = time.monotonic_ns()
    for part in range(3):
        pulses.final(record(part, begin + part * 50 * _MS, passed=True))
    pulses.stop()
    assert time.monotonic_ns() - begin >= 300 * _MS
    assert [active for _, _, active in lines.changes] == [False, True, False, False]
    assert lines.closed == 1


def test_a_part_that_has_gone_by_gets_no_pulse() -> None:
    lines, heard = Lines(), Heard()
    pulses = pulses_of([output(50, 20)], lines, heard)
    pulses.start()
    pulses.final(record(41, time.monotonic_ns() - 2_000 * _MS, passed=True))
    assert heard.heard.wait(5)
    pulses.stop()
    assert not any(active for _, _, active in lines.changes)
    ((name, detail),) = heard.events
    assert name == "pulse_too_late"
    assert "part 41" in detail
    assert heard.failures == []


@pytest.mark.parametrize(("fails", "word"), [(True, "set active"), (False, "set inactive")])
def test_an_output_that_cannot_be_driven_is_told(fails: bool, word: str) -> None:
    lines, heard = Lines(fails), Heard()
    pulses = pulses_of([output(1, 20)], lines, heard)
    pulses.start()
    pulses.final(record(1, time.monotonic_ns() + 20 * _MS, passed=True))
    assert heard.heard.wait(5)
    time.sleep(0.1)
    pulses.stop()
    assert heard.events[0][0] == "output_failed"
    assert word in heard.events[0][1]
    assert word in heard.failures[0].what


def test_the_end_of_its_thread_is_told() -> None:
    class Broken(Lines):
        def set(self, output: int, active: bool) -> None:
            if active:
                raise RuntimeError("driver gone mad")
            super().set(output, active)

    heard = Heard()
    pulses = pulses_of([output(1, 20)], Broken(), heard)
    pulses.start()
    pulses.final(record(1, time.monotonic_ns() + 20 * _MS, passed=True))
    assert heard.heard.wait(5)
    pulses.stop()
    assert "driver gone mad" in heard.failures[0].what
