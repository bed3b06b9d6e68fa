"""What Linux grants, said for each thing; run in processes of their own, for they change the whole process."""

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from typing import Any

import pytest

from lineward.runtime.station import real_time
from lineward.runtime.station.real_time import (
    RealTime,
    Role,
    enter_real_time,
    raise_priority,
    raise_what_starts,
    settle_garbage,
)

_PROGRAM = """
import gc, json, os, sys, threading
from lineward.runtime.station.real_time import Role, enter_real_time, raise_priority, raise_what_starts
entered = enter_real_time()
found = {}
def look(name):
    raised = raise_priority(Role[name])
    children = []
    child = threading.Thread(target=lambda: children.append(os.sched_getscheduler(0)))
    child.start()
    child.join()
    reset = os.SCHED_RESET_ON_FORK
    found[name] = [raised, os.sched_getscheduler(0) & ~reset, os.sched_getparam(0).sched_priority, children[0] & ~reset]
for name in Role.__members__:
    thread = threading.Thread(target=look, args=(name,))
    thread.start()
    thread.join()
ending, wake = threading.Event(), threading.Event()
def start():
    thread = threading.Thread(target=wake.wait)
    thread.start()
    return thread
elsewhere = threading.Thread(target=lambda: (ending.wait(), others.append(start()), started.set()))
others, started = [], threading.Event()
elsewhere.start()
before = start()
with raise_what_starts(Role.DECISION):
    worker = start()
    brief = threading.Thread(target=int)
    brief.start()
    brief.join()
    ending.set()
    started.wait()
after = start()
policies = {
    name: os.sched_getscheduler(thread.native_id)
    for name, thread in {"before": before, "worker": worker, "elsewhere": others[0], "after": after}.items()
}
wake.set()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
block = bytearray(50 << 20)
print(json.dumps({
    "obtained": entered.obtained, "missing": entered.missing, "threads": found, "main": os.sched_getscheduler(0),
    "locked_kb": int(status["VmLck"].split()[0]), "switch": sys.getswitchinterval(), "frozen": gc.get_freeze_count(),
    "gc": gc.isenabled(), "block": len(block),
    "policies": policies,
}))
"""


_CAP_IPC_LOCK, _CAP_SYS_NICE = 14, 23

_WITH_LIMITS = """
import ctypes, os, resource, sys
priority, memory, capabilities = (int(word) for word in sys.argv[1:4])
try:
    for which, limit in ((resource.RLIMIT_RTPRIO, priority), (resource.RLIMIT_MEMLOCK, memory)):
        resource.setrlimit(which, (limit, limit))
except (ValueError, OSError) as error:
    sys.exit(f"limits: {error}")
if not capabilities:
    for capability in range(64):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: what is executed next has none of them
os.execv(sys.executable, [sys.executable, "-c", sys.argv[4]])
"""
"""Executes a program with limits and, as an ordinary user has it, without capabilities."""

_LITTLE = 8 << 20  # bytes to lock, as an ordinary login has


def enter(priority: int, memory: int, capabilities: bool = False) -> dict[str, Any]:
    words = [str(int(priority)), str(memory), str(int(capabilities)), _PROGRAM]
    done = subprocess.run([sys.executable, "-c", _WITH_LIMITS, *words], capture_output=True, timeout=60, text=True)
    if done.stderr.startswith("limits:"):
        pytest.skip(f"needs CAP_SYS_RESOURCE, to raise limits ({done.stderr.strip()})")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_permission_nothing_fails_and_each_line_says_what_to_do() -> None:
    found = enter(priority=0, memory=_LITTLE)
    missing = " ".join(found["missing"])
    assert "LimitRTPRIO=40" in missing
    assert "LimitMEMLOCK=infinity" in missing
    assert found["threads"] == {role.name: [False, os.SCHED_OTHER, 0, os.SCHED_OTHER] for role in Role}
    assert set(found["policies"].values()) == {os.SCHED_OTHER}
    assert found["locked_kb"] == 0
    assert found["block"] == 50 << 20  # a limit on locked memory must not keep it from allocating
    assert found["switch"] == pytest.approx(0.0005)
    assert found["frozen"]
    assert found["gc"]


def test_with_the_limits_of_a_service_everything_is_obtained() -> None:
    _check_obtained(enter(priority=max(Role), memory=resource.RLIM_INFINITY))


def test_with_capabilities_everything_is_obtained() -> None:
    if not all(real_time._has_capability(capability) for capability in (_CAP_IPC_LOCK, _CAP_SYS_NICE)):
        pytest.skip("needs the capabilities CAP_SYS_NICE and CAP_IPC_LOCK")
    _check_obtained(enter(priority=0, memory=_LITTLE, capabilities=True))


def _check_obtained(found: dict[str, Any]) -> None:
    assert found["missing"] == []
    inherited = {Role.ACQUISITION: os.SCHED_FIFO}  # a camera's library receives in threads of its own
    assert found["threads"] == {
        role.name: [True, os.SCHED_FIFO, int(role), inherited.get(role, os.SCHED_OTHER)] for role in Role
    }
    assert found["main"] == os.SCHED_OTHER  # each thread raises itself and no other
    assert found["policies"] == {
        "before": os.SCHED_OTHER,
        "worker": os.SCHED_FIFO | os.SCHED_RESET_ON_FORK,
        "elsewhere": os.SCHED_OTHER,
        "after": os.SCHED_OTHER,
    }
    assert found["locked_kb"] > 0


def test_a_priority_below_the_greatest_role_is_not_enough() -> None:
    found = enter(priority=Role.ACQUISITION, memory=_LITTLE)
    assert any("LimitRTPRIO=40" in line for line in found["missing"])


def test_roles_are_below_the_kernel_s_interrupts_and_timing_is_first() -> None:
    assert 0 < Role.DECISION < Role.WIRE < Role.ACQUISITION < Role.TIMING < 50


def test_settled_objects_are_not_collected_again() -> None:
    import gc

    try:
        settle_garbage()
        before = gc.get_freeze_count()
        kept: list[list[int]] = [[] for _ in range(1000)]
        settle_garbage()
        assert gc.get_freeze_count() >= before + 1000
        assert len(kept) == 1000
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_lock_that_is_refused_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def mlockall(self, _: int) -> int:
            return -1

    monkeypatch.setattr(real_time.resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(real_time.ctypes, "CDLL", lambda *_, **__: Libc())
    monkeypatch.setattr(real_time.sys, "setswitchinterval", lambda _: None)
    monkeypatch.setattr(real_time, "settle_garbage", lambda: None)
    entered = enter_real_time()
    assert isinstance(entered, RealTime)
    assert any("refused" in line for line in entered.missing)


def test_raising_is_for_the_calling_thread_alone() -> None:
    before = os.sched_getscheduler(0)
    thread = threading.Thread(target=raise_priority, args=(Role.DECISION,))
    thread.start()
    thread.join()
    assert os.sched_getscheduler(0) == before


def test_a_system_without_priorities_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(real_time.os, "sched_setscheduler", refuse)
    assert not raise_priority(Role.WIRE)
    with raise_what_starts(Role.DECISION):
        entered = True
    assert entered
