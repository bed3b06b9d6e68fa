"""Contenders that take turns, each in a process of its own, so that no one's spinning threads burn another's cores."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
_PATIENCE = 300.0
"""Seconds that a contender has to get ready, or to run its turn."""
_PAUSE = 0.1
"""Seconds between two turns: threads of a linear algebra spin on for some 20 ms after its work is done."""

Call = Callable[[], Any]
Make = Callable[..., Call]
"""Makes, in the contender's process, what is timed; a function of a module."""


@dataclass(frozen=True)
class Contender:
    """Someone who takes part.

    Attributes:
        make: makes what is timed.
        arguments: of `make`.
        warm: whether each turn begins with a call that is not timed.
    """

    make: Make
    arguments: tuple[Any, ...] = ()
    warm: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a contender did.

    Attributes:
        seconds: median of each round.
        result: of its first call.
        resident_mib: memory of its process after its last turn.
    """

    seconds: tuple[float, ...]
    result: Any
    resident_mib: float

    @property
    def median(self) -> float:
        """Over the rounds, in seconds."""
        return statistics.median(self.seconds)


class Worker:
    """A contender in its process, asleep unless it is its turn."""

    def __init__(self, name: str, contender: Contender) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender), name=name, daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> Any:
        """Wait until it is ready; the result of its first call."""
        return self._answer()

    def run(self, calls: int) -> float:
        """The median of the seconds of some calls."""
        self._connection.send(calls)
        return float(self._answer())

    def end(self) -> float:
        """End the process; the memory that it had, in MiB."""
        self._connection.send(0)
        resident = float(self._answer())
        self._process.join()
        return resident

    def _answer(self) -> Any:
        if not self._connection.poll(_PATIENCE):
            self._process.kill()
            raise RuntimeError(f"{self.name}: no answer in {_PATIENCE:.0f} s")
        kind, value = self._connection.recv()
        if kind == "error":
            raise RuntimeError(f"{self.name}: {value}")
        return value


def take_turns(contenders: Mapping[str, Contender], rounds: int, calls: int) -> dict[str, Outcome]:
    """Time all contenders, round by round, in another order each time.

    Args:
        contenders: by name.
        rounds: how often each has its turn.
        calls: timed in a turn.

    Raises:
        RuntimeError: one failed, or gave no answer.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    workers = {name: Worker(name, contender) for name, contender in contenders.items()}
    results = {name: worker.ready() for name, worker in workers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    order = np.random.RandomState(0)
    for _ in range(rounds):
        for name in order.permutation(list(workers)):
            time.sleep(_PAUSE)
            seconds[name].append(workers[name].run(calls))
    return {name: Outcome(tuple(seconds[name]), results[name], w.end()) for name, w in workers.items()}


def ratios(outcomes: Mapping[str, Outcome], ours: str) -> dict[str, list[float]]:
    """Each contender's seconds as multiples of ours in the same round: lower quartile, median, upper quartile."""
    return {name: quartiles(_divided(outcome.seconds, outcomes[ours].seconds)) for name, outcome in outcomes.items()}


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(v) for v in np.quantile(np.array(values), [0.25, 0.5, 0.75])]


def _divided(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def _serve(connection: Connection, contender: Contender) -> None:
    try:
        call = contender.make(*contender.arguments)
        connection.send(("ready", call()))
        while calls := connection.recv():
            connection.send(("seconds", _median_of(call, calls, contender.warm)))
        connection.send(("resident", _resident_mib()))
    except Exception as error:
        connection.send(("error", f"{type(error).__name__}: {error}"))


def _median_of(call: Call, calls: int, warm: bool) -> float:
    if warm:
        call()
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(facts["VmRSS"].split()[0]) / 1024
