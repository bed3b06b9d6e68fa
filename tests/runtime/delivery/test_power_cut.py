"""Whenever the power goes, a station starts with the old bundle or the new one, whole and verified."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.power_cuts import TRUST, version
from lineward.runtime.delivery.deployment import Target, deploy
from lineward.runtime.delivery.slots import Slots

ROOT = Path(__file__).parents[3]
# It forks: in a process of its own, which has no threads.
PROGRAM = """
import json, sys; from pathlib import Path; from benchmarks.power_cuts import SEED, run
print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), SEED, lambda _: None)))
"""


@pytest.mark.parametrize("runs", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_at_a_random_instant(tmp_path, runs):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(runs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert min(seen[what] for what in ("in the middle", "torn", "old", "new")) > 0, seen


class CutError(Exception):
    """The power goes."""


class Disk:
    """Notes what reaches the disk and in which order, and goes off at the chosen step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, off_at: int) -> None:
        self.steps: list[tuple[str, str]] = []
        self.off_at = off_at
        self.fsync, self.replace = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", self.sync)
        monkeypatch.setattr(Path, "replace", lambda path, target: self.rename(path, target))

    def sync(self, descriptor: int) -> None:
        self.step("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name)
        self.fsync(descriptor)

    def rename(self, path: Path, target: Path) -> Path:
        self.step("rename", Path(target).name)
        return self.replace(path, target)

    def step(self, what: str, name: str) -> None:
        if len(self.steps) == self.off_at:
            raise CutError
        self.steps.append((what, name))


def offered(folder: Path, number: int) -> tuple[str, Path]:
    sha256, data = version(number)
    path = folder / f"{number}.lineward"
    path.write_bytes(data)
    return sha256, path


def test_cut_at_each_step_of_a_deployment(tmp_path):
    """Not at random, but at every single step between two that reach the disk, until one comes through."""
    old, first = offered(tmp_path, 1)
    new, second = offered(tmp_path, 2)
    for off_at in range(100):
        slots = Slots(tmp_path / f"slots{off_at}")
        deploy(Target(slots, "desk", TRUST), first, lambda _: None)
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = Disk(monkeypatch, off_at)
            try:
                deploy(Target(slots, "desk", TRUST), second, lambda _: None)
                cut = False
            except CutError:
                cut = True
        active = slots.read().active
        slots.bundle(active, TRUST)
        renamed = ("rename", "active") in disk.steps
        assert active.sha256 == (new if renamed else old)
        if not cut:
            break
    assert off_at > 10
    check_order(disk.steps, f"2-{new[:12]}.lineward", slots.folder.name)


def check_order(steps: list[tuple[str, str]], bundle: str, folder: str) -> None:
    """What is renamed was written through before, and the folder after, before anything else is renamed."""
    renames = [place for place, (what, _) in enumerate(steps) if what == "rename"]
    names = [steps[place][1] for place in renames]
    assert names[names.index("staged.partial") :] == ["staged.partial", bundle, "active.before", "active", "newest"]
    for place in renames:
        name = steps[place][1]
        before, after = steps[place - 1], steps[place + 1]
        assert name == bundle or (before[0] == "sync" and name in before[1]), f"{name} was not written through"
        assert after == ("sync", folder), f"the folder was not written through after {name}"
