"""What a search has found, on disk: a search goes on where it stopped, and another budget asks the same table."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lineward.export.backbones import sha256_of
from lineward.export.conversion import FLOAT32
from lineward.export.training import Recipe
from lineward.export.tuning.judges import Panel
from lineward.export.tuning.judging import Judged
from lineward.export.tuning.table import Accuracy, Candidate, Graph, Timing, file_stem
from lineward.runtime.atomic_write import replace_file
from lineward.runtime.bench.machine import read_machine
from lineward.runtime.bench.measure import Plan
from lineward.runtime.bundle import Bundle, encode_bundle, read_bundle
from lineward.runtime.errors import DataError
from lineward.runtime.trust import AcceptAny

_SEARCHED: dict[str, Any] = {"size": 0, "rows": 0, "precision": FLOAT32, "dimensions": None, "max_drop": 0.0}
_PACKAGES = ("lineward", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "torch")


@dataclass(frozen=True)
class Store:
    """Drafts, banks, accuracies and timings of one search.

    Attributes:
        folder: of this data and recipe; nothing that depends on others is in it.
    """

    folder: Path

    def draft(self, graph: Graph) -> Bundle | None:
        """The draft with a graph, if it is kept: this user's own file, which no key signs."""
        path = self._draft_path(graph)
        return read_bundle(path, AcceptAny()) if path.exists() else None

    def keep_draft(self, graph: Graph, bundle: Bundle) -> None:
        """Keep a draft."""
        self._write(self._draft_path(graph), encode_bundle(bundle.manifest, bundle.members))

    def accuracy(self, candidate: Candidate) -> Accuracy | None:
        """What was found of a candidate, if it was judged."""
        path = self._path(candidate, "json")
        return msgspec.json.decode(path.read_bytes(), type=Accuracy) if path.exists() else None

    def bank(self, candidate: Candidate) -> NDArray[np.float32]:
        """The bank of a candidate that was judged."""
        bank: NDArray[np.float32] = np.load(self._path(candidate, "npy"))
        return bank

    def keep_judged(self, candidate: Candidate, judged: Judged) -> None:
        """Keep a candidate's bank, then its accuracy: where this one is, that one is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self._path(candidate, "npy"), judged.bank)
        self._write(self._path(candidate, "json"), msgspec.json.encode(judged.accuracy))

    def timings(self, device: str) -> dict[Candidate, Timing]:
        """Timings on a device, so far."""
        path = self._device_path(device)
        kept = msgspec.json.decode(path.read_bytes(), type=list[tuple[Candidate, Timing]]) if path.exists() else []
        return dict(kept)

    def keep_timings(self, device: str, timings: dict[Candidate, Timing]) -> None:
        """Keep the timings of a device."""
        self._write(self._device_path(device), msgspec.json.encode(list(timings.items())))

    def _draft_path(self, graph: Graph) -> Path:
        return self.folder / f"{file_stem(graph)}.lineward"

    def _path(self, candidate: Candidate, suffix: str) -> Path:
        return self.folder / f"{file_stem(candidate)}.{suffix}"

    def _device_path(self, device: str) -> Path:
        return self.folder / f"device-{device}.json"

    def _write(self, path: Path, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)


def open_store(panel: Panel, recipe: Recipe) -> Store:
    """The store of these images and this recipe, under LINEWARD_CACHE or build/.

    Args:
        panel: who builds and who judges.
        recipe: every choice that is not searched over.

    Raises:
        DataError: the folder cannot be made.
    """
    versions = [f"{package} {_version(package)}" for package in _PACKAGES]
    facts = [*panel.files(), repr(replace(recipe, **_SEARCHED)), *_mask(recipe), *versions]
    folder = Path(os.environ.get("LINEWARD_CACHE", "build")) / "tune" / _digest(facts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror})", do="name another folder in LINEWARD_CACHE"
        ) from error
    return Store(folder)


def _mask(recipe: Recipe) -> list[str]:
    """What a region's mask holds: the recipe has its name alone."""
    named = recipe.region is not None and Path(recipe.region).is_file()
    return [sha256_of(Path(recipe.region or ""))] if named else []


def device_key(plan: Plan) -> str:
    """One name for this machine, its versions, and how it is used."""
    machine = msgspec.json.encode(read_machine(), order="deterministic").decode()
    return _digest([machine, plan.engine, repr(plan.threads), repr(plan.decoded)])


def _digest(facts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
