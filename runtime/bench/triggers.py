"""The timed loop: triggers back to back, or at absolute times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from lineward.runtime.bench.record import Sample
from lineward.runtime.stages import Stage


class Clock(Protocol):
    """Time as the loop sees it."""

    def now(self) -> float:
        """Seconds that only grow."""

    def sleep(self, seconds: float) -> None:
        """Let other work run; may wake early or late."""


class SystemClock:
    """The machine's monotonic clock.

    It sleeps and never spins: a spinning loop would keep the clocks up that an idle device takes down.
    """

    def now(self) -> float:
        """Seconds that only grow."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let other work run."""
        time.sleep(seconds)


class StageTimes:
    """Hears the stages of one inspection after the other end.

    Attributes:
        seconds: of each stage of the inspection at hand, in the order they ended.
    """

    def __init__(self, clock: Clock) -> None:
        self.seconds: dict[Stage, float] = {}
        self._now, self._last = clock.now, 0.0

    def begin(self) -> float:
        """Begin an inspection, and return the time."""
        self.seconds = {}
        self._last = self._now()
        return self._last

    def __call__(self, stage: Stage) -> None:
        """Note that a stage has ended; of one that comes again in an inspection, the times add up."""
        now = self._now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def run_triggers(
    inspect: Callable[[int], None], times: StageTimes, clock: Clock, count: int, rate: float | None = None
) -> tuple[list[Sample], bool]:
    """Trigger inspections.

    With a rate, trigger k is due k/rate after the first, whatever came before: no drift. Where an inspection still
    runs when the next trigger is due, that one is queued, and its wait counts in its latency; a loop that planned
    from the end of the last one would leave out the triggers that suffer (coordinated omission, Tene, "How NOT to
    Measure Latency", 2013). The time that the sleeping loop takes to wake is no part of a latency.

    Args:
        inspect: inspects for trigger k, and tells `times` of every stage.
        times: hears the stages.
        clock: time.
        count: triggers.
        rate: triggers a second; None: each as soon as the one before is over.

    Returns:
        A sample of each trigger, and whether Ctrl-C ended the run early.
    """
    samples: list[Sample] = []
    begin = ended = clock.now()
    try:
        for index in range(count):
            planned = ended if rate is None else begin + index / rate
            queued_until = max(ended, planned)
            while (wait := planned - clock.now()) > 0:
                clock.sleep(wait)
            start = times.begin()
            inspect(index)
            ended = clock.now()
            # What the loop itself takes between two inspections is not the path's: a queue ends with the one before.
            spent = map(_rounded, times.seconds.values())
            samples.append(
                Sample(
                    _rounded(planned - begin), _rounded(start - begin), _rounded(queued_until - planned), tuple(spent)
                )
            )
    except KeyboardInterrupt:
        return samples, True
    return samples, False


def _rounded(seconds: float) -> float:
    """To the nanosecond: no clock tells more, and a record has thousands of them."""
    return round(seconds, 9)
