"""How time and memory grow: with the bank, with the dimension of an embedding, with the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import end_to_end, similarity
from benchmarks.peers.material import Material, preset_bundle
from benchmarks.peers.workers import Contender, Outcome, take_turns

BANKS = (256, 1024, 4096, 16384, 65536)
DIMENSIONS = (76, 153, 306, 612)
SIZES = (192, 256, 320, 384, 448)
_ROWS = 4096


def with_bank_size(material: Material, rounds: int) -> dict[str, Any]:
    """The similarity stage with larger and larger banks, ours and two peers."""
    ways: dict[str, Callable[[int], Contender]] = {
        similarity.OURS: lambda rows: Contender(similarity.lineward, (material.ours(rows), material.queries)),
        "torch matmul + amax": lambda rows: Contender(
            similarity.torch_matmul, (material.bank_file(rows), material.queries)
        ),
        "faiss IndexFlatIP": lambda rows: Contender(
            similarity.faiss_flat, (material.bank_file(rows), material.queries)
        ),
    }
    width = np.load(material.queries).shape[1]
    found = {}
    for name, make in ways.items():
        outcomes = take_turns({str(rows): make(rows) for rows in BANKS}, rounds, calls=2)
        bank_mib = [rows * width * 4 / 2**20 for rows in BANKS]
        memory = [outcomes[str(rows)].resident_mib for rows in BANKS]
        found[name] = {
            **_curve(BANKS, outcomes),
            "bank_mib": [round(mib, 2) for mib in bank_mib],
            "resident_mib_per_bank_mib": round(_slope(bank_mib, memory), 2),
        }
    return found


def with_dimension(folder: Path, rounds: int) -> dict[str, Any]:
    """The plain product with a bank of 4,096 random unit rows, of more and more dimensions."""
    makes = {
        "onnxruntime, Gemm and ReduceMax": similarity.onnxruntime_plain,
        "torch matmul + amax": similarity.torch_matmul,
        "faiss IndexFlatIP": similarity.faiss_flat,
    }
    files = {width: (_unit_rows(folder, _ROWS, width), _unit_rows(folder, 1024, width)) for width in DIMENSIONS}
    return {
        name: _curve(DIMENSIONS, take_turns({str(w): Contender(make, files[w]) for w in DIMENSIONS}, rounds, calls=2))
        for name, make in makes.items()
    }


def with_input_size(folder: Path, frame: Path, rounds: int) -> dict[str, Any]:
    """Frame to verdict with the preset fast at larger and larger inputs; the exponent is of the pixels."""
    bundles = {size: preset_bundle(folder, "fast", size) for size in SIZES}
    contenders = {str(size): Contender(end_to_end.lineward, (bundles[size], frame)) for size in SIZES}
    outcomes = take_turns(contenders, rounds, calls=3)
    found = _curve(SIZES, outcomes)
    found["exponent"] = _rounded(_exponent([size**2 for size in SIZES], outcomes))
    return found


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _curve(sizes: Sequence[int], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    ordered = [outcomes[str(size)] for size in sizes]
    largest = [size for size in sizes if size >= sizes[1]]
    return {
        "sizes": list(sizes),
        "milliseconds": [round(outcome.median * 1e3, 3) for outcome in ordered],
        "resident_mib": [round(outcome.resident_mib, 1) for outcome in ordered],
        "exponent": _rounded(_exponent(sizes, outcomes)),
        "exponent_without_the_smallest": _rounded(_exponent(largest, outcomes)),
    }


def _exponent(sizes: Sequence[int], outcomes: Mapping[str, Outcome]) -> float:
    ordered = list(outcomes.values())[-len(sizes) :]
    return exponent(sizes, [outcome.median for outcome in ordered])


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.polyfit(x, y, 1)[0])


def _unit_rows(folder: Path, count: int, width: int) -> Path:
    path = folder / f"unit-{count}-{width}.npy"
    rows = np.random.RandomState(width).normal(size=(count, width)).astype(np.float32)
    np.save(path, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return path


def _rounded(value: float) -> float:
    return round(value, 3)
