from __future__ import annotations

from collections.abc import Callable

import pytest

from lineward.runtime.inspection import Reason
from lineward.runtime.station.plc.handshake import Fault, Offline, StatusBit, Terms
from tests.runtime.station.plc.stand_ins import MS, Desk, FakeClock, control

DEADLINE, ACKNOWLEDGE = 50, 1000  # ms
TERMS = Terms(DEADLINE * MS, acknowledge_within_ns=ACKNOWLEDGE * MS, waiting_results=2)


class Talk(Desk):
    """A conversation on a fake clock."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.clock = FakeClock()
        super().__init__(terms, self.clock)

    def wait(self, milliseconds: float) -> int | None:
        self.clock.now += int(milliseconds * MS)
        return self.handshake.tick()

    @property
    def said(self) -> str:
        """The bits that are up, without those that follow from the line."""
        shown = self.handshake.status().bits & ~(StatusBit.ONLINE | StatusBit.BUSY | StatusBit.INSPECTION_COMPLETED)
        return " ".join(bit.name or "" for bit in StatusBit if shown & bit)


Step = Callable[[Talk], None]


def plc(names: str = "", **words: int) -> Step:
    return lambda talk: talk.handshake.control(control(names, **words))


def tell(*verdicts: bool) -> Step:
    def step(talk: Talk) -> None:
        for good in verdicts:
            talk.tell(good)

    return step


def wait(milliseconds: float) -> Step:
    def step(talk: Talk) -> None:
        talk.wait(milliseconds)

    return step


def late(milliseconds: float) -> Step:
    """Time passes, and nobody looks at the clock."""

    def step(talk: Talk) -> None:
        talk.clock.now += int(milliseconds * MS)

    return step


def says(bits: str, inspection: int = 0, fault: Fault = Fault.NONE) -> Step:
    def step(talk: Talk) -> None:
        status = talk.handshake.status()
        assert (talk.said, status.fault) == (bits, fault)
        assert (status.result.trigger.id if status.result else 0) == inspection

    return step


def final(**reasons: str) -> Step:
    """The parts that are final, as p1="within_threshold"."""

    def step(talk: Talk) -> None:
        assert talk.line.final_reasons == {int(part[1:]): Reason(reason) for part, reason in reasons.items()}

    return step


def job_changed(fault: Fault | None = None) -> Step:
    return lambda talk: talk.handshake.job_changed(fault)


def withdraw(talk: Talk) -> None:
    talk.handshake.withdraw()


def busy(talk: Talk) -> None:
    talk.line.ready = False


OVERRUN, UNHEARD = Fault.RESULTS_OVERRUN, Fault.NOT_ACKNOWLEDGED
CASES: dict[str, list[Step]] = {
    "a pass is acknowledged": [
        *[tell(True), says("RESULTS_VALID PASS", 1), final()],
        *[plc("RESULTS_ACK"), says("PASS", 1), final(p1="within_threshold")],
        *[plc(), says("PASS", 1)],
    ],
    "a reject is acknowledged": [
        *[tell(False), says("RESULTS_VALID REJECT", 1)],
        *[plc("RESULTS_ACK"), plc(), says("REJECT", 1), final(p1="above_threshold")],
    ],
    "a pass that is not acknowledged becomes a reject": [
        *[tell(True), wait(ACKNOWLEDGE - 1), says("RESULTS_VALID PASS", 1), final()],
        *[wait(1), says("REJECT ERROR", 1, UNHEARD), final(p1="not_acknowledged")],
    ],
    "an acknowledgement comes too late, before anyone looked at the clock": [
        *[tell(True), late(ACKNOWLEDGE), plc("RESULTS_ACK")],
        *[says("REJECT ERROR", 1, UNHEARD), final(p1="not_acknowledged")],
    ],
    "an acknowledgement comes after the withdrawal": [
        *[tell(True), wait(ACKNOWLEDGE), plc("RESULTS_ACK"), says("REJECT ERROR", 1, UNHEARD)],
        *[plc(), tell(True), says("RESULTS_VALID PASS ERROR", 2, UNHEARD), final(p1="not_acknowledged")],
    ],
    "an acknowledgement of a withdrawn result answers the one shown since": [
        *[tell(True), late(ACKNOWLEDGE - 10), tell(True), wait(10), says("RESULTS_VALID PASS ERROR", 2, UNHEARD)],
        *[plc("RESULTS_ACK"), says("PASS ERROR", 2, UNHEARD), final(p1="not_acknowledged", p2="within_threshold")],
    ],
    "an acknowledgement that was up already is none": [
        *[plc("RESULTS_ACK"), tell(True), says("", 0), plc(), says("RESULTS_VALID PASS", 1), final()],
    ],
    "the next result waits until the acknowledgement is taken back": [
        *[tell(True, False), says("RESULTS_VALID PASS", 1), plc("RESULTS_ACK"), says("PASS", 1)],
        *[plc(), says("RESULTS_VALID REJECT", 2), final(p1="within_threshold")],
    ],
    "a result that waited over its deadline is no pass": [
        *[tell(True, True), wait(DEADLINE), plc("RESULTS_ACK"), plc(), says("RESULTS_VALID PASS", 2)],
        *[plc("RESULTS_ACK"), plc(), tell(True, True), wait(DEADLINE + 1), plc("RESULTS_ACK"), plc()],
        *[says("RESULTS_VALID REJECT", 4), plc("RESULTS_ACK")],
        final(p1="within_threshold", p2="within_threshold", p3="within_threshold", p4="deadline_missed"),
    ],
    "results beyond those that may wait are rejected, and said so until cleared": [
        *[tell(True, True, True, True), says("RESULTS_VALID RESULTS_OVERRUN PASS ERROR", 1, OVERRUN)],
        *[final(p4="not_acknowledged"), plc("CLEAR_ERROR"), says("RESULTS_VALID PASS", 1)],
    ],
    "waiting results are given up when the PLC never takes its acknowledgement back": [
        *[tell(True, True), plc("RESULTS_ACK"), wait(DEADLINE + ACKNOWLEDGE - 1), final(p1="within_threshold")],
        *[wait(1), says("PASS ERROR", 1, UNHEARD), final(p1="within_threshold", p2="not_acknowledged")],
    ],
    "a trigger is taken, and acknowledged until it falls": [
        *[plc("TRIGGER_ENABLE"), says("TRIGGER_READY")],
        *[plc("TRIGGER_ENABLE TRIGGER", part=7), says("TRIGGER_READY TRIGGER_ACK")],
        *[plc("TRIGGER_ENABLE TRIGGER", part=8), says("TRIGGER_READY TRIGGER_ACK")],
        *[plc("TRIGGER_ENABLE", part=8), says("TRIGGER_READY")],
    ],
    "a trigger without enable is missed, until one is taken": [
        *[plc("TRIGGER"), says("MISSED_ACQUISITION"), plc("TRIGGER_ENABLE"), says("TRIGGER_READY MISSED_ACQUISITION")],
        *[plc("TRIGGER_ENABLE TRIGGER"), says("TRIGGER_READY TRIGGER_ACK")],
    ],
    "a trigger that a busy line does not take is missed, until cleared": [
        *[busy, plc("TRIGGER_ENABLE TRIGGER"), says("MISSED_ACQUISITION")],
        *[plc("TRIGGER_ENABLE CLEAR_ERROR"), says("")],
    ],
    "acknowledgement and trigger in one write": [
        *[tell(True), plc("TRIGGER_ENABLE TRIGGER RESULTS_ACK"), says("TRIGGER_READY TRIGGER_ACK PASS", 1)],
        final(p1="within_threshold"),
    ],
    "a job is changed": [
        *[plc("JOB_CHANGE", job=2), says(""), job_changed(), says("JOB_CHANGE_ACK"), plc(), says("")],
    ],
    "a job that is not there": [
        *[plc("JOB_CHANGE", job=9), says("JOB_CHANGE_FAILED ERROR", 0, Fault.JOB_UNKNOWN)],
        *[plc(), says("ERROR", 0, Fault.JOB_UNKNOWN), plc("CLEAR_ERROR"), says("")],
    ],
    "a job that is refused": [
        plc("JOB_CHANGE", job=2),
        *[job_changed(Fault.JOB_REFUSED), says("JOB_CHANGE_FAILED ERROR", 0, Fault.JOB_REFUSED)],
    ],
    "the answer to a change that the PLC has given up is not the answer to its next": [
        *[plc("JOB_CHANGE", job=2), plc(), job_changed(), says(""), plc("JOB_CHANGE", job=1), says("")],
    ],
    "the end of a first change does not answer a second that was refused": [
        *[plc("JOB_CHANGE", job=2), plc(), plc("JOB_CHANGE", job=9), job_changed()],
        says("JOB_CHANGE_FAILED ERROR", 0, Fault.JOB_UNKNOWN),
    ],
    "the station stops": [
        *[tell(True, True), withdraw, says("REJECT ERROR", 1, UNHEARD)],
        *[final(p1="not_acknowledged", p2="not_acknowledged"), tell(True), says("REJECT ERROR", 1, UNHEARD)],
        final(p1="not_acknowledged", p2="not_acknowledged", p3="not_acknowledged"),
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_a_conversation(name: str) -> None:
    talk = Talk()
    for step in CASES[name]:
        step(talk)


def test_without_acknowledgement_a_result_is_final_at_once_and_stays() -> None:
    talk = Talk(Terms(DEADLINE * MS, acknowledge=False))
    talk.tell(True)
    assert (talk.said, talk.line.final_reasons) == ("RESULTS_VALID PASS", {1: Reason.WITHIN_THRESHOLD})
    assert talk.wait(10 * ACKNOWLEDGE) is None
    talk.tell(False)
    assert talk.said == "RESULTS_VALID REJECT"
    talk.handshake.withdraw()
    assert talk.line.final_reasons == {1: Reason.WITHIN_THRESHOLD, 2: Reason.ABOVE_THRESHOLD}


def test_a_verdict_told_after_its_deadline_is_no_pass() -> None:
    talk = Talk()
    trigger = talk.line.announce()
    talk.clock.now += DEADLINE * MS + 1
    talk.tell(True, trigger)
    result = talk.handshake.status().result
    assert talk.said == "RESULTS_VALID REJECT"
    assert result is not None
    assert (result.reason, result.told_ns) == (Reason.DEADLINE_MISSED, talk.clock.now)


def test_inspection_completed_toggles_with_each_result() -> None:
    talk = Talk()
    seen = [bool(talk.handshake.status().bits & StatusBit.INSPECTION_COMPLETED)]
    for _ in range(3):
        talk.tell(True)
        talk.handshake.control(control("RESULTS_ACK"))
        talk.handshake.control(control())
        seen.append(bool(talk.handshake.status().bits & StatusBit.INSPECTION_COMPLETED))
    assert seen == [False, True, False, True]


def test_bits_that_follow_from_the_line() -> None:
    talk = Talk()
    bits = lambda: talk.handshake.status().bits  # noqa: E731
    assert bits() == StatusBit.ONLINE
    talk.handshake.control(control("TRIGGER_ENABLE"))
    assert bits() == StatusBit.ONLINE | StatusBit.TRIGGER_READY
    talk.line.ready, talk.line.acquiring = False, True
    talk.line.announce()
    assert bits() == StatusBit.ONLINE | StatusBit.ACQUIRING | StatusBit.BUSY
    talk.line.acquiring, talk.line.offline = False, Offline.CAMERA_LOST
    assert bits() == StatusBit.BUSY


def test_the_trigger_carries_the_plcs_part() -> None:
    talk = Talk()
    talk.handshake.control(control("TRIGGER_ENABLE TRIGGER", part=4711))
    assert talk.line.announced[0].part == 4711
    assert talk.handshake.status().acquisition_id == talk.line.announced[0].id


def test_a_silent_plc_takes_the_station_offline_until_it_speaks() -> None:
    talk = Talk(Terms(DEADLINE * MS, heartbeat_within_ns=200 * MS))
    talk.wait(199)
    talk.handshake.control(control(heartbeat=1))
    talk.wait(199)
    assert talk.line.silences == []
    talk.handshake.control(control("TRIGGER_ENABLE", heartbeat=1))  # a word, but no heartbeat
    talk.wait(1)
    talk.wait(500)
    assert talk.line.silences == [True]
    assert talk.handshake.status().fault is Fault.PLC_SILENT
    talk.handshake.control(control(heartbeat=2))
    assert talk.line.silences == [True, False]
    talk.wait(200)
    assert talk.line.silences == [True, False, True]


def test_tick_says_when_to_come_again() -> None:
    talk = Talk(Terms(DEADLINE * MS, acknowledge_within_ns=ACKNOWLEDGE * MS, heartbeat_within_ns=5000 * MS))
    start = talk.clock.now
    assert talk.wait(0) == start + 5000 * MS
    talk.tell(True)
    assert talk.wait(0) == start + ACKNOWLEDGE * MS
    talk.tell(True)
    talk.handshake.control(control("RESULTS_ACK"))
    assert talk.wait(0) == start + (DEADLINE + ACKNOWLEDGE) * MS
    assert Talk().wait(0) is None


def test_an_error_is_shown_until_cleared() -> None:
    talk = Talk()
    talk.handshake.report(Fault.CAMERA)
    talk.handshake.control(control("CLEAR_ERROR"))
    assert talk.said == ""
    talk.handshake.report(Fault.ENGINE)  # CLEAR_ERROR is still up: it clears when it rises
    assert talk.said == "ERROR"
