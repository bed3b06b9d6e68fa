from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import material
from benchmarks.accuracy.material import Material, Setting, load_material
from benchmarks.accuracy.systems import lineward
from benchmarks.accuracy.systems.lineward import Lineward
from lineward.export.datasets import open_dataset
from lineward.export.synthetic import write_dataset
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.cli.console import NoProgress
from lineward.runtime.errors import TrainingError
from lineward.runtime.images import read_image
from lineward.runtime.inspector import Inspector

RECIPE = Recipe(size=64, rows=64, false_reject_rate=0.3, threshold_method="split")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Material:
    root = tmp_path_factory.mktemp("data") / "parts"
    write_dataset(root, train=8, test_good=2, per_defect=1, size=64, kinds=("stain",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(material, "CACHE", tmp_path_factory.mktemp("cache"))
        return load_material(open_dataset(root), Setting(size=64), NoProgress())


def test_it_scores_as_the_product_inspects(parts: Material, monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(lineward, "train", lambda *args, **kwargs: made.append(train(*args, **kwargs)) or made[-1])
    scores = Lineward(RECIPE)(parts, 3, NoProgress())
    bundle = decode_bundle(made[0], "parts")
    held_out = bundle.manifest.threshold.sample_size
    assert (bundle.manifest.origin.seed, bundle.manifest.origin.images, held_out > 0) == (3, 8 - held_out, True)
    inspector = Inspector(bundle)
    inspected = [inspector.inspect(read_image(path)) for path in parts.test.paths]
    np.testing.assert_allclose(scores.images, [each.score for each in inspected], rtol=1e-5)
    assert scores.patches.shape == (len(parts.test.samples), parts.setting.side, parts.setting.side)
    assert scores.patches.dtype == np.float32
    assert scores.patches.min() >= 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 128), ("levels", (8,)), ("backbone", "efficientnet_lite1"), ("weights", Path("other.pth"))],
)
def test_a_recipe_of_another_setting_is_refused(field, value, parts: Material):
    with pytest.raises(TrainingError, match=f"a recipe with {field} "):
        Lineward(Recipe(**{"size": 64, field: value}))(parts, 0, NoProgress())
