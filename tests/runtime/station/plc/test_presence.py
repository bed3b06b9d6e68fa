from __future__ import annotations

import pytest

from lineward.runtime.station.plc.presence import Presence
from tests.runtime.station.plc.stand_ins import MS, FakeClock

CASES = [
    ("hear", [], True),
    ("hear 1999 look", [], True),
    ("hear 2000 look", ["plc_lost"], False),
    ("2000 look", [], False),
    ("2000 look 1999 look", [], False),
    ("look 2000 look", ["plc_lost"], False),
    ("look 2000 look 2000 look", ["plc_lost"], False),
    ("look 2000 look hear", ["plc_lost", "plc_back"], True),
    ("hear lose lose hear hear", ["plc_lost", "plc_back"], True),
    ("hear 1500 hear 1500 look", [], True),
]


@pytest.mark.parametrize(("story", "events", "connected"), CASES)
def test_presence(story: str, events: list[str], connected: bool) -> None:
    clock, heard = FakeClock(), list[str]()
    presence = Presence(lambda name, _: heard.append(name), clock)
    for word in story.split():
        if word == "hear":
            presence.heard("")
        elif word == "lose":
            presence.lost("")
        elif word == "look":
            presence.look()
        else:
            clock.now += int(word) * MS
    assert (heard, presence.connected) == (events, connected)
