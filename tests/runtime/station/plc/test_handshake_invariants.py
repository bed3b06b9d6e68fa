"""Whatever delays, cuts and restarts lie between them, the PLC passes nothing that the station rejects."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lineward.runtime.inspection import Outcome
from lineward.runtime.station.plc.handshake import Control, ControlBit, StatusBit, Terms
from lineward.runtime.station.plc.registers import (
    STATUS_LENGTH,
    Reading,
    decode_control,
    decode_status,
    encode_control,
    encode_status,
)
from lineward.runtime.station.records import Trigger
from tests.runtime.station.plc.stand_ins import MS, Desk, FakeClock

TERMS = Terms(30 * MS, acknowledge_within_ns=100 * MS, waiting_results=2)
BLANK = [*[0] * 5, 1, *[0] * (STATUS_LENGTH - 6)]


class Plc:
    """A PLC's program: acknowledge what is valid, and take it once RESULTS_VALID is down again."""

    def __init__(self) -> None:
        self.control = Control()
        self.sees: Reading = decode_status(BLANK)
        self.waits_for: int | None = None
        self.passes: list[int] = []
        self.takes: list[tuple[int, bool]] = []  # what it reads then, of whatever part it is

    def scan(self) -> None:
        valid, good = self.sees.bits & StatusBit.RESULTS_VALID, self.sees.bits & StatusBit.PASS
        if self.waits_for is None and valid:
            self.waits_for = self.sees.inspection_id
            self.control = Control(self.control.bits | ControlBit.RESULTS_ACK)
        elif self.waits_for is not None and not valid:
            self.takes.append((self.sees.inspection_id, bool(good)))
            if good and self.sees.inspection_id == self.waits_for:
                self.passes.append(self.waits_for)
            self.give_up()

    def give_up(self) -> None:
        self.waits_for = None
        self.control = Control(self.control.bits & ~ControlBit.RESULTS_ACK)


class DocumentedPlc(Plc):
    """The example of docs/plc.md, line by line, started anew for part after part; it watches no heartbeat."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.part = 0
        self.id = 0
        self.missed = 0
        self.rejects = 0

    def scan(self) -> None:
        s = self.sees
        good = False
        if self.step == 0:
            self.part += 1
            self.step = 10
        if self.step == 10:
            if s.bits & StatusBit.TRIGGER_READY and not s.bits & StatusBit.TRIGGER_ACK:
                self.missed = s.missed
                self._say(ControlBit.TRIGGER, True)
                self.step = 20
        elif self.step == 20:
            if s.bits & StatusBit.TRIGGER_ACK:
                self.id = s.acquisition_id
                self._say(ControlBit.TRIGGER, False)
                self.step = 30
            elif s.missed != self.missed:
                self.step = 90
        elif self.step == 30:
            if s.bits & StatusBit.RESULTS_VALID:
                self._say(ControlBit.RESULTS_ACK, True)
                self.step = 40
        elif not s.bits & StatusBit.RESULTS_VALID:
            self._say(ControlBit.RESULTS_ACK, False)
            if s.inspection_id == self.id:
                good = bool(s.bits & StatusBit.PASS)
                self.step = 90
            else:
                self.step = 30
        if self.step == 90:
            self._end(good)
        self._say(ControlBit.TRIGGER_ENABLE, True)

    def give_up(self) -> None:
        if self.step:
            self._end(False)

    def _end(self, good: bool) -> None:
        self._say(ControlBit.TRIGGER, False)
        self._say(ControlBit.RESULTS_ACK, False)
        self.step = 0
        if good:
            self.passes.append(self.id)
        else:
            self.rejects += 1

    def _say(self, bit: ControlBit, up: bool) -> None:
        bits = self.control.bits | bit if up else self.control.bits & ~bit
        self.control = Control(bits, part=self.part)


class Conversation(RuleBasedStateMachine):
    """Station, wire and PLC, each acting when it likes."""

    plc_class = Plc

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.desk = Desk(TERMS, self.clock)
        self.plc = self.plc_class()
        self.told: list[int] = []
        self.shown: list[int] = []
        self.passes: list[int] = []
        self.takes: list[tuple[int, bool]] = []

    @rule()
    def a_part_comes(self) -> None:
        self.desk.line.announce()

    @property
    def undecided(self) -> list[Trigger]:
        return self.desk.line.announced[len(self.told) :]

    @precondition(lambda self: self.undecided)
    @rule(good=st.sampled_from((True, True, False)))
    def a_verdict_stands(self, good: bool) -> None:
        self.told.append(self.desk.tell(good, self.undecided[0]).id)

    @rule(good=st.sampled_from((True, True, False)))
    def a_part_comes_and_is_judged(self, good: bool) -> None:
        if not self.undecided:
            self.told.append(self.desk.tell(good).id)

    @rule(milliseconds=st.sampled_from((5, 31, 99, 100)), looked=st.sampled_from((True, True, False)))
    def time_passes(self, milliseconds: int, looked: bool) -> None:
        self.clock.now += milliseconds * MS
        if looked:
            self.desk.handshake.tick()

    @rule()
    def the_wire_carries_the_plcs_words(self) -> None:
        self.desk.handshake.control(decode_control(encode_control(self.plc.control)))

    @rule()
    def the_wire_carries_the_stations_words(self) -> None:
        self.plc.sees = decode_status(encode_status(self.desk.handshake.status(), 0))

    @rule()
    def the_plc_sees_and_scans(self) -> None:
        self.the_wire_carries_the_stations_words()
        self.plc.scan()

    @rule()
    def all_is_well_for_one_cycle(self) -> None:
        for _ in range(2):
            self.the_plc_sees_and_scans()
            self.the_wire_carries_the_plcs_words()

    @rule()
    def the_plc_gives_up(self) -> None:
        self.plc.give_up()

    @precondition(lambda self: len(self.told) % 5 == 4)
    @rule()
    def the_plc_restarts(self) -> None:
        self._take_over()
        self.plc = self.plc_class()

    @invariant()
    def what_the_plc_passes_is_passed(self) -> None:
        self._take_over()
        outcomes = {record.trigger.id: record.outcome for record in self.desk.line.finals}
        for part in self.passes:
            assert outcomes.get(part) is Outcome.PASSED
        for part, good in self.takes:
            assert not good or outcomes.get(part) is Outcome.PASSED

    @invariant()
    def nothing_passes_without_acknowledgement(self) -> None:
        for record in self.desk.line.finals:
            assert record.acknowledged_ns or record.outcome is not Outcome.PASSED

    @invariant()
    def results_are_shown_in_order(self) -> None:
        result = self.desk.handshake.status().result
        if result is not None and result.trigger.id not in self.shown[-1:]:
            self.shown.append(result.trigger.id)
        assert self.shown == sorted(self.shown)

    @invariant()
    def no_part_is_final_twice_or_before_it_was_told(self) -> None:
        finals = Counter(record.trigger.id for record in self.desk.line.finals)
        assert all(count == 1 for count in finals.values())
        assert set(finals) <= set(self.told)

    def teardown(self) -> None:
        self.desk.handshake.withdraw()
        assert sorted(record.trigger.id for record in self.desk.line.finals) == self.told
        bits = self.desk.handshake.status().bits
        assert not bits & StatusBit.RESULTS_VALID

    def _take_over(self) -> None:
        self.passes += self.plc.passes
        self.takes += self.plc.takes
        self.plc.passes, self.plc.takes = [], []


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)


class DocumentedConversation(Conversation):
    plc_class = DocumentedPlc


TestDocumentedConversation = DocumentedConversation.TestCase
TestDocumentedConversation.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_the_documented_plc_passes_every_good_part_when_all_is_well() -> None:
    machine = DocumentedConversation()
    assert isinstance(machine.plc, DocumentedPlc)
    for good in (True, True, False, True):
        before = len(machine.told)
        while len(machine.told) == before:
            machine.all_is_well_for_one_cycle()
            machine.time_passes(1, looked=True)
            if machine.undecided:
                machine.a_verdict_stands(good)
        for _ in range(4):
            machine.all_is_well_for_one_cycle()
            machine.time_passes(1, looked=True)
        machine.what_the_plc_passes_is_passed()
    assert machine.passes == [1, 2, 4]
    assert machine.plc.rejects == 1


class HastyPlc(Plc):
    """Takes a pass as soon as it is shown, without waiting for its acknowledgement to be taken."""

    def scan(self) -> None:
        if self.waits_for is None and self.sees.bits & StatusBit.RESULTS_VALID and self.sees.bits & StatusBit.PASS:
            self.passes.append(self.sees.inspection_id)
        super().scan()


def test_a_plc_that_does_not_keep_the_rule_is_found_out() -> None:
    class Hasty(Conversation):
        plc_class = HastyPlc

    machine = Hasty()
    machine.a_part_comes_and_is_judged(True)
    machine.the_plc_sees_and_scans()
    machine.time_passes(100, looked=True)  # its acknowledgement never came
    with pytest.raises(AssertionError):
        machine.what_the_plc_passes_is_passed()
