"""The whole comparison, from material to results."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import building, end_to_end, growth, similarity
from benchmarks.peers.material import Material, make_material, preset_bundle, write_frame
from benchmarks.peers.report import write_report
from benchmarks.peers.workers import THREADS, Contender, Outcome, quartiles, ratios, take_turns
from benchmarks.results_file import write_results
from lineward.runtime.bundle import read_bundle
from lineward.runtime.trust import AcceptAny

BANKS = (2048, 16384)
GOOD_IMAGES = 209
"""Good images of MVTec AD's bottle: a tenth of their patches is anomalib's bank."""
AGREE = 1e-4
"""How far two similarities of the same query may lie apart."""
PEERS = ("anomalib", "faiss-cpu", "numpy", "onnxruntime", "openvino", "scikit-learn", "torch")


def compare(rounds: int) -> None:
    """Run everything, and write both files.

    Args:
        rounds: of the similarity stage; elsewhere fewer.
    """
    few = max(2, rounds // 2)
    with tempfile.TemporaryDirectory(prefix="lineward-") as scratch:
        folder = Path(scratch)
        material, frame = make_material(folder), write_frame(folder)
        figures: dict[str, Any] = {
            "threads": THREADS,
            "rounds": rounds,
            "peers": {name: version(name) for name in PEERS},
            "similarity": {str(rows): _similarity(material, rows, rounds) for rows in BANKS},
            "end_to_end": _end_to_end(folder, frame, few),
            "growth": {
                "bank": growth.with_bank_size(material, few),
                "dimension": growth.with_dimension(folder, few),
                "input": growth.with_input_size(folder, frame, few),
            },
            "building": _building(material, max(2, rounds // 5)),
        }
    write_report(write_results("peers", "make peers", figures))


def _similarity(material: Material, rows: int, rounds: int) -> dict[str, Any]:
    """Everyone's similarity stage, and the rate of a square product in the same rounds."""
    asked = similarity.contenders(material.ours(rows), material.bank_file(rows), material.queries)
    outcomes = take_turns({**asked, "square product": Contender(similarity.gemm_peak)}, rounds, calls=3)
    peak = outcomes.pop("square product")
    expected = outcomes["numpy"].result
    queries, width = np.load(material.queries).shape
    rate = 2 * queries * width * rows / outcomes[similarity.OURS].median
    best = 2 * 1024**3 / min(peak.seconds)
    found = _compared(outcomes, similarity.OURS)
    for name, outcome in outcomes.items():
        apart = float(np.abs(np.asarray(outcome.result) - expected).max())
        assert apart <= AGREE, f"{name}: similarities {apart:.2g} from numpy's"
        found[name]["greatest_difference"] = apart
    return {
        "queries": queries,
        "dimensions": width,
        "contenders": found,
        "square_product_gflops": round(best / 1e9, 1),
        "effective_gflops": round(rate / 1e9, 1),
        "effective_rate_by_square_product": round(rate / best, 3),
    }


def _end_to_end(folder: Path, frame: Path, rounds: int) -> dict[str, Any]:
    bundles = {preset: preset_bundle(folder, preset) for preset in ("fast", "balanced")}
    rows = {preset: read_bundle(path, AcceptAny()).manifest.rows for preset, path in bundles.items()}
    contenders = {
        f"Lineward {preset}": Contender(end_to_end.lineward, (path, frame)) for preset, path in bundles.items()
    }
    coreset = GOOD_IMAGES * 1024 // 10
    models = {f"anomalib WRN50, {coreset} rows": ("wide_resnet50_2", coreset)}
    models |= {f"anomalib resnet18, {rows[preset]} rows": ("resnet18", rows[preset]) for preset in bundles}
    for name, (backbone, count) in models.items():
        graph = folder / f"{backbone}-{count}.onnx"
        end_to_end.export_anomalib(backbone, count, graph)
        contenders[f"{name}, torch"] = Contender(end_to_end.anomalib_torch, (backbone, count, frame))
        contenders[f"{name}, onnxruntime"] = Contender(end_to_end.anomalib_onnxruntime, (graph, frame))
        contenders[f"{name}, OpenVINO"] = Contender(end_to_end.anomalib_openvino, (graph, frame))
    outcomes = take_turns(contenders, rounds, calls=2)
    return {
        "frame": "1024x1024 RGB, uint8",
        "rows": rows,
        "as_multiples_of": {preset: _compared(outcomes, f"Lineward {preset}") for preset in bundles},
    }


def _building(material: Material, rounds: int) -> dict[str, Any]:
    outcomes = take_turns(building.contenders(material.pool), rounds, calls=1)
    found = _compared(outcomes, building.OURS)
    for name, outcome in outcomes.items():
        found[name]["held_out_mean"], found[name]["held_out_greatest"] = (round(v, 4) for v in outcome.result)
    return {"patches": building.PATCHES, "held_out": building.HELD_OUT, "rows": building.BANK, "contenders": found}


def _compared(outcomes: Mapping[str, Outcome], ours: str) -> dict[str, dict[str, Any]]:
    """Milliseconds and multiples of ours, each as lower quartile, median and upper quartile over the rounds."""
    multiples = ratios(outcomes, ours)
    return {
        name: {
            "milliseconds": [round(1e3 * s, 3) for s in quartiles(outcome.seconds)],
            "multiple_of_ours": [round(m, 3) for m in multiples[name]],
            "resident_mib": round(outcome.resident_mib, 1),
        }
        for name, outcome in outcomes.items()
    }
