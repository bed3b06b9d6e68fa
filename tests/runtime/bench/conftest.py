"""What the tests of a bench need: a clock that nobody waits for, and a record."""

from __future__ import annotations

import msgspec
import pytest

from lineward.runtime.bench.record import FORMAT, Cold, Images, Machine, Record, Run, Sample, State

STAGES = ("decode", "preprocess", "embedding", "similarity", "map", "verdict")


class FakeClock:
    """Time that passes only where a test says so; a sleep may wake late, and looking at the clock may take time."""

    def __init__(self) -> None:
        self.time, self.late, self.tick = 100.0, 0.0, 0.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        self.time += self.tick
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds + self.late

    def work(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def idle() -> State:
    return State(
        load=0.5, clocks={"cpu policy0": 729.6}, temperatures={"tj-thermal": 48.1}, throttling={"oc1 events": 0}
    )


@pytest.fixture(scope="session")
def make_record(idle):
    """A record of runs with given latencies, in seconds, all of them in the embedding; other fields may be changed."""

    def make(runs=None, machine=None, **fields):
        record = Record(
            format=FORMAT,
            created="2026-11-24T12:00:00Z",
            product="bottle",
            bundle="a" * 64,
            engine="cpu",
            threads=None,
            deadline=None,
            images=Images("the bundle's own 2 golden images", 2, "b" * 64, False),
            machine=msgspec.structs.replace(
                Machine(
                    cpu="Arm implementer 0x41, part 0xd42",
                    architecture="aarch64",
                    cores=6,
                    board="NVIDIA Jetson Orin Nano Developer Kit",
                    gpu="",
                    governor="schedutil",
                    power_mode="15W",
                    system="Linux 5.15.148-tegra",
                    versions={"python": "3.10.12", "onnxruntime": "1.23.2", "numpy": "2.2.6"},
                ),
                **(machine or {}),
            ),
            cold=Cold(0.8, dict.fromkeys(STAGES, 0.01)),
            runs=tuple(make_run(rate, values) for rate, values in (runs or {None: [0.01] * 20}).items()),
        )
        return msgspec.structs.replace(record, **fields)

    def make_run(rate, values):
        samples = tuple(
            Sample(index / (rate or 100), index / (rate or 100), 0.0, (0.0, 0.0, float(value), 0.0, 0.0, 0.0))
            for index, value in enumerate(values)
        )
        return Run(rate, STAGES, samples, idle, idle, None, None, False)

    return make
