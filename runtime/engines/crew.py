"""Threads that share the work of one image, and the processor that each of them has.

Linux wakes a thread on the processor of the one that gives it work when it takes the others for busy; in a virtual
machine it takes sleeping ones for busy. There the two take turns, at half the speed, until it notices. So where there
are as many threads as processors, each has its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from threading import Barrier
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Crew:
    """The calling thread and others, which exist from the start and sleep between two calls.

    They wait for each other once a call, where a library's own threads wait at every operator.

    Args:
        size: threads, the calling one included.
        processors: see `a_processor_each`.
    """

    def __init__(self, size: int, processors: Sequence[int] = ()) -> None:
        self.size = size
        if size == 1:
            return
        own = iter(processors[1:])
        self._others = ThreadPoolExecutor(size - 1, "crew", initializer=lambda: _keep_to({*islice(own, 1)}))
        everyone = Barrier(size)
        for _ in range(size - 1):
            self._others.submit(everyone.wait)
        everyone.wait()

    def each(self, work: Callable[[S], T], parts: Sequence[S]) -> list[T]:
        """The work of each part, at the same time, in the order of the parts.

        Args:
            work: is called with each part, with the first on the calling thread.
            parts: at least one, at most `size`.

        Raises:
            Exception: what the work of a part raises.
        """
        others = [self._others.submit(work, part) for part in parts[1:]]
        return [work(parts[0]), *(other.result() for other in others)]


def a_processor_each(threads: int) -> list[int]:
    """The processor of each thread, that of the calling one first; none where there are not just as many of them."""
    processors = sorted(os.sched_getaffinity(0))
    return processors if threads == len(processors) > 1 else []


@contextmanager
def on(processors: Sequence[int]) -> Iterator[None]:
    """Keep the calling thread on the first of the processors meanwhile, off those of the threads that it waits for.

    Not at real-time priority, with which Linux moves a thread to a free processor at once, nor where there are none.
    """
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    if not processors or policy in (os.SCHED_FIFO, os.SCHED_RR):
        yield
        return
    before = os.sched_getaffinity(0)
    _keep_to({processors[0]})
    try:
        yield
    finally:
        _keep_to(before)


def _keep_to(processors: set[int]) -> None:
    with suppress(OSError):  # none, or one that was switched off since
        os.sched_setaffinity(0, processors)
