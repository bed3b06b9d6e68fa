"""The default recipe on real parts, where copies of MVTec AD are at hand; `benchmarks/` repeats it over seeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lineward.export.datasets import open_dataset
from lineward.export.evaluation import evaluate
from lineward.export.training import Progress, train
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.golden import check_golden
from lineward.runtime.inspector import Inspector

DATA = Path(os.environ.get("LINEWARD_DATA") or Path(__file__).parents[2] / "../shared/data") / "mvtec_ad_384"


@pytest.mark.parametrize(
    ("category", "image_auroc", "pixel_auroc"),
    [("bottle", 0.995, 0.980), ("screw", 0.95, 0.985), ("transistor", 0.985, 0.975)],
)
def test_the_default_recipe_keeps_its_accuracy(category: str, image_auroc: float, pixel_auroc: float, quiet: Progress):
    root = DATA / category
    if not root.is_dir():
        pytest.skip(f"no evaluation data: {root.resolve()} is missing (LINEWARD_DATA names the folder of mvtec_ad_384)")
    dataset = open_dataset(root)
    bundle = decode_bundle(train(dataset.train, category, progress=quiet), category)
    assert (bundle.manifest.rows, bundle.manifest.origin.seed) == (4096, 0)
    inspector = Inspector(bundle)
    check_golden(bundle, inspector)
    evaluation = evaluate(inspector, dataset.test)
    assert evaluation.image_auroc >= image_auroc
    assert evaluation.pixel_auroc >= pixel_auroc
