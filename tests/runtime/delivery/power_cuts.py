"""Deploys and rolls back, is killed in the middle, and looks at what a station would start with. Run as a program.

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
import time
from collections import Counter
from pathlib import Path

import msgspec

from lineward.runtime.bundle import decode_bundle, encode_bundle, replace_signatures
from lineward.runtime.delivery.deployment import Target, deploy
from lineward.runtime.delivery.slots import ACTIVE, Slots
from lineward.runtime.station.configuration import Engine
from lineward.runtime.station.jobs import load_from_slots
from lineward.runtime.trust import TrustedKeys
from tests.signers import Signer

ANN = Signer("ann")
TRUST = TrustedKeys(Path("/keys"), (ANN.public,))
TINY = Path(__file__).parents[1] / "data" / "tiny.lineward"


def version(number: int) -> tuple[str, bytes]:
    """The tiny bundle as another version, signed."""
    tiny = decode_bundle(TINY.read_bytes(), "tiny")
    data = encode_bundle(msgspec.structs.replace(tiny.manifest, version=number), tiny.members)
    sha256 = decode_bundle(data, "tiny").sha256
    return sha256, replace_signatures(data, (ANN.sign(sha256),), "tiny")


class Child:
    """Deploys and rolls back until it is killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.slots = Slots(folder / "slots")
        self.offered = folder / "offered.lineward"
        self.random = random.Random(seed)
        self.log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        self.fsync = os.fsync
        os.fsync = self.synced

    def synced(self, descriptor: int) -> None:
        self.fsync(descriptor)
        status = os.fstat(descriptor)
        self.tell("synced", status.st_ino, status.st_size)

    def tell(self, *what: object) -> None:
        os.write(self.log, json.dumps(what).encode() + b"\n")

    def work(self) -> None:
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
    return {path: (path.stat().st_ino, path.stat().st_size) for path in folder.iterdir() if path.is_file()}


def tear(folder: Path, safe: set[tuple[int, int]], chance: random.Random) -> int:
    """Cut off what had not reached the disk; returns how many files that were."""
    torn = [(path, size) for path, (inode, size) in files(folder).items() if size and (inode, size) not in safe]
    for path, size in torn:
        os.truncate(path, chance.randrange(size))
    return len(torn)


def main(folder: Path, runs: int, seed: int) -> None:
    slots, chance, seen = Slots(folder / "slots"), random.Random(seed), Counter[str]()
    _, data = version(1)
    (folder / "offered.lineward").write_bytes(data)
    began = time.monotonic()
    deploy(Target(slots, "desk", TRUST), folder / "offered.lineward", lambda _: None)
    longest = 2 * (time.monotonic() - began)  # until the kill; on this disk
    active = slots.read().active.sha256
    for run in range(runs):
        safe = set(files(slots.folder).values())
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                Child(folder, seed + run).work()
            os._exit(9)  # it ended by itself
        time.sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"run {run}: the child failed"
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
        assert not again, f"run {run}: {again}"
        assert job.bundle.sha256 in allowed, f"run {run}: neither old nor new: {told}"
        state = slots.read()
        assert job.bundle.sha256 == state.active.sha256
        assert (slots.folder / ACTIVE).exists()
        for slot in state.before:
            slots.bundle(slot, TRUST)
        seen["in the middle"] += len(allowed) == 2
        seen["new" if job.bundle.sha256 != active else "old"] += 1
        seen["operations"] += sum(what == "done" for what, *_ in told)
        active = job.bundle.sha256
    print(json.dumps({**seen, "runs": runs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
