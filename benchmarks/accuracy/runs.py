"""One system, one category, one seed: measured once and kept on disk, so that a benchmark goes on where it stopped.

What is kept is found again only by the same data, setting, system, seed, package versions and code, so no result
outlives a change of what it depends on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.accuracy.material import Material, Setting
from benchmarks.accuracy.measure import Figures, measure
from benchmarks.accuracy.systems import System
from benchmarks.results_file import machine
from lineward.export.backbones import sha256_of
from lineward.export.datasets import Dataset
from lineward.export.training import Progress
from lineward.runtime.atomic_write import replace_file

_ROOT = Path(__file__).parents[2]
_CODE = ("benchmarks/accuracy/material.py", "benchmarks/accuracy/measure.py", "benchmarks/accuracy/systems",
         "calibration", "export", "runtime")  # fmt: skip
"""Source files, and folders of them, that figures come from."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        data_set: name of the data set.
        category: name of the category.
        system: name of the system.
        seed: of the system's random choices.
        seconds: to learn and to score the test images; backbone features and metrics are not counted.
        figures: how well it did.
        slipped: defective images that were slipped into the training set.
    """

    data_set: str
    category: str
    system: str
    seed: int
    seconds: float
    figures: Figures
    slipped: int = 0

    @property
    def numbers(self) -> dict[str, float | None]:
        """The figures, those in others by dotted names, and the seconds."""
        return {**_flat("", asdict(self.figures)), "seconds": self.seconds}


def run(data_set: str, name: str, system: System, material: Material, seed: int, progress: Progress) -> Run:
    """Let a system learn and score, and measure it."""
    start = time.perf_counter()
    scores = system(material, seed, progress)
    seconds = time.perf_counter() - start
    figures = measure(scores, material.test.samples, material.setting)
    return Run(data_set, material.name, name, seed, seconds, figures, int(material.train.defective.sum()))


def write_run(path: Path, run: Run) -> None:
    """Keep a run; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, msgspec.json.encode(run))


def read_run(path: Path) -> Run:
    """A run that was kept."""
    return msgspec.json.decode(path.read_bytes(), type=Run)


def fingerprint(dataset: Dataset, setting: Setting) -> str:
    """SHA-256 of everything that the figures of a category depend on, but for system and seed."""
    facts = [repr(setting), repr(machine()["versions"]), *map(sha256_of, _code()), *map(sha256_of, dataset.train)]
    for sample in dataset.test:
        facts += [repr((sample.kind, sample.saturations)), *map(sha256_of, (sample.path, *sample.masks))]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def run_path(folder: Path, key: str, data_set: str, category: str, name: str, system: System, seed: int) -> Path:
    """Where a run is kept, by the fingerprint `key` of its category."""
    full = hashlib.sha256(repr((key, data_set, category, name, system, seed)).encode()).hexdigest()
    return folder / f"{full[:32]}.json"


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, float | None]:
    flat: dict[str, float | None] = {}
    for name, value in values.items():
        flat |= _flat(f"{prefix}{name}.", value) if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _code() -> Iterator[Path]:
    for place in (_ROOT / name for name in _CODE):
        yield from sorted(place.rglob("*.py")) if place.is_dir() else [place]
