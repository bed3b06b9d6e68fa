"""Keeps TensorRT plans between starts: a plan takes minutes to build, and fits one TensorRT on one device.

A file is trusted only if its key and the SHA-256 of its plan are the ones asked for; anything else (cut
short, altered, renamed, of another format) counts as absent and is built again. The hash guards against
damage, not against an attacker: a plan is code, so the directory is made for its owner alone.

Builders take turns, in threads and processes alike: one lock for the whole directory, because two builds on
one GPU would spoil each other's kernel timings. Readers take no lock; a plan appears whole, by rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lineward.runtime.atomic_write import replace_file
from lineward.runtime.errors import EngineError

MAGIC = b"lineward plan 1\n"
SUFFIX = ".plan"
LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class PlanKey:
    """Everything that a plan depends on.

    Args:
        graph: SHA-256 of the ONNX file, in hex.
        precision: what the graph computes in, such as `float32`, `float16` or `int8`.
        tensorrt: version of TensorRT, such as `10.3.0`.
        capability: compute capability of the device, such as `8.7`.
        options: the builder options, written out.
    """

    graph: str
    precision: str
    tensorrt: str
    capability: str
    options: str

    @property
    def name(self) -> str:
        """The file's name without suffix: SHA-256 over all fields, in hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CachedPlan:
    """One file of the cache.

    Args:
        path: where it lies.
        size: size of the file, in bytes.
        modified: when it was written, in seconds since 1970.
        key: what it was built for; None when the file is damaged.
    """

    path: Path
    size: int
    modified: float
    key: PlanKey | None


class PlanCache:
    """Plans in one directory.

    Args:
        directory: made when it is first written to; `default_directory()` if not given.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_directory()

    def plan(self, key: PlanKey, build: Callable[[], bytes]) -> bytes:
        """The plan for a key, built and stored if there is no sound one.

        Raises:
            EngineError: the directory cannot be written, or `build` raised it.
        """
        found = self.load(key)
        if found is not None:
            return found
        with self._turn():
            found = self.load(key)  # another builder may have been faster
            if found is None:
                found = build()
                self._store(key, found)
            return found

    def load(self, key: PlanKey) -> bytes | None:
        """The stored plan for a key; None when absent or damaged."""
        entry = _read(self._path(key))
        return entry[1] if entry and entry[0] == key else None

    def renew(self, key: PlanKey, build: Callable[[], bytes]) -> bytes:
        """Builds and stores the plan for a key whatever is stored; that stays if the build fails.

        Raises:
            EngineError: the directory cannot be written, or `build` raised it.
        """
        with self._turn():
            plan = build()
            self._store(key, plan)
            return plan

    def entries(self) -> list[CachedPlan]:
        """All plans, oldest first; damaged files have no key."""
        return sorted(self._files(), key=lambda entry: (entry.modified, entry.path))

    def prune(self, keep: Callable[[PlanKey], bool]) -> list[CachedPlan]:
        """Deletes damaged files and every plan whose key `keep` refuses; returns what was deleted.

        Raises:
            EngineError: the directory cannot be written.
        """
        if not self.directory.is_dir():
            return []
        with self._turn():
            doomed = [entry for entry in self.entries() if entry.key is None or not keep(entry.key)]
            for entry in doomed:
                entry.path.unlink(missing_ok=True)
            for leftover in self.directory.glob("*.partial"):
                leftover.unlink(missing_ok=True)
        return doomed

    def _path(self, key: PlanKey) -> Path:
        return self.directory / (key.name + SUFFIX)

    def _files(self) -> Iterator[CachedPlan]:
        for path in self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status, entry = path.stat(), _read(path)
                key = entry[0] if entry and path == self._path(entry[0]) else None
                yield CachedPlan(path, status.st_size, status.st_mtime, key)

    def _store(self, key: PlanKey, plan: bytes) -> None:
        with self._writing():
            replace_file(self._path(key), _header(key, plan) + plan)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits for, then holds, the directory's lock; the system drops it if the process dies."""
        with self._writing():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.directory / "lock").open("wb")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EngineError(
                f"The plan cache {self.directory} cannot be written: {error.strerror or error}",
                do="Free space, fix the owner, or set XDG_CACHE_HOME to a directory that can be written.",
            ) from error


def default_directory() -> Path:
    """`lineward/plans` under XDG_CACHE_HOME, or under ~/.cache when that is unset or not absolute."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "lineward" / "plans"


def graph_hash(onnx_bytes: bytes) -> str:
    """SHA-256 of a graph, in hex, as `PlanKey.graph` wants it."""
    return hashlib.sha256(onnx_bytes).hexdigest()


def _header(key: PlanKey, plan: bytes) -> bytes:
    fields = {"key": asdict(key), "sha256": hashlib.sha256(plan).hexdigest()}
    return MAGIC + json.dumps(fields, sort_keys=True).encode() + b"\n"


def _read(path: Path) -> tuple[PlanKey, bytes] | None:
    """Key and plan of a file; None when absent, unreadable or damaged."""
    try:
        with path.open("rb") as file:
            if file.readline(len(MAGIC)) != MAGIC:
                return None
            fields = json.loads(file.readline(LONGEST_HEADER))
            plan = file.read()
        key = PlanKey(**fields["key"])
        return (key, plan) if hashlib.sha256(plan).hexdigest() == fields["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
