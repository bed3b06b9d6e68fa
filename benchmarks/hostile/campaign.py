"""Gives hostile bundles to devices, notes what each used, and judges what became of every single one."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.hostile.attacks import ATTACKS, Expected, make_bundle
from benchmarks.hostile.contents import OUTSIDE, outside_file
from benchmarks.hostile.material import TRUST, Material, make_material
from lineward.runtime.public_key import encode_public_key
from lineward.runtime.trust import REVOKED

EXTRA_MEMORY = 1 << 30
"""Address space that a device gets beyond what it had after a good bundle, in bytes."""
LONGEST = 20.0
"""Seconds after which a device is killed, and that is a finding."""
ALLOWED_MEMORY = 256 << 20
"""Resident memory that one bundle may cost beyond a good one, in bytes."""
_ROOT = Path(__file__).parents[2]


@dataclass
class Tally:
    """What became of one kind.

    Attributes:
        outcomes: how many were refused with which error, or accepted.
        findings: what should not have been, in words.
        distinct: SHA-256 of what was made.
        seconds: the longest that one took, read twice where it was refused.
        memory: the most resident memory beyond a good bundle's, in bytes.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    distinct: set[bytes] = field(default_factory=set)
    seconds: float = 0.0
    memory: int = 0


class DeviceProcess:
    """One device: started anew when it dies."""

    def __init__(self, folder: Path, name: str, material: Material) -> None:
        self.folder, self.material = folder, material
        self.bundle = folder / f"{name}.lineward"
        self.process: subprocess.Popen[str] | None = None
        self.usual = 0

    def take(self, data: bytes) -> tuple[dict[str, Any], int]:
        """What the device answers, and the resident memory that it cost beyond a good bundle."""
        process = self.process
        if process is None or process.poll() is not None:
            process = self.start()
        self.bundle.write_bytes(data)
        proc = Path(f"/proc/{process.pid}")
        (proc / "clear_refs").write_text("5")  # the peak is counted from here
        answer = self._ask(process, LONGEST)
        if answer is None:
            code = process.poll()
            self.close()
            return {"outcome": "hang" if code is None else f"died {code}"}, 0
        return json.loads(answer), _peak(proc) - self.usual

    def start(self) -> subprocess.Popen[str]:
        """Start it, anew if it had died, and let it read the good bundle."""
        self.close()
        words = ["-m", "benchmarks.hostile.device", str(self.folder / "keys"), str(EXTRA_MEMORY)]
        places = {"TMPDIR": str(self.folder / "tmp"), "HOME": str(self.folder / "home")}
        self.process = subprocess.Popen(
            [sys.executable, "-B", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.folder / "here",
            env={**os.environ, **places, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])},
        )
        self.bundle.write_bytes(self.material.data)
        self._tell(self.process)
        self._tell(self.process)
        if self._answer(self.process, 60) != "ready\n":
            raise RuntimeError("the device does not start: python -m benchmarks.hostile.device")
        self.usual = _peak(Path(f"/proc/{self.process.pid}"))
        return self.process

    def _ask(self, process: subprocess.Popen[str], seconds: float) -> str | None:
        try:
            self._tell(process)
        except BrokenPipeError:
            return None
        return self._answer(process, seconds)

    def _tell(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        print(self.bundle, file=process.stdin, flush=True)

    def _answer(self, process: subprocess.Popen[str], seconds: float) -> str | None:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        answer = process.stdout.readline() if ready else ""
        if ready and not answer:
            process.wait()
        return answer or None

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def run(folder: Path, numbers: Sequence[int], devices: int = 2) -> Iterator[tuple[str, Tally]]:
    """Give the numbers of every kind to devices; yields each kind when it is done.

    Args:
        folder: an empty one; devices get all they may see of the disk below it.
        numbers: which of each kind.
        devices: how many processes at once.
    """
    material = prepare(folder)
    pool = [DeviceProcess(folder, f"device{number}", material) for number in range(devices)]
    try:
        for device in pool:
            device.start()  # what onnxruntime makes below HOME when it is imported comes of no bundle
        for kind in ATTACKS:
            yield kind, _run_kind(kind, numbers, pool, material)
    finally:
        for device in pool:
            device.close()


def prepare(folder: Path) -> Material:
    """Everything that devices see of the disk."""
    for name in ("keys", "here", "tmp", "home"):
        (folder / name).mkdir(mode=0o755)
    material = make_material(folder)
    outside, _ = outside_file(material.bundle)
    for place in (folder, folder / "here"):
        (place / OUTSIDE).write_bytes(outside)
    for key in TRUST.keys:
        (folder / "keys" / f"{key.name}.pub").write_bytes(encode_public_key(key))
    (folder / "keys" / REVOKED).write_text("".join(f"{fingerprint}\n" for fingerprint in TRUST.revoked))
    for path in (folder / "keys").iterdir():
        path.chmod(0o644)
    return material


def _run_kind(kind: str, numbers: Sequence[int], pool: Sequence[DeviceProcess], material: Material) -> Tally:
    tally, waiting = Tally(), queue.SimpleQueue[int]()
    for number in numbers:
        waiting.put(number)
    failures: list[BaseException] = []

    def work(device: DeviceProcess) -> None:
        try:
            while True:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                before = listing(material.folder)
                data = make_bundle(kind, number, material)
                tally.distinct.add(hashlib.sha256(data).digest())
                answer, memory = device.take(data)
                new = listing(material.folder) - before
                _enter(tally, kind, number, answer | {"new": sorted(new)}, memory)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(device,)) for device in pool]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return tally


def listing(folder: Path) -> set[str]:
    """Every file and folder below, but for the bundles that are handed over."""
    return {str(path) for path in folder.rglob("*") if path.parent != folder}


def _enter(tally: Tally, kind: str, number: int, answer: dict[str, Any], memory: int) -> None:
    outcome = answer["outcome"]
    if outcome == "refused":
        tally.outcomes[answer["error"]] += 1
    else:
        tally.outcomes[f"{outcome}, the same content" if answer.get("same") else outcome] += 1
    tally.seconds = max(tally.seconds, answer.get("seconds", 0.0))
    tally.memory = max(tally.memory, memory)
    tally.findings += [f"{number}: {finding}" for finding in find(ATTACKS[kind].expected, answer, memory)]


def find(expected: Expected, answer: dict[str, Any], memory: int) -> Iterator[str]:
    """What should not have been, in words."""
    outcome = answer["outcome"]
    if outcome not in ("refused", "accepted"):
        yield f"{outcome} {answer.get('error', '')}: {answer.get('what', '')}"
        return
    if outcome == "accepted":
        if expected is Expected.REFUSED or (expected is Expected.REFUSED_OR_SAME and not answer["same"]):
            yield "accepted"
        if not answer["closed"]:
            yield "the verdict does not fail closed"
    else:
        if answer["exit"] != 2:
            yield f"lineward verify ended with {answer['exit']}"
        if answer["traceback"]:
            yield "lineward verify showed a traceback"
        if not (answer["what"] and answer["do"] and answer["says"]):
            yield "an error that does not say what to do"
    yield from (f"outside its bundle: {heard}" for heard in (*answer["heard"], *answer["new"]))
    if memory > ALLOWED_MEMORY:
        yield f"{memory >> 20} MiB of memory"


def _peak(proc: Path) -> int:
    """Peak resident memory since it was last reset, in bytes."""
    line = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10
