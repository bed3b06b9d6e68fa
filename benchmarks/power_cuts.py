"""Deploys and rolls back, is killed in the middle, and looks at what a station would start with: 1,000 times.

    python -m benchmarks.power_cuts [RUNS]

A forked child does the work, so that a kill costs no interpreter's start. What a power cut takes beyond what SIGKILL
does is what had not reached the disk: the child tells of every fsync, and a file of which there was none since it was
written is cut off at a random length, wherever it lies.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.hostile.material import LINE, TINY, TRUST, sign
from benchmarks.results_file import write_results
from lineward.runtime.bundle import decode_bundle, encode_bundle, replace_signatures
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.delivery.deployment import Target, deploy
from lineward.runtime.delivery.slots import ACTIVE, Slots
from lineward.runtime.manifest import encode_manifest
from lineward.runtime.station.configuration import Engine
from lineward.runtime.station.jobs import load_from_slots

SEED = 1


def version(number: int) -> tuple[str, bytes]:
    """The tiny bundle as another version, signed."""
    tiny = decode_bundle(TINY.read_bytes(), "tiny")
    data = encode_bundle(msgspec.structs.replace(tiny.manifest, version=number), tiny.members)
    bundle = decode_bundle(data, "tiny")
    return bundle.sha256, replace_signatures(data, (sign(encode_manifest(bundle.manifest), LINE),), "tiny")


class Child:
    """Deploys and rolls back until it is killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.slots = Slots(folder / "slots")
        self.offered = folder / "offered.lineward"
        self.random = random.Random(seed)
        self.log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        self.fsync = os.fsync
        os.fsync = self.synced  # type: ignore[assignment]

    def synced(self, descriptor: int) -> None:
        """Flush a file, and tell how long it was."""
        self.fsync(descriptor)
        status = os.fstat(descriptor)
        self.tell("synced", status.st_ino, status.st_size)

    def tell(self, *what: object) -> None:
        """Write a line of the log, which a kill does not take."""
        os.write(self.log, json.dumps(what).encode() + b"\n")

    def work(self) -> None:
        """Go on until the kill."""
        while True:
            state = self.slots.read()
            if state.before and self.random.random() < 0.4:
                self.tell("begin", state.before[0].sha256)
                self.slots.go_back("at random")
            else:
                newest = max((entry.version for entry in state.newest), default=0)
                sha256, data = version(newest + 1)
                self.offered.write_bytes(data)
                self.tell("begin", sha256)
                deploy(Target(self.slots, "desk", TRUST), self.offered, lambda _: None)
            self.tell("done")


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Inode and size of each file of a folder."""
    return {path: (path.stat().st_ino, path.stat().st_size) for path in folder.iterdir() if path.is_file()}


def tear(folder: Path, safe: set[tuple[int, int]], chance: random.Random) -> int:
    """Cut off what had not reached the disk; returns how many files that were."""
    torn = [(path, size) for path, (inode, size) in files(folder).items() if size and (inode, size) not in safe]
    for path, size in torn:
        os.truncate(path, chance.randrange(size))
    return len(torn)


def run(folder: Path, runs: int, seed: int, advance: Callable[[int], None]) -> Counter[str]:
    """Kill a child at a random instant, over and over; what was seen, by name.

    Args:
        folder: an empty one.
        runs: how often.
        seed: of the instants, of what is torn, and of what the child does.
        advance: hears how many are done.

    Raises:
        AssertionError: a station would not have started with the old bundle or the new one, whole and verified.
    """
    slots, chance, seen = Slots(folder / "slots"), random.Random(seed), Counter[str]()
    _, data = version(1)
    (folder / "offered.lineward").write_bytes(data)
    began = time.monotonic()
    deploy(Target(slots, "desk", TRUST), folder / "offered.lineward", lambda _: None)
    longest = 2 * (time.monotonic() - began)  # until the kill; on this disk
    active = _active(slots)
    for number in range(runs):
        safe = set(files(slots.folder).values())
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                Child(folder, seed + number).work()
            os._exit(9)  # it ended by itself
        time.sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"run {number}: the child failed"
        log = folder / "log"
        told = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        allowed = {active}
        for what, *values in told:
            if what == "synced":
                safe.add(tuple(values))
            elif what == "begin":
                new = values[0]
                allowed = allowed | {new}
            else:
                allowed = {new}
        seen["torn"] += tear(slots.folder, safe, chance)
        again: list[str] = []
        job = load_from_slots(1, slots, Engine(threads=1), TRUST, again.append)
        assert not again, f"run {number}: {again}"
        assert job.bundle.sha256 in allowed, f"run {number}: neither old nor new: {told}"
        state = slots.read()
        assert job.bundle.sha256 == _active(slots)
        assert (slots.folder / ACTIVE).exists()
        for slot in state.before:
            slots.bundle(slot, TRUST)
        seen["in the middle"] += len(allowed) == 2
        seen["new" if job.bundle.sha256 != active else "old"] += 1
        seen["operations"] += sum(what == "done" for what, *_ in told)
        active = job.bundle.sha256
        advance(number + 1)
    return seen


def _active(slots: Slots) -> str:
    active = slots.read().active
    assert active is not None
    return active.sha256


def main() -> None:
    """Run, and write down what was seen."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ConsoleProgress().step("power cuts", runs) as advance:
        seen = run(Path(scratch), runs, SEED, advance)
    figures = {
        "runs": runs,
        "started_with_a_whole_verified_bundle": seen["old"] + seen["new"],
        "the_old_one": seen["old"],
        "a_new_one": seen["new"],
        "killed_in_the_middle": seen["in the middle"],
        "files_torn": seen["torn"],
        "operations_finished": seen["operations"],
        "run_seconds": round(time.monotonic() - began),
    }
    print(json.dumps(figures))
    write_results("power_cuts", "python -m benchmarks.power_cuts", figures)


if __name__ == "__main__":
    main()
