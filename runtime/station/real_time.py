"""What Linux can do so that a verdict is not kept waiting: priority, locked memory, a prompt interpreter.

None of it is needed to run; each line that could not be had says what to change for it.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import gc
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SWITCH_INTERVAL = 0.0005
"""Seconds that a Python thread may compute on while another waits for the interpreter's lock. At Python's own 5 ms a
busy thread beside (metrics, MQTT) could keep each verdict waiting for as long as many a deadline allows."""

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14


class Role(enum.IntEnum):
    """What a thread does, and its SCHED_FIFO priority: above all ordinary threads, below the kernel's interrupt threads
    (50), which bring frames and packets."""

    DECISION = 20
    WIRE = 25
    ACQUISITION = 30
    TIMING = 40


@dataclass(frozen=True)
class RealTime:
    """What was obtained and what was not, in words for the log and `lineward status`."""

    obtained: tuple[str, ...]
    missing: tuple[str, ...]


def enter_real_time() -> RealTime:
    """Prepare this process; called once, when everything is loaded and warm.

    Priorities are raised by each thread for itself: see `raise_priority`; here it is found out whether they can be.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    settle_garbage()
    obtained = [
        f"interpreter switches threads within {SWITCH_INTERVAL * 1e3:g} ms",
        "loaded objects out of collections",
    ]
    missing: list[str] = []
    for got, what in (_priority(), _lock_memory()):
        (obtained if got else missing).append(what)
    return RealTime(tuple(obtained), tuple(missing))


def raise_priority(role: Role) -> bool:
    """Give the calling thread the priority of its role; False where that is not permitted.

    Threads and processes that it starts begin with ordinary priority, but those of acquisition: a camera's library
    receives in threads of its own. One thing a priority does not do: the interpreter's lock knows none, so an ordinary
    thread that holds it is waited for.
    """
    return _raise(0, role)


@contextmanager
def raise_what_starts(role: Role) -> Iterator[None]:
    """Give the threads that start within the context, and still run at its end, the priority of a role.

    For the workers of an engine: with ordinary priority, half an inspection waits for whatever else the device does (an
    image being written, a broker, a login): percentile 99 of an inspection was 88 ms in place of 29, simulated on two
    cores.

    They are told from threads that start elsewhere meanwhile by what they inherit: the calling thread is SCHED_BATCH
    within the context, which is an ordinary priority too. What keeps one on a single processor is taken away: Linux
    moves a real-time thread to a free processor at once, and the fair share that it grants ordinary threads on each
    processor (50 ms of a second) would be waited for otherwise.
    """
    before, policy, priority = _threads(), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    marked = _schedule(0, os.SCHED_BATCH, 0)
    try:
        yield
    finally:
        if marked:
            _schedule(0, policy, priority)
    for thread in _threads() - before:
        with suppress(ProcessLookupError):  # it ended meanwhile
            if os.sched_getscheduler(thread) != os.SCHED_BATCH:
                continue
            if _raise(thread, role):
                os.sched_setaffinity(thread, os.sched_getaffinity(0))
            else:
                _schedule(thread, policy, priority)


def settle_garbage() -> None:
    """Take all that is loaded by now out of the garbage collector's sight: after warming up, and after each change of
    job, off the path to the verdict.

    A full collection looks at every object there is: 3 to 7 ms with a bundle, onnxruntime and OpenCV loaded on a
    desktop processor, in the middle of an inspection if it falls so; under 0.01 ms afterwards. The collector stays on,
    since a station runs for months and a cycle that is never freed would grow.
    """
    gc.collect()
    gc.freeze()


def _raise(thread: int, role: Role) -> bool:
    """Of a thread by its number; 0 is the calling one."""
    keeps_to_itself = 0 if role is Role.ACQUISITION else os.SCHED_RESET_ON_FORK
    return _schedule(thread, os.SCHED_FIFO | keeps_to_itself, int(role))


def _schedule(thread: int, policy: int, priority: int) -> bool:
    """False where the system does not do that, whatever it says of why."""
    try:
        os.sched_setscheduler(thread, policy, os.sched_param(priority))
    except OSError:
        return False
    return True


def _threads() -> set[int]:
    return {int(thread.name) for thread in Path("/proc/self/task").iterdir()}


def _priority() -> tuple[bool, str]:
    permitted: list[bool] = []
    probe = threading.Thread(target=lambda: permitted.append(raise_priority(max(Role))))
    probe.start()
    probe.join()
    if permitted[0]:
        return True, f"SCHED_FIFO priorities {min(Role)} to {max(Role)}"
    return False, f"SCHED_FIFO priorities: set LimitRTPRIO={max(Role)} in the systemd unit, or `ulimit -r {max(Role)}`"


def _lock_memory() -> tuple[bool, str]:
    """Keep every page that was touched in memory, so that none is fetched from the disk in the middle of a part.

    Only what was touched, which after warming up is what a part needs: all of it would read every library to its end,
    three times the memory with onnxruntime and gigabytes with CUDA. Not under a limit: what is allocated later counts
    too, and beyond the limit an allocation fails.
    """
    wanted = "memory locked: set LimitMEMLOCK=infinity in the systemd unit, or `ulimit -l unlimited`"
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY and not _has_capability(_CAP_IPC_LOCK):
        return False, wanted
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        return True, "memory locked"
    why = errno.errorcode.get(ctypes.get_errno(), "unknown error")
    return False, f"memory locked: refused ({why}), though permitted; free some memory"


def _has_capability(number: int) -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> number & 1)
