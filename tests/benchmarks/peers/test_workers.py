from __future__ import annotations

import os
import time

import pytest

from benchmarks.peers.workers import Call, Contender, Outcome, quartiles, ratios, take_turns


def sleeper(seconds: float) -> Call:
    def call() -> tuple[float, int]:
        time.sleep(seconds)
        return seconds, os.getpid()

    return call


def failing(when: str) -> Call:
    if when == "at once":
        raise ValueError("no such peer")

    def call() -> None:
        raise ValueError("it broke")

    return call


def test_contenders_take_turns_each_in_a_process_of_its_own():
    outcomes = take_turns({"slow": Contender(sleeper, (0.02,)), "fast": Contender(sleeper, (0.001,))}, 3, 2)
    assert [len(outcome.seconds) for outcome in outcomes.values()] == [3, 3]
    assert outcomes["slow"].median > outcomes["fast"].median >= 0.001
    assert [outcome.result[0] for outcome in outcomes.values()] == [0.02, 0.001]
    assert len({os.getpid(), *(outcome.result[1] for outcome in outcomes.values())}) == 3
    assert all(outcome.resident_mib > 1 for outcome in outcomes.values())


@pytest.mark.parametrize(("when", "message"), [("at once", "no such peer"), ("in the call", "it broke")])
def test_a_contender_that_fails_is_named(when: str, message: str):
    with pytest.raises(RuntimeError, match=f"the lame one: ValueError: {message}"):
        take_turns({"the lame one": Contender(failing, (when,))}, 1, 1)


def test_a_multiple_is_of_two_times_of_the_same_round():
    """The machine slows down by a factor of ten in the middle: the multiples do not feel it."""
    ours, theirs = Outcome((1.0, 1.0, 10.0), None, 0.0), Outcome((2.0, 3.0, 40.0), None, 0.0)
    found = ratios({"ours": ours, "theirs": theirs}, "ours")
    assert found == {"ours": [1.0, 1.0, 1.0], "theirs": quartiles([2.0, 3.0, 4.0])}
    assert found["theirs"] == [2.5, 3.0, 3.5]
