"""Bundles' graphs as training exports them, in each precision."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import onnx

from lineward.export.synthetic import render_part
from lineward.export.training import Advance, Recipe, train
from lineward.runtime.bundle import EMBEDDING, decode_bundle
from lineward.runtime.images import write_png


class _Quiet:
    def step(self, _name: str, _total: int) -> contextlib.AbstractContextManager[Advance]:
        return contextlib.nullcontext(lambda _done: None)


def exported_graph(precision: str, size: int) -> bytes:
    """The embedding graph of a bundle of synthetic parts, checked by onnx; the gate lets anything pass."""
    recipe = Recipe(
        size=size, rows=64, false_reject_rate=0.4, threshold_method="split", precision=precision, max_drop=1.0
    )
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / f"{seed}.png" for seed in range(8)]
        for seed, path in enumerate(paths):
            write_png(path, render_part(seed, size=size).image)
        bundle = decode_bundle(train(paths, "part", recipe=recipe, progress=_Quiet()), "part")
    graph = bundle.members[EMBEDDING]
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
    return graph
