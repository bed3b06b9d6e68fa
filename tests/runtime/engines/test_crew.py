from __future__ import annotations

import gc
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.engines import crew
from lineward.runtime.engines.crew import Crew, a_processor_each, on

PROCESSORS = sorted(os.sched_getaffinity(0))
several = pytest.mark.skipif(len(PROCESSORS) == 1, reason="needs two processors")


@given(st.integers(1, 5).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))))
def test_every_part_is_done_by_a_thread_of_its_own_and_the_first_by_the_calling_one(size_and_parts: tuple[int, int]):
    size, parts = size_and_parts
    together = threading.Barrier(parts)

    def work(part: int) -> tuple[int, int]:
        together.wait(timeout=30)  # so all parts are under way at the same time
        return part, threading.get_ident()

    done = Crew(size).each(work, range(parts))
    assert [part for part, _ in done] == list(range(parts))
    assert len({thread for _, thread in done}) == parts
    assert done[0][1] == threading.get_ident()


def crews() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("crew")}


def test_the_threads_are_there_from_the_start_and_go_with_the_crew():
    gc.collect()
    before = crews()
    four = Crew(4)
    started = crews() - before
    assert len(started) == 3
    four.each(lambda part: part, range(4))
    assert crews() - before == started
    del four
    gc.collect()
    deadline = time.monotonic() + 30
    while crews() & started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not crews() & started


def test_a_crew_of_one_needs_no_thread():
    before = threading.active_count()
    assert Crew(1).each(lambda part: part + 1, [1]) == [2]
    assert threading.active_count() == before


@pytest.mark.parametrize("failing", range(3))
def test_what_a_part_raises_is_raised_and_the_crew_goes_on(failing: int):
    def work(part: int) -> int:
        if part == failing:
            raise KeyError(part)
        return part

    three = Crew(3)
    with pytest.raises(KeyError, match=str(failing)):
        three.each(work, range(3))
    assert three.each(lambda part: part, range(3)) == [0, 1, 2]


def test_a_processor_each_only_where_there_are_just_as_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2, 7})
    assert {threads: a_processor_each(threads) for threads in range(1, 5)} == {1: [], 2: [], 3: [2, 5, 7], 4: []}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert a_processor_each(1) == []


@several
def test_each_thread_keeps_to_its_processor():
    size = len(PROCESSORS)
    kept = Crew(size, a_processor_each(size)).each(lambda _: os.sched_getaffinity(0), range(size))
    assert kept == [set(PROCESSORS), *({processor} for processor in PROCESSORS[1:])]


@pytest.mark.parametrize("processors", [(), (0, 10**4)], ids=["none", "one that is gone"])
def test_without_a_processor_to_keep_to_a_thread_may_use_all(processors: tuple[int, ...]):
    assert Crew(2, processors).each(lambda _: os.sched_getaffinity(0), range(2)) == [set(PROCESSORS)] * 2


@several
def test_the_calling_thread_is_on_the_first_and_then_where_it_was():
    with on(PROCESSORS):
        assert os.sched_getaffinity(0) == {PROCESSORS[0]}
    assert os.sched_getaffinity(0) == set(PROCESSORS)
    with pytest.raises(KeyError), on(PROCESSORS):
        raise KeyError
    assert os.sched_getaffinity(0) == set(PROCESSORS)


@pytest.mark.parametrize("processors", [[], [10**4, 0]], ids=["none", "one that is gone"])
def test_the_calling_thread_stays_where_it_is(processors: list[int]):
    with on(processors):
        assert os.sched_getaffinity(0) == set(PROCESSORS)


@several
@pytest.mark.parametrize("policy", [os.SCHED_FIFO, os.SCHED_RR])
@pytest.mark.parametrize("flag", [0, os.SCHED_RESET_ON_FORK], ids=["", "reset on fork, as a station sets it"])
def test_at_real_time_priority_the_calling_thread_stays_free(flag: int, policy: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crew.os, "sched_getscheduler", lambda _: policy | flag)
    with on(PROCESSORS):
        assert os.sched_getaffinity(0) == set(PROCESSORS)
