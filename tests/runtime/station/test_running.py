"""Who runs before whom; everything else of a running station is tested in a process of its own."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lineward.runtime.station import running
from lineward.runtime.station.configuration import Configuration, Engine, ReplayCamera
from lineward.runtime.station.real_time import Role, raise_priority


@pytest.fixture
def raised() -> int:
    """The policy of a thread that a part waits for."""
    permitted: list[bool] = []
    probe = threading.Thread(target=lambda: permitted.append(raise_priority(Role.DECISION)))
    probe.start()
    probe.join()
    if not permitted[0]:
        pytest.skip("needs CAP_SYS_NICE, for real-time priorities")
    return os.SCHED_FIFO | os.SCHED_RESET_ON_FORK


@pytest.mark.parametrize("engine", ["cpu", "cuda"])
def test_an_inspection_waits_for_the_workers_of_an_engine_on_the_cpu_alone(
    engine: str, raised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    worker = threading.Thread(target=ended.wait)
    monkeypatch.setattr(running, "load_job", lambda *_: worker.start())
    configuration = Configuration(
        name="a",
        folder=Path("state"),
        deadline=0.1,
        camera=ReplayCamera(images=()),
        engine=Engine(name=engine),
        jobs={1: Path("part.lineward")},
    )
    running._load(configuration, 1, lambda *_: None)
    try:
        assert worker.native_id is not None
        assert os.sched_getscheduler(worker.native_id) == (raised if engine == "cpu" else os.SCHED_OTHER)
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    finally:
        ended.set()
        worker.join()
